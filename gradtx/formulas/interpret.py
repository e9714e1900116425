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

from gradtx.formulas.expression import TRUE, Expression, intern, number, within
from gradtx.formulas.runs import CONSTANT, LONGEST, Runs, Value, constant, each, pieces, runs
from gradtx.formulas.simplify import make


def interpret(traced: Any, inputs: Sequence[Value]) -> list[Value]:
    """The results of a closed jaxpr on expressions."""
    return _Reader(traced, inputs).run(traced, inputs)


_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_INLINED = {
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
}
_PASSED = {
    *("convert_element_type", "copy", "copy_p", "device_put", "stop_gradient", "optimization_barrier"),
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "reduce_precision", "sharding_constraint"),
    *("transpose", "rev", "pvary", "dynamic_slice"),
}
_MOVES = {"transpose", "rev", "slice", "dynamic_slice"}
"""What may give an element another position, so that `x - rev(x)` is not zero."""
_NAMES = {"rem": "mod", "is_finite": "isfinite"}
_ELEMENTWISE = {
    *("add", "sub", "mul", "div", "neg", "max", "min", "abs", "sign", "sqrt", "exp", "expm1", "log", "log1p"),
    *("sin", "cos", "tan", "tanh", "logistic", "erf", "floor", "ceil", "round", "real", "imag", "conj"),
    *("pow", "lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", *_NAMES),
}
_FOLDS = {"reduce_and": "and", "reduce_or": "or", "reduce_max": "max", "reduce_min": "min"}
_OVER_A_LEAF = {"and": "all", "or": "some", "max": "largest", "min": "smallest"}
_OVER_ALL = set(_OVER_A_LEAF.values())
_RANDOM = {"_normal", "_normal_real", "_normal_complex"}


class _Reader:
    """Reads equations.

    Attributes:
        varying: for each expression that was asked about, whether it differs from element to element.
        widest: the size of the largest array that came in.
    """

    def __init__(self, traced: Any, inputs: Sequence[Value]) -> None:
        sizes = [x.aval.size for x in traced.jaxpr.invars]
        whole = [part for x, size in zip(inputs, sizes, strict=True) for part in pieces(x, size)]
        self.varying = {x: n > 1 for x, n in whole if x.op == "symbol"}
        self.widest = max(sizes, default=1)

    def varies(self, x: Expression) -> bool:
        """Whether an expression differs from element to element of its array."""
        for node in within([x]):
            if node not in self.varying:
                over_a_leaf = node.op in _OVER_ALL or (node.op in ("sum", "mean") and node.args[1] is None)
                drawn = node.op == "noise" or (node.op == "symbol" and node.args[0].startswith(CONSTANT))
                inside = any(self.varying[part] for part in node.parts)
                self.varying[node] = drawn or node.op == "call" or (inside and not over_a_leaf)
        return self.varying[x]

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
            if params.get("name") == "usually":
                return [TRUE]
            if params.get("name") in _RANDOM:
                return [intern("noise", *(part for part, _ in pieces(args[0], 1)))]
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
            result = self.elementwise(equation, _NAMES.get(name, name), args)
        elif name in _FOLDS:
            result = self.fold(equation, _FOLDS[name], args[0])
        return opaque(equation, args) if result is None else [result]

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
        """A value as it is, unless the numbers become of a narrower kind or change their positions."""
        before, after = equation.invars[i].aval, equation.outvars[i].aval
        if before.dtype != after.dtype and before.dtype != bool and after.dtype.kind in "iub":
            if after.dtype == bool:
                x = self.elementwise(equation, "ne", [x, number(0)]) or x
            elif before.dtype.kind == "f":
                x = self.elementwise(equation, "trunc", [x]) or x
        name = equation.primitive.name
        moves = name in _MOVES and (before.size != after.size or name in ("transpose", "rev"))
        if isinstance(x, Runs):
            kept = before.size == after.size and not moves
        else:
            kept = not (moves or after.size > self.widest) or before.size == 1 or not self.varies(x)
        return x if kept else opaque(equation, [x])[0]

    def elementwise(self, equation: Any, op: str, args: list[Value]) -> Value | None:
        """An operation on each element."""
        if op == "div" and equation.outvars[0].aval.dtype.kind in "iu":
            op = "truncdiv"
        if op in ("and", "or", "not") and equation.outvars[0].aval.dtype != bool:
            return None
        sizes = [x.aval.size for x in equation.invars[: len(args)]]
        sizes += [1] * (len(args) - len(sizes))
        return each(lambda *xs: make(op, *xs), args, sizes)

    def fold(self, equation: Any, op: str, x: Value) -> Value | None:
        """A reduction other than a sum."""
        if equation.outvars[0].aval.size != 1:
            return None
        if not isinstance(x, Runs):
            return x if equation.invars[0].aval.size == 1 else intern(_OVER_A_LEAF[op], x)
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
        if equation.params.get("dimension", equation.params.get("axis")) != 0:
            return None
        sizes = [x.aval.size for x in equation.invars]
        return runs([part for x, n in zip(args, sizes, strict=True) for part in pieces(x, n)])

    read_stack = read_concatenate

    def read_slice(self, equation: Any, x: Value) -> Value:
        params = equation.params
        if isinstance(x, Expression) or equation.invars[0].aval.ndim != 1:
            return self.passed(equation, 0, x)
        parts = x.cut(params["start_indices"][0], params["limit_indices"][0])
        step = (params["strides"] or (1,))[0]
        if any(self.varies(e) for e, n in parts if n > 1 and (e, n) not in x.parts):
            return opaque(equation, [x])[0]
        return runs(parts if step == 1 else [(e, 1) for e, n in parts for _ in range(n)][::step])

    def read_argmax(self, equation: Any, x: Value) -> Value | None:
        truths = equation.invars[0].aval.dtype == bool
        if not isinstance(x, Runs) or not truths or equation.invars[0].aval.size > LONGEST:
            return None
        result = number(0)
        for i, e in reversed(list(enumerate(e for e, n in x.parts for _ in range(n)))):
            result = make("where", e, number(i), result)
        return result

    def read_iota(self, equation: Any, *args: Value) -> Value | None:
        shape = equation.outvars[0].aval.shape
        counts = len(shape) == 1 and shape[0] <= LONGEST
        return runs([(number(i), 1) for i in range(shape[0])]) if counts else None


def _choice(index: Expression, *cases: Expression) -> Expression:
    if len(cases) == 2:
        return make("where", index, cases[1], cases[0])
    *others, result = cases
    for i in reversed(range(len(others))):
        result = make("where", make("le", index, number(i)), others[i], result)
    return result


def opaque(equation: Any, args: list[Value]) -> list[Value]:
    """What has no reading: a function with the name of the primitive, one for each of its results.

    What it runs, such as the body of a loop, tells it from others of its name.
    """
    flat = [e for x in args for e, _ in pieces(x, 1)]
    kept = {
        k: v for k, v in equation.params.items() if isinstance(v, int | str | tuple) or hasattr(v, "jaxpr")
    }
    detail = str(kept)
    name = equation.params.get("name") or equation.primitive.name
    if name == "slice":
        ends = zip(equation.params["start_indices"], equation.params["limit_indices"], strict=True)
        name = f"slice[{', '.join(f'{start}:{stop}' for start, stop in ends)}]"
    if name == "iota":
        name = f"position[axis={equation.params['dimension']}]"
    return [intern("call", str(name), f"{i} {detail}", *flat) for i in range(len(equation.outvars))]
