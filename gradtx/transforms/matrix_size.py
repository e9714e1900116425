"""Updates over the size of their matrices."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax

from gradtx.core.compose.matrix_rule import MatrixRule
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.spec import show

SizeName = Literal["fan_in", "mean_side"]


class ScaleByMatrixSize(MatrixRule, name="scale_by_matrix_size"):
    """u = g / m, or 2 g / (m + n)."""

    size: str
    views: Any

    def check(self) -> None:
        if self.size not in get_args(SizeName):
            listed = " or ".join(map(repr, get_args(SizeName)))
            raise ValueError(f"{self.name}: size must be {listed}, got {show(self.size)}.")

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        rows, columns = x.shape[-2:]
        return x / max(rows if self.size == "fan_in" else (rows + columns) / 2, 1), slots


@builds(ScaleByMatrixSize)
def scale_by_matrix_size(size: SizeName = "fan_in", *, views: Views = None) -> Transform:
    """Divides updates by a size of their matrices, of m inputs and n outputs.

        u = g / m for "fan_in"        u = 2 g / (m + n) for "mean_side"

    Args:
        size: `"fan_in"`, the number of inputs, or `"mean_side"`, the mean of both numbers.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform without slots.

    Raises:
        ValueError: another name; at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, w = gradtx.scale_by_matrix_size("fan_in"), {"kernel": jnp.ones((4, 2))}
        >>> tx.update(w, tx.init(w))[0]["kernel"][0].tolist()
        [0.25, 0.25]
    """
    ...
