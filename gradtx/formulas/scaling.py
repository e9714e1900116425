"""How an expression depends on a part of it: with which factor, and by which power."""

from __future__ import annotations

from typing import Any

from gradtx.formulas.expression import ONE, ZERO, Expression, within
from gradtx.formulas.simplify import make


def coefficient_of(x: Expression, part: Expression) -> Expression | None:
    """The factor of a part in an expression `factor * part + rest`; None if it does not have that form."""
    known: dict[Expression, Expression | None] = {}
    for node in within([x]):
        parts = [known[a] for a in node.parts]
        if node is part:
            known[node] = ONE
        elif all(p is ZERO for p in parts):
            known[node] = ZERO
        elif None in parts:
            known[node] = None
        else:
            known[node] = _linear(node, parts)
    return known[x]


def _linear(node: Expression, parts: list[Any]) -> Expression | None:
    op = node.op
    if op in ("add", "sub", "neg"):
        return make(op, *parts)
    if op == "mul":
        (a, b), (ka, kb) = node.args, parts
        return make("mul", a, kb) if ka is ZERO else make("mul", ka, b) if kb is ZERO else None
    if op in ("div", "divide") and parts[1] is ZERO:
        return make("div", parts[0], node.args[1])
    return None


def degree(x: Expression, name: str) -> float | None:
    """The power of a name by which an expression scales: 0 if it is not in it, None where that is unclear."""
    known: dict[Expression, float | None] = {}
    for node in within([x]):
        known[node] = _power(node, [known[a] for a in node.parts], name)
    return known[x]


def _power(node: Expression, parts: list[float | None], name: str) -> float | None:
    op = node.op
    if op == "symbol":
        return float(node.args[0] == name)
    if not any(parts) and None not in parts:
        return 0.0
    if None in parts:
        return None
    known: list[Any] = parts
    if op == "mul":
        return known[0] + known[1]
    if op in ("div", "divide"):
        return known[0] - known[1]
    if op in ("neg", "abs", "sum", "mean"):
        return known[0]
    if op == "sqrt":
        return known[0] / 2
    if op in ("add", "sub", "where"):
        powers = {p for p, a in zip(known, node.parts, strict=True) if a is not ZERO}
        if op == "where" and known[0] == 0:
            powers = {p for p, a in zip(known[1:], node.parts[1:], strict=True) if a is not ZERO}
        return powers.pop() if len(powers) == 1 else None
    return None
