"""LaProp: momentum of gradients that are rescaled already."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide_again, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, NonNegative, ScalarOrSchedule


class ScaleByLaprop(Rule, name="scale_by_laprop"):
    """v = b2 v + (1 - b2) |g|²;  m = b1 m + (1 - b1) g / (sqrt(v^) + eps);  u = m^."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    mu_dtype: DTypeName
    nu_dtype: DTypeName

    mu = Slot(dtype="mu_dtype", mean=True)
    nu = Slot(dtype="nu_dtype", real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"of_mu": 1 / self.b1.correction(now.t), "of_nu": 1 / self.b2.correction(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        nu = self.b2.mix(slots.nu, abs_sq(g))
        mu = self.b1.mix(slots.mu, divide_again(g, sqrt(leaf.of_nu * nu) + self.eps))
        return leaf.of_mu * mu, {"mu": mu, "nu": nu}


@builds(ScaleByLaprop)
def scale_by_laprop(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-15,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Transform:
    """Averages gradients that are rescaled by their second moment, where Adam rescales the average.

        v = b2 v + (1 - b2) |g|²            m = b1 m + (1 - b1) g / (sqrt(v / (1 - b2^t)) + eps)
        u = m / (1 - b1^t)

    Args:
        b1: decay of the first moment, in [0, 1); here of rescaled gradients.
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nu_dtype: dtype to store the second moment in; by default the parameter's, at least float32.

    Returns:
        A transform with the slots `mu` and `nu`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, g = gradtx.scale_by_laprop(), jnp.array([4.0, -0.5])
        >>> tx.update(g, tx.init(g))[0].round(4).tolist()
        [1.0, -1.0]

    References:
        Ziyin, Wang and Ueda, LaProp: Separating Momentum and Adaptivity in Adam, 2020,
        https://arxiv.org/abs/2002.04839.
    """
    ...
