"""The norms of the units of a layer, and clipping by them: adaptive gradient clipping."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norms_along
from gradtx.core.numerics import cast, compute_dtype, divide, is_trainable, real_dtype
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule

Axes = int | tuple[int, ...] | None


def unit_axes(shape: tuple[int, ...], axis: Axes) -> tuple[int, ...]:
    """The axes along which the elements of one unit lie."""
    if axis is not None:
        axes = (axis,) if isinstance(axis, int) else tuple(axis)
        for a in axes:
            if not -len(shape) <= a < len(shape):
                raise ValueError(f"axis={axis!r}: a leaf of shape {shape} has no axis {a}.")
        return tuple(sorted({a % len(shape) for a in axes}))
    if sum(n != 1 for n in shape) <= 1:
        return tuple(range(len(shape)))
    return (0,) if len(shape) in (2, 3) else tuple(range(len(shape) - 1))


def clipped_units(g: jax.Array, sizes: jax.Array, bounds: jax.Array) -> jax.Array:
    """The gradient, each unit of which has at most the bound for its norm; one that is not finite stays."""
    clips = (sizes > bounds) & jnp.isfinite(sizes)
    # Of a number that is out of the range of its square the quotient of the two is still right.
    factor = jnp.where(clips, divide(bounds, jnp.where(clips, sizes, jnp.ones_like(sizes))), 1)
    return factor * g


class AdaptiveGradClip(Rule, name="adaptive_grad_clip"):
    """u = g min(1, clipping max(||theta||, eps) / ||g||), for the norms of each unit."""

    clipping: NonNegative
    eps: NonNegative
    axis: int | tuple[int, ...] | None

    needs = ("params",)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        bounds = self.clipping * jnp.maximum(norms_along(leaf.param, unit_axes(g.shape, self.axis)), self.eps)
        return clipped_units(g, norms_along(g, unit_axes(g.shape, self.axis)), bounds), slots


@builds(AdaptiveGradClip)
def adaptive_grad_clip(
    clipping: ScalarOrSchedule, eps: ScalarOrSchedule = 1e-3, axis: int | tuple[int, ...] | None = None
) -> Transform:
    """Clips the gradient of each unit of a layer by the norm of its parameters: AGC.

        u = g min(1, clipping max(||theta||, eps) / ||g||)          the norms over each unit

    A unit is all that leads to one output of a layer. It is the whole leaf where at most one axis is longer
    than 1; otherwise what lies along axis 0 of a leaf of 2 or 3 axes, and along all axes but the last of a
    leaf of more. A unit with an Inf or NaN stays as it is.

    Args:
        clipping: the largest norm of a unit's gradient, as a part of that of its parameters, >= 0.
        eps: the least norm of parameters, >= 0, so that those that start at 0 can move.
        axis: the axes along which the elements of one unit lie; by default as above.

    Returns:
        A transform without slots; `update` needs the parameters.

    Raises:
        ValueError: while tracing, a leaf has no such axis.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, theta = gradtx.adaptive_grad_clip(0.5), jnp.array([[3.0, 0.0], [4.0, 1.0]])
        >>> g = jnp.array([[6.0, 0.0], [8.0, 0.25]])
        >>> tx.update(g, tx.init(theta), theta)[0].tolist()
        [[1.5, 0.0], [2.0, 0.25]]

    References:
        Brock et al., High-Performance Large-Scale Image Recognition Without Normalization, 2021,
        https://arxiv.org/abs/2102.06171.
    """
    ...


def unitwise_norm(x: ArrayLike, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """The norm of each unit of a layer, in the place of each of its elements; see `adaptive_grad_clip`.

    Args:
        x: an array.
        axis: the axes along which the elements of one unit lie; by default as there.

    Returns:
        A real array of the shape of `x`, in its precision; of integers in float32.

    Raises:
        ValueError: `x` has no such axis.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.unitwise_norm(jnp.array([[3.0, 0.0], [4.0, 1.0]])).tolist()
        [[5.0, 1.0], [5.0, 1.0]]
    """
    x = jnp.asarray(x)
    norms = norms_along(cast(x, compute_dtype(x.dtype)), unit_axes(x.shape, axis))
    result = jnp.broadcast_to(norms, x.shape)
    return cast(result, real_dtype(x.dtype)) if is_trainable(x.dtype) else result


def unitwise_clip(
    g_norm: ArrayLike, max_norm: ArrayLike, grad: ArrayLike, div_eps: ArrayLike = 1e-6
) -> jax.Array:
    """Clips the units of a gradient whose norms are known: grad min(1, max_norm / max(g_norm, div_eps)).

    Args:
        g_norm: the norm of each unit, as `unitwise_norm` gives it.
        max_norm: the largest that each may have.
        grad: the gradient.
        div_eps: the least divisor, > 0.

    Returns:
        An array like the gradient.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.unitwise_clip(jnp.array(5.0), 1.0, jnp.array([3.0, 4.0])).tolist()
        [0.6000000238418579, 0.800000011920929]
    """
    grad = jnp.asarray(grad)
    compute = real_dtype(compute_dtype(grad.dtype))
    size, bound, least = (jnp.asarray(x, compute) for x in (g_norm, max_norm, div_eps))
    clipped = cast(bound / jnp.maximum(size, least), compute) * cast(grad, compute_dtype(grad.dtype))
    return jnp.where(size < bound, grad, cast(clipped, grad.dtype))
