"""The value of expressions for given numbers."""

from __future__ import annotations

import math
import operator
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from gradtx.formulas.expression import Expression, within
from gradtx.formulas.simplify import SMALLEST


def _guarded(a: Any, b: Any) -> Any:
    return a / np.maximum(b, SMALLEST[1])


_VALUES: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "divide": _guarded,
    "neg": operator.neg,
    "pow": np.power,
    "mod": np.fmod,
    "truncdiv": lambda a, b: np.trunc(a / b),
    "abs": np.abs,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "cbrt": np.cbrt,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "tanh": np.tanh,
    "atan": np.arctan,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(math.erf, otypes=[float]),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "trunc": np.trunc,
    "real": np.real,
    "imag": np.imag,
    "conj": np.conj,
    "isfinite": np.isfinite,
    "max": np.maximum,
    "min": np.minimum,
    "where": np.where,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "sum": lambda x, axes, count: count * x,
    "mean": lambda x, axes: x,
    **dict.fromkeys(("all", "some", "largest", "smallest"), lambda x, axes=None: x),
    "total": operator.add,
    "every": np.logical_and,
    "any": np.logical_or,
}


_LOGICAL = {"where", "and", "or", "not", "every", "any", "all", "some"}


def is_opaque(expression: Expression) -> bool:
    """Whether an expression has a part without a numeric meaning, such as a loop."""
    return not all(map(is_known, within([expression])))


def is_known(node: Expression) -> bool:
    """Whether an operation has a numeric meaning."""
    return node.op in _VALUES or node.op in ("number", "symbol")


class Evaluator:
    """Computes some expressions, each part of them once, for one set of values after another.

    All elements of a leaf are taken to be equal, so that a sum over a leaf is a multiple.
    """

    def __init__(self, roots: Iterable[Expression]) -> None:
        self.roots = list(roots)
        self.nodes = within(self.roots)

    def __call__(self, values: Mapping[str, Any]) -> list[Any]:
        """The values of the expressions; what has no numeric meaning is NaN."""
        found: dict[Expression, Any] = {}
        with np.errstate(all="ignore"):
            for node in self.nodes:
                found[node] = self._value(node, values, found)
        return [found[root] for root in self.roots]

    def _value(self, node: Expression, values: Mapping[str, Any], found: Mapping[Expression, Any]) -> Any:
        if node.op == "number":
            kept = isinstance(node.value, bool | complex)
            return np.asarray(node.value)[()] if kept else np.float64(node.value)
        if node.op == "symbol":
            name = node.args[0]
            if name not in values:
                raise KeyError(f"There is no value for {name!r}, only for {', '.join(sorted(values))}.")
            value = np.asarray(values[name])[()]
            return value if value.dtype.kind in "bc" else np.asarray(value, np.float64)[()]
        args = [found[a] if isinstance(a, Expression) else a for a in node.args]
        if node.op not in _LOGICAL:
            args = [
                a + 0.0 if isinstance(a, np.bool_ | np.ndarray) and a.dtype.kind == "b" else a for a in args
            ]
        return self.compute(node, args)

    def compute(self, node: Expression, args: list[Any]) -> Any:
        """The value of an operation on values."""
        return _VALUES[node.op](*args) if node.op in _VALUES else np.float64(np.nan)


class OfElements(Evaluator):
    """The same for a leaf of a few elements, each with a value of its own.

    What has no numeric meaning gets a value that depends on what it is computed from and by what: enough to
    tell two of them apart.
    """

    def compute(self, node: Expression, args: list[Any]) -> Any:
        if node.op in _OVER_ELEMENTS:
            return _OVER_ELEMENTS[node.op](*args)
        return _VALUES[node.op](*args) if node.op in _VALUES else _mixed(node, args)


def _mean(x: Any, axes: tuple[int, ...] | None) -> Any:
    """A mean. One over some axes gets weights that depend on the axes, so that two such means differ."""
    weights = _weights(x, axes)
    return np.sum(x * weights) / np.sum(weights)


def _weights(x: Any, axes: tuple[int, ...] | None) -> Any:
    size = np.size(x)
    return np.roll(np.arange(1.0, size + 1), sum(axes)) if axes else np.ones(size)


_OVER_ELEMENTS: dict[str, Callable[..., Any]] = {
    "sum": lambda x, axes, count: count * _mean(x, axes),
    "mean": _mean,
    "all": lambda x, axes=None: np.all(x),
    "some": lambda x, axes=None: np.any(x),
    "largest": lambda x, axes=None: np.max(x * _weights(x, axes)),
    "smallest": lambda x, axes=None: np.min(x * _weights(x, axes)),
}


def _mixed(node: Expression, args: list[Any]) -> Any:
    named = (node.op, *(a for a in node.args if not isinstance(a, Expression)))
    phase = float(zlib.crc32(repr(named).encode()) % 10_007)
    numbers = [a for a in args if not isinstance(a, str | tuple)]
    return np.sin(phase + sum((i + 1.5) * np.real(a) for i, a in enumerate(numbers)))
