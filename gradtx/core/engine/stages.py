"""The stages of a program, each with one `run`: where the tree is crossed leaf by leaf, and where as a whole.

A rule that measures the whole tree, a wrapper and a transform of another library cut a program. What stands
between two cuts is one leaf stage, in which each leaf goes through all rules before the next leaf does.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.kernels import (
    APPLY,
    LeafCall,
    LeafKernel,
    MeasureKernel,
    Packing,
    made_once,
    mixing,
    pack,
    shared,
)
from gradtx.core.engine.leaf_loops import in_loops, record
from gradtx.core.engine.on_shards import axis_name_of, on_shards, refuse_shards, refuse_unnamed
from gradtx.core.engine.raised import raised
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.slots import load, load_update, store
from gradtx.core.engine.stacks import StackKernel
from gradtx.core.engine.steps import ROWS, Join, Step, Unit, is_declared, is_rule
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.loops.choice import chosen
from gradtx.core.numerics import cast, widest
from gradtx.core.shards import is_manual, shard_axes
from gradtx.core.summing import sums_of_squares

if TYPE_CHECKING:
    from gradtx.core.engine.update import Update

Columns = list[tuple[list[bool], dict[str, list[Any]]]]
"""For each unit of a stage the leaves that it works on, and its slots, each with an entry for each leaf."""


class Stage(Protocol):
    """A part of an update: it moves the values, the slots and the results of a running `Update`."""

    def run(self, update: Update) -> None:
        """Does the stage's part."""


def stages_of(steps: list[Any]) -> Iterator[Stage]:
    """The stages of a program; the last one is a leaf stage, which makes the results."""
    start = 0
    for i, step in enumerate(steps):
        whole = isinstance(step, Unit) and not is_rule(step)
        measures = isinstance(step, Unit) and not whole and step.transform.measures
        of_matrices = isinstance(step, Unit) and not whole and step.transform.is_of_matrices
        if (whole or measures) and i > start:
            yield LeafStage(steps[start:i], last=False)
        if measures:
            yield MeasureStage(step)
        elif whole:
            yield WrapperStage(step, last=i + 1 == len(steps)) if is_declared(step) else ForeignStage(step)
        if whole or measures:
            start = i + 1 if whole else i
        if of_matrices:  # what it does to each element, then what it does to whole matrices
            yield LeafStage(steps[start : i + 1], last=False)
            yield StackStage(step)
            start = i + 1
    yield LeafStage(steps[start:], last=True)


def _check_leaves(update: Update, unit: Unit, check: Callable[..., None]) -> None:
    """Checks the leaves that a unit works on, where they may be shards; an error says of which leaf it is."""
    if not is_manual():
        return
    for i in update.working(unit):
        try:
            check(update.stacks[i], update.ps[i])
        except ValueError as error:
            lv.note_leaf(error, update.grads, i)
            raise


