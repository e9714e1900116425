"""AdaGrad's rescaling by the root of the sum of squares."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import abs_sq, divide_again, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


class ScaleByRss(Rule, name="scale_by_rss"):
    """G = G + |g|²;  u = g / sqrt(G + eps), or g / (sqrt(G) + eps)."""

    initial_accumulator_value: NonNegative
    eps: NonNegative
    eps_in_sqrt: bool

    sum_of_squares = Slot(
        real=True, init=lambda rule, param: rule.initial_accumulator_value, nonnegative=True
    )

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        total = slots.sum_of_squares + abs_sq(g)
        root = sqrt(total + self.eps) if self.eps_in_sqrt else sqrt(total) + self.eps
        return divide_again(g, root), {"sum_of_squares": total}


@builds(ScaleByRss)
def scale_by_rss(
    initial_accumulator_value: ScalarOrSchedule = 0.1,
    eps: ScalarOrSchedule = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> Transform:
    """Rescales gradients by the root of the sum of all their squares.

        G = G + |g|²        u = g / sqrt(G + eps), or g / (sqrt(G) + eps) with eps_in_sqrt=False

    Args:
        initial_accumulator_value: the sum G before the first step, >= 0; the paper and PyTorch have 0. It is
            used by `init` only.
        eps: added to the denominator, >= 0; inside the root unless `eps_in_sqrt` is False.
        eps_in_sqrt: whether eps is inside the root; PyTorch has it outside.

    Returns:
        A transform with the slot `sum_of_squares`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_rss(initial_accumulator_value=0.0)
        >>> u, state = tx.update(jnp.float32(2.0), tx.init(jnp.float32(0.0)))
        >>> round(float(u), 5)
        1.0

    References:
        Duchi, Hazan and Singer, Adaptive Subgradient Methods for Online Learning and Stochastic
        Optimization, 2011.
    """
    ...
