"""The outline of a transform: what stands inside of what, and on which leaves of a tree each part works."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import jax
import jax.numpy as jnp

from gradtx.core import leaves as lv
from gradtx.core.combine import Chain, visit
from gradtx.core.engine import Composed
from gradtx.core.hyperparams import by_name, entries_of, is_state
from gradtx.core.layout import active_leaves, initial_state
from gradtx.core.program import (
    Builder,
    Fork,
    Join,
    Path,
    Program,
    Swap,
    Unit,
    is_declared,
    is_rule,
    lookup,
    nest,
)
from gradtx.core.schedule import CALLABLE, COMPLEMENT
from gradtx.core.structure import is_ours

Kind = Literal["recipe", "group", "unit", "join", "branch"]


@dataclasses.dataclass
class Part:
    """A part of a transform as it was written.

    Attributes:
        kind: a recipe, a group (what has a name of its own), a unit, a join of parallel branches, a branch.
        path: its place in the state.
        masks: the masks that it stands under.
        unit: the step that runs, of a unit.
        inside: the parts of it, in order; those of a unit that is a wrapper are in its own `Level`s.
        position: the number of steps before it.
    """

    kind: Kind
    path: Path
    masks: tuple[Any, ...]
    unit: Unit | None = None
    inside: list[Part] = dataclasses.field(default_factory=list)
    position: int = 0


class Outline(Builder):
    """A builder that remembers what stands inside of what."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Part] = []
        self._claim: Path = ()

    def claim(self, name: str) -> Path:
        self._claim = super().claim(name)
        return self._claim

    @contextmanager
    def inside(self, name: str = "", mask: Any = None, owners: Any = None) -> Iterator[None]:
        # A recipe has just claimed its name; a group goes by its own, and a bare mask is told by its units.
        claimed, outer = self._claim, self.parts
        with super().inside(name, mask, owners):
            if name:
                self.parts = self._group().inside
            elif owners is not None:
                self.parts = self._add("recipe", claimed).inside
            yield
        self.parts = outer

    def _group(self) -> Part:
        """The part of a group, which may be entered once for each of its members."""
        if self.parts and self.parts[-1].path == self._prefix:
            return self.parts[-1]
        return self._add("group", self._prefix)

    def add_declared(self, rule: Any, name: str = "") -> None:
        super().add_declared(rule, name)
        self._add_unit()

    def add_tree(self, name: str, transform: Any) -> None:
        super().add_tree(name, transform)
        self._add_unit()

    def add_join(self, name: str, branches: int, how: Callable[..., Any]) -> None:
        cuts = self._cuts()
        super().add_join(name, branches, how)
        within = [part for part in self.parts if part.position > cuts[0]]
        del self.parts[len(self.parts) - len(within) :]
        join = self._add("join", self.steps[-1].path)
        for i, start in enumerate(cuts):
            stop = [*cuts, len(self.steps)][i + 1]
            branch = Part("branch", (*join.path, f"branch {i + 1}"), join.masks, position=start)
            branch.inside = [part for part in within if start < part.position <= stop]
            join.inside.append(branch)

    def _cuts(self) -> list[int]:
        """The positions of the fork and the swaps of the innermost parallel branches."""
        depth, cuts = 0, []
        for i, step in reversed(list(enumerate(self.steps))):
            depth += isinstance(step, Join)
            if not depth and isinstance(step, Fork | Swap):
                cuts.append(i)
                if isinstance(step, Fork):
                    break
            depth -= isinstance(step, Fork)
        return cuts[::-1]

    def _add_unit(self) -> None:
        step = self.steps[-1]
        self._add("unit", step.path, step)

    def _add(self, kind: Kind, path: Path, unit: Unit | None = None) -> Part:
        masks = self._masks if unit is None else unit.masks
        self.parts.append(Part(kind, path, masks, unit, position=len(self.steps)))
        return self.parts[-1]


@dataclasses.dataclass
class Level:
    """A program on a tree, from shapes alone.

    Attributes:
        path: the place in the state of the transform that it is, empty for the outermost.
        program: the program.
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
    parts: list[Part]
    paths: list[str]
    leaves: list[Any]
    included: dict[Path, list[bool]]
    active: dict[Path, list[bool]]
    inner: dict[Path, Level]
    state: Any = None
    names: dict[Path, str] = dataclasses.field(default_factory=dict)

    def hyperparams(self, unit: Unit) -> dict[str, Any]:
        """The numbers and schedules of a unit by name, as the transform gives them."""
        return {
            self.names.get((*scope, key), key): self.program.scopes[scope][key][0]
            for scope, key in unit.sources.values()
        }

    def levels(self) -> Iterator[Level]:
        """Itself, and every level inside."""
        yield self
        for level in self.inner.values():
            yield from level.levels()


def survey(tx: Any, params: Any) -> Level:
    """The levels of a transform on a tree of parameters, which may be abstract; no large array is made."""
    found: list[Level] = []

    def look(params: Any) -> Any:
        level = _level(tx, params, ())
        found.append(level)
        return initial_state(level.program, params) if isinstance(tx, Composed) else tx.init(params)

    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), params)
    # Another library's init would make arrays; ours gives an abstract state, faster than any tracing.
    state = look(abstract) if is_ours(tx) else jax.eval_shape(look, abstract)
    (level,) = found
    _attach(level, state)
    entries = by_name(entries_of(state)) if is_state(state) else {}
    for inner in level.levels():
        inner.names = {
            tuple(part.removeprefix(COMPLEMENT) for part in entry.path if part != CALLABLE): name
            for name, entry in entries.items()
            if entry.state is inner.state
        }
    return level


def _attach(level: Level, state: Any) -> None:
    """Gives a level and those inside their states; another library's state counts as a slot."""
    (foreign, *_) = [unit.path for unit in level.program.units] or [()]
    level.state = state if is_state(state) else {"numbers": {}, "slots": nest({foreign: state})}
    for path, inner in level.inner.items():
        _attach(inner, lookup(level.state["slots"], path))


def _all(parts: list[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        yield from _all(part.inside)


def _level(tx: Any, params: Any, place: Path) -> Level:
    outline = Outline()
    visit(tx, outline)
    program = tx.program if isinstance(tx, Composed) else Chain((tx,)).program
    leaves, structure = lv.flatten(params)
    active = active_leaves(program, params, leaves)
    chosen = lv.Inclusion(params, leaves)
    included = {part.path: chosen.of(part.masks, ".".join(part.path)) for part in _all(outline.parts)}
    inner: dict[Path, Level] = {}
    for unit in program.units:
        if is_declared(unit) and not is_rule(unit):
            on = active[unit.path]
            kept = structure.unflatten([x if a else None for x, a in zip(leaves, on, strict=True)])
            for key, part in unit.transform.parts().items():
                path = (*unit.path, key)
                inner[path] = _level(part, unit.transform.view(kept), place + path)
    shapes = [None if x is None else jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in leaves]
    return Level(place, program, outline.parts, lv.paths(params), shapes, included, active, inner)
