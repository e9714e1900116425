"""Adamax's rescaling by the first moment and the infinity norm of past gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, divide
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


class ScaleByAdamax(Rule, name="scale_by_adamax"):
    """m = b1 m + (1 - b1) g;  n = max(b2 n, |g| + eps);  u = m^ / n."""

    b1: Decay
    b2: Decay
    eps: NonNegative

    mu = Slot(mean=True)
    nu = Slot(real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"of_mu": 1 / self.b1.correction(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu = self.b1.mix(slots.mu, g)
        nu = jnp.maximum(self.b2.value * slots.nu, jnp.abs(g) + self.eps)
        return divide(leaf.of_mu * mu, nu), {"mu": mu, "nu": nu}


@builds(ScaleByAdamax)
def scale_by_adamax(
    b1: ScalarOrSchedule = 0.9, b2: ScalarOrSchedule = 0.999, eps: ScalarOrSchedule = 1e-8
) -> Transform:
    """Rescales gradients by the first moment and the largest magnitude of late.

    For each element, with t from 1:

        m = b1 m + (1 - b1) g        n = max(b2 n, |g| + eps)        u = m / (1 - b1^t) / n

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the largest magnitude, in [0, 1).
        eps: added to the magnitude, >= 0.

    Returns:
        A transform with slots `mu` and `nu`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_adamax(eps=0.0)
        >>> tx.update(jnp.array([4.0, -0.5]), tx.init(jnp.zeros(2)))[0].round(6).tolist()
        [1.0, -1.0]

    References:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, 2014, section 7.1,
        https://arxiv.org/abs/1412.6980.
    """
    ...
