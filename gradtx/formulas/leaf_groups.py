"""Groups of leaves that the same transforms work on, with the traced update of one leaf of each group."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.layout import active_leaves
from gradtx.core.engine.structure import is_ours
from gradtx.formulas.trace import Traced, Tracing, companion, composed, programs, signatures


@dataclasses.dataclass(frozen=True)
class Alike:
    """Leaves that the same transforms work on.

    Attributes:
        traced: the update of the first.
        leaves: their positions in flatten order.
    """

    traced: Traced
    leaves: list[int]


def kinds(tx: Any, params: Any) -> list[Alike] | None:
    """The groups of the leaves that have gradients. One leaf of each group is traced, in a single trace.

    The result is None if another library's transform cannot be traced, as where it needs keyword arguments
    that its signature does not name.
    """
    own = composed(tx)
    params = _as_shown(own, params)
    alike: dict[Any, list[int]] = {}
    found = signatures(own, params)
    for i, row in enumerate(found):
        if row is not None:
            alike.setdefault(row, []).append(i)
    pairs = {row: (leaves[0], companion(found, leaves[0])) for row, leaves in alike.items()}
    try:
        tracing = Tracing(own, params, {i for pair in pairs.values() for i in pair if i is not None})
    except Exception:
        if is_ours(tx):
            raise
        return None
    return [Alike(tracing.view(*pairs[row]), leaves) for row, leaves in alike.items()]


def precise_leaves(tx: Composed, params: Any) -> set[int]:
    """The positions of the leaves of 16 bits that are under `precise_params`, where no update is lost."""
    if not any(getattr(unit.transform, "shows_wide", False) for p in programs(tx) for unit in p.units):
        return set()
    leaves, structure = lv.flatten(params)
    active, found = active_leaves(tx.program, params, leaves), set[int]()
    for unit in tx.program.units:
        if getattr(unit.transform, "shows_wide", False):
            on = zip(active[unit.path], leaves, strict=True)
            found |= {i for i, (works, x) in enumerate(on) if works and jnp.result_type(x).itemsize == 2}
    for path, part in tx.program.wrapped.items():
        unit = tx.program.unit_at[path[:-1]]
        if isinstance(part, Composed) and unit.transform.sees_leaves:
            on = zip(leaves, active[unit.path], strict=True)
            kept = structure.unflatten([x if works else None for x, works in on])
            found |= precise_leaves(part, unit.transform.view(kept))
    return found


def _as_shown(tx: Composed, params: Any) -> Any:
    """The parameters as `precise_params` shows them: in float32, whose bits a formula has no word for."""
    precise, (leaves, structure) = precise_leaves(tx, params), lv.flatten(params)
    shown = [jax.ShapeDtypeStruct(x.shape, np.float32) if i in precise else x for i, x in enumerate(leaves)]
    return structure.unflatten(shown) if precise else params
