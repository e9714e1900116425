"""Contra-Muon's direction: Muon's, less some of the momentum that it was made of."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norms_along
from gradtx.core.numerics import divide, divide_again
from gradtx.core.polar import Normalization
from gradtx.core.products import conjugate_times
from gradtx.core.roots import MATRIX
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, NonNegative, ScalarOrSchedule, check_count
from gradtx.transforms.muon import OfMomentum
from gradtx.transforms.orthogonalize import NsCoeffs, Scaled, Scaling

LEAST = 1e-10
"""The least norm that the authors divide by."""


class ScaleByContraMuon(OfMomentum, Scaled, name="scale_by_contra_muon"):
    """o = pol(m);  u = o - contra m / |m|_2;  sigma u |o| / |u|."""

    contra: NonNegative
    power_steps: int
    views: Any

    def check(self) -> None:
        super().check()
        check_count(f"{self.name}: power_steps", self.power_steps)

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        if not x.size:
            return x, slots
        o = self.polar(x)
        least = np.array(LEAST, o.real.dtype)
        # Over its largest element, so that no square is out of range.
        unit = divide(x, jnp.max(jnp.abs(x), axis=MATRIX, keepdims=True))
        u = o - self.contra * divide_again(unit, self._largest(unit))
        sizes = norms_along(o, MATRIX), jnp.maximum(norms_along(u, MATRIX), least)
        return self.scaled(u * divide(*sizes)), slots

    def _largest(self, x: jax.Array) -> jax.Array:
        """The largest singular value of each matrix, about."""
        v = jnp.ones((len(x), x.shape[-2], 1), x.dtype)
        for _ in range(self.power_steps):
            v = x @ conjugate_times(x, v)
            v = divide(v, norms_along(v, MATRIX))
        return norms_along(conjugate_times(x, v), MATRIX)


@builds(ScaleByContraMuon)
def scale_by_contra_muon(
    ns_coeffs: NsCoeffs = "newton_schulz",
    ns_steps: int = 12,
    beta: ScalarOrSchedule = 0.95,
    contra: ScalarOrSchedule = 0.2,
    eps: ScalarOrSchedule = 1e-7,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    power_steps: int = 5,
    preconditioning: Normalization = "frobenius",
    bias_correction: bool = False,
    scaling: Scaling = "jordan",
    consistent_rms: ScalarOrSchedule | None = None,
    gram: bool = False,
    matmul_dtype: DType | None = None,
    views: Views = None,
) -> Transform:
    """Replaces gradients by their orthogonalized momentum, less a part of the momentum, at the same norm.

        m = beta m + (1 - beta) g           m^ = beta m + (1 - beta) g, or m without Nesterov
        o = pol(m^)                         u = sigma (o - c m^ / |m^|_2) |o| / |o - c m^ / |m^|_2|

    with pol and sigma as in `orthogonalize`. The largest singular value becomes 1 - c, a small one stays 1,
    before all are brought to the norm of o.

    Args:
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        beta: decay of the average of the gradients, in [0, 1).
        contra: the part of the momentum, of norm 1, that is taken away, >= 0; c above.
        eps: added to the norm, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nesterov: use Nesterov momentum.
        power_steps: the steps of a power iteration that measure |m|_2, from ones on the side of the inputs,
            >= 1.
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
        >>> tx, w = gradtx.scale_by_contra_muon(), {"kernel": jnp.diag(jnp.array([4.0, 1.0]))}
        >>> u = tx.update(w, tx.init(w))[0]["kernel"]
        >>> f"{u[0, 0]:.2f} {u[1, 1]:.2f}"
        '0.91 1.08'

    References:
        KellerJordan, modded-nanogpt, `records/track_3_optimization`, the record of 2026-05-01,
        https://github.com/KellerJordan/modded-nanogpt.
    """
    ...
