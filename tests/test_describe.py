"""describe(tx, params): its fields are what init and hyperparams say, and its table reads in 100 columns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from catalogue import forms
from gradtx.formulas.decay import Coupling
from gradtx.formulas.direction import Direction


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


PARAMS = {"embed": shape(6, 4), "layer": {"kernel": shape(4, 3)}}
TREE = {**PARAMS, "layer": {"bias": shape(3), "kernel": shape(4, 3)}, "norm": {"scale": shape(4)}}
COSINE = gradtx.warmup_cosine_decay_schedule(0.0, 3e-4, 100, 1000)


@pytest.mark.by_turns(6)
@pytest.mark.parametrize("entry, variant", forms(layouts=True, brief=True))
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
    parts = [part for outer in found.parts for part in outer.all()]
    shown = {name for part in parts for name in part.hyperparams}
    assert shown <= set(names)
    # A number of a schedule, or of a part that counts its own, stands under the name of the whole.
    assert {name for name in names if not any(name.startswith(f"{n}.") for n in shown)} == shown
    for part in parts:
        # What is in a group is shown without its name.
        key = f".{part.path[-1]}"
        assert any(
            key.endswith(f".{cell}") for line in lines for cell in line.strip().split("  ")[:1] if cell
        )
        assert part.purpose or part.kind in ("group", "branch")


def all_parts(found):
    return {part.name: part for outer in found.parts for part in outer.all()}


def test_a_clipped_adamw():
    decayed = gradtx.adamw(COSINE, weight_decay=0.1, mask=("!*bias", "!*norm*"))
    found = gradtx.describe(gradtx.chain(gradtx.clip_by_global_norm(1.0), decayed), TREE)
    parts = all_parts(found)
    assert list(parts) == [
        "clip_by_global_norm",
        "adamw",
        "scale_by_adam",
        "add_decayed_weights",
        "scale_by_learning_rate",
    ]
    assert [slot.nbytes for slot in parts["scale_by_adam"].slots] == [43 * 4] * 2
    assert (parts["add_decayed_weights"].leaves, parts["add_decayed_weights"].parameters) == (2, 36)
    assert parts["add_decayed_weights"].mask == "('!*bias', '!*norm*')"
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
    counts = {part.name: (part.leaves, part.parameters, part.nbytes) for part in found.parts}
    assert counts == {"slow": (1, 24, 0), "fast": (2, 15, 15 * 8), "frozen": (1, 4, 0)}
    assert [part.name for part in found.parts[1].inside[0].all()] == [
        "fast.adam",
        "fast.scale_by_adam",
        "fast.scale_by_learning_rate",
    ]
    assert found.directions["norm/scale"] is Direction.NONE
    assert "no movement, whatever the gradient: norm/scale\n" in str(found)


@pytest.mark.wide
def test_what_wrappers_wrap_is_inside_of_them():
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(COSINE))
    found = gradtx.describe(gradtx.accumulate(gradtx.guard(clipped), 4), TREE, steps=2000)
    (outer,) = found.parts
    (guard,) = outer.inside
    assert guard.name == "accumulate.inner.guard"
    assert [part.name.removeprefix(guard.name + ".inner.") for part in guard.inside] == [
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


def test_another_librarys_transform_is_a_line():
    adam = optax.adam(1e-3)
    with jax.numpy_dtype_promotion("standard"):
        _, foreign = gradtx.describe(gradtx.chain(gradtx.clip(1.0), adam), PARAMS).parts
        alone = gradtx.describe(adam, PARAMS)
        (gathered,) = gradtx.describe(gradtx.accumulate(adam, 2), PARAMS).parts
    assert foreign.name == "foreign" and foreign.purpose.startswith("optax.chain: ")
    assert foreign.nbytes == alone.state_nbytes == gathered.inside[0].nbytes == 36 * 8 + 4
    assert alone.directions["embed"] is Direction.DESCENT


def test_what_cannot_be_traced_has_no_direction():
    """A line search needs the loss, which its signature does not say."""
    found = gradtx.describe(gradtx.chain(gradtx.clip(1.0), optax.lbfgs()), PARAMS)
    assert set(found.directions.values()) == {Direction.UNKNOWN}
    (unread,) = gradtx.check(optax.lbfgs(), PARAMS)
    assert unread.name == "unread" and "could not be traced" in unread.what


def test_parallel_branches_and_bare_masks():
    masked = gradtx.masked(gradtx.trace(0.9), "embed")
    tx = gradtx.chain(gradtx.add(gradtx.add(gradtx.sign(), gradtx.scale(2.0)), masked), gradtx.scale(-1.0))
    join, last = gradtx.describe(tx, PARAMS).parts
    assert (join.kind, last.name) == ("join", "scale_1")
    inner, trace = join.inside
    assert [part.name for part in inner.inside[0].all()][::2] == ["add", "sign", "scale"]
    assert (trace.inside[0].mask, trace.inside[0].leaves) == ("'embed'", 1)


def test_a_schedule_that_never_settles_has_no_end_unless_the_run_has():
    def course(rate, steps=None):
        return gradtx.describe(gradtx.sgd(rate), PARAMS, steps).schedules[0]

    endless = gradtx.exponential_decay(1.0, 10, 0.5)
    assert (course(endless).end, course(endless).peak) == (None, None)
    assert course(endless, 11).end == (10, 0.5) and course(endless, 11).peak == (0, 1.0)
    code = course(lambda step: 1.0 / (1 + step).astype(jnp.float32), 10)
    assert (code.end, code.middle, code.peak) == ((9, pytest.approx(0.1)), (4, pytest.approx(0.2)), None)


def test_what_a_part_does_is_in_the_words_of_its_numbers():
    parts = all_parts(gradtx.describe(gradtx.sgd(0.1, momentum=0.9, weight_decay=0.1), PARAMS))
    assert parts["trace"].purpose.startswith("v = momentum v + ")
    assert parts["add_decayed_weights"].purpose == "u = g + weight_decay theta"


def test_a_second_recipe_of_a_name_is_the_same_recipe():
    first, second = gradtx.describe(gradtx.chain(gradtx.sgd(0.1), gradtx.sgd(0.2)), PARAMS).parts
    assert (first.name, second.name) == ("sgd", "sgd_1")
    assert first.purpose == second.purpose != ""


@pytest.mark.parametrize("every, calls, updates", [(4, 2000, 500), (3, 301, 100), (1, 10, 10)])
def test_a_schedule_inside_counts_as_many_updates_as_are_made(every, calls, updates):
    tx = gradtx.accumulate(gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10_000)), every)
    (rate,) = gradtx.describe(tx, PARAMS, calls).schedules
    assert rate.steps == updates


def test_how_many_updates_are_made_where_nobody_knows():
    for tx in (
        gradtx.accumulate(gradtx.sgd(COSINE), lambda updates: 4),
        gradtx.conditionally_mask(gradtx.sgd(COSINE), lambda calls: calls > 9),
    ):
        (rate,) = [c for c in gradtx.describe(tx, PARAMS, 100).schedules if c.name.endswith("learning_rate")]
        assert (rate.steps, rate.counts) == (None, tx.name)


def test_the_pace_of_accumulation_is_that_of_its_updates():
    tx, params = gradtx.accumulate(gradtx.sgd(0.1), 3), np.float32(0)
    state = tx.init(params)
    for _ in range(10):
        _, state = tx.update(np.float32(1), state, params)
    assert int(state["slots"]["accumulate"]["clock"]) == tx.updates_in(10) == 3


def test_what_is_no_array_is_left_out_where_init_takes_it():
    tx = gradtx.masked(gradtx.sgd(0.1), {"a": False, "b": True})
    found = gradtx.describe(tx, {"a": "text", "b": shape(2)})
    assert (found.leaves, found.parameters) == (1, 2)


@pytest.mark.parametrize("look", [gradtx.describe, gradtx.check])
def test_arguments_of_another_kind_are_refused(look):
    tx = gradtx.sgd(0.1)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        look(tx, PARAMS, 0)
    with pytest.raises(TypeError, match="steps must be a whole number, got '10'"):
        look(tx, PARAMS, "10")
    with pytest.raises(TypeError, match="params is None"):
        look(tx, None)
    with pytest.raises(TypeError, match=f"{look.__name__} takes transforms, with init and update; got 3"):
        look(3, PARAMS)


def test_nothing_is_remembered_by_the_transform():
    """An array given as a number is in force until the transform has made a state; looking makes none."""
    tx = gradtx.sgd(jnp.float32(0.5))
    gradtx.describe(tx, PARAMS)
    assert "_initialised" not in vars(tx)


def test_a_slot_in_a_format_is_named_once_and_says_which_leaves_are_not_in_it():
    params = {
        "kernel": shape(64, 128),
        "odd": shape(128, 65),
        "phase": shape(64, 128, dtype=jnp.complex64),
        "bias": shape(128),
        "temperature": shape(),
        "told": shape(64, 128),
    }
    said = {"told": "float32", "*": "int4"}
    real = gradtx.masked(gradtx.store(gradtx.trace(0.9), trace=said, min_size=1), "!phase")
    trace = all_parts(gradtx.describe(real, params))["trace"].slots[0]
    assert trace.name == "trace" and trace.dtypes == ("float32", "int4")
    assert trace.wide == {
        "an odd last axis": ("odd",),
        "no axes": ("temperature",),
        "as said": ("told",),
    }
    assert trace.nbytes == (64 + 1) * 128 // 2 + 4 * (64 + 1) + 4 * (128 * 65 + 1 + 64 * 128)

    found = gradtx.describe(gradtx.precision(gradtx.adamw(1e-3)), params)
    slots = {slot.name: slot for part in all_parts(found).values() for slot in part.slots}
    assert [name for name in slots if name != "beside"] == ["mu", "nu"]
    small = ("bias", "temperature")
    assert slots["mu"].wide == {"fewer than 4,096 elements": small, "complex": ("phase",)}
    text = " ".join(str(found).split())
    assert "mu in full width: " in text and "phase (complex)" in text
    assert "bias, temperature (fewer than 4,096 elements)" in text and "mu_scales" not in text


def test_a_format_that_all_leaves_are_too_small_for_is_not_shown():
    found = gradtx.describe(gradtx.store(gradtx.adam(1e-3), mu="int8"), PARAMS)
    mu, nu = all_parts(found)["scale_by_adam"].slots
    assert (mu.dtypes, nu.dtypes, nu.wide) == (("float32",), ("float32",), {})
    assert mu.wide == {"fewer than 4,096 elements": ("embed", "layer/kernel")}


def test_the_direction_of_what_precise_params_moves_is_told():
    params = {"w": shape(8, 4, dtype=jnp.bfloat16)}
    for how in ("stochastic", "kahan", "master", "split16", "split8"):
        found = gradtx.describe(gradtx.accumulate(gradtx.precise_params(gradtx.adamw(1e-3), how), 2), params)
        assert set(found.directions.values()) == {Direction.DESCENT} and list(found.decays) == ["w"]
