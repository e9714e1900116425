"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.matrix_rule import MatrixSlot
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Now, Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, Period, ScalarOrSchedule, check_count
from gradtx.transforms.eigenbases import (
    OfEigenbases,
    Pair,
    back,
    bases_and_sides,
    begun_or_turned,
    in_order,
    into,
    is_set,
    present,
    with_sides,
)
from gradtx.transforms.refreshes import turns


class ScaleBySoap(OfEigenbases, name="scale_by_soap"):
    """L = b L + (1 - b) g g*, R = b R + (1 - b) g* g;  u = Q_L adam(Q_L* g Q_R) Q_R*, Q of eigenvectors."""

    b1: Decay
    b2: Decay
    shampoo_beta: Decay
    eps: NonNegative
    precondition_frequency: Period
    max_precond_dim: int
    bias_correction: bool
    views: Any

    mu, nu = MatrixSlot(mean=True), MatrixSlot(real=True, mean=True, nonnegative=True)

    def check(self) -> None:
        check_count(f"{self.name}: max_precond_dim", self.max_precond_dim)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        factor = jnp.ones_like(now.t)
        if self.bias_correction:
            updates = jnp.maximum(now.step, 1)
            factor = sqrt(self.b2.correction(updates)) / self.b1.correction(updates)
        return {
            **turns(now.exact_t - 2, self.precondition_frequency),
            "is_first": now.step == 0,
            "factor": factor,
        }

    def renew(self, x: jax.Array, slots: Slots, stack: Stack) -> Any:
        bases, sides = bases_and_sides(slots)
        (left, right), (mu, nu) = begun_or_turned((bases, (slots.mu, slots.nu)), sides, _turn)
        return {"mu": mu, "nu": nu, **present(basis_left=left, basis_right=right)}

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        bases, _ = bases_and_sides(slots)
        # The first gradient makes the bases, and moves nothing.
        has = ~stack.is_first if bases == (None, None) else is_set(bases)
        turned = into(x, bases)
        mu = jnp.where(has, self.b1.mix(slots.mu, turned), slots.mu)
        nu = jnp.where(has, self.b2.mix(slots.nu, abs_sq(turned)), slots.nu)
        u = jnp.where(has, stack.factor * back(divide(mu, sqrt(nu) + self.eps), bases), 0)
        return u, with_sides({**present(**vars(slots)), "mu": mu, "nu": nu}, x, self.shampoo_beta)


def _turn(old: tuple[Pair, Any], sides: Pair) -> tuple[Pair, Any]:
    """New bases, which the moments follow."""
    bases, (mu, nu) = old
    new, nu = in_order((bases, nu), sides)
    return new, (into(back(mu, bases), new), nu)


@builds(ScaleBySoap)
def scale_by_soap(
    b1: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    shampoo_beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    precondition_frequency: ScalarOrSchedule = 10,
    max_precond_dim: int = 10_000,
    *,
    bias_correction: bool = True,
    stagger: bool = True,
    views: Views = None,
) -> Transform:
    """Rescales the gradients of matrices by Adam's moments in the eigenbasis of Shampoo's preconditioner.

    With Q_L and Q_R the eigenvectors of L and R, and g' = Q_L* g Q_R:

        m = b1 m + (1 - b1) g'        v = b2 v + (1 - b2) |g'|²        u = c Q_L (m / (sqrt(v) + eps)) Q_R*
        L = b L + (1 - b) g g*        R = b R + (1 - b) g* g           b = shampoo_beta, after the update

    where c = sqrt(1 - b2^t) / (1 - b1^t). The first gradient makes L, R and their eigenvectors, and its
    update is 0; t is 1 at the second. Every `precondition_frequency` updates Q becomes the orthogonal factor
    of L Q, whose columns are first ordered by diag(Q* L Q), with v; between these it costs nothing.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        shampoo_beta: decay of L and R, in [0, 1).
        eps: added to the denominator, >= 0.
        precondition_frequency: the number of updates from one basis to the next, >= 1.
        max_precond_dim: a side that is longer has no basis.
        bias_correction: correct averages for their start at zero; as Adam does.
        stagger: whether what costs much is computed matrix after matrix, so that no step has all of it; else
            for all at once, as the authors have it.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform with the slots `left`, `right`, `basis_left`, `basis_right`, `mu` and `nu`, of each
        matrix.

    Raises:
        ValueError: `max_precond_dim` is no int >= 1; at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, w = gradtx.scale_by_soap(), {"kernel": jnp.ones((4, 3))}
        >>> slots = tx.init(w)["slots"]["scale_by_soap"]
        >>> slots["left"]["4x3"].shape, slots["basis_right"]["4x3"].shape
        ((1, 4, 4), (1, 3, 3))

    References:
        Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, 2024,
        https://arxiv.org/abs/2409.11321.
    """
    ...
