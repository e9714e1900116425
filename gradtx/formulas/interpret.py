"""Reads a traced JAX function as expressions.

Calls are replaced by what the called function does, conversions are left out, and a conditional becomes a
choice. An operation that this module does not know becomes a function of its name, so that nothing fails.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from gradtx.core.engine.each_matrix import EACH, INDICES, ONE, RENEWED
from gradtx.core.engine.stacks import INDEX
from gradtx.formulas.expression import TRUE, Expression, fingerprint, intern, number, symbol, within
from gradtx.formulas.runs import CONSTANT, LONGEST, Runs, Value, constant, each, one, pieces, runs
from gradtx.formulas.simplify import make


def interpret(traced: Any, inputs: Sequence[Value]) -> list[Value]:
    """The results of a closed jaxpr on expressions."""
    return _Reader(traced, inputs).run(traced, inputs)


def _sum(whole: Expression, rest: Expression) -> Expression:
    return make("add", whole, rest)


def _compared(op: str, *parts: Expression) -> list[Expression]:
    return [make(op, _sum(*parts[:2]), _sum(*parts[2:]))]


def _quotient(*parts: Expression) -> list[Expression]:
    return [make("floor", make("div", _sum(*parts[:2]), _sum(*parts[2:])))]


_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")
_INLINED = {
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call"),
}
_PASSED = {
    *("convert_element_type", "copy", "copy_p", "device_put", "stop_gradient", "optimization_barrier"),
    *("psum", "psum_invariant", "pmax", "pmin"),  # a leaf in a formula is the whole of its shards
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "reduce_precision", "sharding_constraint"),
    *("rev", "pvary", "dynamic_slice", "shard_alike"),
}
_MOVES = {"rev", "slice", "dynamic_slice"}
"""What may give an element another position, so that `x - rev(x)` is not zero."""
_NAMES = {"rem": "mod", "is_finite": "isfinite"}
_ELEMENTWISE = {
    *("add", "sub", "mul", "div", "neg", "max", "min", "abs", "sign", "sqrt", "exp", "expm1", "log", "log1p"),
    *("sin", "cos", "tan", "tanh", "logistic", "erf", "floor", "ceil", "round", "real", "imag", "conj"),
    *("atan", "cbrt", "pow", "lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", *_NAMES),
}
_FOLDS = {"reduce_and": "and", "reduce_or": "or", "reduce_max": "max", "reduce_min": "min"}
_OVER_A_LEAF = {"and": "all", "or": "some", "max": "largest", "min": "smallest"}
_OVER_ALL = set(_OVER_A_LEAF.values())
_OF_ARRAYS = {"call", "matmul", "transposed"}
"""What gives an element that depends on other elements than those of its own position."""
_RESULTS = {"qr": ("Q", "R"), "svd": ("S", "U", "Vh"), "eigh": ("vectors", "values")}
"""What a decomposition gives, in order."""
_ALONG = {"sort", "argmin", "argmax", *(f"cum{name}" for name in ("sum", "prod", "max", "min", "logsumexp"))}
"""What works along an axis, which is a part of its name."""
_OF_MATRICES = {"_polar": "pol"}
"""Functions of matrices that a formula has a name for."""
_RANDOM = {"_normal", "_normal_real", "_normal_complex"}
_STEPS: dict[str, Callable[..., list[Expression]]] = {
    "whole_and_rest": lambda near, rest: [near, number(0)],
    "from_zero": lambda *parts: [make("max", _sum(*parts), number(0)), number(0)],
    "whole_steps": lambda *parts: [make("floor", _sum(*parts))],
    "ceiling": lambda *parts: [make("ceil", _sum(*parts))],
    "whole_quotient": _quotient,
    **{f"steps_{op}": functools.partial(_compared, op) for op in ("lt", "le", "gt", "ge")},
}
"""What `gradtx.core.numbers.steps` computes: a formula has no use for two parts of one number."""


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
                over_a_leaf = node.op in {*_OVER_ALL, "sum", "mean"} and node.args[1:2] in ((), (None,))
                drawn = node.op == "noise" or (node.op == "symbol" and node.args[0].startswith(CONSTANT))
                inside = any(self.varying[part] for part in node.parts)
                self.varying[node] = drawn or node.op in _OF_ARRAYS or (inside and not over_a_leaf)
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
            if params.get("name") in _STEPS and not any(isinstance(x, Runs) for x in args):
                return list(_STEPS[params["name"]](*args))
            if params.get("name") == "usually":
                return [TRUE]
            if params.get("name") in _OF_MATRICES:
                return self.of_matrices(equation, args)
            if params.get("name") == INDICES:
                return [symbol(INDEX)]
            if str(params.get("name")).startswith(EACH):
                return self.each_matrix(equation, args)
            if str(params.get("name")).startswith(RENEWED):
                return self.renewed_matrices(equation, args)
            if params.get("name") in _RANDOM:
                return [intern("noise", *(part for part, _ in pieces(args[0], 1)))]
            inner = next(params[key] for key in _CALLS if key in params)
            return self.run(inner, args)
        if name == "cond":
            return self.branches(params["branches"], args)
        if name == "split" and params["axis"] == 0:
            sizes = [x.aval.size for x in equation.outvars]
            ends = list(itertools.accumulate(sizes))
            whole = Runs(pieces(args[0], ends[-1]))
            return [runs(whole.cut(end - n, end)) for n, end in zip(sizes, ends, strict=True)]
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

    def of_matrices(self, equation: Any, args: list[Value]) -> list[Value]:
        """A function of matrices that has a name of its own; how it is computed tells two of them apart."""
        jaxpr = next(equation.params[key] for key in _CALLS if key in equation.params)
        detail = fingerprint(str(jaxpr).encode())
        flat = [e for x in args for e, _ in pieces(x, 1)]
        return [intern("call", _OF_MATRICES[equation.params["name"]], detail, *flat)]

    def each_matrix(self, equation: Any, args: list[Value]) -> list[Value]:
        """What is done to each matrix of a stack, of which the first few arguments are made."""
        made = self._of_each(equation, EACH, equation.invars, args)
        widths = [x.aval.size // len(made) for x in equation.outvars]
        return [runs([(one(m[j], 0, n), n) for m in made]) for j, n in enumerate(widths)]

    def renewed_matrices(self, equation: Any, args: list[Value]) -> list[Value]:
        """What is made anew of each matrix of a stack that is due: the first of the other arguments."""
        due, *given = args
        made = self._of_each(equation, RENEWED, equation.invars[1:], given)
        results: list[Value] = []
        for j, x in enumerate(equation.outvars):
            n, old = x.aval.size // len(made), given[j]
            parts = []
            for i, new in enumerate(made):
                cases = one(old, i * n, (i + 1) * n), one(new[j], 0, n)
                parts.append((_choice(one(due, i, i + 1), *cases), n))
            results.append(runs(parts))
        return results

    def _of_each(
        self, equation: Any, name: str, invars: Sequence[Any], args: Sequence[Value]
    ) -> list[list[Value]]:
        """What a function of one matrix makes of each of a stack."""
        own = int(equation.params["name"].removeprefix(f"{name}_"))
        inner = _find(next(equation.params[key] for key in _CALLS if key in equation.params), ONE)
        count = invars[0].aval.shape[0]
        sizes = [x.aval.size // count for x in invars[:own]]
        return [
            self.run(
                inner,
                [*(one(x, i * n, (i + 1) * n) for x, n in zip(args[:own], sizes, strict=True)), *args[own:]],
            )
            for i in range(count)
        ]

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
        """A value as it is, unless it is rounded to whole numbers or its elements change their positions."""
        before, after = equation.invars[i].aval, equation.outvars[i].aval
        if before.dtype != after.dtype and before.dtype != bool and after.dtype.kind in "iub":
            if after.dtype == bool:
                x = self.elementwise(equation, "ne", [x, number(0)]) or x
            elif before.dtype.kind == "f":
                x = self.elementwise(equation, "trunc", [x]) or x
        name = equation.primitive.name
        moves = name in _MOVES and (before.size != after.size or name == "rev")
        if isinstance(x, Runs):
            kept = before.size == after.size and not moves
        else:
            spread = after.size > max(self.widest, before.size)
            kept = not (moves or spread) or before.size == 1 or not self.varies(x)
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
            axes = tuple(equation.params["axes"])
            return intern(_OVER_A_LEAF[op], x, axes) if isinstance(x, Expression) else None
        if not isinstance(x, Runs):
            return x if equation.invars[0].aval.size == 1 else intern(_OVER_A_LEAF[op], x)
        return _together(op, [e if n == 1 else intern(_OVER_A_LEAF[op], e) for e, n in x.parts])

    def read_reduce_sum(self, equation: Any, x: Value) -> Value | None:
        before, axes = equation.invars[0].aval, tuple(equation.params["axes"])
        if isinstance(x, Expression):
            count = math.prod(before.shape[axis] for axis in axes)
            return make("sum", x, None if len(axes) == before.ndim else axes, count)
        if equation.outvars[0].aval.size != 1:
            return None
        return _together("add", [make("sum", e, None, n) if n > 1 else e for e, n in x.parts])

    def read_reduce_prod(self, equation: Any, x: Value) -> Value | None:
        if equation.outvars[0].aval.size != 1:
            return None
        runs_of_x = pieces(x, equation.invars[0].aval.size)
        return _together("mul", [make("pow", e, number(n)) for e, n in runs_of_x])

    def read_select_n(self, equation: Any, which: Value, *cases: Value) -> Value | None:
        sizes = [x.aval.size for x in equation.invars]
        return each(_choice, [which, *cases], sizes)

    def read_transpose(self, equation: Any, x: Value) -> Value | None:
        axes = tuple(equation.params["permutation"])
        if isinstance(x, Runs):
            return x if axes == tuple(range(len(axes))) else None
        if not self.varies(x) or _in_order(axes, equation.invars[0].aval.shape):
            return x
        last = (*range(len(axes) - 2), len(axes) - 1, len(axes) - 2)
        if axes != last:
            return intern("call", f"transpose[{', '.join(map(str, axes))}]", "", x)
        return x.args[0] if x.op == "transposed" else intern("transposed", x)

    def read_dot_general(self, equation: Any, a: Value, b: Value) -> Value | None:
        """A product of matrices or vectors, with batches in front; other sums of products by their axes."""
        contracted, (batch, batch_b) = equation.params["dimension_numbers"]
        if len(contracted[0]) != 1 or isinstance(a, Runs) or isinstance(b, Runs):
            return self.einsum(equation, a, b)
        (left,), (right,) = contracted
        shapes = [x.aval.shape for x in equation.invars]
        for x, other, axis, shape in ((b, a, left, shapes[0]), (a, b, right, shapes[1])):
            # What is the same everywhere sums the other one along an axis.
            if not self.varies(x):
                return make("sum", make("mul", other, x), (axis,), shape[axis])
        front = tuple(range(len(batch)))
        matrices = all(1 <= len(shape) - len(batch) <= 2 for shape in shapes)
        vectors = all(len(shape) - len(batch) == 1 for shape in shapes)
        if vectors or not matrices or tuple(batch) != front or tuple(batch_b) != front:
            return self.einsum(equation, a, b)
        if len(shapes[0]) - len(batch) == 2 and left == len(batch):
            a = _transposed(a)
        if len(shapes[1]) - len(batch) == 2 and right == len(batch) + 1:
            b = _transposed(b)
        return intern("matmul", a, b)

    def einsum(self, equation: Any, a: Value, b: Value) -> Value | None:
        """A sum of products along some axes."""
        (left, right), (batch, batch_b) = equation.params["dimension_numbers"]
        ranks = [x.aval.ndim for x in equation.invars]
        letters = iter("ijklmnopqrstuvwxyz")
        names: list[list[str]] = [[""] * rank for rank in ranks]
        for i, j in [*zip(batch, batch_b, strict=True), *zip(left, right, strict=True)]:
            names[0][i] = names[1][j] = next(letters)
        for own in names:
            own[:] = [name or next(letters) for name in own]
        if names[0] == names[1] and not isinstance(a, Runs) and not isinstance(b, Runs):
            axes, shape = tuple(sorted(left)), equation.invars[0].aval.shape
            count = math.prod(shape[axis] for axis in axes)
            return make("sum", make("mul", a, b), axes if batch else None, count)
        free = [
            n
            for own, used in zip(names, ((*batch, *left), (*batch_b, *right)), strict=True)
            for i, n in enumerate(own)
            if i not in used
        ]
        out = "".join([*(names[0][i] for i in batch), *free])
        name = f"einsum[{','.join(map(''.join, names))}->{out}]"
        return intern("call", name, "", *(e for x in (a, b) for e, _ in pieces(x, 1)))

    def read_custom_linear_solve(self, equation: Any, *args: Value) -> Value | None:
        """A linear system, by its matrix if it is given as one, and its right-hand side."""
        used = equation.params["const_lengths"]
        matrix, right = args[: used.matvec], args[sum(used) :]
        if len(matrix) != 1 or len(right) != 1:
            return None
        return intern("call", "solve", "", *(e for x in (*matrix, *right) for e, _ in pieces(x, 1)))

    def read_pad(self, equation: Any, x: Value, *filled: Value) -> Value | None:
        return None if any(any(width) for width in equation.params["padding_config"]) else x

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


def _find(jaxpr: Any, name: str) -> Any:
    """The function of a name that is called somewhere in another one."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        parts = [x for v in equation.params.values() for x in (v if isinstance(v, tuple) else (v,))]
        inside = [x for x in parts if hasattr(getattr(x, "jaxpr", x), "eqns")]
        if equation.params.get("name") == name:
            return inside[0]
        for part in inside:
            found = _find(part, name)
            if found is not None:
                return found
    return None


