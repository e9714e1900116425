"""Where the trajectories of two optimizers part."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.formulas.trace import composed, signatures
from gradtx.inspect.trajectory import MAGNITUDES, STEPS, Followed, Trajectory

FAR = 1_000_000
"""The number of steps over which schedules are compared."""


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
    """Where two optimizers part: on each leaf the first slot that differs, and the first update.

    A state rounds its numbers, as 0.001 and 0.01, to the nearest that float32 has, so that ten times the one
    is not quite the other. What parts with the numbers of the states, but not with those that were given, is
    rounding, and no difference.
    """
    stored = apart(a, b, leaves, steps)
    if not stored:
        return []
    given = apart(a, b, leaves, steps, as_written=True)
    return max(stored, given, key=lambda found: found[0].order) if given else []


def apart(
    a: Followed, b: Followed, leaves: Iterable[int], steps: int, *, as_written: bool = False
) -> list[Divergence]:
    """Where two optimizers part with the numbers that their states hold, or with those that were given."""
    pairs = [(a.trajectory(leaf, as_written), b.trajectory(leaf, as_written)) for leaf in leaves]
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
