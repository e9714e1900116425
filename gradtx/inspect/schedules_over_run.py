"""The course of a schedule over a run: where it starts, peaks and ends."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.numbers.hyperparams import tidy
from gradtx.core.numbers.paths import Path
from gradtx.core.numbers.schedule import Schedule, bind_numbers
from gradtx.inspect.survey import Surveyed

MANY = 1 << 30
"""Calls after which a wrapper with a pace of its own has made another number of updates."""

UNKNOWN = (math.inf,)
"""The corners of a function of which only its values are known."""


@dataclasses.dataclass(frozen=True)
class Course:
    """A schedule over a run.

    Attributes:
        name: the name that `gradtx.hyperparams` gives.
        schedule: the schedule, or the function.
        counts: the wrapper whose updates it counts; empty where it counts the calls of `update`.
        steps: the number of them in the run, None where it is not known.
        settles: the step from which the value no longer changes, None where it never does or is not known.
        values: values by step: at the start, in the middle, at the end, and where it turns.
        peak: the first step with the largest value, and the value; None where its course is not known.
    """

    name: str
    schedule: Callable[[Any], Any]
    counts: str
    steps: int | None
    settles: float | None
    values: dict[int, float]
    peak: tuple[int, float] | None

    @property
    def start(self) -> tuple[int, float]:
        """The first step and its value."""
        return min(self.values.items())

    @property
    def middle(self) -> tuple[int, float] | None:
        """The step in the middle and its value; None without an end."""
        return None if self.end is None else (self.end[0] // 2, self.values[self.end[0] // 2])

    @property
    def end(self) -> tuple[int, float] | None:
        """The last step of the run, or the first of those on which it rests; None where neither is known."""
        return None if self.steps is None and self.settles is None else max(self.values.items())


def course(name: str, schedule: Callable[[Any], Any], counts: str, steps: int | None) -> Course:
    """A schedule over `steps` updates, or until it settles."""
    corners = schedule.corners() if isinstance(schedule, Schedule) else UNKNOWN
    settles = schedule.settles if isinstance(schedule, Schedule) else None
    last = math.ceil(settles or 0) if steps is None else max(steps - 1, 0)
    # Between its corners a schedule is monotone, so that its extremes are at the steps beside them.
    beside = {near(x) for x in corners if math.isfinite(x) for near in (math.floor, math.ceil)}
    at = bind_numbers(schedule)
    wanted = sorted({0, last // 2, last} | {step for step in beside if 0 <= step <= last})
    values = {step: tidy(at(step)) for step in wanted}
    has_peak = corners != UNKNOWN and (steps is not None or settles is not None)
    highest = max(values, key=lambda step: (values[step], -step))
    peak = (highest, values[highest]) if has_peak else None
    return Course(name, schedule, counts, steps, settles, values, peak)


def sampled(schedule: Any, at: np.ndarray) -> np.ndarray:
    """The values of a schedule, a function or a number at some steps."""
    value = bind_numbers(schedule)
    if not callable(value):
        return np.full(at.shape, np.asarray(value))
    # One that does not ask for the step has one value for all.
    return np.broadcast_to(np.asarray(value(jnp.asarray(at))), at.shape)


def courses(level: Surveyed, steps: int | None, counts: str = "") -> Iterator[Course]:
    """Each schedule of a transform and of those inside, over a run of `steps` calls of `update`."""
    clocks: dict[Path, tuple[int | None, str]] = {}
    for unit in level.program.units:
        clocks[unit.path] = steps, counts
        if isinstance(unit.transform, Wrapper) and unit.transform.updates_in(MANY) != MANY:
            clocks[unit.path] = None if steps is None else unit.transform.updates_in(steps), unit.where
    for scope, arguments in level.program.scopes.items():
        for key, (value, *_) in arguments.items():
            if callable(value):
                pace, counted = clocks.get(scope, (steps, counts))
                yield course(level.names.get((*scope, key), key), value, counted, pace)
    for path, inner in level.inner.items():
        yield from courses(inner, *clocks[path[:-1]])
