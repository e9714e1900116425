"""Straight lines, and the warmup and decay made of two."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradtx.core.numbers.schedule import Schedule
from gradtx.core.numbers.steps import Steps
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegativeSteps, Number, PositiveSteps, Scalar


def progress(step: Steps, length: Steps) -> jax.Array:
    """How far `step` is through `length` steps, in [0, 1]; a length of 0 is passed at once."""
    none, steps = length <= 0, length.value
    # One's own subclass may pass on a float.
    step = Steps.of(step)
    fraction = jnp.clip(step.value / jnp.where(none, jnp.ones_like(steps), steps), 0.0, 1.0)
    return jnp.where(none, jnp.ones_like(fraction), fraction)


def between(start: jax.Array, end: jax.Array, fraction: jax.Array) -> jax.Array:
    """The value a fraction of the way from `start` to `end`, which hits both exactly."""
    return (1 - fraction) * start + fraction * end


class LinearSchedule(Schedule, name="linear_schedule"):
    """From init_value to end_value over transition_steps, after transition_begin."""

    init_value: Number
    end_value: Number
    transition_steps: PositiveSteps
    transition_begin: NonNegativeSteps

    def at(self, step: Steps) -> jax.Array:
        fraction = progress(step - self.transition_begin, self.transition_steps)
        return between(self.init_value, self.end_value, fraction)

    def corners(self) -> tuple[float, ...]:
        return (self.transition_begin, self.transition_begin + self.transition_steps)


@builds(LinearSchedule)
def linear_schedule(
    init_value: Scalar, end_value: Scalar, transition_steps: Scalar, transition_begin: Scalar = 0
) -> Schedule:
    """A straight line: (1 - f) init_value + f end_value, f = clip((t - begin) / steps, 0, 1).

    Args:
        init_value: the first value; it holds until step `transition_begin`.
        end_value: the last value; it holds from step `transition_begin + transition_steps` on.
        transition_steps: the length of the transition in steps, > 0.
        transition_begin: the step at which it starts, >= 0.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: `transition_steps` is not positive.

    Examples:
        >>> import gradtx
        >>> [float(gradtx.linear_schedule(1.0, 0.0, 4)(t)) for t in (0, 1, 4, 9)]
        [1.0, 0.75, 0.0, 0.0]
    """
    ...


class WarmupLinearDecaySchedule(Schedule, name="warmup_linear_decay_schedule"):
    """Up from init_value to peak_value over warmup_steps, down to end_value at decay_steps."""

    init_value: Number
    peak_value: Number
    warmup_steps: NonNegativeSteps
    decay_steps: PositiveSteps
    end_value: Number

    def check(self) -> None:
        check_warmup(self)

    def at(self, step: Steps) -> jax.Array:
        up = between(self.init_value, self.peak_value, progress(step, self.warmup_steps))
        fraction = progress(step - self.warmup_steps, self.decay_steps - self.warmup_steps)
        down = between(self.peak_value, self.end_value, fraction)
        return jnp.where(step < self.warmup_steps, up, down)

    def corners(self) -> tuple[float, ...]:
        return (self.warmup_steps, self.decay_steps)


def check_warmup(schedule: Schedule) -> None:
    """Raises for a decay that would be over before the warmup is."""
    warmup, total = schedule.__dict__["warmup_steps"], schedule.__dict__["decay_steps"]
    if isinstance(warmup, int | float) and isinstance(total, int | float) and total <= warmup:
        raise ValueError(
            f"{schedule.name}: decay_steps counts from the start, warmup included, and must be greater than "
            f"warmup_steps; got {total} and {warmup}."
        )


@builds(WarmupLinearDecaySchedule)
def warmup_linear_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Scalar,
    decay_steps: Scalar,
    end_value: Scalar = 0.0,
) -> Schedule:
    """A linear warmup from a small value, then a linear decay to the end of training.

    Args:
        init_value: the first value; it is that of step 0, usually 0 or small.
        peak_value: the value after the warmup; it is reached at step `warmup_steps`.
        warmup_steps: the length of the warmup in steps, >= 0.
        decay_steps: the length of the schedule in steps, > 0; the warmup is a part of it, and must be
            shorter.
        end_value: the last value; it holds from step `decay_steps` on.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: `decay_steps` is not greater than `warmup_steps`.

    Examples:
        >>> import gradtx
        >>> schedule = gradtx.warmup_linear_decay_schedule(0.0, 1.0, warmup_steps=2, decay_steps=6)
        >>> [float(schedule(t)) for t in range(7)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    ...


class WarmupConstantSchedule(Schedule, name="warmup_constant_schedule"):
    """Up from init_value to peak_value over warmup_steps, then constant."""

    init_value: Number
    peak_value: Number
    warmup_steps: NonNegativeSteps

    def at(self, step: Steps) -> jax.Array:
        return between(self.init_value, self.peak_value, progress(step, self.warmup_steps))

    def corners(self) -> tuple[float, ...]:
        return (self.warmup_steps,)


@builds(WarmupConstantSchedule)
def warmup_constant_schedule(init_value: Scalar, peak_value: Scalar, warmup_steps: Scalar) -> Schedule:
    """A linear warmup, then a constant.

    Args:
        init_value: the first value; it is that of step 0, usually 0 or small.
        peak_value: the value after the warmup; it holds from step `warmup_steps` on.
        warmup_steps: the length of the warmup in steps, >= 0.

    Returns:
        A schedule whose numbers can be set in the state.

    Examples:
        >>> import gradtx
        >>> [float(gradtx.warmup_constant_schedule(0.0, 1.0, 2)(t)) for t in range(4)]
        [0.0, 0.5, 1.0, 1.0]
    """
    ...
