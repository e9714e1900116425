"""Sums of the squares of arrays, as they come.

They may overflow or underflow, which `norms.py` looks after.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.numerics import abs_sq, cast, compute_dtype, total


@jax.jit
def sum_of_squares(x: jax.Array) -> jax.Array:
    """`sum |x|²` of one array in at least float32, as it comes: it may overflow or underflow."""
    return plain_sum(cast(x, compute_dtype(x.dtype)), 0)


def sums_of_squares(
    arrays: Sequence[jax.Array], known: Sequence[jax.Array | None] | None = None
) -> list[jax.Array]:
    """The sum of the squares of each of some arrays, or what is known of it already."""
    found = {i: x for i, x in enumerate(known or ()) if x is not None}
    rest = [i for i in range(len(arrays)) if i not in found]
    for group in _alike([arrays[i] for i in rest]):
        places = [rest[j] for j in group]
        found |= zip(places, _sums_of_squares([arrays[i] for i in places]), strict=True)
    return [found[i] for i in range(len(arrays))]


@jax.jit
def _sums_of_squares(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    return [plain_sum(cast(x, compute_dtype(x.dtype)), 0) for x in arrays]


def _alike(arrays: Sequence[jax.Array]) -> Iterator[list[int]]:
    """The places of arrays of one type, sixteen at a time as far as that goes.

    What follows for them is traced once for each type.
    """
    groups: dict[Any, list[int]] = {}
    for i, x in enumerate(arrays):
        groups.setdefault(jax.typeof(x), []).append(i)
    for places in groups.values():
        whole = len(places) // 16 * 16
        yield from (places[i : i + 16] for i in range(0, whole, 16))
        yield from ([i] for i in places[whole:])


def plain_sum(x: jax.Array, batch: int) -> jax.Array:
    """`sum |x|²` over the axes that follow those of a batch, in the dtype of the array."""
    return jnp.sum(abs_sq(x), axis=tuple(range(batch, x.ndim)))


def scaled_sum(leaves: Sequence[jax.Array], factor: jax.Array, batch: int) -> jax.Array:
    """`sum |x factor|²` over all leaves, for a branch that is rarely entered."""
    ways = _by_product(leaves, batch)
    groups = [([leaves[i] for i in places], ways[places[0]]) for places in _alike(leaves)]
    return total([_scaled_sum(group, factor, batch, way) for group, way in groups])


@functools.partial(jax.jit, static_argnums=(2, 3))
def _scaled_sum(leaves: Sequence[jax.Array], factor: jax.Array, batch: int, by_product: bool) -> jax.Array:
    sums = []
    for x in leaves:
        scaled = x * jnp.expand_dims(cast(factor, x.dtype), tuple(range(batch, x.ndim)))
        sums.append(_total_by_product(abs_sq(scaled)) if by_product else plain_sum(scaled, batch))
    return functools.reduce(jax.lax.add, sums)


def _by_product(leaves: Sequence[jax.Array], batch: int) -> list[bool]:
    """Which of the leaves are summed by a product of matrices in a branch that is rarely entered.

    XLA's CPU client sets up three buffers for each reduction of a program at every call, entered or not. That
    takes about as long as a step on some thousand elements. A product has none, but it makes an array of its
    terms, takes longer to compile, and must be told how it is sharded where types say that.
    """
    few = batch == 0 and len(leaves) <= 16
    return [few and x.size <= 2**14 and jax.typeof(x).sharding.mesh.empty for x in leaves]


def _total_by_product(terms: jax.Array) -> jax.Array:
    # Of a product with one column XLA would make a reduction again.
    columns, axes = jnp.ones((*terms.shape, 2), terms.dtype), tuple(range(terms.ndim))
    return jax.lax.dot_general(terms, columns, ((axes, axes), ((), ())), precision="highest")[0]
