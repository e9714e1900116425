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
from gradtx.formulas.expression import Expression, symbol, symbols
from gradtx.formulas.numeric import Evaluator, OfElements, is_opaque
from gradtx.formulas.runs import stand_in
from gradtx.formulas.trace import Traced, Tracing, composed, programs, signatures

STEPS, LONGEST_PERIOD = 20, 250
"""How many steps optimizers are followed for: more where a whole number among theirs may be one of steps."""

LATER = tuple(2**n for n in range(5, 18))
"""Steps that they are put at afterwards, for what depends on the step."""

FAR = 1_000_000
"""The number of steps over which their schedules are compared."""

EXACTLY, ROUNDED = 1e-11, 1e-4
"""Values that differ by less, relative to the larger one, are the same: up to rounding in float64, or where
functions and transforms of other libraries compute with constants that are rounded to float32.
"""

MAGNITUDES = np.array([1.0, 1e-3, 1e-6, 1e3])
"""The magnitudes of the gradients of the elements that are followed."""

THETA = np.array([0.7, -0.4, 0.2, 1.1])
"""The parameters at first, of every leaf."""


class Trajectory:
    """The values that the slots and the updates of one leaf take."""

    def __init__(self, leaf: int, traced: Traced, tolerance: float) -> None:
        self.leaf, self.traced, self.tolerance = leaf, traced, tolerance
        self.cells = traced.cells
        self._known: dict[int, Any] = {}
        self.slots = [cell.name for cell in self.cells if cell.kind == "slot"]
        self.remembered = [cell.name for cell in self.cells if cell.kind in ("slot", "whole")]
        self.opaque = [cell.name for cell in self.cells if cell.kind == "slot" and is_opaque(cell.new)]
        self.opaque += ["update"] * is_opaque(traced.update)
        # A record of what happened, in which elements are put at their places, adds nothing to compare.
        records = {cell.name for cell in self.cells if cell.kind == "whole" and is_opaque(cell.new)}
        self.remembered = [name for name in self.remembered if name not in records]
        self.counts = [
            cell.name for cell in self.cells if cell.kind == "whole" and _counts(cell.new, cell.name)
        ]

    @property
    def code(self) -> Any:
        """All that is computed: what has the same is the same, since equal expressions are one object."""
        return self.traced.update, [(cell.name, cell.start, cell.new) for cell in self.cells]

    @functools.cached_property
    def start(self) -> dict[str, Any]:
        """The parameters, what the state holds at first, and something for whatever else is needed."""
        roots = [x for cell in self.cells for x in (cell.start, cell.new)]
        names = symbols(*roots, self.traced.update) | {"theta"}
        held = {name: stand_in(name) or 0.5 for name in names}
        held |= {name: THETA for name in names if name.endswith("theta")}
        values = OfElements([cell.start for cell in self.cells])(held)
        return held | dict(zip((cell.name for cell in self.cells), values, strict=True))

    @property
    def period(self) -> int:
        """The largest number that may be one of steps: a whole one."""
        numbers = [self.start[cell.name] for cell in self.cells if cell.kind == "number"]
        whole = [int(x) for x in numbers if np.ndim(x) == 0 and x == np.round(x) and 1 < x <= LONGEST_PERIOD]
        return max(whole, default=0)

    def values(self, steps: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """For each step that is followed, what is remembered, and the update; each is computed once."""
        known, more = self._known.setdefault(steps, ([], self._follow(steps)))
        for i in itertools.count():
            if i == len(known):
                known.extend(itertools.islice(more, 1))
            if i == len(known):
                return
            yield known[i]

    def _follow(self, steps: int) -> Iterator[tuple[int, dict[str, Any]]]:
        following = OfElements([*(cell.new for cell in self.cells), self.traced.update])
        held, rng = dict(self.start), np.random.default_rng(0)
        sound = held
        later = [step for step in LATER if step >= steps]
        for step in [*range(steps), *(step + i for step in later for i in (0, 1))]:
            # Most gradients are ordinary, some are spikes, and the last but one is not finite.
            g = rng.normal(size=MAGNITUDES.shape) * MAGNITUDES * np.exp(rng.normal())
            if step == steps - 2:
                sound, g = dict(held), np.where(MAGNITUDES == 1.0, np.inf, g)
            if step in later:
                held = sound | self.clocks(step) | dict.fromkeys(self.counts, float(step))
            *new, update = following(held | {"g": g})
            held |= {cell.name: value for cell, value in zip(self.cells, new, strict=True)}
            with np.errstate(invalid="ignore"):
                held["theta"] = held["theta"] + np.real(update)
            yield step, {name: held[name] for name in self.remembered} | {"update": update}

    def clocks(self, step: Any) -> dict[str, Any]:
        """What the clocks show at a step: formulas count from 1."""
        return {cell.name: step + 1.0 for cell in self.cells if cell.kind == "step"}

    def schedules(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """The value of each schedule at some steps."""
        named = self.traced.definitions
        values = Evaluator(named.values())(self.start | self.clocks(steps))
        return {name: np.broadcast_to(x, steps.shape) for name, x in zip(named, values, strict=True)}


def _counts(new: Expression, name: str) -> bool:
    """Whether something is one more after each step, or each that runs: a clock of another library."""
    if symbols(new) == {name}:
        return Evaluator([new])({name: 7.0}) == [8.0]
    branches = new.args[1:] if new.op == "where" else ()
    return any(_counts(x, name) for x in branches) and all(
        _counts(x, name) or x is symbol(name) for x in branches
    )


class Followed:
    """An optimizer on some leaves of a tree; its trajectory on a leaf is made when it is asked for."""

    def __init__(self, tx: Any, params: Any, leaves: Collection[int]) -> None:
        self.tx = composed(tx)
        exact = is_ours(self.tx) and not any(program.has_callables for program in programs(self.tx))
        self.tolerance = EXACTLY if exact else ROUNDED
        self._tracing, self._made = Tracing(self.tx, params, leaves), {}

    def trajectory(self, leaf: int) -> Trajectory:
        """Its trajectory on a leaf, beside the others."""
        if leaf not in self._made:
            self._made[leaf] = Trajectory(leaf, self._tracing.view(leaf), self.tolerance)
        return self._made[leaf]

    @property
    def opaque(self) -> set[str]:
        """What of it has no formula."""
        return {name for trajectory in self._made.values() for name in trajectory.opaque}


@dataclasses.dataclass(frozen=True)
class Divergence:
    """Where the trajectories of two optimizers part.

    Attributes:
        step: the step, from 0.
        names: the slot, the schedule or `"update"`, as each of them calls it.
        leaf: the position of the leaf; None for what is the whole tree's.
        values: the values of an element that differs; the layouts, where only those differ; None for what
            has no formula.
        trajectories: the two trajectories.
        order: by what is computed first.
    """

    step: int
    names: tuple[str, str]
    leaf: int | None
    values: tuple[float | str | None, float | str | None]
    trajectories: tuple[Trajectory, Trajectory]
    order: tuple[int, ...]


def divergences(a: Followed, b: Followed, leaves: Iterable[int], steps: int) -> list[Divergence]:
    """Where two optimizers part: on each leaf the first slot that differs, and the first update."""
    pairs = [(a.trajectory(leaf), b.trajectory(leaf)) for leaf in leaves]
    found = [x for pair in pairs for x in _of_steps(*pair, steps)]
    if not any(x.step < steps for x in found):
        found += [x for pair in pairs for x in _of_schedules(*pair)]
    found = found or [x for pair in pairs for x in _of_storage(*pair)]
    return sorted(found, key=lambda one: one.order)


def representatives(a: Any, b: Any, params: Any) -> list[int]:
    """The first leaf of each set that two optimizers treat alike."""
    shapes = [np.shape(x) for x in lv.flatten(params)[0]]
    first: dict[Any, int] = {}
    for i, row in enumerate(zip(*(signatures(composed(tx), params) for tx in (a, b)), shapes, strict=True)):
        if row[0] is not None:
            first.setdefault((*row[:2], len(row[2])), i)
    return list(first.values())


def steps_for(a: Followed, b: Followed, leaves: Iterable[int]) -> int:
    """The number of steps to follow two optimizers for, one after the other."""
    periods = [x.trajectory(leaf).period for leaf in leaves for x in (a, b)]
    return STEPS + 3 * max(periods, default=0) // 2


def _of_steps(a: Trajectory, b: Trajectory, steps: int) -> Iterator[Divergence]:
    shared = [*_shared(a.remembered, b.remembered), ("update", "update")]
    for names in (shared, shared[-1:]):
        yield from itertools.islice(_differing(a, b, names, steps), 1)


def _differing(
    a: Trajectory, b: Trajectory, names: list[tuple[str, str]], steps: int
) -> Iterator[Divergence]:
    if a.code == b.code:
        return
    tolerance = max(a.tolerance, b.tolerance)
    scales: dict[str, Any] = {}
    for (step, x), (_, y) in zip(a.values(steps), b.values(steps), strict=True):
        for i, (ours, theirs) in enumerate(names):
            # What has been larger before may have lost digits on its way through 0.
            scales[ours] = np.fmax(scales.get(ours, 0.0), _magnitude(x[ours]))
            at = np.flatnonzero(_differs(x[ours], y[theirs], tolerance, scales[ours]))
            if at.size:
                values: Any = None, None
                if ours not in a.opaque and theirs not in b.opaque:
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
            return steps[_differs(x, y, max(a.tolerance, b.tolerance), 0.0)]

        near = apart(np.arange(1_000))
        far = apart(np.arange(0, FAR, 1_000)) if not near.size else near
        if far.size:
            step = int(near[0] if near.size else apart(np.arange(far[0] - 999, far[0] + 1))[0])
            (x,), (y,) = at(np.array([step]))
            yield Divergence(step, (ours, theirs), None, (float(x), float(y)), (a, b), (step,))


def _of_storage(a: Trajectory, b: Trajectory) -> Iterator[Divergence]:
    """Where slots of one name have other shapes or dtypes, which a trajectory of elements does not show."""
    mine, their = ({cell.name: cell.layout for cell in trajectory.cells} for trajectory in (a, b))
    for i, names in enumerate(_shared(a.slots, b.slots)):
        values = mine[names[0]], their[names[1]]
        if values[0] != values[1]:
            yield Divergence(0, names, a.leaf, values, (a, b), (0, a.leaf, i))


def _element(x: Any, i: int) -> float:
    return float(np.real(np.broadcast_to(x, MAGNITUDES.shape)[i]))


def _magnitude(x: Any) -> Any:
    """How large something is, as far as it is finite."""
    size = np.abs(np.asarray(x, complex))
    return np.where(np.isfinite(size), size, 0.0)


def _differs(x: Any, y: Any, tolerance: float, scale: Any) -> Any:
    x, y, scale = np.broadcast_arrays(np.atleast_1d(x), np.atleast_1d(y), scale)
    if x.dtype.kind == "b" or y.dtype.kind == "b":
        return x != y
    with np.errstate(all="ignore"):
        near = np.abs(x - y) <= tolerance * np.maximum(np.maximum(np.abs(x), np.abs(y)), scale)
    return ~(near | (x == y) | (np.isnan(x) & np.isnan(y)))


def _shared(ours: list[str], theirs: list[str]) -> list[tuple[str, str]]:
    """The names that two optimizers share; one of them may need a longer form, where it has several."""
    shared = []
    for name in ours:
        alike = [x for x in theirs if f".{name}".endswith(f".{x}") or f".{x}".endswith(f".{name}")]
        if alike:
            shared.append((name, name if name in alike else alike[0]))
    return shared
