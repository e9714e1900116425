"""Schedules in pieces: constants, and other schedules one after another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.numbers.schedule import Schedule
from gradtx.core.numbers.steps import Steps
from gradtx.core.spec.arguments import factory
from gradtx.core.spec.fields import (
    NonNegative,
    NonNegativeSteps,
    Number,
    Scalar,
    ScalarOrSchedule,
    StepNumber,
)
from gradtx.core.spec.spec import call_arguments, show


class PiecewiseConstantSchedule(Schedule, name="piecewise_constant_schedule"):
    """init_value times every scale whose boundary has been reached."""

    init_value: Number
    boundaries: StepNumber
    scales: tuple[NonNegative, ...]

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        pairs = dict(zip(self.boundaries, self.scales, strict=True))
        values = {"init_value": self.__dict__["init_value"], "boundaries_and_scales": pairs or None}
        return call_arguments(self.name, values)

    def at(self, step: Steps) -> jax.Array:
        value = self.init_value
        for boundary, scale in zip(self.boundaries, self.scales, strict=True):
            value = jnp.where(step >= boundary, value * scale, value)
        return value

    def corners(self) -> tuple[float, ...]:
        return tuple(sorted(max(boundary, 0) for boundary in self.boundaries))


@factory
def piecewise_constant_schedule(
    init_value: Scalar, boundaries_and_scales: Mapping[int, float] | None = None
) -> Schedule:
    """Constants between boundaries: init_value times every factor whose boundary the step has reached.

    Args:
        init_value: the first value; it holds until the first boundary.
        boundaries_and_scales: factors, >= 0, by the step from which they count, in any order. A step that is
            no whole number is reached at the next one, and one below 0 from the start, as in a schedule that
            goes on where another run ended.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: a factor is negative.

    Examples:
        >>> import gradtx
        >>> schedule = gradtx.piecewise_constant_schedule(1.0, {2: 0.5, 4: 0.5})
        >>> [float(schedule(t)) for t in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    pairs = boundaries_and_scales or {}
    return PiecewiseConstantSchedule(
        init_value=init_value, boundaries=tuple(pairs), scales=tuple(pairs.values())
    )


class JoinSchedules(Schedule, name="join_schedules"):
    """One schedule after another, each counting its own steps."""

    schedules: tuple[Any, ...]
    boundaries: NonNegativeSteps

    def check(self) -> None:
        if len(self.schedules) != len(self.boundaries) + 1:
            raise ValueError(
                f"join_schedules: {len(self.schedules)} schedules need {len(self.schedules) - 1} boundaries, "
                f"got {len(self.boundaries)}."
            )
        for before, after in itertools.pairwise(b for b in self.boundaries if isinstance(b, int | float)):
            if after < before:
                raise ValueError(
                    f"join_schedules: the boundaries must ascend, or be equal, each the step at which the "
                    f"next schedule starts; {show(after)} comes after {show(before)}."
                )

    def at(self, step: Steps) -> jax.Array:
        first, *rest = self.schedules
        value = _at(first, step)
        for schedule, boundary in zip(rest, self.boundaries, strict=True):
            value = jnp.where(step >= boundary, _at(schedule, (Steps.of(step) - boundary).from_zero()), value)
        return value

    def corners(self) -> tuple[float, ...]:
        found: set[float] = set(self.boundaries)
        starts, ends = (0.0, *self.boundaries), (*self.boundaries, math.inf)
        for schedule, start, end in zip(self.schedules, starts, ends, strict=True):
            if isinstance(schedule, Schedule):
                found |= {min(start + corner, end) for corner in schedule.corners()}
            elif callable(schedule):
                found.add(end)
        return tuple(sorted(found))


def _at(schedule: Any, step: Steps) -> Any:
    return schedule(step) if callable(schedule) else schedule


@factory
def join_schedules(schedules: Sequence[ScalarOrSchedule], boundaries: Sequence[Scalar]) -> Schedule:
    """Schedules one after another: schedule i from boundary i - 1 on, counting its steps from there.

    Args:
        schedules: the schedules (or constants) in order.
        boundaries: the steps at which the next schedule starts, >= 0 and in order; one fewer than schedules.
            The schedule between two equal ones has no step, so that a warmup of 0 steps can be left in. One
            that is not a whole number is reached at the next step.

    Returns:
        A schedule; the numbers of all parts can be set in the state.

    Raises:
        ValueError: the numbers of schedules and boundaries do not fit, or a boundary is negative or less than
            the one before.

    Examples:
        >>> import gradtx
        >>> up, down = gradtx.linear_schedule(0.0, 1.0, 2), gradtx.linear_schedule(1.0, 0.0, 2)
        >>> [float(gradtx.join_schedules([up, down], [2])(t)) for t in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return JoinSchedules(schedules=tuple(schedules), boundaries=tuple(boundaries))
