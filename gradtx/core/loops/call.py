"""Loops over leaves as an operation of JAX: a call of C where XLA compiles for a CPU, else what was traced.

A call works on several leaves, whatever their shapes, to whose elements the same is done. So the number of
calls, and the time that XLA takes to compile them, grow little with that of leaves.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from gradtx.core.loops.c_source import (
    BLOCK,
    EACH,
    IN_MEMORY,
    PLACE,
    Array,
    Body,
    InBlocks,
    c_source,
    given_values,
    largest_value,
    size_value,
)
from gradtx.core.loops.compiler import built
from gradtx.core.loops.elementwise import NotElementwise, operations
from gradtx.core.loops.on_devices import is_divided, is_local, on_shards

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
        has_blocks: whether it works on blocks of elements.
    """

    traced: core.ClosedJaxpr
    source: str
    makes: tuple[int, ...]
    is_given: dict[int, int]
    in_place: tuple[int | None, ...]
    has_blocks: bool

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

    @property
    def has_blocks(self) -> bool:
        """Whether the loop works on blocks of elements."""
        return self.leaves[0].has_blocks

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


@dataclasses.dataclass(frozen=True)
class Traced:
    """A function of a leaf, of `(numbers, shared, arrays)`, as it was traced.

    Attributes:
        whole: all of it.
        arrays: what the arrays are, of which the first has the shape of the leaf.
        shape: that of the leaf.
        over: for some results, which of the arrays each is written over.
        first: what is done to each element in a first pass, of the numbers, the shared ones, an element of
            each array or what there is for it, and its place. What is coded in blocks is not: it has the
            size of an element in place of the code, and nothing in place of the scale.
        coded: what a second pass makes.
    """

    whole: core.ClosedJaxpr
    arrays: tuple[Array, ...]
    shape: tuple[int, ...]
    over: dict[int, int]
    first: core.ClosedJaxpr
    coded: tuple[CodedResult, ...] = ()


@dataclasses.dataclass(frozen=True)
class CodedResult:
    """A result in codes, with a scale for each block of elements.

    Attributes:
        results: the places of the codes and of the scales among the results.
        scale: a function of the largest size in a block, traced.
        code: a function of a size, a scale, a seed and a place, traced.
        seed: which of the arrays the seed is, if there is one.
    """

    results: tuple[int, int]
    scale: core.ClosedJaxpr
    code: core.ClosedJaxpr
    seed: int | None


def leaf_loop(traced: Traced, numbers: Sequence[Any], shared: Sequence[Any]) -> LeafLoop:
    """A function of a leaf as a loop.

    Args:
        traced: the function.
        numbers: the numbers of the vector.
        shared: the numbers beside it.

    Raises:
        NotElementwise: it is none of each element by itself.
    """
    types, shape = traced.whole.out_avals, traced.shape
    if any(x.shape != () for x in shared):
        raise NotElementwise("it takes an array that is of no leaf")
    for dtype in (*(str(x.dtype) for x in (*shared, *types)), *(x.dtype for x in traced.arrays)):
        if dtype not in IN_MEMORY:
            raise NotElementwise(f"no loops are made for {dtype}")
    of_vector = (str(numbers[0].dtype) if numbers else "float32", max(len(numbers), 1))
    beside = tuple(str(x.dtype) for x in shared)
    vector, others, elements = given_values(of_vector, beside, traced.arrays)
    given = [*vector[: len(numbers)], *others, *elements, PLACE]
    done, firsts = operations(traced.first, given[: len(traced.first.in_avals)], shape)
    scales = {part.results[1]: k for k, part in enumerate(traced.coded)}
    codes = {part.results[0]: k for k, part in enumerate(traced.coded)}
    left = iter(firsts)
    results = [None if i in scales else next(left) for i in range(len(types))]
    is_given = {
        i: elements.index(x)
        for i, x in enumerate(results)
        if x in elements and i not in codes and types[i].shape == shape
    }
    makes = tuple(i for i in range(len(results)) if i not in is_given)
    if any(types[i].shape != shape for i in makes if i not in scales):
        raise NotElementwise("it makes one number of a leaf")
    if not makes:
        raise NotElementwise("it computes nothing")
    in_blocks = []
    for k, part in enumerate(traced.coded):
        size = results[part.results[0]]
        assert size is not None
        of_scale, (scale,) = operations(part.scale, [largest_value(k, size.dtype)], (), f"s{k}_")
        seed = [] if part.seed is None else [elements[part.seed], PLACE]
        coding, (code,) = operations(part.code, [size_value(k, size.dtype), scale, *seed], shape, f"c{k}_")
        places = makes.index(part.results[0]), makes.index(part.results[1])
        in_blocks.append(InBlocks(size, of_scale, scale, coding, code, places))
    in_place = tuple(traced.over.get(i) for i in makes)
    body = Body(
        of_vector,
        beside,
        traced.arrays,
        tuple(Array(str(types[i].dtype), BLOCK if i in scales else EACH) for i in makes),
        in_place,
        done,
        tuple(None if i in codes else results[i] for i in makes),
        tuple(in_blocks),
    )
    return LeafLoop(traced.whole, c_source(body), makes, is_given, in_place, bool(in_blocks))


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
        results = iter(_bind(numbers, *shared, *arrays, group=group))
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


