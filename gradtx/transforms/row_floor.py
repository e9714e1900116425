"""A least length of the direction of each unit of a layer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norms_along
from gradtx.core.numerics import divide
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule
from gradtx.transforms.unitwise import unit_axes


class RowFloor(Rule, name="row_floor"):
    """u = g max(1, min_ratio ||theta|| / ||g||), for the norms of each unit."""

    min_ratio: NonNegative
    axis: int | tuple[int, ...] | None

    needs = ("params",)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        axes = unit_axes(g.shape, self.axis)
        sizes, least = norms_along(g, axes), self.min_ratio * norms_along(leaf.param, axes)
        factor = divide(least, sizes)
        return jnp.where((sizes < least) & jnp.isfinite(factor), factor, 1) * g, slots


@builds(RowFloor)
def row_floor(min_ratio: ScalarOrSchedule = 0.3825, axis: int | tuple[int, ...] | None = None) -> Transform:
    """Lengthens the direction of each unit of a layer that is short beside the unit's parameters.

        u <- u max(1, min_ratio ||theta|| / ||u||)          the norms over each unit

    A unit is all that leads to one output of a layer, a row of a matrix that is written outputs by inputs:
    see `adaptive_grad_clip`. A unit without a direction stays without one. It stands before the learning
    rate, which a step is then at least `min_ratio` times, as a part of the parameters.

    Args:
        min_ratio: the least norm of a unit's direction, as a part of that of its parameters, >= 0.
        axis: the axes along which the elements of one unit lie; by default as in `adaptive_grad_clip`.

    Returns:
        A transform without slots; `update` needs the parameters.

    Raises:
        ValueError: while tracing, a leaf has no such axis.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, theta = gradtx.row_floor(0.5), jnp.array([[3.0, 0.0], [4.0, 1.0]])
        >>> u = jnp.array([[0.6, 0.0], [0.8, 2.0]])
        >>> tx.update(u, tx.init(theta), theta)[0].tolist()
        [[1.5, 0.0], [2.0, 2.0]]

    References:
        KellerJordan, modded-nanogpt, `records/track_3_optimization`, the record of 2026-06-19,
        https://github.com/KellerJordan/modded-nanogpt.
    """
    ...
