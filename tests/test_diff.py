"""`diff` names where two optimizers part, and what is responsible."""

import ast
import functools
import inspect
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from catalogue import ALIASES, ENTRIES
from gradtx.core.numbers.schedule import SCHEDULES
from gradtx.core.numerics import abs_sq, divide, sqrt
from gradtx.schedules.linear import LinearSchedule
from gradtx.transforms.adam import ScaleByAdam
from gradtx.transforms.lion import ScaleByLion
from gradtx.transforms.momentum import Trace
from rotation import one_of
from test_founding_formulas import PUBLIC, ROWS

ALIKE = [
    {"full-batch", "one-sample", "mini-batch"},
    {"momentum", "momentum-by-parts"},
    {"adam", "linear-adam"},
    {"adamw", "linear-adamw"},
    {"adadelta", "linear-adadelta"},
]
"""Rows that are one optimizer in other words, or on other data."""

CAUSES = {
    ("momentum", "momentum-first-step-undamped"): "sgd.dampen_first",
    ("momentum-plain", "momentum-nesterov"): "sgd.nesterov",
    ("momentum-rate-inside", "momentum-rate-outside"): "the order",
    ("adagrad", "adagrad-start"): "adagrad.initial_accumulator_value, adagrad.weight_decay",
    ("rmsprop-eps-outside", "rmsprop-lecture"): "rmsprop.first_gradient",
    ("rmsprop-eps-outside", "rmsprop-centered"): "rmsprop.eps_in_sqrt, rmsprop.centered",
    ("adadelta", "adadelta-coupled"): "adadelta.weight_decay",
    ("adam", "adam-efficient"): "adam.eps_scaled",
    ("adam", "adam-uncorrected"): "adam.bias_correction",
    ("adam", "adam-l2"): "adam.weight_decay",
    ("adam", "adam-nesterov"): "scale_by_adam.nesterov",
    ("adam", "adam-stored"): "adam.mu_dtype",
    ("adam", "adamw"): "add_decayed_weights",
    ("adam-l2", "adamw"): "the order",
    ("adamw", "adamw-eps-inside"): "adamw.eps, adamw.eps_root",
    ("adamw", "adamw-independent"): "adamw.learning_rate, adamw.decay_coupling",
    ("adamw", "adamw-paper"): "adamw.decay_coupling, adamw.schedule",
    ("adamw-defaults", "adamw-optax-defaults"): "adamw.weight_decay",
}
"""What two rows of the table differ in, as their formulas say."""


@functools.cache
def convention(name):
    return eval(ROWS[name].ours, PUBLIC)


def arguments(name):
    """The function that a row calls, and the code of its arguments."""
    call = ast.parse(ROWS[name].ours, mode="eval").body
    keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
    signature = inspect.signature(PUBLIC[call.func.id])
    return call.func.id, dict(signature.bind(*map(ast.unparse, call.args), **keywords).arguments)


def check(one, other):
    found = gradtx.diff(convention(one), convention(other))
    assert bool(found) != any({one, other} <= rows for rows in ALIKE)
    assert bool(found) == bool(found.causes)
    (name, ours), (another, theirs) = arguments(one), arguments(other)
    if name == another != "chain":
        changed = {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)}
        assert {cause.name for cause in found.causes} <= changed
    assert max(map(len, str(found).splitlines())) <= 100


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("one, other", CAUSES)
def test_the_convention_responsible_is_named(one, other):
    found = gradtx.diff(convention(one), convention(other))
    assert ", ".join(cause.where for cause in found.causes) == CAUSES[one, other]
    check(other, one)


@pytest.mark.full
@pytest.mark.parametrize("one, other", list(itertools.combinations(ROWS, 2)))
def test_every_pair_of_conventions(one, other):
    check(one, other)


class EpsInside(ScaleByAdam, name="scale_by_adam"):
    """eps inside the root for outside."""

    def apply(self, g, slots, leaf):
        mu, nu = self.b1.mix(slots.mu, g), self.b2.mix(slots.nu, abs_sq(g))
        return divide(leaf.of_mu * mu, sqrt(leaf.of_nu * nu + leaf.eps)), {"mu": mu, "nu": nu}


class BetasSwapped(ScaleByLion, name="scale_by_lion"):
    """The step's mix in the slot, and the slot's in the step."""

    def apply(self, g, slots, leaf):
        return jnp.sign(self.b2.mix(slots.mu, g)), {"mu": self.b1.mix(slots.mu, g)}


