"""A description of an optimizer on a tree of parameters: what it does, where, and what it costs."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterator
from typing import Any, TypeVar

import jax

from gradtx.core.labels import Labelled
from gradtx.core.leaves import Excluding
from gradtx.core.program import Unit, is_declared, is_rule, lookup
from gradtx.core.spec import FACTORIES, show
from gradtx.core.transform import GradientTransformation
from gradtx.inspect.courses import Course, courses
from gradtx.inspect.direction import Decay, Direction, movements
from gradtx.inspect.outline import Level, Part, survey
from gradtx.inspect.table import columns, count, filled, size, some

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class SlotSize:
    """A slot of a step: its name, its dtypes, its size in bytes, and whether each leaf has one."""

    name: str
    dtypes: tuple[str, ...]
    nbytes: int
    of_leaves: bool


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of an optimizer, or a part of it with others inside.

    Attributes:
        name: its place in the state.
        kind: a recipe, a group, a unit (a single transform), a join of parallel branches, or a branch.
        formula: what it does, in a line.
        hyperparams: its numbers and schedules, by the names that `gradtx.hyperparams` gives.
        mask: which leaves it was given, as code; empty where it was given none.
        leaves: on how many leaves it works.
        of: how many there are.
        parameters: the number of elements of these leaves.
        slots: what it remembers.
        nbytes: the size of its slots and of those inside.
        inside: the steps inside: of a recipe, of a group, or of what a wrapper wraps.
    """

    name: str
    kind: str
    formula: str
    hyperparams: dict[str, Any]
    mask: str
    leaves: int
    of: int
    parameters: int
    slots: tuple[SlotSize, ...]
    nbytes: int
    inside: tuple[Step, ...]

    def all(self) -> Iterator[Step]:
        """Itself and every step inside, in order."""
        yield self
        for step in self.inside:
            yield from step.all()


@dataclasses.dataclass(frozen=True)
class Description:
    """What an optimizer does to a tree of parameters; it prints as a table.

    Attributes:
        leaves: the number of leaves.
        parameters: the number of elements.
        nbytes: the size of the parameters.
        state_nbytes: the size of the state.
        steps: the outermost steps in order.
        schedules: each schedule over the run.
        directions: where the update of each leaf goes, by its path.
        decays: the weight decay of each leaf that has some, by its path.
    """

    leaves: int
    parameters: int
    nbytes: int
    state_nbytes: int
    steps: tuple[Step, ...]
    schedules: tuple[Course, ...]
    directions: dict[str, Direction]
    decays: dict[str, Decay]

    def __str__(self) -> str:
        head = (
            f"{count(self.leaves, 'leaf', 'leaves')}, {count(self.parameters, 'parameter')}, "
            f"{size(self.nbytes)}; the state takes {size(self.state_nbytes)}"
        )
        parts = [filled(head) + self._directions(), self._steps(), self._schedules(), self._decays()]
        return "\n\n".join("\n".join(part) for part in parts if part)

    def _directions(self) -> list[str]:
        grouped, lines = _grouped(self.directions), []
        for direction, words in WORDS.items():
            paths = grouped.get(direction, [])
            where = "all leaves" if len(paths) == len(self.directions) else some(paths)
            if direction is Direction.DESCENT and len(grouped) > 1 and len(paths) > 3:
                where = f"the other {len(paths):,} leaves"
            lines += filled(f"{words}: {where}") if paths else []
        return lines

    def _steps(self) -> list[str]:
        if not self.steps:
            return ["no steps: the updates pass as they are"]
        rows = list(_rows(self.steps, 0))
        table = columns([["step", "leaves", "parameters", "state"], *(cells for cells, _ in rows)])
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


WORDS = {
    Direction.ASCENT: "ASCENT, up the gradient, so that the loss grows",
    Direction.NONE: "no movement, whatever the gradient",
    Direction.UNKNOWN: "not told by the gradient's sign",
    Direction.DESCENT: "descent, down the gradient",
}
"""The directions, those to look at first."""


