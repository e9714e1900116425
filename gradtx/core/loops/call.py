"""Loops over leaves as an operation of JAX: a call of C where XLA compiles for a CPU, else what was traced.

A call works on several leaves, whatever their shapes, to whose elements the same is done. So the number of
calls, and the time that XLA takes to compile them, grow little with that of leaves.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from gradtx.core.loops.c_source import IN_MEMORY, Array, Body, c_source, given_values
from gradtx.core.loops.compiler import built
from gradtx.core.loops.elementwise import NotElementwise, operations
from gradtx.core.loops.on_devices import LOCAL, divided, on_devices

MOST = 128
"""The most arrays of a call. XLA takes long to compile one of thousands."""


@dataclasses.dataclass(frozen=True, eq=False)
class LeafLoop:
    """What is done to a leaf of one type.

    Attributes:
        traced: it as a jaxpr, of the numbers of the vector, the shared ones and the arrays.
        source: the loop in C.
        makes: which of its results the loop makes.
        is_given: for each other result, which of the arrays it is.
        in_place: for each that the loop makes, which of the arrays is written over.
    """

    traced: core.ClosedJaxpr
    source: str
    makes: tuple[int, ...]
    is_given: dict[int, int]
    in_place: tuple[int | None, ...]

    @property
    def types(self) -> list[Any]:
        """The types of what the loop makes."""
        return [self.traced.out_avals[i] for i in self.makes]


@dataclasses.dataclass(frozen=True)
class Group:
    """The leaves of one call.

    Attributes:
        numbers: how many numbers are in the vector.
        shared: how many are beside it.
        arrays: how many arrays there are of each leaf.
        leaves: what is done to each; the loop is the same for all.
    """

    numbers: int
    shared: int
    arrays: int
    leaves: tuple[LeafLoop, ...]

    @property
    def before(self) -> int:
        """How many operands stand before those of the leaves."""
        return 1 + self.shared

    def of_leaves(self, operands: Sequence[Any]) -> Iterator[tuple[LeafLoop, list[Any]]]:
        """Each leaf with its arrays."""
        for i, leaf in enumerate(self.leaves):
            start = self.before + i * self.arrays
            yield leaf, [*operands[start : start + self.arrays]]

    @functools.cached_property
    def in_place(self) -> dict[int, int]:
        """Which operand of the call is written over by which of its results."""
        found, results = {}, 0
        for i, leaf in enumerate(self.leaves):
            for array in leaf.in_place:
                if array is not None:
                    found[self.before + i * self.arrays + array] = results
                results += 1
        return found


def leaf_loop(
    function: Callable[..., list[Any]],
    numbers: Sequence[Any],
    shared: Sequence[Any],
    arrays: Sequence[Any],
    over: Callable[[Sequence[Any]], dict[int, int]],
) -> LeafLoop:
    """A function of a leaf as a loop.

    Args:
        function: `function(numbers, shared, arrays)`.
        numbers: the numbers of the vector.
        shared: the numbers beside it.
        arrays: the arrays of the leaf, of which the first has its shape.
        over: from the types of the results, which of the arrays each is written over, where there is one.

    Raises:
        NotElementwise: it is none of each element by itself.
    """
    traced = jax.make_jaxpr(function)(numbers, shared, arrays)
    shape = arrays[0].shape
    if any(x.shape != () for x in shared):
        raise NotElementwise("it takes an array that is of no leaf")
    if any(x.shape not in ((), shape) for x in arrays):
        raise NotElementwise("what is remembered of a leaf has another shape than the leaf")
    if arrays[0].size == 0:
        raise NotElementwise("the leaf is empty")
    for x in (*shared, *arrays, *traced.out_avals):
        if str(x.dtype) not in IN_MEMORY:
            raise NotElementwise(f"no loops are made for {x.dtype}")
    kinds = tuple(Array(str(x.dtype), x.shape == shape) for x in arrays)
    of_vector = (str(numbers[0].dtype) if numbers else "float32", max(len(numbers), 1))
    beside = tuple(str(x.dtype) for x in shared)
    vector, others, elements = given_values(of_vector, beside, kinds)
    done, results = operations(traced, [*vector[: len(numbers)], *others, *elements], shape)
    is_given = {
        i: elements.index(x) for i, x in enumerate(results) if x in elements and traced.out_avals[i].shape == shape
    }
    makes = tuple(i for i in range(len(results)) if i not in is_given)
    if any(traced.out_avals[i].shape != shape for i in makes):
        raise NotElementwise("it makes one number of a leaf")
    if not makes:
        raise NotElementwise("it computes nothing")
    places = over(traced.out_avals)
    in_place = tuple(places.get(i) for i in makes)
    dtypes = tuple(str(traced.out_avals[i].dtype) for i in makes)
    of_makes = tuple(results[i] for i in makes)
    body = Body(of_vector, beside, kinds, dtypes, in_place, tuple(done), of_makes)
    return LeafLoop(traced, c_source(body), makes, is_given, in_place)


def call_loops(
    numbers: jax.Array, shared: Sequence[Any], leaves: Sequence[tuple[LeafLoop, Sequence[Any]]]
) -> list[list[Any]]:
    """The results of each leaf.

    Args:
        numbers: the vector of numbers, of at least one.
        shared: the numbers beside it.
        leaves: what is done to each leaf, and its arrays.
    """
    made: list[list[Any]] = [[] for _ in leaves]
    for places in _groups([leaf for leaf, _ in leaves], [len(arrays) for _, arrays in leaves]):
        own = tuple(leaves[i][0] for i in places)
        first = leaves[places[0]][1]
        group = Group(numbers.shape[0], len(shared), len(first), own)
        arrays = [x for i in places for x in leaves[i][1]]
        results = iter(leaf_loop_p.bind(numbers, *shared, *arrays, group=group, batch=0))
        for i in places:
            loop, given = leaves[i]
            made[i] = [
                given[loop.is_given[k]] if k in loop.is_given else next(results)
                for k in range(len(loop.traced.out_avals))
            ]
    return made


def _groups(loops: Sequence[LeafLoop], arrays: Sequence[int]) -> Iterator[list[int]]:
    """The places of leaves to which the same is done, as many as one call takes."""
    alike: dict[str, list[int]] = {}
    for i, loop in enumerate(loops):
        alike.setdefault(loop.source, []).append(i)
    for places in alike.values():
        most = max(1, MOST // arrays[places[0]])
        yield from (places[i : i + most] for i in range(0, len(places), most))


leaf_loop_p = core.Primitive("leaf_loop")
leaf_loop_p.multiple_results = True


def _traced(*operands: Any, group: Group, batch: int) -> list[Any]:
    """What a call does, as it was traced."""
    if batch:
        return jax.vmap(functools.partial(_traced, group=group, batch=batch - 1))(*operands)
    numbers = [jax.lax.index_in_dim(operands[0], i, keepdims=False) for i in range(group.numbers)]
    made = []
    for leaf, arrays in group.of_leaves(operands):
        given = len(leaf.traced.in_avals) - group.shared - len(arrays)
        results = core.jaxpr_as_fun(leaf.traced)(*numbers[:given], *operands[1 : group.before], *arrays)
        made += [results[i] for i in leaf.makes]
    return made


@leaf_loop_p.def_impl
def _run(*operands: Any, group: Group, batch: int) -> list[Any]:
    return _compiled(group, batch)(*operands)


@functools.lru_cache(maxsize=256)
def _compiled(group: Group, batch: int) -> Any:
    return jax.jit(lambda *operands: leaf_loop_p.bind(*operands, group=group, batch=batch))


@leaf_loop_p.def_abstract_eval
def _types(*operands: Any, group: Group, batch: int) -> list[Any]:
    made = []
    for leaf, arrays in group.of_leaves(operands):
        for aval in leaf.types:
            same = arrays[0].shape == aval.shape
            made.append(aval if same else arrays[0].update(dtype=aval.dtype, weak_type=False))
    return made


def _derivative(primals: Any, tangents: Any, *, group: Group, batch: int) -> Any:
    function = functools.partial(_traced, group=group, batch=batch)
    return jax.jvp(function, primals, tuple(map(ad.instantiate_zeros, tangents)))


def _in_a_sweep(operands: Any, axes: Any, *, group: Group, batch: int) -> Any:
    """Several settings at once: each operand has an axis of them in front."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    shared = slice(1, group.before)
    if any(axis is not None for axis in axes[shared]) or _is_typed(operands):
        function = functools.partial(_traced, group=group, batch=batch)
        made = jax.vmap(function, in_axes=axes, axis_size=size)(*operands)
    else:
        given = [batching.bdim_at_front(x, axis, size) for x, axis in zip(operands, axes, strict=True)]
        given[shared] = operands[shared]
        made = leaf_loop_p.bind(*given, group=group, batch=batch + 1)
    return made, (0,) * len(made)


def _is_typed(operands: Any) -> bool:
    """Whether types say how the operands are sharded."""
    return any(not jax.typeof(x).sharding.mesh.empty for x in operands)


def _for_cpu(ctx: Any, *operands: Any, group: Group, batch: int) -> Any:
    traced = functools.partial(_traced, group=group, batch=batch)
    way = on_devices(ctx)
    if way is None or (batch and way is not LOCAL):
        return mlir.lower_fun(traced, multiple_results=True)(ctx, *operands)
    if way is not LOCAL:
        return mlir.lower_fun(divided(leaf_loop_p, group), multiple_results=True)(ctx, *operands)
    call = jax.ffi.ffi_lowering(built(group.leaves[0].source), operand_output_aliases=group.in_place)
    return call(ctx, *operands)


ad.primitive_jvps[leaf_loop_p] = _derivative
batching.primitive_batchers[leaf_loop_p] = _in_a_sweep
mlir.register_lowering(leaf_loop_p, mlir.lower_fun(_traced, multiple_results=True))
mlir.register_lowering(leaf_loop_p, _for_cpu, platform="cpu")
