"""NorMuon's direction: Muon's, with each output brought to one size."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.matrix_rule import MatrixSlot
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, real_dtype, sqrt
from gradtx.core.polar import STANDARD, Normalization
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.transforms.muon import OfMomentum
from gradtx.transforms.orthogonalize import NsCoeffs, Scaled, Scaling

LEAST = 1e-10
"""What the authors add to each denominator."""


class ScaleByNormuon(OfMomentum, Scaled, name="scale_by_normuon"):
    """o = pol(m);  v = b2 v + (1 - b2) mean over inputs of |o|²;  u = sigma o / sqrt(v), at the norm of o."""

    b2: Decay
    views: Any

    nu = MatrixSlot(real=True, of=lambda rule, rows, columns: (columns,), mean=True, nonnegative=True)

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        o = self.polar(x)
        squares = abs_sq(o)
        rows = max(o.shape[-2], 1)
        nu = self.b2.mix(slots.nu, jnp.sum(squares, axis=-2) / float(rows))
        least = np.array(LEAST, real_dtype(o.dtype))
        u = divide(o, jnp.expand_dims(sqrt(nu), -2) + least)
        before, after = (sqrt(jnp.sum(y, axis=(-2, -1), keepdims=True)) for y in (squares, abs_sq(u)))
        return self.scaled(divide(before, after + least) * u), {"nu": nu}


@builds(ScaleByNormuon)
def scale_by_normuon(
    ns_coeffs: NsCoeffs = STANDARD,
    ns_steps: int = 5,
    beta: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
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
    """Replaces gradients by Muon's direction, in which each output (a neuron) is brought to one size.

        m = beta m + (1 - beta) g                        o = pol(beta m + (1 - beta) g), or of m without
        Nesterov v = b2 v + (1 - b2) mean over inputs of |o|²     u = sigma ||o|| o' / ||o'||,  o' = o /
        (sqrt(v) + 1e-10)

    with one v for each output, and the norms those of the matrix.

    Args:
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        beta: decay of the average of the gradients, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the norm, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nesterov: use Nesterov momentum.
        preconditioning: the norm that a matrix is divided by at first; see `orthogonalize`.
        bias_correction: correct averages for their start at zero; of the momentum alone.
        scaling: sigma by a name; see `orthogonalize`.
        consistent_rms: c of sigma = c sqrt(max(m, n)), >= 0; give scaling="none" with it.
        gram: take the steps on X alone: faster where one side is some times the other.
        matmul_dtype: dtype of the products, such as `"bfloat16"`; by default that of the computation.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform with the slots `mu` and `nu`, of which `nu` has a number for each output.

    Raises:
        ValueError: another name; at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, w = gradtx.scale_by_normuon(), {"kernel": jnp.ones((4, 3))}
        >>> tx.init(w)["slots"]["scale_by_normuon"]["nu"]["4x3"].shape
        (1, 3)

    References:
        Li et al., NorMuon: Making Muon more efficient and scalable, 2025, https://arxiv.org/abs/2510.05491.
    """
    ...
