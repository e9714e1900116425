"""The trajectories of optimizers: what their slots and updates are, step by step.

A trajectory is computed in float64 from the traced update of one leaf, on gradients of several magnitudes, so
that neither the size of the parameters nor their precision matters.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from gradtx.core.engine.structure import is_ours
from gradtx.formulas.expression import Expression, symbol, symbols
from gradtx.formulas.numeric import Evaluator, OfElements, is_opaque
from gradtx.formulas.runs import stand_in
from gradtx.formulas.trace import Traced, Tracing, composed, programs

STEPS, LONGEST_PERIOD = 20, 250
"""How many steps optimizers are followed for: more where a whole number among theirs may be one of steps."""

LATER = tuple(2**n for n in range(5, 18))
"""Steps that they are put at afterwards, for what depends on the step."""

EXACTLY, ROUNDED = 1e-11, 1e-4
"""Values that differ by less, relative to the larger one, are the same: up to rounding in float64, or where
functions and transforms of other libraries compute with constants that are rounded to float32.
"""

MAGNITUDES = np.array([1.0, 1e-3, 1e-6, 1e3])
"""The magnitudes of the gradients of the elements that are followed."""

THETA = np.array([0.7, -0.4, 0.2, 1.1])
"""The parameters at first, of every leaf."""


class Trajectory:
    """The values that the slots and the updates of one leaf take.

    The numbers are those that the state holds, which it has rounded; if `as_written`, those that were given.
    """

    def __init__(self, leaf: int, traced: Traced, tolerance: float, as_written: bool) -> None:
        self.leaf, self.traced, self.tolerance, self.as_written = leaf, traced, tolerance, as_written
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
        """All expressions of a trajectory. Two trajectories with equal expressions are the same."""
        return self.traced.update, [(cell.name, cell.start, cell.new) for cell in self.cells]

    @functools.cached_property
    def start(self) -> dict[str, Any]:
        """The parameters, what the state holds at first, and something for whatever else is needed."""
        roots = [x for cell in self.cells for x in (cell.start, cell.new)]
        names = symbols(*roots, self.traced.update) | {"theta"}
        held = {name: stand_in(name) or 0.5 for name in names}
        held |= {name: THETA for name in names if name.endswith("theta")}
        values = OfElements([cell.start for cell in self.cells])(held)
        held |= dict(zip((cell.name for cell in self.cells), values, strict=True))
        written = {cell.name: cell.written for cell in self.cells if cell.written is not None}
        return held | written if self.as_written else held

    @property
    def period(self) -> int:
        """The largest whole number among the hyperparameters, which may be a number of steps."""
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
    """Whether a value grows by one with each step, or with each that is not skipped, like a counter."""
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
        exact = is_ours(self.tx) and not any(program.coded for program in programs(self.tx))
        self.tolerance = EXACTLY if exact else ROUNDED
        self._tracing, self._made = Tracing(self.tx, params, leaves, in_formats=True), {}

    def trajectory(self, leaf: int, as_written: bool = False) -> Trajectory:
        """Its trajectory on a leaf, beside the others."""
        key = leaf, as_written
        if key not in self._made:
            self._made[key] = Trajectory(leaf, self._tracing.view(leaf), self.tolerance, as_written)
        return self._made[key]

    @property
    def opaque(self) -> set[str]:
        """The names of the slots and updates that have no formula."""
        return {name for trajectory in self._made.values() for name in trajectory.opaque}