def _grouped(by_path: dict[str, T]) -> dict[T, list[str]]:
    """The paths that have the same value."""
    result: dict[T, list[str]] = {}
    for path, value in by_path.items():
        result.setdefault(value, []).append(path)
    return result


def _rows(steps: tuple[Step, ...], depth: int) -> Iterator[tuple[list[str], list[str]]]:
    """For each step the cells of its row, and the lines under it."""
    for step in steps:
        indent = "  " * depth
        name = step.name.rpartition(".")[2]
        leaves = f"{step.leaves:,}" if step.leaves == step.of else f"{step.leaves:,} of {step.of:,}"
        where = ["", ""] if step.kind in ("recipe", "branch") else [leaves, f"{step.parameters:,}"]
        notes = [step.formula] if step.formula else []
        if step.mask:
            notes.append(f"on {step.mask}")
        if step.hyperparams:
            notes.append(", ".join(f"{key} = {show(value)}" for key, value in step.hyperparams.items()))
        if step.slots:
            notes.append(f"keeps {_kept(step.slots)}")
        lines = [line for note in notes for line in filled(note, indent + "    ", "  ")]
        yield [indent + name, *where, size(step.nbytes) if step.nbytes else "-"], lines
        yield from _rows(step.inside, depth + 1)


def _kept(slots: tuple[SlotSize, ...]) -> str:
    """The slots with their sizes; those that are not of the leaves in one sum."""
    counters = sum(slot.nbytes for slot in slots if not slot.of_leaves)
    named = [f"{s.name} ({size(s.nbytes)} {' '.join(s.dtypes)})" for s in slots if s.of_leaves]
    return ", ".join([*named, f"{size(counters)} for the whole tree"] if counters else named)


def describe(tx: Any, params: Any, steps: int | None = None) -> Description:
    """What an optimizer does to a tree of parameters: its steps in order, where each works, what it costs.

    Nothing is run and no array is made: the parameters may be of any size, also abstract.

    Args:
        tx: a transform of any library. What is inside of another library's is not told apart.
        params: the parameters, or `jax.ShapeDtypeStruct`s like them.
        steps: the number of calls of `update` in the run, at whose end schedules are shown; by default each
            is shown until it settles.

    Returns:
        A `Description`, which prints as a table of 100 columns; what it says can be read as attributes too.

    Raises:
        ValueError: `init` refuses the parameters, which `gradtx.check` reports as a finding; or `steps` is
            less than 1.
        TypeError: `init` refuses the parameters.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params = {"w": jnp.ones((8, 4)), "bias": jnp.ones(4)}
        >>> print(gradtx.describe(gradtx.adamw(1e-3, weight_decay=0.1, mask="!*bias"), params))
        2 leaves, 36 parameters, 144 B; the state takes 316 B
        descent, down the gradient: all leaves
        <BLANKLINE>
        step                      leaves  parameters  state
        adamw                                         288 B
            AdamW: Adam's direction u, and weight decay that does not pass through the moments
          scale_by_adam                2          36  288 B
              m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) |g|²;  u = m^ / (sqrt(v^ + eps_root) + eps)
              b1 = 0.9, b2 = 0.999, eps = 1e-08, eps_root = 0.0
              keeps mu (144 B float32), nu (144 B float32)
          add_decayed_weights     1 of 2          32      -
              u = g + lambda theta
              on '!*bias'
              weight_decay = 0.1
          scale_by_learning_rate       2          36      -
              u = -learning_rate g
              learning_rate = 0.001
        <BLANKLINE>
        weight decay times the learning rate: 1 of 2 leaves; a step takes at most 0.0001 of a parameter,
            half of it in 6,931 steps
        >>> gradtx.describe(gradtx.scale_by_adam(), params).state_nbytes
        308
    """
    if steps is not None and steps < 1:
        raise ValueError(f"describe: steps must be at least 1, got {steps}.")
    level = survey(tx, params)
    leaves = [x for x in level.leaves if x is not None]
    known = zip(level.paths, level.leaves, movements(tx, params), strict=True)
    moves = {path: move for path, leaf, move in known if leaf is not None}
    return Description(
        leaves=len(leaves),
        parameters=sum(math.prod(x.shape) for x in leaves),
        nbytes=nbytes(leaves),
        state_nbytes=nbytes(level.state),
        steps=tuple(_step(part, level) for part in level.parts),
        schedules=tuple(courses(level, steps)),
        directions={path: direction for path, (direction, _) in moves.items()},
        decays={path: decay for path, (_, decay) in moves.items() if decay},
    )


