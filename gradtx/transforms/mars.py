"""MARS: Adam's moments of gradients whose variance is reduced by the gradient before."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import excess, norm
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, NonNegative, ScalarOrSchedule


class ScaleByMars(Rule, name="scale_by_mars"):
    """c = g + gamma b1 / (1 - b1) (g - g_before), c / max(1, ||c||);  u = Adam's direction of c."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    gamma: NonNegative
    mu_dtype: DTypeName
    nu_dtype: DTypeName

    mu = Slot(dtype="mu_dtype")
    nu = Slot(dtype="nu_dtype", real=True)
    previous_gradient = Slot()

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        share = self.gamma * self.b1.value / self.b1.complement
        return {
            "share": share,
            "of_mu": 1 / self.b1.correction(now.t),
            "of_nu": 1 / self.b2.correction(now.t),
        }

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        c = g + leaf.share * (g - slots.previous_gradient)
        size = norm([c])
        divisor, shrink = excess(size, size.dtype.type(1))
        c = shrink * c / divisor
        mu, nu = self.b1.mix(slots.mu, c), self.b2.mix(slots.nu, abs_sq(c))
        u = divide(leaf.of_mu * mu, sqrt(leaf.of_nu * nu) + self.eps)
        return u, {"mu": mu, "nu": nu, "previous_gradient": g}


@builds(ScaleByMars)
def scale_by_mars(
    b1: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    gamma: ScalarOrSchedule = 0.025,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Transform:
    """Adam's direction of gradients that are corrected by how they have changed.

        c = g + gamma b1 / (1 - b1) (g - g_before)        c <- c / max(1, ||c||), the norm of each leaf
        u = m^ / (sqrt(v^) + eps), with the moments m^ and v^ of c, as in `scale_by_adam`

    g_before is the gradient of the step before, and 0 at first.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        gamma: the strength of the correction, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nu_dtype: dtype to store the second moment in; by default the parameter's, at least float32.

    Returns:
        A transform with the slots `mu`, `nu` and `previous_gradient`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, g = gradtx.scale_by_mars(), jnp.array([4.0, -0.5])
        >>> tx.update(g, tx.init(g))[0].round(4).tolist()
        [1.0, -1.0]

    References:
        Yuan et al., MARS: Unleashing the Power of Variance Reduction for Training Large Models, 2024,
        https://arxiv.org/abs/2411.10438.
    """
    ...
