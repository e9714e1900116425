"""Stacks on a mesh: which devices solve which matrices, and how the matrices come there and back.

A matrix that is sharded is put together by exchanges along one axis of the mesh after the other. Each axis
moves from the rows or the columns of the matrices to their number, which the compiler makes an all-to-all of;
if several moved at once, it would make a copy of the whole stack on every device.

Matrices may have homes, which are the devices along some axes of the mesh. Where the batch of a leaf is
sharded, as that of experts often is, each home has some of its matrices already. They stay there, and only
the devices of a home exchange parts of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx.core.engine.each_matrix import SLOT, OfMatrices
from gradtx.core.engine.kernels import Values
from gradtx.core.engine.matrix_groups import Group
from gradtx.core.engine.placement import (
    UNCONSTRAINED,
    as_part,
    devices_along,
    divides,
    mesh_of,
    names_of_part,
    parts_of,
    placed,
    resharded,
    sharing,
    typed_sharding,
)
from gradtx.core.engine.views import Cut

Shared = tuple[tuple[str, ...], tuple[str, ...]]
"""The axes of a mesh that shard a stack along its homes, and those that shard it along its matrices."""


class Owners(NamedTuple):
    """Who solves the matrices of a stack.

    With homes the stack has an axis for them while it is solved, before that of the matrices of each.

    Attributes:
        mesh: the mesh, None where there is none.
        home: the axes of it that divide the matrices into homes; there may be none.
        stays: whether the leaves are at home already.
        axes: the axes of it whose devices share the matrices of a home; the devices along others solve the
            same ones.
        number: how many matrices a home has.
        more: how many it is filled up with, so that its devices have as many each.
    """

    mesh: Any
    home: tuple[str, ...]
    stays: bool
    axes: tuple[str, ...]
    number: int
    more: int

    @property
    def along(self) -> int:
        """The axis of a stack that has an element for each matrix, while it is solved."""
        return 1 if self.home else 0

    @property
    def joins_along(self) -> int:
        """The same while it is joined of leaves, and parted again."""
        return 1 if self.stays else 0

    @property
    def is_typed(self) -> bool:
        """Whether types say how arrays are sharded, and the compiler has no say."""
        return AxisType.Explicit in self.mesh.axis_types

    @property
    def parts(self) -> int:
        """In how many parts the matrices of a leaf are that are at home already."""
        return devices_along(self.mesh, self.home) if self.stays else 1

    @classmethod
    def of(cls, leaf: Any, group: Group) -> Owners:
        """Those of a group, on the mesh of a leaf."""
        mesh, home, stays = mesh_of(leaf), group.home, bool(group.home)
        if mesh is None:
            return cls(None, (), False, (), group.count, 0)
        number = group.count // devices_along(mesh, home)
        evenly, further = sharing(mesh, number, [axis for axis in mesh.axis_names if axis not in home])
        # What is remembered is sharded along itself by those that divide it, and filled up within each part.
        if evenly and further and not stays:
            home, axes, number = evenly, further, number // devices_along(mesh, evenly)
        else:
            axes = tuple(axis for axis in reversed(mesh.axis_names) if axis in {*evenly, *further})
        return cls(mesh, home, stays, axes, number, -number % devices_along(mesh, axes))

    def at_home(self, x: jax.Array, rest: Sequence[tuple[str, ...]]) -> jax.Array:
        """The matrices of a leaf, (number, rows, columns), with an axis for the homes where it is there.

        Args:
            x: the matrices.
            rest: what is to shard rows and columns, where types say it.
        """
        return self._divided(moved(x, [self.home, *rest])) if self.stays else moved(x, [(), *rest])

    def from_home(self, x: jax.Array) -> jax.Array:
        """The same back."""
        return _merged(x) if self.stays else x

    def solved(self, of_all: OfMatrices, given: Values, values: Any) -> Values:
        """What each device makes of its matrices, also of those that the stack is filled up with."""
        if self.mesh is None:
            return of_all(given, values)

        def of_home(given: Values, values: Any) -> Values:
            return {k: v[None] for k, v in of_all({k: v[0] for k, v in given.items()}, values).items()}

        owned = PartitionSpec(*self._parts((self.home, self.axes), ()))
        solve = jax.shard_map(
            of_home if self.home else of_all,
            mesh=self.mesh,
            in_specs=(owned, PartitionSpec()),
            out_specs=owned,
            check_vma=False,
        )
        return solve({k: self._there(k, v) for k, v in given.items()}, values)

    def _there(self, name: str, x: jax.Array) -> jax.Array:
        """An array with a row for each matrix, filled up, of which each device has its rows."""
        is_slot = name.startswith(SLOT)
        if is_slot and not self.more:
            if not self.is_typed:
                return x  # it lies there already
        elif is_slot and (typed := typed_sharding(x)) is not None:
            # So it lies already, unless someone has put it elsewhere.
            x = moved(x, [self.home, *map(names_of_part, typed.spec[1:])])
        x = self._divided(x) if self.home and not self.stays else x
        if self.more:
            first = jax.lax.slice_in_dim(x, 0, 1, axis=self.along)
            shape = [self.more if i == self.along else n for i, n in enumerate(x.shape)]
            x = jnp.concatenate([x, jnp.broadcast_to(first, shape)], axis=self.along)
        typed = typed_sharding(x)
        if not self.is_typed or (typed is not None and typed.spec[self.along] is None):
            rest = () if typed is None else typed.spec[self.along + 1 :]
            way = self._way(at_home=is_slot)
            # Without a step between, the compiler would replicate also what the matrices are made of.
            x = self._steps(x, way[1:] or way, rest)
        if not self.is_typed:
            return x
        return self._sharded(x, self._parts((self.home, self.axes), [None] * (x.ndim - self.along - 1)))

    def back(self, x: jax.Array, rest: Sequence[Any]) -> jax.Array:
        """The rows of a solved stack, sharded along the rows and columns of the matrices alone.

        Args:
            x: the stack, filled up.
            rest: what shards rows and columns, where types say it.
        """
        if self.mesh is None:
            return x
        x = self._emptied(self._steps(x, self._way(at_home=False)[::-1], rest))
        return _merged(x) if self.home and not self.stays else x

    def kept(self, x: jax.Array, old: jax.Array) -> jax.Array:
        """The rows of a slot of a solved stack, as another one of its shape is sharded by types."""
        if not self.more:
            return x
        typed = typed_sharding(old)
        rest = () if typed is None else typed.spec[1:]
        x = self._emptied(self._steps(x, self._way(at_home=True)[::-1], rest))
        return _merged(x) if self.home else x

    def _emptied(self, x: jax.Array) -> jax.Array:
        """A stack without what it was filled up with."""
        return jax.lax.slice_in_dim(x, 0, self.number, axis=self.along)

    def _divided(self, x: jax.Array) -> jax.Array:
        return jnp.reshape(x, (devices_along(self.mesh, self.home), -1, *x.shape[1:]))

    def _way(self, *, at_home: bool) -> list[Shared]:
        """What shards a stack along its homes and along itself, step by step until it is solved.

        Args:
            at_home: whether it comes from its homes, as what is remembered does.
        """
        way: list[Shared] = [(self.home if at_home or self.stays else (), ())]
        for axis in reversed(self.mesh.axis_names):
            home, own = way[-1]
            if axis in self.axes:
                way.append((home, (*own, axis)))
            elif axis in self.home and axis not in home:
                way.append(((*home, axis), own))
        return way

    def _steps(self, x: jax.Array, way: Sequence[Shared], rest: Sequence[Any]) -> jax.Array:
        """A stack that goes a way.

        Args:
            x: the stack.
            way: what shards its homes and itself after each step.
            rest: what shards its other axes where no axis of the mesh is needed before; types say it.
        """
        others: list[Any] = [UNCONSTRAINED] * (x.ndim - self.along - 1)
        for shared in way:
            if self.is_typed:
                used = {*shared[0], *shared[1]}
                others = [as_part(tuple(a for a in names_of_part(p) if a not in used)) for p in rest]
            x = self._sharded(x, self._parts(shared, others))
        return x

    def _parts(self, shared: Shared, others: Sequence[Any]) -> list[Any]:
        """What shards each axis of a stack, from what shards its homes and itself."""
        return [*map(as_part, shared if self.home else shared[1:]), *others]

    def _sharded(self, x: jax.Array, parts: list[Any]) -> jax.Array:
        return placed(x, NamedSharding(self.mesh, PartitionSpec(*parts)))


def _merged(x: jax.Array) -> jax.Array:
    """A stack without its axis for the homes."""
    return jnp.reshape(x, (-1, *x.shape[2:]))


def home_of(cut: Cut, x: jax.Array) -> tuple[Cut, tuple[str, ...]]:
    """What of a mesh shards the batch of a leaf, where types say it, and the leaf with that axis first.

    Where several axes of the batch are sharded it has no home.
    """
    parts = parts_of(x)
    sharded = [i for i in cut.batch if parts[i] is not None]
    if len(sharded) != 1:
        return cut, ()
    others = [i for i in cut.batch if i not in sharded]
    return dataclasses.replace(cut, batch=(*sharded, *others)), names_of_part(parts[sharded[0]])


def by_matrix(cut: Cut, x: jax.Array, home: tuple[str, ...]) -> jax.Array:
    """A leaf that is sharded along its home, its rows and its columns alone, where its type says how it is.

    What sharded other axes of it shards rows or columns then, where it divides them.
    """
    typed = typed_sharding(x)
    if typed is None:
        return x
    parts = [tuple(n for n in names_of_part(part) if n not in home) for part in typed.spec]
    sides = [i for i in cut.matrix_axes if i is not None]
    for i in [i for i in range(x.ndim) if i not in sides]:
        for name in parts[i]:
            able = [j for j in sides if divides(typed.mesh, (*parts[j], name), x.shape[j])]
            if able:
                best = min(able, key=lambda j: (len(parts[j]), -x.shape[j]))
                parts[best] = tuple(n for n in typed.mesh.axis_names if n in {*parts[best], name})
        parts[i] = ()
    if home:
        parts[cut.batch[0]] = home
    return moved(x, parts)


def moved(x: jax.Array, wanted: Sequence[tuple[str, ...]]) -> jax.Array:
    """An array whose axes are sharded by other axes of a mesh, one of which moves at a time.

    Args:
        x: the array; where its type does not say how it is sharded it stays so.
        wanted: for each of its axes those of the mesh that are to shard it.
    """
    typed = typed_sharding(x)
    if typed is None:
        return x
    parts = [names_of_part(part) for part in typed.spec]
    before, after = (
        {name: (i, at) for i, names in enumerate(p) for at, name in enumerate(names)} for p in (parts, wanted)
    )

    def turn(name: str) -> Any:
        # What shards nothing yet comes first, while the array is whole, and what is to shard nothing leaves
        # last. Of several that shard one axis the last can leave, and another comes behind it.
        return name in before, name not in after, after.get(name, (0, 0))[1], -before.get(name, (0, 0))[1]

    going = [name for name in typed.mesh.axis_names if before.get(name, ())[:1] != after.get(name, ())[:1]]
    for name in sorted(going, key=turn):
        parts = [tuple(n for n in names if n != name) for names in parts]
        if name in after:
            i, _ = after[name]
            parts[i] = tuple(n for n in wanted[i] if n in {*parts[i], name})
        x = resharded(x, typed, [as_part(names) for names in parts])
    return resharded(x, typed, [as_part(names) for names in wanted])


def moved_like(x: jax.Array, leaf: jax.Array) -> jax.Array:
    """An array sharded as the type of another one says, whose axes come to it one at a time."""
    typed = typed_sharding(leaf)
    return x if typed is None else moved(x, [names_of_part(part) for part in typed.spec])
