"""The value of the loss, as a rule that needs it gets it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradtx.core.engine.scope import Now
from gradtx.core.numerics import number_dtype


def value_of(now: Now, where: str) -> jax.Array:
    """The keyword argument `value`, a real scalar, in the dtype of hyperparameters."""
    value = jnp.asarray(now.extra["value"])
    if value.shape or jnp.iscomplexobj(value):
        raise ValueError(
            f"{where}: value is the loss, a real number; got {value.dtype} of shape {value.shape}. "
            f"Average it over the examples."
        )
    return value.astype(number_dtype())
