"""Norms of an array that are not less than a bound, with derivatives that are finite everywhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.norms import root_mean_square
from gradtx.core.numerics import cast, compute_dtype, is_trainable, number_dtype, real_dtype


def safe_norm(
    x: ArrayLike,
    min_norm: ArrayLike,
    ord: int | float | str | None = None,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> jax.Array:
    """`max(norm(x), min_norm)`, with the derivative 0 where the norm is not larger than the bound.

    It neither overflows nor underflows.

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
    wide = cast(x, compute_dtype(x.dtype) if is_trainable(x.dtype) else number_dtype())
    # All norms grow with what they are of: that of numbers up to 1, of which no square is lost, tells it.
    most = jnp.max(jnp.abs(jax.lax.stop_gradient(wide)), axis=axis, keepdims=True, initial=0)
    unit = jnp.where((most > 0) & jnp.isfinite(most), most, jnp.ones_like(most))
    bound = jnp.asarray(min_norm, unit.dtype)
    is_small = unit * jnp.linalg.norm(jax.lax.stop_gradient(wide) / unit, ord, axis, True) <= bound
    # What is differentiated has no norm of 0.
    found = unit * jnp.linalg.norm(jnp.where(is_small, jnp.ones_like(wide), wide / unit), ord, axis, True)
    result = jnp.where(is_small, bound, found)
    result = result if keepdims else jnp.squeeze(result, axis)
    return cast(result, real_dtype(x.dtype)) if is_trainable(x.dtype) else result


def safe_root_mean_squares(x: ArrayLike, min_rms: ArrayLike) -> jax.Array:
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
    found = root_mean_square(x if is_trainable(x.dtype) else cast(x, number_dtype()))
    bound = jnp.asarray(min_rms, found.dtype)
    result = jnp.where(found <= bound, bound, found)
    return cast(result, real_dtype(x.dtype)) if is_trainable(x.dtype) else result
