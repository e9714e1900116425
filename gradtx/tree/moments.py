"""Averages of powers of gradients, for transforms of two functions, under the names of `optax.tree`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.numerics import abs_sq, number_dtype, one_minus_power
from gradtx.core.spec.fields import Scalar

PyTree = Any


def _mixed(updates: PyTree, moments: PyTree, mix: Callable[[Any, Any], Any]) -> PyTree:
    """A function of each gradient and its moment; `None` for a leaf without a gradient."""
    return jax.tree.map(
        lambda g, m: None if g is None else mix(g, m), updates, moments, is_leaf=lambda x: x is None
    )


def update_moment(updates: PyTree, moments: PyTree, decay: Scalar, order: Scalar) -> PyTree:
    """The average of powers of the gradients: decay m + (1 - decay) g^order.

    Args:
        updates: the gradients; `None` for a leaf without one, whose moment is then `None`.
        moments: the averages so far.
        decay: decay of the average, in [0, 1).
        order: the power.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.update_moment(jnp.array([2.0]), jnp.array([0.0]), 0.5, 2).tolist()
        [2.0]
    """
    return _mixed(updates, moments, lambda g, m: (1 - decay) * g**order + decay * m)


def update_moment_per_elem_norm(updates: PyTree, moments: PyTree, decay: Scalar, order: Scalar) -> PyTree:
    """The average of powers of magnitudes: decay m + (1 - decay) |g|^order, with g^order for a real leaf.

    Args:
        updates: the gradients; `None` for a leaf without one, whose moment is then `None`.
        moments: the averages so far; they are real.
        decay: decay of the average, in [0, 1).
        order: the power.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.update_moment_per_elem_norm(jnp.array([3 + 4j]), jnp.array([0.0]), 0.5, 2).tolist()
        [12.5]
    """

    def power(g: Any) -> Any:
        if not jnp.iscomplexobj(g):
            return g**order
        return abs_sq(g) ** (order // 2 if order % 2 == 0 else order / 2)

    return _mixed(updates, moments, lambda g, m: (1 - decay) * power(g) + decay * m)


def update_infinity_moment(updates: PyTree, moments: PyTree, decay: Scalar, eps: Scalar) -> PyTree:
    """The largest magnitude, which fades: max(|g| + eps, decay m).

    Args:
        updates: the gradients; `None` for a leaf without one, whose moment is then `None`.
        moments: the averages so far; here the magnitudes.
        decay: what the magnitudes so far are multiplied by, in [0, 1).
        eps: added to the magnitudes of the gradients.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.update_infinity_moment(jnp.array([1.0]), jnp.array([4.0]), 0.5, 0.0).tolist()
        [2.0]
    """
    return _mixed(updates, moments, lambda g, m: jnp.maximum(jnp.abs(g) + eps, decay * m))


def bias_correction(moment: PyTree, decay: Scalar, count: Scalar) -> PyTree:
    """Divides every leaf of a tree of averages by 1 - decay^count.

    Args:
        moment: the averages, which started at zero.
        decay: decay of the average, in [0, 1).
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
    return jax.tree.map(lambda x: (x / correction.astype(jnp.real(x).dtype)).astype(x.dtype), moment)
