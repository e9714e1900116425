"""RAdam's rectification of Adam's first steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


def _gap(x: jax.Array) -> jax.Array:
    """`1 / x - 1 / (e^x - 1)` for x > 0: 1/2 at 0, 1 / x for large x, without cancellation."""
    small = jnp.minimum(x, 0.5)
    # Its Taylor series: the Bernoulli numbers.
    square, near = small * small, 0.0
    for term in (691 / 1307674368000, -1 / 47900160, 1 / 1209600, -1 / 30240, 1 / 720, -1 / 12):
        near = near * square + term
    near = 1 / 2 + small * near
    large = jnp.maximum(x, 0.5)
    return jnp.where(x < 0.5, near, 1 / large - 1 / jnp.expm1(jnp.minimum(large, 80.0)))


class ScaleByRadam(Rule, name="scale_by_radam"):
    """rho = rho_inf - 2 t b2^t / (1 - b2^t);  u = r Adam's direction, or m^ while rho < threshold."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    eps_root: NonNegative
    threshold: NonNegative
    nesterov: bool
    eps_scaled: bool

    mu = Slot(mean=True)
    nu = Slot(real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        c1, c1_next = self.b1.correction(now.t), self.b1.correction(now.t + 1)
        one, complement = jnp.ones_like(now.t), self.b2.complement
        about = jnp.finfo(complement.dtype)
        rate = -jnp.log1p(-jnp.minimum(complement, np.array(1 - about.epsneg, complement.dtype)))
        limit = 2 / complement - 1
        # The difference of two large numbers in the formula has lost its digits; this is the same without.
        rho = 2 * now.t * _gap(now.t * rate) + (1 - 2 * _gap(rate))
        share = (limit - 4) * (limit - 2) / limit * rho
        r = sqrt(divide(jnp.maximum(rho - 4, 0.0) * (rho - 2), share))
        c2, eps, eps_root = self.b2.correction(now.t), self.eps, self.eps_root
        if self.eps_scaled:
            eps, eps_root = eps / sqrt(c2), eps_root / c2
        return {
            "of_mu": self.b1.value / c1_next if self.nesterov else 1 / c1,
            "of_g": self.b1.complement / c1,
            "of_nu": 1 / c2,
            "eps": eps,
            "eps_root": eps_root,
            "r": r,
            "is_rectified": jnp.where((rho >= self.threshold) & (rho > 4), one, jnp.zeros_like(one)),
        }

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu, nu = self.b1.mix(slots.mu, g), self.b2.mix(slots.nu, abs_sq(g))
        m_hat = leaf.of_mu * mu + leaf.of_g * g if self.nesterov else leaf.of_mu * mu
        rectified = leaf.r * divide(m_hat, sqrt(leaf.of_nu * nu + leaf.eps_root) + leaf.eps)
        return jnp.where(leaf.is_rectified > 0, rectified, m_hat), {"mu": mu, "nu": nu}


@builds(ScaleByRadam)
def scale_by_radam(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    threshold: ScalarOrSchedule = 5.0,
    *,
    nesterov: bool = False,
    eps_scaled: bool = False,
) -> Transform:
    """Rescales gradients by Adam's moments once the second one can be relied on.

    With t from 1 and m^, v^ as in `scale_by_adam`:

        rho_inf = 2 / (1 - b2) - 1          rho = rho_inf - 2 t b2^t / (1 - b2^t)
        r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
        u = r m^ / (sqrt(v^ + eps_root) + eps) where rho >= threshold and rho > 4, else m^

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        threshold: from which rho on to rescale; the paper has 4, up to which r has no meaning.
        nesterov: use Nesterov momentum; m^ = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t).
        eps_scaled: divide eps by sqrt(1 - b2^t), and eps_root by 1 - b2^t; so does torch.

    Returns:
        A transform with slots `mu` and `nu`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_radam()
        >>> float(tx.update(jnp.float32(3.0), tx.init(jnp.float32(0.0)))[0].round(5))
        3.0

    References:
        Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, 2019,
        https://arxiv.org/abs/1908.03265.
    """
    ...
