"""Loops where a program runs on several devices: each works on its own shards, and nothing is moved."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

LOCAL, DIVIDED = "local", "divided"
"""How a call stands in a program: on arrays of one device, or on arrays that the compiler divides."""


def on_devices(ctx: Any) -> str | None:
    """How a call stands in the program that is lowered; None where it is divided in part by the compiler."""
    context = ctx.module_context.axis_context
    manual = getattr(context, "manual_axes", None)
    if manual is not None:  # inside of `jax.shard_map`
        return LOCAL if set(manual) == set(context.mesh.axis_names) else None
    return LOCAL if getattr(context, "num_devices", 1) == 1 else DIVIDED


def divided(call: Any, group: Any) -> Callable[..., Any]:
    """A call that the compiler divides: the arrays of a leaf as the one that is written over, or the first."""

    def plain(*operands: Any) -> list[Any]:
        return call.bind(*operands, group=group, batch=0)

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
        return mesh, plain, made, tuple(taken)

    def infer(mesh: Any, given: Any, results: Any) -> Any:
        return shardings(mesh, given)[1]

    function = custom_partitioning(plain)
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
