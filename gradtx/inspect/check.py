"""A check of an optimizer before a long run: what will probably not do what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from gradtx.core import leaves as lv
from gradtx.core.combine import SetToZero
from gradtx.core.schedule import Schedule
from gradtx.core.program import is_declared, is_rule
from gradtx.inspect.courses import Course, courses
from gradtx.inspect.findings import Finding, Findings, Severity
from gradtx.inspect.outline import Level, survey
from gradtx.inspect.storage import GRADIENT, lossy_slots

ERROR, WARNING, NOTE = Severity

TOLERANCE = 0.05
"""The part of its length or of its range by which a schedule may miss the end of the run."""

UNDECAYED = re.compile(r"bias|norm|(^|/)(scale|gamma|beta)$", re.IGNORECASE)
"""The paths of leaves that are shifts and scales, also where layers are stacked along an axis."""


def check(tx: Any, params: Any, steps: int | None = None) -> Findings:
    """What in an optimizer will probably not do what was meant, to be looked at before a long run.

    It finds, with the leaves concerned and what to do:

        ascent        the update goes up the gradient: a sign is missing
        untouched     no transform works on a leaf, so that its raw gradient is added
        never moves   the update is zero whatever the gradient, as with a rate of 0
        frozen        a leaf is under `set_to_zero`
        init          `init` refuses these parameters: a leaf without a label, an integer leaf ...
        rounding      a 16-bit parameter is too coarse for its updates
        storage       a 16-bit slot never decays, or ordinary gradients leave no trace in it
        schedule      one ends long before the run does, or has not ended by then
        decay         weight decay on norms and biases, or decay that is far too strong

    Nothing is run on the parameters, which may be abstract; concrete ones are looked at for their size.

    Args:
        tx: a transform of any library.
        params: the parameters, or `jax.ShapeDtypeStruct`s like them.
        steps: the number of calls of `update` in the run; without it schedules are not checked.

    Returns:
        The `Findings`, a tuple with the worst first, which prints as a text.

    Raises:
        ValueError: `steps` is less than 1.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params = {"w": jnp.ones((8, 4)), "bias": jnp.ones(4)}
        >>> gradtx.check(gradtx.adamw(1e-3, mask="!*bias"), params)
        Nothing found.
        >>> print(gradtx.check(gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(1e-3)), params))
        error (ascent): 2 leaves: bias, w. The update goes up the gradient, so that the loss grows.
            End the chain with gradtx.scale_by_learning_rate(rate), or scale by a negative number.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"check: steps must be at least 1, got {steps}.")
    try:
        level = survey(tx, params)
    except (TypeError, ValueError) as error:
        remedy = "Until init takes the parameters nothing else can be checked."
        return Findings([Finding("init", ERROR, str(error), remedy)])
    found = [*_moves(tx, params, level), *_storage(level), *_decays(tx, params, level)]
    if steps is not None:
        found += [finding for course in courses(level, steps) for finding in _course(course)]
    return Findings(sorted(found, key=lambda finding: list(Severity).index(finding.severity)))


def _moves(tx: Any, params: Any, level: Level) -> Iterator[Finding]:
    """Leaves that climb, that nothing works on, or that stay where they are."""
    trained = [lv.is_trainable_leaf(x) for x in level.leaves]
    touched, frozen = _worked_on(level), _worked_on(level, SetToZero)
    groups: dict[str, list[str]] = {}
    for path, on, direction, any_unit, zero in zip(
        level.paths, trained, directions(tx, params), touched, frozen, strict=True
    ):
        if not on:
            continue
        if not any_unit:
            groups.setdefault("untouched", []).append(path)
        elif direction is Direction.ASCENT:
            groups.setdefault("ascent", []).append(path)
        elif direction is Direction.NONE:
            groups.setdefault("frozen" if zero else "never moves", []).append(path)
    for name, paths in groups.items():
        yield Finding(name, *MOVES[name], tuple(paths))


MOVES = {
    "ascent": (
        ERROR,
        "The update goes up the gradient, so that the loss grows.",
        "End the chain with gradtx.scale_by_learning_rate(rate), or scale by a negative number.",
    ),
    "untouched": (
        ERROR,
        "No transform works on it, so that its raw gradient is added to the parameter.",
        "Widen the masks, or freeze the other leaves: gradtx.masked(tx, mask, outside='zero').",
    ),
    "never moves": (
        WARNING,
        "The update is zero whatever the gradient.",
        "Look for a learning rate or a factor of 0; to freeze leaves for good use gradtx.selective_transform.",
    ),
    "frozen": (
        NOTE,
        "It is under set_to_zero and stays as it is.",
        "If it is to be trained, change the mask or the label.",
    ),
}


