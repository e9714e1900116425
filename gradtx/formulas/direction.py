"""Which way a transform moves each leaf, and how weight decay enters, found by computing its formula."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import Any

import numpy as np

from gradtx.formulas.decay import Coupling, Decay, decay_of
from gradtx.formulas.expression import symbols
from gradtx.formulas.formula import present
from gradtx.formulas.naming import OTHER, Cell
from gradtx.formulas.numeric import Evaluator
from gradtx.formulas.trace import Traced, Tracing, companion, composed, signatures

__all__ = ["Coupling", "Decay", "Direction", "decays", "directions", "directions_and_decays"]


class Direction(enum.Enum):
    """Where the update goes for a gradient of one sign."""

    DESCENT = "against the gradient"
    ASCENT = "along the gradient"
    NONE = "nowhere: the update is zero"
    UNKNOWN = "not determined by the gradient's sign"


def directions(tx: Any, params: Any) -> list[Direction]:
    """For each leaf, in flatten order, where its update goes; a leaf without a gradient goes nowhere."""
    return directions_and_decays(tx, params)[0]


def decays(tx: Any, params: Any) -> list[Decay | None]:
    """For each leaf, in flatten order, how weight decay enters its update; None where it does not."""
    return directions_and_decays(tx, params)[1]


def directions_and_decays(tx: Any, params: Any) -> tuple[list[Direction], list[Decay | None]]:
    """Both at once: one leaf stands for all that the same transforms work on."""
    tx = composed(tx)
    found = signatures(tx, params)
    first = {row: i for i, row in reversed(list(enumerate(found))) if row is not None}
    pairs = {row: (i, companion(found, i)) for row, i in first.items()}
    tracing = Tracing(tx, params, {i for pair in pairs.values() for i in pair if i is not None})
    known: dict[Any, tuple[Direction, Decay | None]] = {None: (Direction.NONE, None)}
    for row, pair in pairs.items():
        traced = _needed(tracing.view(*pair))
        clocks = [cell.name for cell in traced.cells if cell.kind == "step"]
        known[row] = _direction(traced, clocks), decay_of(present(traced), clocks)
    return [known[row][0] for row in found], [known[row][1] for row in found]


LATER = (100, 1_000, 10_000, 100_000)
"""Steps to look at if nothing has moved in the first ones, as before a long warmup."""


def _direction(traced: Traced, clocks: list[str]) -> Direction:
    """Follows a gradient of one sign; a smaller one where a large one is skipped."""
    found = _along(traced, clocks, 1.0)
    return _along(traced, clocks, 2.0**-10) if found is Direction.NONE else found


def _along(traced: Traced, clocks: list[str], size: float) -> Direction:
    """Follows a gradient that stays positive and one that stays negative, at a parameter of 0."""
    cells = traced.cells
    evaluator = Evaluator([traced.update, *(cell.new for cell in cells)])
    named = symbols(traced.update, *(cell.new for cell in cells))
    given = {name: 0.0 for name in named}
    given |= {name: np.array([size, -size]) for name in ("g", OTHER + "g")}
    starts = Evaluator([cell.start for cell in cells])(given | {"theta": 0.0, OTHER + "theta": 0.0})
    values = given | {cell.name: start for cell, start in zip(cells, starts, strict=True)}
    seen = []
    for later in (None, *LATER):
        if later is not None:
            values |= dict.fromkeys(clocks, float(later))
        for _ in range(32 if later is None else 4):
            update, *news = evaluator(values)
            values |= {cell.name: new for cell, new in zip(cells, news, strict=True)}
            up, down = np.broadcast_to(update, 2)
            if up != 0 or down != 0:
                seen.append((np.sign(up), np.sign(down)))
            if len(seen) == 4:
                return _verdict(seen)
        if seen:
            return _verdict(seen)
    return Direction.NONE


def _verdict(seen: Iterable[tuple[float, float]]) -> Direction:
    ways = set(seen)
    if ways == {(-1, 1)}:
        return Direction.DESCENT
    return Direction.ASCENT if ways == {(1, -1)} else Direction.UNKNOWN


def _needed(traced: Traced) -> Traced:
    """What of the state the update depends on, in this step or later."""
    cells = {cell.name: cell for cell in traced.cells}
    found: dict[str, Cell] = {}
    queue = [traced.update]
    while queue:
        for name in symbols(queue.pop()) & cells.keys():
            if name not in found:
                found[name] = cells[name]
                queue.append(cells[name].new)
    return dataclasses.replace(traced, cells=list(found.values()))
