"""Where new arrays go: beside the parameters, sharded as they are, and abstract where they are abstract.

On a mesh with axes of `AxisType.Explicit` the type of an array says how it is sharded along them, and what is
made anew must have the right type. Elsewhere types say nothing and the compiler decides.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

try:
    from jax.experimental.shard_alike import shard_alike
except ImportError:  # JAX 0.12 has it no more

    def shard_alike(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same two arrays, which the compiler shards in one way, as it does what is elementwise."""
        # Behind a barrier the compiler does not know that it could leave the operation out.
        return jnp.where(jax.lax.optimization_barrier(jnp.array(True)), x, y), y


UNCONSTRAINED: Any = PartitionSpec.UNCONSTRAINED
"""What shards an axis of an array where the compiler decides."""


class Size(int):
    """The size of one axis of a leaf, which remembers which axis: a slot may keep some of the axes."""

    axis: int

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> tuple[Size, ...]:
        """A shape of such sizes."""
        return tuple(cls.along(size, i) for i, size in enumerate(shape))

    @classmethod
    def along(cls, size: int, axis: int) -> Size:
        """A size of which an axis of the leaf is all, or the first of several that are one."""
        made = cls(size)
        made.axis = axis
        return made


class Placement:
    """How to make the state for a tree of leaves: concrete, traced, or `jax.ShapeDtypeStruct`s."""

    def __init__(self, leaves: list[Any]) -> None:
        self.abstract = any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves)
        found = [s for s in map(_replicated, leaves) if s is not None]
        # Scalars are with the leaves that are on a mesh, and not with those that wait in the host's memory.
        self._replicated: Any = min(found, key=lambda s: (not _is_named(s), _is_on_host(s)), default=None)
        self._first: Any = next((x for x in leaves if x is not None), None)

    def scalar(self, x: Any) -> Any:
        """A number or a few, replicated where the leaves are committed; sharded where its type says so."""
        sharding = self._beside(x)
        if self.abstract:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
        if sharding is not None:
            return jax.device_put(x, sharding)
        # A copy that JAX does not compute: `jax.debug_infs` would take an infinity in it for a fault.
        return jnp.array(x) if isinstance(x, Tracer) else jax.device_put(np.array(x))

    def foreign(self, x: Any, leaf: Any) -> Any:
        """An array that another library's `init` made, like a leaf or (None) like none.

        Where it is committed it stays.
        """
        sharding = self._beside(x) if leaf is None else self._along(jnp.shape(x), leaf)
        if self.abstract:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
        is_free = isinstance(x, jax.Array) and not isinstance(x, Tracer) and not x.committed
        return x if sharding is None or not is_free else jax.device_put(x, sharding)

    def slot(self, shape: tuple[int, ...], dtype: Any, value: Any, leaf: Any) -> Any:
        """A new array of `value`, sharded like `leaf` if it has the leaf's shape; it aliases nothing."""
        if self.abstract:
            return jax.ShapeDtypeStruct(shape, dtype, sharding=self._along(shape, leaf))
        value = jnp.asarray(value).astype(dtype)
        if shape == jnp.shape(leaf) and isinstance(leaf, jax.Array):
            sharding = None if isinstance(leaf, Tracer) else self._along(shape, leaf)
            if value.ndim:
                made = jnp.array(jnp.broadcast_to(value, shape), copy=True)
                return sharded_like(made, leaf) if sharding is None else jax.device_put(made, sharding)
            if isinstance(value, Tracer):
                return jnp.zeros_like(leaf, dtype=dtype) + value
            return jnp.full_like(leaf, jnp.array(value, copy=True), dtype=dtype, device=sharding)
        return self.part(shape, jnp.array(jnp.broadcast_to(value, shape), copy=True), leaf)

    def part(self, shape: tuple[int, ...], x: Any, leaf: Any) -> Any:
        """An array `x` of a shape that keeps some axes of a leaf, sharded along them."""
        sharding = self._along(shape, leaf)
        if self.abstract:
            return jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding)
        return x if sharding is None else placed(x, sharding)

    def stack(self, shape: tuple[int, ...], dtype: Any, value: Any, leaf: Any) -> Any:
        """A new stack with a row of `value` for each matrix, sharded along itself on the mesh of a leaf.

        What of the mesh does not divide the number of matrices shards the first axis of each, where it can;
        not of matrices of no elements, of which the compiler keeps no sharding.
        """
        mesh = mesh_of(leaf)
        if mesh is None:
            sharding = None if isinstance(leaf, Tracer) else self._along(shape, leaf)
        else:
            owners, further = sharing(mesh, shape[0], mesh.axis_names)
            # Last are those that move to the stack first when it is solved.
            others = [axis for axis in mesh.axis_names if axis not in {*owners, *further}]
            others = [*others, *reversed(further)]
            within = _dividing(mesh, shape[1], others) if len(shape) > 1 and 0 not in shape else ()
            kind = None if isinstance(leaf, Tracer) else leaf.sharding.memory_kind
            sharding = self._in_form(
                _in_full(mesh, [as_part(owners), as_part(within)], len(shape), kind), len(shape)
            )
        if self.abstract:
            return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        made = jnp.array(jnp.broadcast_to(jnp.asarray(value).astype(dtype), shape), copy=True)
        return made if sharding is None else placed(made, sharding)

    def _beside(self, x: Any) -> Any:
        """The sharding for what is like no leaf."""
        sharding = self._replicated
        if not _is_explicit(sharding):
            return sharding
        return _in_full(sharding.mesh, parts_of(x), x.ndim, sharding.memory_kind)

    def _along(self, shape: tuple[int, ...], leaf: Any) -> Any:
        """The sharding for a slot that keeps some axes of a leaf, or all of them."""
        sharding, alike = sharding_of(leaf), shape == jnp.shape(leaf)
        if sharding is None or (_is_named(self._replicated) and not _is_named(sharding)):
            sharding = self._replicated
        if not isinstance(sharding, NamedSharding) or (alike and not _is_explicit(sharding)):
            return sharding
        parts = list(sharding.spec) if alike else _kept_parts(shape, sharding)
        made = _in_full(sharding.mesh, parts, len(shape), sharding.memory_kind)
        return self._in_form(made, len(shape))

    def _in_form(self, sharding: NamedSharding, ndim: int) -> NamedSharding:
        """A sharding in the form of the first leaf's, which may have a None more at the end of the same one.

        So does a compiled function give it back whose first argument is that leaf, but where types say how
        arrays are sharded.
        """
        own = getattr(self._first, "sharding", None)
        if _is_explicit(sharding) or not isinstance(own, NamedSharding) or jnp.ndim(self._first) != ndim:
            return sharding
        in_full = _in_full(own.mesh, list(own.spec), ndim, own.memory_kind)
        return own if in_full == sharding else sharding


