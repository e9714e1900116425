"""Which way each leaf goes and how weight decay enters, found from the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from catalogue import ALIASES, ENTRIES
from gradtx.formulas import direction, leaf_groups
from gradtx.formulas.decay import Coupling
from gradtx.formulas.direction import Direction, movements

MATRIX = jax.ShapeDtypeStruct((2, 3), np.float32)
VECTOR = jax.ShapeDtypeStruct((3,), np.float32)
TREE = {
    "dense": {"bias": VECTOR, "kernel": MATRIX},
    "steps": jax.ShapeDtypeStruct((), np.int32),
    "unused": None,
}
ASCENT, NONE, UNKNOWN, DESCENT = Direction
WARMUP = gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 1_000, 10_000)


DECAYING = gradtx.sgd(0.1, weight_decay=0.5)
TWICE = gradtx.chain(gradtx.scale_by_adam(), gradtx.add_decayed_weights(0.5), gradtx.add_decayed_weights(1.5))


def directions(tx, params, steps=None):
    return movements(tx, params, steps)[0]


def decays(tx, params):
    return movements(tx, params)[1]


CASES = [
    pytest.param(entry, variant, id=f"{entry.name}-{variant}".removesuffix("-"), marks=marks)
    for entry in ENTRIES.values()
    for variant in ["", *entry.variants, *entry.layouts]
    for marks in [pytest.mark.full if variant or entry.name in ALIASES else ()]
]


@pytest.mark.by_turns(14)
@pytest.mark.parametrize(("entry", "variant"), CASES)
def test_every_entry(entry, variant):
    """Optimizers and schedules descend, and the decay that an argument asks for is found."""
    tx = entry.transform(variant)
    (direction,), (decay,) = movements(tx, MATRIX)
    arguments = entry.arguments(variant)
    if entry.name == "qk_clip":  # the factor that it cannot compute is positive
        assert direction is ASCENT
    elif entry.loops or entry.name == "dpsgd":  # the examples may have other signs than their sum
        assert direction is UNKNOWN
    elif entry.kind in ("optimizer", "schedule"):
        # Without a rate Adadelta is only a direction, as Optax has it.
        assert direction is (ASCENT if arguments.get("learning_rate", 0) is None else DESCENT)
    asked = arguments.get("weight_decay", arguments.get("weight_decay_rate"))
    asked = asked if entry.name != "mechanize" else None  # it regularizes the factor of the path
    asked = asked or entry.name == "schedule_free"  # around an optimizer that decays
    asked = asked or getattr(tx, "arguments", {}).get("weight_decay") or "fromage" in entry.name
    assert (decay is not None) == bool(asked)


@pytest.mark.by_turns(3)
@pytest.mark.parametrize(
    ("tx", "direction"),
    {
        gradtx.scale(1e-3): ASCENT,
        gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(-1e-3)): DESCENT,
        gradtx.scale_by_adam(): ASCENT,
        gradtx.chain(gradtx.adam(1e-3), gradtx.scale(-1.0)): ASCENT,
        gradtx.adamw(WARMUP): DESCENT,
        gradtx.sgd(gradtx.piecewise_constant_schedule(0.0, {5: 1.0})): NONE,
        gradtx.sgd(0.0): NONE,
        gradtx.sgd(lambda step: step // 500): DESCENT,
        gradtx.accumulate(gradtx.adamw(1e-3), 8): DESCENT,
        gradtx.accumulate(gradtx.guard(gradtx.sgd(WARMUP)), 3): DESCENT,
        gradtx.lookahead(gradtx.sgd(0.1), 3, 0.5): DESCENT,
        gradtx.set_to_zero(): NONE,
        gradtx.accumulate(gradtx.adam(1e-3), 64): DESCENT,
        gradtx.accumulate(gradtx.scale_by_adam(), 64): ASCENT,
        gradtx.accumulate(gradtx.adamw(WARMUP), 64): DESCENT,
        gradtx.chain(gradtx.adam(1e-3), gradtx.apply_every(64)): DESCENT,
        gradtx.guard(gradtx.accumulate(gradtx.adam(1e-3), 64)): DESCENT,
        gradtx.accumulate(gradtx.accumulate(gradtx.adam(1e-3), 16), 16): DESCENT,
        gradtx.accumulate(gradtx.sgd(0.1), 100_000): UNKNOWN,
        gradtx.accumulate(gradtx.sgd(0.0), 64): NONE,
        gradtx.square(): UNKNOWN,
        gradtx.chain(gradtx.square(), gradtx.scale(-1.0)): UNKNOWN,
    }.items(),
    ids=repr,
)
def test_the_direction(tx, direction):
    assert directions(tx, MATRIX) == [direction]


def test_a_leaf_that_climbs_later_in_the_run_climbs():
    raw = gradtx.conditionally_transform(gradtx.adam(1e-3), lambda step: step < 100)
    falling = gradtx.sgd(lambda step: 0.1 - 0.001 * step.astype(np.float32))
    for tx in (raw, falling):
        assert directions(tx, MATRIX) == directions(tx, MATRIX, 100) == [DESCENT]
        assert directions(tx, MATRIX, 1_001) == [ASCENT]
    assert directions(gradtx.adamw(WARMUP), MATRIX, 10_000) == [DESCENT]


def test_another_librarys_numbers_have_no_names():
    """What multiplies the decay is then told by nobody."""
    with jax.numpy_dtype_promotion("standard"):
        assert directions(optax.MultiSteps(optax.adam(1e-3), 64), MATRIX) == [DESCENT]
        (decay,) = decays(optax.adamw(1e-3, weight_decay=0.1), MATRIX)
    assert decay.coupling is Coupling.UNKNOWN and decay.factor == pytest.approx(1e-4, rel=1e-6)


def test_a_constant_has_no_sign_that_is_known():
    both = np.linspace(-1.0, 1.0, 100, dtype=np.float32)
    tx = gradtx.stateless_with_tree_map(lambda g, p: g * jnp.asarray(both))
    assert directions(tx, jax.ShapeDtypeStruct((100,), np.float32)) == [UNKNOWN]


def test_what_cannot_be_traced_is_unknown_and_an_error_of_ours_is_none(monkeypatch):
    asks = optax.GradientTransformationExtraArgs(
        lambda params: (), lambda g, state, params=None, **extra: (extra["not told"], state)
    )
    assert movements(asks, MATRIX) == ([UNKNOWN], [None])
    monkeypatch.setattr(direction, "decay_of", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        movements(optax.sgd(0.1), MATRIX)


def test_a_complex_leaf_descends_too():
    """Along the real axis, as a real one does."""
    leaf = jax.ShapeDtypeStruct((3,), np.complex64)
    for tx in (
        gradtx.adamw(1e-3),
        gradtx.lion(1e-3),
        gradtx.adafactor(1e-3),
        gradtx.guard(gradtx.sgd(0.1, 0.9)),
    ):
        assert directions(tx, leaf) == [DESCENT]
    assert decays(gradtx.adamw(1e-3, weight_decay=0.1), leaf) == decays(
        gradtx.adamw(1e-3, weight_decay=0.1), MATRIX
    )


def test_a_tree_without_leaves_has_no_directions():
    assert movements(gradtx.adam(1e-3), {}) == ([], [])


def test_each_leaf_has_its_own_direction():
    """A leaf that has no gradient goes nowhere."""
    tx = gradtx.masked(gradtx.adam(1e-3), "dense/*")
    assert directions(tx, TREE) == [DESCENT, DESCENT, NONE, NONE]
    tx = gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.freeze("*")}, {"*kernel": "a", "*": "b"})
    tree = {"dense": TREE["dense"]}
    assert directions(tx, tree) == [NONE, DESCENT]
    tx = gradtx.chain(gradtx.masked(gradtx.scale(-1.0), "*kernel"), gradtx.scale_by_adam())
    assert directions(tx, tree) == [ASCENT, DESCENT]


@pytest.mark.by_turns(6)
@pytest.mark.parametrize(
    ("tx", "coupling", "factor"),
    [
        (gradtx.adamw(1e-3, weight_decay=0.1), Coupling.RATE, 1e-4),
        (gradtx.adamw(WARMUP, weight_decay=0.1), Coupling.RATE, 1e-4),
        (gradtx.adamw(1e-3, weight_decay=0.1, schedule=WARMUP), Coupling.RATE, 1e-7),
        (
            gradtx.adamw(2e-5, weight_decay=0.1, schedule=WARMUP, decay_coupling="schedule"),
            Coupling.SCHEDULE,
            1e-4,
        ),
        (gradtx.adamw(2e-5, weight_decay=0.01, decay_coupling="none"), Coupling.INDEPENDENT, 0.01),
        (
            gradtx.adamw(2e-5, weight_decay=0.01, decay_coupling="none", schedule=WARMUP),
            Coupling.INDEPENDENT,
            0.01,
        ),
        (gradtx.adamw(1e-3, weight_decay=gradtx.linear_schedule(0.1, 0.4, 50)), Coupling.RATE, 4e-4),
        (gradtx.adam(1e-3, weight_decay=0.1), Coupling.COUPLED, None),
        (gradtx.sgd(0.1, momentum=0.9, weight_decay=0.1), Coupling.COUPLED, None),
        (gradtx.sgd(0.1, weight_decay=0.1), Coupling.RATE, 0.01),
        (gradtx.lion(1e-3, weight_decay=0.1), Coupling.RATE, 1e-4),
        (gradtx.adafactor(0.1, weight_decay_rate=0.01), Coupling.INDEPENDENT, 0.01),
        (gradtx.prodigy(weight_decay=0.1), Coupling.RATE, None),
        (
            gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.lion(0.1, weight_decay=0.0)),
            Coupling.COUPLED,
            None,
        ),
        (gradtx.accumulate(gradtx.adamw(1e-3, weight_decay=0.1), 4), Coupling.RATE, 1e-4),
        (gradtx.guard(gradtx.adamw(1e-3, weight_decay=0.1)), Coupling.RATE, 1e-4),
        (gradtx.ema_params(gradtx.adamw(1e-3, weight_decay=0.1), 0.9), Coupling.RATE, 1e-4),
        (gradtx.lookahead(gradtx.adamw(1e-3, weight_decay=0.1), 3, 0.5), Coupling.RATE, 1e-4),
        (gradtx.flatten(gradtx.adamw(1e-3, weight_decay=0.1)), Coupling.RATE, 1e-4),
        (gradtx.adamw(lambda step: 1e-3, weight_decay=0.1), Coupling.UNKNOWN, 1e-4),
        (gradtx.chain(TWICE, gradtx.scale(-1e-2)), Coupling.RATE, 0.02),
        (
            gradtx.chain(
                gradtx.scale_by_adam(),
                gradtx.scale(2e-5),
                gradtx.add_decayed_weights(0.01),
                gradtx.scale(-1.0),
            ),
            Coupling.INDEPENDENT,
            0.01,
        ),
    ],
    ids=repr,
)
def test_the_decay(tx, coupling, factor):
    (decay,) = decays(tx, MATRIX)
    assert decay.coupling is coupling
    assert decay.factor == (None if factor is None else pytest.approx(factor, rel=1e-6))


def test_a_decay_of_zero_is_none():
    for tx in (gradtx.adamw(1e-3, weight_decay=0.0), gradtx.adam(1e-3), gradtx.sgd(0.1, weight_decay=0.0)):
        assert decays(tx, MATRIX) == [None]


def test_each_leaf_has_its_own_decay():
    tx = gradtx.adamw(0.5, weight_decay=0.1, mask="!*bias")
    none, decay, *others = decays(gradtx.masked(tx, "dense/*"), TREE)
    assert decay.coupling is Coupling.RATE and decay.factor == pytest.approx(0.05)
    assert none is None and others == [None, None]


def halves_in(tx, most=2_000):
    """The calls after which a parameter without a gradient is half of what it was, by calling."""
    update = jax.jit(lambda state, p: tx.update(jnp.zeros(()), state, p))
    p, state = jnp.ones(()), tx.init(jnp.ones(()))
    for call in range(1, most):
        u, state = update(state, p)
        p = p + u
        if p <= 0.5:
            return call
    raise AssertionError("It never halves.")


@pytest.mark.by_turns(2)
@pytest.mark.parametrize(
    ("tx", "round_"),
    {
        DECAYING: 1,
        gradtx.chain(TWICE, gradtx.scale(-1e-2)): 1,
        gradtx.accumulate(DECAYING, 5): 5,
        gradtx.lookahead(DECAYING, 5, 0.5): 5,
        gradtx.conditionally_mask(DECAYING, lambda step: step % 2 == 0): 2,
        gradtx.accumulate(gradtx.accumulate(DECAYING, 2), 3): 6,
    }.items(),
)
def test_the_half_life(tx, round_):
    """In calls of `update`, whatever wraps the decay."""
    (decay,) = decays(tx, jax.ShapeDtypeStruct((), np.float32))
    assert decay.half_life == pytest.approx(halves_in(tx), abs=round_ + 1)


@pytest.mark.wide
def test_what_has_no_half_life():
    for tx in (
        gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.scale(0.1)),  # it grows
        gradtx.adam(1e-3, weight_decay=0.1),  # the gradients decide
        gradtx.accumulate(gradtx.adamw(1e-3), 100_000),  # nobody would follow it
    ):
        (decay,) = decays(tx, MATRIX)
        assert decay.half_life is None


def test_leaves_of_one_kind_are_traced_once(monkeypatch):
    chosen, right = [], leaf_groups.Tracing
    monkeypatch.setattr(leaf_groups, "Tracing", lambda *args: chosen.append(args[2]) or right(*args))
    tree = {f"layer{i}": TREE["dense"] for i in range(50)}
    assert directions(gradtx.adamw(0.1, mask="*kernel"), tree) == [DESCENT] * 100
    (leaves,) = chosen
    assert len(leaves) <= 4