class LeafStage:
    """Consecutive rules, forks and joins, leaf by leaf."""

    def __init__(self, steps: list[Step], *, last: bool) -> None:
        self.units = [step for step in steps if isinstance(step, Unit | Join)]
        self.kernel, self.last = shared(LeafKernel(steps)), last
        self.draws = any(unit.transform.has_key for unit in self.units if isinstance(unit, Unit))
        # Without forks, a leaf that no unit works on passes as it is.
        self.may_pass = not last and all(isinstance(step, Unit) for step in steps)

    def run(self, update: Update) -> None:
        values = [update.values(unit) for unit in self.units]
        packed, vector, others = pack(values)
        columns = [(update.active[unit.path], update.columns(unit)) for unit in self.units]
        rest = self._calls(update, packed, columns)
        if chosen() == "native":
            rest = self._in_loops(update, [*rest], values, columns)
        for i, call in rest:
            number = update.number(i) if self.draws else None
            try:
                made = self.kernel.compiled(*call, vector, others, number)
            except Exception as error:
                lv.note_leaf(error, update.grads, i)
                raise
            self._keep(update, i, made, columns)

    def _calls(self, update: Update, packed: Packing, columns: Columns) -> Iterator[tuple[int, LeafCall]]:
        """What the kernel is called with for each leaf that something is done to."""
        packing = dataclasses.replace(packed, finish=APPLY) if self.last and update.apply else packed
        in_dtype = functools.cache(lambda dtype: dataclasses.replace(packed, finish=dtype.name))
        for i in update.live:
            if i in update.results:
                continue
            own = [
                {name: column[i] for name, column in slots.items()} if active[i] else None
                for active, slots in columns
            ]
            if self.may_pass and all(slots is None for slots in own):
                continue
            if self.last and not update.apply:
                packing = in_dtype(update.outer_dtype(i))
            yield i, LeafCall(packing, update.stacks[i], update.ps[i], own)

    def _in_loops(
        self, update: Update, calls: list[tuple[int, LeafCall]], values: Any, columns: Columns
    ) -> list[tuple[int, LeafCall]]:
        """Updates the leaves that loops are made for; the others are left."""
        if self.draws:
            done, why = {}, {i: "it draws random numbers" for i, _ in calls}
        else:
            note = functools.partial(lv.note_leaf, tree=update.grads)
            done, why = in_loops(self.kernel, calls, values, lambda error, i: note(error, i=i))
        names = [unit.where for unit in self.units if isinstance(unit, Unit)]
        record(names, lambda: lv.paths(update.grads), {i: why.get(i) for i, _ in calls})
        for i, made in done.items():
            self._keep(update, i, made, columns)
        return [(i, call) for i, call in calls if i not in done]

    def _keep(self, update: Update, i: int, made: tuple[Any, Any], columns: Columns) -> None:
        """Puts the results of a leaf in their places."""
        result, stored = made
        if self.last:
            update.results[i] = result
        else:
            update.stacks[i] = result
        for (_, slots), new in zip(columns, stored, strict=True):
            for name in new or ():
                slots[name][i] = new[name]


class StackStage:
    """A rule on the matrices that the leaves consist of."""

    def __init__(self, unit: Unit) -> None:
        self.unit, self.kernel = unit, shared(StackKernel(unit))

    def run(self, update: Update) -> None:
        unit, on = self.unit, update.working(self.unit)
        if not on:
            return
        _check_leaves(update, unit, functools.partial(refuse_shards, unit.where))
        cuts, groups = update.matrices(unit)
        columns = {name: update.slots[*unit.path, name] for name in unit.transform.matrix_slots}
        rows = update.slots[*unit.path, ROWS] if columns else None
        with jax.named_scope(".".join(unit.path)):
            updates, new = self.kernel.compiled(
                tuple(cuts),
                groups,
                [update.stacks[i][-1] for i in on],
                [update.ps[i] for i in on] if unit.transform.sees_param else None,
                columns,
                None if rows is None else [rows[i] for i in on],
                update.values(unit),
                [update.number(i) for i in on] if unit.transform.has_key else [],
                update.state["step"],
            )
        for i, x in zip(on, updates, strict=True):
            update.stacks[i] = [*update.stacks[i][:-1], x]
        for name, column in new.items():
            update.slots[*unit.path, name] = column


class MeasureStage:
    """What a rule measures on each leaf, summed over the tree, and the scalars that follow from it."""

    def __init__(self, unit: Unit) -> None:
        self.unit, self.kernel = unit, shared(MeasureKernel(unit))

    def run(self, update: Update) -> None:
        unit, kept = self.unit, update.kept[self.unit.path]
        values = update.values(unit)
        _check_leaves(update, unit, functools.partial(refuse_unnamed, unit.where, unit.transform))
        parts: Any
        if unit.transform.measures_norm:
            parts, measured = self._squares(update)
        else:
            parts, measured = self._measures(update, update.measured_values(unit)), []
        more = self.kernel.concluded(update.state["step"], parts, values, kept, update.wanted, measured)
        more = made_once(more)
        update.scalars[unit.path] = {**update.scalars[unit.path], **more}
        update.shared.concluded.append((unit.transform, more))

    def _squares(self, update: Update) -> tuple[list[jax.Array], list[jax.Array]]:
        """The sums of the squares of the leaves, and the leaves."""
        on = update.working(self.unit)
        leaves = [update.stacks[i][-1] for i in on]
        # In float64 where the parameter is.
        wide = [cast(u, widest(u.dtype, update.outer_dtype(i))) for u, i in zip(leaves, on, strict=True)]
        with jax.named_scope(self.unit.where):
            return sums_of_squares(wide, [update.squares(i) for i in on]), leaves

    def _measures(self, update: Update, values: Any) -> dict[tuple[str, ...], list[Any]]:
        """What the rule measures on each leaf, by the mesh axes over which the leaves are shards."""
        parts: dict[tuple[str, ...], list[Any]] = {}
        columns, number = update.columns(self.unit), np.uint32(0)
        axis_name = axis_name_of(self.unit.transform)
        for i in update.working(self.unit):
            own = {name: column[i] for name, column in columns.items()}
            try:
                axes = shard_axes(axis_name, update.stacks[i], update.ps[i])
                found = self.kernel.measured(update.stacks[i], update.ps[i], own, values, number)
                parts.setdefault(axes, []).append(found)
            except Exception as error:
                lv.note_leaf(error, update.grads, i)
                raise
        return parts


