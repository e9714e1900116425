"""Schedules step by step: against their references, against Optax's, and at their ends and corners."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import references
from trajectories import x64

STEPS = 40

# Each a public name and its arguments, which the references take too.
SCHEDULES = {
    "constant": ("constant_schedule", (0.3,)),
    "linear": ("linear_schedule", (0.0, 0.7, 9)),
    "linear later": ("linear_schedule", (0.1, 0.7, 9, 4)),
    "linear down": ("linear_schedule", (0.7, 0.1, 1)),
    "polynomial": ("polynomial_schedule", (0.7, 0.1, 2.5, 9)),
    "polynomial later": ("polynomial_schedule", (0.0, 0.7, 0.5, 9, 4)),
    "cosine": ("cosine_decay_schedule", (0.7, 9)),
    "cosine to a rest": ("cosine_decay_schedule", (0.7, 9, 0.1, 2.0)),
    "exponential": ("exponential_decay", (0.7, 9, 0.5)),
    "exponential stairs": ("exponential_decay", (0.7, 9, 0.5, 4, True)),
    "exponential to a bound": ("exponential_decay", (0.7, 9, 0.5, 0, False, 0.2)),
    "exponential growth": ("exponential_decay", (0.1, 9, 1.5, 0, False, 0.3)),
    "piecewise": ("piecewise_constant_schedule", (0.8, {5: 0.5, 11: 0.1})),
    "piecewise at once": ("piecewise_constant_schedule", (0.8, {0: 0.5})),
    "warmup": ("warmup_constant_schedule", (0.1, 0.7, 9)),
    "no warmup": ("warmup_constant_schedule", (0.1, 0.7, 0)),
    "warmup, linear": ("warmup_linear_decay_schedule", (0.1, 0.7, 9, 30, 0.2)),
    "no warmup, linear": ("warmup_linear_decay_schedule", (0.1, 0.7, 0, 30, 0.2)),
    "warmup, cosine": ("warmup_cosine_decay_schedule", (0.1, 0.7, 9, 30, 0.2)),
    "warmup, a power of cosine": ("warmup_cosine_decay_schedule", (0.0, 0.7, 9, 30, 0.0, 1.5)),
    "no warmup, cosine": ("warmup_cosine_decay_schedule", (0.1, 0.7, 0, 30, 0.2)),
}
# Optax has no name for the first, and does not take a warmup of no steps.
NOT_IN_OPTAX = ("warmup, linear", "no warmup", "no warmup, linear", "no warmup, cosine")


def ours(name):
    factory, args = SCHEDULES[name]
    return getattr(gradtx, factory)(*args)


def values(schedule, steps=STEPS):
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(steps)))


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("name", SCHEDULES)
def test_follows_its_reference(name):
    factory, args = SCHEDULES[name]
    reference = getattr(references, factory.removesuffix("_schedule"))(*args)
    expected = [reference(t) for t in range(STEPS)]
    with x64():
        np.testing.assert_allclose(values(ours(name)), expected, rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(values(ours(name)), expected, rtol=2e-6, atol=1e-7)


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("name", [name for name in SCHEDULES if name not in NOT_IN_OPTAX])
def test_follows_optax(name):
    """In float32, as Optax computes; a cosine near its end cancels to about 1e-7 of the start."""
    factory, args = SCHEDULES[name]
    theirs = getattr(optax, factory)(*args)
    expected = [float(theirs(t)) for t in range(STEPS)]
    np.testing.assert_allclose(values(ours(name)), expected, rtol=2e-6, atol=1e-7)


def test_the_linear_warmup_and_decay_is_optaxs_joined():
    args = (0.1, 0.7, 9, 30, 0.2)
    parts = [optax.linear_schedule(0.1, 0.7, 9), optax.linear_schedule(0.7, 0.2, 21)]
    expected = [float(optax.join_schedules(parts, [9])(t)) for t in range(STEPS)]
    ours = gradtx.warmup_linear_decay_schedule(*args)
    np.testing.assert_allclose(values(ours), expected, rtol=2e-6)


@pytest.mark.by_turns(5)
@pytest.mark.parametrize("start, end", [(0.1, 0.7), (1e8, 0.1), (0.3, 1e-9), (0.0, 3e-4)])
@pytest.mark.parametrize(
    "build, last",
    [
        (lambda a, b: gradtx.linear_schedule(a, b, 7), 7),
        (lambda a, b: gradtx.linear_schedule(a, b, 7, 3), 10),
        (lambda a, b: gradtx.polynomial_schedule(a, b, 3.0, 7), 7),
        (lambda a, b: gradtx.warmup_constant_schedule(a, b, 7), 7),
        (lambda a, b: gradtx.warmup_linear_decay_schedule(a, 1.0, 3, 7, b), 7),
        (lambda a, b: gradtx.warmup_cosine_decay_schedule(a, 1.0, 3, 7, b), 7),
    ],
    ids=["linear", "later", "polynomial", "warmup", "warmup linear", "warmup cosine"],
)
def test_both_ends_are_exact(build, last, start, end):
    """Also where they are many magnitudes apart, and for ever after."""
    at = jax.jit(build(start, end))
    assert float(at(0)) == np.float32(start)
    assert float(at(last)) == float(at(last + 1)) == float(at(10**6)) == np.float32(end)


def test_the_peak_is_exact():
    for build in (gradtx.warmup_linear_decay_schedule, gradtx.warmup_cosine_decay_schedule):
        assert float(build(0.01, 0.7, 9, 30)(9)) == np.float32(0.7)


def test_update_t_from_0_uses_the_value_at_t():
    tx = gradtx.scale_by_schedule(gradtx.linear_schedule(1.0, 5.0, 4))
    state, seen = tx.init(jnp.zeros(())), []
    for _ in range(6):
        u, state = tx.update(jnp.ones(()), state)
        seen.append(float(u))
    assert seen == [1.0, 2.0, 3.0, 4.0, 5.0, 5.0]


def test_joined_parts_count_their_own_steps():
    up, down = gradtx.linear_schedule(0.0, 1.0, 4), gradtx.linear_schedule(1.0, 0.0, 2)
    joined = gradtx.join_schedules([up, down, 0.5], [4, 8])
    expected = [0.0, 0.25, 0.5, 0.75, 1.0, 0.5, 0.0, 0.0, 0.5, 0.5]
    assert values(joined, 10).tolist() == expected
    theirs = optax.join_schedules([up, down, optax.constant_schedule(0.5)], [4, 8])
    assert [float(theirs(t)) for t in range(10)] == expected


def test_the_first_boundary_may_be_0():
    """Optax's issue 1403: NaN."""
    never, then = gradtx.linear_schedule(9.0, 9.0, 1), gradtx.linear_schedule(0.0, 1.0, 2)
    assert values(gradtx.join_schedules([never, then], [0]), 4).tolist() == [0.0, 0.5, 1.0, 1.0]
    assert values(gradtx.piecewise_constant_schedule(1.0, {0: 0.5, 1: 0.5}), 2).tolist() == [0.5, 0.25]


