"""The leaves of a tree by what works on them, with the update of each kind as an expression."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

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


def kinds(tx: Any, params: Any, leaves: Sequence[int]) -> list[Alike]:
    """Some leaves by kind; all of it is traced once."""
    tx = composed(tx)
    found = signatures(tx, params)
    alike: dict[Any, list[int]] = {}
    for i in leaves:
        alike.setdefault(found[i], []).append(i)
    if not alike:
        return []
    pairs = {row: (own[0], companion(found, own[0])) for row, own in alike.items()}
    tracing = Tracing(tx, params, {i for pair in pairs.values() for i in pair if i is not None})
    return [Alike(tracing.view(*pairs[row]), own) for row, own in alike.items()]
