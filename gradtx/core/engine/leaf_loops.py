"""A leaf stage as loops of C: which leaves can be updated so, and the calls that do it."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.engine.coded import Coded
from gradtx.core.engine.kernels import APPLY, LeafCall, LeafKernel, Packing
from gradtx.core.loops.c_source import BLOCK, EACH, MOST_AXES, MOST_OF_BLOCK, ONE, Array
from gradtx.core.loops.call import CodedResult, LeafLoop, Traced, call_loops, leaf_loop
from gradtx.core.loops.compiler import check_machine
from gradtx.core.loops.elementwise import NotElementwise
from gradtx.core.numerics import compute_dtype, number_dtype
from gradtx.core.rounding import uniform_at
from gradtx.core.shards import is_manual


@dataclasses.dataclass(frozen=True)
class StageLoops:
    """What does a stage of an update in which leaves are worked on one by one.

    Attributes:
        transforms: the names of its transforms.
        loops: the paths of the leaves that a loop works on.
        by_xla: the paths of the others, by the reason.
    """

    transforms: tuple[str, ...]
    loops: tuple[str, ...]
    by_xla: dict[str, tuple[str, ...]]


_RECORD = contextvars.ContextVar[list[StageLoops] | None]("gradtx.stage_loops", default=None)


@contextlib.contextmanager
def recorded() -> Iterator[list[StageLoops]]:
    """A context in which it is written down what does each stage of the updates that are traced."""
    found: list[StageLoops] = []
    token = _RECORD.set(found)
    try:
        yield found
    finally:
        _RECORD.reset(token)


def record(transforms: Iterable[str], paths: Callable[[], list[str]], why: Mapping[int, str | None]) -> None:
    """Writes down for each leaf of a stage why it is no loop's, or None, if someone asks for it."""
    transforms = tuple(dict.fromkeys(transforms))
    if (found := _RECORD.get()) is None or not transforms:
        return
    names = paths()
    by_reason: dict[str | None, list[str]] = {}
    for i, reason in why.items():
        by_reason.setdefault(reason, []).append(names[i])
    loops = tuple(by_reason.pop(None, ()))
    by_xla = {reason: tuple(leaves) for reason, leaves in by_reason.items() if reason is not None}
    found.append(StageLoops(transforms, loops, by_xla))


