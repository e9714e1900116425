"""Optimizer state in shards: each of the devices that share a batch keeps a part of it (ZeRO-1)."""

from __future__ import annotations

import contextlib
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from gradtx.core.compose.combine import as_part, chain
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.labels import Labels, said_of_each
from gradtx.core.engine.meshes import shown
from gradtx.core.engine.placement import axes_of, placed, spread, typed_sharding
from gradtx.core.engine.program import Builder
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.specs import sharding_on
from gradtx.core.engine.transform import Call, PyTree, Transform
from gradtx.core.engine.update import State
from gradtx.core.shards import is_manual
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import check_count
from gradtx.core.spec.spec import call_arguments, show
from gradtx.core.spec.words import some

FIELDS = ("inner", "mesh", "axis", "specs", "min_size")


class Lies(NamedTuple):
    """Where a leaf lies outside of the optimizer, and where inside of it."""

    own: NamedSharding
    shard: NamedSharding


class ShardState(Composed):
    """A transform whose state is sharded over axes along which the parameters are not."""

    inner: Composed
    mesh: Mesh | AbstractMesh
    axis: str | tuple[str, ...]
    specs: Labels
    min_size: int

    is_outermost = True

    def __init__(self, inner: Any, mesh: Any, axis: Any, specs: Labels, min_size: int) -> None:
        as_part("shard_state", inner)
        if not isinstance(mesh, Mesh | AbstractMesh):
            raise TypeError(f"shard_state: mesh must be a jax.sharding.Mesh, got {show(mesh)}.")
        axes = (axis,) if isinstance(axis, str) else axis
        if not isinstance(axes, tuple) or not axes or not all(isinstance(a, str) for a in axes):
            raise TypeError(
                f"shard_state: axis must be the name of an axis of the mesh, or a tuple of names, got "
                f"{show(axis)}."
            )
        if len({*axes}) < len(axes):
            raise ValueError(f"shard_state: axis has one axis of the mesh twice: {show(axis)}.")
        for name in axes:
            if name not in mesh.axis_names:
                raise ValueError(
                    f"shard_state: the mesh has no axis {name!r}. There are "
                    f"{', '.join(map(repr, mesh.axis_names))}."
                )
        check_count("shard_state: min_size", min_size, 0)
        inner = inner if isinstance(inner, Composed) else chain(inner)
        self._set(inner=inner, mesh=mesh, axis=axis, specs=specs, min_size=min_size)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return call_arguments("shard_state", {name: getattr(self, name) for name in FIELDS})

    @property
    def _axes(self) -> tuple[str, ...]:
        return (self.axis,) if isinstance(self.axis, str) else self.axis

    def _visit(self, builder: Builder) -> None:
        self.inner._visit(builder)

    def init(self, params: PyTree) -> State:
        """The state, each leaf made in its shards."""
        lie = self._lie(params)
        with self._in_mesh(params):
            return self._kept(self.inner.init(_moved(params, lie, "shard")), params, lie)

    def _step(self, call: Call) -> tuple[PyTree, State]:
        seen = call.grads if call.params is None else call.params
        lie = self._lie(seen)
        grads, params = (_moved(x, lie, "shard") for x in (call.grads, call.params))
        with self._in_mesh(seen):
            result, state = self.inner._step(call._replace(grads=grads, params=params))
            return _moved(result, lie, "own"), self._kept(state, seen, lie)

    def _lie(self, tree: PyTree) -> list[Lies | None]:
        """Where each leaf lies; None for what has no gradient."""
        if is_manual():
            raise ValueError(
                "shard_state: inside of jax.shard_map an array is a shard already. Call init and update "
                "outside of it, under jax.jit, and make only the gradients inside."
            )
        leaves, paths = lv.flatten(tree)[0], lv.paths(tree)
        trainable = [lv.is_trainable_leaf(x) for x in leaves]
        said: list[Any] = [()] * len(leaves)
        if self.specs is not None:
            said = said_of_each(
                self.specs, tree, trainable, "shard_state", "specs", "a PartitionSpec", _is_spec
            )
        found: list[Lies | None] = []
        for x, path, own, is_one in zip(leaves, paths, said, trainable, strict=True):
            if not is_one:
                found.append(None)
                continue
            sharding = self._own(x, path, own[0] if own else None)
            is_small = math.prod(np.shape(x)) < self.min_size
            found.append(Lies(sharding, sharding if is_small else spread(sharding, np.shape(x), self._axes)))
        return found

    def _own(self, x: Any, path: str, said: Any) -> NamedSharding:
        """How a leaf is sharded outside of the optimizer: as it says itself, and else as was said of it."""
        if said is not None and not _is_spec(said):
            raise TypeError(
                f"shard_state: the spec of the leaf {path!r} must be a PartitionSpec, got {show(said)}."
            )
        where = f"shard_state: the leaf {path!r} of shape {np.shape(x)}"
        known = sharding_on(self.mesh, said or PartitionSpec(), np.shape(x), where)
        seen = typed_sharding(x) if isinstance(x, Tracer) else getattr(x, "sharding", None)
        if not isinstance(seen, NamedSharding):
            return known
        if seen.mesh.shape_tuple != self.mesh.shape_tuple:
            raise ValueError(
                f"shard_state: the leaf {path!r} is on {shown(seen.mesh)}, and the state is to be on "
                f"{shown(self.mesh)}. Give shard_state the mesh that the parameters are on."
            )
        if not seen.is_equivalent_to(known, np.ndim(x)) and typed_sharding(x) is None:
            raise ValueError(
                f"shard_state: the leaf {path!r} is sharded as {seen.spec}, and shard_state was told "
                f"{known.spec}. Inside of a compiled step nobody can see how a leaf is sharded, so say it: "
                f"specs={{{path!r}: {seen.spec}}}, or for all leaves a tree of such."
            )
        return seen

    def _kept(self, state: State, tree: PyTree, lie: list[Lies | None]) -> State:
        """A traced state in its shards, where the compiler would decide; any other is there already."""
        traced = any(isinstance(x, Tracer) for x in jax.tree.leaves(tree))
        if not traced or AxisType.Auto not in self.mesh.axis_types:
            return state
        like = self.inner.init(_moved(_shapes(tree), lie, "shard"))
        return jax.tree.map(lambda x, s: placed(x, s.sharding), state, like)

    def remarks(self, params: PyTree) -> list[str]:
        """How much of the state each device keeps, and which leaves it keeps whole."""
        lie = self._lie(params)
        kept = jax.tree.leaves(self.inner.init(_moved(_shapes(params), lie, "shard")))
        on_one = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in kept)
        share = on_one / sum(math.prod(x.shape) * x.dtype.itemsize for x in kept)
        devices = math.prod(self.mesh.shape[name] for name in self._axes)
        said = [
            f"the state is in shards over {show(self.axis)}, of {devices}: a device keeps {share:.1%} of it"
        ]
        whole: dict[str, list[str]] = {}
        for path, x, at in zip(lv.paths(params), lv.flatten(params)[0], lie, strict=True):
            if at is not None and at.own == at.shard:
                whole.setdefault(self._why(np.shape(x), at), []).append(path)
        return said + [f"not sharded further, since {why}: {some(paths)}" for why, paths in whole.items()]

    def _why(self, shape: tuple[int, ...], at: Lies) -> str:
        """Why a leaf is not sharded further."""
        if math.prod(shape) < self.min_size:
            return f"it has fewer than {self.min_size:,} elements"
        if {*self._axes} <= axes_of(at.own):
            return "it is sharded over them already"
        return "they divide no axis of it"

    def _in_mesh(self, tree: PyTree) -> Any:
        """The context in which a traced array tells its mesh."""
        traced = [x for x in jax.tree.leaves(tree) if isinstance(x, Tracer)]
        if not traced or not jax.sharding.get_abstract_mesh().empty:
            return contextlib.nullcontext()
        typed = next((s for x in traced if (s := typed_sharding(x)) is not None), None)
        return jax.sharding.use_abstract_mesh(_abstract(self.mesh if typed is None else typed.mesh))


