"""Simplification: local rules that hold exactly for real numbers.

Nothing is distributed or put in another order, so that a formula looks like the code that it was read from.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

from gradtx.formulas.expression import FALSE, ONE, TRUE, ZERO, Expression, intern, number, symbol

Rule = Callable[..., Any]

SMALLEST = (2.0**-126, 2.0**-1022)
"""The smallest normal numbers of float32 and float64: a denominator is kept from being less."""

LAST = 2**31 - 1
"""Where a count stops; a formula does not say that it does."""

_EXACT: dict[str, Rule] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "max": max,
    "min": min,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "and": lambda a, b: bool(a and b),
    "or": lambda a, b: bool(a or b),
    "not": operator.not_,
    "abs": abs,
    "floor": math.floor,
    "trunc": math.trunc,
}


def make(op: str, *args: Any) -> Expression:
    """An expression, simplified where a local rule holds."""
    exact = _EXACT.get(op)
    if exact is not None and all(a.op == "number" for a in args):
        values = [a.value for a in args]
        if all(isinstance(v, bool) or (isinstance(v, int | float) and math.isfinite(v)) for v in values):
            return number(exact(*values))
    rule = _RULES.get(op)
    simpler = rule(*args) if rule is not None else None
    return intern(op, *args) if simpler is None else simpler


def _add(a: Expression, b: Expression) -> Expression | None:
    if a is ZERO:
        return b
    if b is ZERO:
        return a
    if a.op == "sub" and a.args[1] is b:
        return a.args[0]
    if b.op == "sub" and b.args[1] is a:
        return b.args[0]
    if b.op == "neg":
        return make("sub", a, b.args[0])
    if a.op == "neg":
        return make("sub", b, a.args[0])
    return None


def _sub(a: Expression, b: Expression) -> Expression | None:
    if b is ZERO:
        return a
    if a is ZERO:
        return make("neg", b)
    if a is b:
        return ZERO
    if b.op == "sub" and b.args[0] is a:
        return b.args[1]
    if b.op == "neg":
        return make("add", a, b.args[0])
    if a.op == "add" and a.args[1] is b:
        return a.args[0]
    return None


def _mul(a: Expression, b: Expression) -> Expression | None:
    if a is ZERO or b is ZERO:
        return ZERO
    if a is ONE:
        return b
    if b is ONE:
        return a
    if a.value == -1:
        return make("neg", b)
    if b.value == -1:
        return make("neg", a)
    return make("pow", a, number(2)) if a is b else None


def _div(a: Expression, b: Expression) -> Expression | None:
    if b is ONE or a is ZERO:
        return a
    if b.op == "max" and b.args[1].value in SMALLEST:
        return intern("divide", a, b.args[0])
    if a.op == "sum" and a.args[2] == b.value:
        return intern("mean", *a.args[:2])
    return None


def _neg(a: Expression) -> Expression | None:
    return a.args[0] if a.op == "neg" else None


def _pow(a: Expression, b: Expression) -> Expression | None:
    if b is ZERO:
        return ONE
    return a if b is ONE or a is ONE or (a is ZERO and (b.value or 0) > 0) else None


def _expm1(a: Expression) -> Expression | None:
    if a.op == "mul" and a.args[1].op == "log1p":
        times, (inner,) = a.args[0], a.args[1].args
        return make("sub", make("pow", make("add", ONE, inner), times), ONE)
    return None


def _where(condition: Expression, a: Expression, b: Expression) -> Expression | None:
    if condition.op == "number":
        return a if condition.value else b
    if b.value == LAST and condition.op == "lt" and (condition.args[1].value or 0) >= LAST:
        return a
    if condition.op == "not":
        return make("where", condition.args[0], b, a)
    if a in (TRUE, FALSE) and is_condition(b):
        return make("or", condition, b) if a is TRUE else make("and", make("not", condition), b)
    return a if a is b else None


def _and(a: Expression, b: Expression) -> Expression | None:
    if FALSE in (a, b):
        return FALSE
    if a in (TRUE, b) or (b.op == "and" and b.args[0] is a):
        return b
    return a if b is TRUE else None


def _or(a: Expression, b: Expression) -> Expression | None:
    if TRUE in (a, b):
        return TRUE
    return b if a in (FALSE, b) else a if b is FALSE else None


def _not(a: Expression) -> Expression | None:
    return a.args[0] if a.op == "not" else None


def _is_whole(x: Expression) -> bool:
    """Whether it is a whole number: a step, or what is counted from one."""
    if x.op == "symbol":
        return x is symbol(x.args[0], counts=True)
    if x.op in ("add", "sub", "mul", "max", "min"):
        return all(map(_is_whole, x.args))
    return x.op in ("floor", "trunc", "ceil", "round") or isinstance(x.value, int)


def is_condition(x: Expression) -> bool:
    """Whether it is true or false."""
    return x in (TRUE, FALSE) or x.op in _CONDITIONS


def _compare(op: str, a: Expression, b: Expression) -> Expression | None:
    if b.op != "number":
        return None
    if a.op == "sub" and a.args[1].op == "number":
        return make(op, a.args[0], make("add", b, a.args[1]))
    if a.op == "where" and "number" in (a.args[1].op, a.args[2].op):
        return make("where", a.args[0], *(make(op, branch, b) for branch in a.args[1:]))
    if b is ZERO and is_condition(a) and op in ("gt", "ne", "eq"):
        return make("not", a) if op == "eq" else a
    return None


_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_CONDITIONS = {*_COMPARISONS, "and", "or", "not", "isfinite", "all", "some", "every", "any"}

_RULES: dict[str, Rule] = {
    **{op: functools.partial(_compare, op) for op in _COMPARISONS},
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "not": _not,
    "pow": _pow,
    "sqrt": lambda a: a if a in (ZERO, ONE) else None,
    "expm1": _expm1,
    "where": _where,
    "and": _and,
    "or": _or,
    **dict.fromkeys(("floor", "ceil", "trunc"), lambda a: a if _is_whole(a) else None),
    "max": lambda a, b: a if a is b else None,
    "min": lambda a, b: a if a is b else None,
    "sum": lambda a, axes, count: make("mul", number(count), a) if a.op == "number" else None,
}
