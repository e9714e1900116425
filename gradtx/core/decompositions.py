"""Decompositions of matrices along the last two axes, of which a CPU takes one at a time.

JAX spreads the decompositions of one call over the threads of a CPU, and has one of these threads wait for
the others. Several such calls at a time, of stacks or in a sweep, may then wait for each other, and the
program never ends. A call for one matrix waits for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

Function = Callable[..., Any]


def eigh(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The eigenvalues of Hermitian matrices, in ascending order, and the eigenvectors."""
    return _one_by_one(lambda x: tuple(jnp.linalg.eigh(x)))(x)


def svd(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """U, the singular values and V*, as many as the shorter side has elements."""
    return _one_by_one(lambda x: tuple(jnp.linalg.svd(x, full_matrices=False)))(x)


def orthonormal(x: jax.Array) -> jax.Array:
    """The orthogonal factor of matrices that are at least as high as wide."""
    return _one_by_one(lambda x: jnp.linalg.qr(x)[0])(x)


def triangular_quotient(q: jax.Array, x: jax.Array, side: int) -> jax.Array:
    """q^-T x for upper triangular matrices q, or with a side of 1 x q^-1."""
    options: Any = {"left_side": True, "transpose_a": True} if side == 0 else {"left_side": False}
    return _one_by_one(lambda q, x: jax.lax.linalg.triangular_solve(q, x, lower=False, **options))(q, x)


def _one_by_one(function: Function) -> Function:
    """A function of matrices, along any axes before them, that makes each for itself on a CPU.

    Its derivatives are those of all at once.
    """

    def of_each(*xs: jax.Array) -> Any:
        """Of arrays of shape (number, rows, columns)."""
        if xs[0].shape[0] <= 1:
            return function(*xs)

        def in_turn(*xs: jax.Array) -> Any:
            # One matrix is still a batch of one, for which there is no other way.
            one = jax.lax.map(lambda xs: function(*(x[None] for x in xs)), xs)
            return jax.tree.map(lambda x: x[:, 0], one)

        return jax.lax.platform_dependent(*xs, cpu=in_turn, default=function)

    together = custom_vmap(of_each)

    @together.def_vmap
    def in_a_sweep(size: int, batched: Any, *xs: jax.Array) -> Any:
        every = [
            x if is_one else jnp.broadcast_to(x, (size, *x.shape))
            for x, is_one in zip(xs, batched, strict=True)
        ]
        made = together(*(x.reshape(-1, *x.shape[2:]) for x in every))
        made = jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:]), made)
        return made, jax.tree.map(lambda _: True, made)

    alone = jax.custom_jvp(lambda *xs: together(*xs))
    alone.defjvp(lambda primals, tangents: jax.jvp(function, primals, tangents))

    def of_any(*xs: jax.Array) -> Any:
        if not math.prod(xs[0].shape):
            return function(*xs)
        before = xs[0].shape[:-2]
        made = alone(*(x.reshape(-1, *x.shape[-2:]) for x in xs))
        return jax.tree.map(lambda x: x.reshape(*before, *x.shape[1:]), made)

    return of_any
