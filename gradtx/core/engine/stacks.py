"""Stacks: all matrices of one size, whatever leaf they are of, as one array that a rule solves.

What is compiled grows with the sizes that there are, not with the layers. On a CPU, whose cores share the
work of one product, a loop takes one matrix after another, in the place of the stack; elsewhere a product is
of the whole stack.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from gradtx.core.engine.kernels import Kernel, Values, bare, cast_values, detached, key_of, mixing
from gradtx.core.engine.leaves import varying
from gradtx.core.engine.matrix_groups import Group, Place
from gradtx.core.engine.placement import mesh_of, placed_as, resharded, sharded_like, typed_sharding, whole
from gradtx.core.engine.raised import raised
from gradtx.core.engine.results import checked_update
from gradtx.core.engine.scope import Slots, Stack
from gradtx.core.engine.slots import load, store
from gradtx.core.engine.steps import Unit
from gradtx.core.engine.views import Cut
from gradtx.core.numerics import like, real_dtype

SLOT, SEEN = "slot ", "seen "
"""Before the name of a slot of matrices, and of one that `solve` looks at, among what there is of them."""

KEYS, INDEX = "keys", "index"
"""The names of the keys and of the numbers of the matrices, among what there is of them."""

FEW = 4
"""How many parts of a stack are cut at places that the compiler knows."""

AT_ONCE = 2**16
"""How many elements a CPU's loop takes at once, at the least: many small matrices, or one large one."""


class StackKernel(Kernel):
    """A rule of matrices on some leaves."""

    def __init__(self, unit: Unit) -> None:
        self.unit: Any = bare(unit)
        super().__init__(key_of(unit))
        self.compiled = jax.jit(detached(self, "solve"), static_argnums=(0, 1), keep_unused=True)

    def solve(
        self,
        cuts: tuple[Cut, ...],
        groups: tuple[Group, ...],
        xs: list[jax.Array],
        stacks: dict[str, dict[str, jax.Array]],
        rows: list[jax.Array] | None,
        seen: dict[str, list[Any]],
        values: tuple[Values, Values],
        numbers: list[Any],
        step: jax.Array,
    ) -> tuple[list[jax.Array], dict[str, dict[str, jax.Array]]]:
        """The update of each leaf, and the new stacks of slots.

        Args:
            cuts: the matrices of each leaf.
            groups: which of these are of one size.
            xs: what `apply` gave for each leaf.
            stacks: by name, the slot of all matrices of each group, also of leaves that are not here.
            rows: the row of each leaf's first matrix in its stack, or of the first of each part.
            seen: by name, the slot of each leaf that `solve` only looks at.
            values: the fields and the scalars of the rule.
            numbers: a number for each leaf, of which its keys are made; none for a rule without a key.
            step: the number of the update.
        """
        originals = xs
        self._refuse_shards(xs)
        values, keys = self._keys(cuts, values, numbers)
        xs = [_by_matrix(cut, x) for cut, x in zip(cuts, xs, strict=True)]
        cut_xs = [cut.split(x) for cut, x in zip(cuts, xs, strict=True)]
        cut_seen = {
            k: [
                [None] * len(cut.sizes) if s is None else cut.split(_by_matrix(cut, load(s, x.dtype)))
                for cut, s, x in zip(cuts, column, xs, strict=True)
            ]
            for k, column in seen.items()
        }
        made: list[list[Any]] = [[None] * len(parts) for parts in cut_xs]
        new = {k: dict(column) for k, column in stacks.items()}
        for group in groups:
            places = group.places

            def gathered(parts: list[list[Any]], places: tuple[Place, ...] = places) -> Any:
                return _joined([parts[p.leaf][p.part] for p in places])

            given = {"x": gathered(cut_xs)}
            dtype = given["x"].dtype
            own = {k: column[group.name] for k, column in stacks.items() if group.name in column}
            at = _rows(cuts, group, rows, own)
            if self.unit.transform.sees_index:
                index = np.arange(group.count, dtype=np.int32) if at is None else at
                given[INDEX] = jnp.asarray(index) + _before(group.name, stacks)
            given |= {SLOT + k: load(_of_rows(stack, at), dtype) for k, stack in own.items()}
            given |= {SEEN + k: x for k, v in cut_seen.items() if (x := gathered(v)) is not None}
            if keys:
                given[KEYS] = gathered(keys)
            with jax.named_scope(self.unit.where), mixing():
                solved = _on_mesh(xs[0], self._of_one, given, values)
            for k, old in own.items():
                new[k][group.name] = placed_as(_with_rows(old, store(solved[SLOT + k], old), at), old)
            update = _back(solved["x"], [xs[p.leaf] for p in places], [cuts[p.leaf] for p in places])
            for p, x in zip(places, _parted(update, [p.count for p in places], step), strict=True):
                made[p.leaf][p.part] = x
        updates = [
            sharded_like(cut.join(parts), x) for cut, parts, x in zip(cuts, made, originals, strict=True)
        ]
        return updates, new

    def _keys(
        self, cuts: tuple[Cut, ...], values: tuple[Values, Values], numbers: list[Any]
    ) -> tuple[tuple[Values, Values], list[list[jax.Array]]]:
        """The values without the key of the rule, and a key for each matrix of each part, as raw data.

        What is drawn for a matrix depends on its leaf, and on its place there, alone.
        """
        fields, scalars = values
        if not numbers:
            return values, []
        keys = []
        for cut, number in zip(cuts, numbers, strict=True):
            counts = [cut.count(part) for part in range(len(cut.sizes))]
            own = jax.random.split(jax.random.fold_in(scalars["key"], number), sum(counts))
            ends = itertools.accumulate(counts)
            data = jax.random.key_data(own)
            keys.append([data[end - n : end] for n, end in zip(counts, ends, strict=True)])
        return (fields, {k: v for k, v in scalars.items() if k != "key"}), keys

    def _refuse_shards(self, xs: list[jax.Array]) -> None:
        """Raises inside of a user's `shard_map` for what may be a shard of a matrix."""
        axes = sorted({axis for x in xs for axis in varying(x)})
        if axes:
            raise ValueError(
                f"{self.unit.where}: inside shard_map the leaves vary over the axis {', '.join(axes)}, so "
                "that a leaf may be a shard, of which no matrix is whole. Update outside of shard_map, "
                "where each device is given whole matrices; gradients that are equal on all devices are "
                "averaged first, by pmean."
            )

    def _of_one(self, given: Values, values: tuple[Values, Values]) -> Values:
        """What the rule makes of matrices of one size, by name: the update and the slots."""
        unit, x = self.unit, given["x"]
        fields, scalars = (cast_values(part, real_dtype(x.dtype)) for part in values)
        if KEYS in given:
            scalars["keys"] = jax.random.wrap_key_data(given[KEYS])
        if INDEX in given:
            scalars["index"] = given[INDEX]
        own, seen = (
            {k.removeprefix(kind): v for k, v in given.items() if k.startswith(kind)} for kind in (SLOT, SEEN)
        )
        absent = dict.fromkeys((*unit.transform.matrix_slots, *unit.transform.solve_sees))
        with raised(f"by solve of {unit.where}"):
            slots = Slots(**{**absent, **own, **seen})
            update, new = checked_update(
                unit.where,
                x,
                own,
                unit.transform._with(**fields).solve(x, slots, Stack(**scalars)),
                "solve",
            )
        update = update.astype(like(update.dtype, x.dtype))
        return {"x": update, **{SLOT + k: new[k].astype(own[k].dtype) for k in own}}