def _kept_parts(shape: tuple[int, ...], sharding: NamedSharding) -> list[Any]:
    """What shards each axis of an array that keeps some axes of a leaf."""
    kept = [getattr(n, "axis", len(sharding.spec)) for n in shape]
    # What is remembered may have an axis of the leaf twice, and a mesh axis shards one axis only.
    kept = [a if a not in kept[:i] else len(sharding.spec) for i, a in enumerate(kept)]
    parts = [sharding.spec[i] if i < len(sharding.spec) else None for i in kept]
    return [part if divides(sharding.mesh, part, n) else None for part, n in zip(parts, shape, strict=True)]


def divides(mesh: Any, part: Any, size: int) -> bool:
    """Whether the devices along some axes of a mesh divide an axis of an array."""
    return size % devices_along(mesh, names_of_part(part)) == 0


def names_of_part(part: Any) -> tuple[str, ...]:
    """The axes of a mesh that shard one axis of an array."""
    return () if part is None else part if isinstance(part, tuple) else (part,)


def axes_of(sharding: NamedSharding) -> set[str]:
    """The axes of a mesh that shard an array."""
    return {name for part in sharding.spec for name in names_of_part(part)}


def _sets(mesh: Any, axes: Sequence[str]) -> dict[tuple[str, ...], int]:
    """All sets of some axes of a mesh, the largest first, and how many devices each has."""
    sets = (some for n in range(len(axes), -1, -1) for some in itertools.combinations(axes, n))
    return {some: devices_along(mesh, some) for some in sets}


def _dividing(mesh: Any, count: int, axes: Sequence[str]) -> tuple[str, ...]:
    """Those axes of a mesh that have the most devices, of which each gets as many of some things."""
    sizes = _sets(mesh, axes)
    return max((some for some in sizes if count % sizes[some] == 0), key=sizes.__getitem__)


