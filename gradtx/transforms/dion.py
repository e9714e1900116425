"""Dion's direction: an orthogonalized momentum of low rank."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.matrix_rule import MatrixRule, MatrixSlot
from gradtx.core.compose.rule import Key
from gradtx.core.decompositions import orthonormal
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norms_along
from gradtx.core.numerics import Decay, divide
from gradtx.core.products import conjugate_times, times_conjugate
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule, check_count
from gradtx.core.spec.spec import show
from gradtx.transforms.eigenbases import is_unset
from gradtx.transforms.noise import normal_of_each, typed_key


def _of_short(rule: Any, rows: int, columns: int) -> tuple[int, int]:
    """The shape of Q: the shorter side by the rank."""
    shorter, of = min(rows, columns), rule.rank_multiple_of
    # A fraction as 0.07 is a little more as a float, which is no rank more.
    rank = of * math.ceil(rule.rank_fraction * shorter / of * (1 - 1e-12))
    return shorter, min(rank, shorter)


class ScaleByDion(MatrixRule, name="scale_by_dion"):
    """b = m + g;  P = orth(b Q);  R = b* P;  m = b - (1 - beta) P R*;  u = sqrt(n / m) P Q*, Q of R."""

    rank_fraction: float
    beta: Decay
    eps: NonNegative
    rank_multiple_of: int
    power_iters: int
    key: Any
    views: Any

    mu, basis = MatrixSlot(), MatrixSlot(of=_of_short)
    rng_key = Key(lambda rule: typed_key(rule.key))

    def check(self) -> None:
        is_number = isinstance(self.rank_fraction, int | float) and not isinstance(self.rank_fraction, bool)
        if not is_number or not 0 < self.rank_fraction <= 1:
            raise ValueError(
                f"{self.name}: rank_fraction must be a float in (0, 1], got {show(self.rank_fraction)}."
            )
        check_count(f"{self.name}: rank_multiple_of", self.rank_multiple_of)
        check_count(f"{self.name}: power_iters", self.power_iters)

    def is_due(self, slots: Slots, stack: Stack) -> jax.Array:
        return is_unset(slots.basis)[:, 0, 0]

    def renew(self, x: jax.Array, slots: Slots, stack: Stack) -> Any:
        drawn = normal_of_each(stack.keys, slots.basis.shape[1:], x.real.dtype)
        return {"basis": drawn.astype(slots.basis.dtype)}

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        rows, columns = x.shape[-2:]
        if not x.size:
            return x, slots
        # P is of the longer side; of a square matrix it is of the outputs.
        turned = rows <= columns
        b = slots.mu + x
        b = b.mT if turned else b
        r, p = slots.basis, b
        for _ in range(self.power_iters):
            p = orthonormal(b @ r)
            r = conjugate_times(b, p)
        nothing = jnp.all(b == 0, axis=(-2, -1), keepdims=True)
        p, r = jnp.where(nothing, 0, p), jnp.where(nothing, slots.basis, r)
        mu = b - self.beta.complement * times_conjugate(p, r)
        basis = divide(r, norms_along(r, (-2,)) + self.eps)
        u = math.sqrt(columns / rows) * times_conjugate(p, basis)
        mu, u = (mu.mT, u.mT) if turned else (mu, u)
        return u, {"mu": mu, "basis": basis}


@builds(ScaleByDion)
def scale_by_dion(
    rank_fraction: float = 1.0,
    beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    *,
    rank_multiple_of: int = 1,
    power_iters: int = 1,
    key: int | jax.Array = 0,
    views: Views = None,
) -> Transform:
    """Replaces gradients by a part of low rank of their momentum, with singular values of about one size.

        b = m + g               P = orth(b Q)           R = b* P
        m = b - (1 - beta) P R*         Q = R / (|R| + eps), column by column          u = sqrt(c / r) P Q*

    for matrices of r inputs and c outputs, turned where r <= c, so that P is of the longer side. Q has as
    many columns as the rank, and is drawn at the first gradient; orth gives the orthogonal factor of QR. What
    of b is not in P R* stays in m, so that with a low rank nothing is lost. A matrix of zeros does not move.

    Args:
        rank_fraction: the rank, as a part of the shorter side, in (0, 1]; rounded up.
        beta: decay of the momentum, in [0, 1); of what was used of it.
        eps: added to the norm, >= 0; of each column of Q.
        rank_multiple_of: the rank is rounded up to a multiple of it, >= 1, if the side is as long.
        power_iters: how often P and R are computed, each from the one before, >= 1.
        key: an int, a `jax.random.key`, or a key's raw data; for the first Q.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform with the slots `mu` and `basis`, of each matrix; the state has `rng_key`.

    Raises:
        ValueError: a `rank_fraction` that is none, a count that is no int >= 1; at init, a leaf that has no
            view as a matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, w = gradtx.scale_by_dion(rank_fraction=0.5), {"kernel": jnp.ones((4, 2))}
        >>> [f"{abs(x):.2f}" for x in tx.update(w, tx.init(w))[0]["kernel"][0]]
        ['0.25', '0.25']

    References:
        Ahn et al., Dion: Distributed Orthonormalized Updates, 2025, https://arxiv.org/abs/2504.05295; the
        rule is that of the authors' code, https://github.com/microsoft/dion.
    """
    ...
