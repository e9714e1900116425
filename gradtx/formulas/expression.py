"""Expressions: a small graph in which equal subexpressions are one object.

The arguments of an expression are made before it, so that the order of making is an order to compute in.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class Expression:
    """An operation and its arguments: expressions, and what else the operation needs (a name, a number)."""

    __slots__ = ("__weakref__", "args", "op", "order")

    op: str
    args: tuple[Any, ...]
    order: int

    def __repr__(self) -> str:
        from gradtx.formulas.notation import text

        return text(self)

    def source(self) -> str:
        """The expression as Python source, which `sympy.sympify` reads."""
        from gradtx.formulas.notation import source

        return source(self)

    def latex(self) -> str:
        """The expression in LaTeX, with letters for the names that papers have letters for."""
        from gradtx.formulas.latex import latex

        return latex(self)

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    def __reduce__(self) -> Any:
        return intern, (self.op, *self.args)

    @property
    def parts(self) -> tuple[Expression, ...]:
        """The arguments that are expressions."""
        return tuple(a for a in self.args if isinstance(a, Expression))

    @property
    def value(self) -> Any:
        """The value of a number, None for another expression."""
        return self.args[0] if self.op == "number" else None


_known: weakref.WeakValueDictionary[Any, Expression] = weakref.WeakValueDictionary()
_orders = itertools.count()


def intern(op: str, *args: Any) -> Expression:
    """The expression of an operation and its arguments, unchanged: the same object each time."""
    key = (op, *((type(a), a) for a in args))
    found = _known.get(key)
    if found is None:
        found = Expression()
        found.op, found.args, found.order = op, args, next(_orders)
        _known[key] = found
    return found


def number(value: Any) -> Expression:
    """A number, or a truth value."""
    if isinstance(value, complex) and value.imag == 0:
        value = value.real
    if not isinstance(value, bool | complex):
        value = float(value)
        value = int(value) if math.isfinite(value) and value == int(value) else value
    return intern("number", value)


def symbol(name: str, counts: bool = False) -> Expression:
    """A named quantity. One that `counts` is a whole number, like a step."""
    return intern("symbol", name, "whole") if counts else intern("symbol", name)


ZERO, ONE, TRUE, FALSE = number(0), number(1), number(True), number(False)


def within(
    roots: Iterable[Expression], parts: Callable[[Expression], Iterable[Expression]] = lambda x: x.parts
) -> list[Expression]:
    """Every expression inside of some, themselves included, in an order to compute in."""
    found: dict[int, Expression] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node.order not in found:
            found[node.order] = node
            stack.extend(parts(node))
    return [found[order] for order in sorted(found)]


def symbols(*roots: Expression) -> set[str]:
    """The names that occur in some expressions."""
    return {node.args[0] for node in within(roots) if node.op == "symbol"}


def reached(
    root: Expression,
    bodies: Mapping[str, Expression],
    names: Callable[[Expression], Iterable[str]] = symbols,
) -> set[str]:
    """The names in `bodies` that an expression depends on, directly or through other bodies."""
    found: set[str] = set()
    queue = [root]
    while queue:
        for name in names(queue.pop()):
            if name in bodies and name not in found:
                found.add(name)
                queue.append(bodies[name])
    return found


def digest(root: Expression) -> str:
    """A short text for an expression that no other expression has, and that is the same in every process."""
    known: dict[Expression, str] = {}
    for node in within([root]):
        said = repr((node.op, *(known[a] if isinstance(a, Expression) else a for a in node.args)))
        known[node] = fingerprint(said.encode())
    return known[root]


def fingerprint(data: bytes) -> str:
    """Eight hexadecimal digits for some bytes."""
    return hashlib.blake2b(data, digest_size=4).hexdigest()


def rewrite(
    roots: Iterable[Expression],
    named: Mapping[Expression, Expression],
    rule: Callable[..., Expression] = intern,
) -> list[Expression]:
    """Expressions with those in `named` replaced, and all others built again by `rule(op, *args)`."""
    roots, new = list(roots), {}
    for node in within(roots):
        other = named.get(node)
        if other is None:
            args = [new[a] if isinstance(a, Expression) else a for a in node.args]
            other = rule(node.op, *args) if node.parts else node
        new[node] = other
    return [new[root] for root in roots]
