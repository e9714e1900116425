"""Simplified AdEMAMix: a sum of gradients beside the gradient, over the second moment."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Fraction, NonNegative, ScalarOrSchedule


class ScaleBySimplifiedAdemamix(Rule, name="scale_by_simplified_ademamix"):
    """m = b1 m + g;  n = b2 n + (1 - b2) |g|²;  u = (m + alpha g) / (sqrt(n^ + eps_root) + eps)."""

    b1: Fraction
    b2: Decay
    alpha: NonNegative
    eps: NonNegative
    eps_root: NonNegative

    m, n = Slot(mean=True), Slot(real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"of_n": 1 / self.b2.correction(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        m, n = self.b1 * slots.m + g, self.b2.mix(slots.n, abs_sq(g))
        root = sqrt(leaf.of_n * n + self.eps_root)
        return divide(m + self.alpha * g, root + self.eps), {"m": m, "n": n}


@builds(ScaleBySimplifiedAdemamix)
def scale_by_simplified_ademamix(
    b1: ScalarOrSchedule = 0.99,
    b2: ScalarOrSchedule = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
) -> Transform:
    """Adds up gradients, with a weight for the newest, over the root of their second moment.

    For each element, with t from 1:

        m = b1 m + g        n = b2 n + (1 - b2) |g|²
        u = (m + alpha g) / (sqrt(n / (1 - b2^t) + eps_root) + eps)

    m is a sum and no average: it settles at g / (1 - b1), so that rates are smaller than Adam's.

    Args:
        b1: decay of the sum of the gradients, in [0, 1].
        b2: decay of the second moment, in [0, 1).
        alpha: weight of the gradient beside the sum, >= 0; usually 0 for large batches and up to 100 for
            small ones.
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.

    Returns:
        A transform with the slots `m` and `n`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_simplified_ademamix(alpha=2.0)
        >>> round(float(tx.update(jnp.float32(-3.0), tx.init(jnp.float32(0.0)))[0]), 6)
        -3.0

    References:
        Morwani et al., Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD Variants,
        2025, https://arxiv.org/abs/2502.02431.
    """
    ...