def _worked_on(level: Level, kind: type = object) -> list[bool]:
    """For each leaf, whether some transform of a kind works on it; wrappers count by what is inside."""
    result = [False] * len(level.paths)
    for unit in level.program.units:
        parts = [inner for path, inner in level.inner.items() if path[:-1] == unit.path]
        within = [_worked_on(inner, kind) for inner in parts]
        if is_declared(unit) and not is_rule(unit) and parts:
            same = [found for found in within if len(found) == len(result)]
            # What a wrapper flattens or regroups cannot be told leaf by leaf: it works on all or none.
            other = any(any(found) for found in within if len(found) != len(result))
            own = [other or any(found) for found in zip(*same, strict=True)] or [other] * len(result)
        else:
            own = [isinstance(unit.transform, kind)] * len(result)
        result = [a or (b and c) for a, b, c in zip(result, own, level.active[unit.path], strict=True)]
    return result


def _storage(level: Level) -> Iterator[Finding]:
    for slot in lossy_slots(level):
        remedy = f"Store it in float32: {slot.field}='float32', or leave {slot.field} out."
        if slot.stuck:
            what = (
                f"{slot.unit} keeps {slot.slot} in {slot.dtype}, where it never decays: what it loses in a "
                f"step is less than half a unit in the last place."
            )
            yield Finding("storage", WARNING, what, remedy, slot.leaves)
        if slot.underflows:
            what = (
                f"{slot.unit} keeps {slot.slot} in {slot.dtype}, which is too narrow: a gradient of "
                f"{GRADIENT:g} leaves nothing in it."
            )
            yield Finding("storage", WARNING, what, remedy, slot.leaves)


def _decays(tx: Any, params: Any, level: Level) -> Iterator[Finding]:
    found = decays(tx, params)
    mild, strong = [], []
    for path, leaf, decay in zip(level.paths, level.leaves, found, strict=True):
        if decay is None or leaf is None:
            continue
        if len(leaf.shape) < 2 or UNDECAYED.search(path):
            mild.append(path)
    if mild:
        what = "Weight decay pulls norms and biases towards 0."
        remedy = "Most recipes leave them out: mask=('!*bias', '!*norm*'), or a function of (path, leaf)."
        yield Finding("decay", NOTE, what, remedy, tuple(mild))
    if strong:
        pass


def _course(course: Course) -> Iterator[Finding]:
    """A schedule that has not ended when the run ends, or that ends long before."""
    schedule, run, settles = course.schedule, course.steps, course.settles
    if run is None or settles is None or not isinstance(schedule, Schedule):
        return
    at = {step: float(schedule(step)) for step in {0.0, *schedule.corners()}}
    *earlier, last = sorted(at)
    rest, top = at[last], max(at.values())
    steps = f"{run:,} updates of {course.counts}" if course.counts else f"{run:,} steps"
    remedy = f"Make the schedule as long as the run, {steps}, or the run as long as the schedule."
    if settles > run and abs(course.end[1] - rest) > TOLERANCE * (top - min(at.values())):
        step = min(step for step in at if at[step] == top)
        what = (
            f"{course.name} is still in its warmup when the run ends after {steps}: it would come to {top:.4g} "
            f"at step {step:,.0f}."
            if step >= run
            else f"{course.name} is {course.end[1]:.4g} when the run ends after {steps}: it would come to rest "
            f"at {rest:.4g} at step {settles:,.0f}."
        )
        yield Finding("schedule", WARNING, what, remedy)
    elif earlier and settles < (1 - TOLERANCE) * run and rest < top and _slopes(schedule, earlier[-1], last):
        what = f"{course.name} ends at step {settles:,.0f}, and the run has {steps}: it rests at {rest:.4g}."
        stops = rest == 0 and course.name.endswith("learning_rate")
        yield Finding("schedule", ERROR if stops else WARNING, what, remedy)


def _slopes(schedule: Schedule, start: float, stop: float) -> bool:
    """Whether it moves between two corners, where one of plateaus rests."""
    return float(schedule(start)) != float(schedule((start + stop) / 2))
