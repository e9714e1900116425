"""Constraints on updates: parameters that stay >= 0, and no NaN."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import builds


class KeepParamsNonnegative(Rule, name="keep_params_nonnegative"):
    """u = max(g, -theta)."""

    needs = ("params",)
    supports_complex = False

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return jnp.maximum(g, -leaf.param), slots


@builds(KeepParamsNonnegative)
def keep_params_nonnegative() -> Transform:
    """Shortens updates that would make a parameter negative: u = max(g, -theta).

    It belongs at the end of a chain, after the learning rate and its sign. A parameter that is negative
    already becomes 0. A NaN stays NaN.

    Returns:
        A transform without slots; `update` needs the parameters.

    Raises:
        TypeError: at `init`, a complex leaf, for which it has no meaning.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.keep_params_nonnegative(), jnp.array([1.0, 1.0])
        >>> tx.update(jnp.array([-0.5, -3.0]), tx.init(params), params)[0].tolist()
        [-0.5, -1.0]
    """
    ...


class ZeroNans(Rule, name="zero_nans"):
    """u = g, or 0 where it is NaN."""

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return jnp.where(jnp.isnan(g), jnp.zeros_like(g), g), slots


@builds(ZeroNans)
def zero_nans() -> Transform:
    """Replaces each NaN of an update by 0.

    It hides what is wrong: `gradtx.guard` skips such a step and tells which leaf had it.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.zero_nans()
        >>> tx.update(jnp.array([1.0, jnp.nan]), tx.init(jnp.zeros(2)))[0].tolist()
        [1.0, 0.0]
    """
    ...
