"""SPlus: the sign of the momentum in the eigenbases of Shampoo's preconditioner."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.matrix_rule import MatrixSlot
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Now, Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, sign
from gradtx.core.products import identity_like
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, Period, ScalarOrSchedule, check_count
from gradtx.transforms.eigenbases import (
    OfEigenbases,
    back,
    bases_and_sides,
    eigenbases,
    into,
    is_no_basis,
    present,
    with_sides,
)
from gradtx.transforms.refreshes import turns


class ScaleBySplus(OfEigenbases, name="scale_by_splus"):
    """u = Q_L sign(Q_L* m Q_R) Q_R*, with the eigenvectors of L = b2 L + (1 - b2) g g*, and of R alike."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    inverse_every: Period
    max_precond_dim: int
    views: Any

    mu = MatrixSlot(mean=True)

    def check(self) -> None:
        check_count(f"{self.name}: max_precond_dim", self.max_precond_dim)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return turns(now.exact_t - 1, self.inverse_every)

    def renew(self, x: jax.Array, slots: Slots, stack: Stack) -> Any:
        _, sides = bases_and_sides(slots)
        left, right = eigenbases(jax.tree.map(lambda side: side + self.eps * identity_like(side), sides))
        return present(basis_left=left, basis_right=right)

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        mu = self.b1.mix(slots.mu, x)
        bases: Any = tuple(
            None if q is None else jnp.where(is_no_basis(q), identity_like(q), q)
            for q in (slots.basis_left, slots.basis_right)
        )
        new = with_sides({**present(**vars(slots)), "mu": mu}, x, self.b2)
        return back(sign(into(mu, bases)), bases), new


@builds(ScaleBySplus)
def scale_by_splus(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-30,
    inverse_every: ScalarOrSchedule = 100,
    max_precond_dim: int = 10_000,
    *,
    stagger: bool = True,
    views: Views = None,
) -> Transform:
    """Replaces the gradients of matrices by the sign of their momentum in the eigenbases of Shampoo.

        m = b1 m + (1 - b1) g           u = Q_L sign(Q_L* m Q_R) Q_R*
        L = b2 L + (1 - b2) g g*        R = b2 R + (1 - b2) g* g          after the update

    with Q_L and Q_R the eigenvectors of L + eps I and R + eps I, computed after the first update and whenever
    `inverse_every` divides the number of the update; for the first they are the identity.

    Args:
        b1: decay of the average of the gradients, in [0, 1).
        b2: decay of L and R, in [0, 1).
        eps: added to the diagonals of L and R, >= 0.
        inverse_every: the number of updates from one basis to the next, >= 1.
        max_precond_dim: a side that is longer has no basis.
        stagger: whether what costs much is computed matrix after matrix, so that no step has all of it; else
            for all at once, as the authors have it.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform with the slots `mu`, `left`, `right`, `basis_left` and `basis_right`, of each matrix.

    Raises:
        ValueError: `max_precond_dim` is no int >= 1; at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, w = gradtx.scale_by_splus(), {"kernel": jnp.ones((4, 3))}
        >>> tx.update(w, tx.init(w))[0]["kernel"][0].tolist()
        [1.0, 1.0, 1.0]

    References:
        Frans et al., A Stable Whitening Optimizer for Efficient Neural Network Training, 2025,
        https://arxiv.org/abs/2506.07254.
    """
    ...
