"""Sizes of updates from the norm of the parameters: LARS's and LAMB's ratio, and the norm itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norm
from gradtx.core.numerics import divide
from gradtx.core.shards import Axes
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


def trust_ratio(
    g: jax.Array,
    param: jax.Array,
    min_norm: jax.Array | None,
    coefficient: jax.Array | None = None,
    eps: jax.Array | None = None,
    axis_name: Axes = None,
) -> jax.Array:
    """`coefficient ||theta|| / (||g|| + eps)`, and 1 where a norm is 0 or that of the gradient not finite."""
    of_param, of_g = (norm([x], axis_name=axis_name) for x in (param, g))
    if min_norm is not None:
        of_param, of_g = jnp.maximum(of_param, min_norm), jnp.maximum(of_g, min_norm)
    has_ratio, one = (of_param > 0) & (of_g > 0) & jnp.isfinite(of_g), jnp.ones_like(of_g)
    above = of_param if coefficient is None else coefficient * of_param
    below = of_g if eps is None else of_g + eps
    return jnp.where(has_ratio, divide(above, jnp.where(has_ratio, below, one)), one)


class ScaleByTrustRatio(Rule, name="scale_by_trust_ratio"):
    """u = g trust_coefficient ||theta|| / (||g|| + eps)."""

    min_norm: NonNegative | None
    trust_coefficient: NonNegative | None
    eps: NonNegative | None
    axis_name: str | tuple[str, ...] | None

    needs = ("params",)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        given = self.min_norm, self.trust_coefficient, self.eps, self.axis_name
        return trust_ratio(g, leaf.param, *given) * g, slots


@builds(ScaleByTrustRatio)
def scale_by_trust_ratio(
    min_norm: ScalarOrSchedule | None = 0.0,
    trust_coefficient: ScalarOrSchedule | None = 1.0,
    eps: ScalarOrSchedule | None = 0.0,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Gives each leaf's update the norm of its parameter: u = g c ||theta|| / (||g|| + eps).

    Where one of the norms is 0, the update stays as it is, so that a leaf of zeros can move; and so does an
    update with an Inf or NaN.

    Args:
        min_norm: norms below it count as this, >= 0; None for 0 that is no number of the state.
        trust_coefficient: c, the part of its norm by which a leaf moves, >= 0; None for 1 that is no number
            of the state.
        eps: added to the norm of the update, >= 0; None for 0 that is no number of the state.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform without slots; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.scale_by_trust_ratio(), jnp.array([0.0, 10.0])
        >>> tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0].tolist()
        [6.0, 8.0]

    References:
        You, Gitman and Ginsburg, Large Batch Training of Convolutional Networks, 2017,
        https://arxiv.org/abs/1708.03888.
    """
    ...


class ScaleByParamBlockNorm(Rule, name="scale_by_param_block_norm"):
    """u = g max(||theta||, min_scale)."""

    min_scale: NonNegative
    axis_name: str | tuple[str, ...] | None

    needs = ("params",)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        size = norm([leaf.param], axis_name=self.axis_name)
        return jnp.maximum(size, self.min_scale) * g, slots


@builds(ScaleByParamBlockNorm)
def scale_by_param_block_norm(
    min_scale: ScalarOrSchedule = 1e-3,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Scales each leaf's update by the norm of its parameter: u = g max(||theta||, min_scale).

    Args:
        min_scale: the least scale, >= 0; it lets a leaf of zeros move.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform without slots; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.scale_by_param_block_norm(), jnp.array([3.0, 4.0])
        >>> tx.update(jnp.ones(2), tx.init(params), params)[0].tolist()
        [5.0, 5.0]
    """
    ...
