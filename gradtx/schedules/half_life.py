"""Decays whose half-life grows along a straight line."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradtx.core.numbers.schedule import Schedule
from gradtx.core.numbers.steps import Steps
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegativeSteps, PositiveSteps, ProperFraction, Scalar
from gradtx.schedules.linear import between, progress


class HalfLifeSchedule(Schedule, name="half_life_schedule"):
    """From one decay to another over transition_steps; 1 / ln(b) moves along a straight line."""

    init_value: ProperFraction
    end_value: ProperFraction
    transition_steps: PositiveSteps
    transition_begin: NonNegativeSteps

    def at(self, step: Steps) -> jax.Array:
        fraction = progress(step - self.transition_begin, self.transition_steps)
        length = between(1 / jnp.log(self.init_value), 1 / jnp.log(self.end_value), fraction)
        there = jnp.where(fraction < 1, jnp.exp(1 / length), self.end_value)
        return jnp.where(fraction > 0, there, self.init_value)

    def corners(self) -> tuple[float, ...]:
        return (self.transition_begin, self.transition_begin + self.transition_steps)


@builds(HalfLifeSchedule)
def half_life_schedule(
    init_value: Scalar, end_value: Scalar, transition_steps: Scalar, transition_begin: Scalar = 0
) -> Schedule:
    """A decay of an average, in whose place its half-life moves along a straight line.

        b = exp(1 / ((1 - f) / ln(init) + f / ln(end))),  f = clip((t - begin) / steps, 0, 1)

    A straight line of the decay itself would jump to a long memory at its end. It is what AdEMAMix takes for
    its slow average, from `b1` to `b3`.

    Args:
        init_value: the first value; a decay in (0, 1). It holds until step `transition_begin`.
        end_value: the last value; a decay in (0, 1). It holds from step `transition_begin + transition_steps`
            on.
        transition_steps: the length of the transition in steps, > 0.
        transition_begin: the step at which it starts, >= 0.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: `transition_steps` is not positive, or a decay not in (0, 1).

    Examples:
        >>> import gradtx
        >>> [round(float(gradtx.half_life_schedule(0.5, 0.875, 4)(t)), 3) for t in range(5)]
        [0.5, 0.713, 0.799, 0.846, 0.875]

    References:
        Pagliardini, Ablin and Grangier, The AdEMAMix Optimizer: Better, Faster, Older, 2024,
        https://arxiv.org/abs/2409.03137.
    """
    ...
