"""Adam's direction by an arctangent, which needs no eps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, sign, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, Positive, ScalarOrSchedule


class ScaleByAdamAtan2(Rule, name="scale_by_adam_atan2"):
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) |g|²;  u = a atan2(m^, b sqrt(v^))."""

    b1: Decay
    b2: Decay
    a: Positive
    b: Positive
    mu_dtype: DTypeName
    nu_dtype: DTypeName

    mu = Slot(dtype="mu_dtype", mean=True)
    nu = Slot(dtype="nu_dtype", real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"of_mu": 1 / self.b1.correction(now.t), "of_nu": 1 / self.b2.correction(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu, nu = self.b1.mix(slots.mu, g), self.b2.mix(slots.nu, abs_sq(g))
        # The derivative of atan2 itself is 0 / 0 at 0.
        still, root = (mu == 0) & (nu == 0), self.b * sqrt(leaf.of_nu * nu)
        quotient = divide(leaf.of_mu * mu, jnp.where(still, jnp.ones_like(root), root))
        if jnp.iscomplexobj(quotient):
            return self.a * jnp.arctan(jnp.abs(quotient)) * sign(quotient), {"mu": mu, "nu": nu}
        return self.a * jnp.arctan(quotient), {"mu": mu, "nu": nu}


@builds(ScaleByAdamAtan2)
def scale_by_adam_atan2(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    a: ScalarOrSchedule = 1.27,
    b: ScalarOrSchedule = 1.0,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Transform:
    """Adam's direction with an arctangent in the place of a quotient: u = a atan2(m^, b sqrt(v^)).

    It needs no eps, is the same for gradients of any size whose square can be represented, and is bounded by
    a pi / 2. Of a complex element the arctangent is that of the magnitude.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        a: the factor of the arctangent, > 0; 1.27 is about 4 / pi, with which u = 1 where m^ = sqrt(v^).
        b: the factor of the root, > 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nu_dtype: dtype to store the second moment in; by default the parameter's, at least float32.

    Returns:
        A transform with the slots `mu` and `nu`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, g = gradtx.scale_by_adam_atan2(), jnp.array([4.0, -1e-12])
        >>> tx.update(g, tx.init(g))[0].round(2).tolist()
        [1.0, -1.0]

    References:
        Everett et al., Scaling Exponents Across Parameterizations and Optimizers, 2024,
        https://arxiv.org/abs/2407.05872.
    """
    ...