def _shapes(tree: PyTree) -> PyTree:
    """A tree without the values of what can be trained."""
    return jax.tree.map(lambda x: lv.shape_of(x) if lv.is_trainable_leaf(x) else x, tree)


def _moved(tree: PyTree, lie: list[Lies | None], where: str) -> PyTree:
    """A tree like the parameters, whose leaves lie where they do inside or outside of the optimizer."""
    if tree is None:
        return None
    leaves, structure = lv.flatten(tree)
    if len(leaves) != len(lie):
        return tree  # of which the optimizer says what is wrong with it
    with jax.named_scope("shard_state"):
        moved = [
            x if at is None or x is None else placed(x, getattr(at, where))
            for x, at in zip(leaves, lie, strict=True)
        ]
    return structure.unflatten(moved)


def _is_spec(x: Any) -> bool:
    return isinstance(x, PartitionSpec)


def _abstract(mesh: Mesh | AbstractMesh) -> AbstractMesh:
    return mesh.abstract_mesh if isinstance(mesh, Mesh) else mesh


@builds(ShardState)
def shard_state(
    inner: AnyTransform,
    mesh: Mesh | AbstractMesh,
    axis: str | tuple[str, ...],
    *,
    specs: Labels = None,
    min_size: int = 1024,
) -> Transform:
    """Shards the state of an optimizer over devices that all have the parameters, as ZeRO's first stage does.

    The devices along `axis` share a batch, so that each has all parameters and would keep all of the state.
    Here each keeps its shard of every slot. Gradients are cut into the same shards (where the compiler joins
    that with their sum over the devices, it is a reduce-scatter), each device updates its shard, and what
    has been updated is gathered: the parameters with `apply_gradients`, the updates with `update`. The
    numbers are those without it, up to the order of sums, and so is the layout of the state: a checkpoint
    of one is a checkpoint of the other.

    A leaf is sharded along its longest axis that the devices divide and that nothing else shards; else along
    the longest that they divide further. It stays whole if there is none, or if it has fewer than `min_size`
    elements; `gradtx.describe` lists which. What is sharded over `axis` already, as by FSDP, stays as it is.

    Args:
        inner: the wrapped transform, of any library. It is the whole optimizer: this is the outermost
            transform, around `accumulate`, whose sums are sharded then, `guard` and all others.
        mesh: the mesh that the parameters are on. An abstract one is for planning with abstract parameters.
        axis: the axis of the mesh to shard over, or several.
        specs: how the parameters are sharded over other axes: a `PartitionSpec` for each leaf, as a tree, as
            path patterns, or as a function of (path, leaf). By default they are replicated. Where the mesh
            has explicit axes the types say it.
        min_size: the fewest elements of a leaf that is sharded.

    Returns:
        A transform with the state of `inner`.

    Raises:
        TypeError: the mesh, the axis or a spec is something else.
        ValueError: the mesh has no such axis; at init or update, a leaf is on another mesh, or sharded
            otherwise than `specs` says.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> mesh = jax.make_mesh((jax.device_count(),), ("data",), (jax.sharding.AxisType.Auto,))
        >>> tx = gradtx.shard_state(gradtx.adamw(1e-3), mesh, "data")
        >>> tx.init({"w": jnp.ones((1024, 8))})["slots"]["scale_by_adam"]["mu"]["w"].sharding.spec
        P('data',)

    References:
        Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, 2019,
        https://arxiv.org/abs/1910.02054.
    """
    ...
