"""Limits on how an update changes the size of a leaf, and of its units."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norm, norms_along
from gradtx.core.numerics import divide, inner_product
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule
from gradtx.transforms.unitwise import unit_axes


class RadialBrake(Rule, name="radial_brake"):
    """r = <g, theta> theta / ||theta||²;  u = g - (1 - scale) r, outward_scale where <g, theta> < 0."""

    outward_scale: NonNegative
    inward_scale: NonNegative

    needs = ("params",)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        # Of unit length, so that no square is out of range.
        axis = divide(leaf.param, norm([leaf.param]))
        along = inner_product(axis, g)
        scale = jnp.where(along < 0, self.outward_scale, self.inward_scale)
        return g + (scale - 1) * along * axis, slots


@builds(RadialBrake)
def radial_brake(outward_scale: ScalarOrSchedule = 0.5, inward_scale: ScalarOrSchedule = 1.0) -> Transform:
    """Scales the part of a direction that lies along the parameters, which is what makes a leaf grow.

        r = theta <u, theta> / ||theta||²               u <- u - r + scale r

    with `outward_scale` where the step -u makes the norm of the leaf larger, <u, theta> < 0, and
    `inward_scale` elsewhere. It stands behind a direction, before the learning rate. A leaf of zeros is left
    as it is.

    Args:
        outward_scale: what is left of the outward part, >= 0.
        inward_scale: what is left of the inward part, >= 0.

    Returns:
        A transform without slots; `update` needs the parameters.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, theta = gradtx.radial_brake(), jnp.array([2.0, 0.0])
        >>> [tx.update(u, tx.init(theta), theta)[0].tolist() for u in jnp.array([[-1.0, 3.0], [1.0, 3.0]])]
        [[-0.5, 3.0], [1.0, 3.0]]

    References:
        modded-nanogpt, the optimization track, records of 2026.
    """
    ...


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
        modded-nanogpt, the optimization track, records of 2026.
    """
    ...
