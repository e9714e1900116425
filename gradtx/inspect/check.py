"""A check of an optimizer before a long run: what will probably not do what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gradtx.core import leaves as lv
from gradtx.core.combine import SetToZero
from gradtx.core.schedule import Schedule
from gradtx.formulas.decay import Coupling, Decay
from gradtx.formulas.direction import Direction, movements
from gradtx.inspect.courses import Course, courses
from gradtx.inspect.findings import Finding, Findings, Severity
from gradtx.inspect.outline import Level, survey
from gradtx.inspect.rounding import too_coarse
from gradtx.inspect.storage import GRADIENT, lossy_slots

ERROR, WARNING, NOTE = Severity

SHORT = 100
"""Steps in which weight decay alone should not halve a parameter."""

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
        >>> gradtx.check(gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(1e-3)), params)
        error, ascent: the update goes up the gradient, so that the loss grows.
            2 leaves: bias, w
            End the chain with gradtx.scale_by_learning_rate(rate), or scale by a negative number.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"check: steps must be at least 1, got {steps}.")
    try:
        level = survey(tx, params)
    except (TypeError, ValueError) as error:
        remedy = "Until init takes the parameters nothing else can be checked."
        return Findings([Finding("init", ERROR, str(error), remedy)])
    schedules = list(courses(level, steps))
    directions, decays = movements(tx, params, steps)
    found = [
        *_moves(level, directions),
        *_storage(level),
        *_rounding(tx, params, level, directions, schedules),
        *_decays(level, decays),
        *(finding for course in schedules for finding in _course(course)),
    ]
    return Findings(sorted(found, key=lambda finding: list(Severity).index(finding.severity)))


def _moves(level: Level, directions: list[Direction]) -> Iterator[Finding]:
    """Leaves that climb, that nothing works on, or that stay where they are."""
    trained = [lv.is_trainable_leaf(x) for x in level.leaves]
    touched, frozen = _worked_on(level), _worked_on(level, SetToZero)
    groups: dict[str, list[str]] = {}
    for path, on, direction, any_unit, zero in zip(
        level.paths, trained, directions, touched, frozen, strict=True
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
        "the update goes up the gradient, so that the loss grows.",
        "End the chain with gradtx.scale_by_learning_rate(rate), or scale by a negative number.",
    ),
    "untouched": (
        ERROR,
        "no transform works on these leaves; their raw gradients are added to them.",
        "Widen the masks, or freeze the other leaves: gradtx.masked(tx, mask, outside='zero').",
    ),
    "never moves": (
        WARNING,
        "the update is zero whatever the gradient.",
        "Look for a learning rate or a factor of 0; gradtx.selective_transform freezes leaves.",
    ),
    "frozen": (
        NOTE,
        "set_to_zero keeps these leaves as they are.",
        "To train them, change the mask or the labels.",
    ),
}


def _worked_on(level: Level, kind: type = object) -> list[bool]:
    """For each leaf, whether some transform of a kind works on it; wrappers count by what is inside."""
    result = [False] * len(level.paths)
    for unit in level.program.units:
        parts = [inner for path, inner in level.inner.items() if path[:-1] == unit.path]
        within = [_worked_on(inner, kind) for inner in parts]
        if not parts:
            own = [isinstance(unit.transform, kind)] * len(result)
        elif unit.transform.sees_leaves:
            own = [any(found) for found in zip(*within, strict=True)]
        else:
            # Flattened leaves cannot be told apart: what is inside works on all of them or on none.
            own = [any(map(any, within))] * len(result)
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


def _rounding(
    tx: Any, params: Any, level: Level, directions: list[Direction], found: list[Course]
) -> Iterator[Finding]:
    turns = {step for course in found for step in course.values}
    known = [direction is not Direction.UNKNOWN for direction in directions]
    coarse = list(too_coarse(tx, params, level, known, turns))
    if coarse:
        worst = min(coarse, key=lambda leaf: leaf.update / leaf.half)
        what = (
            f"updates are lost. The elements of {worst.path} are about {worst.magnitude:.2g}, where "
            f"{worst.dtype} rounds away what is less than {worst.half:.2g}, and a step is at most "
            f"{worst.update:.2g}."
        )
        remedy = "Keep these parameters in float32 and cast them to 16 bits in the model, or raise the rate."
        yield Finding("rounding", WARNING, what, remedy, tuple(leaf.path for leaf in coarse))


def _decays(level: Level, decays: list[Decay | None]) -> Iterator[Finding]:
    found = [
        (path, leaf, decay)
        for path, leaf, decay in zip(level.paths, level.leaves, decays, strict=True)
        if decay is not None
    ]
    small = tuple(path for path, leaf, _ in found if len(leaf.shape) < 2 or UNDECAYED.search(path))
    if small:
        what = "weight decay pulls norms and biases towards 0."
        remedy = "Most recipes leave them out: mask=('!*bias', '!*norm*'), or a function of (path, leaf)."
        yield Finding("decay", NOTE, what, remedy, small)
    strong = {path: (steps, d) for path, _, d in found if (steps := d.half_life) and steps < SHORT}
    if strong:
        fewest, fastest = min(strong.values(), key=lambda pair: pair[0])
        what = f"weight decay alone halves them every {fewest:,.1f} steps."
        remedy = (
            "No learning rate multiplies this decay: 1e-5 is usual where 0.01 is with a rate of 1e-3."
            if fastest.coupling is Coupling.INDEPENDENT
            else "Lower weight_decay, or the learning rate."
        )
        yield Finding("strong decay", WARNING, what, remedy, tuple(strong))


def _course(course: Course) -> Iterator[Finding]:
    """A schedule that has not ended when the run ends, or that ends long before."""
    schedule, run, settles = course.schedule, course.steps, course.settles
    if run is None or settles is None or not isinstance(schedule, Schedule):
        return
    at = {step: float(schedule(step)) for step in {0.0, *schedule.corners()}}
    *earlier, last = sorted(at)
    rest, top, (_, now) = at[last], max(at.values()), max(course.values.items())
    highest = min(step for step in at if at[step] == top)
    steps = f"{run:,} updates of {course.counts}" if course.counts else f"{run:,} steps"
    remedy = f"Make the schedule as long as the run, {steps}, or the run as long as the schedule."
    if settles > run and abs(now - rest) > TOLERANCE * (top - min(at.values())):
        aim, step = ("rise to", highest) if highest >= run else ("rest at", settles)
        what = (
            f"would {aim} {at[step]:.4g} at step {step:,.0f}, but the run has {steps} and ends at {now:.4g}."
        )
        yield Finding("schedule", WARNING, f"{course.name} {what}", remedy)
    elif earlier and settles < (1 - TOLERANCE) * run and rest < top and _slopes(schedule, earlier[-1], last):
        what = f"rests at {rest:.4g} from step {settles:,.0f} on, and the run has {steps}."
        stops = rest == 0 and course.name.endswith("learning_rate")
        yield Finding("schedule", ERROR if stops else WARNING, f"{course.name} {what}", remedy)


def _slopes(schedule: Schedule, start: float, stop: float) -> bool:
    """Whether it moves between two corners, where one of plateaus rests."""
    return float(schedule(start)) != float(schedule((start + stop) / 2))
