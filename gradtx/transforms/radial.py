"""Less of the part of a direction that makes a leaf grow."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norm
from gradtx.core.numerics import divide, inner_product
from gradtx.core.shards import over_shards
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


class RadialBrake(Rule, name="radial_brake"):
    """r = <g, theta> theta / ||theta||²;  u = g - (1 - scale) r, outward_scale where <g, theta> < 0."""

    outward_scale: NonNegative
    inward_scale: NonNegative
    axis_name: str | tuple[str, ...] | None

    needs = ("params",)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        # Of unit length, so that no square is out of range.
        axis = divide(leaf.param, norm([leaf.param], axis_name=self.axis_name))
        along = over_shards(inner_product(axis, g), self.axis_name, axis, g)
        scale = jnp.where(along < 0, self.outward_scale, self.inward_scale)
        return g + (scale - 1) * along * axis, slots


@builds(RadialBrake)
def radial_brake(
    outward_scale: ScalarOrSchedule = 0.5,
    inward_scale: ScalarOrSchedule = 1.0,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Scales the part of a direction that lies along the parameters, which is what makes a leaf grow.

        r = theta <u, theta> / ||theta||²               u <- u - r + scale r

    with `outward_scale` where the step -u makes the norm of the leaf larger, <u, theta> < 0, and
    `inward_scale` elsewhere. It stands behind a direction, before the learning rate. A leaf of zeros is left
    as it is.

    Args:
        outward_scale: what is left of the outward part, >= 0.
        inward_scale: what is left of the inward part, >= 0.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform without slots; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, theta = gradtx.radial_brake(), jnp.array([2.0, 0.0])
        >>> [tx.update(u, tx.init(theta), theta)[0].tolist() for u in jnp.array([[-1.0, 3.0], [1.0, 3.0]])]
        [[-0.5, 3.0], [1.0, 3.0]]

    References:
        KellerJordan, modded-nanogpt, `records/track_3_optimization`, the record of 2026-06-19,
        https://github.com/KellerJordan/modded-nanogpt.
    """
    ...
