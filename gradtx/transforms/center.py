"""Gradient centralization."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import builds


class Centralize(Rule, name="centralize"):
    """u = g - mean(g), the mean over all axes but the first."""

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        if g.ndim < 2 or g.size == 0:
            return g, slots
        return g - jnp.mean(g, axis=tuple(range(1, g.ndim)), keepdims=True), slots


@builds(Centralize)
def centralize() -> Transform:
    """Subtracts from each leaf of two or more axes its mean over all axes but the first.

    Leaves with one axis or none stay as they are.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, g = gradtx.centralize(), jnp.array([[1.0, 3.0], [5.0, 5.0]])
        >>> tx.update(g, tx.init(g))[0].tolist()
        [[-1.0, 1.0], [0.0, 0.0]]

    References:
        Yong et al., Gradient Centralization: A New Optimization Technique for Deep Neural Networks, 2020,
        https://arxiv.org/abs/2004.01461.
    """
    ...
