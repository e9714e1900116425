"""Exponential decay."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from gradtx.core.numbers.schedule import Schedule
from gradtx.core.numbers.steps import Steps
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegativeSteps, Number, Positive, PositiveSteps, Scalar


class ExponentialDecay(Schedule, name="exponential_decay"):
    """init_value decay_rate^(steps / transition_steps), bounded by end_value."""

    init_value: Number
    transition_steps: PositiveSteps
    decay_rate: Positive
    transition_begin: NonNegativeSteps
    staircase: bool
    end_value: Number | None

    def at(self, step: Steps) -> jax.Array:
        passed, length = (Steps.of(step) - self.transition_begin).from_zero(), Steps.of(self.transition_steps)
        # In the state a bool is a number, 0 or 1, like all that a schedule consists of.
        power = jnp.where(jnp.asarray(self.staircase) != 0, passed // length, passed / length)
        value = self.init_value * jnp.power(self.decay_rate, power)
        if self.end_value is None:
            return value
        low, high = jnp.maximum(value, self.end_value), jnp.minimum(value, self.end_value)
        return jnp.where(self.decay_rate < 1, low, high)

    def corners(self) -> tuple[float, ...]:
        begin, end = self.transition_begin, self.end_value
        if self.decay_rate == 1 or self.init_value == 0:
            return ()
        if end is None or self.init_value < 0 or end <= 0:
            return (begin, math.inf)
        # The exponent at which the bound is reached; one below 0 was passed before the start.
        power = max(math.log(end / self.init_value) / math.log(self.decay_rate), 0.0)
        power = math.ceil(power) if self.staircase else power
        return (begin, begin + power * self.transition_steps) if power else ()


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
