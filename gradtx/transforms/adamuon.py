"""AdaMuon's direction: the sign of a momentum, orthogonalized, each element over its own size."""

from __future__ import annotations

import math
from typing import Any

import jax

from gradtx.core.compose.matrix_rule import MatrixSlot
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norms_along
from gradtx.core.numerics import abs_sq, divide, divide_again, sign, sqrt
from gradtx.core.polar import STANDARD, Normalization
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, NonNegative, ScalarOrSchedule
from gradtx.transforms.muon import OfMomentum
from gradtx.transforms.orthogonalize import NsCoeffs


class ScaleByAdamuon(OfMomentum, name="scale_by_adamuon"):
    """o = pol(sign(m));  v = beta v + (1 - beta) |o|²;  u = o / sqrt(v) at a root mean square of 0.2."""

    nu_eps: NonNegative
    views: Any

    nu = MatrixSlot(real=True, mean=True, nonnegative=True)

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        o = self.polar(sign(x))
        nu = self.beta.mix(slots.nu, abs_sq(o))
        u = divide(o, sqrt(nu) + self.nu_eps)
        size = norms_along(u, (-2, -1))
        size = size + self.nu_eps
        return divide_again(0.2 * math.sqrt(u.shape[-2] * u.shape[-1]) * u, size), {"nu": nu}


@builds(ScaleByAdamuon)
def scale_by_adamuon(
    ns_coeffs: NsCoeffs = STANDARD,
    ns_steps: int = 5,
    beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-7,
    nu_eps: ScalarOrSchedule = 1e-8,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    preconditioning: Normalization = "frobenius",
    bias_correction: bool = False,
    gram: bool = False,
    matmul_dtype: DType | None = None,
    views: Views = None,
) -> Transform:
    """Replaces gradients by the orthogonalized sign of their momentum, each element over its own size.

        m = beta m + (1 - beta) g           o = pol(sign(beta m + (1 - beta) g)), or of m without Nesterov
        v = beta v + (1 - beta) |o|²        u = 0.2 sqrt(m n) o' / (||o'|| + nu_eps)

    with o' = o / (sqrt(v) + nu_eps), for m inputs and n outputs. The norm is that of the matrix: the root
    mean square of an update is 0.2.

    Args:
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        beta: decay of both averages, in [0, 1).
        eps: added to the norm, >= 0.
        nu_eps: added to the denominators, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nesterov: use Nesterov momentum.
        preconditioning: the norm that a matrix is divided by at first; see `orthogonalize`.
        bias_correction: correct averages for their start at zero; of the momentum alone, whose size has no
            part in u.
        gram: take the steps on X alone; see `orthogonalize`.
        matmul_dtype: dtype of the products, such as `"bfloat16"`; by default that of the computation.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform with the slots `mu`, of each element, and `nu`, of each matrix.

    Raises:
        ValueError: another name; at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx
        >>> gradtx.scale_by_adamuon(beta=0.9)
        scale_by_adamuon(beta=0.9)

    References:
        Si et al., AdaMuon: Adaptive Muon Optimizer, 2025, https://arxiv.org/abs/2507.11005.
    """
    ...
