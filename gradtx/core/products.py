"""Products of matrices along the last two axes, without the copies that transposed ones would be."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def conjugate(x: jax.Array) -> jax.Array:
    """x*, the conjugate transpose of each matrix."""
    return _conj(x).mT


def conjugate_times(x: jax.Array, y: jax.Array) -> jax.Array:
    """x* y."""
    return jnp.einsum("...ki,...kj->...ij", _conj(x), y)


def times_conjugate(x: jax.Array, y: jax.Array) -> jax.Array:
    """X y*."""
    return jnp.einsum("...ik,...jk->...ij", x, _conj(y))


def identity_like(x: jax.Array) -> jax.Array:
    """The identity for each of many square matrices."""
    return jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape)


def diagonal(x: jax.Array) -> jax.Array:
    """The elements on the diagonal of each square matrix."""
    side = x.shape[-1]
    return x.reshape(*x.shape[:-2], side * side)[..., :: side + 1]


def on_diagonal(x: jax.Array, other: jax.Array | float) -> jax.Array:
    """The diagonal of each square matrix, and another value elsewhere."""
    return jnp.where(jnp.eye(x.shape[-1], dtype=bool), x, other)


def _conj(x: jax.Array) -> jax.Array:
    return jnp.conj(x) if jnp.iscomplexobj(x) else x
