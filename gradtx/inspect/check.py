"""A check of an optimizer before a long run: what will probably not do what was meant."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from gradtx.core.compose.combine import SetToZero
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.protocol import AnyTransform, Params
from gradtx.core.numbers.paths import Path
from gradtx.core.spec.fields import AT_RANDOM
from gradtx.core.spec.words import named
from gradtx.formulas.decay import Coupling, DecayKind
from gradtx.formulas.direction import Direction, movements_of, unread
from gradtx.formulas.leaf_groups import Alike, kinds, precise_leaves
from gradtx.formulas.trace import composed
from gradtx.inspect.findings import Finding, Findings, Severity
from gradtx.inspect.rates import course_findings, rates
from gradtx.inspect.rounding import too_coarse
from gradtx.inspect.schedules_over_run import courses
from gradtx.inspect.shards import shard_findings
from gradtx.inspect.storage import GRADIENT, Loss, lossy_slots
from gradtx.inspect.survey import Surveyed, checked_arguments, survey

SHORT = 100
"""Steps in which weight decay alone should not halve a parameter."""

UNDECAYED = re.compile(r"bias|norm|(^|/)(scale|gamma|beta)$", re.IGNORECASE)
"""The paths of leaves that are shifts and scales, also where layers are stacked along an axis."""


def check(
    tx: AnyTransform,
    params: Params,
    steps: int | None = None,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Findings:
    """What in an optimizer will probably not do what was meant, to be looked at before a long run.

    It finds, with the leaves concerned and what to do:

        ascent        the update goes up the gradient: a sign is missing, or a rate turns negative
        untouched     no transform works on a leaf, so that its raw gradient is added
        never moves   the update is zero whatever the gradient, as with a rate of 0
        frozen        a leaf is under `set_to_zero`
        init          `init` refuses these parameters: a leaf without a label, an integer leaf ...
        rounding      a 16-bit parameter is too coarse for its updates
        storage       a slot of 16 bits, or in a format, does not decay or grow as it should, or ordinary
                      gradients leave no trace in it
        schedule      one ends long before the run does, or has not ended by then; a rate stays 0
        decay         weight decay on norms and biases, or decay that is far too strong
        shards        inside of `axis_name` a transform would measure the shard of each device alone
        unread        what an update is made of has no formula, so that its leaves were not checked

    Nothing is run on the parameters, which may be abstract; concrete ones are looked at for their size.

    Args:
        tx: a transform of any library.
        params: the parameters, arrays or `jax.ShapeDtypeStruct`s.
        steps: the number of calls of `update` in the run; without it schedules are not checked.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. So it is in
            `jax.pmap`. With `check_vma=False`, and there, nothing else tells a shard from a whole leaf.

    Returns:
        The `Findings`, a tuple with the worst first, which prints as a text.

    Raises:
        TypeError: `tx` is no transform, `params` is None, or `steps` is no whole number.
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
    checked_arguments("check", tx, params, steps)
    try:
        level = survey(tx, params)
    except (TypeError, ValueError) as error:
        remedy = "Until init takes the parameters nothing else can be checked."
        return Findings([Finding("init", "error", str(error), remedy)])
    schedules = list(courses(level, steps))
    alike = kinds(tx, params)
    directions, decays = movements_of(alike, len(level.leaves), steps)
    moving = rates(kind.traced for kind in alike or ())
    turns = {step for course in schedules for step in course.values}
    found = [
        *_moves(level, directions),
        *_storage(level),
        *_unread(level, directions, alike),
        *_rounding(tx, params, level, directions, alike or [], turns),
        *_decays(level, decays),
        *(shard_findings(tx, params, axis_name) if axis_name else ()),
        *(finding for course in schedules for finding in course_findings(course, course.name in moving)),
    ]
    return Findings(sorted(found, key=lambda finding: finding.rank))


def _moves(level: Surveyed, directions: list[Direction]) -> Iterator[Finding]:
    """Leaves that climb, that nothing works on, or that stay where they are."""
    working = _working(level)
    descending = {on for on, way in zip(working, directions, strict=True) if way is Direction.DESCENT}
    groups: dict[Finding, list[str]] = {}
    for path, leaf, on, way in zip(level.paths, level.leaves, working, directions, strict=True):
        if not lv.is_trainable_leaf(leaf):
            continue
        found = None
        if not on:
            found = UNTOUCHED
        elif way is Direction.ASCENT:
            found = LEFT_OUT if any(on < other for other in descending) else ASCENT
        elif way is Direction.NONE:
            found = FROZEN if any(isinstance(tx, SetToZero) for _, tx in on) else STILL
        if found is not None:
            groups.setdefault(found, []).append(path)
    for finding, paths in groups.items():
        yield dataclasses.replace(finding, leaves=tuple(paths))


ASCENT = Finding(
    "ascent",
    "error",
    "the update goes up the gradient, so that the loss grows.",
    "End the chain with gradtx.scale_by_learning_rate(rate), or scale by a negative number.",
)
LEFT_OUT = Finding(
    "ascent",
    "error",
    "the update goes up the gradient: what turns it down works on other leaves alone.",
    "Widen the masks, or freeze these leaves: gradtx.masked(tx, mask, outside='zero').",
)
UNTOUCHED = Finding(
    "untouched",
    "error",
    "no transform works on these leaves; their raw gradients are added to them.",
    "Widen the masks, or freeze the other leaves: gradtx.masked(tx, mask, outside='zero').",
)
STILL = Finding(
    "never moves",
    "warning",
    "the update is zero whatever the gradient.",
    "Look for a learning rate or a factor of 0; gradtx.selective_transform freezes leaves.",
)
FROZEN = Finding(
    "frozen",
    "note",
    "set_to_zero keeps these leaves as they are.",
    "To train them, change the mask or the labels.",
)


