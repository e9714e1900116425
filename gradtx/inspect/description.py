"""The description of an optimizer: what it consists of, in fields and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

from gradtx.core.numbers.paths import Path
from gradtx.core.spec.spec import show
from gradtx.core.spec.words import count, some
from gradtx.formulas.decay import DecayKind
from gradtx.formulas.direction import Direction
from gradtx.inspect.outline import Kind
from gradtx.inspect.schedules_over_run import Course
from gradtx.inspect.table import columns, filled, size

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class SlotSize:
    """A slot of a transform: its name, its dtypes, its size in bytes, and whether each leaf has one."""

    name: str
    dtypes: tuple[str, ...]
    nbytes: int
    of_leaves: bool


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of an optimizer: a transform, or what has others inside.

    Attributes:
        path: its place in the state.
        kind: a recipe, a group, a unit (a single transform), a join of parallel branches, or a branch.
        purpose: what it does, in a line.
        hyperparams: its numbers and schedules, by the names that `gradtx.hyperparams` gives.
        mask: which leaves it was given, as code; empty where it was given none.
        leaves: on how many leaves it works.
        of: how many there are.
        parameters: the number of elements of these leaves.
        slots: what it remembers.
        nbytes: the size of its slots and of those inside.
        inside: the parts inside: of a recipe, of a group, or of what a wrapper wraps.
    """

    path: Path
    kind: Kind
    purpose: str
    hyperparams: dict[str, Any]
    mask: str
    leaves: int
    of: int
    parameters: int
    slots: tuple[SlotSize, ...]
    nbytes: int
    inside: tuple[Part, ...]

    @property
    def name(self) -> str:
        """Its place in the state, as one word."""
        return ".".join(self.path)

    def all(self) -> Iterator[Part]:
        """Itself and every part inside, in order."""
        yield self
        for part in self.inside:
            yield from part.all()


@dataclasses.dataclass(frozen=True, repr=False)
class Description:
    """What an optimizer does to a tree of parameters; it prints as a table.

    Attributes:
        leaves: the number of leaves.
        parameters: the number of elements.
        nbytes: the size of the parameters.
        state_nbytes: the size of the state.
        parts: the outermost parts in order.
        schedules: each schedule over the run.
        directions: where the update of each leaf goes, by its path.
        decays: the weight decay of each leaf that has some, by its path.
        remarks: what is to be said of it as a whole.
    """

    leaves: int
    parameters: int
    nbytes: int
    state_nbytes: int
    parts: tuple[Part, ...]
    schedules: tuple[Course, ...]
    directions: dict[str, Direction]
    decays: dict[str, DecayKind]
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        head = (
            f"{count(self.leaves, 'leaf', 'leaves')}, {count(self.parameters, 'parameter')}, "
            f"{size(self.nbytes)}; the state takes {size(self.state_nbytes)}"
        )
        remarks = [line for remark in self.remarks for line in filled(remark)]
        texts = [filled(head) + self._directions(), remarks, self._parts(), self._schedules(), self._decays()]
        return "\n\n".join("\n".join(text) for text in texts if text)

    def __repr__(self) -> str:
        return str(self)

    def _directions(self) -> list[str]:
        grouped, lines = _grouped(self.directions), []
        for direction in Direction:
            paths = grouped.get(direction, [])
            where = "all leaves" if len(paths) == len(self.directions) else some(paths)
            if direction is Direction.DESCENT and len(grouped) > 1 and len(paths) > 3:
                where = f"the other {len(paths):,} leaves"
            lines += filled(f"{direction.value}: {where}") if paths else []
        return lines

    def _parts(self) -> list[str]:
        if not self.parts:
            return ["no transforms: the updates pass as they are"]
        rows = list(_rows(self.parts, 0))
        table = columns([["transform", "leaves", "parameters", "state"], *(cells for cells, _ in rows)])
        lines = [table[0]]
        for line, (_, notes) in zip(table[1:], rows, strict=True):
            lines += [line, *notes]
        return lines

    def _schedules(self) -> list[str]:
        if not self.schedules:
            return []
        rows = [["schedule", "start", "middle", "end", "largest"]]
        for c in self.schedules:
            cells = [c.start, c.middle, c.end, c.peak]
            rows.append(
                [c.name, *("-" if cell is None else f"{cell[1]:.4g} @ {cell[0]:,}" for cell in cells)]
            )
        notes = {f"Schedules inside {c.counts} count its updates." for c in self.schedules if c.counts}
        return [*columns(rows), *sorted(notes)]

    def _decays(self) -> list[str]:
        lines = []
        for decay, paths in _grouped(self.decays).items():
            text = f"weight decay {decay.coupling.value}: {len(paths):,} of {self.leaves:,} leaves"
            if decay.factor is not None:
                text += f"; a step takes at most {decay.factor:.3g} of a parameter"
            if decay.half_life is not None:
                text += f", half of it in {decay.half_life:,.0f} steps"
            lines += filled(text)
        return lines


def _grouped(by_path: dict[str, T]) -> dict[T, list[str]]:
    """The paths that have the same value."""
    result: dict[T, list[str]] = {}
    for path, value in by_path.items():
        result.setdefault(value, []).append(path)
    return result


def _rows(parts: tuple[Part, ...], depth: int, group: str = "") -> Iterator[tuple[list[str], list[str]]]:
    """For each part the cells of its row, and the lines under it; what is in a group lacks its name."""
    for part in parts:
        indent = "  " * depth
        leaves = f"{part.leaves:,}" if part.leaves == part.of else f"{part.leaves:,} of {part.of:,}"
        where = ["", ""] if part.kind in ("recipe", "branch") else [leaves, f"{part.parameters:,}"]
        notes = [part.purpose] if part.purpose else []
        if part.mask:
            notes.append(f"on {part.mask}")
        if part.hyperparams:
            notes.append(", ".join(f"{key} = {show(value)}" for key, value in part.hyperparams.items()))
        if part.slots:
            notes.append(f"keeps {_kept(part.slots)}")
        lines = [line for note in notes for line in filled(note, indent + "    ", "  ")]
        key = part.path[-1]
        yield [indent + key.removeprefix(group), *where, size(part.nbytes) if part.nbytes else "-"], lines
        inside = {"group": f"{key}.", "unit": ""}.get(part.kind, group)
        yield from _rows(part.inside, depth + 1, inside)


def _kept(slots: tuple[SlotSize, ...]) -> str:
    """The slots with their sizes; those that are not of the leaves in one sum."""
    counters = sum(slot.nbytes for slot in slots if not slot.of_leaves)
    named = [f"{s.name} ({size(s.nbytes)} {' '.join(s.dtypes)})" for s in slots if s.of_leaves]
    return ", ".join([*named, f"{size(counters)} for the whole tree"] if counters else named)
