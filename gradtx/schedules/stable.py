"""Schedules that rest at their peak, or fall from it without an end."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.core.numbers.schedule import Schedule
from gradtx.core.numbers.steps import Steps
from gradtx.core.numerics import sqrt
from gradtx.core.spec.arguments import builds, factory
from gradtx.core.spec.fields import NonNegative, NonNegativeSteps, Number, PositiveSteps, Scalar
from gradtx.core.spec.spec import call_arguments, show
from gradtx.schedules.linear import between, progress

Shape = Literal["linear", "1-sqrt", "cosine", "power"]


class WarmupStableDecaySchedule(Schedule, name="warmup_stable_decay_schedule"):
    """Up to peak_value over warmup_steps, there until decay_begin, down to end_value over decay_steps."""

    init_value: Number
    peak_value: Number
    warmup_steps: NonNegativeSteps
    decay_begin: NonNegativeSteps
    decay_steps: PositiveSteps
    end_value: Number
    power: NonNegative
    is_sqrt: bool
    is_cosine: bool

    def check(self) -> None:
        warmup, begin = self.__dict__["warmup_steps"], self.__dict__["decay_begin"]
        if isinstance(warmup, int | float) and isinstance(begin, int | float) and begin < warmup:
            raise ValueError(
                f"{self.name}: the decay begins at step {begin}, before the warmup is over at step {warmup}."
            )

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        values = {k: v for k, v in self._values().items() if k not in ("is_sqrt", "is_cosine")}
        shape = "1-sqrt" if self.is_sqrt else "cosine" if self.is_cosine else "linear"
        if shape == "linear" and not (isinstance(self.power, int | float) and self.power == 1):
            shape = "power"
        return call_arguments(self.name, {**values, "shape": shape})

    def at(self, step: Steps) -> jax.Array:
        up = between(self.init_value, self.peak_value, progress(step, self.warmup_steps))
        fraction = progress(step - self.decay_begin, self.decay_steps)
        # In the state a bool is a number, 0 or 1, like all that a schedule consists of.
        is_sqrt, is_cosine = (jnp.asarray(x) != 0 for x in (self.is_sqrt, self.is_cosine))
        wave, power = (1 + jnp.cos(math.pi * fraction)) / 2, jnp.power(1 - fraction, self.power)
        left = jnp.where(is_sqrt, 1 - sqrt(fraction), jnp.where(is_cosine, wave, power))
        return jnp.where(step < self.warmup_steps, up, between(self.end_value, self.peak_value, left))

    def corners(self) -> tuple[float, ...]:
        return (self.warmup_steps, self.decay_begin, self.decay_begin + self.decay_steps)


@factory
def warmup_stable_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Scalar,
    decay_begin: Scalar,
    decay_steps: Scalar,
    end_value: Scalar = 0.0,
    shape: Shape = "linear",
    power: Scalar = 1.0,
) -> Schedule:
    """A linear warmup, a constant, and a cooldown (WSD), so that the length of a run need not be known early.

        end + (peak - end) s,  s = 1 - f, 1 - sqrt(f), (1 + cos(pi f)) / 2 or (1 - f)^power
        f = (t - begin) / steps

    Args:
        init_value: the first value; it is that of step 0, usually 0 or small.
        peak_value: the value after the warmup; it is reached at step `warmup_steps`.
        warmup_steps: the length of the warmup in steps, >= 0.
        decay_begin: the step at which the cooldown starts, >= `warmup_steps`.
        decay_steps: the length of the cooldown in steps, > 0.
        end_value: the last value; it holds from step `decay_begin + decay_steps` on.
        shape: the shape of the cooldown: `"linear"`, `"1-sqrt"`, `"cosine"` or `"power"`.
        power: the exponent, >= 0; that of the shape `"power"`, which falls the earlier the larger it is.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: an unknown `shape`, `decay_begin` is less than `warmup_steps`, or `power` is given for
            another shape.

    Examples:
        >>> import gradtx
        >>> schedule = gradtx.warmup_stable_decay_schedule(0.0, 1.0, 2, 4, 4)
        >>> [float(schedule(t)) for t in range(9)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]

    References:
        Hu et al., MiniCPM, 2024, https://arxiv.org/abs/2404.06395; Haegele et al., Scaling Laws and
        Compute-Optimal Training Beyond Fixed Training Durations, 2024, https://arxiv.org/abs/2405.18392.
    """
    if shape not in get_args(Shape):
        raise ValueError(
            f"warmup_stable_decay_schedule: shape must be 'linear', '1-sqrt', 'cosine' or 'power', got "
            f"{show(shape)}."
        )
    if shape != "power" and not (isinstance(power, int | float) and power == 1):
        raise ValueError(
            f"warmup_stable_decay_schedule: power is for shape='power'; with {show(shape)} it would do "
            f"nothing."
        )
    return WarmupStableDecaySchedule(
        init_value=init_value,
        peak_value=peak_value,
        warmup_steps=warmup_steps,
        decay_begin=decay_begin,
        decay_steps=decay_steps,
        end_value=end_value,
        power=power,
        is_sqrt=shape == "1-sqrt",
        is_cosine=shape == "cosine",
    )


class InverseSqrtSchedule(Schedule, name="inverse_sqrt_schedule"):
    """Up to peak_value over warmup_steps, then peak_value sqrt(warmup_steps / t)."""

    peak_value: Number
    warmup_steps: NonNegativeSteps

    def at(self, step: Steps) -> jax.Array:
        length = jnp.maximum(self.warmup_steps.value, 1)
        up = self.peak_value * progress(step, self.warmup_steps)
        down = self.peak_value * sqrt(length / jnp.maximum(Steps.of(step).value, length))
        return jnp.where(step < self.warmup_steps, up, down)

    def corners(self) -> tuple[float, ...]:
        return (self.warmup_steps, math.inf)


@builds(InverseSqrtSchedule)
def inverse_sqrt_schedule(peak_value: Scalar, warmup_steps: Scalar) -> Schedule:
    """A linear warmup, then the inverse root of the step: peak min(t / w, sqrt(w / t)), w = warmup_steps.

    Args:
        peak_value: the value after the warmup; it is reached at step `warmup_steps`.
        warmup_steps: the length of the warmup in steps, >= 0; without one it is peak / sqrt(max(t, 1)).

    Returns:
        A schedule whose numbers can be set in the state.

    Examples:
        >>> import gradtx
        >>> schedule = gradtx.inverse_sqrt_schedule(1.0, 4)
        >>> [float(schedule(t)) for t in (0, 2, 4, 16)]
        [0.0, 0.5, 1.0, 0.5]

    References:
        Vaswani et al., Attention Is All You Need, 2017, https://arxiv.org/abs/1706.03762.
    """
    ...
