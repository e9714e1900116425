"""What formats lose: the slots of an update in full width, beside what is kept of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.coded import Coded, coded_slot, decoded
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.layout import active_leaves
from gradtx.core.norms import norm
from gradtx.core.numbers.paths import Path, lookup, replaced
from gradtx.core.numerics import divide
from gradtx.core.shards import Axes
from gradtx.core.summing import sums_of_squares


@dataclasses.dataclass(frozen=True)
class CodedSlot:
    """A slot of a state that has a format.

    Attributes:
        name: its transform and its name, as in `scale_by_adam.mu`.
        place: where its values are in the state.
        beside: where its scales are, None for nowhere.
        arrays: its arrays, as `Coded` where they are in the format.
    """

    name: str
    place: Path
    beside: Path | None
    arrays: Any

    def flat(self, tree: Any) -> list[Any]:
        """Of a tree like its arrays, what stands in the places of those in the format."""
        arrays, structure = jax.tree.flatten(self.arrays, is_leaf=_is_coded)
        found = zip(arrays, structure.flatten_up_to(tree), strict=True)
        return [x for own, x in found if _is_coded(own)]

    def error(self, exact: list[jax.Array], axis_name: Axes) -> jax.Array:
        """||kept - exact|| / ||exact|| where it takes the place of its own arrays in the format."""
        own = self.flat(self.arrays)
        kept = [old.store(x).in_full_width() for old, x in zip(own, exact, strict=True)]
        missed = [a - b for a, b in zip(kept, exact, strict=True)]
        return divide(*(norm(xs, sums_of_squares(xs), axis_name) for xs in (missed, exact)))


def _is_coded(x: Any) -> bool:
    return isinstance(x, Coded)


def names_of_stored(tx: Any, outer: Path = ()) -> Iterator[str]:
    """The names of the slots in a transform that have a format."""
    if isinstance(tx, Composed):
        yield from (".".join((*outer, *path)) for path in tx.program.stored)
        for path, part in tx.program.wrapped.items():
            yield from names_of_stored(part, (*outer, *path))


def coded_slots(tx: Any, state: Any, params: Any, outer: Path = (), place: Path = ()) -> Iterator[CodedSlot]:
    """The slots of a state that have a format, also of what is wrapped; `init` was shown such parameters."""
    if not isinstance(tx, Composed) or not any(names_of_stored(tx)):
        return
    program, slots, place = tx.program, state["slots"], (*place, "slots")
    for path, storage in program.stored.items():
        beside, is_stacked = program.scale_paths.get(path), path in program.stack_paths
        scales = None if beside is None else lookup(slots, beside)
        arrays = coded_slot(
            storage, lookup(slots, path), scales, params, state["step"], is_stacked=is_stacked
        )
        at = None if beside is None else (*place, *beside)
        yield CodedSlot(".".join((*outer, *path)), (*place, *path), at, arrays)
    leaves, structure = lv.flatten(params)
    active = active_leaves(program, params, leaves)
    for path, part in program.wrapped.items():
        unit = program.unit_at[path[:-1]]
        on = zip(leaves, active[unit.path], strict=True)
        # A wrapper's view of abstract parameters computes nothing.
        kept = structure.unflatten([lv.shape_of(x) if works else None for x, works in on])
        view = unit.transform.view(kept)
        yield from coded_slots(part, lookup(slots, path), view, (*outer, *path), (*place, *path))


def in_full_width(state: Any, slots: list[CodedSlot]) -> Any:
    """A state whose slots are as wide as arithmetic is, as those are that are too small for a format."""
    for slot in slots:
        wide = jax.tree.map(decoded, slot.arrays, is_leaf=_is_coded)
        state = replaced(state, slot.place, wide)
        if slot.beside is not None:
            nothing = jax.tree.map(lambda x: None, slot.arrays, is_leaf=_is_coded)
            state = replaced(state, slot.beside, nothing)
    return state
