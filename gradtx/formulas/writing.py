"""How an expression is written, in every form: one walk, which a form says the signs for.

A form gives the signs of its operations, and how a product, a quotient, a power or a call looks. What binds
how tightly, where parentheses stand, and which parts have a line of their own, is decided here.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping

from gradtx.formulas.expression import Expression, within

OR, AND, NOT, COMPARE, ADD, MATMUL, MUL, POWER, ATOM = range(9)
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
OVER_LEAVES = ("total", "every", "any")
OVER_AXES = ("sum", "mean", "all", "some", "largest", "smallest")

Written = tuple[str, int]
"""Some writing, and how tightly its outermost operation binds."""


def shown_parts(x: Expression) -> tuple[Expression, ...]:
    """The parts that are written: a sum over all leaves shows the one over the first."""
    return x.parts[:1] if x.op in OVER_LEAVES else x.parts


class Writer:
    """Writes expressions in one form; the names of parts that have a line of their own are in `known`."""

    signs: Mapping[str, str]
    denied = COMPARE
    """How tightly binds what may stand behind a `not` without parentheses."""

    def __init__(self) -> None:
        self.known: dict[Expression, Written] = {}

    def write(self, x: Expression) -> Written:
        """The writing, and how tightly its outermost operation binds."""
        if x not in self.known:
            self.known[x] = self._write(x)
        return self.known[x]

    def whole(self, x: Expression) -> str:
        """The writing of what nothing stands beside."""
        return self.write(x)[0]

    def line(self, x: Expression) -> str:
        """The writing of what has a line of its own, or several if it is long."""
        return self.whole(x)

    def within(self, x: Expression, level: int) -> str:
        """The writing, in parentheses if it binds less tightly than `level`."""
        shown, own = self.write(x)
        return shown if own >= level else self.paren(shown)

    def summand(self, x: Expression, level: int) -> str:
        """The same behind a sign."""
        shown = self.within(x, level)
        return self.paren(shown) if shown.startswith("-") else shown

    def _write(self, x: Expression) -> Written:
        op, args = x.op, x.args
        if op == "number":
            negative = not isinstance(args[0], bool | complex) and args[0] < 0
            return self.number(args[0]), ADD if negative else ATOM
        if op == "symbol":
            return self.name(args[0]), ATOM
        if op == "add":
            return f"{self.within(args[0], ADD)} + {self.summand(args[1], ADD)}", ADD
        if op == "sub":
            return f"{self.within(args[0], ADD)} - {self.summand(args[1], MATMUL)}", ADD
        if op == "neg":
            return f"-{self.summand(args[0], MUL)}", ADD
        if op == "mul":
            return self.product(*args), MUL
        if op in ("div", "divide"):
            return self.quotient(*args)
        if op == "pow":
            return self.power(*args), POWER
        return self.rest(x)

    def rest(self, x: Expression) -> Written:
        """The writing of what is no arithmetic of two numbers."""
        op, args = x.op, x.args
        if op == "eq" and all(a.op == "call" and a.args[0].startswith("position[") for a in args):
            return "I", ATOM
        if op in COMPARISONS:
            a, b = (self.within(a, ADD) for a in args)
            return f"{a} {self.signs[op]} {b}", COMPARE
        if op in ("and", "or"):
            level = AND if op == "and" else OR
            a, b = (self.within(a, level) for a in args)
            return f"{a} {self.signs[op]} {b}", level
        if op == "not":
            return f"{self.signs[op]} {self.within(args[0], self.denied)}", NOT
        if op == "where":
            return self.choice(*args)
        if op in OVER_LEAVES:
            return self.over_leaves(op, summed(x))
        if op == "matmul":
            return self.signs[op].join((self.within(args[0], MATMUL), self.within(args[1], POWER))), MATMUL
        if op == "transposed":
            return self.transposed(args[0]), POWER
        if op == "abs":
            return self.magnitude(args[0]), ATOM
        over = args[1] if op in OVER_AXES and args[1:2] not in ((), (None,)) else ()
        return self.call(args[0] if op == "call" else op, x.parts, tuple(map(str, over))), ATOM

    def paren(self, shown: str) -> str:
        raise NotImplementedError

    def number(self, value: object) -> str:
        raise NotImplementedError

    def name(self, name: str) -> str:
        raise NotImplementedError

    def product(self, a: Expression, b: Expression) -> str:
        raise NotImplementedError

    def quotient(self, a: Expression, b: Expression) -> Written:
        raise NotImplementedError

    def power(self, a: Expression, b: Expression) -> str:
        raise NotImplementedError

    def choice(self, condition: Expression, yes: Expression, no: Expression) -> Written:
        """One value where a condition holds, else another one."""
        return self.call("where", (condition, yes, no), ()), ATOM

    def over_leaves(self, op: str, inner: Expression) -> Written:
        raise NotImplementedError

    def transposed(self, x: Expression) -> str:
        raise NotImplementedError

    def magnitude(self, x: Expression) -> str:
        raise NotImplementedError

    def call(self, name: str, parts: tuple[Expression, ...], axes: tuple[str, ...]) -> str:
        raise NotImplementedError

    def apart(self, x: Expression, uses: int) -> Iterator[Expression]:
        """Which of an expression and its parts have a line of their own; of none uses if it has one anyway.

        Each of them has a short name by the time the next one is asked for.
        """
        raise NotImplementedError

    def parts_called(self, taken: set[str]) -> Iterator[str]:
        """Names for such parts, other than those that are taken."""
        raise NotImplementedError


def summed(x: Expression) -> Expression:
    """What a sum over all leaves is of; that it is over the elements of each goes without saying."""
    inner = x.args[0]
    return inner.args[0] if inner.op == "sum" and inner.args[1] is None else inner


def lines(named: Iterable[tuple[str, Expression]], form: Callable[[], Writer]) -> list[tuple[str, str]]:
    """Names and what they are, where some parts have a line of their own before."""
    named = list(named)
    roots = {x for _, x in named}
    nodes = within(roots, shown_parts)
    uses = collections.Counter(part for node in nodes for part in shown_parts(node))
    draft, parts = form(), set[Expression]()
    for node in nodes:
        for part in draft.apart(node, 0 if node in roots else uses[node]):
            parts.add(part)
            draft.known[part] = "x0", ATOM
    writer, result = form(), []
    free = writer.parts_called({x.args[0] for x in nodes if x.op == "symbol"})
    for name, x in named:
        for node in within([x], shown_parts):
            if node in parts:
                parts.remove(node)
                part = next(free)
                result.append((part, writer.line(node)))
                writer.known[node] = writer.name(part), ATOM
        result.append((name, writer.line(x)))
    return result
