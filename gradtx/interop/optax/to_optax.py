"""A transform for libraries that ask for Optax's class."""

from __future__ import annotations

from typing import Any, cast

from gradtx.core.compose.combine import checked
from gradtx.core.engine.protocol import AnyTransform, TransformInitFn, TransformUpdateExtraArgsFn


def to_optax(tx: AnyTransform) -> Any:
    """The same transform as Optax's named tuple, for a library that asks for `optax.GradientTransformation`.

    NumPyro's `SVI` and GPJax's `fit` look at the class of what they are given: write
    `SVI(model, guide, gradtx.to_optax(tx), loss)` and `fit(..., optim=gradtx.to_optax(tx))`. The functions
    and the state are those of `tx`, so that all that reads a state of gradtx reads this one's. What calls
    `init` and `update` without looking takes `tx` as it is.

    Args:
        tx: a transform of gradtx's.

    Returns:
        An `optax.GradientTransformationExtraArgs` of `tx.init` and `tx.update`.

    Raises:
        TypeError: `tx` is not a transform.
        ImportError: Optax is not installed.

    Examples:
        >>> import gradtx, jax.numpy as jnp, optax
        >>> tx = gradtx.to_optax(gradtx.sgd(0.5))
        >>> isinstance(tx, optax.GradientTransformation)
        True
        >>> gradtx.hyperparams(tx.init(jnp.zeros(2)))
        {'learning_rate': 0.5}
    """
    import optax

    checked("to_optax", tx)
    if isinstance(tx, optax.GradientTransformationExtraArgs):
        return tx
    init, update = cast(TransformInitFn, tx.init), cast(TransformUpdateExtraArgsFn, tx.update)
    return optax.GradientTransformationExtraArgs(init, update)
