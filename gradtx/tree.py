"""Functions of whole trees, under the names of Optax's `tree` module."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from gradtx.core import leaves as lv
from gradtx.core.numerics import number_dtype, one_minus_power


def bias_correction(moment: Any, decay: Any, count: Any) -> Any:
    """Divides every leaf of a tree of averages by 1 - decay^count.

    Args:
        moment: the averages, which started at zero.
        decay: their decay, in [0, 1).
        count: the number of updates made, >= 1.

    Returns:
        The tree, in the dtypes it had.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.bias_correction(jnp.array([0.5]), 0.5, 1).tolist()
        [1.0]
    """
    dtype = number_dtype()
    correction = one_minus_power(jnp.asarray(1 - decay, dtype), jnp.asarray(count).astype(dtype))
    leaves, structure = lv.flatten(moment)
    return structure.unflatten(
        [x if x is None else (x / correction.astype(jnp.real(x).dtype)).astype(x.dtype) for x in leaves]
    )


__all__ = ["bias_correction"]
