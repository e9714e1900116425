"""A leaf stage as loops of C: which leaves can be updated so, and the calls that do it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.engine.kernels import APPLY, LeafCall, LeafKernel, Packing
from gradtx.core.loops.call import LeafLoop, call_loops, leaf_loop
from gradtx.core.loops.compiler import check_machine
from gradtx.core.loops.elementwise import NotElementwise
from gradtx.core.numerics import number_dtype


def in_loops(
    kernel: LeafKernel, calls: list[tuple[int, LeafCall]], values: Any, note: Callable[[Exception, int], None]
) -> dict[int, tuple[Any, Any]]:
    """What a leaf kernel gives for the leaves that loops are made for.

    Args:
        kernel: the kernel.
        calls: what it is called with for each leaf.
        values: the numbers of all rules.
        note: says in an error of which leaf it is.
    """
    check_machine()
    leaves, structure = jax.tree.flatten(values)
    in_vector = tuple(v.dtype == number_dtype() and v.shape == () for v in leaves)
    numbers = [v for v, is_in in zip(leaves, in_vector, strict=True) if is_in]
    shared = [v for v, is_in in zip(leaves, in_vector, strict=True) if not is_in]
    loops: dict[int, tuple[LeafLoop, list[Any]]] = {}
    forms: dict[int, Any] = {}
    for i, call in calls:
        packing = dataclasses.replace(call.packing, structure=structure, packed=in_vector)
        try:
            arrays, found = _loop_of(kernel, call._replace(packing=packing), numbers, shared)
        except Exception as error:
            note(error, i)
            raise
        if not isinstance(found, str):
            loop, forms[i] = found
            loops[i] = loop, arrays
    if not loops:
        return {}
    vector = jnp.stack(numbers) if numbers else jnp.zeros(1, number_dtype())
    made = call_loops(vector, shared, [*loops.values()])
    return {i: forms[i].unflatten(results) for i, results in zip(loops, made, strict=True)}


def _loop_of(kernel: LeafKernel, call: LeafCall, numbers: list[Any], shared: list[Any]) -> tuple[list[Any], Any]:
    """The arrays of a leaf, and a loop with the form of its results, or why there is none.

    It is made once for each type of leaf.
    """
    arrays, form = jax.tree.flatten(call[1:])
    key = call.packing, form, tuple(map(jax.typeof, (*numbers, *shared, *arrays)))
    if key not in kernel.loops:
        try:
            kernel.loops[key] = _made(kernel, call.packing, form, numbers, shared, arrays)
        except NotElementwise as why:
            kernel.loops[key] = str(why)
    return arrays, kernel.loops[key]


def _made(
    kernel: LeafKernel, packing: Packing, form: Any, numbers: list[Any], shared: list[Any], arrays: list[Any]
) -> tuple[LeafLoop, Any]:
    """A loop and the form of its results."""
    forms = []

    def function(numbers: list[Any], shared: list[Any], arrays: list[Any]) -> list[Any]:
        results, made = jax.tree.flatten(kernel.leaf(packing, *form.unflatten(arrays), numbers, shared, None))
        forms.append(made)
        return results

    def over(types: list[Any]) -> dict[int, int]:
        """The parameter and the slots are written over, so that an update needs no other array.

        A gradient is not: where it is needed again, it would have to be copied before.
        """
        _, at_param, at_slots = form.unflatten(range(len(arrays)))
        at_result, at_new = forms[0].unflatten(range(len(types)))
        pairs = [(at_result, at_param)] if packing.finish == APPLY else []
        for old, new in zip(at_slots, at_new, strict=True):
            pairs += [(new[name], old[name]) for name in new or () if isinstance(new[name], int)]
        return {k: i for k, i in pairs if types[k].dtype == arrays[i].dtype}

    return leaf_loop(function, numbers, shared, arrays, over), forms[0]
