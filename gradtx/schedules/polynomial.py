"""A power of what is left."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradtx.core.numbers.schedule import Schedule
from gradtx.core.numbers.steps import Steps
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, NonNegativeSteps, Number, PositiveSteps, Scalar
from gradtx.schedules.linear import between, progress


class PolynomialSchedule(Schedule, name="polynomial_schedule"):
    """From init_value to end_value, with the remaining fraction raised to a power."""

    init_value: Number
    end_value: Number
    power: NonNegative
    transition_steps: PositiveSteps
    transition_begin: NonNegativeSteps

    def at(self, step: Steps) -> jax.Array:
        left = 1 - progress(step - self.transition_begin, self.transition_steps)
        return between(self.end_value, self.init_value, jnp.power(left, self.power))

    def corners(self) -> tuple[float, ...]:
        return (self.transition_begin, self.transition_begin + self.transition_steps)


@builds(PolynomialSchedule)
def polynomial_schedule(
    init_value: Scalar,
    end_value: Scalar,
    power: Scalar,
    transition_steps: Scalar,
    transition_begin: Scalar = 0,
) -> Schedule:
    """A power of what is left: end + (init - end) (1 - f)^power, f = clip((t - begin) / steps, 0, 1).

    Args:
        init_value: the first value; it holds until step `transition_begin`.
        end_value: the last value; it holds from step `transition_begin + transition_steps` on.
        power: the exponent, >= 0; 1 is a straight line.
        transition_steps: the length of the transition in steps, > 0.
        transition_begin: the step at which it starts, >= 0.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: `transition_steps` is not positive.

    Examples:
        >>> import gradtx
        >>> [float(gradtx.polynomial_schedule(1.0, 0.0, 2, 4)(t)) for t in (0, 2, 4)]
        [1.0, 0.25, 0.0]
    """
    ...
