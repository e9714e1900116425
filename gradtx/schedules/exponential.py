"""Exponential decay, plain and after a warmup."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.numbers.schedule import Schedule
from gradtx.core.numbers.steps import Steps
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegativeSteps, Number, Positive, PositiveSteps, Scalar
from gradtx.schedules.linear import between, progress


def _decayed(decay: Any, value: jax.Array, step: Steps) -> jax.Array:
    """What a value has become at a step, by the fields of a schedule that decays."""
    passed, length = (step - decay.transition_begin).from_zero(), Steps.of(decay.transition_steps)
    # In the state a bool is a number, 0 or 1, like all that a schedule consists of.
    power = jnp.where(jnp.asarray(decay.staircase) != 0, passed // length, passed / length)
    value = value * jnp.power(decay.decay_rate, power)
    if decay.end_value is None:
        return value
    low, high = jnp.maximum(value, decay.end_value), jnp.minimum(value, decay.end_value)
    return jnp.where(decay.decay_rate < 1, low, high)


def _corners(decay: Any, value: float) -> tuple[float, ...]:
    """The steps between which such a value falls or rests."""
    begin, end = decay.transition_begin, decay.end_value
    if decay.decay_rate == 1 or value == 0:
        return ()
    if end is None or value < 0 or end <= 0:
        return (begin, math.inf)
    # The exponent at which the bound is reached; one below 0 was passed before the start.
    power = max(math.log(end / value) / math.log(decay.decay_rate), 0.0)
    power = math.ceil(power) if decay.staircase else power
    return (begin, begin + power * decay.transition_steps) if power else ()


class ExponentialDecay(Schedule, name="exponential_decay"):
    """init_value decay_rate^(steps / transition_steps), bounded by end_value."""

    init_value: Number
    transition_steps: PositiveSteps
    decay_rate: Positive
    transition_begin: NonNegativeSteps
    staircase: bool
    end_value: Number | None

    def at(self, step: Steps) -> jax.Array:
        return _decayed(self, self.init_value, Steps.of(step))

    def corners(self) -> tuple[float, ...]:
        return _corners(self, self.init_value)


@builds(ExponentialDecay)
def exponential_decay(
    init_value: Scalar,
    transition_steps: Scalar,
    decay_rate: Scalar,
    transition_begin: Scalar = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Schedule:
    """Exponential decay: init_value decay_rate^(k / transition_steps), k the steps since transition_begin.

    Args:
        init_value: the first value; it holds until step `transition_begin`.
        transition_steps: the number of steps in which the value is multiplied by `decay_rate`, > 0.
        decay_rate: what the value is multiplied by in `transition_steps` steps, > 0.
        transition_begin: the step at which it starts, >= 0.
        staircase: round the exponent down; the value then falls in stairs.
        end_value: a bound of the value; the least for a rate < 1, the greatest for a rate > 1. By default
            there is none.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: `transition_steps` or `decay_rate` is not positive.

    Examples:
        >>> import gradtx
        >>> [float(gradtx.exponential_decay(1.0, 2, 0.25)(t)) for t in (0, 1, 2)]
        [1.0, 0.5, 0.25]
    """
    ...


class WarmupExponentialDecaySchedule(Schedule, name="warmup_exponential_decay_schedule"):
    """Up from init_value to peak_value in a line, then exponential decay."""

    init_value: Number
    peak_value: Number
    warmup_steps: NonNegativeSteps
    transition_steps: PositiveSteps
    decay_rate: Positive
    transition_begin: NonNegativeSteps
    staircase: bool
    end_value: Number | None

    def at(self, step: Steps) -> jax.Array:
        up = between(self.init_value, self.peak_value, progress(step, self.warmup_steps))
        down = _decayed(self, self.peak_value, (Steps.of(step) - self.warmup_steps).from_zero())
        return jnp.where(step < self.warmup_steps, up, down)

    def corners(self) -> tuple[float, ...]:
        start = self.warmup_steps
        return (start, *(start + corner for corner in _corners(self, self.peak_value)))


@builds(WarmupExponentialDecaySchedule)
def warmup_exponential_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Scalar,
    transition_steps: Scalar,
    decay_rate: Scalar,
    transition_begin: Scalar = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> Schedule:
    """A linear warmup, then exponential decay: peak_value decay_rate^(k / transition_steps).

    Args:
        init_value: the first value; it is that of step 0, usually 0 or small.
        peak_value: the value after the warmup; it is reached at step `warmup_steps`.
        warmup_steps: the length of the warmup in steps, >= 0.
        transition_steps: the number of steps in which the value is multiplied by `decay_rate`, > 0.
        decay_rate: what the value is multiplied by in `transition_steps` steps, > 0.
        transition_begin: the step at which it starts, >= 0; it counts from the end of the warmup.
        staircase: round the exponent down; the value then falls in stairs.
        end_value: a bound of the value; the least for a rate < 1, the greatest for a rate > 1. By default
            there is none.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: `transition_steps` or `decay_rate` is not positive.

    Examples:
        >>> import gradtx
        >>> schedule = gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 2, 1, 0.5)
        >>> [float(schedule(t)) for t in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    ...
