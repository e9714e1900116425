"""Laws about the start, about shards, and about gradients that are zero or not a number."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.core.engine.leaves import flatten, paths, shape_of
from gradtx.testing.case import Case, law, law_of_ours, like_params
from gradtx.testing.compare import (
    PyTree,
    both_leaves,
    close,
    finite,
    identical,
    leaf_paths,
    same_layout,
)


@law
def init_and_update_run(case: Case) -> None:
    """`init` runs, and so does `update`, under `jit` too; whatever else is broken is another law's."""
    if case.trajectory and case.compiled and not case.ours:
        # gradtx compiles what is called as it is, too.
        case.update(case.tx, case.params, case.start, case.grads[0])


@law
def init_aliases_nothing(case: Case) -> None:
    """A new state shares no memory with the parameters or within itself, so that both can be donated."""
    fresh = jax.tree.map(lambda x: jnp.array(x, copy=True), case.params)
    state = case.tx.init(fresh)
    step = case.jitted if case.compiled else jax.jit(functools.partial(case.update, case.tx))
    seen: dict[int, str] = {}
    for path, x in [*_arrays(fresh, "params"), *_arrays(state, "state")]:
        where = x.unsafe_buffer_pointer()
        assert where not in seen, f"{path} shares its memory with {seen[where]}"
        seen[where] = path
    if case.compiled:
        params, _, _ = step(fresh, state, case.grads[0])
        identical(params, case.trajectory[0][0], "params of a donated step")


def _arrays(tree: PyTree, what: str) -> list[tuple[str, jax.Array]]:
    named = zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True)
    return [(f"{what} {path}", x) for path, x in named if isinstance(x, jax.Array) and x.size]


@law
def abstract_init_matches(case: Case) -> None:
    """`init` of shapes gives the layout that `init` of arrays gives, traced or called as it is."""
    shapes = jax.tree.map(shape_of, case.params)
    same_layout(jax.eval_shape(case.tx.init, shapes), case.start, "state of eval_shape")
    if case.ours:
        same_layout(case.tx.init(shapes), case.start, "state of ShapeDtypeStructs")


@law
def zero_gradients_are_finite(case: Case) -> None:
    """Gradients of 0 from the start leave everything finite."""
    zeros = jax.tree.map(lambda g: g if g.dtype == jax.dtypes.float0 else jnp.zeros_like(g), case.grads[0])
    for params, state, updates in case.run(case.start, [zeros, zeros]):
        finite((params, state, updates), "after zero gradients,")


@law_of_ours
def healthy_steps_stay_finite(case: Case) -> None:
    """Nothing inside a healthy step is Inf or NaN: `jax.debug_infs` and `jax.debug_nans` let it pass."""
    # Without jit JAX looks at each operation, not at results alone.
    with jax.debug_infs(True), jax.debug_nans(True), jax.disable_jit():
        case.run(case.tx.init(case.params), case.grads[:2], step=functools.partial(case.update, case.tx))


@law
def nan_stays_in_its_leaf(case: Case) -> None:
    """A NaN in one leaf's gradient reaches no other leaf."""
    for bad in case.trainable:
        poisoned = case.with_leaf(case.grads[0], bad, lambda g: jnp.full_like(g, math.nan))
        for params, state, updates in case.run(case.start, [case.grads[0], poisoned, case.grads[0]]):
            for i in case.trainable:
                if i == bad:
                    continue
                where = f"leaf {paths(case.params)[i]} after a NaN in {paths(case.params)[bad]}:"
                finite((flatten(params)[0][i], flatten(updates)[0][i]), where)
                if case.ours:
                    finite(case.leaf_slots(state, i), f"{where} slots")


