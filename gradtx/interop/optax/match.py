"""The units of a gradtx transform and the parts of an Optax state, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import jax

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.labels import Labelled
from gradtx.core.engine.steps import Unit, is_declared
from gradtx.core.numbers.paths import Path, lookup
from gradtx.interop.optax.states import Counter, Item, Reading, numbered, read, unmasked
from gradtx.interop.optax.table import LABELS, MEASURES, Row, row_of
from gradtx.wrappers.routes import Routes

Groups = tuple[str, ...]

CALLS_ONCE = ("flatten", "track")
"""Wrappers that Optax has no state for, and which call what they wrap once in each update."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A unit that has a state, and where that stands.

    Attributes:
        unit: the unit of the program.
        groups: the labels of the groups that it is in.
        at: the path of its program's state in the whole one.
        is_vector: whether it is inside `flatten`, where Optax has a bare array.
    """

    unit: Unit
    groups: Groups
    at: Path
    is_vector: bool

    @property
    def path(self) -> Path:
        """Where its slots stand in the whole state."""
        return (*self.at, "slots", *self.unit.path)

    @property
    def where(self) -> str:
        """Its name for errors."""
        # A place is "slots", a transform and "inner", as often as there are wrappers around it.
        return ".".join((*self.at[1::3], *self.unit.path))


@dataclasses.dataclass(frozen=True)
class Link:
    """A rule or wrapper and Optax's state for it; `inner` has what a wrapper wraps."""

    target: Target
    row: Row
    item: Item
    inner: dict[str, Clock]

    def whole(self) -> dict[str, Any]:
        """Optax's positions for each slot of the whole tree."""
        return {slot: attrgetter(field)(self.item.state) for slot, field in self.row.scalars.items()}

    def positions(self, slot: str, arrays: Any) -> list[tuple[Any, int | None]]:
        """Each array (or None) of a slot, and Optax's position of it (or None)."""
        where, (field, _, part) = self.target.where, self.row.slots[slot].partition(".")
        mine, structure = lv.flatten(arrays)
        partial = not self.target.unit.transform.slots[slot].is_like_leaf
        theirs = unmasked(getattr(self.item.state, field))
        if theirs is None and partial:
            return [(x, None) for x in mine]
        if self.target.is_vector:
            if list(arrays) != ["real"]:
                raise ValueError(
                    f"{where}: Optax flattens real and complex leaves into one vector, gradtx into two. Move "
                    f"the state of an optimizer that is not flattened."
                )
            theirs = {"real": theirs}
        if part:
            theirs = self._parts(theirs, int(part), structure)
        what, own = f"{field!r} at {self.item.where}", f"slot {slot!r} of {where}"
        pairs = list(zip(mine, lv.align(structure, theirs, arrays, what, own), strict=True))
        for path, (x, position) in zip(lv.paths(arrays), pairs, strict=True):
            if (x is None) != (position is None) and not partial:
                there, missing = (self.item.kind, where) if x is None else (where, self.item.kind)
                raise ValueError(
                    f"The leaf {path!r} has a slot {slot!r} in {there}, and is masked out in {missing}. Give "
                    f"tx the mask, or the groups, of the Optax optimizer."
                )
        return pairs

    def _parts(self, theirs: Any, part: int, structure: Any) -> Any:
        """One part of the list that Optax has in the place of each leaf; None where it is shorter."""
        try:
            lists = structure.flatten_up_to(theirs)
        except ValueError as error:
            raise ValueError(
                f"{self.item.where}: this {self.item.kind} is not of these parameters: {error}"
            ) from error
        found = [x[part] if isinstance(x, list | tuple) and part < len(x) else None for x in lists]
        return structure.unflatten(found)


@dataclasses.dataclass(frozen=True)
class Copy:
    """A state that gradtx keeps for another library: pairs of its path and Optax's position."""

    path: Path
    pairs: list[tuple[int, int]]
    counters: list[int]


@dataclasses.dataclass
class Clock:
    """What is counted by one step: nested states of gradtx, and what is linked to them."""

    where: str
    tx: Any
    states: list[Path]
    reading: Reading
    links: list[Link] = dataclasses.field(default_factory=list)
    copies: list[Copy] = dataclasses.field(default_factory=list)
    step: int | None = None

    def every(self) -> Iterator[Clock]:
        """It and all clocks inside."""
        yield self
        for link in self.links:
            for inner in link.inner.values():
                yield from inner.every()


def linked(tx: Any, part: Any, where: str, at: Path, state: Any) -> Clock:
    """A transform and a numbered state of Optax, matched; an error says what has no counterpart.

    `state` is one of the whole transform's, in which that of `tx` stands at the path `at`.
    """
    if not isinstance(tx, Composed):
        return Clock(where, tx, [], Reading(), copies=[_copied_whole(at, state, part, where)])
    names = [name for unit in tx.program.units for name in unit.path[0].split(".")]
    clock = Clock(where, tx, [], read(part, where, names))
    items = clock.reading.items
    targets = list(_targets(tx, at, (), state, clock))
    queues: dict[Groups, list[Item]] = {}
    for groups, item in zip(_simplified([i.groups for i in items]), items, strict=True):
        queues.setdefault(groups, []).append(item)
    for groups, target in zip(_simplified([t.groups for t in targets]), targets, strict=True):
        _link(target, queues.get(groups, []), clock, state)
    left = [item for queue in queues.values() for item in queue]
    if left:
        raise ValueError(
            f"The Optax state has {left[0].kind} at {left[0].where}, for which tx, {tx!r}, has nothing. Give "
            f"tx the transform of that name; if gradtx has none, Optax's own works inside gradtx.chain."
        )
    return clock


