"""SOAP-Muon's direction: a momentum, whitened in the eigenbases of Shampoo and then orthogonalized."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.matrix_rule import MatrixSlot
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Now, Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.polar import Normalization
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, NonNegative, Period, ScalarOrSchedule, check_count
from gradtx.transforms.eigenbases import (
    OfEigenbases,
    back,
    bases_and_sides,
    begun_or_turned,
    in_order,
    into,
    is_set,
    present,
    with_sides,
)
from gradtx.transforms.orthogonalize import NsCoeffs, Scaled, Scaling
from gradtx.transforms.refreshes import turns


class ScaleBySoapMuon(OfEigenbases, Scaled, name="scale_by_soap_muon"):
    """m' = Q_L* m Q_R;  v = b2 v + (1 - b2) |m'|²;  u = sigma pol(Q_L (m' / sqrt(v)) Q_R*)."""

    beta: Decay
    b2: Decay
    shampoo_beta: Decay
    nu_eps: NonNegative
    precondition_frequency: Period
    max_precond_dim: int
    nesterov: bool
    views: Any

    mu, nu = MatrixSlot(mean=True), MatrixSlot(real=True, mean=True, nonnegative=True)

    def check(self) -> None:
        super().check()
        check_count(f"{self.name}: max_precond_dim", self.max_precond_dim)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return turns(now.exact_t - 2, self.precondition_frequency)

    def renew(self, x: jax.Array, slots: Slots, stack: Stack) -> Any:
        bases, sides = bases_and_sides(slots)
        (left, right), nu = begun_or_turned((bases, slots.nu), sides, in_order)
        return present(basis_left=left, basis_right=right, nu=nu)

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        new = present(**vars(slots))
        new["mu"] = self.beta.mix(slots.mu, x)
        m = self.beta.mix(new["mu"], x) if self.nesterov else new["mu"]
        bases, _ = bases_and_sides(slots)
        has = is_set(bases)
        turned = into(m, bases)
        new["nu"] = jnp.where(has, self.b2.mix(slots.nu, abs_sq(turned)), slots.nu)
        whitened = back(divide(turned, jnp.maximum(sqrt(new["nu"]), self.nu_eps)), bases)
        return self.scaled(self.polar(jnp.where(has, whitened, m))), with_sides(new, x, self.shampoo_beta)


@builds(ScaleBySoapMuon)
def scale_by_soap_muon(
    ns_coeffs: NsCoeffs = "newton_schulz",
    ns_steps: int = 12,
    beta: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.9,
    shampoo_beta: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-14,
    nu_eps: ScalarOrSchedule = 1e-8,
    precondition_frequency: ScalarOrSchedule = 1,
    max_precond_dim: int = 10_000,
    *,
    nesterov: bool = True,
    preconditioning: Normalization = "schatten",
    scaling: Scaling = "jordan",
    consistent_rms: ScalarOrSchedule | None = None,
    gram: bool = False,
    matmul_dtype: DType | None = None,
    stagger: bool = True,
    views: Views = None,
) -> Transform:
    """Replaces gradients by their momentum, whitened in the eigenbases of Shampoo and orthogonalized.

    With Q_L and Q_R the eigenvectors of L and R:

        m = beta m + (1 - beta) g               m^ = beta m + (1 - beta) g, or m without Nesterov
        m' = Q_L* m^ Q_R                        v = b2 v + (1 - b2) |m'|²
        u = sigma pol(Q_L (m' / max(sqrt(v), nu_eps)) Q_R*)
        L = b L + (1 - b) g g*                  R = b R + (1 - b) g* g          b = shampoo_beta, afterwards

    with pol and sigma as in `orthogonalize`. The first update, which has no bases, is that of Muon. Averages
    are not corrected for their start. Every `precondition_frequency` updates Q becomes the orthogonal factor
    of L Q, whose columns are first ordered by diag(Q* L Q), with v. The record that this is from has
    `radial_brake` and `row_floor` behind it.

    Args:
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        beta: decay of the average of the gradients, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        shampoo_beta: decay of L and R, in [0, 1).
        eps: added to the norm, >= 0; of `"schatten"` the least sum that a root is taken of.
        nu_eps: the least root of the second moment, >= 0.
        precondition_frequency: the number of updates from one basis to the next, >= 1.
        max_precond_dim: a side that is longer has no basis.
        nesterov: use Nesterov momentum.
        preconditioning: the norm that a matrix is divided by at first; see `orthogonalize`.
        scaling: sigma by a name; see `orthogonalize`.
        consistent_rms: c of sigma = c sqrt(max(m, n)), >= 0; give scaling="none" with it.
        gram: take the steps on X alone; see `orthogonalize`.
        matmul_dtype: dtype of the products, such as `"bfloat16"`; by default that of the computation.
        stagger: whether what costs much is computed matrix after matrix, so that no step has all of it; else
            for all at once, as the authors have it.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform with the slots `left`, `right`, `basis_left`, `basis_right`, `mu` and `nu`, of each
        matrix.

    Raises:
        ValueError: another name, or `max_precond_dim` is no int >= 1; at init, a leaf that has no view as a
            matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.chain(gradtx.scale_by_soap_muon(), gradtx.radial_brake(), gradtx.row_floor())
        >>> w = {"kernel": jnp.diag(jnp.array([4.0, 1.0]))}
        >>> [f"{x:.2f}" for x in jnp.diag(tx.update(w, tx.init(w), w)[0]["kernel"])]
        ['1.53', '1.00']

    References:
        KellerJordan, modded-nanogpt, `records/track_3_optimization`, the record of 2026-06-19,
        https://github.com/KellerJordan/modded-nanogpt; after Vyas, SOAP-Muon, 2026,
        https://github.com/nikhilvyas/SOAP_MUON, which takes the polar factor in the bases.
    """
    ...
