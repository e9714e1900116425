"""Adam's rescaling by the first and second moments of the gradient."""

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


class ScaleByAdam(Rule, name="scale_by_adam"):
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) |g|²;  u = m^ / (sqrt(v^ + eps_root) + eps)."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    eps_root: NonNegative
    mu_dtype: DTypeName
    nu_dtype: DTypeName
    nesterov: bool
    bias_correction: bool
    eps_scaled: bool

    mu = Slot(dtype="mu_dtype", mean=True)
    nu = Slot(dtype="nu_dtype", real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        one = jnp.ones_like(now.t)
        c1, c1_next, c2 = one, one, one
        if self.bias_correction:
            c1, c1_next = self.b1.correction(now.t), self.b1.correction(now.t + 1)
            c2 = self.b2.correction(now.t)
        eps, eps_root = self.eps, self.eps_root
        if self.eps_scaled:
            eps, eps_root = eps / sqrt(c2), eps_root / c2
        of_mu = self.b1.value / c1_next if self.nesterov else 1 / c1
        of_g = self.b1.complement / c1
        return {"of_mu": of_mu, "of_g": of_g, "of_nu": 1 / c2, "eps": eps, "eps_root": eps_root}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu, nu = self.b1.mix(slots.mu, g), self.b2.mix(slots.nu, abs_sq(g))
        m_hat = leaf.of_mu * mu + leaf.of_g * g if self.nesterov else leaf.of_mu * mu
        u = divide(m_hat, sqrt(leaf.of_nu * nu + leaf.eps_root) + leaf.eps)
        return u, {"mu": mu, "nu": nu}


@builds(ScaleByAdam)
def scale_by_adam(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: DType | None = None,
    *,
    nu_dtype: DType | None = None,
    nesterov: bool = False,
    bias_correction: bool = True,
    eps_scaled: bool = False,
) -> Transform:
    """Rescales gradients by Adam's moments.

    For each element, with t from 1:

        m  = b1 m + (1 - b1) g              v  = b2 v + (1 - b2) |g|²
        m^ = m / (1 - b1^t)                 v^ = v / (1 - b2^t)
        u  = m^ / (sqrt(v^ + eps_root) + eps)

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0; for eps inside the root use `eps=0.0, eps_root=1e-8`.
        eps_root: added inside the root, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nu_dtype: dtype to store the second moment in; by default the parameter's, at least float32. It is
            real also for complex parameters.
        nesterov: use Nesterov momentum; m^ = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t).
        bias_correction: correct averages for their start at zero; divide the moments by 1 - b^t. BERT's form
            does not.
        eps_scaled: divide eps by sqrt(1 - b2^t), and eps_root by 1 - b2^t; this is the efficient form of the
            paper, u = sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v + eps_root) + eps).

    Returns:
        A transform with slots `mu` and `nu`. An element with zero gradient from the start gets 0.

    Raises:
        ValueError: a decay outside [0, 1), or a negative eps.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.chain(gradtx.scale_by_adam(), gradtx.scale_by_learning_rate(1e-3))
        >>> params = {"w": jnp.ones(3)}
        >>> updates, state = tx.update({"w": jnp.array([1.0, -2.0, 0.5])}, tx.init(params), params)
        >>> [round(float(u), 6) for u in updates["w"]]
        [-0.001, 0.001, -0.001]

    References:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, 2014, https://arxiv.org/abs/1412.6980;
        Dozat, Incorporating Nesterov Momentum into Adam, 2016.
    """
    ...
