"""Parameters without their values, on a mesh whose types say how they are sharded."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.specs import placed_params

PyTree = Any


def typed_params(params: PyTree, mesh: Any, specs: PyTree, where: str) -> PyTree:
    """The parameters without their values, on a mesh whose types say how they are sharded."""
    if mesh is not None:
        specs = jax.tree.map(_spec_of, params) if specs is None else specs
        params = jax.tree.map(_bare, params)
    placed = placed_params(params, specs, mesh, where)

    def typed(x: Any) -> Any:
        if not isinstance(x, jax.ShapeDtypeStruct) or not isinstance(x.sharding, NamedSharding):
            return x if x is None or not hasattr(x, "shape") else lv.shape_of(x)
        own = x.sharding.mesh
        there = AbstractMesh(own.axis_sizes, own.axis_names, (AxisType.Explicit,) * len(own.axis_names))
        parts = [*x.sharding.spec, *[None] * (len(x.shape) - len(x.sharding.spec))]
        sharding = NamedSharding(there, PartitionSpec(*parts))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(typed, placed)


def _bare(x: Any) -> Any:
    """A leaf that is on no mesh."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "dtype") else x


def _spec_of(x: Any) -> PartitionSpec:
    sharding = getattr(x, "sharding", None)
    return sharding.spec if isinstance(sharding, NamedSharding) else PartitionSpec()
