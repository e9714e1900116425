"""Parameters without their values, sharded on a mesh as specs say."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.meshes import shown
from gradtx.core.engine.placement import divides, sharding_of
from gradtx.core.spec.spec import show

PyTree = Any


def placed_params(
    params: PyTree,
    specs: PyTree,
    mesh: Any,
    of: str,
    memory_kind: str | None = None,
) -> PyTree:
    """The parameters without their values, sharded as was said of them, and else as they are.

    Args:
        params: arrays or abstract ones.
        specs: a tree like them, or a prefix of one, of specs and shardings; None for what is as it is.
        mesh: the mesh of the specs; by default the one that the parameters are on.
        of: the function that was called, for errors.
        memory_kind: the memory that they are to be in, by default their own.
    """
    leaves, structure = lv.flatten(params)
    said = _said(specs, params, of)
    found = [
        None if x is None else _Leaf(path, lv.shape_of(x), sharding_of(x), spec, of)
        for path, x, spec in zip(lv.paths(params), leaves, said, strict=True)
    ]
    if mesh is None:
        mesh = next((leaf.mesh for leaf in found if leaf and leaf.mesh), None)
    return structure.unflatten([leaf and leaf.placed(mesh, memory_kind) for leaf in found])


def _said(specs: PyTree, params: PyTree, of: str) -> list[Any]:
    """What is said of each leaf: a spec, a sharding or nothing."""
    try:
        said = lv.broadcast_prefix(specs, params)
    except ValueError as error:
        raise ValueError(
            f"{of}: {lv.misfit('specs has', specs, params)}. Give a tree like the parameters, or a "
            f"prefix of it, of PartitionSpecs: PartitionSpec('data', None), and no tuple."
        ) from error
    for path, spec in zip(lv.paths(params), said, strict=True):
        if not (spec is None or isinstance(spec, PartitionSpec | Sharding)):
            raise TypeError(
                f"{of}: specs has {show(spec)} for the leaf {path!r}. Give a PartitionSpec, a "
                f"sharding, or None for what is sharded as it is."
            )
    return said


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """One parameter.

    Attributes:
        path: where it stands.
        form: its shape and dtype.
        own: how it is sharded, None where that is free.
        said: a spec or a sharding for what is remembered of it, None where nothing was said.
        of: the function that was called, for errors.
    """

    path: str
    form: jax.ShapeDtypeStruct
    own: Any
    said: Any
    of: str

    @property
    def where(self) -> str:
        """The beginning of an error."""
        return f"{self.of}: the leaf {self.path!r} of shape {self.form.shape}"

    @property
    def mesh(self) -> Any:
        """The mesh that it is on, or is to be on; None if that is not known."""
        return next((s.mesh for s in (self.said, self.own) if isinstance(s, NamedSharding)), None)

    def placed(self, mesh: Any, memory_kind: str | None) -> jax.ShapeDtypeStruct:
        """Itself without its values, sharded on a mesh if there is one."""
        sharding = self.own if self.said is None else self.said
        if isinstance(sharding, PartitionSpec):
            sharding = self._on(mesh, sharding)
        if isinstance(sharding, NamedSharding):
            sharding = self._checked(mesh, sharding)
        elif mesh is not None:  # it is on one device, or nowhere yet
            sharding = NamedSharding(mesh, PartitionSpec())
        if memory_kind is not None:
            if sharding is None:
                raise ValueError(
                    f"{self.where} is on no device yet, so that memory_kind={memory_kind!r} says of none "
                    f"which memory. Put the parameters on devices by jax.device_put, or give a mesh."
                )
            sharding = sharding.with_memory_kind(memory_kind)
        return jax.ShapeDtypeStruct(self.form.shape, self.form.dtype, sharding=sharding)

    def _on(self, mesh: Any, spec: PartitionSpec) -> NamedSharding:
        """The sharding that a spec is on a mesh."""
        if mesh is None:
            raise ValueError(
                f"{self.where} is to be sharded as {spec}, which says nothing without a mesh. Give it, as in "
                f"{self.of}(tx, params, mesh=mesh, specs=specs)."
            )
        return sharding_on(mesh, spec, self.form.shape, self.where, getattr(self.own, "memory_kind", None))

    def _checked(self, mesh: Any, sharding: NamedSharding) -> NamedSharding:
        """A sharding that fits the leaf, on the mesh of all."""
        own = sharding.mesh
        # Abstract meshes of one form may differ in what they know of the devices.
        if own != mesh and (isinstance(own, Mesh) or _form(own) != _form(mesh)):
            raise ValueError(
                f"{self.where} is on {shown(own, mesh)}; the mesh of the others, or the one that was given, "
                f"is {shown(mesh, own)}. Put all parameters on one mesh by jax.device_put, or give specs for "
                f"all."
            )
        return sharding_on(mesh, sharding.spec, self.form.shape, self.where, sharding.memory_kind)


def _form(mesh: Any) -> Any:
    return mesh.shape_tuple, mesh.axis_types


def sharding_on(
    mesh: Any, spec: PartitionSpec, shape: tuple[int, ...], where: str, memory_kind: Any = None
) -> NamedSharding:
    """A spec on a mesh, which fits an array of a shape; an error begins with where that is."""
    for axis in (axis for part in spec for axis in (part if isinstance(part, tuple) else (part,))):
        if axis is not None and axis not in mesh.axis_names:
            raise ValueError(
                f"{where} is to be sharded as {spec}, but the mesh has no axis {axis!r}. It has "
                f"{', '.join(map(repr, mesh.axis_names))}; a logical name of Flax needs a rule, as in "
                f"flax.linen.logical_axis_rules([({axis!r}, {mesh.axis_names[0]!r})])."
            )
    try:
        sharding = NamedSharding(mesh, spec, memory_kind=memory_kind)
    except Exception as error:
        raise ValueError(f"{where} cannot be sharded as {spec}: {error}") from error
    if len(spec) > len(shape):
        raise ValueError(
            f"{where} has fewer axes than {spec} has parts. Give one part for each axis, or fewer."
        )
    for axis, (part, size) in enumerate(zip(spec, shape, strict=False)):
        if not divides(mesh, part, size):
            raise ValueError(
                f"{where} cannot be sharded as {spec}: the devices along {part!r} of {shown(mesh)} do not "
                f"divide its axis {axis}, of {size:,} elements. Shard another axis, or none: "
                f"PartitionSpec()."
            )
    return sharding