def sharing(mesh: Any, count: int, axes: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those axes of a mesh whose devices share some matrices: those that divide the number, and others.

    There are others if they leave a device with less than half as many. The last of the mesh comes first, for
    where several shard one axis of a matrix it is the one that can leave.
    """
    evenly = _dividing(mesh, count, axes)
    sizes = _sets(mesh, [axis for axis in axes if axis not in evenly])
    own = {some: -(-count // (devices_along(mesh, evenly) * size)) for some, size in sizes.items()}
    fewest = min(sizes, key=lambda some: (own[some], sizes[some]))
    return evenly[::-1], fewest[::-1] if 2 * own[fewest] < own[()] else ()


def devices_along(mesh: Any, axes: Sequence[str]) -> int:
    """How many devices there are along some axes of a mesh together."""
    return math.prod(mesh.shape[axis] for axis in axes)


def as_part(axes: tuple[str, ...]) -> Any:
    """Axes of a mesh, as a sharding has them for one axis of an array."""
    return None if not axes else axes[0] if len(axes) == 1 else axes


def _in_full(mesh: Any, parts: list[Any], ndim: int, memory_kind: Any) -> NamedSharding:
    """A sharding as a compiled function gives it back; it would be compiled again for one in another form.

    Where types say how arrays are sharded every axis has its part; elsewhere there is no None at the end.
    """
    if AxisType.Explicit in mesh.axis_types:
        parts = [*parts, *[None] * (ndim - len(parts))]
    else:
        while parts and parts[-1] is None:
            parts.pop()
    return NamedSharding(mesh, PartitionSpec(*parts), memory_kind=memory_kind)


def _is_named(sharding: Any) -> bool:
    return isinstance(sharding, NamedSharding)


def _is_on_host(sharding: Any) -> bool:
    return "host" in (sharding.memory_kind or "")


def _is_explicit(sharding: Any) -> bool:
    return isinstance(sharding, NamedSharding) and AxisType.Explicit in sharding.mesh.axis_types


def mesh_of(x: Any) -> Any:
    """The mesh that an array is on, where the compiler or its type says how; else None.

    Of a traced array it is known where types say it, or inside of `jax.set_mesh`. One device needs no mesh,
    but where types say how arrays are sharded they say it of one device too.
    """
    sharding = jax.typeof(x).sharding if isinstance(x, Tracer) else getattr(x, "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.mesh.empty:
        return None
    alone = sharding.mesh.size == 1 and not _is_explicit(sharding)
    manual = any(kind == AxisType.Manual for kind in sharding.mesh.axis_types)
    return None if alone or manual else sharding.mesh


def typed_sharding(x: Any) -> Any:
    """The sharding that the type of an array says, None where types say nothing of it."""
    abstract = isinstance(x, jax.ShapeDtypeStruct)
    sharding = x.sharding if abstract else jax.typeof(x).sharding
    return sharding if _is_explicit(sharding) else None


def parts_of(x: jax.Array) -> list[Any]:
    """What shards each axis of an array, where its type says it; elsewhere None."""
    typed = typed_sharding(x)
    return [None] * x.ndim if typed is None else list(typed.spec)


def zeros(shapes: Any, beside: Any) -> Any:
    """Zeros of abstract values, sharded as their types say, on the mesh of `beside`; abstract if that is."""
    there = next((x for x in jax.tree.leaves(beside) if typed_sharding(x) is not None), None)

    def make(s: Any) -> Any:
        if isinstance(there, jax.ShapeDtypeStruct):
            return s
        if there is None or typed_sharding(s) is None:
            return jnp.zeros(s.shape, s.dtype)
        return _zeros(s.shape, s.dtype, s.sharding.spec, there)

    return jax.tree.map(make, shapes)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), keep_unused=True)
def _zeros(shape: Any, dtype: Any, spec: Any, beside: jax.Array) -> jax.Array:
    # Outside of a context with a mesh only an argument can say on which devices.
    return jnp.zeros(shape, dtype, device=NamedSharding(jax.typeof(beside).sharding.mesh, spec))


def whole(x: jax.Array) -> jax.Array:
    """An array that is not sharded, where its type says that it is."""
    return resharded(x, typed_sharding(x), [None] * x.ndim)


def sharded_like(x: jax.Array, leaf: jax.Array) -> jax.Array:
    """An array sharded as the type of another one of its shape says."""
    typed = typed_sharding(leaf)
    return resharded(x, typed, [] if typed is None else list(typed.spec))


def sharded_along(x: jax.Array, shape: tuple[int, ...], leaf: jax.Array) -> jax.Array:
    """An array of a shape that keeps some axes of a leaf, sharded as `Placement.slot` has it, by types."""
    typed = typed_sharding(leaf)
    if typed is None or shape == leaf.shape:
        return sharded_like(x, leaf)
    return resharded(x, typed, _kept_parts(shape, typed))


def placed(x: Any, sharding: Any) -> Any:
    """An array, concrete, traced or abstract, where a sharding says."""
    if isinstance(x, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    if not isinstance(x, Tracer):
        return jax.device_put(x, sharding)
    return (jax.sharding.reshard if _is_explicit(sharding) else jax.lax.with_sharding_constraint)(x, sharding)


def spread(sharding: NamedSharding, shape: tuple[int, ...], axes: tuple[str, ...]) -> NamedSharding:
    """A sharding over further axes of a mesh, along the longest axis of an array that they divide.

    An axis that is not sharded yet goes before others. Where they divide none the sharding stays as it is, as
    it does over an axis of the mesh that shards the array already.
    """
    parts = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    further = tuple(name for name in axes if name not in axes_of(sharding))
    longer = [as_part((*names_of_part(part), *further)) for part in parts]
    divided = [i for i, n in enumerate(shape) if n and divides(sharding.mesh, longer[i], n)]
    if not further or not divided:
        return sharding
    best = max(divided, key=lambda i: (parts[i] is None, shape[i]))
    parts[best] = longer[best]
    return _in_full(sharding.mesh, parts, len(shape), sharding.memory_kind)


def placed_as(x: jax.Array, old: jax.Array) -> jax.Array:
    """An array sharded as another one of its shape, whoever decides that: its type, or the compiler.

    The compiler does not know how a decomposition is sharded, and would choose for itself.
    """
    if typed_sharding(old) is not None or not isinstance(x, Tracer) or x.dtype != old.dtype:
        return sharded_like(x, old)
    return shard_alike(x, old)[0]


def split_leading(x: jax.Array, n: int) -> jax.Array:
    """An array with its first axis as n rows; where a row can be sharded as the axis was, it is."""
    size, *others = x.shape
    shape, typed = (n, size // n, *others), typed_sharding(x)
    if typed is None:
        return jnp.reshape(x, shape)
    first, *rest = typed.spec
    rows = NamedSharding(typed.mesh, PartitionSpec(None, first)).shard_shape
    try:
        rows(shape[:2])
    except ValueError:  # there are fewer in a row than devices
        first = None
    gathered = resharded(x, typed, [None, *rest])
    return resharded(jnp.reshape(gathered, shape), typed, [None, first, *rest])


def resharded(x: jax.Array, typed: Any, parts: list[Any]) -> jax.Array:
    """An array sharded by `parts`, one for each axis, on a mesh whose types say how; elsewhere as it is."""
    if typed is None:
        return x
    if parts_of(x) == parts:
        return x
    return jax.sharding.reshard(x, NamedSharding(typed.mesh, PartitionSpec(*parts)))


def reshaped(x: jax.Array, shape: tuple[int, ...], parts: Sequence[Any]) -> jax.Array:
    """An array of another shape, whose axes are sharded by `parts`, as they were, where types say how."""
    typed = typed_sharding(x)
    if typed is None:
        return jnp.reshape(x, shape)
    return jax.lax.reshape(x, shape, out_sharding=NamedSharding(typed.mesh, PartitionSpec(*parts)))


def sharding_of(leaf: Any) -> Any:
    """How a leaf is sharded, None where JAX is free to choose; of a traced one what its type says."""
    if isinstance(leaf, Tracer):
        return typed_sharding(leaf)
    sharding = getattr(leaf, "sharding", None)
    is_free = isinstance(leaf, jax.Array) and not leaf.committed
    return None if is_free and not isinstance(sharding, NamedSharding) else sharding


def _replicated(leaf: Any) -> Any:
    sharding = None if isinstance(leaf, Tracer) else sharding_of(leaf)
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec(), memory_kind=sharding.memory_kind)
    return sharding


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
