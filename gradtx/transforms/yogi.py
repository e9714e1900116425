"""Yogi's second moment, which moves by a bounded amount."""

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


class ScaleByYogi(Rule, name="scale_by_yogi"):
    """v = v - (1 - b2) sign(v - |g|²) |g|²;  u = m^ / (sqrt(v^ + eps_root) + eps)."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    eps_root: NonNegative
    initial_accumulator_value: NonNegative

    mu = Slot(init=lambda rule, param: rule.initial_accumulator_value, mean=True)
    # No mean: it moves by a share of the gradient's square, so that what is large beside that stays.
    nu = Slot(real=True, init=lambda rule, param: rule.initial_accumulator_value, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"of_mu": 1 / self.b1.correction(now.t), "of_nu": 1 / self.b2.correction(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu, squares = self.b1.mix(slots.mu, g), abs_sq(g)
        nu = slots.nu - self.b2.complement * jnp.sign(slots.nu - squares) * squares
        u = divide(leaf.of_mu * mu, sqrt(leaf.of_nu * nu + self.eps_root) + self.eps)
        return u, {"mu": mu, "nu": nu}


@builds(ScaleByYogi)
def scale_by_yogi(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-3,
    eps_root: ScalarOrSchedule = 0.0,
    initial_accumulator_value: ScalarOrSchedule = 1e-6,
) -> Transform:
    """Rescales gradients by Adam's first moment and a second one that moves additively.

    For each element, with t from 1:

        m  = b1 m + (1 - b1) g              v  = v - (1 - b2) sign(v - |g|²) |g|²
        m^ = m / (1 - b1^t)                 v^ = v / (1 - b2^t)
        u  = m^ / (sqrt(v^ + eps_root) + eps)

    Where gradients become small, v falls by (1 - b2) |g|² a step and not by a factor.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        initial_accumulator_value: the first value of both moments, >= 0.

    Returns:
        A transform with slots `mu` and `nu`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_yogi(b1=0.0, b2=0.0, eps=0.0, initial_accumulator_value=0.0)
        >>> float(tx.update(jnp.float32(-2.0), tx.init(jnp.float32(0.0)))[0])
        -1.0

    References:
        Zaheer et al., Adaptive Methods for Nonconvex Optimization, 2018,
        https://papers.nips.cc/paper/2018/hash/90365351ccc7437a1309dc64e4db32a3-Abstract.html.
    """
    ...
