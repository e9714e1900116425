"""Where new state goes: beside the parameters, sharded as they are, and abstract where they are abstract."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec


class Size(int):
    """The size of one axis of a leaf, which remembers which axis: a slot may keep some of the axes."""

    axis: int

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> tuple[Size, ...]:
        """A shape of such sizes."""
        sizes = tuple(map(cls, shape))
        for i, size in enumerate(sizes):
            size.axis = i
        return sizes


class Placement:
    """How to make the state for a tree of leaves: concrete, traced, or `jax.ShapeDtypeStruct`s."""

    def __init__(self, leaves: list[Any]) -> None:
        self.abstract = any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves)
        self._replicated = next((s for s in map(_replicated, leaves) if s is not None), None)

    def scalar(self, x: Any) -> Any:
        """A number or a few, replicated where the leaves are committed."""
        if self.abstract:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._replicated)
        return jnp.array(x) if self._replicated is None else jax.device_put(x, self._replicated)

    def slot(self, shape: tuple[int, ...], dtype: Any, value: Any, leaf: Any) -> Any:
        """A new array of `value`, sharded like `leaf` if it has the leaf's shape; it aliases nothing."""
        alike = shape == jnp.shape(leaf)
        if self.abstract:
            sharding = getattr(leaf, "sharding", None) if alike else self._along(shape, leaf)
            return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        value = jnp.asarray(value).astype(dtype)
        if alike and isinstance(leaf, jax.Array):
            if value.ndim or isinstance(value, Tracer):
                return jnp.zeros_like(leaf, dtype=dtype) + value
            return jnp.full_like(leaf, jnp.array(value, copy=True), dtype=dtype)
        made, sharding = jnp.array(jnp.broadcast_to(value, shape), copy=True), self._along(shape, leaf)
        return made if sharding is None else jax.device_put(made, sharding)

    def _along(self, shape: tuple[int, ...], leaf: Any) -> Any:
        """The sharding for a slot that keeps some axes of a leaf."""
        sharding = None if isinstance(leaf, Tracer) else getattr(leaf, "sharding", None)
        if not isinstance(sharding, NamedSharding):
            return self._replicated
        kept = [getattr(n, "axis", len(sharding.spec)) for n in shape]
        parts = [sharding.spec[i] if i < len(sharding.spec) else None for i in kept]
        # A compiled function gives a trailing None back without it, and would be compiled again for it.
        while parts and parts[-1] is None:
            parts.pop()
        return NamedSharding(sharding.mesh, PartitionSpec(*parts), memory_kind=sharding.memory_kind)


def _replicated(leaf: Any) -> Any:
    if isinstance(leaf, Tracer):
        return None
    sharding = getattr(leaf, "sharding", None)
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec(), memory_kind=sharding.memory_kind)
    return sharding if isinstance(leaf, jax.Array) and leaf.committed else None


def replicated(tree: Any, beside: list[Any]) -> Any:
    """The arrays of an update, whole on every device of the mesh that some leaves are on.

    So does `init` place scalars. The compiler might choose shards, and the next step would be compiled again.
    """
    for x in beside:
        sharding = jax.typeof(x).sharding if isinstance(x, Tracer) else x.sharding
        if isinstance(sharding, NamedSharding) and not sharding.mesh.empty:
            break
    else:
        return tree
    if any(kind != AxisType.Auto for kind in sharding.mesh.axis_types):
        return tree  # inside shard_map, or where the types say how arrays are sharded
    whole = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, whole), tree)
