"""Norms of an array that are not less than a bound, with derivatives that are finite everywhere."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.norms import root_mean_square
from gradtx.core.numerics import cast, real_dtype


def safe_norm(
    x: Any,
    min_norm: Any,
    ord: int | float | str | None = None,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> jax.Array:
    """`max(norm(x), min_norm)`, with the derivative 0 where the norm is not larger than the bound.

    Args:
        x: an array.
        min_norm: the bound, >= 0.
        ord: the order of the norm, as in `jax.numpy.linalg.norm`.
        axis: the axes to take it over; None for all.
        keepdims: whether these stay, with size 1.

    Returns:
        The norm, in the precision of `x`.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> jax.grad(gradtx.safe_norm)(jnp.zeros(2), 0.0).tolist()
        [0.0, 0.0]
    """
    x = jnp.asarray(x)
    norm = jnp.linalg.norm(jax.lax.stop_gradient(x), ord=ord, axis=axis, keepdims=True)
    is_small = norm <= min_norm
    # What is differentiated has no norm of 0.
    moved = jnp.where(is_small, jnp.ones_like(x), x)
    found = jnp.linalg.norm(moved, ord=ord, axis=axis, keepdims=True)
    result = jnp.where(is_small, jnp.asarray(min_norm, found.dtype), found)
    return result if keepdims else jnp.squeeze(result, axis)


def safe_root_mean_squares(x: Any, min_rms: Any) -> jax.Array:
    """`max(sqrt(mean(|x|²)), min_rms)`, with the derivative 0 where that is the bound.

    It neither overflows nor underflows; of no element it is the bound.

    Args:
        x: an array.
        min_rms: the bound, >= 0.

    Returns:
        A real scalar, in the precision of `x`.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> float(gradtx.safe_root_mean_squares(jnp.array([3.0, 3.0, -3.0, 3.0]), 0.1))
        3.0
        >>> jax.grad(gradtx.safe_root_mean_squares)(jnp.zeros(2), 0.0).tolist()
        [0.0, 0.0]
    """
    x = jnp.asarray(x)
    found = root_mean_square(x)
    bound = jnp.asarray(min_rms, found.dtype)
    return cast(jnp.where(found <= bound, bound, found), real_dtype(x.dtype))
