"""COCOB: steps as bets on the signs of gradients, with no learning rate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import divide, divide_again
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, Positive, ScalarOrSchedule


class ScaleByCocob(Rule, name="scale_by_cocob"):
    """theta' = theta0 + C / (L max(G + L, alpha L)) (L + R), from the sums and the largest of gradients."""

    alpha: NonNegative
    eps: Positive

    needs = ("params",)

    init_particles = Slot(init=lambda rule, param: param)
    cumulative_gradients = Slot()
    subgradients, reward = Slot(real=True, nonnegative=True), Slot(real=True, nonnegative=True)
    scale = Slot(real=True, init=lambda rule, param: rule.eps, nonnegative=True)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        way = leaf.param - slots.init_particles
        largest = jnp.maximum(slots.scale, jnp.abs(g))
        sizes = slots.subgradients + jnp.abs(g)
        reward = jnp.maximum(slots.reward - jnp.real(jnp.conj(g) * way), 0.0)
        total = slots.cumulative_gradients - g
        # Divided twice: the product may be out of range.
        share = divide_again(divide(total, largest), jnp.maximum(sizes + largest, self.alpha * largest))
        u = share * (largest + reward) - way
        kept = {"cumulative_gradients": total, "scale": largest, "subgradients": sizes, "reward": reward}
        return u, {"init_particles": slots.init_particles, **kept}


@builds(ScaleByCocob)
def scale_by_cocob(alpha: ScalarOrSchedule = 100.0, eps: ScalarOrSchedule = 1e-8) -> Transform:
    """COCOB's whole step, sign included: each element bets a share of what it has won.

        L = max(L, |g|)                   G = G + |g|
        R = max(R - g (theta - theta0), 0)     C = C - g
        u = theta0 + C / (L max(G + L, alpha L)) (L + R) - theta

    Args:
        alpha: how small the first bets are, >= 0: a first step is a share 1 / alpha of L at most.
        eps: the first largest gradient, > 0; L above.

    Returns:
        A transform with the slots `init_particles` (theta0), `cumulative_gradients` (C), `scale` (L),
        `subgradients` (G) and `reward` (R); `update` needs the parameters. For a complex element g (theta -
        theta0) is the real part of conj(g) (theta - theta0).

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.scale_by_cocob(), jnp.zeros(1)
        >>> tx.update(jnp.full(1, 3.0), tx.init(params), params)[0].round(6).tolist()
        [-0.009999999776482582]

    References:
        Orabona and Tommasi, Training Deep Networks without Learning Rates Through Coin Betting, 2017,
        https://arxiv.org/abs/1705.07795.
    """
    ...
