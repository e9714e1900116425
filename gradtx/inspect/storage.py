"""Slots of 16 bits that lose what they should remember, found by running their rules on two elements."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradtx.core.layout import initial_state
from gradtx.core.program import is_rule
from gradtx.inspect.outline import Level

GRADIENT = 1e-4
"""An ordinary gradient of a large model."""
LATER = 10
"""A step at which a first one is no longer special."""


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


def lossy_slots(level: Level) -> Iterator[Lossy]:
    """The slots of 16 bits that lose what float32 would keep."""
    for inner in level.levels():
        for unit in inner.program.units:
            if not is_rule(unit) or set(unit.transform.needs) - {"params"}:
                continue
            for name, slot in unit.transform.slots.items():
                dtype = slot.dtype and unit.transform.__dict__[slot.dtype]
                if dtype is None or np.dtype(dtype).itemsize != 2:
                    continue
                narrow = _after(name, unit.transform)
                wide = _after(name, unit.transform._with(**{slot.dtype: None}))
                if narrow.shape != (2,):
                    continue
                stuck, underflows = (narrow == [1, 0]) & (wide != [1, 0])
                if stuck or underflows:
                    on = inner.active[unit.path]
                    leaves = tuple(path for path, a in zip(inner.paths, on, strict=True) if a)
                    yield Lossy(unit.where, name, slot.dtype, dtype, stuck, underflows, leaves)


def _after(slot: str, rule: Any) -> np.ndarray:
    """A slot of 1 after no gradient, and one of 0 after an ordinary one; another shape if it has one."""
    params = jnp.ones(2, jnp.float32)
    state = initial_state(rule.program, params)
    own = state["slots"][rule.name]
    if np.shape(own[slot]) != (2,):
        return np.zeros(0)
    own[slot] = jnp.array([1.0, 0.0], own[slot].dtype)
    state["step"] = jnp.int32(LATER)
    _, state = rule.update(jnp.array([0.0, GRADIENT], jnp.float32), state, params)
    return np.asarray(state["slots"][rule.name][slot].astype(jnp.float32))