def in_loops(
    kernel: LeafKernel, calls: list[tuple[int, LeafCall]], values: Any, note: Callable[[Exception, int], None]
) -> tuple[dict[int, tuple[Any, Any]], dict[int, str]]:
    """What a leaf kernel gives for the leaves that loops are made for, and why there is none for the others.

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
    why: dict[int, str] = {}
    if calls:
        first = calls[0][1]
        packing = dataclasses.replace(first.packing, structure=structure, packed=in_vector)
        _forget_what_was_cleared(kernel, first._replace(packing=packing), numbers, shared)
    for i, call in calls:
        packing = dataclasses.replace(call.packing, structure=structure, packed=in_vector)
        try:
            arrays, found = _loop_of(kernel, call._replace(packing=packing), numbers, shared)
        except Exception as error:
            note(error, i)
            raise
        if isinstance(found, str):
            why[i] = found
        else:
            loop, forms[i] = found
            loops[i] = loop, arrays
    if not loops:
        return {}, why
    vector = jnp.stack(numbers) if numbers else jnp.zeros(1, number_dtype())
    made = call_loops(vector, shared, [*loops.values()])
    return {i: forms[i].unflatten(results) for i, results in zip(loops, made, strict=True)}, why


def _loop_of(
    kernel: LeafKernel, call: LeafCall, numbers: list[Any], shared: list[Any]
) -> tuple[list[Any], Any]:
    """The arrays of a leaf, and a loop with the form of its results, or why there is none.

    It is made once for each type of leaf.
    """
    arrays, form, key = _type_of(call, numbers, shared)
    if key not in kernel.loops:
        traced = kernel.traced.trace(call.packing, form, numbers, shared, arrays)
        try:
            made: Any = _made(kernel, call.packing, form, traced, numbers, shared, arrays)
        except NotElementwise as why:
            made = str(why)
        kernel.loops[key] = traced.jaxpr, made
    return arrays, kernel.loops[key][1]


def _type_of(call: LeafCall, numbers: list[Any], shared: list[Any]) -> tuple[list[Any], Any, Any]:
    """The arrays of a leaf, their form, and what a loop depends on."""
    arrays, form = jax.tree.flatten(call[1:])
    return arrays, form, (call.packing, form, tuple(map(jax.typeof, (*numbers, *shared, *arrays))))


def _forget_what_was_cleared(
    kernel: LeafKernel, call: LeafCall, numbers: list[Any], shared: list[Any]
) -> None:
    """After `jax.clear_caches` nothing is known of a kernel, as whoever changes code by hand relies on."""
    arrays, form, key = _type_of(call, numbers, shared)
    if (known := kernel.loops.get(key)) is None:
        return
    if kernel.traced.trace(call.packing, form, numbers, shared, arrays).jaxpr is not known[0]:
        kernel.loops.clear()


def _made(
    kernel: LeafKernel,
    packing: Packing,
    form: Any,
    tracing: Any,
    numbers: list[Any],
    shared: list[Any],
    arrays: list[Any],
) -> tuple[LeafLoop, Any]:
    """A loop and the form of its results."""
    if not arrays[0].size:
        raise NotElementwise("the leaf is empty")
    shape, traced, form_made = arrays[0].shape, tracing.jaxpr, jax.tree.structure(tracing.out_info)
    at, made_at = form.unflatten(range(len(arrays))), form_made.unflatten(range(len(traced.out_avals)))
    over = _written_over(packing, at, made_at)
    over = {k: i for k, i in over.items() if traced.out_avals[k].dtype == arrays[i].dtype}
    slots: list[Coded] = [x for x in _leaves(at) if isinstance(x, Coded)]
    results: list[Coded] = [x for x in _leaves(made_at) if isinstance(x, Coded)]
    if not slots:
        if any(x.shape not in ((), shape) for x in arrays):
            raise NotElementwise("what is remembered of a leaf has another shape than the leaf")
        kinds = tuple(Array(str(x.dtype), EACH if x.shape == shape else ONE) for x in arrays)
        return leaf_loop(Traced(traced, kinds, shape, over, traced), numbers, shared), form_made
    of_blocks = {slot.scales for slot in slots if slot.scales is not None}
    _check_coded(slots, [arrays[i] for i in of_blocks], shape)

    def first(numbers: list[Any], shared: list[Any], arrays: list[Any], place: Any) -> list[Any]:
        stack, param, slots = form.unflatten(arrays)
        wide = [own and {name: _wide(x) for name, x in own.items()} for own in slots]
        made, stored = kernel.leaf(packing, stack, param, wide, numbers, shared, None)
        for old, new in zip(slots, stored, strict=True):
            for name, slot in (old or {}).items():
                if isinstance(slot, Coded) and new is not None:
                    new[name] = _first_of(slot, new[name], place)
        return jax.tree.leaves((made, stored))

    kinds = tuple(
        Array(str(x.dtype), BLOCK if i in of_blocks else EACH if x.shape == shape else ONE)
        for i, x in enumerate(arrays)
    )
    elements = [
        jax.ShapeDtypeStruct(shape if kind.of == EACH else (), x.dtype)
        for x, kind in zip(arrays, kinds, strict=True)
    ]
    plain = [[jax.ShapeDtypeStruct((), x.dtype) for x in given] for given in (numbers, shared)]
    place = jax.ShapeDtypeStruct(shape, jnp.uint32)
    firsts = jax.make_jaxpr(first)(*plain, elements, place)
    coded = tuple(
        _coded_result(slot, result, arrays, shape)
        for slot, result in zip(slots, results, strict=True)
        if slot.scales is not None
    )
    return leaf_loop(Traced(traced, kinds, shape, over, firsts, coded), numbers, shared), form_made


def _leaves(tree: Any) -> list[Any]:
    """The leaves, of which what is in a format is one."""
    return jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, Coded))


def _written_over(packing: Packing, at: Any, made_at: Any) -> dict[int, int]:
    """The parameter and the slots are written over, so that an update needs no other array.

    A gradient is not: where it is needed again, it would have to be copied before.
    """
    pairs = [(made_at[0], at[1])] if packing.finish == APPLY else []
    for old, new in zip(at[2], made_at[1], strict=True):
        for name in new or ():
            if isinstance(new[name], Coded):
                pairs += [(new[name].values, old[name].values), (new[name].scales, old[name].scales)]
            else:
                pairs.append((new[name], old[name]))
    return {k: i for k, i in pairs if isinstance(k, int)}


def _check_coded(slots: list[Coded], scales: list[Any], shape: tuple[int, ...]) -> None:
    """Raises where slots are in formats that loops are not made for."""
    for slot in slots:
        if slot.format.blockwise is None and slot.format.scaled:
            raise NotElementwise(f"a slot is kept as {slot.format.name}")
        if slot.seed is not None and is_manual():
            raise NotElementwise("it rounds at random inside of shard_map")
    counts = {x.shape for x in scales}
    if len(counts) > 1 or any(n % count for each in counts for n, count in zip(shape, each, strict=True)):
        raise NotElementwise("its blocks are not all of one size")
    # A state may come from anywhere, and C would write past the end.
    if any(math.prod(shape) > MOST_OF_BLOCK * math.prod(each) for each in counts):
        raise NotElementwise(f"it has blocks of more than {MOST_OF_BLOCK} elements")
    if len(shape) > MOST_AXES:
        raise NotElementwise(f"it has more than {MOST_AXES} axes")


def _wide(slot: Any) -> Any:
    """What an element of a slot stands for, in the width of arithmetic where it is in a format."""
    if not isinstance(slot, Coded):
        return slot
    blockwise = slot.format.blockwise
    x = (
        slot.format.decode(slot.values, None)
        if blockwise is None
        else blockwise.read(slot.values, slot.scales)
    )
    return x.astype(compute_dtype(x.dtype))


def _first_of(slot: Coded, new: Any, place: Any) -> Any:
    """What the first pass makes of an element of a slot: its code, or the size that one is made of."""
    if slot.format.blockwise is not None:
        return slot.format.blockwise.size(new)
    random = None if slot.seed is None else uniform_at(place, slot.seed)
    return slot.format.encode(new, (), random)[0]


def _coded_result(slot: Coded, result: Coded, arrays: list[Any], shape: tuple[int, ...]) -> CodedResult:
    """What a second pass makes of a slot; in both there are the places of its arrays."""
    blockwise = slot.format.blockwise
    assert blockwise is not None
    size = jax.ShapeDtypeStruct(shape, compute_dtype(arrays[slot.scales].dtype))
    one = jax.ShapeDtypeStruct((), size.dtype)
    drawn = [] if slot.seed is None else [arrays[slot.seed], jax.ShapeDtypeStruct(shape, jnp.uint32)]

    def code(size: Any, scale: Any, *drawn: Any) -> Any:
        return blockwise.code_of(size, scale, uniform_at(drawn[1], drawn[0]) if drawn else None)

    made = jax.make_jaxpr(code)(size, one, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in drawn))
    return CodedResult((result.values, result.scales), jax.make_jaxpr(blockwise.usable)(one), made, slot.seed)
