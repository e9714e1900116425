"""Roots of positive semidefinite matrices, and bounds of their norms."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.numerics import abs_sq, real_dtype, sqrt
from gradtx.core.polar import conjugate, identity_like

RootMethod = Literal["eigen", "newton"]


def inverse_root(
    x: jax.Array,
    eps: jax.Array,
    exponent: float,
    *,
    method: RootMethod = "eigen",
    most_steps: int = 100,
    tolerance: float = 1e-6,
) -> jax.Array:
    """(x + eps I)^-exponent of Hermitian matrices along the last two axes.

    Args:
        x: matrices, of shape (..., n, n).
        eps: added to the diagonal; where rounding makes an eigenvalue less, all are lifted until none is.
        exponent: the exponent; for `"newton"` one over a whole number.
        method: by eigenvalues, or by products alone, in Newton's coupled iteration.
        most_steps: how many steps Newton's iteration takes at the most.
        tolerance: how near to the identity it goes.
    """
    if not x.size:
        return x
    identity = identity_like(x)
    x = x + eps.astype(x.dtype) * identity
    if method == "newton":
        return _by_newton(x, identity, round(1 / exponent), most_steps, tolerance)
    values, vectors = jnp.linalg.eigh(x)
    least = jnp.min(values, axis=-1, keepdims=True)
    values = jnp.where(least < eps, values - least + eps, values)
    # An eps of 0 gives 0 where there is nothing.
    is_positive = values > 0
    powers = jnp.where(is_positive, jnp.where(is_positive, values, 1) ** -exponent, 0)
    return (vectors * jnp.expand_dims(powers, -2).astype(x.dtype)) @ conjugate(vectors)


def _by_newton(x: jax.Array, identity: jax.Array, p: int, most_steps: int, tolerance: float) -> jax.Array:
    """x^(-1/p): y goes to the identity, and what turns it into that gathers in the root."""
    size = sqrt(jnp.sum(abs_sq(x), axis=(-2, -1), keepdims=True))
    scale = (p + 1) / (2 * jnp.where(size > 0, size, 1))
    start = identity * (scale ** (1 / p)).astype(x.dtype), scale.astype(x.dtype) * x
    limit = np.array(tolerance, real_dtype(x.dtype))

    def is_far(y: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(y - identity), axis=(-2, -1), keepdims=True) > limit

    def goes_on(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        steps, _, y = carry
        return (steps < most_steps) & jnp.any(is_far(y))

    def step(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        steps, root, y = carry
        w = identity + (identity - y) / p
        power = w
        for _ in range(p - 1):
            power = power @ w
        # A matrix that has arrived does not wait for others.
        far = is_far(y)
        return steps + 1, jnp.where(far, root @ w, root), jnp.where(far, power @ y, y)

    return jax.lax.while_loop(goes_on, step, (jnp.int32(0), *start))[1]


def norm_bound(x: jax.Array) -> jax.Array:
    """A number between a part and all of the spectral norm of Hermitian matrices, as (..., 1, 1).

    One step of a power iteration, from the column with the largest sum of squares.
    """
    largest = jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    squares = jnp.sum(abs_sq(x), axis=-2)
    start = jnp.take_along_axis(x, jnp.argmax(squares, axis=-1)[..., None, None], axis=-1)
    start = x @ start
    length = sqrt(jnp.sum(abs_sq(start), axis=(-2, -1), keepdims=True))
    step = x @ (start / jnp.where(length > 0, length, 1).astype(x.dtype))
    return largest * sqrt(jnp.sum(abs_sq(step), axis=(-2, -1), keepdims=True))
