"""Parameters of 16 bits whose updates are lost in rounding, found by computing the update's formula."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.formulas.expression import symbols
from gradtx.formulas.leaf_groups import Alike
from gradtx.formulas.naming import OTHER
from gradtx.formulas.numeric import Evaluator
from gradtx.formulas.trace import Traced
from gradtx.inspect.survey import Surveyed

GRADIENTS = np.array([0.0, 1e-3, 1e-2])
"""Where what the last two add to the update is as large, its size is known without knowing the gradients'."""

ALIKE = 2.0
"""Sizes that differ by less are the same: an eps shows in small gradients, but makes no such difference."""

STEPS = 16
"""Steps to follow from each turn; what is larger in the second half of them still grows."""

ROUNDS = 2
"""How often averages are brought to their limit: an average of an average needs it twice."""

THETAS = ("theta", OTHER + "theta")


@dataclasses.dataclass(frozen=True)
class Coarse:
    """A leaf whose elements are too coarse for its updates.

    Attributes:
        path: its path.
        dtype: its dtype.
        update: the size of its largest updates.
        magnitude: the size of its elements, measured, or that of an ordinary initialization.
        half: half the distance of two numbers of that size: what is less is rounded away.
    """

    path: str
    dtype: str
    update: float
    magnitude: float
    half: float


def is_narrow(leaf: Any) -> bool:
    """Whether it is a leaf of 16 bits."""
    return lv.is_trainable_leaf(leaf) and leaf.dtype.itemsize == 2


def too_coarse(
    params: Any, level: Surveyed, known: Sequence[bool], alike: Iterable[Alike], turns: Iterable[int]
) -> Iterator[Coarse]:
    """The 16-bit leaves whose updates are rounded away, of those whose way is known.

    `turns` are steps at which a rate may be largest.
    """
    leaves = lv.flatten(params)[0]
    found = []
    for kind in alike:
        sizes = {i: magnitude(leaves[i]) for i in kind.leaves if known[i] and is_narrow(level.leaves[i])}
        sizes = {i: size for i, size in sizes.items() if size and math.isfinite(size)}
        if sizes:
            found += zip(
                sizes.items(), _updates(kind.traced, np.array([*sizes.values()]), turns), strict=True
            )
    for (i, size), update in sorted(found, key=lambda pair: pair[0][0]):
        dtype = level.leaves[i].dtype
        half = 2.0 ** math.floor(math.log2(size)) * float(jnp.finfo(dtype).eps) / 2
        if 0 < update < half:
            yield Coarse(level.paths[i], dtype.name, float(update), size, half)


def magnitude(leaf: Any) -> float | None:
    """The root mean square of the elements; of an abstract matrix as it is usually initialized, or None."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return math.prod(leaf.shape[:-1]) ** -0.5 if len(leaf.shape) > 1 and leaf.size else None
    elements = jnp.abs(leaf).astype(jnp.float32)
    return float(jnp.sqrt(jnp.mean(elements * elements))) if elements.size else None


def _updates(traced: Traced, magnitudes: np.ndarray, turns: Iterable[int]) -> np.ndarray:
    """The largest update of leaves of some sizes near some steps.

    It is NaN where it depends on the gradients' size, or still grows after the last of the steps.
    """
    bodies = {cell.name: cell.new for cell in traced.cells}
    evaluator = Evaluator([traced.update, *bodies.values()])
    given: dict[str, Any] = dict.fromkeys(symbols(*evaluator.roots), 0.0)
    given |= dict.fromkeys(("g", OTHER + "g"), GRADIENTS) | dict.fromkeys(THETAS, magnitudes[:, None])
    starts = Evaluator([cell.start for cell in traced.cells])(given)
    values = given | dict(zip(bodies, starts, strict=True))
    clocks = {cell.name: values[cell.name] for cell in traced.cells if cell.kind == "step"}
    slots = [cell.name for cell in traced.cells if cell.kind in ("slot", "other")]
    largest, grows = np.zeros(()), np.zeros((), bool)
    for turn in sorted({0, *turns}):
        now = values | {name: start + turn for name, start in clocks.items()}
        if turn:
            _advance(now, slots, lambda held: dict(zip(bodies, evaluator(held)[1:], strict=True)), turn)
        sizes = []
        for _ in range(STEPS):
            update, *news = evaluator(now)
            now |= dict(zip(bodies, news, strict=True))
            # A step size that is estimated as it goes depends on how far the parameters have come.
            now |= {name: now[name] + update for name in THETAS}
            sizes.append(np.broadcast_to(update, (len(magnitudes), len(GRADIENTS))))
        early, late = (np.abs(part).max(0) for part in (sizes[: STEPS // 2], sizes[STEPS // 2 :]))
        grows = (late > ALIKE * early) & (early > 0)
        # What is there without a gradient, such as decay, says nothing of how its size counts.
        moved = np.abs(np.array(sizes) - np.nan_to_num(np.array(sizes)[..., :1])).max(0)
        largest = np.maximum(largest, np.stack([np.maximum(early, late), moved]))
    size, moved = largest[..., 1:]
    told = (moved.max(-1) < ALIKE * moved.min(-1)) & ~grows[:, 1:].any(-1)
    return np.where(told, size.max(-1), np.nan)


def _advance(
    values: dict[str, Any], slots: list[str], after: Callable[[dict[str, Any]], dict[str, Any]], steps: int
) -> None:
    """Brings averages to where so many steps of the same gradient bring them; sums stay as they are."""
    starts = {name: values[name] for name in slots}
    for _ in range(ROUNDS):
        for name, start in starts.items():
            first = after(values | {name: start})[name]
            second = after(values | {name: first})[name]
            with np.errstate(all="ignore"):
                kept = np.divide(second - first, first - start)
                limit = start + (first - start) / (1 - kept)
                values[name] = np.where((kept > 0) & (kept < 1), limit + (start - limit) * kept**steps, start)
