"""Slots of 16 bits that lose what they should remember, found by computing their formulas."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine.steps import is_rule
from gradtx.formulas.expression import symbols
from gradtx.formulas.numeric import Evaluator
from gradtx.formulas.trace import composed, trace
from gradtx.inspect.survey import Surveyed

GRADIENT = 1e-4
"""An ordinary gradient of a large model."""
LATER = 10
"""A step at which a first one is no longer special."""

BEFORE = np.array([1.0, 0.0])


@dataclasses.dataclass(frozen=True)
class Lossy:
    """A slot that loses what it should remember.

    Attributes:
        unit: the place in the state of its transform.
        slot: its name.
        field: the argument that names its dtype.
        dtype: the dtype.
        stuck: whether it never decays: with no gradient a value of 1 stays 1.
        underflows: whether an ordinary gradient leaves no trace in it.
        leaves: the paths of its leaves.
    """

    unit: str
    slot: str
    field: str
    dtype: str
    stuck: bool
    underflows: bool
    leaves: tuple[str, ...]


def lossy_slots(level: Surveyed) -> Iterator[Lossy]:
    """The slots of 16 bits that lose what float32 would keep."""
    for inner in level.levels():
        for unit in filter(is_rule, inner.program.units):
            rule, on = unit.transform, inner.active[unit.path]
            narrow = {
                name: (slot.dtype, dtype)
                for name, slot in rule.slots.items()
                if slot.dtype and (dtype := rule.__dict__[slot.dtype]) and jnp.dtype(dtype).itemsize == 2
            }
            traced = trace(composed(rule), jax.ShapeDtypeStruct((2, 2), np.float32), 0) if narrow else None
            for name, (field, dtype) in narrow.items():
                exact = _after(traced, name)
                stored = exact.astype(jnp.dtype(dtype)).astype(float)
                stuck, underflows = (stored == BEFORE) & (exact != BEFORE)
                if stuck or underflows:
                    leaves = tuple(path for path, works in zip(inner.paths, on, strict=True) if works)
                    yield Lossy(unit.where, name, field, dtype, bool(stuck), bool(underflows), leaves)


def _after(traced: Any, slot: str) -> np.ndarray:
    """A slot of 1 after no gradient, and one of 0 after an ordinary one."""
    (cell,) = (cell for cell in traced.cells if cell.kind == "slot" and cell.name.rpartition(".")[2] == slot)
    starts = Evaluator([cell.start for cell in traced.cells])({"theta": 0.0})
    values: dict[str, Any] = dict.fromkeys(symbols(cell.new), 0.0) | {"g": np.array([0.0, GRADIENT])}
    for other, start in zip(traced.cells, starts, strict=True):
        values[other.name] = start + LATER if other.kind == "step" else start
    (new,) = Evaluator([cell.new])(values | {cell.name: BEFORE})
    return np.broadcast_to(np.asarray(new, float), BEFORE.shape)
