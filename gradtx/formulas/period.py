"""The period of an update: after how many calls all its counters are back where they started.

A wrapper such as `accumulate` acts on every k-th call and then counts from 0 again, so its period is k.
"""

from __future__ import annotations

import math

import numpy as np

from gradtx.formulas.expression import Expression, intern, number, rewrite, symbols, within
from gradtx.formulas.naming import OTHER
from gradtx.formulas.numeric import Evaluator
from gradtx.formulas.simplify import LAST
from gradtx.formulas.trace import Traced

LONGEST_ROUND = 2048
"""The calls that are worth following one by one, which takes half a second."""

_ORDERS = ("lt", "le", "gt", "ge")


def calls_of_a_round(traced: Traced) -> int | None:
    """The number of calls after which every counter is back where it was; 1 if no counter ever starts again.

    A counter starts again if it is compared with a bound in its own update, or if a remainder of it is taken.
    A wrapper inside another one waits for it, so the periods of the two are multiplied. The result is None if
    the period is no fixed number, or is too long to follow call by call.
    """
    fixed = {
        cell.name: cell.start.value
        for cell in traced.cells
        if cell.kind == "number" and cell.start.op == "number"
    }
    counters = {cell.name: cell.new for cell in traced.cells if "int" in cell.layout}
    found = set()
    for node in within([traced.update, *(cell.new for cell in traced.cells)]):
        counted = symbols(node) & counters.keys() if node.op in ("mod", *_ORDERS) else ()
        for name in counted:
            if len(counted) == 1 and (node.op == "mod" or node in within([counters[name]])):
                found |= {(name, length) for x in node.parts if (length := _length(x, fixed, name)) != 1}
    lengths = [length for _, length in found]
    if None in lengths:
        return None
    calls = math.prod(length for length in lengths if length is not None)
    return calls if calls <= LONGEST_ROUND else None


def _length(x: Expression, fixed: dict[str, float], counter: str) -> int | None:
    """The period that a bound gives its counter: 1 if `x` is no bound, None if its value is not known."""
    named = symbols(x)
    if counter in named:
        return 1
    if not named <= fixed.keys():
        return None
    (bound,) = Evaluator([x])(fixed)
    return max(math.ceil(bound), 1) if bound < LAST - 1 else 1


def half_life(
    traced: Traced, clocks: set[str], step: float, factor: float, calls: int | None
) -> float | None:
    """In how many calls weight decay alone halves a parameter, with the schedules as at `step`."""
    if calls is None or not 0 < factor < 1:
        return None
    if calls == 1:
        return math.log(2) / -math.log1p(-factor)
    cells, parameter = traced.cells, {"theta": 1.0, OTHER + "theta": 1.0}
    named = list(traced.definitions.values())
    given = dict.fromkeys(symbols(traced.update, *named, *(cell.new for cell in cells)), 0.0) | parameter
    starts = Evaluator([cell.start for cell in cells])(given)
    values = given | {cell.name: start for cell, start in zip(cells, starts, strict=True)}
    held = Evaluator(named)(values | dict.fromkeys(clocks, step))
    constants = {x: number(value) for x, value in zip(named, held, strict=True)}
    follow = Evaluator(rewrite([traced.update, *(cell.new for cell in cells)], constants, intern))
    for _ in range(calls):
        update, *news = follow(values)
        values |= {cell.name: new for cell, new in zip(cells, news, strict=True)}
        values |= {name: values[name] + np.real(update) for name in parameter}
    left = float(values["theta"])
    return calls * math.log(2) / -math.log(left) if 0 < left < 1 else None