def _targets(
    tx: Composed, at: Path, groups: Groups, state: Any, clock: Clock, is_vector: bool = False
) -> Iterator[Target]:
    clock.states.append(at)
    for unit in tx.program.units:
        labels = tuple(_label(mask) for mask in unit.masks if isinstance(mask, Labelled))
        target = Target(unit, (*groups, *labels), at, is_vector)
        inner = tx.program.wrapped.get((*unit.path, "inner"))
        if isinstance(inner, Composed) and unit.transform.name in CALLS_ONCE:
            path = (*target.path, "inner")
            in_vector = is_vector or not unit.transform.sees_leaves
            yield from _targets(inner, path, target.groups, state, clock, in_vector)
        elif _has_state(unit, inner, lookup(state, target.path)):
            yield target


def _label(mask: Labelled) -> str:
    """The label that Optax has for a group."""
    label = str(mask.label)
    return LABELS.get(label, label) if isinstance(mask.labels, Routes) else label


def _has_state(unit: Unit, inner: Any, own: Any) -> bool:
    """Whether a unit has something to move; measurements are made anew and are not moved."""
    if not is_declared(unit):
        return bool(jax.tree.leaves(own))
    tx = unit.transform
    return tx.name not in MEASURES and bool(tx.slots or tx.scalars or inner is not None)


def _link(target: Target, queue: list[Item], clock: Clock, state: Any) -> None:
    unit = target.unit
    if not is_declared(unit):
        clock.copies.append(_copied(target.path, state, queue, clock, target.where))
        return
    row = row_of(unit.transform)
    if row is None:
        raise ValueError(
            f"{target.where} has a state that Optax has no counterpart for. Move into the transform without "
            f"it; then put what you get at its place in the state that the whole transform's init makes."
        )
    item = queue.pop(0) if queue else None
    if item is None or item.kind != row.state:
        setting = " ({}={!r})".format(*row.setting) if row.setting else ""
        found = f"has {item.kind} at {item.where}" if item else "has no more states"
        raise ValueError(
            f"{target.where}{setting} wants Optax's {row.state}, and the Optax state {found}. Give tx the "
            f"same transforms in the same order, with the same settings."
        )
    lacks = row.fields - set(item.state._fields)
    if lacks:
        raise ValueError(
            f"{item.where}: this {item.kind} has the fields {', '.join(item.state._fields)}, and no "
            f"{', '.join(sorted(lacks))}. It comes from a version of Optax that gradtx does not know."
        )
    for name in row.counts:
        counter = Counter(f"{item.where}.{name}", getattr(item.state, name), row.first_count)
        clock.reading.counters.append(counter)
    inner = {
        name: linked(
            unit.transform.wrapped()[name],
            getattr(item.state, wrapped.field),
            f"{item.where}.{wrapped.field}",
            (*target.path, name),
            state,
        )
        for name, wrapped in row.inner.items()
    }
    clock.links.append(Link(target, row, item, inner))


def _copied(path: Path, state: Any, queue: list[Item], clock: Clock, where: str) -> Copy:
    """Another library's state inside, and the parts of the Optax state that are it."""
    _, own = numbered(lookup(state, path))
    wanted = read(own, where)
    taken = [queue.pop(0) for _ in wanted.items if queue]
    kinds = [item.kind for item in wanted.items]
    if [item.kind for item in taken] != kinds or wanted.injected:
        found = ", ".join(f"{item.kind} at {item.where}" for item in taken) or "no more states"
        raise ValueError(
            f"{where}, another library's transform, wants {', '.join(kinds)}, and the Optax state has "
            f"{found}. Give tx the same transforms in the same order."
        )
    pairs = []
    for mine, theirs in zip(wanted.items, taken, strict=True):
        ours, others = jax.tree.leaves(mine.state), jax.tree.leaves(theirs.state)
        if jax.tree.structure(unmasked(mine.state)) != jax.tree.structure(unmasked(theirs.state)):
            raise ValueError(f"{theirs.where}: the tree of this {theirs.kind} is not that of {where}'s.")
        pairs += zip(ours, others, strict=True)
        if isinstance(getattr(theirs.state, "count", None), int):
            clock.reading.counters.append(Counter(f"{theirs.where}.count", theirs.state.count))
    return Copy(path, pairs, [counter.position for counter in wanted.counters])


def _copied_whole(path: Path, state: Any, part: Any, where: str) -> Copy:
    """All of another library's state inside a wrapper."""
    own = lookup(state, path)
    if jax.tree.structure(own) != jax.tree.structure(part):
        raise ValueError(
            f"{where}: the structure of this state is not that of {'.'.join(path)}, which Optax's own "
            f"transform has in tx. Give tx the same transform."
        )
    return Copy(path, list(enumerate(jax.tree.leaves(part))), [])


def _simplified(trails: list[Groups]) -> list[Groups]:
    """The groups of the parts, where a group that is the only one with content is left out."""
    heads = {trail[0] for trail in trails if trail}
    result = list(trails)
    for head in heads:
        at = [i for i, trail in enumerate(trails) if trail and trail[0] == head]
        for i, rest in zip(at, _simplified([trails[i][1:] for i in at]), strict=True):
            result[i] = (head, *rest) if len(heads) > 1 else rest
    return result
