"""What an optimizer takes of the devices of a mesh, before there is one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.placement import axes_of, sharding_of
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.transform import adapted, apply_gradients
from gradtx.core.loops.choice import by_xla
from gradtx.core.spec.spec import show
from gradtx.formulas.trace import axes_of_shards, composed
from gradtx.inspect.explanation import Exchange, Explanation, Replicated
from gradtx.inspect.kept_slots import KeptSlot, kept_of, kept_of_state, kept_slots
from gradtx.inspect.survey import attach, checked_arguments, survey
from gradtx.inspect.traced_costs import costs_of, nbytes_on_one
from gradtx.inspect.typed_params import typed_params

PyTree = Any


def explain(
    tx: AnyTransform,
    params: PyTree,
    mesh: Mesh | AbstractMesh | None = None,
    *,
    specs: PyTree = None,
    **extra: Any,
) -> Explanation:
    """What an optimizer takes of the devices of a mesh: memory, exchanges and arithmetic.

    Nothing is compiled or allocated: the parameters may be of any size, and the mesh of devices that are not
    there. The update is traced with types that say how each value is sharded, and read. What the devices send
    each other is what the compiled step has them send, on a mesh with explicit axes; with automatic axes too,
    unless the compiler chooses to shard something otherwise than its operands are.

    An exchange that the compiler joins with others counts as many as there are arrays in it. The gradients
    are taken to be there, sharded as their parameters: their sum over the devices that share a batch is the
    model's.

    Args:
        tx: a transform of any library.
        params: the parameters, arrays or `jax.ShapeDtypeStruct`s.
        mesh: the mesh of `specs`, a `jax.sharding.Mesh` or an `AbstractMesh`; by default the one that the
            parameters are on. On another one than that they are taken to be sharded along the axes of the
            same names.
        specs: as for `state_sharding`: how the parameters are sharded, by default as they are.
        **extra: what some transforms need, such as `value=`.

    Returns:
        An `Explanation`, which prints as a table of 100 columns; what it says can be read as attributes too.

    Raises:
        ValueError: the specs do not fit, or `init` or `update` refuse what they are given.
        TypeError: `tx` is no transform, or `mesh` is no mesh.

    Examples:
        >>> import gradtx, jax
        >>> from jax.sharding import AbstractMesh, PartitionSpec
        >>> params = {
        ...     "kernel": jax.ShapeDtypeStruct((8192, 4096), "float32"),
        ...     "bias": jax.ShapeDtypeStruct((4096,), "float32"),
        ... }
        >>> specs = {"kernel": PartitionSpec("data", "model"), "bias": PartitionSpec()}
        >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1, momentum=0.9))
        >>> print(gradtx.explain(tx, params, AbstractMesh((64, 8), ("data", "model")), specs=specs))
        2 leaves, 33,558,528 parameters, on 512 devices: 64 'data' x 8 'model'
        <BLANKLINE>
        kept             dtype     in all  by a device
        parameters     float32  128.0 MiB    272.0 KiB
        state                   128.0 MiB    272.0 KiB
          trace.trace  float32  128.0 MiB    272.0 KiB
          numbers                    20 B         20 B
        <BLANKLINE>
        exchanged in an update        kind  along    times  a device gets
        clip_by_global_norm     all-reduce   data        1            4 B
        clip_by_global_norm     all-reduce   data  up to 1            4 B
        clip_by_global_norm     all-reduce  model        1            4 B
        clip_by_global_norm     all-reduce  model  up to 1            4 B
        <BLANKLINE>
        a device computes 626,714 to 835,626 operations an update
        <BLANKLINE>
        replicated along data, model, since they are sharded so: 16.0 KiB of parameters (bias)
    """
    checked_arguments("explain", tx, params, None)
    if mesh is not None and not hasattr(mesh, "axis_names"):
        raise TypeError(f"explain: mesh must be a jax.sharding.Mesh or an AbstractMesh, got {show(mesh)}.")
    params = typed_params(params, mesh, specs, "explain")
    found = next((s.mesh for s in map(sharding_of, jax.tree.leaves(params)) if s is not None), None)
    # A mesh that the caller has set is not the one that types speak of here; an empty one sets none.
    with jax.set_mesh(Mesh(np.empty((), object), ())):
        return _explained(tx, params, found, extra)


def _explained(tx: Any, params: PyTree, mesh: Any, extra: dict[str, Any]) -> Explanation:
    """What it takes with parameters whose types say how they are sharded on a mesh."""
    state = adapted(tx).init(params)
    functions = {name: x for name, x in extra.items() if callable(x)}
    arrays = {name: x for name, x in extra.items() if name not in functions}

    def update(grads: PyTree, state: Any, params: PyTree, arrays: dict[str, Any]) -> Any:
        return apply_gradients(tx, grads, state, params, **arrays, **functions)

    with by_xla():
        traced = jax.make_jaxpr(update, axis_env=axes_of_shards(composed(tx)))(params, state, params, arrays)
    costs, level = costs_of(traced), survey(tx, params)
    attach(level, tx, state)
    leaves = [x for x in jax.tree.leaves(params) if lv.is_trainable_leaf(x)]
    slots = list(kept_slots(level))
    of_state, kept = kept_of_state(state, slots)
    return Explanation(
        axes={} if mesh is None else dict(mesh.shape),
        leaves=len(leaves),
        elements=sum(math.prod(x.shape) for x in leaves),
        parameters=kept_of("parameters", leaves),
        state=of_state,
        slots=kept,
        exchanges=_exchanges(costs.sent),
        least_flops=costs.least,
        most_flops=costs.most,
        open_loops=costs.open_loops,
        replicated=tuple(_replicated(params, slots)),
        unknown=tuple(sorted(costs.unknown)),
        remarks=tuple(adapted(tx).remarks(params)),
    )


def _exchanges(sent: dict[Any, int]) -> tuple[Exchange, ...]:
    """The exchanges of one kind and of one transform together."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for one, times in sent.items():
        entry = found.setdefault((one.where, one.kind, one.axes, one.sometimes), [0, 0])
        entry[0] += times
        entry[1] += times * one.nbytes
    return tuple(
        Exchange(where, kind, axes, times, nbytes, sometimes)
        for (where, kind, axes, sometimes), (times, nbytes) in sorted(found.items())
    )


