"""ACProp's moments: centred, and the second one a step behind."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide_again, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


class ScaleByAcprop(Rule, name="scale_by_acprop"):
    """m, s average g and |g - m|² + eps_root;  u = g / (sqrt(s^ of before) + eps)."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    eps_root: NonNegative

    mu, nu = Slot(mean=True), Slot(real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        one = jnp.ones_like(now.t)
        is_first = now.step == 0
        # The average of before has taken in one gradient less; at first there is none, and 1 in its place.
        of_nu = jnp.where(is_first, jnp.zeros_like(one), 1 / self.b2.correction(jnp.maximum(now.t - 1, one)))
        return {"of_nu": of_nu, "at_first": jnp.where(is_first, one, jnp.zeros_like(one))}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu = self.b1.mix(slots.mu, g)
        u = divide_again(g, sqrt(leaf.of_nu * slots.nu + leaf.at_first) + self.eps)
        return u, {"mu": mu, "nu": self.b2.mix(slots.nu, abs_sq(g - mu)) + self.eps_root}


@builds(ScaleByAcprop)
def scale_by_acprop(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-16,
    eps_root: ScalarOrSchedule = 1e-16,
) -> Transform:
    """Divides gradients by how far those before were from their average.

    For each element, with t from 1:

        u = g / (sqrt(s / (1 - b2^(t-1))) + eps)                  s of before; g / (1 + eps) at the first
        m = b1 m + (1 - b1) g
        s = b2 s + (1 - b2) |g - m|² + eps_root                   m of now

    The denominator does not depend on this gradient, so that the update has no bias from their product. Optax
    takes m of before, which makes s larger by 1 / b1².

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added to s at every step, >= 0.

    Returns:
        A transform with the slots `mu` and `nu`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_acprop()
        >>> float(tx.update(jnp.float32(2.0), tx.init(jnp.float32(0.0)))[0])
        2.0

    References:
        Zhuang et al., Momentum Centering and Asynchronous Update for Adaptive Gradient Methods, 2021,
        https://arxiv.org/abs/2110.05454.
    """
    ...
