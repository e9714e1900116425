"""The description of an optimizer: what it consists of, in fields and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from gradtx._pages import Block, Page, Row, Sentences, Table
from gradtx.core.engine.leaf_loops import StageLoops
from gradtx.core.numbers.paths import Path
from gradtx.core.spec.spec import show
from gradtx.core.spec.words import count, some
from gradtx.formulas.decay import DecayKind
from gradtx.formulas.direction import Direction
from gradtx.inspect.outline import Kind
from gradtx.inspect.schedules_over_run import Course
from gradtx.inspect.table import size

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class SlotSize:
    """A slot of a transform.

    Attributes:
        name: its name.
        dtypes: the names of its dtypes, and of the formats of what is in one.
        nbytes: its size in bytes, scales included.
        of_leaves: whether each leaf has one.
        wide: of a slot with a format, the leaves or stacks in full width, which is that of arithmetic, by
            the reason.
    """

    name: str
    dtypes: tuple[str, ...]
    nbytes: int
    of_leaves: bool
    wide: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


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
class Description(Page):
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
        stages: where `gradtx.kernels("native")` is chosen, which leaves loops of C work on, stage by stage,
            and why XLA does on others.
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
    stages: tuple[StageLoops, ...] = ()

    def __repr__(self) -> str:
        return str(self)

    def blocks(self) -> Iterator[Sequence[Block]]:
        """What it says, part by part."""
        head = (
            f"{count(self.leaves, 'leaf', 'leaves')}, {count(self.parameters, 'parameter')}, "
            f"{size(self.nbytes)}; the state takes {size(self.state_nbytes)}"
        )
        yield [Sentences([head, *self._directions()])]
        yield [Sentences(self.remarks)]
        if self.parts:
            yield [Table(["transform", "leaves", "parameters", "state"], [*_rows(self.parts, 0)], "<>>>")]
        else:
            yield [Sentences(["no transforms: the updates pass as they are"])]
        if self.schedules:
            yield self._schedules()
        yield [Sentences(self._decays())]
        yield [Sentences(self._stages())]

    def _directions(self) -> list[str]:
        grouped, texts = _grouped(self.directions), []
        for direction in Direction:
            paths = grouped.get(direction, [])
            where = "all leaves" if len(paths) == len(self.directions) else some(paths)
            if direction is Direction.DESCENT and len(grouped) > 1 and len(paths) > 3:
                where = f"the other {len(paths):,} leaves"
            texts += [f"{direction.value}: {where}"] if paths else []
        return texts

    def _stages(self) -> list[str]:
        texts = []
        for stage in self.stages:
            what = ", ".join(stage.transforms) or "the end of the update"
            if stage.loops:
                leaves = count(len(stage.loops), "leaf", "leaves")
                texts.append(f"one native loop: {what}, on {leaves}")
            texts += [f"by XLA: {what}, on {some([*paths])}: {why}" for why, paths in stage.by_xla.items()]
        if texts:
            texts.append("What measures a whole tree, wraps others or works on matrices is done by XLA.")
        return texts

    def _schedules(self) -> list[Block]:
        rows = []
        for c in self.schedules:
            cells = [c.start, c.middle, c.end, c.peak]
            texts = ["-" if cell is None else f"{cell[1]:.4g} @ {cell[0]:,}" for cell in cells]
            rows.append(Row([c.name, *texts]))
        notes = {f"Schedules inside {c.counts} count its updates." for c in self.schedules if c.counts}
        table = Table(["schedule", "start", "middle", "end", "largest"], rows, "<>>>>")
        return [table, Sentences(sorted(notes))]

    def _decays(self) -> list[str]:
        texts = []
        for decay, paths in _grouped(self.decays).items():
            text = f"weight decay {decay.coupling.value}: {len(paths):,} of {self.leaves:,} leaves"
            if decay.factor is not None:
                text += f"; a step takes at most {decay.factor:.3g} of a parameter"
            if decay.half_life is not None:
                text += f", half of it in {decay.half_life:,.0f} steps"
            texts.append(text)
        return texts


def _grouped(by_path: dict[str, T]) -> dict[T, list[str]]:
    """The paths that have the same value."""
    result: dict[T, list[str]] = {}
    for path, value in by_path.items():
        result.setdefault(value, []).append(path)
    return result


def _rows(parts: tuple[Part, ...], depth: int, group: str = "") -> Iterator[Row]:
    """The row of each part; what is in a group lacks its name."""
    for part in parts:
        leaves = f"{part.leaves:,}" if part.leaves == part.of else f"{part.leaves:,} of {part.of:,}"
        where = ["", ""] if part.kind in ("recipe", "branch") else [leaves, f"{part.parameters:,}"]
        notes = [part.purpose] if part.purpose else []
        if part.mask:
            notes.append(f"on {part.mask}")
        if part.hyperparams:
            notes.append(", ".join(f"{key} = {show(value)}" for key, value in part.hyperparams.items()))
        if part.slots:
            notes.append(f"keeps {_kept(part.slots)}")
            notes += _wide(part.slots)
        key = part.path[-1]
        cells = [key.removeprefix(group), *where, size(part.nbytes) if part.nbytes else "-"]
        yield Row(cells, depth, notes)
        inside = {"group": f"{key}.", "unit": ""}.get(part.kind, group)
        yield from _rows(part.inside, depth + 1, inside)


def _kept(slots: tuple[SlotSize, ...]) -> str:
    """The slots with their sizes; those that are not of the leaves in one sum."""
    counters = sum(slot.nbytes for slot in slots if not slot.of_leaves)
    named = [f"{s.name} ({size(s.nbytes)} {' '.join(s.dtypes)})" for s in slots if s.of_leaves]
    return ", ".join([*named, f"{size(counters)} for the whole tree"] if counters else named)


def _wide(slots: tuple[SlotSize, ...]) -> list[str]:
    """Which leaves of slots with a format are in full width, and why."""
    found: dict[str, list[str]] = {}
    for slot in slots:
        if slot.wide:
            leaves = "; ".join(f"{some(paths)} ({why})" for why, paths in slot.wide.items())
            found.setdefault(leaves, []).append(slot.name)
    return [f"{', '.join(names)} in full width: {leaves}" for leaves, names in found.items()]
