"""Roots of positive semidefinite matrices, and bounds of their norms."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.decompositions import eigh
from gradtx.core.norms import norms_along
from gradtx.core.numerics import abs_sq, real_dtype
from gradtx.core.products import identity_like, times_conjugate

RootMethod = Literal["eigen", "newton"]

MATRIX = (-2, -1)
"""The axes of a matrix."""


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
        method: by eigenvalues, or by products alone, in Newton's coupled iteration, which has no derivative
            backwards.
        most_steps: how many steps Newton's iteration takes at the most.
        tolerance: how near to the identity it goes.
    """
    if not x.size:
        return x
    x = x + eps.astype(x.dtype) * identity_like(x)
    if method == "eigen":
        return _by_eigenvalues(x, eps, exponent)
    root, error = _by_newton(x, round(1 / exponent), most_steps, tolerance)
    # Of a matrix that is nearly singular the iteration may not come near; NaN is not near either.
    is_bad = ~(error <= FAR)
    return jax.lax.cond(
        jnp.any(is_bad),
        lambda x, root: jnp.where(is_bad, _by_eigenvalues(x, eps, exponent), root),
        lambda x, root: root,
        x,
        root,
    )


FAR = 0.1
"""How far from the identity Newton's iteration may end; beyond it the root is taken from eigenvalues."""

GROWTH = 1.2
"""By what the distance may grow in a step before the iteration stops there."""


def _by_eigenvalues(x: jax.Array, eps: jax.Array, exponent: float) -> jax.Array:
    values, vectors = eigh(x)
    least = jnp.min(values, axis=-1, keepdims=True)
    values = jnp.where(least < eps, values - least + eps, values)
    # An eps of 0 gives 0 where there is nothing.
    is_positive = values > 0
    powers = jnp.where(is_positive, jnp.where(is_positive, values, 1) ** -exponent, 0)
    return times_conjugate(vectors * jnp.expand_dims(powers, -2).astype(x.dtype), vectors)


def _by_newton(x: jax.Array, p: int, most_steps: int, tolerance: float) -> tuple[jax.Array, jax.Array]:
    """x^(-1/p), and its distance: y goes to the identity, and what turns it into that gathers in the root."""
    identity, size = identity_like(x), norms_along(x, MATRIX)
    scale = (p + 1) / (2 * jnp.where(size > 0, size, 1))
    limit = np.array(tolerance, real_dtype(x.dtype))

    def distance(y: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(y - identity), axis=MATRIX, keepdims=True)

    def goes_on(carry: Any) -> jax.Array:
        steps, _, _, error, is_done = carry
        return (steps < most_steps) & jnp.any(~is_done & (error > limit))

    def step(carry: Any) -> Any:
        steps, root, y, error, is_done = carry
        w = identity + (identity - y) / p
        power = w
        for _ in range(p - 1):
            power = power @ w
        # A matrix that has arrived does not wait for others, and one that goes away stays where it was.
        new_y = power @ y
        new_error = distance(new_y)
        is_done = is_done | (error <= limit) | ~(new_error <= GROWTH * error)
        root, y = jnp.where(is_done, root, root @ w), jnp.where(is_done, y, new_y)
        return steps + 1, root, y, jnp.where(is_done, error, new_error), is_done

    y = scale.astype(x.dtype) * x
    start = identity * (scale ** (1 / p)).astype(x.dtype), y, distance(y), size < 0
    _, root, _, error, _ = jax.lax.while_loop(goes_on, step, (jnp.int32(0), *start))
    return root, error


def norm_bound(x: jax.Array) -> jax.Array:
    """A number between a part and all of the spectral norm of Hermitian matrices, as (..., 1, 1).

    One step of a power iteration, from the column with the largest sum of squares.
    """
    largest = jnp.max(jnp.abs(x), axis=MATRIX, keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    squares = jnp.sum(abs_sq(x), axis=-2)
    start = jnp.take_along_axis(x, jnp.argmax(squares, axis=-1)[..., None, None], axis=-1)
    start = x @ start
    length = norms_along(start, MATRIX)
    step = x @ (start / jnp.where(length > 0, length, 1).astype(x.dtype))
    return largest * norms_along(step, MATRIX)
