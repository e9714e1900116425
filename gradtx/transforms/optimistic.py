"""Optimistic gradients: this gradient, and how it has changed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Number, ScalarOrSchedule


class ScaleByOptimisticGradient(Rule, name="scale_by_optimistic_gradient"):
    """u = alpha g + beta (g - g_before)."""

    alpha: Number
    beta: Number

    previous_gradient = Slot()

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"of_change": jnp.where(now.step == 0, jnp.zeros_like(self.beta), self.beta)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        u = self.alpha * g + leaf.of_change * (g - slots.previous_gradient)
        return u, {"previous_gradient": g}


@builds(ScaleByOptimisticGradient)
def scale_by_optimistic_gradient(alpha: ScalarOrSchedule = 1.0, beta: ScalarOrSchedule = 1.0) -> Transform:
    """Adds to each gradient how it has changed: u = alpha g + beta (g - g_before), and alpha g at first.

    Args:
        alpha: the factor of the gradient.
        beta: the factor of its change.

    Returns:
        A transform with the slot `previous_gradient`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_optimistic_gradient()
        >>> _, state = tx.update(jnp.float32(1.0), tx.init(jnp.float32(0.0)))
        >>> float(tx.update(jnp.float32(3.0), state)[0])
        5.0

    References:
        Mokhtari, Ozdaglar and Pattathil, A Unified Analysis of Extra-gradient and Optimistic Gradient Methods
        for Saddle Point Problems, 2019, https://arxiv.org/abs/1901.08511.
    """
    ...