@pytest.mark.parametrize("boundaries", [(0, 0), (3, 3), (2.5, 4), (0, 2)])
def test_joined_parts_with_no_step_or_that_begin_between_two_are_optaxs(boundaries):
    def joined(library):
        parts = [library.linear_schedule(x, x + 9, 9) for x in (0.0, 10.0, 20.0)]
        return library.join_schedules(parts, boundaries)

    at = range(7)
    np.testing.assert_allclose([joined(gradtx)(t) for t in at], [joined(optax)(t) for t in at], rtol=1e-6)


@pytest.mark.parametrize("first", [-1, 2.5, 0])
def test_pieces_that_begin_before_the_run_or_between_two_steps_are_optaxs(first):
    ours = gradtx.piecewise_constant_schedule(2.0, {first: 0.5, 5: 0.25})
    theirs = optax.piecewise_constant_schedule(2.0, {first: 0.5, 5: 0.25})
    state = gradtx.sgd(gradtx.piecewise_constant_schedule(2.0, {4: 0.5, 5: 0.25})).init(jnp.zeros(()))
    state = gradtx.set_hyperparams(state, **{"learning_rate.boundaries.0": first})
    for t in range(7):
        now = gradtx.hyperparams({**state, "step": jnp.int32(t)})["learning_rate"]
        np.testing.assert_allclose([ours(t), now], theirs(t), rtol=1e-6)
    assert ours.corners() == (max(first, 0), 5)


def test_callables_can_be_joined():
    joined = gradtx.join_schedules([lambda t: jnp.sqrt(jnp.float32(t)), lambda t: t * 2], [4])
    expected = [0.0, 1.0, np.sqrt(np.float32(2)), np.sqrt(np.float32(3)), 0.0, 2.0]
    np.testing.assert_allclose(values(joined, 6), expected, rtol=1e-7)
    tx = gradtx.sgd(joined)
    state = tx.init(jnp.zeros(()))
    for rate in expected:
        np.testing.assert_allclose(gradtx.hyperparams(state)["learning_rate"], rate, rtol=1e-6)
        u, state = tx.update(jnp.ones(()), state)
        np.testing.assert_allclose(-u, rate, rtol=1e-7)


