"""check(tx, params, steps): every finding has an optimizer that triggers it and one that does not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from catalogue import ALIASES, ENTRIES
from gradtx.formulas import leaf_groups
from test_describe import COSINE, PARAMS, TREE, shape

UNDECAYED = ("!*bias", "!*norm*")
NARROW = {"kernel": shape(256, 64, dtype=jnp.bfloat16)}


def names(tx, params=TREE, steps=None):
    return [finding.name for finding in gradtx.check(tx, params, steps)]


def only(tx, params=TREE, steps=None):
    (finding,) = gradtx.check(tx, params, steps)
    return finding


def entries():
    """A plain run has one after the other of the kinds that a check walks through differently."""
    for name, entry in ENTRIES.items():
        rest = name in ALIASES or entry.kind in ("transform", "schedule")
        yield pytest.param(entry, id=name, marks=(pytest.mark.full,) if rest else ())


@pytest.mark.by_turns(4)
@pytest.mark.parametrize("entry", list(entries()))
def test_every_entry_is_checked(entry):
    found = gradtx.check(entry.transform(), PARAMS, 10)
    assert max(map(len, str(found).splitlines())) <= 100
    assert "init" not in [finding.name for finding in found]
    if entry.kind in ("optimizer", "schedule"):
        assert not {"ascent", "untouched", "never moves"} & {finding.name for finding in found}


@pytest.mark.wide
def test_a_sane_optimizer_on_a_sane_tree_has_no_findings():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(COSINE, weight_decay=0.1, mask=UNDECAYED))
    found = gradtx.check(tx, TREE, steps=1000)
    assert not found and str(found) == repr(found) == "Nothing found."
    assert not names(gradtx.accumulate(gradtx.guard(tx), 4), steps=4000)
    assert not names(gradtx.flatten(gradtx.adam(1e-3)))


def test_ascent():
    climbing = only(gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(1e-3)))
    assert (climbing.name, climbing.severity, len(climbing.leaves)) == ("ascent", "error", 4)
    assert not names(gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(-1e-3)))
    with jax.numpy_dtype_promotion("standard"):
        assert names(optax.scale_by_adam()) == ["ascent"] and not names(optax.adam(1e-3))


def test_leaves_that_climb_since_a_mask_leaves_them_out():
    """Another scale at the end would turn those that are right."""
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.masked(gradtx.adam(1e-3), "embed"))
    for found in (only(tx), only(gradtx.accumulate(tx, 2))):
        assert (found.name, found.leaves) == ("ascent", ("layer/bias", "layer/kernel", "norm/scale"))
        assert "works on other leaves alone" in found.what and "outside='zero'" in found.remedy


def test_leaves_that_nothing_works_on():
    found = only(gradtx.masked(gradtx.sgd(0.1), "embed"))
    assert (found.name, found.leaves) == ("untouched", ("layer/bias", "layer/kernel", "norm/scale"))
    assert names(gradtx.accumulate(gradtx.masked(gradtx.sgd(0.1), "embed"), 2)) == ["untouched"]
    assert names(gradtx.chain()) == ["untouched"]
    assert not names(gradtx.chain(gradtx.masked(gradtx.trace(0.9), "embed"), gradtx.sgd(0.1)))


def test_leaves_that_never_move():
    still = only(gradtx.sgd(0.0))
    assert (still.name, still.severity) == ("never moves", "warning")
    assert names(gradtx.sgd(gradtx.constant_schedule(0.0))) == ["never moves"]
    # A long warmup begins with a rate of 0.
    assert not names(gradtx.sgd(gradtx.warmup_constant_schedule(0.0, 0.1, 5_000)))


def test_frozen_leaves_are_a_note():
    frozen = only(gradtx.selective_transform(gradtx.adam(1e-3), freeze_mask="embed"))
    assert (frozen.name, frozen.severity, frozen.leaves) == ("frozen", "note", ("embed",))
    nested = gradtx.accumulate(gradtx.chain(gradtx.sgd(0.1), gradtx.freeze("norm*")), 2)
    assert only(nested).leaves == ("norm/scale",)


def test_what_init_refuses_is_a_finding_with_its_text():
    unlabelled = only(gradtx.partition({"a": gradtx.sgd(0.1)}, {"layer*": "a", "e*": "b"}))
    assert unlabelled.name == "init" and "the leaf 'embed' has the label 'b'" in unlabelled.what
    integer = only(gradtx.sgd(0.1), {"w": shape(2), "ids": shape(3, dtype=jnp.int32)})
    assert "'ids' is int32[3], which has no gradient" in integer.what
    trained = gradtx.masked(gradtx.sgd(0.1), {"w": True, "ids": False})
    assert not names(trained, {"w": shape(2), "ids": shape(3, dtype=jnp.int32)})


def test_updates_that_16_bits_round_away():
    lost = only(gradtx.adam(1e-5), NARROW)
    assert (lost.name, lost.leaves) == ("rounding", ("kernel",))
    assert "a step is at most 1e-05" in lost.what
    assert not names(gradtx.adam(1e-3), NARROW)
    assert not names(gradtx.adam(1e-5), PARAMS)
    # How far these go depends on the gradients.
    assert not names(gradtx.sgd(1e-9), NARROW) and not names(gradtx.prodigy(), NARROW)
    # The warmup's 0 is not the largest step.
    assert not names(gradtx.adam(gradtx.warmup_constant_schedule(0.0, 1e-3, 100)), NARROW)


def ones(size):
    return {"scale": jnp.full(8, size, jnp.bfloat16)}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize(
    "rate",
    [gradtx.warmup_constant_schedule(0.0, 1e-3, 100), COSINE, lambda step: 1e-3],
    ids=["warmup", "", "code"],
)
def test_updates_are_followed_where_the_rate_is_largest(rate):
    """There the averages are those of as many steps, as the correction of their bias takes them to be."""
    lost = only(gradtx.adam(rate), ones(1), steps=1000)
    assert lost.name == "rounding" and f"at most {3e-4 if rate is COSINE else 1e-3:g}." in lost.what
    assert not names(gradtx.adam(rate), ones(1 / 64), steps=1000)


def test_a_step_may_grow_with_the_parameter_it_is_for():
    assert not names(gradtx.adafactor(1e-2), ones(1))
    assert names(gradtx.adafactor(1e-3), ones(1)) == ["rounding"]
    # What decay takes does not say how far gradients go.
    assert "rounding" not in names(gradtx.sgd(1e-3, weight_decay=1e-3), ones(1))


def test_leaves_of_one_kind_are_followed_together(monkeypatch):
    chosen, right = [], leaf_groups.Tracing
    monkeypatch.setattr(leaf_groups, "Tracing", lambda *args: chosen.append(args[2]) or right(*args))
    groups = {str(i): gradtx.lion(10.0**-i, weight_decay=0.0) for i in (1, 2, 4, 5)}
    params = {f"{i}/{j}": jnp.full(8, 1.0 + j, jnp.bfloat16) for i in (1, 2, 4, 5) for j in range(5)}
    found = only(gradtx.partition(groups, lambda path, leaf: path[0]), params)
    assert len(found.leaves) == 12 and len(chosen) == 1 and len(chosen[0]) <= 8


def test_the_size_of_concrete_16_bit_parameters_is_measured():
    ones = {"scale": jnp.ones(8, jnp.bfloat16)}
    assert names(gradtx.lion(1e-3, weight_decay=0.0), ones) == ["rounding"]
    assert not names(gradtx.lion(1e-3, weight_decay=0.0), jax.tree.map(lambda x: x / 64, ones))
    assert not names(gradtx.lion(1e-3, weight_decay=0.0), jax.tree.map(lambda x: x * 0, ones))
    assert not names(gradtx.lion(1e-3, weight_decay=0.0), jax.tree.map(lambda x: x / 0, ones))


@pytest.mark.wide
def test_slots_of_16_bits():
    stuck = only(gradtx.adam(1e-3, nu_dtype="bfloat16"))
    assert stuck.name == "storage" and "nu in bfloat16, where it never decays" in stuck.what
    small = only(gradtx.accumulate(gradtx.adam(1e-3, nu_dtype="float16"), 2))
    assert "nu in float16, which is too narrow" in small.what
    assert not names(gradtx.adam(1e-3, mu_dtype="bfloat16"))
    assert not names(gradtx.sgd(0.1, momentum=0.9, accumulator_dtype="bfloat16"))


@pytest.mark.wide
def test_a_schedule_that_ends_before_the_run_does():
    ends = only(gradtx.adam(COSINE), steps=10_000)
    assert ends.severity == "error" and "is 0 from step 1,000 on" in ends.what
    floor = gradtx.cosine_decay_schedule(1e-3, 1000, alpha=0.1)
    assert only(gradtx.adam(floor), steps=10_000).severity == "warning"
    # Plateaus, and what rests where it is highest, are meant to last.
    assert not names(gradtx.adam(gradtx.piecewise_constant_schedule(1e-3, {1000: 0.1})), steps=10_000)
    assert not names(gradtx.adam(gradtx.warmup_constant_schedule(0.0, 1e-3, 100)), steps=10_000)


def stops(step):
    """0.1, and from step 100 on 0."""
    return jnp.where(step < 100, 0.1, 0.0)


@pytest.mark.by_turns(2)
@pytest.mark.parametrize(
    "tx",
    [
        gradtx.adam(gradtx.piecewise_constant_schedule(1e-3, {100: 0.0})),
        gradtx.adam(stops),
        gradtx.chain(gradtx.scale_by_learning_rate(stops), gradtx.trace(0.9)),
        gradtx.accumulate(gradtx.adam(stops), 1),
    ],
    ids=["plateau", "code", "before momentum", "inside"],
)
def test_a_rate_of_0_over_the_rest_of_the_run(tx):
    found = only(tx, steps=1000)
    assert (found.name, found.severity) == ("schedule", "error")
    assert "learning_rate is 0 from step 100 on, and the run has 1,000 steps." in found.what
    assert not names(tx, steps=104)


def test_what_may_well_be_0_for_most_of_the_run():
    tail = gradtx.piecewise_constant_schedule(0.1, {100: 0.0})
    assert not names(gradtx.adamw(1e-3, weight_decay=tail, mask=UNDECAYED), steps=1000)
    assert not names(gradtx.sgd(0.1, momentum=tail), steps=1000)
    assert not names(gradtx.sgd(lambda step: jnp.where(step < 900, 0.0, 0.1)), steps=1000)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize(
    "rate", [gradtx.linear_schedule(0.1, -0.1, 1000), lambda step: jnp.where(step < 500, 0.1, -0.1)]
)
def test_a_rate_that_turns_around(rate):
    (found,) = [f for f in gradtx.check(gradtx.sgd(rate), TREE, steps=1000) if "turns" in f.what]
    assert (found.name, found.severity) == ("ascent", "error")
    assert " at step 499 to -" in found.what
    assert "ascent" not in names(gradtx.sgd(rate), steps=490)


@pytest.mark.wide
def test_a_schedule_that_has_not_ended_when_the_run_does():
    late = only(gradtx.adam(COSINE), steps=500)
    assert late.severity == "warning" and "would rest at 0 at step 1,000" in late.what
    assert "would rise to 0.0003 at step 100" in only(gradtx.adam(COSINE), steps=50).what
    assert "250 updates of accumulate" in only(gradtx.accumulate(gradtx.adam(COSINE), 4), steps=1000).what
    assert not names(gradtx.adam(COSINE), steps=990)
    assert not names(gradtx.adam(COSINE))
    assert not names(gradtx.adam(gradtx.exponential_decay(1e-3, 100, 0.9)), steps=5)
    assert not names(gradtx.conditionally_mask(gradtx.adam(COSINE), lambda step: step > 9), steps=500)


def test_decay_of_norms_and_biases():
    note = only(gradtx.adamw(1e-3))
    assert (note.name, note.severity) == ("decay", "note")
    assert note.leaves == ("layer/bias", "norm/scale")
    assert not names(gradtx.adamw(1e-3, mask=UNDECAYED)) and not names(gradtx.adam(1e-3))
    assert not names(gradtx.adam(1e-3, weight_decay=0.0)) and not names(gradtx.adamw(1e-3, weight_decay=0.0))
    # One for each layer, along an axis.
    assert only(gradtx.adamw(1e-3), {"kernel": shape(4, 3), "bias": shape(4, 3)}).leaves == ("bias",)


def test_a_decay_that_is_far_too_strong():
    strong = only(gradtx.adamw(1e-3, weight_decay=0.01, decay_coupling="none", mask=UNDECAYED))
    assert strong.name == "strong decay" and "halves them every 69.0 steps" in strong.what
    assert not names(gradtx.adamw(1e-3, weight_decay=1e-5, decay_coupling="none", mask=UNDECAYED))


def test_the_worst_comes_first_and_long_lists_are_cut():
    wide = {f"bias_{i:02}": shape(3) for i in range(20)}
    found = gradtx.check(gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.scale(0.1)), wide)
    assert [finding.name for finding in found] == ["ascent", "decay"]
    assert "    20 leaves: bias_00, bias_01, bias_02 and 17 more\n" in str(found)


def test_a_tree_that_is_one_leaf_and_a_path_that_is_long():
    assert "    1 leaf: the whole tree\n" in str(gradtx.check(gradtx.scale(1.0), shape(2)))
    long = str(gradtx.check(gradtx.scale(1.0), {"layer_" * 20: shape(2)}))
    assert max(map(len, long.splitlines())) <= 100


def test_what_has_no_formula_is_said():
    class Orthogonal(gradtx.Rule, name="orthogonal"):
        def apply(self, g, slots, leaf):
            return jnp.linalg.qr(g)[0], slots

    params = {"w": jnp.ones((4, 3)), "v": jnp.ones((4, 3))}
    tx = gradtx.chain(gradtx.masked(Orthogonal(), "w"), gradtx.sgd(0.1))
    (found,) = gradtx.check(tx, params)
    assert found.name == "unread" and found.severity == "note" and found.leaves == ("w",)
    assert "qr.Q" in found.what and "not checked" in found.remedy


def test_what_would_measure_a_shard_alone_is_found_before_a_run_that_cannot_see_it():
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3, mask="!*bias"))
    (found,) = gradtx.check(clipped, PARAMS, axis_name="data")
    assert (found.name, found.severity) == ("shards", "warning")
    assert found.what.startswith("clip_by_global_norm: ") and "give axis_name='data'" in found.what
    assert "check_vma=False" in found.remedy
    assert not gradtx.check(clipped, PARAMS)
    named = gradtx.clip_by_global_norm(1.0, axis_name=("data", "model"))
    assert not gradtx.check(gradtx.chain(named, gradtx.sgd(0.1)), PARAMS, axis_name=("data", "model"))
    (found,) = gradtx.check(gradtx.adafactor(1e-3, min_dim_size_to_factor=2), PARAMS, axis_name="data")
    assert found.what.startswith("scale_by_factored_rms: ")
    foreign = gradtx.chain(optax.clip_by_global_norm(1.0), gradtx.sgd(0.1))
    assert "shards" in {f.name for f in gradtx.check(foreign, PARAMS, axis_name="data")}
    with pytest.raises(TypeError, match=r"check: axis_name must be the name of an axis, .* got \(3,\)"):
        gradtx.check(clipped, PARAMS, axis_name=(3,))


def test_what_sums_over_shards_is_looked_into_where_there_are_none():
    """A formula is of whole leaves, and so it is that of the transform without the axes."""
    for make in (gradtx.clip_by_global_norm, gradtx.clip_by_block_rms):
        alone, named = make(1.0), make(1.0, axis_name=("data", "model"))
        assert str(gradtx.formula(named)) == str(gradtx.formula(alone))
        tx = gradtx.chain(named, gradtx.adamw(1e-3, mask="!*bias"))
        assert not gradtx.check(tx, PARAMS)
        assert gradtx.describe(tx, PARAMS).leaves == gradtx.explain(tx, PARAMS).leaves
        params = {"w": jnp.ones((8, 4))}
        with pytest.raises(ValueError, match=r"axis_name says 'data', and there is no such axis here. Call"):
            tx.update(params, tx.init(params), params)


LARGE = {"w": shape(64, 128), "bias": shape(8)}


@pytest.mark.wide
def test_nothing_is_rounded_away_around_precise_params():
    for how in ("stochastic", "kahan", "master", "split16", "split8"):
        assert not names(gradtx.precise_params(gradtx.adam(1e-5), how), NARROW)
    assert not names(gradtx.precision(gradtx.adam(1e-5), "bf16"), NARROW)
    assert not names(gradtx.accumulate(gradtx.precise_params(gradtx.adam(1e-5)), 2), NARROW)
    # What it does not work on is rounded as before, and what it wraps is looked at as ever.
    part = gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(-1e-5))
    some = gradtx.partition({"a": gradtx.precise_params(part), "b": part}, {"a": "a", "b": "b"})
    two = {key: shape(512, 512, dtype=jnp.bfloat16) for key in "ab"}
    lost = only(some, two)
    assert (lost.name, lost.leaves) == ("rounding", ("b",))
    assert "gradtx.precise_params(tx), or gradtx.precision(tx)" in lost.remedy
    half = only(gradtx.adam(1e-6), {"w": shape(64, 128, dtype=jnp.float16)})
    assert "gradtx.precise_params(tx, 'kahan')" in half.remedy
    uphill = gradtx.precise_params(gradtx.scale_by_adam())
    assert only(uphill, NARROW).name == "ascent"


@pytest.mark.wide
@pytest.mark.parametrize(
    ("tx", "severity", "said", "remedy"),
    [
        (
            gradtx.adam(1e-3, nu_dtype="uint8"),
            "note",
            "nu in uint8, where most",
            "nu_dtype='uint8_stochastic'",
        ),
        (gradtx.store(gradtx.adam(1e-3), nu="uint4"), "note", "in uint4", "store(tx, nu='uint4_stochastic')"),
        (gradtx.store(gradtx.adam(1e-3), mu="int4"), "note", "mu in int4", "store(tx, mu='int8_stochastic')"),
        (gradtx.adam(1e-3, b1=0.999, mu_dtype="int8"), "note", "mu in int8", "mu_dtype='int8_stochastic'"),
        (gradtx.store(gradtx.adam(1e-3), nu="uint8"), "note", "nu in uint8", "nu='uint8_stochastic'"),
        (
            gradtx.store(gradtx.adagrad(0.1), sum_of_squares="bfloat16"),
            "warning",
            "where it stops growing",
            "sum_of_squares='bfloat16_stochastic'",
        ),
        (
            gradtx.store(gradtx.adagrad(0.1), sum_of_squares="uint8_stochastic"),
            "warning",
            "never decays, so that nothing takes the errors away",
            "sum_of_squares='bfloat16_stochastic'",
        ),
        (gradtx.store(gradtx.amsgrad(0.1), nu_max="uint8"), "warning", "never decays", "nu_max='bfloat16'"),
    ],
)
def test_formats_in_which_a_slot_does_not_move_as_it_should(tx, severity, said, remedy):
    found = only(tx, LARGE)
    assert (found.name, found.severity, found.leaves) == ("storage", severity, ("w",))
    assert said in found.what and remedy in found.remedy


@pytest.mark.wide
def test_formats_in_which_slots_move_as_they_should():
    for options in (
        {"mu": "int8", "nu": "uint8_stochastic"},
        {"mu": "float8_e4m3", "nu": "bfloat16_stochastic"},
        {"mu": "int8_stochastic", "nu": "uint4_stochastic"},
    ):
        assert not names(gradtx.store(gradtx.adam(1e-3), **options), LARGE)
    assert not names(gradtx.adam(1e-3, b2=0.9, nu_dtype="uint8"), LARGE)
    assert not names(gradtx.precision(gradtx.adam(1e-3), "8bit"), LARGE)
    assert not names(gradtx.store(gradtx.amsgrad(0.1), nu_max="bfloat16"), LARGE)
    assert "storage" not in names(gradtx.store(gradtx.soap(1e-3), mu="int8", left="bfloat16"), LARGE)


@pytest.mark.wide
@pytest.mark.parametrize("form, moves", [("uint8", False), ("uint8_stochastic", True)])
def test_a_mean_of_squares_that_is_said_to_stand_still_does(form, moves):
    """Beside an element whose gradients go on, one without a gradient keeps its part of the largest."""
    tx = gradtx.store(gradtx.scale_by_adam(), nu=form, min_size=1)
    params = jnp.zeros(64)
    grads = jnp.concatenate([jnp.ones(1), jnp.zeros(63)])
    first = 1000**0.5 * jnp.concatenate([jnp.ones(1), jnp.full(63, 0.5)])
    state = tx.update(first, tx.init(params))[1]  # nu is 1, and 0.25 everywhere else

    def part(state):
        kept = gradtx.slots_by_leaf(tx, params, state)["scale_by_adam"]["nu"]
        return float(kept[1:].mean() / kept[0])

    after = jax.jit(lambda s: jax.lax.scan(lambda s, _: (tx.update(grads, s)[1], None), s, length=1000)[0])
    last = part(after(state))
    assert part(state) == pytest.approx(0.25, rel=0.02)
    assert last == pytest.approx(0.25 / 2.718 if moves else part(state), rel=0.1 if moves else 1e-4)
