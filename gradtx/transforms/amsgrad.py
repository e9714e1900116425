"""AMSGrad's second moment, which never falls."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, NonNegative, ScalarOrSchedule


class ScaleByAmsgrad(Rule, name="scale_by_amsgrad"):
    """v = b2 v + (1 - b2) |g|²;  v_max = max(v_max, v^);  u = m^ / (sqrt(v_max + eps_root) + eps)."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    eps_root: NonNegative
    mu_dtype: DTypeName
    bias_correction_mu: bool
    bias_correction_nu: bool

    mu = Slot(dtype="mu_dtype", mean=True)
    nu, nu_max = Slot(real=True, mean=True, nonnegative=True), Slot(real=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        one = jnp.ones_like(now.t)
        return {
            "of_mu": 1 / self.b1.correction(now.t) if self.bias_correction_mu else one,
            "of_nu": 1 / self.b2.correction(now.t) if self.bias_correction_nu else one,
        }

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu, nu = self.b1.mix(slots.mu, g), self.b2.mix(slots.nu, abs_sq(g))
        nu_max = jnp.maximum(slots.nu_max, leaf.of_nu * nu)
        u = divide(leaf.of_mu * mu, sqrt(nu_max + self.eps_root) + self.eps)
        return u, {"mu": mu, "nu": nu, "nu_max": nu_max}


@builds(ScaleByAmsgrad)
def scale_by_amsgrad(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: DType | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> Transform:
    """Rescales gradients by Adam's first moment and the largest second moment so far.

    For each element, with t from 1:

        m  = b1 m + (1 - b1) g              v  = b2 v + (1 - b2) |g|²
        m^ = m / (1 - b1^t)                 v_max = max(v_max, v / (1 - b2^t))
        u  = m^ / (sqrt(v_max + eps_root) + eps)

    The paper corrects no bias: `bias_correction_mu=False, bias_correction_nu=False`. PyTorch takes the
    maximum of the uncorrected second moments and corrects it afterwards, which differs in the first steps.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        bias_correction_mu: divide the first moment by 1 - b1^t.
        bias_correction_nu: divide the second moment by 1 - b2^t.

    Returns:
        A transform with slots `mu`, `nu` and `nu_max`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_amsgrad(b1=0.0, b2=0.0, eps=0.0)
        >>> _, state = tx.update(jnp.float32(4.0), tx.init(jnp.float32(0.0)))
        >>> float(tx.update(jnp.float32(1.0), state)[0])
        0.25

    References:
        Reddi, Kale and Kumar, On the Convergence of Adam and Beyond, 2018, https://arxiv.org/abs/1904.09237.
    """
    ...
