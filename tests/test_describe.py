"""describe(tx, params): its fields are what init and hyperparams say, and its table reads in 100 columns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from catalogue import ALIASES, ENTRIES
from gradtx.formulas.direction import Coupling, Direction


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


PARAMS = {"embed": shape(6, 4), "layer": {"kernel": shape(4, 3)}}
TREE = {**PARAMS, "layer": {"bias": shape(3), "kernel": shape(4, 3)}, "norm": {"scale": shape(4)}}
COSINE = gradtx.warmup_cosine_decay_schedule(0.0, 3e-4, 100, 1000)


def forms():
    for name, entry in ENTRIES.items():
        plain = () if name not in ALIASES else (pytest.mark.full,)
        yield pytest.param(entry, "", id=name, marks=plain)
        for variant in [*entry.variants, *entry.layouts]:
            yield pytest.param(entry, variant, id=f"{name}-{variant}", marks=pytest.mark.full)


@pytest.mark.parametrize("entry, variant", list(forms()))
def test_every_entry_is_described_as_it_is(entry, variant):
    tx = entry.transform(variant)
    found = gradtx.describe(tx, PARAMS, 10)
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 100

    state = jax.eval_shape(tx.init, PARAMS)
    sizes = [x.size * x.dtype.itemsize for x in jax.tree.leaves(state)]
    assert found.state_nbytes == sum(sizes)
    assert found.parameters == 36

    names = gradtx.hyperparams(jax.tree.map(lambda x: np.ones(x.shape, x.dtype), state))
    steps = [step for outer in found.parts for step in outer.all()]
    shown = {name for step in steps for name in step.hyperparams}
    assert shown <= set(names)
    # A number of a schedule, or of a part that counts its own, stands under the name of the whole.
    assert {name for name in names if not any(name.startswith(f"{n}.") for n in shown)} == shown
    for step in steps:
        assert any(line.lstrip().startswith(step.path[-1]) for line in lines)
        assert step.purpose or step.kind in ("group", "branch")


def all_steps(found):
    return {step.name: step for outer in found.parts for step in outer.all()}


def test_a_clipped_adamw():
    decayed = gradtx.adamw(COSINE, weight_decay=0.1, mask=("!*bias", "!*norm*"))
    found = gradtx.describe(gradtx.chain(gradtx.clip_by_global_norm(1.0), decayed), TREE)
    steps = all_steps(found)
    assert list(steps) == [
        "clip_by_global_norm",
        "adamw",
        "scale_by_adam",
        "add_decayed_weights",
        "scale_by_learning_rate",
    ]
    assert [slot.nbytes for slot in steps["scale_by_adam"].slots] == [43 * 4] * 2
    assert (steps["add_decayed_weights"].leaves, steps["add_decayed_weights"].parameters) == (2, 36)
    assert steps["add_decayed_weights"].mask == "('!*bias', '!*norm*')"
    (rate,) = found.schedules
    assert rate.name == "learning_rate" and rate.settles == 1000
    at = [rate.start, rate.peak, rate.middle, rate.end]
    assert [step for step, _ in at] == [0, 100, 500, 1000]
    np.testing.assert_allclose([v for _, v in at], [0, 3e-4, 3e-4 * (1 + np.cos(np.pi * 4 / 9)) / 2, 0], 1e-6)
    assert set(found.directions.values()) == {Direction.DESCENT}
    assert list(found.decays) == ["embed", "layer/kernel"]
    decay = found.decays["embed"]
    assert decay.coupling is Coupling.RATE
    assert decay.half_life == pytest.approx(np.log(2) / 3e-5, rel=1e-3)
    assert "add_decayed_weights     2 of 4          36" in str(found)


def test_the_groups_of_a_partition():
    groups = {"slow": gradtx.sgd(0.1), "fast": gradtx.adam(COSINE), "frozen": gradtx.set_to_zero()}
    labels = {"embed": "slow", "norm*": "frozen", "*": "fast"}
    found = gradtx.describe(gradtx.partition(groups, labels), TREE)
    counts = {step.name: (step.leaves, step.parameters, step.nbytes) for step in found.parts}
    assert counts == {"slow": (1, 24, 0), "fast": (2, 15, 15 * 8), "frozen": (1, 4, 0)}
    assert [step.name for step in found.parts[1].inside[0].all()] == [
        "fast.adam",
        "fast.scale_by_adam",
        "fast.scale_by_learning_rate",
    ]
    assert found.directions["norm/scale"] is Direction.NONE
    assert "no movement, whatever the gradient: norm/scale\n" in str(found)


def test_what_wrappers_wrap_is_inside_of_them():
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(COSINE))
    found = gradtx.describe(gradtx.accumulate(gradtx.guard(clipped), 4), TREE, steps=2000)
    (outer,) = found.parts
    (guard,) = outer.inside
    assert guard.name == "accumulate.inner.guard"
    assert [step.name.removeprefix(guard.name + ".inner.") for step in guard.inside] == [
        "clip_by_global_norm",
        "adamw",
    ]
    assert outer.nbytes == guard.nbytes + sum(slot.nbytes for slot in outer.slots)
    (rate,) = found.schedules
    assert (rate.counts, rate.steps, rate.end[0]) == ("accumulate", 500, 499)
    assert "Schedules inside accumulate count its updates." in str(found)


def test_a_chain_without_a_sign_is_said_aloud():
    found = gradtx.describe(gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(1e-3)), PARAMS)
    assert str(found).splitlines()[1].startswith("ASCENT") and "all leaves" in str(found)


def test_the_kinds_of_decay_are_told_apart():
    def coupling(tx):
        return gradtx.describe(tx, PARAMS).decays["embed"].coupling

    assert coupling(gradtx.adam(1e-3, weight_decay=0.1)) is Coupling.COUPLED
    assert coupling(gradtx.adamw(1e-3, weight_decay=0.1, decay_coupling="none")) is Coupling.INDEPENDENT
    by_schedule = gradtx.adamw(1e-3, weight_decay=0.1, decay_coupling="schedule", schedule=COSINE)
    assert coupling(by_schedule) is Coupling.SCHEDULE


def test_another_librarys_transform_is_a_line():
    adam = optax.adam(1e-3)
    with jax.numpy_dtype_promotion("standard"):
        _, foreign = gradtx.describe(gradtx.chain(gradtx.clip(1.0), adam), PARAMS).parts
        alone = gradtx.describe(adam, PARAMS)
        (gathered,) = gradtx.describe(gradtx.accumulate(adam, 2), PARAMS).parts
    assert foreign.name == "foreign" and "optax" in foreign.purpose
    assert foreign.nbytes == alone.state_nbytes == gathered.inside[0].nbytes == 36 * 8 + 4
    assert alone.directions["embed"] is Direction.DESCENT


def test_what_cannot_be_traced_has_no_direction():
    """A line search needs the loss, which its signature does not say."""
    found = gradtx.describe(gradtx.chain(gradtx.clip(1.0), optax.lbfgs()), PARAMS)
    assert set(found.directions.values()) == {Direction.UNKNOWN}
    assert not gradtx.check(optax.lbfgs(), PARAMS)


def test_parallel_branches_and_bare_masks():
    masked = gradtx.masked(gradtx.trace(0.9), "embed")
    tx = gradtx.chain(gradtx.add(gradtx.add(gradtx.sign(), gradtx.scale(2.0)), masked), gradtx.scale(-1.0))
    join, last = gradtx.describe(tx, PARAMS).parts
    assert (join.kind, last.name) == ("join", "scale_1")
    inner, trace = join.inside
    assert [step.name for step in inner.inside[0].all()][::2] == ["add", "sign", "scale"]
    assert (trace.inside[0].mask, trace.inside[0].leaves) == ("'embed'", 1)


def test_a_schedule_that_never_settles_has_no_end_unless_the_run_has():
    def course(rate, steps=None):
        return gradtx.describe(gradtx.sgd(rate), PARAMS, steps).schedules[0]

    endless = gradtx.exponential_decay(1.0, 10, 0.5)
    assert (course(endless).end, course(endless).peak) == (None, None)
    assert course(endless, 11).end == (10, 0.5) and course(endless, 11).peak == (0, 1.0)
    code = course(lambda step: 1.0 / (1 + step).astype(jnp.float32), 10)
    assert (code.end, code.middle, code.peak) == ((9, pytest.approx(0.1)), (4, pytest.approx(0.2)), None)


def test_the_run_has_a_step():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        gradtx.describe(gradtx.sgd(0.1), PARAMS, 0)


def test_nothing_is_remembered_by_the_transform():
    """An array given as a number is in force until the transform has made a state; looking makes none."""
    tx = gradtx.sgd(jnp.float32(0.5))
    gradtx.describe(tx, PARAMS)
    assert "_initialised" not in vars(tx)
