"""Stacks on a mesh: which devices solve which matrices, and how the matrices come there and back.

A matrix that is sharded is put together by exchanges along one axis of the mesh after the other. Each axis
moves from the rows or the columns of the matrices to their number, which the compiler makes an all-to-all of;
if several moved at once, it would make a copy of the whole stack on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx.core.engine.each_matrix import SLOT, OfMatrices
from gradtx.core.engine.kernels import Values
from gradtx.core.engine.placement import (
    UNCONSTRAINED,
    as_part,
    mesh_of,
    names_of_part,
    placed,
    sharing,
    typed_sharding,
    whole,
)


class Owners(NamedTuple):
    """Who solves the matrices of a stack.

    Attributes:
        mesh: the mesh, None where there is none.
        axes: the axes of it whose devices share the matrices; the devices along others solve the same ones.
        number: how many matrices there are.
        more: how many the stack is filled up with, so that the devices have as many each.
    """

    mesh: Any
    axes: tuple[str, ...]
    number: int
    more: int

    @property
    def is_typed(self) -> bool:
        """Whether types say how arrays are sharded, and the compiler has no say."""
        return AxisType.Explicit in self.mesh.axis_types

    @classmethod
    def of(cls, leaf: Any, number: int) -> Owners:
        """Those of a stack of so many matrices, on the mesh of a leaf."""
        mesh = mesh_of(leaf)
        if mesh is None:
            return cls(None, (), number, 0)
        axes, devices = sharing(mesh, number)
        return cls(mesh, axes, number, -number % devices)

    def solved(self, of_all: OfMatrices, given: Values, values: Any) -> Values:
        """What each device makes of its matrices, also of those that the stack is filled up with."""
        if self.mesh is None:
            return of_all(given, values)
        owned = PartitionSpec(as_part(self.axes))
        solve = jax.shard_map(
            of_all, mesh=self.mesh, in_specs=(owned, PartitionSpec()), out_specs=owned, check_vma=False
        )
        return solve({k: self._there(k, v) for k, v in given.items()}, values)

    def _there(self, name: str, x: jax.Array) -> jax.Array:
        """An array with a row for each matrix, filled up, of which each device has its rows."""
        typed, upwards = typed_sharding(x), range(1, len(self.axes) + 1)
        along = None if typed is None else typed.spec[0]
        if self.more:
            # What is remembered may be sharded along itself.
            x = x if along is None else whole(x)
            x = jnp.concatenate([x, jnp.broadcast_to(x[:1], (self.more, *x.shape[1:]))])
        if not self.is_typed:
            # Slots of a stack that is not filled up lie there already.
            return x if name.startswith(SLOT) and not self.more else self._steps(x, upwards)
        if typed is not None and along is None:
            x = self._steps(x, upwards, typed.spec[1:])
        return self._sharded(x, [as_part(self.axes), *[None] * (x.ndim - 1)])

    def back(self, x: jax.Array, rest: Sequence[Any]) -> jax.Array:
        """The rows of a solved stack, sharded along the rows and columns of the matrices alone.

        Args:
            x: the stack, filled up.
            rest: what shards rows and columns, where types say it.
        """
        if self.mesh is None:
            return x
        return self._steps(x, range(len(self.axes), -1, -1), rest)[: self.number]

    def kept(self, x: jax.Array, old: jax.Array) -> jax.Array:
        """The rows of a slot of a solved stack, as another one of its shape is sharded by types."""
        if not self.more:
            return x
        typed = typed_sharding(old)
        if typed is None or typed.spec[0] is None:
            return self.back(x, [] if typed is None else typed.spec[1:])
        return whole(x)[: self.number]

    def _steps(self, x: jax.Array, counts: Sequence[int], rest: Sequence[Any] = ()) -> jax.Array:
        """A stack that comes to be sharded along itself by so many of the axes, one after the other."""
        for n in counts:
            shared, others = self.axes[:n], [UNCONSTRAINED] * (x.ndim - 1)
            if self.is_typed:
                others = [as_part(tuple(a for a in names_of_part(p) if a not in shared)) for p in rest]
            x = self._sharded(x, [as_part(shared), *others])
        return x

    def _sharded(self, x: jax.Array, parts: list[Any]) -> jax.Array:
        return placed(x, NamedSharding(self.mesh, PartitionSpec(*parts)))
