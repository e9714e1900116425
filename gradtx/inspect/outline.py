"""The outline of a transform: what stands inside of what, as it was written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from gradtx.core.engine.program import Builder
from gradtx.core.engine.steps import Fork, Join, Swap, Unit
from gradtx.core.numbers.paths import Path

Kind = Literal["recipe", "group", "unit", "join", "branch"]


@dataclasses.dataclass
class Node:
    """A part of a transform as it was written.

    Attributes:
        kind: a recipe, a group (what has a name of its own), a unit, a join of parallel branches, a branch.
        path: its place in the state.
        name: the name of the constructor, of a recipe or a join.
        masks: the masks that it stands under.
        unit: the step that runs, of a unit.
        inside: the parts of it, in order; those of a unit that is a wrapper are in its own `Surveyed`s.
        position: the number of steps before it.
    """

    kind: Kind
    path: Path
    masks: tuple[Any, ...]
    name: str = ""
    unit: Unit | None = None
    inside: list[Node] = dataclasses.field(default_factory=list)
    position: int = 0


class Outline(Builder):
    """A builder that remembers what stands inside of what."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Node] = []
        self._claim: tuple[str, Path] = "", ()

    def claim(self, name: str) -> Path:
        path = super().claim(name)
        self._claim = name, path
        return path

    @contextmanager
    def inside(
        self, name: str = "", mask: Any = None, owners: Any = None, store: Any = None
    ) -> Iterator[None]:
        # A recipe has just claimed its name; a group goes by its own, and a bare mask is told by its units.
        (called, claimed), outer = self._claim, self.parts
        with super().inside(name, mask, owners, store):
            if name:
                self.parts = self._group().inside
            elif owners is not None:
                self.parts = self._add("recipe", claimed, called).inside
            yield
        self.parts = outer

    def _group(self) -> Node:
        """The part of a group, which may be entered once for each of its members."""
        path = (self._prefix.removesuffix("."),)
        if self.parts and self.parts[-1].path == path:
            return self.parts[-1]
        return self._add("group", path)

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
        join = self._add("join", self.steps[-1].path, name)
        for i, start in enumerate(cuts):
            stop = [*cuts, len(self.steps)][i + 1]
            branch = Node("branch", (*join.path, f"branch {i + 1}"), join.masks, position=start)
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
        self._add("unit", step.path, unit=step)

    def _add(self, kind: Kind, path: Path, name: str = "", unit: Unit | None = None) -> Node:
        masks = self._masks if unit is None else unit.masks
        self.parts.append(Node(kind, path, masks, name, unit, position=len(self.steps)))
        return self.parts[-1]