def test_a_plain_callable_gets_the_step_and_shows_its_next_value():
    def rate(step):
        assert step.dtype == jnp.int32
        return jnp.where(step < 2, 0.5, 0.25)

    tx = gradtx.sgd(rate)
    state, seen = tx.init(jnp.zeros(())), []
    for _ in range(4):
        shown = gradtx.hyperparams(state)["learning_rate"]
        u, state = tx.update(jnp.ones(()), state)
        assert -float(u) == shown
        seen.append(shown)
    assert seen == [0.5, 0.5, 0.25, 0.25]


def test_a_schedules_numbers_are_set_in_the_state():
    schedule = gradtx.warmup_linear_decay_schedule(0.0, 1.0, 2, 6)
    tx = gradtx.sgd(schedule)
    state = tx.init(jnp.zeros(()))
    state = gradtx.set_hyperparams(
        state, **{"learning_rate.peak_value": 2.0, "learning_rate.warmup_steps": 4.0}
    )
    update, seen = jax.jit(tx.update), []
    for _ in range(8):
        u, state = update(jnp.ones(()), state)
        seen.append(-float(u))
    assert seen == [0.0, 0.5, 1.0, 1.5, 2.0, 1.0, 0.0, 0.0]


def test_the_parts_of_a_join_are_set_in_the_state():
    parts = [gradtx.linear_schedule(0.0, 1.0, 2), gradtx.constant_schedule(1.0)]
    tx = gradtx.sgd(gradtx.join_schedules(parts, [2]))
    state = gradtx.set_hyperparams(
        tx.init(jnp.zeros(())), **{"learning_rate.schedules.1.value": 7.0, "learning_rate.boundaries.0": 1.0}
    )
    seen = []
    for _ in range(3):
        u, state = tx.update(jnp.ones(()), state)
        seen.append(-float(u))
    assert seen == [0.0, 7.0, 7.0]


@pytest.mark.parametrize(
    "build, argument",
    [
        (lambda n: gradtx.linear_schedule(0.0, 1.0, n), "transition_steps"),
        (lambda n: gradtx.polynomial_schedule(0.0, 1.0, 2, n), "transition_steps"),
        (lambda n: gradtx.cosine_decay_schedule(1.0, n), "decay_steps"),
        (lambda n: gradtx.exponential_decay(1.0, n, 0.5), "transition_steps"),
        (lambda n: gradtx.warmup_linear_decay_schedule(0.0, 1.0, 0, n), "decay_steps"),
        (lambda n: gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 0, n), "decay_steps"),
    ],
    ids=["linear", "polynomial", "cosine", "exponential", "warmup linear", "warmup cosine"],
)
@pytest.mark.parametrize("length", [0, -3])
def test_a_length_that_is_not_positive_is_an_error(build, argument, length):
    with pytest.raises(ValueError, match=f"{argument}.*{length}"):
        build(length)


def test_a_decay_that_ends_in_the_warmup_is_an_error():
    for build in (gradtx.warmup_linear_decay_schedule, gradtx.warmup_cosine_decay_schedule):
        with pytest.raises(ValueError, match=r"decay_steps.*warmup_steps; got 5 and 10"):
            build(0.0, 1.0, 10, 5)


def test_a_negative_warmup_is_an_error():
    with pytest.raises(ValueError, match="warmup_steps"):
        gradtx.warmup_constant_schedule(0.0, 1.0, -1)


def test_boundaries_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="2 schedules need 1 boundaries, got 2"):
        gradtx.join_schedules([0.1, 0.2], [1, 2])


def test_a_schedule_works_in_optax():
    schedule = gradtx.warmup_linear_decay_schedule(0.0, 1.0, 2, 6)
    tx = optax.sgd(schedule)
    update, state = jax.jit(tx.update), tx.init(jnp.zeros(()))
    seen = []
    for _ in range(7):
        u, state = update(jnp.ones(()), state)
        seen.append(-float(u))
    assert seen == [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_an_optax_schedule_works_here():
    tx = gradtx.sgd(functools.partial(optax.linear_schedule(1.0, 0.0, 2)))
    state, seen = tx.init(jnp.zeros(())), []
    for _ in range(3):
        u, state = tx.update(jnp.ones(()), state)
        seen.append(-float(u))
    assert seen == [1.0, 0.5, 0.0]
