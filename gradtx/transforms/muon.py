"""Muon's direction: a momentum, orthogonalized."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Slot
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Leaf, Now, Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay
from gradtx.core.polar import STANDARD, Normalization
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, ScalarOrSchedule
from gradtx.transforms.orthogonalize import NsCoeffs, Orthogonalizing, Scaled, Scaling


class OfMomentum(Orthogonalizing):
    """A rule that orthogonalizes a momentum."""

    beta: Decay
    mu_dtype: DTypeName
    nesterov: bool
    bias_correction: bool

    mu = Slot(dtype="mu_dtype", mean=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        one = jnp.ones_like(now.t)
        c, c_next = one, one
        if self.bias_correction:
            c, c_next = self.beta.correction(now.t), self.beta.correction(now.t + 1)
        of_mu = self.beta.value / c_next if self.nesterov else 1 / c
        return {"of_mu": of_mu, "of_g": self.beta.complement / c}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu = self.beta.mix(slots.mu, g)
        return leaf.of_mu * mu + leaf.of_g * g if self.nesterov else leaf.of_mu * mu, {"mu": mu}


class ScaleByMuon(OfMomentum, Scaled, name="scale_by_muon"):
    """m = beta m + (1 - beta) g;  u = sigma pol(beta m + (1 - beta) g), or of m without Nesterov."""

    says_views = "weight_dimension_numbers"

    adaptive: bool
    weight_dimension_numbers: Any

    @property
    def views(self) -> Any:
        """Optax's name for what is said of the leaves."""
        return self.weight_dimension_numbers

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        u = self.polar(x)
        if self.adaptive:
            u = jnp.sum(jnp.real(jnp.conj(x) * u), axis=(-2, -1), keepdims=True) * u
        return self.scaled(u), slots


@builds(ScaleByMuon)
def scale_by_muon(
    ns_coeffs: NsCoeffs = STANDARD,
    ns_steps: int = 5,
    beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Normalization = "frobenius",
    weight_dimension_numbers: Views = None,
    bias_correction: bool = True,
    scaling: Scaling = "none",
    consistent_rms: ScalarOrSchedule | None = None,
    gram: bool = False,
    matmul_dtype: DType | None = None,
) -> Transform:
    """Replaces gradients by their momentum, orthogonalized.

        m = beta m + (1 - beta) g        u = sigma pol(beta m^ + (1 - beta) g^), or sigma pol(m^) without
        Nesterov

    with m^ = m / (1 - beta^(t + 1)) and g^ = g / (1 - beta^t), t from 1, or m / (1 - beta^t) without
    Nesterov, and pol and sigma as in `orthogonalize`. The size of m has no part in u, but for eps.

    Args:
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        beta: decay of the average of the gradients, in [0, 1).
        eps: added to the norm, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nesterov: use Nesterov momentum.
        adaptive: multiply by the nuclear norm; of the momentum, its inner product with its polar factor.
        preconditioning: the norm that a matrix is divided by at first; see `orthogonalize`.
        weight_dimension_numbers: which leaves are matrices, and how, where names and shapes do not say it, as
            `gradtx.matrix_view` or `gradtx.contrib.MuonDimensionNumbers`.
        bias_correction: correct averages for their start at zero; without it m^ is m and g^ is g.
        scaling: sigma by a name; see `orthogonalize`.
        consistent_rms: c of sigma = c sqrt(max(m, n)), >= 0; see `orthogonalize`.
        gram: take the steps on X alone: faster where one side is some times the other.
        matmul_dtype: dtype of the products, such as `"bfloat16"`; by default that of the computation.

    Returns:
        A transform with the slot `mu`.

    Raises:
        ValueError: another name; at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx
        >>> gradtx.scale_by_muon("dion", beta=0.9)
        scale_by_muon('dion', beta=0.9)

    References:
        Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024,
        https://kellerjordan.github.io/posts/muon/; Bernstein and Newhouse, Old Optimizer, New Norm, 2024,
        https://arxiv.org/abs/2409.20325 (adaptive); Liu et al., Muon is Scalable for LLM Training, 2025,
        https://arxiv.org/abs/2502.16982 (consistent_rms).
    """
    ...