@law
def sharded_equals_unsharded(case: Case) -> None:
    """Parameters sharded over devices: the state is sharded as they are and stays so; the same result."""
    sizes = [jnp.shape(flatten(case.params)[0][i])[:1] for i in case.trainable]
    # As many devices as can share the first axis of a leaf.
    counts = [n for n in range(len(jax.devices()), 0, -1) if any(s and s[0] and s[0] % n == 0 for s in sizes)]
    devices = jax.devices()[: counts[0]] if counts else jax.devices()
    mesh = jax.sharding.Mesh(np.array(devices), ("shards",))
    spec = jax.sharding.PartitionSpec

    def placed(x: Any) -> Any:
        if getattr(x, "dtype", None) == jax.dtypes.float0:
            return x
        # On an axis of one device JAX gives what was sharded back as if it were not.
        divides = len(devices) > 1 and jnp.ndim(x) and x.shape[0] and x.shape[0] % len(devices) == 0
        return jax.device_put(
            jnp.array(x, copy=True), jax.sharding.NamedSharding(mesh, spec("shards") if divides else spec())
        )

    params = jax.tree.map(placed, case.params)
    state = case.tx.init(params)
    if case.ours:
        _sharded_like(case, state, params)
    before = jax.tree.map(lambda x: x.sharding, state)
    old = case.params
    step: Any = jax.jit(functools.partial(case.update, case.tx))
    for i, g in enumerate(case.grads[:2]):
        params, state, _ = step(params, state, jax.tree.map(placed, g))
        expected, _, updates = case.trajectory[i]
        close(params, expected, f"params of step {i}", old, like_params(updates, old), **case.rounding)
        old = expected
        if case.ours:
            for path, x, s in zip(
                leaf_paths(state), jax.tree.leaves(state), jax.tree.leaves(before), strict=True
            ):
                assert x.sharding.is_equivalent_to(s, x.ndim), f"state {path}: {s} became {x.sharding}"
    if case.ours:
        assert step._cache_size() <= 1, f"{step._cache_size()} programs for two sharded steps"


def _sharded_like(case: Case, state: PyTree, params: PyTree) -> None:
    for i in case.trainable:
        p = flatten(params)[0][i]
        for path, slot in case.leaf_slots(state, i).items():
            if slot is not None and slot.shape == p.shape:
                assert slot.sharding == p.sharding, f"{path} is placed as {slot.sharding}, not {p.sharding}"


@law_of_ours
def explicit_shardings_stay(case: Case) -> None:
    """On a mesh with explicit axes, where the type of an array says how it is sharded, no type changes."""
    axes, types = ("x", "y"), (AxisType.Explicit,) * 2
    # Types are traced alone: it compiles nothing, and needs no devices.
    abstract: Any = AbstractMesh((2, 2), axes, axis_types=types)

    def spec(x: Any) -> PartitionSpec:
        names = [*axes, *[None] * x.ndim][: x.ndim]
        return PartitionSpec(*(a if n and n % 2 == 0 else None for a, n in zip(names, x.shape, strict=True)))

    def typed(x: Any) -> Any:
        sharding = NamedSharding(abstract, spec(x))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    params, grads = (jax.tree.map(typed, tree) for tree in (case.params, case.grads[0]))
    with jax.sharding.use_abstract_mesh(abstract):
        state = jax.eval_shape(case.tx.init, params)
        update = functools.partial(case.update, case.tx)
        new, after, updates = jax.eval_shape(update, params, state, grads)
        apply = functools.partial(gradtx.apply_gradients, case.tx, **case.extra)
        applied, applied_state = jax.eval_shape(apply, grads, state, params)
    _same_specs(new, params, "params")
    _same_specs(after, state, "state")
    given, got = (flatten(tree)[0] for tree in (grads, updates))
    for i in case.trainable:
        _same_specs(got[i], given[i], f"update of {paths(case.params)[i]},")
    _same_specs(applied, params, "params of apply_gradients")
    _same_specs(applied_state, state, "state of apply_gradients")
    if len(jax.devices()) >= 4:
        mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), axes, axis_types=types)

        def placed(x: Any) -> jax.Array:
            return jax.device_put(jnp.array(x, copy=True), NamedSharding(mesh, spec(x)))

        made = case.tx.init(jax.tree.map(placed, case.params))
        _same_specs(made, state, "state that init makes")
        for path, x in zip(leaf_paths(made), jax.tree.leaves(made), strict=True):
            # A step would be compiled again for another form of the same.
            spec_in_full = PartitionSpec(*_parts(x))
            assert x.sharding.spec == spec_in_full, f"state {path}: {x.sharding.spec} is not {spec_in_full}"


def _same_specs(actual: PyTree, expected: PyTree, what: str) -> None:
    for path, x, y in both_leaves(actual, expected):
        one, other = _parts(x), _parts(y)
        assert one == other, f"{what} {path}: sharded over {other} became {one}"


def _parts(x: Any) -> list[Any]:
    """What each axis of an array is sharded over."""
    parts = [] if x.sharding is None else list(x.sharding.spec)
    return [*parts, *[None] * (x.ndim - len(parts))]
