"""AdaBelief's rescaling by how far the gradient is from its average."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, NonNegative, ScalarOrSchedule


class ScaleByBelief(Rule, name="scale_by_belief"):
    """m = b1 m + (1 - b1) g;  s = b2 s + (1 - b2) |g - m|² + eps_root;  u = m^ / (sqrt(s^) + eps)."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    eps_root: NonNegative
    nesterov: bool
    mu_dtype: DTypeName
    nu_dtype: DTypeName

    mu = Slot(dtype="mu_dtype", mean=True)
    nu = Slot(dtype="nu_dtype", real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        c1, c1_next = self.b1.correction(now.t), self.b1.correction(now.t + 1)
        of_mu = self.b1.value / c1_next if self.nesterov else 1 / c1
        return {"of_mu": of_mu, "of_g": self.b1.complement / c1, "of_nu": 1 / self.b2.correction(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu = self.b1.mix(slots.mu, g)
        nu = self.b2.mix(slots.nu, abs_sq(g - mu)) + self.eps_root
        m_hat = leaf.of_mu * mu + leaf.of_g * g if self.nesterov else leaf.of_mu * mu
        return divide(m_hat, sqrt(leaf.of_nu * nu) + self.eps), {"mu": mu, "nu": nu}


@builds(ScaleByBelief)
def scale_by_belief(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-16,
    eps_root: ScalarOrSchedule = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> Transform:
    """Rescales gradients by how far they are from their average.

    For each element, with t from 1:

        m  = b1 m + (1 - b1) g              s  = b2 s + (1 - b2) |g - m|² + eps_root
        m^ = m / (1 - b1^t)                 s^ = s / (1 - b2^t)
        u  = m^ / (sqrt(s^) + eps)

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added to s at every step, >= 0.
        nesterov: use Nesterov momentum; m^ = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t).
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nu_dtype: dtype to store the second moment in; by default the parameter's, at least float32.

    Returns:
        A transform with slots `mu` and `nu`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_belief(b1=0.5, b2=0.5, eps=0.0, eps_root=0.0)
        >>> float(tx.update(jnp.float32(2.0), tx.init(jnp.float32(0.0)))[0])
        2.0

    References:
        Zhuang et al., AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients, 2020,
        https://arxiv.org/abs/2010.07468.
    """
    ...
