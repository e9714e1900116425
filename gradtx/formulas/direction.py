"""Which way a transform moves each leaf, and how weight decay enters, found by computing its formula."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import Any

import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.formulas.decay import DecayKind, decay_of
from gradtx.formulas.expression import ONE, ZERO, Expression, reached, rewrite, symbol, symbols, within
from gradtx.formulas.leaf_groups import Alike, kinds
from gradtx.formulas.naming import OTHER, Cell
from gradtx.formulas.numeric import Evaluator, is_known
from gradtx.formulas.period import LONGEST_ROUND, calls_of_a_round
from gradtx.formulas.runs import stand_in
from gradtx.formulas.simplify import make
from gradtx.formulas.trace import Traced


class Direction(enum.Enum):
    """Where the update goes for a gradient that keeps its sign, the most important answer first."""

    ASCENT = "ASCENT, up the gradient, so that the loss grows"
    NONE = "no movement, whatever the gradient"
    UNKNOWN = "not told by the gradient's sign"
    DESCENT = "descent, down the gradient"


def movements(
    tx: Any, params: Any, steps: int | None = None
) -> tuple[list[Direction], list[DecayKind | None]]:
    """For each leaf, in flatten order, where its update goes, and its weight decay if it has any.

    A leaf without a gradient does not move. A leaf that climbs in any part of a run of `steps` calls climbs.
    """
    return movements_of(kinds(tx, params), len(lv.flatten(params)[0]), steps)


def movements_of(
    alike: list[Alike] | None, leaves: int, steps: int | None
) -> tuple[list[Direction], list[DecayKind | None]]:
    """The same from groups of leaves; nothing is known if `alike` is None."""
    nowhere = Direction.UNKNOWN if alike is None else Direction.NONE
    directions = [nowhere] * leaves
    decays: list[DecayKind | None] = [None] * leaves
    for kind in alike or ():
        traced = _needed(kind.traced)
        calls = calls_of_a_round(traced)
        direction, decay = _direction(traced, calls, steps), decay_of(traced, calls)
        for i in kind.leaves:
            directions[i], decays[i] = direction, decay
    return directions, decays


FIRST_STEPS = 32
"""Steps to follow from the first one: more than a short warmup, and than a guard that waits."""

LATER = (100, 1_000, 10_000, 100_000)
"""Steps to go on from, where nothing has moved before, as in a long warmup, or a run comes by them."""

ENOUGH = 4
"""Movements of one phase that tell its direction."""

SMALL = 2.0**-10
"""The size of a gradient that passes where one of size 1 is skipped for its norm."""


def _direction(traced: Traced, calls: int | None, steps: int | None) -> Direction:
    """Follows updates for a gradient of 1, and where that is skipped as a spike, for a small one."""
    if _is_constantly_zero(traced):
        return Direction.NONE
    for size in (1.0, SMALL):
        phases = [ways for ways in _followed(traced, calls, steps, size) if ways]
        if phases:
            verdicts = {_verdict(ways) for ways in phases}
            return next(direction for direction in Direction if direction in verdicts)
    return Direction.UNKNOWN


def _is_constantly_zero(traced: Traced) -> bool:
    """Whether the update is zero whatever the gradient, as with a rate of 0."""
    constants: dict[Expression, Expression] = {}
    cells, update = traced.cells, traced.update
    while True:
        update, *news = rewrite([traced.update, *(cell.new for cell in cells)], constants, make)
        more = {
            symbol(cell.name): cell.start
            for cell, new in zip(cells, news, strict=True)
            if cell.start.op == "number" and new in (cell.start, symbol(cell.name))
        }
        if more.keys() <= constants.keys():
            return update is ZERO
        constants |= more


def _followed(
    traced: Traced, calls: int | None, steps: int | None, size: float
) -> Iterable[set[tuple[float, float]]]:
    """For each phase of a run, the signs of the updates for a gradient that stays positive and one negative.

    The parameter is 0. The first phase is that of the first steps; the others begin at later steps.
    """
    cells = traced.cells
    evaluator = Evaluator([traced.update, *(cell.new for cell in cells)])
    clocks = [cell.name for cell in cells if cell.kind == "step" or _counts_calls(cell)]
    # Of a large constant the elements have signs of their own. A keyword argument is 1, as a loss may be.
    given = {name: 1.0 if stand_in(name) is None else np.nan for name in symbols(*evaluator.roots)}
    given |= {name: 0.0 for name in given if name.startswith("noise")}
    given |= {"theta": 0.0, OTHER + "theta": 0.0}
    given |= {name: np.array([size, -size]) for name in ("g", OTHER + "g")}
    starts = Evaluator([cell.start for cell in cells])(given)
    values = given | {cell.name: start for cell, start in zip(cells, starts, strict=True)}
    # What comes of the first round may be nothing, where a warmup starts at 0.
    first, next_ = (2 * calls + 1,) * 2 if calls else (LONGEST_ROUND, ENOUGH)
    moved = False
    for later in (None, *LATER):
        if later is not None:
            if moved and later >= (steps or 0):
                return
            values |= dict.fromkeys(clocks, float(later))
        ways: list[tuple[float, float]] = []
        for _ in range(max(FIRST_STEPS, first) if later is None else max(ENOUGH, next_)):
            update, *news = evaluator(values)
            values |= {cell.name: new for cell, new in zip(cells, news, strict=True)}
            up, down = np.broadcast_to(update, 2)
            if up != 0 or down != 0:
                ways.append((np.sign(up), np.sign(down)))
            if len(ways) == ENOUGH:
                break
        moved = moved or bool(ways)
        yield set(ways)


def _counts_calls(cell: Cell) -> bool:
    """Whether a part of the state counts calls, as the count of a wrapper or of another library does."""
    return "int" in cell.layout and cell.new is make("add", symbol(cell.name), ONE)


def _verdict(ways: set[tuple[float, float]]) -> Direction:
    if ways == {(-1, 1)}:
        return Direction.DESCENT
    return Direction.ASCENT if ways == {(1, -1)} else Direction.UNKNOWN


def unread(traced: Traced) -> list[str]:
    """The names of the operations in an update whose values cannot be computed here, such as a loop."""
    needed = _needed(traced)
    nodes = within([needed.update, *(cell.new for cell in needed.cells)])
    return sorted({node.args[0] if node.op == "call" else node.op for node in nodes if not is_known(node)})


def _needed(traced: Traced) -> Traced:
    """The same with only those parts of the state that an update depends on, now or in a later step."""
    needed = reached(traced.update, {cell.name: cell.new for cell in traced.cells})
    return dataclasses.replace(traced, cells=[cell for cell in traced.cells if cell.name in needed])