_OF_NONE = {"add": 0, "mul": 1, "and": True, "or": False, "max": -math.inf, "min": math.inf}


def _together(op: str, parts: list[Expression]) -> Expression:
    """The parts of an array as one; an array without elements has none."""
    if not parts:
        return number(_OF_NONE[op])
    return functools.reduce(functools.partial(make, op), parts)


def _transposed(x: Expression) -> Expression:
    return x.args[0] if x.op == "transposed" else intern("transposed", x)


def _in_order(axes: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a permutation of axes only moves those of length 1."""
    long = [axis for axis in axes if shape[axis] != 1]
    return long == sorted(long)


def _choice(index: Expression, *cases: Expression) -> Expression:
    if len(cases) == 2:
        return make("where", index, cases[1], cases[0])
    *others, result = cases
    for i in reversed(range(len(others))):
        result = make("where", make("le", index, number(i)), others[i], result)
    return result


def opaque(equation: Any, args: list[Value]) -> list[Value]:
    """An operation that this module does not know, as a function of its name, one for each of its results.

    The function remembers what it runs, such as the body of a loop, so that two loops are not the same.
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
    if name in _FOLDS:
        name = f"{_OVER_A_LEAF[_FOLDS[name]]}[axis={', '.join(map(str, equation.params['axes']))}]"
    if name in _ALONG:
        axes = equation.params.get("axis", equation.params.get("dimension", equation.params.get("axes")))
        name = f"{name}[axis={', '.join(map(str, axes)) if isinstance(axes, tuple) else axes}]"
    results = _RESULTS.get(name, ())
    names = [f"{name}.{result}" for result in results] if len(equation.outvars) == len(results) else []
    return [
        intern("call", names[i] if names else str(name), f"{i} {detail}", *flat)
        for i in range(len(equation.outvars))
    ]