def _replicated(params: PyTree, slots: list[KeptSlot]) -> Iterator[Replicated]:
    """What several devices keep the same of: parameters, and slots that are not sharded as these are."""
    leaves = dict(zip(lv.paths(params), lv.flatten(params)[0], strict=True))
    groups: dict[tuple[str, tuple[str, ...], str], dict[str, int]] = {}
    for path, x in leaves.items():
        if lv.is_trainable_leaf(x) and (axes := _same_along(x)):
            groups.setdefault(("parameters", axes, "they are sharded so"), {})[path] = nbytes_on_one(x)
    for slot in slots:
        for kept, x in ((one, x) for one in slot.arrays for x in one.arrays):
            axes, leaf = _same_along(x), None if kept.leaf is None else leaves.get(kept.leaf)
            if not axes or math.prod(x.shape) <= 1:
                continue
            if slot.is_stacked:
                reason = "they divide neither the number of matrices nor their rows"
            elif leaf is None:
                reason = "it is of the whole tree"
            elif x.shape == leaf.shape or kept.scales is not None:
                if set(axes) <= set(_same_along(leaf)):
                    continue
                reason = "the transform makes it so" if kept.scales is None else "its blocks are not cut so"
            else:
                reason = "no axis that they shard is kept"
            group = groups.setdefault((slot.name, axes, reason), {})
            group[kept.path] = group.get(kept.path, 0) + nbytes_on_one(x)
    for (what, axes, reason), found in groups.items():
        yield Replicated(what, axes, reason, tuple(found), sum(found.values()))


def _same_along(x: Any) -> tuple[str, ...]:
    """The axes of several devices along which all devices have the same of an array."""
    sharding = sharding_of(x)
    if not isinstance(sharding, NamedSharding):
        return ()
    used, shape = axes_of(sharding), sharding.mesh.shape
    return tuple(axis for axis in sharding.mesh.axis_names if axis not in used and shape[axis] > 1)
