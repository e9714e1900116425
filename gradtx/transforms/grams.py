"""Grams: the size of a direction with the sign of the gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import sign
from gradtx.core.spec.arguments import factory
from gradtx.transforms.cautious import beside_gradient


def _with_sign(u: jax.Array, g: jax.Array) -> jax.Array:
    return jnp.abs(u) * sign(g)


@factory
def grams(inner: AnyTransform) -> Transform:
    """Gives a direction's elements the signs of the gradient: u = |inner(g)| sign(g).

    Of a complex element the sign is g / |g|.

    Args:
        inner: a transform that makes a direction, of any library, such as `scale_by_adam()`: the learning
            rate, which turns the sign, and weight decay come after it.

    Returns:
        A transform with the state of `inner`.

    Raises:
        ValueError: `inner` has a learning rate.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, g = gradtx.grams(gradtx.trace(0.5)), jnp.array([4.0])
        >>> _, state = tx.update(g, tx.init(g))
        >>> tx.update(jnp.array([-1.0]), state)[0].tolist()
        [-1.0]

    References:
        Cao et al., Grams: Gradient Descent with Adaptive Momentum Scaling, 2024,
        https://arxiv.org/abs/2412.17107.
    """
    return beside_gradient("grams", _with_sign, inner)