def _joined(parts: list[Any]) -> Any:
    """The matrices of one group, None where there is nothing of them."""
    return parts[0] if len(parts) == 1 or parts[0] is None else jnp.concatenate(parts)


def _rows(cuts: tuple[Cut, ...], group: Group, rows: list[Any] | None, own: dict[str, jax.Array]) -> Any:
    """The rows of a stack that stand for the matrices at hand; None where these are all."""
    if rows is None or all(len(stack) == group.count for stack in own.values()):
        return None
    first = [rows[p.leaf] if cuts[p.leaf].is_even else rows[p.leaf][p.part] for p in group.places]
    return jnp.concatenate([row + np.arange(p.count) for row, p in zip(first, group.places, strict=True)])


def _before(name: str, stacks: dict[str, dict[str, jax.Array]]) -> int:
    """How many matrices there are in the stacks whose names come before one."""
    sizes = {k: len(stack) for column in stacks.values() for k, stack in column.items()}
    return sum(size for k, size in sizes.items() if k < name)


def _of_rows(stack: jax.Array, at: Any) -> jax.Array:
    return stack if at is None else whole(stack)[at]


def _with_rows(old: jax.Array, new: jax.Array, at: Any) -> jax.Array:
    return new if at is None else whole(old).at[at].set(whole(new))


def _parted(whole: jax.Array, counts: list[int], step: jax.Array) -> list[jax.Array]:
    """The parts of a stack.

    A part at a known place is a kernel of its own, which takes a while to compile; many are cut at places
    that the compiler does not know, by one kernel for each size.
    """
    if len(counts) == 1:
        return [whole]
    if len(counts) <= FEW:
        return list(jax.lax.split(whole, counts))
    starts = [0, *itertools.accumulate(counts)][:-1]

    def places(step: jax.Array) -> list[jax.Array]:
        # No step is negative, which the compiler cannot know.
        known = [np.int32(start) for start in starts]
        return jax.lax.cond(step < 0, lambda: [jnp.int32(0)] * len(known), lambda: [*map(jnp.int32, known)])

    found = _unbatched(places)(jax.lax.stop_gradient(step))
    return [jax.lax.dynamic_slice_in_dim(whole, i, n) for i, n in zip(found, counts, strict=True)]


