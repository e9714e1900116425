"""How a state is sharded, before there is one."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.meshes import sharding_on, shown
from gradtx.core.engine.placement import sharding_of
from gradtx.core.engine.transform import adapted
from gradtx.core.spec.spec import show

PyTree = Any


def state_sharding(
    tx: Any, params: PyTree, specs: PyTree = None, mesh: Any = None, *, memory_kind: str | None = None
) -> PyTree:
    """The sharding of each array of a state, without making it.

    A state that is made as this says is never whole on one device, and is placed as `tx.init` places one
    itself, so that a step is compiled once:

        shardings = gradtx.state_sharding(tx, params)
        state = jax.jit(tx.init, out_shardings=shardings)(params)

    A slot of a parameter's shape is sharded as the parameter, one that keeps some of its axes along these, a
    stack of matrices along itself. In a state of another library, an array is taken to be a parameter's if
    its path ends as the parameter's does and it has its shape. All else, such as the step, is replicated.

    What is remembered of a parameter is sharded as `specs` says; where that says nothing, as the parameter
    is, or as Flax keeps it beside one that is not placed yet, in the box of `nn.with_partitioning` or the
    metadata of an NNX variable. Its metadata `optimizer_sharding` goes before how the parameter is sharded.
    A parameter that has no sharding counts as replicated on the mesh if there is one; otherwise None stands
    in the place of its slots, where `jax.jit` is free to choose. On an abstract mesh the shardings are for
    planning, and for `jax.jit` inside of `jax.set_mesh`.

    Args:
        tx: a transform of any library.
        params: the parameters, arrays or `jax.ShapeDtypeStruct`s; only their shapes, dtypes and shardings
            count, and nothing is computed with them.
        specs: a tree like the parameters, or a prefix of one, of `PartitionSpec`s or shardings, such as how
            the slots are sharded where the parameters are not; None for what is sharded as it is.
        mesh: the mesh of `specs`, a `jax.sharding.Mesh` or an `AbstractMesh`; by default the one that the
            parameters are on.
        memory_kind: the memory that the state is kept in, such as `"pinned_host"`; by default that of the
            parameters.

    Returns:
        A tree like `tx.init(params)` with a sharding in the place of each array, a `NamedSharding` on a mesh.

    Raises:
        ValueError: `specs` is another tree than the parameters, has a spec that does not fit its leaf or the
            mesh, or comes without a mesh; the parameters are on several meshes; or there is a `memory_kind`
            and no sharding.
        TypeError: `tx` is no transform, or something in `specs` is no spec.

    Examples:
        >>> import gradtx, jax
        >>> from jax.sharding import AbstractMesh, PartitionSpec
        >>> mesh = AbstractMesh((64, 8), ("data", "model"))
        >>> params = {"kernel": jax.ShapeDtypeStruct((8192, 4096), "float32")}
        >>> specs = {"kernel": PartitionSpec("data", "model")}
        >>> shardings = gradtx.state_sharding(gradtx.adam(1e-3), params, specs, mesh)
        >>> shardings["slots"]["scale_by_adam"]["mu"]["kernel"].shard_shape((8192, 4096))
        (128, 512)
    """
    if not callable(getattr(tx, "init", None)):
        raise TypeError(f"state_sharding takes the transform first, then the parameters; got {show(tx)}.")
    state = adapted(tx).init(placed_params(params, specs, mesh, memory_kind))
    return jax.tree.map(sharding_of, state)


def placed_params(
    params: PyTree,
    specs: PyTree,
    mesh: Any,
    memory_kind: str | None = None,
    of: str = "state_sharding",
) -> PyTree:
    """The parameters without their values, sharded as was said of them, and else as they are."""
    leaves, structure = lv.flatten(params)
    said = _said(_of_flax(params) if specs is None else specs, params, of)
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


def _of_flax(params: PyTree) -> PyTree:
    """What Flax keeps beside parameters, in boxes or variables; None where there are none."""

    def speaks(x: Any) -> bool:
        return hasattr(x, "get_metadata") or hasattr(x, "get_partition_spec")

    if not any(map(speaks, jax.tree.leaves(params, is_leaf=speaks))):
        return None
    from gradtx.flax import shardings_of  # Flax is there: something in the parameters is of it

    return shardings_of(params)


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
