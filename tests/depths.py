"""How deep the sums are that a step makes over elements of arrays, read from what it is traced to.

Where an array is in shards its elements are summed in another order, and all else stays as it was: so the
depth tells which of the results are the same bit for bit, and how far the others may be apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

ELSEWHERE = -math.inf
"""The depth of what was made of no array, as a learning rate is."""

SUMS = ("reduce_sum", "reduce_prod", "reduce_window_sum", "cumsum", "cumprod", "cumlogsumexp", "scatter-add")
DECOMPOSITIONS = ("eigh", "svd", "geqrf", "qr", "householder_product", "cholesky", "triangular_solve", "lu")
CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")

TURNS = 4
"""How many turns of a loop are counted of which it is not known how many it takes."""


def depths(traced: Any, *args: Any) -> list[float]:
    """The depth of each result of a traced function: 0 for what each element makes of those in its place.

    A sum of n numbers is log2(n) additions deep, sums of sums are as deep as both, and a decomposition of a
    matrix is as deep as that has rows or columns. The maximum of some numbers is the same in any order.

    Args:
        traced: what `jax.make_jaxpr` gives.
        args: the arguments of the function; single numbers among them count as made elsewhere.
    """
    given = [0.0 if np.ndim(x) else ELSEWHERE for x in jax.tree.leaves(args)]
    return [max(depth, 0.0) for depth in _run(traced, given)]


def divides_by_numbers(traced: Any) -> bool:
    """Whether all elements of an array are divided by one number.

    XLA may multiply them by its reciprocal, and does if nothing else needs the number as an array: what else
    there is in a program decides.
    """
    jaxpr = getattr(traced, "jaxpr", traced)
    numbers: set[Any] = set()
    for equation in jaxpr.eqns:
        name, given = equation.primitive.name, equation.invars
        if name == "broadcast_in_dim" and not given[0].aval.shape:
            numbers.update(equation.outvars)
        if name == "div" and equation.outvars[0].aval.shape:
            by = given[1]
            if not hasattr(by, "val") and (by in numbers or not by.aval.shape):
                return True
        if any(map(divides_by_numbers, _inner(equation.params))):
            return True
    return False


def _inner(params: Any) -> list[Any]:
    """The traced functions that an operation calls."""
    values = jax.tree.leaves(params, is_leaf=lambda x: hasattr(x, "eqns"))
    return [x for x in values if hasattr(getattr(x, "jaxpr", x), "eqns")]


def _run(traced: Any, args: Sequence[float]) -> list[float]:
    """The depths of the results of a jaxpr, open or closed."""
    jaxpr = getattr(traced, "jaxpr", traced)
    known = dict(zip(jaxpr.invars, args, strict=True))

    def read(variables: Sequence[Any]) -> list[float]:
        return [ELSEWHERE if hasattr(v, "val") else known.get(v, ELSEWHERE) for v in variables]

    for equation in jaxpr.eqns:
        known |= dict(zip(equation.outvars, _made(equation, read(equation.invars)), strict=True))
    return read(jaxpr.outvars)


def _made(equation: Any, args: list[float]) -> list[float]:
    """The depths of the results of one operation."""
    name, params = equation.primitive.name, equation.params
    if name == "optimization_barrier":
        return args
    if name == "cond":
        which, *given = args
        results = [_run(branch, given) for branch in params["branches"]]
        return [max(which, *of_each) for of_each in zip(*results, strict=True)]
    if name == "while":
        ends, turns = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        carry = _looped(lambda x: _run(params["body_jaxpr"], [*args[ends:turns], *x]), args[turns:], TURNS)
        (goes_on,) = _run(params["cond_jaxpr"], [*args[:ends], *carry])
        return [max(goes_on, x) for x in carry]
    if name == "scan":
        first, n = params["num_consts"], params["num_carry"]

        def turn(carry: list[float]) -> list[float]:
            return _run(params["jaxpr"], [*args[:first], *carry, *args[first + n :]])

        carry = _looped(lambda x: turn(x)[:n], args[first : first + n], params["length"])
        return [*carry, *turn(carry)[n:]]
    called = next((params[key] for key in CALLED if key in params), None)
    if called is not None and hasattr(getattr(called, "jaxpr", called), "eqns"):
        return _run(called, args)
    return [max(args, default=ELSEWHERE) + _own_depth(name, equation)] * len(equation.outvars)


def _looped(turn: Callable[[list[float]], list[float]], carry: list[float], turns: int) -> list[float]:
    """What a loop carries after some turns."""
    for _ in range(turns):
        after = [max(both) for both in zip(carry, turn(carry), strict=True)]
        if after == carry:
            break
        carry = after
    return carry


def _own_depth(name: str, equation: Any) -> float:
    """How deep the sum is that one operation makes."""
    shape = equation.invars[0].aval.shape if equation.invars else ()
    if name == "dot_general":
        ((along, _), _) = equation.params["dimension_numbers"]
        return math.log2(max(math.prod(shape[i] for i in along), 1))
    if name in SUMS:
        made = math.prod(equation.outvars[0].aval.shape) if name.startswith("reduce_") else 1
        return math.log2(max(math.prod(shape) / max(made, 1), 1))
    return max(shape[-2:]) if name in DECOMPOSITIONS else 0.0
