"""Counting without overflow."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.spec.fields import Scalar


def safe_increment(count: Scalar) -> jax.Array:
    """A counter plus one; at the largest value of its dtype it stays.

    Args:
        count: an integer or a floating array.

    Returns:
        An array of the same dtype.

    Raises:
        ValueError: it is of another kind.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> [int(gradtx.safe_increment(jnp.int32(n))) for n in (6, 2**31 - 1)]
        [7, 2147483647]
    """
    count = jnp.asarray(count)
    if jnp.issubdtype(count.dtype, jnp.integer):
        last: Any = jnp.iinfo(count.dtype).max
    elif jnp.issubdtype(count.dtype, jnp.floating):
        last = jnp.finfo(count.dtype).max
    else:
        raise ValueError(f"safe_increment: a counter is an integer or a float, got {count.dtype.name}.")
    last, one = jnp.array(last, count.dtype), jnp.ones((), count.dtype)
    return jnp.where(count < last, count + one, last)


safe_int32_increment = safe_increment
"""The older name that Optax has for it."""