def _bind(*operands: Any, group: Group, batch: int = 0) -> list[Any]:
    """A call, which knows how it is divided where there are several devices.

    JAX tells the compiler's partitioner of devices only where it finds an operation that asks for them, also
    within what another one is made of; so it is traced along.
    """
    divided = None
    if not batch and not group.has_blocks and jax.device_count() > 1:
        divided = jax.make_jaxpr(on_shards(functools.partial(leaf_loop_p.bind, **_alone(group)), group))(
            *operands
        )
    return leaf_loop_p.bind(*operands, group=group, batch=batch, divided=divided)


def _alone(group: Group, batch: int = 0) -> dict[str, Any]:
    return {"group": group, "batch": batch, "divided": None}


def _traced(*operands: Any, group: Group, batch: int, divided: Any = None) -> list[Any]:
    """What a call does, as it was traced."""
    if batch:
        axes = (0, *[None] * group.shared, *[0] * (len(operands) - group.before))
        return jax.vmap(functools.partial(_traced, group=group, batch=batch - 1), in_axes=axes)(*operands)
    numbers = [jax.lax.index_in_dim(operands[0], i, keepdims=False) for i in range(group.numbers)]
    made = []
    for leaf, arrays in group.of_leaves(operands):
        given = len(leaf.traced.in_avals) - group.shared - len(arrays)
        results = core.jaxpr_as_fun(leaf.traced)(*numbers[:given], *operands[1 : group.before], *arrays)
        made += [results[i] for i in leaf.makes]
    return made


@leaf_loop_p.def_impl
def _run(*operands: Any, group: Group, batch: int, divided: Any) -> list[Any]:
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]  # step by step, for someone who looks at each
        return _traced(*operands, group=group, batch=batch)
    return _compiled(group, batch)(*operands)


@functools.lru_cache(maxsize=256)
def _compiled(group: Group, batch: int) -> Any:
    return jax.jit(functools.partial(_bind, group=group, batch=batch))


@leaf_loop_p.def_abstract_eval
def _types(*operands: Any, group: Group, batch: int, divided: Any) -> list[Any]:
    made = []
    for leaf, arrays in group.of_leaves(operands):
        of_leaf = leaf.traced.in_avals[len(leaf.traced.in_avals) - group.arrays].shape
        for aval, over in zip(leaf.types, leaf.in_place, strict=True):
            if arrays[0].shape == of_leaf:
                made.append(aval)
            else:  # with axes of settings, or a shard
                like = arrays[0] if over is None else arrays[over]
                made.append(like.update(dtype=aval.dtype, weak_type=False))
    return made


def _derivative(primals: Any, tangents: Any, **params: Any) -> Any:
    given = tuple(map(ad.instantiate_zeros, tangents))
    return jax.jvp(functools.partial(_traced, **params), primals, given)


def _in_a_sweep(operands: Any, axes: Any, *, group: Group, batch: int, divided: Any) -> Any:
    """Several settings at once: each operand has an axis of them in front."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    shared = slice(1, group.before)
    if any(axis is not None for axis in axes[shared]) or _is_typed(operands):
        function = functools.partial(_traced, group=group, batch=batch)
        made = jax.vmap(function, in_axes=axes, axis_size=size)(*operands)
    else:
        given = [batching.bdim_at_front(x, axis, size) for x, axis in zip(operands, axes, strict=True)]
        given[shared] = operands[shared]
        made = leaf_loop_p.bind(*given, **_alone(group, batch + 1))
    return made, (0,) * len(made)


def _is_typed(operands: Any) -> bool:
    """Whether types say how the operands are sharded."""
    return any(not jax.typeof(x).sharding.mesh.empty for x in operands)


def _for_cpu(ctx: Any, *operands: Any, group: Group, batch: int, divided: Any) -> Any:
    if is_local(ctx):
        call = jax.ffi.ffi_lowering(built(group.leaves[0].source), operand_output_aliases=group.in_place)
        return call(ctx, *operands)
    function = functools.partial(_traced, group=group, batch=batch)
    if divided is not None and is_divided(ctx):
        function = core.jaxpr_as_fun(divided)
    return mlir.lower_fun(function, multiple_results=True)(ctx, *operands)


ad.primitive_jvps[leaf_loop_p] = _derivative
batching.primitive_batchers[leaf_loop_p] = _in_a_sweep
mlir.register_lowering(leaf_loop_p, mlir.lower_fun(_traced, multiple_results=True))
mlir.register_lowering(leaf_loop_p, _for_cpu, platform="cpu")
