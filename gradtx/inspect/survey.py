"""The levels of a transform on a tree of parameters: on which leaves each part works, and its state."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from gradtx.core.compose.combine import Chain, checked, visit
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.layout import active_leaves, initial_state
from gradtx.core.engine.program import Program
from gradtx.core.engine.steps import Unit
from gradtx.core.engine.structure import is_ours
from gradtx.core.numbers.hyperparams import by_name, entries_of
from gradtx.core.numbers.paths import Path, lookup, nest
from gradtx.core.numbers.schedule import CALLABLE, COMPLEMENT
from gradtx.core.spec.spec import is_array, show
from gradtx.inspect.outline import Node, Outline


@dataclasses.dataclass
class Surveyed:
    """A program on a tree, from shapes alone.

    Attributes:
        path: the place in the state of the transform that it is, empty for the outermost.
        program: the program.
        params: the parameters as it sees them.
        parts: what it was written as.
        paths: the paths of the leaves.
        leaves: their shapes and dtypes; None for what is no leaf of it.
        included: for each part, which leaves its masks include.
        active: for each unit, on which leaves it works.
        inner: the levels of what each wrapper wraps, by their places.
        state: its state, abstract.
        names: the names by which `gradtx.hyperparams` gives its numbers and schedules, by their paths.
    """

    path: Path
    program: Program
    params: Any
    parts: list[Node]
    paths: list[str]
    leaves: list[Any]
    included: dict[Path, list[bool]]
    active: dict[Path, list[bool]]
    inner: dict[Path, Surveyed]
    state: Any = None
    names: dict[Path, str] = dataclasses.field(default_factory=dict)

    def names_of(self, unit: Unit) -> dict[str, str]:
        """The name of each number and schedule of a unit, by the field that it is in."""
        return {
            field: self.names.get((*source[0], source[1]), source[1])
            for field, source in unit.sources.items()
        }

    def hyperparams(self, unit: Unit) -> dict[str, Any]:
        """The numbers and schedules of a unit by name, as the transform gives them."""
        names = self.names_of(unit)
        return {
            names[field]: self.program.scopes[scope][key][0] for field, (scope, key) in unit.sources.items()
        }

    def levels(self) -> Iterator[Surveyed]:
        """Itself, and every level inside."""
        yield self
        for level in self.inner.values():
            yield from level.levels()


def checked_arguments(where: str, tx: Any, params: Any, steps: int | None) -> None:
    """Raises where what is to be looked at is no transform, no parameters or no run."""
    checked(where, tx)
    if params is None:
        raise TypeError(
            f"{where}: params is None, but must be the parameters, or jax.ShapeDtypeStructs like them."
        )
    if steps is None:
        return
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer):
        raise TypeError(f"{where}: steps must be a whole number, got {show(steps)}.")
    if steps < 1:
        raise ValueError(f"{where}: steps must be at least 1, got {steps}.")


def survey(tx: Any, params: Any) -> Surveyed:
    """The levels of a transform on a tree of parameters, which may be abstract; no large array is made."""
    found: list[Surveyed] = []

    def look(params: Any) -> Any:
        level = _level(tx, params, ())
        found.append(level)
        return initial_state(level.program, params) if isinstance(tx, Composed) else tx.init(params)

    # What is no array stays what it is, for init to name it in its error.
    abstract = jax.tree.map(lambda x: lv.shape_of(x) if _has_shape(x) else x, params)
    # Another library's init would make arrays; ours gives an abstract state, faster than any tracing.
    state = look(abstract) if is_ours(tx) else jax.eval_shape(look, abstract)
    (level,) = found
    attach(level, tx, state)
    entries = by_name(entries_of(state)) if isinstance(tx, Composed) else {}
    for inner in level.levels():
        inner.names = {
            tuple(part.removeprefix(COMPLEMENT) for part in entry.path if part != CALLABLE): name
            for name, entry in entries.items()
            if entry.state is inner.state
        }
    return level


def attach(level: Surveyed, tx: Any, state: Any) -> None:
    """Gives a level and those inside their states; another library's state counts as a slot."""
    (foreign, *_) = [unit.path for unit in level.program.units] or [()]
    level.state = state if isinstance(tx, Composed) else {"numbers": {}, "slots": nest({foreign: state})}
    for path, part in level.program.wrapped.items():
        attach(level.inner[path], part, lookup(level.state["slots"], path))


def _all(parts: list[Node]) -> Iterator[Node]:
    for part in parts:
        yield part
        yield from _all(part.inside)


def _has_shape(x: Any) -> bool:
    return is_array(x) or isinstance(x, jax.ShapeDtypeStruct | int | float | complex | np.generic)


def _level(tx: Any, params: Any, place: Path) -> Surveyed:
    outline = Outline()
    visit(tx, outline)
    program = tx.program if isinstance(tx, Composed) else Chain((tx,)).program
    leaves, structure = lv.flatten(params)
    active = active_leaves(program, params, leaves)
    chosen = lv.Inclusion(params, leaves)
    included = {part.path: chosen.of(part.masks, ".".join(part.path)) for part in _all(outline.parts)}
    inner: dict[Path, Surveyed] = {}
    for path, part in program.wrapped.items():
        unit = program.unit_at[path[:-1]]
        kept = structure.unflatten([x if a else None for x, a in zip(leaves, active[unit.path], strict=True)])
        inner[path] = _level(part, unit.transform.view(kept), place + path)
    shapes = [lv.shape_of(x) if _has_shape(x) else None for x in leaves]
    return Surveyed(place, program, params, outline.parts, lv.paths(params), shapes, included, active, inner)
