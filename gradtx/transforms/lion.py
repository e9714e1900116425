"""Lion's sign of an interpolated momentum."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, sign
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, ScalarOrSchedule


class ScaleByLion(Rule, name="scale_by_lion"):
    """u = sign(b1 m + (1 - b1) g);  m = b2 m + (1 - b2) g."""

    b1: Decay
    b2: Decay
    mu_dtype: DTypeName

    mu = Slot(dtype="mu_dtype")

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return sign(self.b1.mix(slots.mu, g)), {"mu": self.b2.mix(slots.mu, g)}


@builds(ScaleByLion)
def scale_by_lion(
    b1: ScalarOrSchedule = 0.9, b2: ScalarOrSchedule = 0.99, mu_dtype: DType | None = None
) -> Transform:
    """The sign of a mix of momentum and gradient.

        u = sign(b1 m + (1 - b1) g)        m = b2 m + (1 - b2) g

    Args:
        b1: the share of the momentum in the step, in [0, 1); the rest is the gradient's.
        b2: decay of the momentum, in [0, 1).
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.

    Returns:
        A transform with the slot `mu`; for complex leaves the sign is z / |z|.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_lion()
        >>> tx.update(jnp.array([0.1, -5.0]), tx.init(jnp.zeros(2)))[0].tolist()
        [1.0, -1.0]

    References:
        Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, https://arxiv.org/abs/2302.06675.
    """
    ...