def _unbatched(function: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """A function of the step, called once for a whole sweep, for which it gives the same."""
    once = jax.custom_batching.custom_vmap(function)

    @once.def_vmap
    def of_all(size: int, batched: Any, steps: Any) -> Any:
        result = once(steps.max(0))
        return result, jax.tree.map(lambda _: False, result)

    return once


def _by_matrix(cut: Cut, x: jax.Array) -> jax.Array:
    """A leaf that is sharded along its rows and columns alone, where its type says how it is."""
    typed = typed_sharding(x)
    if typed is None:
        return x
    parts = [*typed.spec, *[None] * (x.ndim - len(typed.spec))]
    return resharded(x, typed, [part if i in cut.matrix_axes else None for i, part in enumerate(parts)])


def _back(y: jax.Array, xs: list[jax.Array], cuts: list[Cut]) -> jax.Array:
    """Solved updates, sharded as the matrices of the leaves are where types say how; not along the stack."""
    typed = typed_sharding(xs[0])
    if typed is None:
        return y
    found = {
        tuple(None if i is None or i >= len(s.spec) else s.spec[i] for i in cut.matrix_axes)
        for cut, x in zip(cuts, xs, strict=True)
        if (s := typed_sharding(x)) is not None
    }
    return resharded(y, typed, [None, *(found.pop() if len(found) == 1 else (None, None))])


def _on_mesh(leaf: Any, of_one: Callable[[Values, Any], Values], given: Values, values: Any) -> Values:
    """What `of_one` makes of a stack, of which on a mesh each device has whole matrices.

    A stack that the devices do not divide is filled up with zeros. One matrix is solved by every device.
    """
    mesh, count = mesh_of(leaf), given["x"].shape[0]
    if mesh is None:
        return _each(of_one, given, values)
    more = -count % mesh.size if count > 1 else 0
    if more:
        given = {k: _filled_up(v, more) for k, v in given.items()}
    owned = PartitionSpec(mesh.axis_names if count > 1 else None)
    if typed_sharding(leaf) is not None:
        given = {
            k: resharded(v, typed_sharding(leaf), [*owned, *[None] * (v.ndim - 1)]) for k, v in given.items()
        }
    solve = jax.shard_map(
        lambda given, values: _each(of_one, given, values),
        mesh=mesh,
        in_specs=(owned, PartitionSpec()),
        out_specs=owned,
        check_vma=False,
    )
    solved = solve(given, values)
    return {k: whole(v)[:count] for k, v in solved.items()} if more else solved


def _filled_up(stack: jax.Array, more: int) -> jax.Array:
    stack = whole(stack)
    return jnp.concatenate([stack, jnp.zeros((more, *stack.shape[1:]), stack.dtype)])


EACH, ONE = "each_matrix", "one_matrix"
"""The names of the compiled functions by which a formula finds what is done to one matrix."""


def _each(of_one: Callable[[Values, Any], Values], given: Values, values: Any) -> Values:
    """What `of_one` makes of a stack: at once, or of one part of the stack after another."""
    if given["x"].shape[0] <= 1:
        return of_one(given, values)
    one = jax.jit(_named(of_one, ONE))

    def each(given: Values, values: Any) -> Values:
        def in_turn(given: Values, values: Any) -> Values:
            return _in_turn(one, given, values)

        return jax.lax.platform_dependent(given, values, cpu=in_turn, default=one)

    return jax.jit(_named(each, f"{EACH}_{len(given)}"))(given, values)


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    call.__name__ = name
    return call


def _in_turn(one: Callable[[Values, Any], Values], given: Values, values: Any) -> Values:
    """The same by a loop, which writes what it makes in the place of what it was given."""
    count, size = given["x"].shape[0], math.prod(given["x"].shape[1:])
    few = max(k for k in range(1, count + 1) if count % k == 0 and (k == 1 or k * size <= AT_ONCE))

    looked_at = {k: v for k, v in given.items() if k in (KEYS, INDEX) or k.startswith(SEEN)}

    def step(i: jax.Array, stack: Values) -> Values:
        parts = {**stack, **looked_at}
        made = one({k: jax.lax.dynamic_slice_in_dim(v, i * few, few) for k, v in parts.items()}, values)
        return {k: jax.lax.dynamic_update_slice_in_dim(stack[k], x, i * few, 0) for k, x in made.items()}

    return jax.lax.fori_loop(0, count // few, step, {k: v for k, v in given.items() if k not in looked_at})
