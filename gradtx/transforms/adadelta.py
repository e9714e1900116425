"""Adadelta's rescaling by the ratio of two moving averages."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


class ScaleByAdadelta(Rule, name="scale_by_adadelta"):
    """E[g²] = rho E[g²] + (1 - rho) |g|²;  u = sqrt(E[u²] + eps) / sqrt(E[g²] + eps) g;  E[u²] alike."""

    rho: Decay
    eps: NonNegative

    e_g = Slot(real=True, mean=True, nonnegative=True)
    # No mean: updates follow it, of whose squares it is made, so that it does not forget.
    e_x = Slot(real=True, nonnegative=True)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        e_g = self.rho.mix(slots.e_g, abs_sq(g))
        u = divide(sqrt(slots.e_x + self.eps) * g, sqrt(e_g + self.eps))
        return u, {"e_g": e_g, "e_x": self.rho.mix(slots.e_x, abs_sq(u))}


@builds(ScaleByAdadelta)
def scale_by_adadelta(rho: ScalarOrSchedule = 0.9, eps: ScalarOrSchedule = 1e-6) -> Transform:
    """Rescales gradients to the size of past updates, so that no learning rate has to be chosen.

        E[g²] = rho E[g²] + (1 - rho) |g|²
        u     = sqrt(E[u²] + eps) / sqrt(E[g²] + eps) g
        E[u²] = rho E[u²] + (1 - rho) |u|²

    Args:
        rho: decay of both averages, in [0, 1).
        eps: added inside both roots, >= 0; with 0 nothing ever moves.

    Returns:
        A transform with the slots `e_g` and `e_x`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_adadelta()
        >>> round(float(tx.update(jnp.float32(1.0), tx.init(jnp.float32(0.0)))[0]), 6)
        0.003162

    References:
        Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012, https://arxiv.org/abs/1212.5701.
    """
    ...
