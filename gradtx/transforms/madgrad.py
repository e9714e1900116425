"""MADGRAD: dual averaging with a cube root."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import abs_sq, divide, sqrt, usually
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Fraction, NonNegative, Rate, ScalarOrSchedule


class ScaleByMadgrad(Rule, name="scale_by_madgrad"):
    """s, G sum l g, l |g|²,  l = (eta + eps) sqrt(t);  u = (1 - c) (theta0 - theta - s / (cbrt(G) + eps))."""

    learning_rate: Rate
    momentum: Fraction
    eps: NonNegative

    needs = ("params",)

    grad_sum_sq = Slot(real=True, nonnegative=True)
    s = Slot()
    x0 = Slot(init=lambda rule, param: param)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        rate = self.learning_rate
        return {"weight": jnp.where(rate == 0, jnp.zeros_like(rate), rate + self.eps) * sqrt(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        s = slots.s + leaf.weight * g
        grad_sum_sq = slots.grad_sum_sq + leaf.weight * abs_sq(g)
        # The derivative of a cube root at 0 is infinite.
        positive, one = usually(grad_sum_sq > 0), jnp.ones_like(grad_sum_sq)
        root = jnp.where(positive, jnp.cbrt(jnp.where(positive, grad_sum_sq, one)), grad_sum_sq)
        z = slots.x0 - divide(s, root + self.eps)
        u = (1 - self.momentum) * (z - leaf.param)
        return u, {"grad_sum_sq": grad_sum_sq, "s": s, "x0": slots.x0}


@builds(ScaleByMadgrad)
def scale_by_madgrad(
    learning_rate: ScalarOrSchedule, momentum: ScalarOrSchedule = 0.9, eps: ScalarOrSchedule = 1e-6
) -> Transform:
    """MADGRAD's whole step, sign included; `gradtx.madgrad` is the same with weight decay.

    For each element, with t from 1, eta the learning rate and c the momentum:

        l  = (eta + eps) sqrt(t)
        s  = s + l g                           G = G + l |g|²
        z  = theta0 - s / (cbrt(G) + eps)
        u  = (1 - c) (z - theta)

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        momentum: share of the parameter that stays in each step, in [0, 1]; c above.
        eps: added to the denominator, and to a learning rate that is not 0, >= 0.

    Returns:
        A transform with the slots `grad_sum_sq`, `s` and `x0`, the first parameters; `update` needs the
        parameters.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.scale_by_madgrad(1.0, eps=0.0), jnp.zeros(1)
        >>> tx.update(jnp.ones(1), tx.init(params), params)[0].round(6).tolist()
        [-0.10000000149011612]

    References:
        Defazio and Jelassi, Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient
        Method for Stochastic Optimization, 2021, https://arxiv.org/abs/2101.11075.
    """
    ...
