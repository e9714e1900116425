"""Which way each leaf goes and how weight decay enters, found from the formula."""

import math

import jax
import numpy as np
import pytest

import gradtx
from catalogue import ALIASES, ENTRIES
from gradtx.formulas import direction
from gradtx.formulas.direction import Coupling, Decay, Direction, decays, directions, directions_and_decays

MATRIX = jax.ShapeDtypeStruct((2, 3), np.float32)
VECTOR = jax.ShapeDtypeStruct((3,), np.float32)
TREE = {
    "dense": {"bias": VECTOR, "kernel": MATRIX},
    "steps": jax.ShapeDtypeStruct((), np.int32),
    "unused": None,
}
DESCENT, ASCENT, NONE, UNKNOWN = Direction
WARMUP = gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 1_000, 10_000)

CASES = [
    pytest.param(entry, variant, id=f"{entry.name}-{variant}".removesuffix("-"), marks=marks)
    for entry in ENTRIES.values()
    for variant in ["", *entry.variants, *entry.layouts]
    for marks in [pytest.mark.full if variant or entry.name in ALIASES else ()]
]


@pytest.mark.parametrize(("entry", "variant"), CASES)
def test_every_entry(entry, variant):
    """Optimizers and schedules descend, and the decay that an argument asks for is found."""
    tx = entry.transform(variant)
    (direction,), (decay,) = directions_and_decays(tx, MATRIX)
    arguments = entry.arguments(variant)
    if entry.kind in ("optimizer", "schedule"):
        # Without a rate Adadelta is only a direction, as Optax has it.
        assert direction is (ASCENT if arguments.get("learning_rate", 0) is None else DESCENT)
    asked = arguments.get("weight_decay", arguments.get("weight_decay_rate"))
    assert (decay is not None) == bool(asked or getattr(tx, "arguments", {}).get("weight_decay"))


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
        gradtx.square(): UNKNOWN,
        gradtx.chain(gradtx.square(), gradtx.scale(-1.0)): UNKNOWN,
    }.items(),
    ids=repr,
)
def test_the_direction(tx, direction):
    assert directions(tx, MATRIX) == [direction]


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
    assert directions_and_decays(gradtx.adam(1e-3), {}) == ([], [])


def test_each_leaf_has_its_own_direction():
    """A leaf that has no gradient goes nowhere."""
    tx = gradtx.masked(gradtx.adam(1e-3), "dense/*")
    assert directions(tx, TREE) == [DESCENT, DESCENT, NONE, NONE]
    tx = gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.freeze("*")}, {"*kernel": "a", "*": "b"})
    tree = {"dense": TREE["dense"]}
    assert directions(tx, tree) == [NONE, DESCENT]
    tx = gradtx.chain(gradtx.masked(gradtx.scale(-1.0), "*kernel"), gradtx.scale_by_adam())
    assert directions(tx, tree) == [ASCENT, DESCENT]


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
    assert decays(gradtx.masked(tx, "dense/*"), TREE) == [None, Decay(Coupling.RATE, 0.05), None, None]


def test_the_half_life():
    """A parameter without a gradient is half of what it was after so many steps."""
    decay = Decay(Coupling.RATE, 0.1)
    assert (1 - 0.1) ** decay.half_life == pytest.approx(0.5)
    assert Decay(Coupling.RATE, 1e-6).half_life == pytest.approx(math.log(2) / 1e-6, rel=1e-5)
    assert Decay(Coupling.INDEPENDENT, -0.1).half_life is None, "it grows"
    assert Decay(Coupling.COUPLED, None).half_life is None


def test_leaves_of_one_kind_are_traced_once(monkeypatch):
    chosen, right = [], direction.Tracing
    monkeypatch.setattr(direction, "Tracing", lambda *args: chosen.append(args[2]) or right(*args))
    tree = {f"layer{i}": TREE["dense"] for i in range(50)}
    assert directions(gradtx.adamw(0.1, mask="*kernel"), tree) == [DESCENT] * 100
    (leaves,) = chosen
    assert len(leaves) <= 4
