"""Shards: what varies over the manual axes of a mesh, as inside `jax.shard_map`, and sums over them.

Types say over which axes an array varies. They say nothing under `jax.pmap`, nor with `check_vma=False`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")

Axes = str | tuple[str, ...] | None
"""Names of mesh axes, as an argument `axis_name` has them."""


def is_manual() -> bool:
    """Whether an axis of the mesh is manual, as inside `jax.shard_map`: elsewhere nothing varies."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def varying(*trees: Any) -> frozenset[str]:
    """The manual mesh axes over which some of the arrays in some trees vary."""
    if not is_manual():
        return frozenset()
    return frozenset[str]().union(*(varying_by_type(jax.typeof(x)) for x in jax.tree.leaves(trees)))


def varying_by_type(aval: Any) -> frozenset[str]:
    """The manual mesh axes over which values of a type vary."""
    manual = getattr(aval, "manual_axis_type", None)
    return getattr(aval, "vma", frozenset()) if manual is None else manual.varying


def names_of(axis_name: Axes) -> tuple[str, ...]:
    """The names of the axes, one by one."""
    return (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())


def shard_axes(axis_name: Axes, *trees: Any) -> tuple[str, ...]:
    """Those of some axes over which arrays are shards: all that have several where types do not tell."""
    if not axis_name:
        return ()
    own = varying(*trees)

    def has_shards(axis: str) -> bool:
        return axis in own or not (_is_told(axis) or _has_one(axis))

    return tuple(filter(has_shards, names_of(axis_name)))


def _is_told(axis: str) -> bool:
    """Whether types say what varies over an axis: then its index does."""
    try:
        return axis in varying(jax.lax.axis_index(axis))
    except NameError as error:
        raise ValueError(
            f"axis_name says {axis!r}, and there is no such axis here. Call update inside of jax.shard_map "
            f"or jax.pmap over it; outside leave axis_name out, since an array is whole there, however it "
            f"is sharded."
        ) from error


def _has_one(axis: str) -> bool:
    """Whether there is one shard along an axis."""
    return isinstance(size := jax.lax.psum(1, axis), int) and size == 1


def summed(x: T, axes: tuple[str, ...]) -> T:
    """The sum over the shards along some axes; of an int too."""
    return jax.lax.psum(x, axes) if axes else x


def over_shards(x: T, axis_name: Axes, *trees: Any) -> T:
    """The sum of what each shard has made of its part of some arrays; itself where they are no shards."""
    return summed(x, shard_axes(axis_name, *trees))


def on_some_shard(flags: jax.Array, axis_name: Axes, *trees: Any) -> jax.Array:
    """Whether flags that each shard has made of its part of some arrays are true on one of them."""
    axes = shard_axes(axis_name, *trees)
    return summed(flags.astype(jnp.int32), axes) > 0 if axes else flags


def key_of_shard(key: jax.Array, *trees: Any) -> jax.Array:
    """A random key that is another one for each shard of some arrays."""
    for axis in sorted(varying(*trees)):
        key = jax.random.fold_in(key, jax.lax.axis_index(axis))
    return key


def vary(x: Any, axes: frozenset[str]) -> Any:
    """A value that may vary over some axes, whatever it is."""
    missing = tuple(sorted(axes - varying(x)))
    if not missing:
        return x
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, missing, to="varying")
    return jax.lax.pvary(x, missing)  # pyright: ignore[reportAttributeAccessIssue]  # before JAX 0.8


def barrier(tree: T, *others: Any) -> T:
    """`jax.lax.optimization_barrier` with some others, behind which nothing varies over more axes."""
    if not is_manual():
        return jax.lax.optimization_barrier((tree, others))[0]
    leaves, structure = jax.tree.flatten(tree)
    alike: dict[frozenset[str], list[int]] = {}
    for i, x in enumerate(leaves):
        alike.setdefault(varying(x), []).append(i)
    for places in alike.values():
        passed, _ = jax.lax.optimization_barrier(([leaves[i] for i in places], others))
        for i, x in zip(places, passed, strict=True):
            leaves[i] = x
    return jax.tree.unflatten(structure, leaves)


def _results_vary(function: Callable[..., Any], *args: Any) -> Any:
    """For each array that a function gives, the axes over which it varies."""
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    return jax.tree.unflatten(jax.tree.structure(shapes), map(varying_by_type, traced.out_avals))


def _union(*axes: Any) -> Any:
    return jax.tree.map(lambda *each: frozenset().union(*each), *axes)


def cond(condition: Any, true: Callable[..., Any], false: Callable[..., Any], *args: Any) -> Any:
    """`jax.lax.cond` of branches whose results may vary over different axes."""
    branches = true, false
    if is_manual():
        axes = _union(*(_results_vary(branch, *args) for branch in branches))

        def alike(branch: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *args: jax.tree.map(vary, branch(*args), axes)

        branches = alike(true), alike(false)
    return jax.lax.cond(condition, *branches, *args)


def _varying_as_after(turn: Callable[[T], T], start: T) -> T:
    """What a loop starts with, which may vary as what any number of turns makes of it."""
    axes, more = None, jax.tree.map(varying, start) if is_manual() else None
    while axes != more:
        axes = more
        start = jax.tree.map(vary, start, axes)
        more = _union(axes, _results_vary(turn, start))
    return start


def repeat(times: jax.Array, body: Callable[[Any, T], T], start: T) -> T:
    """`jax.lax.fori_loop` from 0, of values that may come to vary over more axes than at the start."""
    return jax.lax.fori_loop(0, times, body, _varying_as_after(lambda carry: body(times, carry), start))


def scan(body: Callable[[T, Any], tuple[T, Any]], start: T, xs: Any) -> tuple[T, Any]:
    """`jax.lax.scan` of values that may come to vary over more axes than at the start."""

    def turn(carry: T) -> T:
        return body(carry, jax.tree.map(lambda x: x[0], xs))[0]

    return jax.lax.scan(body, _varying_as_after(turn, start), xs)