class WrapperStage:
    """A wrapper on the leaves that it works on. The last one may make the new parameters in place."""

    def __init__(self, unit: Unit, *, last: bool) -> None:
        self.unit, self.last = unit, last

    def run(self, update: Update) -> None:
        unit, on = self.unit, update.working(self.unit)
        wrapper = update.with_values(unit)
        loaded = [load_update(update.stacks[i], update.ps[i]) for i in on]
        gs, compute = [stack[-1] for stack, _, _ in loaded], [c for _, _, c in loaded]
        own: dict[str, Any] = {}
        for name in wrapper.slots:
            leaves = update.slots[*unit.path, name]
            own[name] = [load(leaves[i], c) for i, c in zip(on, compute, strict=True)]
        for name in (*wrapper.scalars, *wrapper.wrapped()):
            own[name] = update.slots[*unit.path, name]
        call = WrappedUpdate(
            structure=update.structure,
            positions=on,
            path_number=update.number,
            gs=gs,
            given=[update.us[i] for i in on],
            params=None if update.params is None and on else [update.ps[i] for i in on],
            all_params=update.ps,
            active=[i for i, is_active in enumerate(update.active[unit.path]) if is_active],
            step=update.state["step"],
            extra=update.extra_for(unit, on),
            known=[update.squares(i) for i in on],
            apply=update.apply and self.last and wrapper.in_place and on == update.live,
        )

        def run() -> tuple[list[Any], dict[str, Any]]:
            with raised(f"inside of {unit.where}"):
                return wrapper.run(gs, Slots(**own), dataclasses.replace(call))

        with jax.named_scope(unit.where), mixing():
            result, new = on_shards(run, (gs, call.params), unit.where, wrapper, of_trees=True)
        for name, value in new.items():
            path = (*unit.path, name)
            if name in wrapper.slots:
                for i, x in zip(on, value, strict=True):
                    update.slots[path][i] = store(x, update.slots[path][i])
            else:
                update.slots[path] = jax.tree.map(store, value, update.slots[path])
        for i, x in zip(on, result, strict=True):
            if call.apply:
                update.results[i] = x
            else:
                update.stacks[i] = [*update.stacks[i][:-1], x]


class ForeignStage:
    """A transform of whole trees that the engine does not know: it gets and gives the caller's dtypes."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    def run(self, update: Update) -> None:
        unit, on = self.unit, update.working(self.unit)
        tree: list[Any] = [None] * len(update.us)
        params: list[Any] = [None] * len(update.us)
        for i in on:
            u = update.stacks[i][-1]
            tree[i] = u.astype(update.outer_dtype(i)) if unit.transform.foreign else u
            params[i] = update.ps[i]
        old = update.slots[unit.path]

        def run() -> tuple[Any, Any]:
            with raised(f"by update of {unit.where}"):
                return unit.transform.update(
                    update.structure.unflatten(tree),
                    old,
                    None if update.params is None else update.structure.unflatten(params),
                    **update.extra_for(unit, on),
                )

        with jax.named_scope(".".join(unit.path)):
            updates, new = on_shards(run, (tree, params), unit.where, unit.transform, of_trees=True)
        update.slots[unit.path] = jax.tree.map(store, new, old)
        results = lv.align(update.structure, updates, update.grads, f"updates of {unit.where}", "gradients")
        for i in on:
            update.stacks[i] = [*update.stacks[i][:-1], results[i]]
