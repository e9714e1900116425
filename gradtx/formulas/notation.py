"""Expressions in writing: for people, and as Python source."""

from __future__ import annotations

import collections
import itertools
import keyword
import math
import re
from collections.abc import Iterable

import numpy as np

from gradtx.formulas.expression import Expression, within

_OR, _AND, _NOT, _COMPARE, _ADD, _MATMUL, _MUL, _POWER, _ATOM = range(9)
_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=", "ne": "!="}
_PEOPLE = {"every": "all"}


def _number(value: object) -> str:
    if isinstance(value, bool | complex) or not isinstance(value, float):
        return str(value)
    single = np.float32(value)
    if abs(single) == np.float32(math.pi):
        return "pi" if value > 0 else "-pi"
    return repr(float(str(single))) if float(single) == value else repr(value)


def text(expression: Expression) -> str:
    """An expression as a person writes it, with the fewest parentheses."""
    return _People().write(expression)[0]


def lines(named: Iterable[tuple[str, Expression]]) -> list[tuple[str, str]]:
    """Names and what they are, where a long part that occurs more than once has a line of its own before."""
    named = list(named)
    roots = {x for _, x in named}
    uses = collections.Counter(part for node in within(roots, _shown_parts) for part in _shown_parts(node))
    draft, parts = _People(), set()
    for node in within(roots, _shown_parts):
        often = uses[node] > 1 and node not in roots and bool(node.parts)
        if often and len(draft.write(node)[0]) >= _LONG:
            parts.add(node)
            draft.known[node] = "x0", _ATOM
    taken = {x.args[0] for x in within(roots, _shown_parts) if x.op == "symbol"}
    free = (f"x{i}" for i in itertools.count(1) if f"x{i}" not in taken)
    writer, result = _People(), []
    for name, x in named:
        for node in within([x], _shown_parts):
            if node in parts:
                parts.remove(node)
                part = next(free)
                result.append((part, writer.write(node)[0]))
                writer.known[node] = part, _ATOM
        result.append((name, writer.write(x)[0]))
    return result


_LONG = 32
"""The length of a part that is worth a line."""


def _shown_parts(x: Expression) -> tuple[Expression, ...]:
    """The parts that are written: a sum over all leaves shows the one over the first."""
    return x.parts[:1] if x.op in ("total", "every", "any") else x.parts


def source(expression: Expression) -> str:
    """An expression as Python source, which `sympy.sympify` reads.

    A prime is written `_new`, a dot in a name `__`. A choice is a `Piecewise`, and what sympy has no name for
    is a function of its name, such as `total`.
    """
    return _Python().write(expression)[0]


def identifier(name: str) -> str:
    """The name of a quantity in Python source."""
    mangled = re.sub(r"\W", "_", name.replace("'", "_new").replace(".", "__"))
    return f"{mangled}_" if keyword.iskeyword(mangled) else mangled