def _working(level: Surveyed) -> list[frozenset[tuple[Path, Any]]]:
    """For each leaf, the transforms that work on it, with their places; wrappers count by what is inside."""
    result: list[set[tuple[Path, Any]]] = [set() for _ in level.paths]
    for unit in level.program.units:
        parts = [_working(inner) for path, inner in level.inner.items() if path[:-1] == unit.path]
        if not parts:
            own = [frozenset([(level.path + unit.path, unit.transform)])] * len(result)
        elif unit.transform.sees_leaves:
            own = [frozenset().union(*found) for found in zip(*parts, strict=True)]
        else:
            # Flattened leaves cannot be told apart: what is inside works on all of them.
            own = [frozenset().union(*(on for part in parts for on in part))] * len(result)
        for on, more, active in zip(result, own, level.active[unit.path], strict=True):
            on.update(more if active else ())
    return [frozenset(on) for on in result]


def _storage(level: Surveyed) -> Iterator[Finding]:
    for slot in lossy_slots(level):
        severity, what = LOSSES[slot.loss]
        remedy = f"Store it in {slot.better}: {slot.written(slot.better)}."
        if slot.better in AT_RANDOM:
            remedy = f"Round at random, so that it is right on average: {slot.written(slot.better)}."
        what = f"{slot.unit} keeps {slot.slot} in {slot.form}, {what}"
        yield Finding("storage", severity, what, remedy, slot.leaves)


LOSSES: dict[Loss, tuple[Severity, str]] = {
    Loss.STUCK: (
        "warning",
        "where it never decays: what it loses in a step is less than half a unit in the last place.",
    ),
    Loss.STOPS: (
        "warning",
        "where it stops growing: what a step adds to a large sum is less than half a unit in the last place.",
    ),
    Loss.FOLLOWS: (
        "note",
        "where most elements change as the largest of their block does: what each of them gains or loses "
        "beside that in a step is less than half a step of the format.",
    ),
    Loss.DRIFTS: (
        "warning",
        "which is rounded anew each time the largest of its block changes; it never decays, so that nothing "
        "takes the errors away again.",
    ),
    Loss.UNDERFLOWS: (
        "warning",
        f"which is too narrow: a gradient of {GRADIENT:g} leaves nothing in it.",
    ),
}
"""How bad it is that a slot loses what it should remember, and what is said of it."""


def _unread(level: Surveyed, directions: list[Direction], alike: list[Alike] | None) -> Iterator[Finding]:
    """Leaves of which nothing could be found out; silence about them would look like approval."""
    remedy = "Their direction, decay and rounding were not checked. See gradtx.formula(tx, params, leaf)."
    if alike is None:
        what = "the transform could not be traced without the keyword arguments that its update needs."
        yield Finding("unread", "note", what, "Nothing but the sizes and schedules was checked.")
    for kind in alike or ():
        unknown = [level.paths[i] for i in kind.leaves if directions[i] is Direction.UNKNOWN]
        names = unread(kind.traced)
        if unknown and names:
            what = f"the update is computed by {', '.join(names)}, whose values a formula does not tell."
            yield Finding("unread", "note", what, remedy, tuple(unknown))


def _rounding(
    tx: Any, params: Any, level: Surveyed, directions: list[Direction], alike: list[Alike], turns: set[int]
) -> Iterator[Finding]:
    precise = precise_leaves(composed(tx), params)
    known = [way is not Direction.UNKNOWN and i not in precise for i, way in enumerate(directions)]
    coarse = list(too_coarse(params, level, known, alike, turns))
    if coarse:
        worst = min(coarse, key=lambda leaf: leaf.update / leaf.half)
        what = (
            f"updates are lost. The elements of {named(worst.path)} are about {worst.magnitude:.2g}, where "
            f"{worst.dtype} rounds away what is less than {worst.half:.2g}, and a step is at most "
            f"{worst.update:.2g}."
        )
        how = ", 'kahan'" if any(leaf.dtype == "float16" for leaf in coarse) else ""
        remedy = (
            f"Keep what is rounded away: gradtx.precise_params(tx{how}), or gradtx.precision(tx) for "
            f"the slots too. Or keep these parameters in float32 and cast them to 16 bits in the model."
        )
        yield Finding("rounding", "warning", what, remedy, tuple(leaf.path for leaf in coarse))


def _decays(level: Surveyed, decays: list[DecayKind | None]) -> Iterator[Finding]:
    found = [
        (path, leaf, decay)
        for path, leaf, decay in zip(level.paths, level.leaves, decays, strict=True)
        if decay is not None
    ]
    small = tuple(path for path, leaf, _ in found if len(leaf.shape) < 2 or UNDECAYED.search(path))
    if small:
        what = "weight decay pulls norms and biases towards 0."
        remedy = "Most recipes leave them out: mask=('!*bias', '!*norm*'), or a function of (path, leaf)."
        yield Finding("decay", "note", what, remedy, small)
    strong = {path: (steps, d) for path, _, d in found if (steps := d.half_life) and steps < SHORT}
    if strong:
        fewest, fastest = min(strong.values(), key=lambda pair: pair[0])
        what = f"weight decay alone halves them every {fewest:,.1f} steps."
        remedy = (
            "No learning rate multiplies this decay: 1e-5 is usual where 0.01 is with a rate of 1e-3."
            if fastest.coupling is Coupling.INDEPENDENT
            else "Lower weight_decay, or the learning rate."
        )
        yield Finding("strong decay", "warning", what, remedy, tuple(strong))
