"""SPlus: the sign of the momentum in the eigenbases of Shampoo's preconditioner."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.matrix_rule import MatrixRule, MatrixSlot
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Now, Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, sign
from gradtx.core.polar import conjugate, identity_like
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, Period, ScalarOrSchedule, check_count
from gradtx.transforms.eigenbases import (
    back,
    eigenbasis,
    into,
    is_set,
    is_unset,
    may_begin,
    within_columns,
    within_rows,
)
from gradtx.transforms.refreshes import is_turn, turns


class ScaleBySplus(MatrixRule, name="scale_by_splus"):
    """u = Q_L sign(Q_L* m Q_R) Q_R*, with the eigenvectors of L = b2 L + (1 - b2) g g*, and of R alike."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    inverse_every: Period
    max_precond_dim: int
    stagger: bool
    views: Any

    mu = MatrixSlot()
    left, basis_left = MatrixSlot(of=within_rows), MatrixSlot(of=within_rows)
    right, basis_right = MatrixSlot(of=within_columns), MatrixSlot(of=within_columns)

    sees_index = True

    def check(self) -> None:
        check_count(f"{self.name}: max_precond_dim", self.max_precond_dim)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return turns(now.exact_t - 1, self.inverse_every)

    def is_due(self, slots: Slots, stack: Stack) -> jax.Array:
        bases, sides = (slots.basis_left, slots.basis_right), (slots.left, slots.right)
        due = (is_set(bases) & is_turn(stack, self.stagger)) | may_begin(bases, sides)
        return due[:, 0, 0]

    def renew(self, x: jax.Array, slots: Slots, stack: Stack) -> Any:
        sides = {"basis_left": slots.left, "basis_right": slots.right}
        return {
            name: eigenbasis(side + self.eps * identity_like(side))
            for name, side in sides.items()
            if side is not None
        }

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        mu = self.b1.mix(slots.mu, x)
        bases: Any = tuple(
            None if q is None else jnp.where(is_unset(q), identity_like(q), q)
            for q in (slots.basis_left, slots.basis_right)
        )
        new = {"mu": mu}
        if slots.left is not None:
            new |= {"left": self.b2.mix(slots.left, x @ conjugate(x)), "basis_left": slots.basis_left}
        if slots.right is not None:
            new |= {"right": self.b2.mix(slots.right, conjugate(x) @ x), "basis_right": slots.basis_right}
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
