"""How a state is sharded, before there is one."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh

from gradtx.core.engine.placement import sharding_of
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.specs import placed_params
from gradtx.core.engine.transform import adapted
from gradtx.core.spec.spec import show

PyTree = Any


def state_sharding(
    tx: AnyTransform,
    params: PyTree,
    specs: PyTree = None,
    mesh: Mesh | AbstractMesh | None = None,
    *,
    memory_kind: str | None = None,
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
    specs = _of_flax(params) if specs is None else specs
    state = adapted(tx).init(placed_params(params, specs, mesh, "state_sharding", memory_kind))
    return jax.tree.map(sharding_of, state)


def _of_flax(params: PyTree) -> PyTree:
    """What Flax keeps beside parameters, in boxes or variables; None where there are none."""

    def speaks(x: Any) -> bool:
        return hasattr(x, "get_metadata") or hasattr(x, "get_partition_spec")

    if not any(map(speaks, jax.tree.leaves(params, is_leaf=speaks))):
        return None
    from gradtx.flax import shardings_of  # Flax is there: something in the parameters is of it

    return shardings_of(params)
