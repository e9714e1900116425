"""KL-SOAP: SOAP whose two bases are learned from gradients that the other one has whitened."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.matrix_rule import MatrixSlot
from gradtx.core.decompositions import orthonormal
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Now, Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.products import conjugate_times, times_conjugate
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, Period, Positive, ScalarOrSchedule
from gradtx.transforms.eigenbases import (
    OfEigenbases,
    Pair,
    back,
    bases_and_sides,
    begun_or_turned,
    into,
    is_no_basis,
    of_columns,
    of_rows,
)
from gradtx.transforms.refreshes import turns

LEAST_BOUND, LARGEST_BOUND = 10, 4000
"""Between which the bound of one over the root of an eigenvalue lies, which is else the side's length."""


class ScaleByKlSoap(OfEigenbases, name="scale_by_kl_soap"):
    """L = b L + (1 - b) g R^-1 g* / n, R = b R + (1 - b) g* L^-1 g / m;  u = Q_L adam(Q_L* g Q_R) Q_R*."""

    b1: Decay
    b2: Decay
    shampoo_beta: Decay
    eps: NonNegative
    precondition_frequency: Period
    init_factor: Positive
    views: Any

    left, basis_left = MatrixSlot(of=of_rows), MatrixSlot(of=of_rows)
    right, basis_right = MatrixSlot(of=of_columns), MatrixSlot(of=of_columns)
    scale_left = MatrixSlot(real=True, of=lambda rule, rows, columns: (rows,))
    scale_right = MatrixSlot(real=True, of=lambda rule, rows, columns: (columns,))
    mu, nu = MatrixSlot(mean=True), MatrixSlot(real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return turns(now.exact_t - 2, self.precondition_frequency)

    def renew(self, x: jax.Array, slots: Slots, stack: Stack) -> Any:
        bases, sides = bases_and_sides(slots)
        (left, right), mu = begun_or_turned((bases, slots.mu), sides, _turn)
        return {"basis_left": left, "basis_right": right, "mu": mu}

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        begins = is_no_basis(slots.basis_left)
        # The first gradient makes the bases, and moves nothing.
        first = 1 / sqrt(self.init_factor)
        scales = tuple(jnp.where(begins[..., 0], first, s) for s in (slots.scale_left, slots.scale_right))
        bases, _ = bases_and_sides(slots)
        turned = into(x, bases)
        mu = jnp.where(begins, slots.mu, self.b1.mix(slots.mu, turned))
        nu = jnp.where(begins, slots.nu, self.b2.mix(slots.nu, abs_sq(turned)))
        u = jnp.where(begins, 0, back(divide(mu, sqrt(nu) + self.eps), bases))
        # What the other side's eigenvalues whiten.
        for_left = turned * jnp.expand_dims(scales[1], -2)
        for_right = turned * jnp.expand_dims(scales[0], -1)
        rows, columns = (float(max(n, 1)) for n in x.shape[-2:])
        a = jnp.where(begins, x, slots.basis_left @ for_left)
        b = jnp.where(begins, x, times_conjugate(for_right, slots.basis_right))
        sides = (
            self.shampoo_beta.mix(slots.left, times_conjugate(a, a) / columns),
            self.shampoo_beta.mix(slots.right, conjugate_times(b, b) / rows),
        )
        learned = (
            self._scale(scales[0], jnp.sum(abs_sq(for_left), axis=-1) / columns),
            self._scale(scales[1], jnp.sum(abs_sq(for_right), axis=-2) / rows),
        )
        scales = tuple(jnp.where(begins[..., 0], *both) for both in zip(scales, learned, strict=True))
        names = ("left", "right", "basis_left", "basis_right", "scale_left", "scale_right", "mu", "nu")
        return u, dict(zip(names, (*sides, *bases, *scales, mu, nu), strict=True))

    def _scale(self, old: jax.Array, new: jax.Array) -> jax.Array:
        """One over the root of the eigenvalues, which one more square enters; bounded as the authors do."""
        most = max(LEAST_BOUND, min(old.shape[-1], LARGEST_BOUND))
        value = self.shampoo_beta.mix(1 / (old * old), new)
        return 1 / sqrt(jnp.maximum(value, np.array(1 / most**2, value.dtype)))


def _turn(old: tuple[Pair, Any], sides: Pair) -> tuple[Pair, Any]:
    """One step of a power iteration, to which the momentum follows."""
    bases, mu = old
    new: Any = tuple(orthonormal(side @ basis) for side, basis in zip(sides, bases, strict=True))
    return new, into(back(mu, bases), new)


@builds(ScaleByKlSoap)
def scale_by_kl_soap(
    b1: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    shampoo_beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    precondition_frequency: ScalarOrSchedule = 10,
    *,
    init_factor: ScalarOrSchedule = 0.1,
    stagger: bool = True,
    views: Views = None,
) -> Transform:
    """Rescales the gradients of matrices by Adam's moments in bases that are learned from whitened ones.

    With Q_L and Q_R the eigenvectors of L and R, l and r their eigenvalues, and g' = Q_L* g Q_R, of m rows
    and n columns:

        mu = b1 mu + (1 - b1) g'                nu = b2 nu + (1 - b2) |g'|²
        u = Q_L (mu / (sqrt(nu) + eps)) Q_R*
        L = b L + (1 - b) g R^-1 g* / n         R = b R + (1 - b) g* L^-1 g / m
        l = b l + (1 - b) mean(|g'|² / r)       r = b r + (1 - b) mean(|g'|² / l)

    where R^-1 is Q_R diag(1 / r) Q_R*, b is `shampoo_beta`, and all on the right are of the step before. The
    first gradient makes L, R and their eigenvectors, l and r are `init_factor`, and its update is 0. 1 /
    sqrt(l) is at most the length of its side, and that no more than 4,000 and no less than 10. Every
    `precondition_frequency` updates Q becomes the orthogonal factor of L Q. Averages are not corrected for
    their start.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        shampoo_beta: decay of L and R, in [0, 1); and of l and r.
        eps: added to the denominator, >= 0.
        precondition_frequency: the number of updates from one basis to the next, >= 1.
        init_factor: the first eigenvalues, > 0.
        stagger: whether what costs much is computed matrix after matrix, so that no step has all of it; else
            for all at once, as the authors have it.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform with the slots `left`, `right`, `basis_left`, `basis_right`, `scale_left`, `scale_right`
        (1 / sqrt(l) and 1 / sqrt(r)), `mu` and `nu`, of each matrix.

    Raises:
        ValueError: at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, w = gradtx.scale_by_kl_soap(), {"kernel": jnp.ones((4, 3))}
        >>> tx.init(w)["slots"]["scale_by_kl_soap"]["scale_right"]["4x3"].shape
        (1, 3)

    References:
        Lin et al., Understanding and Improving Shampoo and SOAP via Kullback-Leibler Minimization, 2025,
        https://arxiv.org/abs/2509.03378.
    """
    ...
