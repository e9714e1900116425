"""Dion2's direction: a part of a momentum, orthogonalized."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.matrix_rule import MatrixSlot
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.polar import Normalization
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, Fraction, ScalarOrSchedule
from gradtx.core.spec.spec import show
from gradtx.transforms.orthogonalize import NsCoeffs, Scaled, Scaling


class ScaleByDion2(Scaled, name="scale_by_dion2"):
    """m = m + g;  u = sigma pol(m_K), m_K = ef_decay m_K, of the slices K that are largest."""

    fraction: float
    ef_decay: Fraction
    views: Any

    mu = MatrixSlot()

    def check(self) -> None:
        super().check()
        is_number = isinstance(self.fraction, int | float) and not isinstance(self.fraction, bool)
        if not is_number or not 0 < self.fraction <= 1:
            raise ValueError(f"{self.name}: fraction must be a float in (0, 1], got {show(self.fraction)}.")

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        mu = slots.mu + x
        if not x.size:
            return x, {"mu": mu}
        # Slices along the shorter side; of a square one they are what makes an output.
        of_columns = x.shape[-1] <= x.shape[-2]
        slices = mu.mT if of_columns else mu
        # A fraction as 0.07 is a little more as a float, which is no slice more.
        count = max(1, math.ceil(self.fraction * slices.shape[-2] * (1 - 1e-12)))
        sizes = jnp.sum(jnp.abs(slices), axis=-1)
        chosen = jnp.sort(jax.lax.top_k(sizes, count)[1], axis=-1)
        part = jnp.take_along_axis(slices, chosen[..., None], axis=-2)
        batch = jnp.arange(len(x))[:, None]
        u = jnp.zeros_like(slices).at[batch, chosen].set(self.polar(part))
        kept = slices.at[batch, chosen].set(self.ef_decay * part)
        return self.scaled(u.mT if of_columns else u), {"mu": kept.mT if of_columns else kept}


@builds(ScaleByDion2)
def scale_by_dion2(
    fraction: float = 0.25,
    ef_decay: ScalarOrSchedule = 0.95,
    ns_coeffs: NsCoeffs = "polar_express",
    ns_steps: int = 5,
    eps: ScalarOrSchedule = 1e-8,
    *,
    preconditioning: Normalization = "frobenius",
    scaling: Scaling = "dion",
    consistent_rms: ScalarOrSchedule | None = None,
    gram: bool = False,
    matmul_dtype: DType | None = None,
    views: Views = None,
) -> Transform:
    """Replaces gradients by the orthogonalized slices of their momentum that are largest.

        m = m + g        u_K = sigma pol(m_K), 0 elsewhere        m_K = ef_decay m_K

    with pol and sigma as in `orthogonalize`, sigma by the shape of the whole matrix. The slices lie along the
    shorter side, of a square matrix they are its columns, and K are those `ceil(fraction s)` of s with the
    largest sums of |m|. What is not used stays in the momentum.

    Args:
        fraction: the part of the slices that moves at an update, in (0, 1].
        ef_decay: what is left of a slice that was used, in [0, 1].
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        eps: added to the norm, >= 0.
        preconditioning: the norm that a matrix is divided by at first; see `orthogonalize`.
        scaling: sigma by a name; see `orthogonalize`.
        consistent_rms: c of sigma = c sqrt(max(m, n)), >= 0; give scaling="none" with it.
        gram: take the steps on X alone; see `orthogonalize`.
        matmul_dtype: dtype of the products, such as `"bfloat16"`; by default that of the computation.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform with the slot `mu`, of each matrix.

    Raises:
        ValueError: another name, or a `fraction` that is none; at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, w = gradtx.scale_by_dion2(fraction=0.5), {"kernel": jnp.ones((4, 2))}
        >>> int((tx.update(w, tx.init(w))[0]["kernel"] != 0).sum())
        4

    References:
        Ahn et al., Dion2: A Simple Method to Shrink Matrix in Muon, 2025, https://arxiv.org/abs/2512.16928.
    """
    ...
