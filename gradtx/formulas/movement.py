"""Where each leaf goes and how it decays, as far as anybody can tell."""

from __future__ import annotations

from typing import Any

from gradtx.core import leaves as lv
from gradtx.core.structure import is_ours
from gradtx.formulas.direction import Decay, Direction, directions_and_decays


def movements(tx: Any, params: Any) -> tuple[list[Direction], list[Decay | None]]:
    """The direction and the decay of each leaf; unknown where another library's transform cannot be traced.

    Such a transform may need keyword arguments that its signature does not name, such as a line search's.
    """
    try:
        return directions_and_decays(tx, params)
    except Exception:
        if is_ours(tx):
            raise
        number = len(lv.flatten(params)[0])
        return [Direction.UNKNOWN] * number, [None] * number
