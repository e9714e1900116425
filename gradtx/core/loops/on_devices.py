"""Loops where a program runs on several devices: each works on its own shards, and nothing is moved."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec


def is_local(ctx: Any) -> bool:
    """Whether what is lowered works on arrays of one device, as it does inside of `jax.shard_map`."""
    context = ctx.module_context.axis_context
    manual = getattr(context, "manual_axes", None)
    if manual is not None:
        return set(manual) == set(context.mesh.axis_names)
    return getattr(context, "num_devices", 1) == 1


def is_divided(ctx: Any) -> bool:
    """Whether the compiler alone divides the arrays of what is lowered."""
    return getattr(ctx.module_context.axis_context, "device_assignment", None) is not None


def on_shards(call: Callable[..., list[Any]], group: Any) -> Callable[..., list[Any]]:
    """A call that the compiler divides: what is of a leaf as what is written over, or else the first."""

    def shardings(mesh: Any, given: Any) -> tuple[list[Any], list[Any]]:
        """Those of the operands and of the results."""
        whole = NamedSharding(mesh, PartitionSpec())
        taken, made = [whole] * group.before, []
        for leaf, arrays in group.of_leaves(given):
            lead = next((i for i in leaf.in_place if i is not None), 0)
            own = arrays[lead].sharding
            taken += [own if x.shape == arrays[lead].shape else whole for x in arrays]
            made += [own] * len(leaf.makes)
        return taken, made

    def partition(mesh: Any, given: Any, results: Any) -> Any:
        taken, made = shardings(mesh, given)
        return mesh, call, made, tuple(taken)

    def infer(mesh: Any, given: Any, results: Any) -> Any:
        return shardings(mesh, given)[1]

    function = custom_partitioning(lambda *operands: call(*operands))
    function.def_partition(
        partition=partition, infer_sharding_from_operands=infer, sharding_rule=_rule(group)
    )
    return function


def _rule(group: Any) -> str:
    """That elements of one place belong together, in the words of Shardy."""
    names = (f"d{i}" for i in itertools.count())
    taken, made = [next(names), *[""] * group.shared], []
    for leaf in group.leaves:
        types = leaf.traced.in_avals[len(leaf.traced.in_avals) - group.arrays :]
        axes = " ".join(next(names) for _ in types[0].shape)
        taken += [axes if x.shape == types[0].shape else "" for x in types]
        made += [axes] * len(leaf.makes)
    return f"{', '.join(taken)} -> {', '.join(made)}"
