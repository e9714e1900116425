"""Adan's moments of the gradient, of its differences, and of both together."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


class ScaleByAdan(Rule, name="scale_by_adan"):
    """With d = g - g_before:  m, v, n average g, d and |g + b2 d|²;  u = (m^ + b2 v^) / (sqrt(n^) + eps)."""

    b1: Decay
    b2: Decay
    b3: Decay
    eps: NonNegative
    eps_root: NonNegative

    m, v, g = Slot(mean=True), Slot(mean=True), Slot()
    n = Slot(real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {
            "of_m": 1 / self.b1.correction(now.t),
            "of_v": self.b2.value / self.b2.correction(now.t),
            "of_n": 1 / self.b3.correction(now.t),
            "is_first": jnp.where(now.step == 0, jnp.ones_like(now.t), jnp.zeros_like(now.t)),
        }

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        difference = g - jnp.where(leaf.is_first > 0, g, slots.g)
        m, v = self.b1.mix(slots.m, g), self.b2.mix(slots.v, difference)
        n = self.b3.mix(slots.n, abs_sq(g + self.b2.value * difference))
        u = divide(leaf.of_m * m + leaf.of_v * v, sqrt(leaf.of_n * n + self.eps_root) + self.eps)
        return u, {"m": m, "v": v, "n": n, "g": g}


@builds(ScaleByAdan)
def scale_by_adan(
    b1: ScalarOrSchedule = 0.98,
    b2: ScalarOrSchedule = 0.92,
    b3: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
) -> Transform:
    """Rescales gradients by Adan's three moments.

    For each element, with t from 1 and d = g - g_before, which is 0 at first:

        m = b1 m + (1 - b1) g       v = b2 v + (1 - b2) d       n = b3 n + (1 - b3) |g + b2 d|²
        u = (m / (1 - b1^t) + b2 v / (1 - b2^t)) / (sqrt(n / (1 - b3^t) + eps_root) + eps)

    The decays are those of the official code; the paper's are one minus them. The factor of the differences
    is b2 in both. Optax multiplies them by 1 - b2, which is 0.08 in place of 0.92 by default.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the average of their differences, in [0, 1).
        b3: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.

    Returns:
        A transform with slots `m`, `v`, `n` and `g`, the gradient of the step before.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_adan()
        >>> round(float(tx.update(jnp.float32(-3.0), tx.init(jnp.float32(0.0)))[0]), 6)
        -1.0

    References:
        Xie et al., Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models, 2022,
        https://arxiv.org/abs/2208.06677.
    """
    ...
