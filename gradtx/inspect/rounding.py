"""Parameters of 16 bits whose updates are lost in rounding, found by computing the update's formula."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import leaves as lv
from gradtx.formulas.expression import symbols
from gradtx.formulas.naming import OTHER
from gradtx.formulas.numeric import Evaluator
from gradtx.formulas.trace import Traced, companion, composed, signatures, trace
from gradtx.inspect.outline import Level

GRADIENTS = np.array([1e-3, 1e-2])
"""Where the update is as large for both, its size is known without knowing the gradients'."""

STEPS = 16
"""Steps to follow from each turn."""


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


def too_coarse(
    tx: Any, params: Any, level: Level, known: Sequence[bool], turns: Iterable[int]
) -> Iterator[Coarse]:
    """The 16-bit leaves whose updates are rounded away, of those whose way is known.

    `turns` are steps at which a rate may be largest.
    """
    leaves = lv.flatten(params)[0]
    narrow = [
        i
        for i, (x, can_tell) in enumerate(zip(level.leaves, known, strict=True))
        if can_tell and lv.is_trainable_leaf(x) and x.dtype.itemsize == 2
    ]
    found = signatures(composed(tx), params) if narrow else []
    sizes: dict[Any, float | None] = {}
    for i in narrow:
        size, row = magnitude(leaves[i]), found[i]
        if not size or not math.isfinite(size):
            continue
        if row not in sizes:
            sizes[row] = _update(trace(composed(tx), params, i, companion(found, i)), turns)
        update, dtype = sizes[row], level.leaves[i].dtype
        half = 2.0 ** math.floor(math.log2(size)) * float(jnp.finfo(dtype).eps) / 2
        if update is not None and 0 < update < half:
            yield Coarse(level.paths[i], dtype.name, update, size, half)


def magnitude(leaf: Any) -> float | None:
    """The root mean square of the elements; of an abstract matrix as it is usually initialized, or None."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return math.prod(leaf.shape[:-1]) ** -0.5 if len(leaf.shape) > 1 and leaf.size else None
    elements = jnp.abs(leaf).astype(jnp.float32)
    return float(jnp.sqrt(jnp.mean(elements * elements))) if elements.size else None


def _update(traced: Traced, turns: Iterable[int]) -> float | None:
    """The largest update near some steps; None where it depends on the gradients' size, or still grows."""
    names = symbols(traced.update, *(cell.new for cell in traced.cells))
    given: dict[str, Any] = dict.fromkeys(names, 0.0) | {"g": GRADIENTS, OTHER + "g": GRADIENTS}
    evaluator = Evaluator([traced.update, *(cell.new for cell in traced.cells)])
    starts = Evaluator([cell.start for cell in traced.cells])(given)
    start = {cell.name: value for cell, value in zip(traced.cells, starts, strict=True)}
    found = []
    for turn in {0, *turns}:
        clocks = {cell.name: start[cell.name] + turn for cell in traced.cells if cell.kind == "step"}
        values, sizes = given | start | clocks, []
        for _ in range(STEPS):
            update, *news = evaluator(values)
            values |= {cell.name: new for cell, new in zip(traced.cells, news, strict=True)}
            # A step size that is estimated as it goes depends on how far the parameters have come.
            values |= {name: values.get(name, 0.0) + update for name in ("theta", OTHER + "theta")}
            sizes.append(np.broadcast_to(np.abs(update), GRADIENTS.shape))
        first, last = np.max(sizes[: STEPS // 2]), np.max(sizes[STEPS // 2 :])
        if last > 2 * first > 0:
            return None
        found.append(np.max(sizes, axis=0))
    small, large = np.max(found, axis=0)
    return float(large) if large < 2 * small and np.isfinite(large) else None
