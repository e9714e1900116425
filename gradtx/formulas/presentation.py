"""How an expression is written: signs in front, no reciprocal as a factor, sums over all leaves as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gradtx.formulas.expression import ONE, Expression, intern, number, rewrite, symbol, within
from gradtx.formulas.simplify import make


class Mirror:
    """Rules of writing, and the sums over a leaf that go on over the other leaves.

    `prefixes` are those of the names of other leaves.
    """

    def __init__(self, slots: list[str], prefixes: Iterable[str]) -> None:
        names = ["g", "theta", *slots, *(f"{name}'" for name in slots)]
        self.swaps = [{symbol(name): symbol(prefix + name) for name in names} for prefix in prefixes]

    def tidied(self, op: str, *args: Any) -> Expression:
        """An expression as it is written."""
        if op in _OVER_LEAVES:
            over = _OVER_LEAVES[op]
            for one, other in (args, args[::-1]):
                # A sum over some leaves goes on over one more.
                own = one.args[0] if one.op == over else one
                if own is not other and self.mirrors(own, other):
                    return intern(over, own, other)
        return tidied(op, *args)

    def mirrors(self, own: Expression, other: Expression) -> bool:
        """Whether an expression is of another leaf what `own` is of this leaf."""
        unsized = rewrite([other], {}, _unsized)
        return any(rewrite([own], swap, _unsized) == unsized for swap in self.swaps)


def _unsized(op: str, *args: Any) -> Expression:
    """An expression as it is for a leaf of any size."""
    return intern(op, *args[:2], 0) if op == "sum" else intern(op, *args)


_OVER_LEAVES = {"add": "total", "and": "every", "or": "any"}


def tidied(op: str, *args: Any) -> Expression:
    """An expression with its sign in front and no reciprocal as a factor."""
    if op in ("mul", "div", "divide") and _is_negative(args[0]):
        return tidied("neg", tidied(op, number(-args[0].value), args[1]))
    if op == "neg" and args[0].op == "sub":
        return make("sub", *reversed(args[0].args))
    if op == "mul":
        a, b = args
        for one, other, ordered in ((a, b, False), (b, a, True)):
            if one.op == "neg":
                inner = one.args[0]
                return tidied("neg", tidied("mul", *((other, inner) if ordered else (inner, other))))
            if one.op == "div" and one.args[0] is ONE:
                return tidied("div", other, one.args[1])
    if op in ("div", "divide") and args[0].op == "neg":
        return tidied("neg", tidied(op, args[0].args[0], args[1]))
    if op == "where" and args[1].op == "where" and args[1].args[2] is args[2]:
        return make("where", make("and", args[0], args[1].args[0]), *args[1].args[1:])
    if op == "where":
        return make("where", args[0], *(_given(args[0], i, args[i + 1]) for i in (0, 1)))
    return make(op, *args)


def _is_negative(x: Expression) -> bool:
    return isinstance(x.value, int | float) and x.value < 0


def _given(condition: Expression, which: int, x: Expression) -> Expression:
    """A branch of a choice. Inside it the condition is known, so the same choice is not made again."""
    same = {n: n.args[which + 1] for n in within([x]) if n.op == "where" and n.args[0] is condition}
    return rewrite([x], same, tidied)[0] if same else x
