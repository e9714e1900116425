"""Rounding at random, by numbers of the place of an element and of the step, for which no state is kept."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.shards import varying

_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)


def mixed(x: jax.Array) -> jax.Array:
    """A bijection of 32 bits, after which each bit depends on all.

    The multipliers are those of Wellons, Prospecting for Hash Functions, 2018 ("lowbias32"). It takes a small
    part of the time that a key of JAX's does on a CPU, and rounding asks for a number for each element.
    """
    for multiplier, shift in zip(_MULTIPLIERS, (16, 15), strict=True):
        x = (x ^ (x >> shift)) * np.uint32(multiplier)
    return x ^ (x >> 16)


def seed(step: Any, number: Any) -> jax.Array:
    """The seed of one step and of what has a number of its own."""
    return mixed(mixed(jnp.asarray(step).astype(jnp.uint32)) ^ jnp.asarray(number).astype(jnp.uint32))


def bits_like(x: jax.Array, start: jax.Array) -> jax.Array:
    """32 random bits for each element of an array, the same however it is sharded by the compiler.

    Inside of `jax.shard_map` each shard has others.
    """
    for axis in sorted(varying(x)):
        start = mixed(start ^ jax.lax.axis_index(axis).astype(jnp.uint32))
    places, stride = jnp.zeros_like(x, dtype=jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
        along = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        places = places + along * np.uint32(stride % 2**32)
        stride *= x.shape[axis]
    return mixed(places ^ start)


def uniform_like(x: jax.Array, start: jax.Array) -> jax.Array:
    """A random number in [0, 1) for each element of an array, of 24 bits."""
    return _uniform(bits_like(x, start))


def uniform_at(places: jax.Array, start: jax.Array) -> jax.Array:
    """The same for the elements of an array at some places, counted through all of it."""
    return _uniform(mixed(places ^ start))


def _uniform(bits: jax.Array) -> jax.Array:
    return (bits >> 8).astype(jnp.float32) * np.float32(2.0**-24)


def rounded(x: jax.Array, dtype: Any, random: jax.Array) -> jax.Array:
    """An array in a dtype of 16 bits, of the two nearest numbers one at random, right on average.

    What lies beyond the largest finite number becomes infinite, as it does when it is rounded to the nearest.
    """
    narrow = jnp.finfo(dtype)
    x = x.astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    dropped = np.uint32(23 - narrow.nmant)
    more = jnp.floor(random * 2.0 ** int(dropped)).astype(jnp.uint32)
    kept = jax.lax.bitcast_convert_type(((bits + more) >> dropped) << dropped, jnp.float32)
    if narrow.minexp > -126:  # what is subnormal in it is not in float32
        least = float(narrow.smallest_subnormal)
        kept = jnp.where(
            jnp.abs(x) < float(narrow.smallest_normal),
            jnp.copysign(jnp.floor(jnp.abs(x) / least + random) * least, x),
            kept,
        )
    return jnp.where(jnp.isfinite(x), kept, x).astype(dtype)
