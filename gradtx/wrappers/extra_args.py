"""Keyword arguments for transforms that take none."""

from __future__ import annotations

from gradtx.core.compose.combine import checked
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.transform import GradientTransformation, Transform


def with_extra_args_support(tx: AnyTransform) -> Transform:
    """A transform that takes any keyword arguments of `update` and passes on those that `tx` takes.

    Every transform of gradtx does so and is returned as it is. It is for those of other libraries.

    Args:
        tx: a transform of any library.

    Returns:
        The transform.

    Raises:
        TypeError: `tx` is not a transform.

    Examples:
        >>> import gradtx, jax.numpy as jnp, optax
        >>> tx = gradtx.with_extra_args_support(optax.GradientTransformation(*optax.scale(2.0)))
        >>> float(tx.update(jnp.float32(1.0), tx.init(jnp.float32(0.0)), value=3.0)[0])
        2.0
    """
    checked("with_extra_args_support", tx)
    return tx if isinstance(tx, Transform) else GradientTransformation(tx.init, tx.update)
