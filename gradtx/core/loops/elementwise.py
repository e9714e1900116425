"""What a traced function does to each element: read from its jaxpr, or the reason why it is no such function.

What it says has no shapes: the same for all leaves that the same is done to, whatever their size. Arrays of
the leaf's shape are one element in it; numbers are the same for all elements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

Shape = tuple[int, ...]


class NotElementwise(Exception):
    """Why a function is none of each element by itself, or none that loops can be made of."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A number that an operation takes or gives.

    Attributes:
        name: what it is called; of a constant, empty.
        dtype: the name of its dtype.
        each: whether each element has its own.
        constant: its value if it is the same in all calls.
    """

    name: str
    dtype: str
    each: bool = False
    constant: Any = None


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation, which makes one number."""

    primitive: str
    takes: tuple[Value, ...]
    gives: Value
    said: tuple[tuple[str, Any], ...] = ()
    """What else is said of it, such as an exponent."""


SAME = frozenset({"copy", "copy_p", "optimization_barrier", "pvary", "pcast", "stop_gradient"})
"""Operations that give what they take."""

CALLS = frozenset({
    "checkpoint", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vmap_call",
    "jit", "pjit", "remat",
})  # fmt: skip
"""Operations that are others."""

SAID = {"integer_pow": ("y",), "round": ("rounding_method",)}
"""What of the parameters of an operation says what it does."""

OPERATIONS = frozenset({
    "abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "bitcast_convert_type", "cbrt", "ceil", "clamp", "convert_element_type", "cos", "cosh", "div", "eq",
    "erf", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log",
    "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "pow", "round", "rsqrt",
    "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh",
    "sqrt", "square", "sub", "tan", "tanh", "xor",
})  # fmt: skip
"""The operations on each element by itself that are known."""

FLOATS = frozenset({"float32", "float64", "bfloat16", "float16"})
DTYPES = FLOATS | {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
"""The dtypes that loops are made for."""


def operations(
    closed: core.ClosedJaxpr, given: Sequence[Value], shape: Shape, prefix: str = "x"
) -> tuple[tuple[Operation, ...], list[Value]]:
    """What a traced function does to an element of arrays of a shape, and what it gives.

    Args:
        closed: the function as it was traced.
        given: what its arguments are.
        shape: that of the arrays.
        prefix: with what the names of what it makes begin.

    Raises:
        NotElementwise: it does more, or something that no loops are made of.
    """
    reader = _Reader(shape, prefix)
    results = reader.run(closed.jaxpr, closed.consts, list(given))
    return tuple(reader.done), results


class _Reader:
    """Collects the operations of a jaxpr and of those that it calls."""

    def __init__(self, shape: Shape, prefix: str) -> None:
        self.shape, self.prefix, self.done = shape, prefix, list[Operation]()

    def run(self, jaxpr: Any, consts: Sequence[Any], given: list[Value]) -> list[Value]:
        known: dict[Any, Value] = {}
        for v, x in zip(jaxpr.constvars, consts, strict=True):
            if np.ndim(x):
                raise NotElementwise("it has an array of its own")
            known[v] = constant(x, v.aval.dtype)
        known.update(zip(jaxpr.invars, given, strict=True))

        def read(atom: Any) -> Value:
            if isinstance(atom, core.Literal):
                if np.ndim(atom.val):
                    raise NotElementwise("it has an array of its own")
                return constant(atom.val, atom.aval.dtype)  # type: ignore[attr-defined]
            return known[atom]

        for eqn in jaxpr.eqns:
            results = self._equation(eqn, [read(x) for x in eqn.invars])
            known.update(zip(eqn.outvars, results, strict=True))
        return [read(x) for x in jaxpr.outvars]

    def _equation(self, eqn: Any, takes: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr") or eqn.params.get("call")
        if inner is not None and name in CALLS:
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), takes)
        if name in SAME:
            return takes
        if len(eqn.outvars) != 1:
            raise NotElementwise(f"{name} is not done element by element")
        of = eqn.outvars[0].aval
        dtype = str(of.dtype)
        for x in (of, *(x.aval for x in eqn.invars)):
            if x.shape not in ((), self.shape):
                raise NotElementwise(f"{name} makes something of another shape")
            if str(x.dtype) not in DTYPES:
                raise NotElementwise(f"{x.dtype} is no dtype for loops")
        if name in ("broadcast_in_dim", "reshape"):
            return self._broadcast(eqn, takes[0], of.shape)
        if name not in OPERATIONS:
            raise NotElementwise(f"{name} is not done element by element")
        if name in ("div", "pow", "integer_pow") and dtype not in FLOATS:
            raise NotElementwise(f"{name} of integers")
        if name == "select_n" and takes[0].dtype != "bool":
            raise NotElementwise("select_n by an integer")
        if name == "bitcast_convert_type" and np.dtype(takes[0].dtype).itemsize != of.dtype.itemsize:
            raise NotElementwise("bitcast_convert_type to another width")
        said = tuple((key, int(eqn.params[key])) for key in SAID.get(name, ()))
        made = Value(f"{self.prefix}{len(self.done)}", dtype, any(x.each for x in takes))
        self.done.append(Operation(name, tuple(takes), made, said))
        return [made]

    def _broadcast(self, eqn: Any, x: Value, shape: Shape) -> list[Value]:
        """A number for all elements, or each where it is."""
        before = eqn.invars[0].aval.shape
        along = eqn.params.get("broadcast_dimensions", tuple(range(len(shape))))
        if before != () and (before != shape or along != tuple(range(len(shape)))):
            raise NotElementwise(f"{eqn.primitive.name} moves elements")
        if eqn.params.get("dimensions") is not None:
            raise NotElementwise("reshape moves elements")
        return [x]


def constant(x: Any, dtype: Any) -> Value:
    """A number that is the same in all calls."""
    if str(dtype) not in DTYPES:
        raise NotElementwise(f"{dtype} is no dtype for loops")
    return Value("", str(dtype), constant=np.asarray(x, dtype).item())
