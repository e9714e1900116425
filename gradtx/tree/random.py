"""Random trees and keys, under the names of `optax.tree`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def split_key_like(rng_key: Any, target_tree: PyTree) -> PyTree:
    """A key of its own for each leaf of a tree.

    Args:
        rng_key: the key to split.
        target_tree: a tree; `None` is no leaf of it.

    Examples:
        >>> import gradtx, jax
        >>> keys = gradtx.tree.split_key_like(jax.random.key(0), {"a": 1.0, "b": None})
        >>> keys["a"].shape, keys["b"]
        ((), None)
    """
    structure = jax.tree.structure(target_tree)
    return structure.unflatten(jax.random.split(rng_key, structure.num_leaves))


def random_like(
    rng_key: Any, target_tree: PyTree, sampler: Callable[..., Any] = jax.random.normal, dtype: Any = None
) -> PyTree:
    """A random tree with the shapes of another, each leaf from a key of its own, sharded as it is.

    Args:
        rng_key: the key.
        target_tree: a tree of arrays.
        sampler: `sampler(key, shape, dtype)`, which may take `out_sharding` too; by default normal numbers.
        dtype: the dtype of all leaves; by default that of each.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> noise = gradtx.tree.random_like(jax.random.key(0), {"w": jnp.zeros((2, 3), "bfloat16")})
        >>> noise["w"].shape, str(noise["w"].dtype)
        ((2, 3), 'bfloat16')
    """
    places = "out_sharding" in inspect.signature(sampler).parameters

    def drawn(leaf: Any, key: Any) -> Any:
        more = {"out_sharding": jax.typeof(leaf).sharding} if places else {}
        return sampler(key, leaf.shape, dtype or leaf.dtype, **more)

    return jax.tree.map(drawn, target_tree, split_key_like(rng_key, target_tree))


def unwrap_random_key_data(input_tree: PyTree) -> PyTree:
    """A tree with the raw data in place of each random key, for files and comparisons.

    Args:
        input_tree: a tree of arrays and keys.

    Examples:
        >>> import gradtx, jax
        >>> gradtx.tree.unwrap_random_key_data({"key": jax.random.key(3)})["key"].tolist()
        [0, 3]
    """

    def unwrapped(x: Any) -> Any:
        is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if is_key else x

    return jax.tree.map(unwrapped, input_tree)
