"""The trajectories of optimizers: what their slots and updates are, step by step, and where two of them part.

A trajectory is computed in float64 from the traced update of one leaf, on gradients of several magnitudes, so
that neither the size of the parameters nor their precision matters.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np

from gradtx.core import leaves as lv
from gradtx.core.structure import is_ours
from gradtx.formulas.expression import symbols
from gradtx.formulas.numeric import Evaluator, is_opaque
from gradtx.formulas.runs import stand_in
from gradtx.formulas.trace import Traced, Tracing, composed, signatures

STEPS = 20
"""The number of steps that optimizers are followed for."""

FAR = 1_000_000
"""The number of steps over which their schedules are compared."""

EXACTLY, ROUNDED = 1e-11, 1e-4
"""Values that differ by less, relative to the larger one, are the same: up to rounding in float64, or where a
transform of another library computes with constants that it has rounded to float32.
"""

MAGNITUDES = np.array([1.0, 1e-3, 1e-6])
"""The magnitudes of the gradients of the three elements that are followed."""

THETA = np.array([0.7, -0.4, 0.2])
"""The parameters at first, of every leaf."""


class Trajectory:
    """The values that the slots and the updates of one leaf take."""

    def __init__(self, leaf: int, traced: Traced, tolerance: float) -> None:
        self.leaf, self.traced, self.tolerance = leaf, traced, tolerance
        self.cells = traced.cells
        self.slots = [cell.name for cell in self.cells if cell.kind == "slot"]
        self.remembered = [cell.name for cell in self.cells if cell.kind in ("slot", "whole")]

    @functools.cached_property
    def start(self) -> dict[str, Any]:
        """The parameters, what the state holds at first, and something for whatever else is needed."""
        roots = [x for cell in self.cells for x in (cell.start, cell.new)]
        names = symbols(*roots, self.traced.update) | {"theta"}
        held = {name: stand_in(name) or 0.5 for name in names}
        held |= {name: THETA for name in names if name.endswith("theta")}
        values = Evaluator([cell.start for cell in self.cells])(held)
        return held | dict(zip((cell.name for cell in self.cells), values, strict=True))

    @functools.cached_property
    def values(self) -> list[dict[str, Any]]:
        """What is remembered, and the update, of every step."""
        following = Evaluator([*(cell.new for cell in self.cells), self.traced.update])
        held, found = dict(self.start), []
        for g in np.random.default_rng(0).normal(size=(STEPS, 3)) * MAGNITUDES:
            *new, update = following(held | {"g": g})
            held |= {cell.name: value for cell, value in zip(self.cells, new, strict=True)}
            held["theta"] = held["theta"] + np.real(update)
            found.append({name: held[name] for name in self.remembered} | {"update": update})
        return found

    @property
    def opaque(self) -> list[str]:
        """The slots, and the update, that are computed in a way that has no reading as a formula."""
        named = {cell.name: cell.new for cell in self.cells if cell.kind == "slot"}
        return [name for name, x in (named | {"update": self.traced.update}).items() if is_opaque(x)]

    def schedules(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """The value of each schedule at some steps."""
        clocks = {cell.name: steps + 1.0 for cell in self.cells if cell.kind == "step"}
        named = self.traced.definitions
        values = Evaluator(named.values())(self.start | clocks)
        return {name: np.broadcast_to(x, steps.shape) for name, x in zip(named, values, strict=True)}


class Followed:
    """An optimizer on some leaves of a tree; its trajectory on a leaf is made when it is asked for."""

    def __init__(self, tx: Any, params: Any, leaves: Collection[int]) -> None:
        self.tx = composed(tx)
        self.tolerance = EXACTLY if is_ours(self.tx) else ROUNDED
        self._tracing, self._made = Tracing(self.tx, params, leaves), {}

    def trajectory(self, leaf: int) -> Trajectory:
        """Its trajectory on a leaf, beside the others."""
        if leaf not in self._made:
            self._made[leaf] = Trajectory(leaf, self._tracing.view(leaf), self.tolerance)
        return self._made[leaf]

    @property
    def opaque(self) -> set[str]:
        """What of it could not be followed."""
        return {name for trajectory in self._made.values() for name in trajectory.opaque}


@dataclasses.dataclass(frozen=True)
class Divergence:
    """Where the trajectories of two optimizers part.

    Attributes:
        step: the step, from 0.
        names: the slot, the schedule or `"update"`, as each of them calls it.
        leaf: the position of the leaf; None for what is the whole tree's.
        values: the values of an element that differs, or the dtypes, where only those differ.
        trajectories: the two trajectories.
        order: by what is computed first.
    """

    step: int
    names: tuple[str, str]
    leaf: int | None
    values: tuple[float | str, float | str]
    trajectories: tuple[Trajectory, Trajectory]
    order: tuple[int, ...]


def divergences(a: Followed, b: Followed, leaves: Iterable[int]) -> list[Divergence]:
    """Where two optimizers part: on each leaf the first slot that differs, and the first update."""
    pairs = [(a.trajectory(leaf), b.trajectory(leaf)) for leaf in leaves]
    found: list[Divergence] = []
    # What differs in the first way is all that counts.
    for ways in (_of_steps, _of_schedules, _of_storage):
        found = found or [x for pair in pairs for x in ways(*pair)]
    return sorted(found, key=lambda one: one.order)


def representatives(a: Any, b: Any, params: Any) -> list[int]:
    """The first leaf of each set that two optimizers treat alike."""
    ranks = [len(np.shape(x)) for x in lv.flatten(params)[0]]
    first: dict[Any, int] = {}
    for i, row in enumerate(zip(*(signatures(composed(tx), params) for tx in (a, b)), ranks, strict=True)):
        if row[0] is not None:
            first.setdefault(row, i)
    return list(first.values())


def _of_steps(a: Trajectory, b: Trajectory) -> Iterator[Divergence]:
    names = [*_shared(a.remembered, b.remembered), ("update", "update")]
    for wanted in (names, names[-1:]):
        yield from itertools.islice(_differing(a, b, wanted), 1)


def _differing(a: Trajectory, b: Trajectory, names: list[tuple[str, str]]) -> Iterator[Divergence]:
    for step, (x, y) in enumerate(zip(a.values, b.values, strict=True)):
        for i, (ours, theirs) in enumerate(names):
            at = np.flatnonzero(_differs(x[ours], y[theirs], max(a.tolerance, b.tolerance)))
            if at.size:
                values = _element(x[ours], at[0]), _element(y[theirs], at[0])
                own = ours == "update" or ours in a.slots
                order = (step, ours == "update", a.leaf, i)
                yield Divergence(step, (ours, theirs), a.leaf if own else None, values, (a, b), order)


def _of_schedules(a: Trajectory, b: Trajectory) -> Iterator[Divergence]:
    """Where schedules of one name first differ: on a coarse grid, then between its points."""
    for ours, theirs in _shared([*a.traced.definitions], [*b.traced.definitions]):

        def at(steps: np.ndarray, ours: str = ours, theirs: str = theirs) -> tuple[Any, Any]:
            return a.schedules(steps)[ours], b.schedules(steps)[theirs]

        def apart(steps: np.ndarray, at: Any = at) -> np.ndarray:
            x, y = at(steps)
            return steps[_differs(x, y, max(a.tolerance, b.tolerance))]

        near = apart(np.arange(1_000))
        far = apart(np.arange(0, FAR, 1_000)) if not near.size else near
        if far.size:
            step = near[0] if near.size else apart(np.arange(far[0] - 999, far[0] + 1))[0]
            x, y = at(np.array([step]))
            yield Divergence(
                int(step), (ours, theirs), None, (float(x[0]), float(y[0])), (a, b), (int(step),)
            )


def _element(x: Any, i: int) -> float:
    return float(np.real(np.broadcast_to(x, MAGNITUDES.shape)[i]))


def _of_storage(a: Trajectory, b: Trajectory) -> Iterator[Divergence]:
    """Where slots of one name are stored in other dtypes, which a trajectory in float64 does not show."""
    mine, their = ({cell.name: cell.dtype for cell in trajectory.cells} for trajectory in (a, b))
    for i, names in enumerate(_shared(a.slots, b.slots)):
        values = mine[names[0]], their[names[1]]
        if values[0] != values[1]:
            yield Divergence(0, names, a.leaf, values, (a, b), (0, a.leaf, i))


def _differs(x: Any, y: Any, tolerance: float) -> Any:
    x, y = np.broadcast_arrays(np.atleast_1d(x), np.atleast_1d(y))
    if x.dtype.kind == "b" or y.dtype.kind == "b":
        return x != y
    with np.errstate(all="ignore"):
        near = np.abs(x - y) <= tolerance * np.maximum(np.abs(x), np.abs(y))
    return ~(near | (x == y) | (np.isnan(x) & np.isnan(y)))


def _shared(ours: list[str], theirs: list[str]) -> list[tuple[str, str]]:
    """The names that two optimizers share; one of them may need a longer form, where it has several."""
    shared = []
    for name in ours:
        alike = [x for x in theirs if f".{name}".endswith(f".{x}") or f".{x}".endswith(f".{name}")]
        if alike:
            shared.append((name, name if name in alike else alike[0]))
    return shared
