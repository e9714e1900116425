"""Stacks: all matrices of one size, whatever leaf they are of, as one array that a rule solves.

What is compiled grows with the sizes that there are, not with the layers.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine.coded import Coded, decoded
from gradtx.core.engine.each_matrix import DUE, SLOT, at_once, each, indices, renewed
from gradtx.core.engine.kernels import Kernel, Values, bare, cast_values, detached, key_of, mixing
from gradtx.core.engine.matrix_groups import Group, Place
from gradtx.core.engine.placement import (
    as_part,
    mesh_of,
    names_of_part,
    placed_as,
    replicated,
    typed_sharding,
    whole,
)
from gradtx.core.engine.raised import raised
from gradtx.core.engine.results import checked_slots, checked_update
from gradtx.core.engine.scope import Slots, Stack
from gradtx.core.engine.slots import load, store
from gradtx.core.engine.stacks_on_a_mesh import Owners, by_matrix, home_of, moved_like
from gradtx.core.engine.steps import Unit
from gradtx.core.engine.views import Cut
from gradtx.core.numerics import cast, like, real_dtype

KEYS, INDEX, PARAM = "keys", "index", "param"
"""The names of the keys, of the numbers and of the parameters, among what there is of the matrices."""

FEW = 2
"""How many parts of a stack are cut at places that the compiler knows."""


class StackKernel(Kernel):
    """A rule of matrices on some leaves."""

    def __init__(self, unit: Unit) -> None:
        self.unit: Any = bare(unit)
        super().__init__(key_of(unit))
        self.compiled = jax.jit(detached(self, "solve"), static_argnums=(0, 1), keep_unused=True)

    def solve(
        self,
        cuts: tuple[Cut, ...],
        groups: Sequence[Group],
        xs: list[jax.Array],
        params: list[jax.Array] | None,
        stacks: dict[str, dict[str, jax.Array]],
        rows: list[jax.Array] | None,
        values: tuple[Values, Values],
        numbers: list[Any],
        step: jax.Array,
    ) -> tuple[list[jax.Array], dict[str, dict[str, jax.Array]]]:
        """The update of each leaf, and the new stacks of slots.

        Args:
            cuts: the matrices of each leaf.
            groups: which of these are of one size.
            xs: what `apply` gave for each leaf.
            params: the parameters of each, for a rule that asks for them.
            stacks: by name, the slot of all matrices of each group, also of leaves that are not here.
            rows: the row of each leaf's first matrix in its stack, or of the first of each part.
            values: the fields and the scalars of the rule.
            numbers: a number for each leaf, of which its keys are made; none for a rule without a key.
            step: the number of the update.
        """
        originals, in_formats = xs, stacks
        # What is in a format is decoded in full, so that it is rounded once, when it is encoded again.
        stacks = {k: {n: decoded(x) for n, x in column.items()} for k, column in stacks.items()}
        values, keys = self._keys(cuts, values, numbers, xs)
        homes: Sequence[tuple[str, ...]] = [()] * len(xs)
        if not (stacks or keys or self.unit.transform.sees_index):
            # Nothing is known of one matrix and not of another, so that they may stand in any order.
            found = [*map(home_of, cuts, xs)]
            cuts, homes = tuple(cut for cut, _ in found), [home for _, home in found]
            groups = tuple(part for group in groups for part in group.by_home(homes))
        xs = [*map(by_matrix, cuts, xs, homes)]
        cut_xs = [cut.split(x) for cut, x in zip(cuts, xs, strict=True)]
        cut_params = [
            cut.split(by_matrix(cut, cast(p, like(p.dtype, x.dtype)), home))
            for cut, p, x, home in zip(cuts, params or (), xs, homes, strict=False)
        ]
        made: list[list[Any]] = [[None] * len(parts) for parts in cut_xs]
        new = {k: dict(column) for k, column in stacks.items()}
        last, on_mesh = None, mesh_of(xs[0]) is not None
        for group in groups:
            places = group.places
            rest = _matrix_parts(places, xs, cuts)
            owners = Owners.of(xs[0], group)
            counts = [p.count // owners.parts for p in places]
            starts = _starts(counts, step, last, on_mesh=on_mesh)
            joined = functools.partial(_joined, places, None if on_mesh else starts, rest, owners)
            given = {"x": joined(cut_xs)}
            dtype = given["x"].dtype
            own = {k: column[group.name] for k, column in stacks.items() if group.name in column}
            at = _rows(cuts, group, rows, own)
            if self.unit.transform.sees_index:
                index = np.arange(group.count, dtype=np.int32) if at is None else at
                given[INDEX] = indices(index, np.int32(_before(group.name, stacks)))
            given |= {SLOT + k: load(_of_rows(stack, at), dtype) for k, stack in own.items()}
            if keys:
                given[KEYS] = joined(keys)
            if params is not None:
                given[PARAM] = joined(cut_params)
            with mixing():
                solved = owners.solved(self._of_matrices, given, values)
            for k, old in own.items():
                if SLOT + k in solved:
                    made_of_it = store(owners.kept(solved[SLOT + k], old), old)
                    new[k][group.name] = placed_as(_with_rows(old, made_of_it, at), old)
            update = owners.back(solved["x"], [*map(as_part, rest)])
            for p, x in zip(places, _parted(update, counts, starts, owners.joins_along), strict=True):
                made[p.leaf][p.part] = owners.from_home(x)
            last = None if on_mesh else update
        updates = [
            moved_like(cut.join(parts), x) for cut, parts, x in zip(cuts, made, originals, strict=True)
        ]
        new = {k: {n: _as_kept(x, in_formats[k][n]) for n, x in column.items()} for k, column in new.items()}
        return updates, new

    def _keys(
        self, cuts: tuple[Cut, ...], values: tuple[Values, Values], numbers: list[Any], xs: list[jax.Array]
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
            data = replicated(jax.random.key_data(own), xs)
            keys.append([data[end - n : end] for n, end in zip(counts, ends, strict=True)])
        return (fields, {k: v for k, v in scalars.items() if k != "key"}), keys

    def _of_matrices(self, given: Values, values: tuple[Values, Values]) -> Values:
        """What the rule makes of matrices of one size, by name: the update, and the slots that are new."""
        rule = self.unit.transform
        made: Values = {}
        if rule.observes:
            made |= each(self._observed, {**given, **made}, values)
        if rule.renews:
            due = at_once(self._due, {**given, **made}, values)[DUE]
            in_turn = getattr(rule, "stagger", False)
            made |= renewed(self._renewed, due, {**given, **made}, values, in_turn=in_turn)
        return made | each(self._solved, {**given, **made}, values)

    def _observed(self, given: Values, values: tuple[Values, Values]) -> Values:
        return self._new_slots("observe", given, values)

    def _renewed(self, given: Values, values: tuple[Values, Values]) -> Values:
        return self._new_slots("renew", given, values)

    def _new_slots(self, method: str, given: Values, values: tuple[Values, Values]) -> Values:
        """The slots that a method of the rule gave anew."""
        rule, slots, stack, own = self._seen(given, values)
        with raised(f"by {method} of {self.unit.where}"):
            made = getattr(rule, method)(given["x"], slots, stack)
            new = checked_slots(self.unit.where, method, own, made)
        return _changed(own, new)

    def _due(self, given: Values, values: tuple[Values, Values]) -> Values:
        """Of which matrices something is to be renewed."""
        rule, slots, stack, _ = self._seen(given, values)
        with raised(f"by is_due of {self.unit.where}"):
            return {DUE: jnp.broadcast_to(rule.is_due(slots, stack), (len(given["x"]),))}

    def _solved(self, given: Values, values: tuple[Values, Values]) -> Values:
        rule, slots, stack, own = self._seen(given, values)
        x, where = given["x"], self.unit.where
        with raised(f"by solve of {where}"):
            update, new = checked_update(where, x, own, rule.solve(x, slots, stack), "solve")
        return {"x": update.astype(like(update.dtype, x.dtype)), **_changed(own, new)}

    def _seen(self, given: Values, values: tuple[Values, Values]) -> tuple[Any, Slots, Stack, Values]:
        """What the methods of the rule see: itself with arrays for its fields, `slots` and `stack`."""
        fields, scalars = (cast_values(part, real_dtype(given["x"].dtype)) for part in values)
        rule: Any = self.unit.transform
        if KEYS in given:
            scalars["keys"] = jax.random.wrap_key_data(given[KEYS])
        scalars |= {name: given[name] for name in (INDEX, PARAM) if name in given}
        own = {k.removeprefix(SLOT): v for k, v in given.items() if k.startswith(SLOT)}
        slots = Slots(**{**dict.fromkeys(rule.matrix_slots), **own})
        return rule._with(**fields), slots, Stack(**scalars), own


def _changed(own: Values, new: Mapping[str, Any]) -> Values:
    """Those slots that a rule did not give back as it got them, by name."""
    return {SLOT + k: v.astype(own[k].dtype) for k, v in new.items() if v is not own[k]}


def _joined(
    places: tuple[Place, ...],
    starts: list[jax.Array] | None,
    rest: tuple[tuple[str, ...], tuple[str, ...]],
    owners: Owners,
    by_leaf: list[list[Any]],
) -> Any:
    """The matrices of one group, of the parts of each leaf; sharded alike by `rest` where types say how."""
    parts = [by_leaf[p.leaf][p.part] for p in places]
    if parts[0].ndim == 3:
        parts = [owners.at_home(x, rest) for x in parts]
    if len(parts) == 1:
        return parts[0]
    if starts is None:
        return jnp.concatenate(parts, axis=owners.joins_along)
    count, first = sum(map(len, parts)), parts[0]
    # Of zeros that the compiler does not know, so that no stack is made before its time.
    zero, *starts = starts
    stack = jnp.broadcast_to(zero.astype(first.dtype), (count, *first.shape[1:]))
    for part, start in zip(parts, starts, strict=True):
        stack = jax.lax.dynamic_update_slice_in_dim(stack, part, start, 0)
    return stack


def _as_kept(new: jax.Array, old: Any) -> Any:
    """A stack in the form of the old one, placed as it was."""
    kept = store(new, old)
    if isinstance(kept, Coded):
        kept.values = placed_as(kept.values, old.values)
        kept.scales = None if kept.scales is None else placed_as(kept.scales, old.scales)
    return kept


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


def _starts(
    counts: list[int], step: jax.Array, last: jax.Array | None, *, on_mesh: bool
) -> list[jax.Array] | None:
    """A zero, and where in a stack the parts begin, as numbers that the compiler does not know.

    None if it is to know them.

    To put a part at a known place, or to cut it from there, is a kernel of its own, which takes a while to
    compile; at unknown ones it is one kernel for each size. On a mesh a part at a known place is on one
    device, which would send it to the others.

    Args:
        counts: how many matrices the parts have.
        step: the number of the update.
        last: what must be made before, so that no two stacks are held at a time.
        on_mesh: whether the stack is on a mesh.
    """
    if len(counts) == 1 or (len(counts) <= FEW and not on_mesh):
        return None
    known = [np.uint32(0), *np.array([0, *itertools.accumulate(counts)][:-1], np.uint32)]

    def places(step: jax.Array, seen: jax.Array) -> list[jax.Array]:
        # No step is negative, which the compiler cannot know.
        return jax.lax.cond(
            (step < 0) & (seen > 0), lambda: [jnp.uint32(1)] * len(known), lambda: [*map(jnp.asarray, known)]
        )

    seen = step if last is None or not last.size else jnp.real(last[(0,) * last.ndim])
    return _unbatched(places)(jax.lax.stop_gradient(step), jax.lax.stop_gradient(seen))


def _parted(
    whole: jax.Array, counts: list[int], starts: list[jax.Array] | None, axis: int
) -> list[jax.Array]:
    """The parts of a stack."""
    if len(counts) == 1:
        return [whole]
    if starts is None:
        return list(jax.lax.split(whole, counts, axis))
    return [jax.lax.dynamic_slice_in_dim(whole, i, n, axis) for i, n in zip(starts[1:], counts, strict=True)]


def _unbatched(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that gives the same for all members of a sweep, called once for the whole of it."""
    once = jax.custom_batching.custom_vmap(function)

    @once.def_vmap
    def of_all(size: int, batched: Any, *args: Any) -> Any:
        result = once(*[x.max(0) if own else x for x, own in zip(args, batched, strict=True)])
        return result, jax.tree.map(lambda _: False, result)

    return once


def _matrix_parts(
    places: tuple[Place, ...], xs: list[jax.Array], cuts: tuple[Cut, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The axes of a mesh that shard the rows and the columns of most matrices of a group, if types say it."""
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}
    for p in places:
        if (s := typed_sharding(xs[p.leaf])) is not None:
            rows, columns = (() if i is None else names_of_part(s.spec[i]) for i in cuts[p.leaf].matrix_axes)
            found[rows, columns] = found.get((rows, columns), 0) + p.count
    return max(found, key=found.__getitem__, default=((), ()))
