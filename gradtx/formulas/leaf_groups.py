"""Groups of leaves that the same transforms work on, with the traced update of one leaf of each group."""

from __future__ import annotations

import dataclasses
from typing import Any

from gradtx.core.engine.structure import is_ours
from gradtx.formulas.trace import Traced, Tracing, companion, composed, signatures


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