class NotYetCounted(ScaleByAdam, name="scale_by_adam"):
    """A bias correction with the step from 0 for 1."""

    def prepare(self, now):
        now.t = now.t + 1
        return super().prepare(now)


class Undampened(Trace, name="trace"):
    """Dampening that is forgotten."""

    def apply(self, g, slots, leaf):
        velocity = self.decay * slots.trace + g
        return velocity, {"trace": velocity}


def step_ahead(line):
    """A schedule that is one step ahead; states go on to know the right one by the name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(SCHEDULES, line.name)

        class StepAhead(LinearSchedule, name=line.name):
            def at(self, step):
                return super().at(step + 1)

    return StepAhead(**line._values())


def adam(mutant):
    return mutant(**gradtx.scale_by_adam()._values())


LINE = gradtx.linear_schedule(0.1, 0.01, 10)
MUTANTS = {
    "eps inside": (gradtx.scale_by_adam(), adam(EpsInside), "update", "the code of scale_by_adam"),
    "a step late": (gradtx.scale_by_adam(), adam(NotYetCounted), "update", "the code of scale_by_adam"),
    "betas swapped": (
        gradtx.lion(1e-3),
        gradtx.chain(
            BetasSwapped(**gradtx.scale_by_lion()._values()),
            gradtx.add_decayed_weights(1e-3),
            gradtx.scale_by_learning_rate(1e-3),
        ),
        "mu",
        "the code of scale_by_lion",
    ),
    "undampened": (
        gradtx.trace(0.9, dampening=0.5),
        Undampened(**gradtx.trace(0.9, dampening=0.5)._values()),
        "trace",
        "the code of trace",
    ),
    "a step ahead": (
        gradtx.sgd(LINE),
        gradtx.sgd(step_ahead(LINE)),
        "update",
        "sgd.the code of linear_schedule",
    ),
    "a sign lost": (
        gradtx.adam(1e-3),
        gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(1e-3)),
        "update",
        "scale_by_learning_rate or scale",
    ),
    "decay coupled": (
        gradtx.adamw(1e-3),
        gradtx.chain(
            gradtx.add_decayed_weights(1e-4), gradtx.scale_by_adam(), gradtx.scale_by_learning_rate(1e-3)
        ),
        "mu",
        "the order",
    ),
}


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_mutant_is_named(mutant):
    right, wrong, name, cause = MUTANTS[mutant]
    found = gradtx.diff(right, wrong)
    assert (found.first.step, found.first.name) == (0, name)
    assert [c.where for c in found.causes] == [cause]


@pytest.mark.by_turns(4)
@pytest.mark.parametrize(
    "name", one_of(4, [n for n in ENTRIES if n not in ALIASES and ENTRIES[n].alternative])
)
def test_every_entry_is_told_from_its_alternative_and_not_from_itself(name):
    """The causes are numbers, in which an alternative differs, and found to be needed one by one."""
    entry, params = ENTRIES[name], {"kernel": jax.ShapeDtypeStruct((4, 3), "float32")}
    tx, other = entry.transform(), entry.transform("alternative")
    assert not gradtx.diff(tx, entry.transform(), params)
    found = gradtx.diff(tx, other, params)
    assert bool(found) == bool(found.causes) == (entry.settings != entry.alternative)
    for cause in found.causes:
        assert cause.a != cause.b and (cause.a in repr(tx) or cause.b in repr(other))


ADAMW = gradtx.adamw(1e-3)
BY_BIAS = {"*bias": "b", "*": "a"}
WRITTEN = {
    "a wrapper more, and a rate": (gradtx.guard(ADAMW), gradtx.adamw(2e-3), "adamw.learning_rate", "guard"),
    "a wrapper more": (gradtx.guard(ADAMW), ADAMW, "guard", ""),
    "a wrapper in the middle": (
        gradtx.accumulate(gradtx.guard(ADAMW), 8),
        gradtx.accumulate(ADAMW, 4),
        "accumulate.every",
        "accumulate.guard",
    ),
    "a mask": (gradtx.masked(ADAMW, "!*bias"), ADAMW, "masked", ""),
    "a group": (
        gradtx.partition({"a": gradtx.adamw(0.1), "b": gradtx.adamw(0.1)}, BY_BIAS),
        gradtx.partition({"a": gradtx.adamw(0.1), "b": gradtx.adamw(0.2)}, BY_BIAS),
        "partition['b'].adamw.learning_rate",
        "",
    ),
    "a name": (
        gradtx.named_chain(("x", gradtx.clip(1.0)), ("y", gradtx.sgd(0.1))),
        gradtx.named_chain(("x", gradtx.clip(2.0)), ("y", gradtx.sgd(0.1))),
        "named_chain['x'].clip.max_delta",
        "",
    ),
    "the second of a name": (
        gradtx.chain(gradtx.scale(2.0), gradtx.sgd(0.1), gradtx.scale(3.0)),
        gradtx.chain(gradtx.scale(2.0), gradtx.sgd(0.1), gradtx.scale(4.0)),
        "scale_1.step_size",
        "",
    ),
    "one more of a name": (
        gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1)),
        gradtx.chain(gradtx.clip(1.0), gradtx.clip(0.5), gradtx.sgd(0.1)),
        "clip",
        "",
    ),
    "one for two": (
        gradtx.adam(1e-3),
        gradtx.lion(1e-3),
        "scale_by_adam or scale_by_lion",
        "add_decayed_weights",
    ),
}


@pytest.mark.wide
@pytest.mark.parametrize("case", WRITTEN)
def test_the_cause_is_as_small_as_what_is_written_differently(case):
    one, other, cause, also = WRITTEN[case]
    found = gradtx.diff(one, other)
    assert ", ".join(c.where for c in found.causes) == cause
    assert ", ".join(c.where for c in found.others) == also


RARE = {
    "a long period": [gradtx.accumulate(gradtx.sgd(0.1), k) for k in (30, 40)],
    "a high bound": [gradtx.clip_by_global_norm(bound) for bound in (1e3, 2e3)],
    "a condition of later": [
        gradtx.conditionally_mask(gradtx.sgd(0.1), lambda step, n=n: step < n) for n in (100, 200)
    ],
    "a gradient that is not finite": [gradtx.apply_if_finite(ADAMW, 3), ADAMW],
    "spikes": [gradtx.guard(ADAMW, deviations=x) for x in (3.0, 6.0)],
    "elements of one leaf": [gradtx.clip_by_block_rms(0.5), gradtx.clip(0.5)],
    "a rate as a function": [
        gradtx.sgd(lambda step, n=n: jnp.where(step < n, 0.1, 0.0)) for n in (1_500, 100_000)
    ],
}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("case", RARE)
def test_what_happens_rarely_is_seen(case):
    assert gradtx.diff(*RARE[case]).causes


def test_rows_and_columns_are_told_from_the_whole():
    params = {"w": jax.ShapeDtypeStruct((8, 8), "float32")}
    found = gradtx.diff(gradtx.adafactor(1e-3), gradtx.adafactor(1e-3, min_dim_size_to_factor=4), params)
    assert [c.name for c in found.causes] == ["min_dim_size_to_factor"]


def test_a_schedule_that_parts_late():
    halved = [gradtx.piecewise_constant_schedule(0.1, {step: 0.5}) for step in (150_123, 50_123)]
    found = gradtx.diff(*map(gradtx.sgd, halved))
    assert (found.first.step, found.first.name, found.first.leaf) == (50_123, "learning_rate", None)
    assert (found.first.a, found.first.b) == pytest.approx((0.1, 0.05))
    assert found.update.step == 2**16  # one of those that are looked at, far out
    assert [c.where for c in found.causes] == ["sgd.piecewise_constant_schedule.boundaries_and_scales"]


def test_a_difference_on_some_leaves_names_the_first():
    params = {
        "bias": jax.ShapeDtypeStruct((3,), "float32"),
        "kernel": jax.ShapeDtypeStruct((2, 3), "float32"),
    }
    one, other = gradtx.adamw(0.1), gradtx.adamw(0.1, mask="!bias")
    assert gradtx.diff(one, other, params).first.leaf == "bias"
    assert gradtx.diff(one, gradtx.adamw(0.1, mask="!kernel"), params).first.leaf == "kernel"
    assert not gradtx.diff(other, gradtx.adamw(0.1, mask="kernel"), params)


def test_slots_of_one_name_in_two_groups():
    """Each has the name that tells it from the other."""
    groups = [{"b": gradtx.adam(0.1), "a": gradtx.chain(gradtx.adam(0.1, b1=b1))} for b1 in (0.9, 0.8)]
    found = gradtx.diff(*(gradtx.partition(of, BY_BIAS) for of in groups))
    assert found.first.name == "a.scale_by_adam.mu"
    assert [c.where for c in found.causes] == ["partition['a'].adam.b1"]
    assert found.formulas[0] == "a.adam.b1 a.scale_by_adam.mu + (1 - a.adam.b1) g"


@pytest.mark.wide
def test_another_librarys_optimizer_is_followed_too():
    """Its constants are rounded to float32, and so are the differences that count."""
    with jax.numpy_dtype_promotion("standard"):
        assert not gradtx.diff(gradtx.adam(1e-3), optax.adam(1e-3))
        inside = [gradtx.accumulate(adam(1e-3), 2) for adam in (gradtx.adam, optax.adam)]
        assert gradtx.diff(*inside).update is None
        found = gradtx.diff(gradtx.chain(optax.scale_by_adam(), gradtx.scale(-1e-3)), optax.nadam(1e-3))
    assert found.first.name == "update" and found.causes


def test_the_report():
    report = str(gradtx.diff(gradtx.adamw(1e-3), gradtx.adamw(1e-3, decay_coupling="none", b2=0.99)))
    assert report.splitlines() == [
        "a: adamw(0.001)",
        "b: adamw(0.001, b2=0.99, decay_coupling='none')",
        "They part at step 0 in the nu of 'LayerNorm/bias': 5.415e-06 and 5.415e-05.",
        "Their updates part at step 0 in the update of 'LayerNorm/bias': -0.001 and -0.00107.",
        "Because of:",
        "    adamw.b2: 0.999 in a, 0.99 in b (decay of the second moment, in [0, 1))",
        "Also different:",
        "    adamw.decay_coupling: 'rate' in a, 'none' in b (where the decay enters)",
    ]


def test_what_cannot_be_followed_is_said():
    def looped(factor):
        def halve(updates, params):
            return jax.tree.map(lambda u: jax.lax.fori_loop(0, 3, lambda i, x: x * factor, u), updates)

        return gradtx.stateless(halve)

    loop = looped(0.5)
    assert not gradtx.diff(loop, looped(0.5)) and gradtx.diff(loop, looped(0.25))
    assert not gradtx.diff(gradtx.chain(loop, gradtx.trace(0.9)), gradtx.chain(loop, gradtx.trace(0.9)))
    found = gradtx.diff(gradtx.chain(loop, gradtx.trace(0.9)), gradtx.chain(loop, gradtx.trace(0.8)))
    assert found.opaque == ("trace", "update") and found.first.a is None
    assert [c.where for c in found.causes] == ["trace.decay"]
    assert "having no formula: trace, update." in str(found)


def test_what_a_state_rounds_is_no_difference():
    params = {"body": jax.ShapeDtypeStruct((4,), np.float32), "head": jax.ShapeDtypeStruct((4,), np.float32)}
    labels = {"body": "body", "head": "head"}
    scaled = gradtx.chain(gradtx.adamw(1e-3), gradtx.scale_by_group({"head": 10.0, "body": 1.0}, labels))
    groups = gradtx.partition({"head": gradtx.adamw(1e-2), "body": gradtx.adamw(1e-3)}, labels)
    found = gradtx.diff(scaled, groups, params)
    assert not found and found.first is None and found.causes == ()
    assert found.rounding is not None and found.rounding.name == "update"
    assert "They compute the same up to rounding, for " in str(found)
    said = " ".join(str(found).split())
    assert "They differ by rounding alone, since a state keeps each number as the nearest" in said
    assert re.search(r"They first do by \de-0[78] of the value, at step 0 in the update of 'head': ", said)
    assert not gradtx.diff(gradtx.chain(gradtx.sgd(1 / 3), gradtx.scale(3.0)), gradtx.sgd(1.0))


def test_a_number_that_is_written_otherwise_is_no_rounding():
    found = gradtx.diff(gradtx.sgd(0.1), gradtx.sgd(0.10000002))
    assert [change.where for change in found.causes] == ["sgd.learning_rate"] and found.rounding is None
    assert not gradtx.diff(gradtx.sgd(0.1), gradtx.sgd(jnp.float32(0.1)))


def test_rounding_before_a_difference_is_not_its_cause():
    thirds = gradtx.chain(gradtx.trace(0.9), gradtx.scale(1 / 3), gradtx.scale(3.0))
    found = gradtx.diff(thirds, gradtx.chain(gradtx.trace(0.8), gradtx.scale(1.0)))
    assert found.first.step == 1 and found.first.name == "trace"
    assert [change.where for change in found.causes] == ["trace.decay"]
    assert found.rounding is not None and found.rounding.step == 0
    assert "Before that they differ by rounding alone" in str(found)
