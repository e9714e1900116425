"""Blocks: the parts of an array that share a scale, cut so that a shard of the array has whole ones.

Where blocks are depends on the shape of an array alone, so that a state is the same on every mesh. An axis is
cut where 16 devices, or as many as divide it, would cut it; so no block stands on two of them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.engine.placement import Size, divides, parts_of, reshaped, resharded, typed_sharding

Shape = tuple[int, ...]

SIZE = 128
"""The most elements of a block."""

ENOUGH = 96
"""A block of fewer elements is cut only where nothing else divides the array: each has a scale of 4 bytes."""

DEVICES = (16, 8, 4, 2, 1)
"""Over how many devices along each axis no block is to be cut, the best first."""


@functools.cache
def block_counts(shape: Shape) -> Shape:
    """How many blocks there are along each axis of an array."""
    for devices in DEVICES:
        sizes = _block(tuple(n // math.gcd(n, devices) for n in shape))
        if math.prod(sizes) >= min(ENOUGH, math.prod(shape)):
            return tuple(n // size for n, size in zip(shape, sizes, strict=True))
    # Nothing divides it: the last block along an axis is shorter, and then no device may have a part.
    return tuple(-(-n // size) for n, size in zip(shape, _block(shape, even=False), strict=True))


def stays_on_shards(shape: Shape, counts: Shape) -> bool:
    """Whether no block stands on two devices, whichever of `DEVICES` divide an axis of an array."""
    return all(count % math.gcd(n, DEVICES[0]) == 0 for n, count in zip(shape, counts, strict=True))


def _block(room: Shape, *, even: bool = True) -> Shape:
    """The largest block within what there is along each axis, the last axis first; one that divides it."""
    left, sizes = SIZE, []
    for n in reversed(room):
        size = min(n, left)
        sizes.append(max((k for k in range(1, size + 1) if n % k == 0), default=1) if even else max(size, 1))
        left //= sizes[-1]
    return tuple(reversed(sizes))


def counts_along(shape: Shape) -> Shape:
    """The same, each remembering which axis of a leaf it is of, as the sizes of `shape` do."""
    plain = block_counts(tuple(map(int, shape)))
    axes = [getattr(n, "axis", None) for n in shape]
    return tuple(n if axis is None else Size.along(n, axis) for n, axis in zip(plain, axes, strict=True))


def split(x: jax.Array, counts: Sequence[int]) -> jax.Array:
    """An array by its blocks: of each axis first the blocks, then the elements of one; zeros fill them up."""
    sizes = [-(-n // count) if count else 1 for n, count in zip(x.shape, counts, strict=True)]
    missing = [count * size - n for n, count, size in zip(x.shape, counts, sizes, strict=True)]
    typed = typed_sharding(x)
    parts = parts_of(x)
    if typed is not None:
        parts = [
            part if not short and divides(typed.mesh, part, count) else None
            for part, short, count in zip(parts, missing, counts, strict=True)
        ]
        x = resharded(x, typed, parts)
    if any(missing):
        x = jnp.pad(x, [(0, n) for n in missing])
    shape = tuple(itertools.chain(*zip(counts, sizes, strict=True)))
    return reshaped(x, shape, [p for part in parts for p in (part, None)])


def join(blocks: jax.Array, shape: Shape) -> jax.Array:
    """The array of a shape that was split into blocks."""
    full = tuple(a * b for a, b in zip(blocks.shape[::2], blocks.shape[1::2], strict=True))
    x = reshaped(blocks, full, parts_of(blocks)[::2])
    return x if full == shape else x[tuple(slice(n) for n in shape)]


def largest(blocks: jax.Array) -> jax.Array:
    """The largest magnitude in each block, by the blocks; NaN of one that has a NaN."""
    return jnp.max(jnp.abs(blocks), axis=_within(blocks), initial=0)


def largest_with_sign(blocks: jax.Array) -> jax.Array:
    """The element of the largest magnitude in each block, by the blocks."""
    highest = jnp.max(blocks, axis=_within(blocks), initial=0)
    lowest = jnp.min(blocks, axis=_within(blocks), initial=0)
    return jnp.where(highest < -lowest, lowest, highest)


def _within(blocks: jax.Array) -> tuple[int, ...]:
    return tuple(range(1, blocks.ndim, 2))


def beside(scales: jax.Array) -> Any:
    """A number for each block, in the shape that its elements are multiplied with."""
    shape = tuple(itertools.chain(*((n, 1) for n in scales.shape)))
    return reshaped(scales, shape, [p for part in parts_of(scales) for p in (part, None)])
