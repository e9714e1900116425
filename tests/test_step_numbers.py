"""Numbers of steps past 2^24, which float32 does not hold: all is exact to 2^31 - 1."""

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
import references
from gradtx.core.numbers.steps import LAST, Steps, given, missing, nearest, next_count
from trajectories import x64

FAR = {"2^24": 2**24 + 1, "2^30": 2**30 + 7, "2^31": 2**31 - 7}
"""Where something happens: odd numbers that float32 does not hold."""


def schedules(far):
    """Each public schedule with something to see around a step: its name and arguments."""
    return {
        "constant": ("constant_schedule", (0.3,)),
        "linear": ("linear_schedule", (0.1, 0.7, 5, far - 2)),
        "long linear": ("linear_schedule", (0.1, 0.7, far)),
        "polynomial": ("polynomial_schedule", (0.7, 0.1, 2.5, 5, far - 2)),
        "cosine": ("cosine_decay_schedule", (0.7, far, 0.1, 2.0)),
        "exponential": ("exponential_decay", (0.7, 5, 0.5, far - 2)),
        "exponential stairs": ("exponential_decay", (0.7, 3, 0.5, far - 2, True)),
        "one long stair": ("exponential_decay", (0.7, far, 0.5, 0, True)),
        "exponential to a bound": ("exponential_decay", (0.7, 5, 0.5, far - 2, False, 0.5)),
        "piecewise": ("piecewise_constant_schedule", (0.8, {5: 0.5, far: 0.1, far + 2: 0.5})),
        "warmup": ("warmup_constant_schedule", (0.1, 0.7, far)),
        "warmup, linear": ("warmup_linear_decay_schedule", (0.1, 0.7, far - 2, far + 4, 0.2)),
        "warmup, cosine": ("warmup_cosine_decay_schedule", (0.1, 0.7, far - 2, far + 4, 0.2)),
    }


NAMES = tuple(schedules(0 + 8))
AROUND = range(-5, 7)


def build(name, far):
    factory, args = schedules(far)[name]
    return getattr(gradtx, factory)(*args), getattr(references, factory.removesuffix("_schedule"))(*args)


def rates(tx, start, number, *, compiled):
    """The rates of some updates from a step on: the updates of a gradient of 1."""
    update = jax.jit(tx.update) if compiled else tx.update
    state = {**tx.init(jnp.zeros(())), "step": jnp.int32(start)}
    found = []
    for _ in range(number):
        read = gradtx.hyperparams(state)["learning_rate"]
        u, state = update(jnp.ones(()), state)
        found.append(-float(u))
        np.testing.assert_allclose(found[-1], read, rtol=1e-6)
    return found


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("far", FAR.values(), ids=FAR)
@pytest.mark.parametrize("name", NAMES)
def test_every_schedule_is_exact_around_a_far_step(name, far):
    """Its reference computes in float64, which holds every step exactly."""
    ours, reference = build(name, far)
    steps = [far + i for i in AROUND]
    expected = [reference(t) for t in steps]
    at = jax.jit(ours)
    np.testing.assert_allclose([float(at(t)) for t in steps], expected, rtol=3e-6, atol=1e-7)
    np.testing.assert_allclose(ours(jnp.array(steps)), expected, rtol=3e-6, atol=1e-7)
    with x64():
        np.testing.assert_allclose([float(ours(t)) for t in steps], expected, rtol=1e-13)


@pytest.mark.by_turns(4)
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "eager"])
@pytest.mark.parametrize("name", NAMES)
def test_and_in_an_optimizer(name, compiled):
    far = FAR["2^24"] if compiled else FAR["2^31"]
    ours, reference = build(name, far)
    found = rates(gradtx.sgd(ours), far - 3, 6, compiled=compiled)
    np.testing.assert_allclose(found, [reference(far - 3 + i) for i in range(6)], rtol=3e-6, atol=1e-7)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("far", FAR.values(), ids=FAR)
