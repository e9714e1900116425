"""What is done to each matrix of a stack.

On a CPU, whose cores share the work of one product, a loop takes one matrix after another, in the place of
the stack; elsewhere a product is of the whole stack.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.engine.kernels import Values
from gradtx.core.numerics import anywhere

OfMatrices = Callable[[Values, Any], Values]
"""What is made of some matrices, by name, from what there is of them and the numbers of the step."""

SLOT = "slot "
"""Before the name of a slot, among what there is of the matrices."""

DUE = "due"
"""The name of which are due, among it."""

AT_ONCE = 2**16
"""How many elements a CPU's loop takes at once: those of many small matrices, or of one large one."""

EACH, RENEWED, ONE, INDICES = "each_matrix", "renewed_matrices", "one_matrix", "indices_of_matrices"
"""The names of the compiled functions by which a formula finds what is done to one matrix."""


def each(of_some: OfMatrices, given: Values, values: Any) -> Values:
    """What is made of a stack, under some names: at once, or of one part of the stack after another."""
    if given["x"].shape[0] <= 1:
        return of_some(given, values)
    one, own, others = _apart(of_some, given, values)
    count, size = given["x"].shape[0], math.prod(given["x"].shape[1:])
    few = max(k for k in range(1, count + 1) if count % k == 0 and (k == 1 or k * size <= AT_ONCE))

    def of_all(own: Values, others: Values, values: Any) -> Values:
        def in_turn(own: Values, others: Values, values: Any) -> Values:
            def step(i: jax.Array, own: Values) -> Values:
                return _at(one, jnp.asarray(i, jnp.uint32) * few, few, own, others, values)

            return jax.lax.fori_loop(0, count // few, step, own)

        return jax.lax.platform_dependent(own, others, values, cpu=in_turn, default=one)

    return jax.jit(_named(of_all, f"{EACH}_{len(given)}"))(own, others, values)


def at_once(of_some: OfMatrices, given: Values, values: Any) -> Values:
    """What is made of a stack at once, since it is little."""
    if given["x"].shape[0] <= 1:
        return of_some(given, values)
    one = jax.jit(_named(of_some, ONE))
    return jax.jit(_named(lambda *args: one(*args), f"{EACH}_{len(given)}"))(given, values)


def renewed(of_some: OfMatrices, due: jax.Array, given: Values, values: Any, *, in_turn: bool) -> Values:
    """What there is of the matrices under some names, made anew for those that are due.

    What is not due costs nothing: it is not even copied.

    Args:
        of_some: what is made of them, and under which names.
        due: which are.
        given: what there is of the matrices.
        values: the numbers of the step.
        in_turn: whether few are due at a time, so that each is made for itself; on a CPU each always is.
    """
    one, own, others = _apart(of_some, given, values)

    def where_due(own: Values, others: Values, values: Any) -> Values:
        others = {**others}
        which, made = others.pop(DUE), one(own, others, values)
        return {k: jnp.where(which.reshape(-1, *[1] * (x.ndim - 1)), made[k], x) for k, x in own.items()}

    def all_at_once(due: jax.Array, own: Values, others: Values, values: Any) -> Values:
        others = {**others, DUE: due}
        return jax.lax.cond(anywhere(jnp.any(due)), where_due, lambda own, *_: own, own, others, values)

    @jax.custom_jvp
    def each_in_turn(due: jax.Array, own: Values, others: Values, values: Any) -> Values:
        others = {**others, DUE: due}

        def step(carry: Any) -> Any:
            left, own = carry
            i = jnp.argmax(left).astype(jnp.uint32)
            return left.at[i].set(False), _at(where_due, i, 1, own, others, values)

        return jax.lax.while_loop(lambda carry: jnp.any(carry[0]), step, (anywhere(due), own))[1]

    def all_in_turn(due: jax.Array, own: Values, others: Values, values: Any) -> Values:
        """The same with a known number of steps, of which each may be empty."""
        others = {**others, DUE: due}

        def step(i: jax.Array, own: Values) -> Values:
            def at_i(own: Values) -> Values:
                return _at(where_due, jnp.asarray(i, jnp.uint32), 1, own, others, values)

            return jax.lax.cond(anywhere(due[i]), at_i, lambda own: own, own)

        return jax.lax.fori_loop(0, len(due), step, own)

    # A loop has derivatives in both directions only if the number of its steps is known.
    each_in_turn.defjvp(lambda primals, tangents: jax.jvp(all_in_turn, primals, tangents))

    def of_those_due(due: jax.Array, own: Values, others: Values, values: Any) -> Values:
        if len(due) == 1:
            return all_at_once(due, own, others, values)
        default = each_in_turn if in_turn else all_at_once
        return jax.lax.platform_dependent(due, own, others, values, cpu=each_in_turn, default=default)

    return jax.jit(_named(of_those_due, f"{RENEWED}_{len(given)}"))(due, own, others, values)


def _apart(of_some: OfMatrices, given: Values, values: Any) -> tuple[Callable[..., Values], Values, Values]:
    """A function of what it makes anew, of what else it looks at and of numbers, and the two parts."""
    names = jax.eval_shape(of_some, given, values).keys()

    def one(own: Values, others: Values, values: Any) -> Values:
        # Where nothing is traced, as under `jax.disable_jit`, a branch may give back what it got.
        return {**own, **of_some({**own, **others}, values)}

    own, others = {k: given[k] for k in names}, {k: v for k, v in given.items() if k not in names}
    return jax.jit(_named(one, ONE)), own, others


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    call.__name__ = name
    return call


def _at(
    one: Callable[..., Values], start: jax.Array, few: int, own: Values, others: Values, values: Any
) -> Values:
    """A stack in which a few matrices, from one on, are what is made of them."""

    def cut(parts: tuple[Values, Values]) -> tuple[Values, Values]:
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, few), parts)

    # Cut out in the kernels that use it, it would be read while the stack is written, and so of a copy of
    # all of it. XLA does not look into a conditional; both branches of this one are the same.
    made = one(*jax.lax.cond(start == 0, cut, lambda parts: cut(parts), (own, others)), values)
    return {k: jax.lax.dynamic_update_slice_in_dim(x, made[k], start, 0) for k, x in own.items()}


indices = jax.jit(_named(lambda rows, before: before + rows, INDICES))
"""The numbers of matrices, from their rows in a stack and from how many are in the stacks before it."""