def _step(part: Part, level: Level) -> Step:
    name = ".".join([level.name, *part.path] if level.name else part.path)
    on = level.included[part.path]
    slots: tuple[SlotSize, ...] = ()
    inside = [_step(p, level) for p in part.inside]
    hyperparams: dict[str, Any] = {}
    if part.unit is not None:
        on = level.active[part.path]
        slots = tuple(_slots(part.unit, level))
        hyperparams = level.hyperparams(part.unit)
        for path, inner in level.inner.items():
            if path[:-1] == part.path:
                inside += [_step(p, inner) for p in inner.parts]
    chosen = [x for x, a in zip(level.leaves, on, strict=True) if a]
    return Step(
        name=name,
        kind=part.kind,
        formula=_formula(part),
        hyperparams=hyperparams,
        mask=_mask(part),
        leaves=len(chosen),
        of=sum(x is not None for x in level.leaves),
        parameters=sum(math.prod(x.shape) for x in chosen),
        slots=slots,
        nbytes=sum(slot.nbytes for slot in slots) + sum(step.nbytes for step in inside),
        inside=tuple(inside),
    )


def _formula(part: Part) -> str:
    """The first line of what is written about it: of a rule its formula, of the others their purpose."""
    if part.kind in ("group", "branch"):
        return ""
    if part.unit is None:
        return _first_line(FACTORIES.get(part.path[-1].rstrip("_0123456789")))
    tx = part.unit.transform
    if not is_declared(part.unit):
        return _foreign(tx)
    public = None if is_rule(part.unit) else FACTORIES.get(tx._call()[0])
    return _first_line(public or type(tx))


def _foreign(tx: Any) -> str:
    init = tx.init_fn if isinstance(tx, GradientTransformation) else tx.init
    module, name = getattr(init, "__module__", ""), getattr(init, "__qualname__", type(tx).__name__)
    owner = name.partition(".")[0]
    return f"{module}.{owner}, of another library: its numbers are in its code"


def _first_line(x: Any) -> str:
    return (inspect.getdoc(x) or "").partition("\n")[0].removesuffix(".") if x is not None else ""


def _mask(part: Part) -> str:
    """The innermost mask of a unit, if it was given one; a group says by its name what it is of."""
    mask = part.masks[-1] if part.unit is not None and part.masks else None
    if mask is None or isinstance(mask, Labelled):
        return ""
    code = show(getattr(mask, "mask", mask))
    code = code if len(code) < 60 else "a tree of bools"
    return f"what is not in {code}" if isinstance(mask, Excluding) else code


def _slots(unit: Unit, level: Level) -> Iterator[SlotSize]:
    state = level.state["slots"]
    paths = [p for p in level.program.slot_paths if p not in level.inner]
    for path in paths:
        if path == unit.path or path[:-1] == unit.path:
            arrays = jax.tree.leaves(lookup(state, path))
            dtypes = tuple(sorted({x.dtype.name for x in arrays}))
            name = path[-1] if path != unit.path else "its state"
            if arrays:
                of_leaves = path == unit.path or path in level.program.leaf_slot_paths
                yield SlotSize(name, dtypes, nbytes(arrays), of_leaves)


def nbytes(tree: Any) -> int:
    """The size of a tree of abstract arrays in bytes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
