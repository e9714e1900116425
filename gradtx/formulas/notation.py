"""Expressions as text: for people, and as Python source."""

from __future__ import annotations

import itertools
import keyword
import math
import re
from collections.abc import Iterable, Iterator

import numpy as np

from gradtx.formulas import writing
from gradtx.formulas.expression import Expression
from gradtx.formulas.writing import ATOM, MUL, POWER, Writer, Written, summed


def spelled(value: object) -> str:
    """A number as a person writes it."""
    if isinstance(value, bool | complex) or not isinstance(value, float):
        return str(value)
    single = np.float32(value)
    if abs(single) == np.float32(math.pi):
        return "pi" if value > 0 else "-pi"
    return repr(float(str(single))) if float(single) == value else repr(value)


def text(expression: Expression) -> str:
    """An expression as a person writes it, with the fewest parentheses."""
    return _People().whole(expression)


def lines(named: Iterable[tuple[str, Expression]]) -> list[tuple[str, str]]:
    """Names and what they are, where a long part that occurs more than once has a line of its own before."""
    return writing.lines(named, _People)


LONG = 32
"""The length of a part that is worth a line."""


def source(expression: Expression) -> str:
    """An expression as Python source, which `sympy.sympify` reads.

    A prime is written `_new`, a dot in a name `__`. A choice is a `Piecewise`, and what sympy has no name for
    is a function of its name, such as `total`.
    """
    return _Python().whole(expression)


def identifier(name: str) -> str:
    """The name of a quantity in Python source."""
    mangled = re.sub(r"\W", "_", name.replace("'", "_new").replace(".", "__"))
    return f"{mangled}_" if keyword.iskeyword(mangled) else mangled


_SIGNS = {
    **{"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=", "ne": "!="},
    **{"and": "and", "or": "or", "not": "not", "matmul": " @ "},
}
_PEOPLE = {"every": "all"}


class _People(Writer):
    signs = _SIGNS

    def paren(self, shown: str) -> str:
        return f"({shown})"

    def number(self, value: object) -> str:
        return spelled(value)

    def name(self, name: str) -> str:
        return name

    def product(self, a: Expression, b: Expression) -> str:
        left, right = self.within(a, MUL), self.within(b, MUL)
        # Side by side binds tighter than a division to the eye.
        apart = right[0].isdigit() or self.ends_in_division(a)
        return f"{left} * {right}" if apart else f"{left} {right}"

    def ends_in_division(self, x: Expression) -> bool:
        while x.op == "mul" and self.known[x][1] != ATOM:
            x = x.args[1]
        return x.op in ("div", "divide") and self.known[x][1] != ATOM

    def quotient(self, a: Expression, b: Expression) -> Written:
        return f"{self.within(a, MUL)} / {self.within(b, POWER)}", MUL

    def power(self, a: Expression, b: Expression) -> str:
        return f"{self.within(a, ATOM)}^{self.within(b, ATOM)}"

    def over_leaves(self, op: str, inner: Expression) -> Written:
        return f"{_PEOPLE.get(op, op)}({self.whole(inner)})", ATOM

    def transposed(self, x: Expression) -> str:
        return f"{self.within(x, ATOM)}^T"

    def magnitude(self, x: Expression) -> str:
        return f"|{self.whole(x)}|"

    def call(self, name: str, parts: tuple[Expression, ...], axes: tuple[str, ...]) -> str:
        over = [f"axis={', '.join(axes)}"] if axes else []
        shown = ", ".join([*map(self.whole, parts), *over])
        return f"{name}({shown})" if shown else name

    def apart(self, x: Expression, uses: int) -> Iterator[Expression]:
        if uses > 1 and x.parts and len(self.whole(x)) >= LONG:
            yield x

    def parts_called(self, taken: set[str]) -> Iterator[str]:
        return (f"x{i}" for i in itertools.count(1) if f"x{i}" not in taken)


_FUNCTIONS = {
    "abs": "Abs",
    "max": "Max",
    "min": "Min",
    "mod": "Mod",
    "ceil": "ceiling",
    "and": "And",
    "or": "Or",
    "not": "Not",
    "real": "re",
    "imag": "im",
    "conj": "conjugate",
    "every": "all_leaves",
    "any": "any_leaf",
    "sum": "leaf_sum",
    "all": "leaf_all",
    "some": "leaf_some",
    "round": "nearest",
    "logistic": "sigmoid",
    "matmul": "matrix_product",
}
_RELATIONS = {"lt": "Lt", "le": "Le", "gt": "Gt", "ge": "Ge", "eq": "Eq", "ne": "Ne"}


class _Python(_People):
    def product(self, a: Expression, b: Expression) -> str:
        return f"{self.within(a, MUL)}*{self.within(b, POWER)}"

    def power(self, a: Expression, b: Expression) -> str:
        return f"{self.within(a, ATOM)}**{self.within(b, ATOM)}"

    def number(self, value: object) -> str:
        return repr(value)

    def name(self, name: str) -> str:
        return identifier(name)

    def rest(self, x: Expression) -> Written:
        op, args = x.op, x.args
        shown = [self.whole(a) for a in x.parts]
        if op == "where":
            return f"Piecewise(({shown[1]}, {shown[0]}), ({shown[2]}, True))", ATOM
        if op == "expm1":
            return f"(exp({shown[0]}) - 1)", ATOM
        if op == "log1p":
            return f"log(1 + {shown[0]})", ATOM
        if op == "total":
            return f"total({self.whole(summed(x))})", ATOM
        if op == "call":
            return f"{identifier(args[0])}({', '.join(shown)})", ATOM
        return f"{_FUNCTIONS.get(op, _RELATIONS.get(op, op))}({', '.join(shown)})", ATOM
