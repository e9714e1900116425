"""Schedules through given points, along lines or half cosines: in general, and as one cycle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.numbers.schedule import Schedule
from gradtx.core.numbers.steps import Steps
from gradtx.core.spec.arguments import builds, factory
from gradtx.core.spec.fields import NonNegative, Number, Positive, PositiveSteps, Scalar, StepNumber
from gradtx.core.spec.spec import call_arguments, show
from gradtx.schedules.linear import between, progress


def _wave(fraction: jax.Array) -> jax.Array:
    """From 0 to 1 along half a cosine."""
    return (1 - jnp.cos(jnp.pi * fraction)) / 2


def _through(step: Steps, points: list[tuple[Steps, jax.Array]], shape: Any) -> jax.Array:
    """The value between the two points around a step, whose share of the way is given a shape."""
    (start, value), *rest = points
    result = before = value
    for end, after in rest:
        fraction = progress(step - start, end - start)
        result = jnp.where(step >= start, between(before, after, shape(fraction)), result)
        start, before = end, after
    return result


class PiecewiseInterpolateSchedule(Schedule, name="piecewise_interpolate_schedule"):
    """From init_value through its products with the scales, each at its boundary."""

    init_value: Number
    boundaries: StepNumber
    scales: tuple[NonNegative, ...]
    is_cosine: bool

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        pairs = dict(zip(self.boundaries, self.scales, strict=True))
        values = {
            "interpolate_type": "cosine" if self.is_cosine else "linear",
            "init_value": self.__dict__["init_value"],
            "boundaries_and_scales": pairs or None,
        }
        return call_arguments(self.name, values)

    def at(self, step: Steps) -> jax.Array:
        value = self.init_value
        points = [(Steps.of(0), value)]
        for boundary, scale in zip(self.boundaries, self.scales, strict=True):
            value = value * scale
            points.append((Steps.of(boundary), value))
        # In the state a bool is a number, 0 or 1, like all that a schedule consists of.
        is_cosine = jnp.asarray(self.is_cosine) != 0
        return _through(Steps.of(step), points, lambda f: jnp.where(is_cosine, _wave(f), f))

    def corners(self) -> tuple[float, ...]:
        return (0.0, *self.boundaries)


@factory
def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: Scalar, boundaries_and_scales: Mapping[int, float] | None = None
) -> Schedule:
    """A path through given values: init_value at step 0, multiplied by a factor up to each boundary.

    Args:
        interpolate_type: how it goes from one value to the next: `"linear"` in a line, `"cosine"` along half
            a cosine.
        init_value: the first value; it is that of step 0.
        boundaries_and_scales: factors, >= 0, by the step at which they are reached, in any order. The last
            value holds from the last step on.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: an unknown type, a step below 0, or a negative factor.

    Examples:
        >>> import gradtx
        >>> schedule = gradtx.piecewise_interpolate_schedule("linear", 1.0, {2: 2.0, 4: 0.5})
        >>> [float(schedule(t)) for t in range(6)]
        [1.0, 1.5, 2.0, 1.5, 1.0, 1.0]
    """
    if interpolate_type not in ("linear", "cosine"):
        raise ValueError(
            f"piecewise_interpolate_schedule: interpolate_type must be 'linear' or 'cosine', got "
            f"{show(interpolate_type)}."
        )
    pairs = dict(sorted((boundaries_and_scales or {}).items()))
    for boundary in pairs:
        if boundary < 0:
            raise ValueError(
                f"piecewise_interpolate_schedule: a boundary must be a step >= 0, got {show(boundary)}."
            )
    return PiecewiseInterpolateSchedule(
        init_value=init_value,
        boundaries=tuple(pairs),
        scales=tuple(pairs.values()),
        is_cosine=interpolate_type == "cosine",
    )


def _part(share: jax.Array, length: Steps) -> Steps:
    """The whole steps in a share of some steps; one that is a whole number but for rounding counts."""
    steps = share * length.value
    return Steps.of(jnp.floor(steps * (1 + 2 * jnp.finfo(steps.dtype).eps)))


class LinearOnecycleSchedule(Schedule, name="linear_onecycle_schedule"):
    """Up to peak_value, down to where it began, and on to a small value, in lines."""

    transition_steps: PositiveSteps
    peak_value: Number
    pct_start: NonNegative
    pct_final: NonNegative
    div_factor: Positive
    final_div_factor: Positive

    def at(self, step: Steps) -> jax.Array:
        length, low = Steps.of(self.transition_steps), self.peak_value / self.div_factor
        points = [
            (Steps.of(0), low),
            (_part(self.pct_start, length), self.peak_value),
            (_part(self.pct_final, length), low),
            (length, low / self.final_div_factor),
        ]
        return _through(Steps.of(step), points, lambda f: f)

    def corners(self) -> tuple[float, ...]:
        parts = (int(share * self.transition_steps) for share in (self.pct_start, self.pct_final))
        return (0.0, *parts, self.transition_steps)


@builds(LinearOnecycleSchedule)
def linear_onecycle_schedule(
    transition_steps: Scalar,
    peak_value: Scalar,
    pct_start: Scalar = 0.3,
    pct_final: Scalar = 0.85,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> Schedule:
    """One cycle in lines: up to the peak, down to where it began, and on to a small value.

    Args:
        transition_steps: the length of the transition in steps, > 0; of the whole cycle.
        peak_value: the largest value; it is reached after `pct_start` of the steps.
        pct_start: the share of the steps in which the value rises, >= 0.
        pct_final: the share of the steps after which the value is the first one again, >= 0.
        div_factor: the first value is `peak_value` divided by it, > 0.
        final_div_factor: the last value is the first one divided by it, > 0.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: `transition_steps` or a factor is not positive.

    Examples:
        >>> import gradtx
        >>> schedule = gradtx.linear_onecycle_schedule(
        ...     10, 1.0, 0.4, 0.8, div_factor=2.0, final_div_factor=2.0
        ... )
        >>> [float(schedule(t)) for t in (0, 2, 4, 8, 10)]
        [0.5, 0.75, 1.0, 0.5, 0.25]

    References:
        Smith and Topin, Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates,
        2017, https://arxiv.org/abs/1708.07120.
    """
    ...


class CosineOnecycleSchedule(Schedule, name="cosine_onecycle_schedule"):
    """Up to peak_value, and down to a small value, along half a cosine each."""

    transition_steps: PositiveSteps
    peak_value: Number
    pct_start: NonNegative
    div_factor: Positive
    final_div_factor: Positive

    def at(self, step: Steps) -> jax.Array:
        length, low = Steps.of(self.transition_steps), self.peak_value / self.div_factor
        end = self.peak_value / (self.div_factor * self.final_div_factor)
        points = [(Steps.of(0), low), (_part(self.pct_start, length), self.peak_value), (length, end)]
        return _through(Steps.of(step), points, _wave)

    def corners(self) -> tuple[float, ...]:
        return (0.0, int(self.pct_start * self.transition_steps), self.transition_steps)


@builds(CosineOnecycleSchedule)
def cosine_onecycle_schedule(
    transition_steps: Scalar,
    peak_value: Scalar,
    pct_start: Scalar = 0.3,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> Schedule:
    """One cycle along cosines: up to the peak, and down to a small value.

    Args:
        transition_steps: the length of the transition in steps, > 0; of the whole cycle.
        peak_value: the largest value; it is reached after `pct_start` of the steps.
        pct_start: the share of the steps in which the value rises, >= 0.
        div_factor: the first value is `peak_value` divided by it, > 0.
        final_div_factor: the last value is the first one divided by it, > 0.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: `transition_steps` or a factor is not positive.

    Examples:
        >>> import gradtx
        >>> schedule = gradtx.cosine_onecycle_schedule(8, 1.0, 0.5, div_factor=2.0, final_div_factor=2.0)
        >>> [round(float(schedule(t)), 4) for t in (0, 2, 4, 8)]
        [0.5, 0.75, 1.0, 0.25]

    References:
        Smith and Topin, Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates,
        2017, https://arxiv.org/abs/1708.07120.
    """
    ...
