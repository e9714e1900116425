"""Reads a traced JAX function as expressions.

Functions that are called are read through, conversions vanish, a conditional is a choice. What has no reading
becomes a function of its own name, so that nothing fails.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

from gradtx.inspect.expression import Expression, intern, number, symbol
from gradtx.inspect.runs import LONGEST, Runs, Value, constant, each, pieces, runs
from gradtx.inspect.simplify import make


def interpret(traced: Any, inputs: Sequence[Value]) -> list[Value]:
    """The results of a closed jaxpr on expressions."""
    return _Reader().run(traced, inputs)


_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_INLINED = {
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
}
_PASSED = {
    *("convert_element_type", "copy", "copy_p", "device_put", "stop_gradient", "optimization_barrier"),
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "reduce_precision", "sharding_constraint"),
    *("transpose", "rev", "pvary", "real_if_close"),
}
_NAMES: dict[str, str] = {
    "rem": "mod",
    "is_finite": "isfinite",
    "pow": "pow",
    "ceil": "ceil",
    "round": "round",
}
_ELEMENTWISE = {
    *("add", "sub", "mul", "div", "neg", "max", "min", "abs", "sign", "sqrt", "exp", "expm1", "log", "log1p"),
    *("sin", "cos", "tan", "tanh", "logistic", "erf", "floor", "real", "imag", "conj"),
    *("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", *_NAMES),
}
_FOLDS = {"reduce_and": "and", "reduce_or": "or", "reduce_max": "max", "reduce_min": "min"}
NOISE = "noise of draw "
_OVER_A_LEAF = {"and": "all", "or": "some", "max": "largest", "min": "smallest"}
_RANDOM = {"_normal", "_normal_real", "_normal_complex"}


class _Reader:
    def __init__(self) -> None:
        self.noises: dict[Any, Expression] = {}

    def run(self, traced: Any, inputs: Sequence[Value]) -> list[Value]:
        jaxpr = getattr(traced, "jaxpr", traced)
        known: dict[Any, Value] = dict(
            zip(jaxpr.constvars, map(constant, getattr(traced, "consts", ())), strict=True)
        )
        known.update(zip(jaxpr.invars, inputs, strict=True))

        def read(x: Any) -> Value:
            return constant(x.val) if hasattr(x, "val") else known[x]

        for equation in jaxpr.eqns:
            results = self.equation(equation, [read(x) for x in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [read(x) for x in jaxpr.outvars]

    def equation(self, equation: Any, args: list[Value]) -> list[Value]:
        """The results of one equation."""
        name, params = equation.primitive.name, equation.params
        if name in _INLINED:
            if params.get("name") in _RANDOM:
                return [self.noise(args)]
            inner = next(params[key] for key in _CALLS if key in params)
            return self.run(inner, args)
        if name == "cond":
            return self.branches(params["branches"], args)
        if name == "split" and equation.invars[0].aval.ndim == 1:
            ends = list(itertools.accumulate(params["sizes"]))
            whole = Runs(pieces(args[0], ends[-1]))
            return [runs(whole.cut(end - n, end)) for n, end in zip(params["sizes"], ends, strict=True)]
        read = getattr(self, f"read_{name}", None)
        result = None
        if read is not None:
            result = read(equation, *args)
        elif name in _PASSED:
            return [self.passed(equation, i, x) for i, x in enumerate(args[: len(equation.outvars)])]
        elif name in _ELEMENTWISE:
            result = self.elementwise(equation, _NAMES.get(name) or name, args)
        elif name in _FOLDS:
            result = self.fold(equation, _FOLDS[name], args[0])
        return opaque(equation, args) if result is None else [result]

    def noise(self, args: list[Value]) -> Expression:
        """The symbol of a random number: the same for the same key."""
        key = args[0] if isinstance(args[0], Expression) else tuple(args[0].parts)
        return self.noises.setdefault(key, symbol(f"{NOISE}{len(self.noises)}"))

    def branches(self, branches: Sequence[Any], args: list[Value]) -> list[Value]:
        """A conditional: all of its branches, and a choice of results."""
        index, *operands = args
        assert isinstance(index, Expression)
        results = [self.run(branch, operands) for branch in branches]
        avals = [v.aval for v in getattr(branches[0], "jaxpr", branches[0]).outvars]
        return [
            each(_choice, [index, *cases], [1, *[math.prod(aval.shape)] * len(cases)])
            for aval, *cases in zip(avals, *results, strict=True)
        ]

    def passed(self, equation: Any, i: int, x: Value) -> Value:
        """A value as it is; a conversion to a narrower kind of number is none."""
        before, after = equation.invars[i].aval, equation.outvars[i].aval
        if before.dtype != after.dtype and before.dtype != bool and after.dtype.kind in "iub":
            if after.dtype == bool:
                x = self.elementwise(equation, "ne", [x, number(0)]) or x
            elif before.dtype.kind == "f":
                x = self.elementwise(equation, "trunc", [x]) or x
        if isinstance(x, Runs) and before.size != after.size:
            return intern("call", equation.primitive.name, str(after.shape), *(e for e, _ in x.parts))
        return x

    def elementwise(self, equation: Any, op: str, args: list[Value]) -> Value | None:
        """An operation on each element."""
        if op == "div" and equation.outvars[0].aval.dtype.kind in "iu":
            op = "floordiv"
        if op in ("and", "or", "not") and equation.outvars[0].aval.dtype != bool:
            return None
        sizes = [x.aval.size for x in equation.invars[: len(args)]]
        sizes += [1] * (len(args) - len(sizes))
        return each(lambda *xs: make(op, *xs), args, sizes)

    def fold(self, equation: Any, op: str, x: Value) -> Value | None:
        """A reduction other than a sum."""
        if not isinstance(x, Runs):
            return x if equation.invars[0].aval.size == 1 else intern(_OVER_A_LEAF[op], x)
        if equation.outvars[0].aval.size != 1:
            return None
        parts = [e if n == 1 else intern(_OVER_A_LEAF[op], e) for e, n in x.parts]
        return functools.reduce(functools.partial(make, op), parts)

    def read_reduce_sum(self, equation: Any, x: Value) -> Value | None:
        before, axes = equation.invars[0].aval, tuple(equation.params["axes"])
        if isinstance(x, Expression):
            count = math.prod(before.shape[axis] for axis in axes)
            return make("sum", x, None if len(axes) == before.ndim else axes, count)
        if equation.outvars[0].aval.size != 1:
            return None
        sums = [make("sum", e, None, n) if n > 1 else e for e, n in x.parts]
        return functools.reduce(functools.partial(make, "add"), sums)

    def read_reduce_prod(self, equation: Any, x: Value) -> Value | None:
        if equation.outvars[0].aval.size != 1:
            return None
        powers = [make("pow", e, number(n)) for e, n in pieces(x, equation.invars[0].aval.size)]
        return functools.reduce(functools.partial(make, "mul"), powers)

    def read_select_n(self, equation: Any, which: Value, *cases: Value) -> Value | None:
        sizes = [x.aval.size for x in equation.invars]
        return each(_choice, [which, *cases], sizes)

    def read_square(self, equation: Any, x: Value) -> Value | None:
        return self.elementwise(equation, "mul", [x, x])

    def read_rsqrt(self, equation: Any, x: Value) -> Value | None:
        root = self.elementwise(equation, "sqrt", [x])
        return None if root is None else self.elementwise(equation, "div", [number(1), root])

    def read_integer_pow(self, equation: Any, x: Value) -> Value | None:
        return self.elementwise(equation, "pow", [x, number(equation.params["y"])])

    def read_clamp(self, equation: Any, low: Value, x: Value, high: Value) -> Value | None:
        least = self.elementwise(equation, "max", [x, low])
        return None if least is None else self.elementwise(equation, "min", [least, high])

    def read_concatenate(self, equation: Any, *args: Value) -> Value | None:
        if equation.outvars[0].aval.ndim != 1 and equation.params["dimension"] != 0:
            return None
        sizes = [x.aval.size for x in equation.invars]
        return runs([part for x, n in zip(args, sizes, strict=True) for part in pieces(x, n)])

    def read_stack(self, equation: Any, *args: Value) -> Value | None:
        if equation.params["axis"] != 0:
            return None
        sizes = [x.aval.size for x in equation.invars]
        return runs([part for x, n in zip(args, sizes, strict=True) for part in pieces(x, n)])

    def read_slice(self, equation: Any, x: Value) -> Value | None:
        if isinstance(x, Expression):
            return x
        params, aval = equation.params, equation.invars[0].aval
        if aval.ndim != 1:
            return None
        parts = x.cut(params["start_indices"][0], params["limit_indices"][0])
        step = (params["strides"] or (1,))[0]
        if step != 1:
            every = [e for e, n in parts for _ in range(n)][::step]
            return runs([(e, 1) for e in every])
        return runs(parts)

    def read_dynamic_slice(self, equation: Any, x: Value, *starts: Value) -> Value | None:
        return x if isinstance(x, Expression) else None

    def read_argmax(self, equation: Any, x: Value) -> Value | None:
        truths = equation.invars[0].aval.dtype == bool
        if not isinstance(x, Runs) or not truths or equation.invars[0].aval.size > LONGEST:
            return None
        result = number(0)
        for i, e in reversed(list(enumerate(e for e, n in x.parts for _ in range(n)))):
            result = make("where", e, number(i), result)
        return result

    def read_iota(self, equation: Any, *args: Value) -> Value | None:
        size = equation.outvars[0].aval.size
        return runs([(number(i), 1) for i in range(size)]) if size <= LONGEST else None


def _choice(index: Expression, *cases: Expression) -> Expression:
    if len(cases) == 2:
        return make("where", index, cases[1], cases[0])
    *others, result = cases
    for i in reversed(range(len(others))):
        result = make("where", make("le", index, number(i)), others[i], result)
    return result


def opaque(equation: Any, args: list[Value]) -> list[Value]:
    """What has no reading: a function with the name of the primitive, one for each of its results."""
    flat = [e for x in args for e, _ in pieces(x, 1)]
    detail = str({k: v for k, v in equation.params.items() if isinstance(v, int | str | tuple)})
    name = equation.params.get("name") or equation.primitive.name
    return [intern("call", str(name), f"{i} {detail}", *flat) for i in range(len(equation.outvars))]
