"""How many calls it takes until what an update counts begins anew, as a wrapper that acts on every k-th."""

from __future__ import annotations

import math

from gradtx.formulas.expression import Expression, symbols, within
from gradtx.formulas.numeric import Evaluator
from gradtx.formulas.simplify import LAST
from gradtx.formulas.trace import Traced

LONGEST_ROUND = 2048
"""The calls that are worth following one by one, which takes half a second."""

_ORDERS = ("lt", "le", "gt", "ge")


def calls_of_a_round(traced: Traced) -> int | None:
    """The number of calls after which all counters stand where they stood: 1 where none begins anew.

    A counter begins anew where its own new value depends on its size, or where a remainder is taken of it.
    Nested wrappers wait for one another, so that their rounds are multiplied. None where a round is longer
    than anybody would follow, or of a length that is no fixed number.
    """
    fixed = {
        cell.name: cell.start.value
        for cell in traced.cells
        if cell.kind == "number" and cell.start.op == "number"
    }
    counters = {cell.name: cell.new for cell in traced.cells if "int" in cell.dtype}
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
    """The round that a counter's bound gives: 1 where it is no bound, None where it is not known."""
    named = symbols(x)
    if counter in named:
        return 1
    if not named <= fixed.keys():
        return None
    (bound,) = Evaluator([x])(fixed)
    return max(math.ceil(bound), 1) if bound < LAST - 1 else 1
