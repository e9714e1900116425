"""What schedules do to a run: one that ends too early or too late, a rate that stops or turns around."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from gradtx.core.numbers.schedule import Schedule
from gradtx.formulas.expression import ZERO, Expression, rewrite, symbols
from gradtx.formulas.simplify import make
from gradtx.formulas.trace import Traced
from gradtx.inspect.findings import Finding
from gradtx.inspect.schedules_over_run import Course, sampled

TOLERANCE = 0.05
"""The part of its length or of its range by which a schedule may miss the end of the run."""

POINTS = 1_000
"""Steps of a run at which a schedule is looked at: a stop or a turn of a thousandth of it is seen."""


def rates(traced: Iterable[Traced]) -> set[str]:
    """The schedules without which no gradient gets to an update: where one is 0, nothing is trained."""
    return {
        name
        for update in traced
        for name, value in update.definitions.items()
        if value.op != "number" and _reaches(update) and not _reaches(update, value)
    }


def _reaches(traced: Traced, without: Expression = ZERO) -> bool:
    """Whether the gradient gets to the update, in this step or later, with some expression at 0."""
    roots = [traced.update, *(cell.new for cell in traced.cells)]
    update, *news = rewrite(roots, {without: ZERO}, make)
    bodies = {cell.name: new for cell, new in zip(traced.cells, news, strict=True)}
    found, queue = set(), [update]
    while queue:
        new = symbols(queue.pop()) - found
        found |= new
        queue += [bodies[name] for name in new if name in bodies]
    return "g" in found


def course_findings(course: Course, is_rate: bool) -> Iterator[Finding]:
    """What is wrong with a schedule over the run."""
    if course.steps is None:
        return
    rest = np.empty(0)
    if is_rate and course.steps:
        even = np.linspace(0, course.steps - 1, min(course.steps, POINTS)).round()
        at = np.union1d(even, [*course.values]).astype(np.int32)
        values = sampled(course.schedule, at)
        yield from _turns(course, at, values)
        rest = at[np.logical_and.accumulate(values[::-1] == 0)[::-1]]
    if rest.size and course.steps - rest[0] > TOLERANCE * course.steps:
        what = f"{course.name} is 0 from step {rest[0]:,} on, and the run has {_length(course)}."
        yield Finding("schedule", "error", what, _remedy(course))
    else:
        yield from _ending(course)


def _turns(course: Course, at: np.ndarray, values: np.ndarray) -> Iterator[Finding]:
    """A rate that has another sign than before."""
    moving = np.flatnonzero(values)
    turned = np.flatnonzero(np.diff(np.sign(values[moving])))
    if turned.size:
        before, after = moving[turned[0]], moving[turned[0] + 1]
        what = (
            f"{course.name} turns from {values[before]:.4g} at step {at[before]:,} to {values[after]:.4g} at "
            f"step {at[after]:,}: with one of the two signs the update goes up the gradient."
        )
        yield Finding("ascent", "error", what, "Let the schedule stop at 0, or end the run before.")


def _ending(course: Course) -> Iterator[Finding]:
    """A schedule that has not ended when the run ends, or that ends long before."""
    schedule, run, settles = course.schedule, course.steps, course.settles
    if run is None or settles is None or not isinstance(schedule, Schedule):
        return
    at = {step: float(schedule(step)) for step in {0.0, *schedule.corners()}}
    *earlier, last = sorted(at)
    rest, top, (_, now) = at[last], max(at.values()), max(course.values.items())
    highest = min(step for step in at if at[step] == top)
    if settles > run and abs(now - rest) > TOLERANCE * (top - min(at.values())):
        aim, step = ("rise to", highest) if highest >= run else ("rest at", settles)
        what = (
            f"{course.name} would {aim} {at[step]:.4g} at step {step:,.0f}, but the run has "
            f"{_length(course)} and ends at {now:.4g}."
        )
        yield Finding("schedule", "warning", what, _remedy(course))
    elif earlier and settles < (1 - TOLERANCE) * run and rest < top and _slopes(schedule, earlier[-1], last):
        length = _length(course)
        what = f"{course.name} rests at {rest:.4g} from step {settles:,.0f} on, and the run has {length}."
        yield Finding("schedule", "warning", what, _remedy(course))


def _slopes(schedule: Schedule, start: float, stop: float) -> bool:
    """Whether it moves between two corners, where one of plateaus rests."""
    return float(schedule(start)) != float(schedule((start + stop) / 2))


def _length(course: Course) -> str:
    """The number of steps that the schedule sees."""
    return f"{course.steps:,} updates of {course.counts}" if course.counts else f"{course.steps:,} steps"


def _remedy(course: Course) -> str:
    return f"Make the schedule as long as the run, {_length(course)}, or the run as long as the schedule."