def test_joined_schedules_start_at_their_step(far):
    joined = gradtx.join_schedules([1.0, gradtx.linear_schedule(1.0, 0.0, 4)], [far - 2])
    expected = [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert [float(joined(far - 4 + i)) for i in range(8)] == expected
    assert rates(gradtx.sgd(joined), far - 4, 8, compiled=True) == expected
    inner = gradtx.piecewise_constant_schedule(1.0, {far // 2 + 1: 0.5})
    nested = gradtx.join_schedules([3.0, inner], [far - 1 - (far // 2 + 1)])
    assert [float(nested(far - 3 + i)) for i in range(4)] == [1.0, 1.0, 0.5, 0.5]
    code = gradtx.join_schedules([0.0, lambda t: t], [far - 2])
    assert [float(code(far - 3 + i)) for i in range(4)] == [0.0, 0.0, 1.0, 2.0]


def test_a_stair_of_a_long_run_is_taken_at_its_step():
    """t / 1024 rounds up to the next whole number 32 steps before it is reached, in float32."""
    stairs = gradtx.exponential_decay(1.0, 1024, 0.999, 0, True)
    for t in (2**30 - 1, 2**30, 2**31 - 1):
        power = float(Fraction(t) // 1024)
        np.testing.assert_allclose(float(stairs(t)), np.float32(0.999) ** power, rtol=1e-5)
    count = Steps.of(jnp.int32(2**31 - 1))
    assert int(count // 1024) == 2**21 - 1
    np.testing.assert_allclose(count // 2.5, (2**31 - 1) // 2.5, rtol=1e-7)


@pytest.mark.wide
def test_the_state_reads_and_takes_numbers_that_float32_does_not_hold():
    """As they were given, in one compilation, and in a sweep."""
    tx = gradtx.sgd(gradtx.piecewise_constant_schedule(1.0, {2**24 + 1: 0.5}))
    state = {**tx.init(jnp.zeros(())), "step": jnp.int32(2**24)}
    update: Any = jax.jit(tx.update)
    for boundary in (2**24 + 1, 2**24 + 3, 2**30 + 1, 2**31 - 1, 4.3, 7):
        new = gradtx.set_hyperparams(state, **{"learning_rate.boundaries.0": boundary})
        assert gradtx.hyperparams(new)["learning_rate.boundaries.0"] == boundary
        for step in (-1, 0, 1):
            at = {**new, "step": jnp.int32(int(min(np.ceil(boundary) + step, LAST)))}
            u, _ = update(jnp.ones(()), at)
            assert -float(u) == (0.5 if int(at["step"]) >= boundary else 1.0)
    assert update._cache_size() == 1
    line = gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 2**24 + 3, 4.3)).init(jnp.zeros(()))
    read = gradtx.hyperparams(line)
    assert read["learning_rate.transition_steps"] == 2**24 + 3
    assert read["learning_rate.transition_begin"] == 4.3
    lengths = np.array([2**24 + 1, 2**30 + 1])
    sweep = jax.tree.map(lambda x: jnp.stack([x, x]), line)
    sweep = gradtx.set_hyperparams(sweep, **{"learning_rate.transition_steps": lengths})
    assert (gradtx.hyperparams(sweep)["learning_rate.transition_steps"] == lengths).all()


@pytest.mark.parametrize("precise", [False, True], ids=["float32", "float64"])
def test_two_floats_hold_every_number_of_steps(precise):
    def check():
        for x in (0, 1, 4.3, 0.1, 1000.001, 2**24 + 1, 2**24 + 0.5, 2**31 - 1, 2**31, 2**33 + 1, 10**12):
            near, rest = (np.asarray(v, jnp.result_type(float)) for v in (nearest(x), missing(x)))
            assert float(given(near, rest)) == x
            if x == int(x) and x <= LAST:
                steps = Steps.of(jnp.asarray(near), jnp.asarray(rest))
                assert int(steps.floor()) == int(steps.ceil()) == x
                now = Steps.of(jnp.int32(x))
                assert bool(now >= steps) and bool(now <= steps) and not bool(now > steps)
                assert float((now - steps).value) == 0.0
            else:
                assert bool(Steps.of(jnp.int32(int(min(x, LAST)))) < x)
        traced = jax.jit(lambda n: given(nearest(n).astype(float), missing(n)))
        assert int(traced(2**24 + 2)) == 2**24 + 2
        held = jax.jit(lambda n: (n.astype(jnp.result_type(float)), missing(n)))
        for n in (5, 2**24 + 1, 2**30 + 1, LAST):
            near, rest = held(jnp.int32(n))
            assert np.float64(near) + np.float64(rest) == n

    if precise:
        with x64():
            check()
    else:
        check()


def test_a_traced_number_of_steps_is_exact():
    def rate(boundary, step):
        tx = gradtx.sgd(gradtx.join_schedules([1.0, 0.5], [boundary]))
        state = tx.init(jnp.zeros(()))
        return -tx.update(jnp.ones(()), {**state, "step": step})[0]

    found = jax.jit(jax.vmap(rate, (None, 0)))(jnp.int32(2**24 + 1), 2**24 + jnp.arange(4))
    assert found.tolist() == [1.0, 0.5, 0.5, 0.5]


def test_a_number_given_as_an_array_is_exact():
    numbers: tuple[Any, ...] = (jnp.float32(2**30), jnp.int32(2**30 + 1), np.int64(2**24 + 1))
    for given_as in numbers:
        state = gradtx.track(gradtx.sgd(0.1), every=given_as).init(jnp.zeros(()))
        assert gradtx.hyperparams(state)["track.every"] == int(given_as)


def test_a_schedule_of_ones_own_computes_with_the_step_as_a_float():
    class Halving(gradtx.Schedule, name="halving"):
        init_value: gradtx.Number
        begin: gradtx.NonNegative

        def at(self, step: Any):
            return self.init_value * jnp.exp2(-(step - self.begin) / 2) + 0 * jnp.sqrt(step)

    assert [float(Halving(init_value=1.0, begin=2.0)(t)) for t in (2, 4, 6)] == [1.0, 0.5, 0.25]


def test_a_subclass_may_shift_the_steps_that_a_schedule_sees():
    """Exactly, also by a whole number past the last one; and by any arithmetic, as a float."""

    class Ahead(type(gradtx.linear_schedule(0.0, 1.0, 4)), name="ahead"):
        def at(self, step: Any):
            return super().at(step + 1)

    class Fast(type(gradtx.linear_schedule(0.0, 1.0, 4)), name="fast"):
        def at(self, step: Any):
            return super().at(step * 2)

    far = 2**31 - 5
    ahead = Ahead(init_value=0.0, end_value=1.0, transition_steps=4, transition_begin=far)
    assert [float(ahead(far - 2 + i)) for i in range(7)] == [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    fast = Fast(init_value=0.0, end_value=1.0, transition_steps=4, transition_begin=2)
    assert [float(fast(t)) for t in range(4)] == [0.0, 0.0, 0.5, 1.0]


# Periods and counts: the state is set to where float32 or int32 would end.


def stepped(tx, state, number=1, gradient=1.0, params=None, compiled=True):
    """The updates and states of some steps."""
    update = jax.jit(tx.update) if compiled else tx.update
    found = []
    params = {"w": jnp.ones(1)} if params is None else params
    for _ in range(number):
        u, state = update({"w": jnp.full(1, gradient)}, state, params)
        found.append((float(u["w"][0]), state))
    return found


def at_count(tx, step=0, **counts):
    """The state of a wrapper with its counters set."""
    (name, slots), *_ = (state := tx.init({"w": jnp.ones(1)}))["slots"].items()
    slots = {**slots, **{key: jnp.int32(value) for key, value in counts.items()}}
    return {**state, "step": jnp.int32(step), "slots": {**state["slots"], name: slots}}


def slots_of(state):
    (slots,) = (s for s in state["slots"].values() if isinstance(s, dict))
    return slots


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "eager"])
@pytest.mark.parametrize("start", [2**24 + 2, 2**30 + 1, LAST - 12])
def test_track_measures_at_multiples_of_its_period(start, compiled):
    tx = gradtx.track(gradtx.sgd(0.1), every=3)
    seen = [
        int(slots_of(s)["measured_at"]) for _, s in stepped(tx, at_count(tx, start), 12, compiled=compiled)
    ]
    due = [start + i for i in range(12) if (start + i) % 3 == 0]
    assert sorted({x for x in seen if x >= 0}) == due


def test_track_with_a_period_that_float32_does_not_hold():
    tx = gradtx.track(gradtx.sgd(0.1), every=2**24 + 1)
    seen = [int(slots_of(s)["measured_at"]) for _, s in stepped(tx, at_count(tx, 2**24 - 1), 4)]
    assert seen == [-1, -1, 2**24 + 1, 2**24 + 1]


def test_the_counts_of_track_end_at_the_last_number():
    tx = gradtx.track(gradtx.sgd(0.1), every=1)
    for _, state in stepped(tx, at_count(tx, LAST - 1, measured=LAST - 1, measured_at=LAST - 2), 3):
        assert int(slots_of(state)["measured"]) == LAST
        assert LAST - 1 <= int(slots_of(state)["measured_at"]) <= LAST
        assert gradtx.metrics(state)["measured_at"] > 0
        assert gradtx.step_count(state) == LAST


@pytest.mark.by_turns(4)
@pytest.mark.parametrize("wrapper", [gradtx.accumulate, gradtx.MultiSteps], ids=["accumulate", "MultiSteps"])
@pytest.mark.parametrize("every", [2**24 + 3, 2**24 + 5, 2**30 + 1, LAST])
def test_accumulation_is_complete_at_its_number(wrapper, every):
    tx = wrapper(gradtx.sgd(1.0), every)
    state = at_count(tx, every - 3, count=every - 3)
    moved = [u != 0 for u, _ in stepped(tx, state, 4)]
    assert moved == [False, False, True, False]


@pytest.mark.parametrize("wrapper", [gradtx.accumulate, gradtx.MultiSteps], ids=["accumulate", "MultiSteps"])
def test_the_counts_of_accumulation_end_at_the_last_number(wrapper):
    tx = wrapper(gradtx.sgd(1.0), 2)
    state = at_count(tx, LAST - 1, clock=LAST - 1, skipped=LAST, latest=LAST - 2)
    for i, (u, new) in enumerate(stepped(tx, state, 6)):
        slots = slots_of(new)
        assert (u != 0) == (i % 2 == 1)
        assert int(slots["clock"]) == (LAST if i else LAST - 1)
        assert int(slots["skipped"]) == LAST
        assert int(slots["latest"]) == (LAST if i else LAST - 2)
        if wrapper is gradtx.MultiSteps:
            assert bool(tx.has_updated(new)) == (i % 2 == 1)


def test_what_accumulation_drops_is_counted_to_the_last_number():
    tx = gradtx.accumulate(gradtx.sgd(1.0), 1)
    ((_, state),) = stepped(tx, at_count(tx, skipped=LAST), gradient=np.inf)
    assert int(slots_of(state)["skipped"]) == LAST


@pytest.mark.parametrize("period", [2**24 + 3, 2**30 + 1, LAST])
def test_lookahead_synchronizes_at_its_number(period):
    tx = gradtx.lookahead(gradtx.sgd(1.0), period, 0.5)
    counts = [int(slots_of(s)["count"]) for _, s in stepped(tx, at_count(tx, count=period - 3), 4)]
    assert counts == [period - 2, period - 1, 0, 1]


def test_the_count_of_lookahead_ends_at_the_last_number():
    """A number for its period is one that it reaches; what a schedule gives is not known beforehand."""
    tx = gradtx.lookahead(gradtx.sgd(1.0), gradtx.constant_schedule(2.0**33), 0.5)
    counts = [int(slots_of(s)["count"]) for _, s in stepped(tx, at_count(tx, count=LAST - 1), 3)]
    assert counts == [LAST] * 3


@pytest.mark.parametrize("period", [2**24 + 3, 2**30 + 1, LAST])
def test_apply_every_lets_through_at_its_number(period):
    tx = gradtx.apply_every(period)
    passed = [u != 0 for u, _ in stepped(tx, at_count(tx, count=period - 2), 3)]
    assert passed == [False, True, False]


@pytest.mark.parametrize("errors", [2**24 + 1, 2**30 + 1])
def test_apply_if_finite_gives_up_at_its_number(errors):
    tx = gradtx.apply_if_finite(gradtx.sgd(1.0), errors)
    state = at_count(tx, notfinite_count=errors - 1, total_notfinite=LAST - 1)
    found = stepped(tx, state, 3, gradient=np.inf)
    assert [np.isfinite(u) for u, _ in found] == [True, False, True]
    assert [int(slots_of(s)["total_notfinite"]) for _, s in found] == [LAST] * 3


@pytest.mark.wide
def test_a_guard_counts_exactly_and_to_the_last_number():
    warm = 2**24 + 1
    tx = gradtx.guard(gradtx.sgd(1.0), warmup=warm, decay=0.5)
    state = at_count(tx, LAST - 1, seen=warm - 1, skipped=LAST - 1, in_a_row=LAST, spikes=LAST)
    ((u, new),) = stepped(tx, state, gradient=9.0)
    assert u == -9.0 and int(slots_of(new)["seen"]) == warm
    ((u, new),) = stepped(tx, new, gradient=90.0)
    assert u == 0.0
    ((u, new),) = stepped(tx, at_count(tx, seen=LAST, skipped=LAST, in_a_row=LAST), gradient=np.inf)
    slots = slots_of(new)
    assert [int(slots[k]) for k in ("seen", "skipped", "in_a_row")] == [LAST] * 3
    patient = gradtx.guard(gradtx.sgd(1.0), warmup=0, patience=warm)
    state = at_count(patient, seen=5, spikes=warm - 1)
    assert [u for u, _ in stepped(patient, state, 2)] == [0.0, -1.0]


@pytest.mark.wide
def test_a_guards_box_keeps_the_last_steps_of_a_long_run():
    tx = gradtx.guard(gradtx.sgd(1.0))
    *_, (_, state) = stepped(tx, at_count(tx, 2**24 + 5), 40)
    assert [s.step for s in gradtx.report(state).last] == [2**24 + 5 + i for i in range(8, 40)]


def test_other_counts_end_at_the_last_number():
    tx = gradtx.conditionally_mask(gradtx.sgd(1.0), lambda calls: calls > 0)
    ((u, state),) = stepped(tx, at_count(tx, calls=LAST))
    assert u == -1.0 and int(slots_of(state)["calls"]) == LAST
    ema = gradtx.monitor({"m": gradtx.measure_with_ema(gradtx.global_norm, 0.9)})
    ((_, state),) = stepped(ema, {**ema.init({"w": jnp.ones(1)}), "step": jnp.int32(LAST)})
    np.testing.assert_allclose(state["slots"]["monitor.m"]["value"], 0.1, rtol=1e-6)
    assert [int(next_count(jnp.int32(n))) for n in (0, LAST - 1, LAST)] == [1, LAST, LAST]
    assert [int(next_count(jnp.int32(LAST), jnp.array(b))) for b in (True, False)] == [LAST, LAST]


def test_steps_that_a_rule_subtracts_are_exact():
    """Adafactor's step offset and the start of a Polyak average, at a step that float32 does not hold."""
    offset = 2**24 + 1
    tx = gradtx.scale_by_factored_rms(step_offset=offset, decay_rate=1.0)
    state = {**tx.init({"w": jnp.ones(1)}), "step": jnp.int32(offset)}
    moments = [float(s["slots"]["scale_by_factored_rms"]["v"]["w"][0]) for _, s in _alternating(tx, state)]
    np.testing.assert_allclose(moments, [1.0, 2.5, 2.0], rtol=1e-6)
    tx = gradtx.polyak_average(gradtx.sgd(1.0), start=offset)
    state = {**tx.init({"w": jnp.ones(1)}), "step": jnp.int32(offset - 1)}
    averages = [
        float(s["slots"]["polyak_average"]["eval_params"]["w"][0]) for _, s in _alternating(tx, state)
    ]
    np.testing.assert_allclose(averages, [0.0, -1.0, -0.5], rtol=1e-6)


def _alternating(tx, state):
    """Three steps with gradients of 1, 2 and 1."""
    found = []
    for gradient in (1.0, 2.0, 1.0):
        found += stepped(tx, state, gradient=gradient)
        state = found[-1][1]
    return found