class _People:
    times, to_the = " ", "^"

    def __init__(self) -> None:
        self.known: dict[Expression, tuple[str, int]] = {}

    def write(self, x: Expression) -> tuple[str, int]:
        """The text, and how tightly its outermost operation binds."""
        if x not in self.known:
            self.known[x] = self._write(x)
        return self.known[x]

    def within(self, x: Expression, level: int) -> str:
        """The text, in parentheses if it binds less tightly than `level`."""
        shown, own = self.write(x)
        return shown if own >= level else f"({shown})"

    def _write(self, x: Expression) -> tuple[str, int]:
        op, args = x.op, x.args
        if op == "number":
            negative = not isinstance(args[0], bool | complex) and args[0] < 0
            return self.number(args[0]), _ADD if negative else _ATOM
        if op == "symbol":
            return self.name(args[0]), _ATOM
        if op == "add":
            return f"{self.within(args[0], _ADD)} + {self.summand(args[1], _ADD)}", _ADD
        if op == "sub":
            return f"{self.within(args[0], _ADD)} - {self.summand(args[1], _MATMUL)}", _ADD
        if op == "neg":
            return f"-{self.summand(args[0], _MUL)}", _ADD
        if op == "mul":
            return self.product(*args), _MUL
        if op in ("div", "divide"):
            return f"{self.within(args[0], _MUL)} / {self.within(args[1], _POWER)}", _MUL
        if op == "pow":
            return f"{self.within(args[0], _ATOM)}{self.to_the}{self.within(args[1], _ATOM)}", _POWER
        return self.rest(x)

    def summand(self, x: Expression, level: int) -> str:
        shown = self.within(x, level)
        return f"({shown})" if shown.startswith("-") else shown

    def product(self, a: Expression, b: Expression) -> str:
        left, right = self.within(a, _MUL), self.within(b, _MUL)
        # Side by side binds tighter than a division to the eye.
        apart = right[0].isdigit() or self.ends_in_division(a)
        return f"{left} * {right}" if apart else f"{left}{self.times}{right}"

    def ends_in_division(self, x: Expression) -> bool:
        while x.op == "mul" and self.known[x][1] != _ATOM:
            x = x.args[1]
        return x.op in ("div", "divide") and self.known[x][1] != _ATOM

    def number(self, value: object) -> str:
        return _number(value)

    def name(self, name: str) -> str:
        return name

    def rest(self, x: Expression) -> tuple[str, int]:
        op, args = x.op, x.args
        if op == "eq" and all(a.op == "call" and a.args[0].startswith("position[") for a in args):
            return "I", _ATOM
        if op in _COMPARISONS:
            a, b = (self.within(a, _ADD) for a in args)
            return f"{a} {_COMPARISONS[op]} {b}", _COMPARE
        if op in ("and", "or"):
            level = _AND if op == "and" else _OR
            a, b = (self.within(a, level) for a in args)
            return f"{a} {op} {b}", level
        if op == "not":
            return f"not {self.within(args[0], _COMPARE)}", _NOT
        if op in ("total", "every", "any"):
            inner = args[0].args[0] if args[0].op == "sum" and args[0].args[1] is None else args[0]
            return f"{_PEOPLE.get(op, op)}({self.write(inner)[0]})", _ATOM
        if op == "matmul":
            return f"{self.within(args[0], _MATMUL)} @ {self.within(args[1], _POWER)}", _MATMUL
        if op == "transposed":
            return f"{self.within(args[0], _ATOM)}^T", _POWER
        if op == "abs":
            return f"|{self.write(args[0])[0]}|", _ATOM
        if op in ("sum", "mean", "all", "some", "largest", "smallest") and args[1:2] not in ((), (None,)):
            axes = ", ".join(map(str, args[1]))
            return f"{op}({self.write(args[0])[0]}, axis={axes})", _ATOM
        name = args[0] if op == "call" else _PEOPLE.get(op, op)
        shown = ", ".join(self.write(a)[0] for a in x.parts)
        return f"{name}({shown})" if shown else name, _ATOM


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
    times, to_the = "*", "**"

    def product(self, a: Expression, b: Expression) -> str:
        return f"{self.within(a, _MUL)}*{self.within(b, _POWER)}"

    def number(self, value: object) -> str:
        return repr(value)

    def name(self, name: str) -> str:
        return identifier(name)

    def rest(self, x: Expression) -> tuple[str, int]:
        op, args = x.op, x.args
        shown = [self.write(a)[0] for a in x.parts]
        if op == "where":
            return f"Piecewise(({shown[1]}, {shown[0]}), ({shown[2]}, True))", _ATOM
        if op == "expm1":
            return f"(exp({shown[0]}) - 1)", _ATOM
        if op == "log1p":
            return f"log(1 + {shown[0]})", _ATOM
        if op == "total":
            inner = args[0].args[0] if args[0].op == "sum" and args[0].args[1] is None else args[0]
            return f"total({self.write(inner)[0]})", _ATOM
        if op == "call":
            return f"{identifier(args[0])}({', '.join(shown)})", _ATOM
        return f"{_FUNCTIONS.get(op, _RELATIONS.get(op, op))}({', '.join(shown)})", _ATOM
