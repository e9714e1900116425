"""Aurora's direction: Muon's, with the slices along the longer side brought to about one length."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norms_along
from gradtx.core.polar import Normalization
from gradtx.core.products import conjugate
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, NonNegative, ScalarOrSchedule, check_count
from gradtx.transforms.muon import OfMomentum
from gradtx.transforms.orthogonalize import NsCoeffs, Scaled, Scaling


class ScaleByAurora(OfMomentum, Scaled, name="scale_by_aurora"):
    """u = sigma pol(D m), D diagonal on the longer side, such that the rows of pol(D m) are about as long."""

    balancing_steps: int
    balancing_power: NonNegative
    views: Any

    def check(self) -> None:
        super().check()
        check_count(f"{self.name}: balancing_steps", self.balancing_steps)

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        rows, columns = x.shape[-2:]
        if rows == columns or not x.size:
            return self.scaled(self.polar(x)), slots
        u = self._balanced(x) if rows > columns else conjugate(self._balanced(conjugate(x)))
        return self.scaled(u), slots

    def _balanced(self, x: jax.Array) -> jax.Array:
        """The polar factor of a matrix that is higher than wide, its rows scaled before."""
        share = x.shape[-1] / x.shape[-2]
        d = _inverse(jnp.maximum(norms_along(x, (-1,)), self.eps))
        for _ in range(self.balancing_steps - 1):
            lengths = jnp.maximum(norms_along(self.polar(d * x), (-1,)), self.eps)
            d = d * (share * _inverse(lengths) ** 2) ** self.balancing_power
        return self.polar(d * x)


def _inverse(x: jax.Array) -> jax.Array:
    """1 / x, and 0 of 0."""
    is_positive = x > 0
    return jnp.where(is_positive, 1 / jnp.where(is_positive, x, 1), 0)


@builds(ScaleByAurora)
def scale_by_aurora(
    ns_coeffs: NsCoeffs = "newton_schulz",
    ns_steps: int = 12,
    beta: ScalarOrSchedule = 0.95,
    balancing_steps: int = 2,
    balancing_power: ScalarOrSchedule = 0.5,
    eps: ScalarOrSchedule = 1e-7,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    preconditioning: Normalization = "frobenius",
    bias_correction: bool = False,
    scaling: Scaling = "jordan",
    consistent_rms: ScalarOrSchedule | None = None,
    gram: bool = False,
    matmul_dtype: DType | None = None,
    views: Views = None,
) -> Transform:
    """Replaces gradients by their orthogonalized momentum, whose slices along the longer side are balanced.

        m = beta m + (1 - beta) g           m^ = beta m + (1 - beta) g, or m without Nesterov
        d_i = 1 / max(|m^_i|, eps)          u = sigma pol(diag(d) m^)
        d_i <- d_i (l / k / |pol(diag(d) m^)_i|²)^p         K - 1 times, before

    with pol and sigma as in `orthogonalize`, and slices i along the longer side, of k, the shorter of l. The
    rows of a polar factor of a square matrix have one length already, and nothing is balanced.

    Args:
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        beta: decay of the average of the gradients, in [0, 1).
        balancing_steps: how many polar factors are taken, >= 1; K above.
        balancing_power: the power of a difference in length that one of them evens out, >= 0; p above.
        eps: added to the norm, >= 0; and the least length of a slice.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nesterov: use Nesterov momentum.
        preconditioning: the norm that a matrix is divided by at first; see `orthogonalize`.
        bias_correction: correct averages for their start at zero; the average of the gradients.
        scaling: sigma by a name; see `orthogonalize`.
        consistent_rms: c of sigma = c sqrt(max(m, n)), >= 0; give scaling="none" with it.
        gram: take the steps on X alone; see `orthogonalize`.
        matmul_dtype: dtype of the products, such as `"bfloat16"`; by default that of the computation.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform with the slot `mu`.

    Raises:
        ValueError: another name, or a number of steps < 1; at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, w = gradtx.scale_by_aurora(), {"kernel": jnp.array([[8.0, 0.0], [0.0, 1.0], [0.1, 0.1]])}
        >>> u = tx.update(w, tx.init(w))[0]["kernel"]
        >>> [f"{x:.2f}" for x in jnp.linalg.norm(u, axis=1)]
        ['0.84', '0.84', '0.77']

    References:
        Dewulf et al., Aurora, 2026, https://arxiv.org/abs/2606.27715; the rule is that of the authors' code,
        https://github.com/tilde-research/aurora-release.
    """
    ...
