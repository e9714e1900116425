"""Shampoo: gradients between the roots of two matrices of second moments, at the size of another method."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.matrix_rule import MatrixRule, MatrixSlot
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Now, Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.views import Cut
from gradtx.core.norms import norms_along
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.products import conjugate_times, times_conjugate
from gradtx.core.roots import MATRIX, RootMethod, inverse_root
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, NonNegativeSteps, Period, ScalarOrSchedule, check_count
from gradtx.core.spec.spec import show
from gradtx.transforms.eigenbases import is_no_side, of_columns, of_rows
from gradtx.transforms.refreshes import is_turn, turns

Grafting = Literal["adagrad", "rmsprop", "adam", "sgd"]

LEAST = 1e-16
"""What the authors add to the norm that a direction is divided by."""


def _of_graft(rule: Any, rows: int, columns: int) -> tuple[int, int] | None:
    return None if rule.grafting in (None, "sgd") else (rows, columns)


class ScaleByShampoo(MatrixRule, name="scale_by_shampoo"):
    """L = b2 L + (1 - b2) g g*, R = b2 R + (1 - b2) g* g;  u = L^-p m R^-p, at the norm of another method."""

    b1: Decay
    b2: Decay | None
    eps: NonNegative
    precondition_frequency: Period
    start_preconditioning_step: NonNegativeSteps | None
    block_size: int
    grafting: str | None
    graft_beta: Decay
    graft_eps: NonNegative
    exponent: float
    root: str
    bias_correction: bool
    stagger: bool
    views: Any

    mu, graft_nu = MatrixSlot(mean=True), MatrixSlot(real=True, of=_of_graft, mean=True, nonnegative=True)
    left, root_left = MatrixSlot(of=of_rows), MatrixSlot(of=of_rows)
    right, root_right = MatrixSlot(of=of_columns), MatrixSlot(of=of_columns)

    sees_index = True

    def check(self) -> None:
        for key, kinds in (("grafting", (None, *get_args(Grafting))), ("root", get_args(RootMethod))):
            if getattr(self, key) not in kinds:
                listed, given = ", ".join(map(show, kinds)), show(getattr(self, key))
                raise ValueError(f"{self.name}: {key} must be one of {listed}, got {given}.")
        check_count(f"{self.name}: block_size", self.block_size)
        if isinstance(self.exponent, bool) or not isinstance(self.exponent, int | float):
            raise TypeError(f"{self.name}: exponent must be a float, got {show(self.exponent)}.")
        if not 0 < self.exponent < math.inf:
            raise ValueError(f"{self.name}: exponent must be finite and > 0, got {show(self.exponent)}.")
        whole = round(1 / self.exponent)
        if self.root == "newton" and (whole < 1 or abs(1 / self.exponent - whole) > 1e-9):
            raise ValueError(
                f"{self.name}: root='newton' takes an exponent of one over a whole number, such as 0.25, got "
                f"{show(self.exponent)}. Give root='eigen' for another one."
            )

    def cut(self, cut: Cut) -> Cut:
        return cut.within(self.block_size)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        one, t = jnp.ones_like(now.t), now.exact_t
        start = self.start_preconditioning_step
        start = self.precondition_frequency if start is None else start
        corrected = self.bias_correction
        of_sides = one if self.b2 is None or not corrected else self.b2.correction(now.t)
        return {
            **turns(t, self.precondition_frequency),
            "has_begun": t >= start,
            "of_mu": 1 / self.b1.correction(now.t) if corrected else one,
            "of_sides": 1 / of_sides,
            "of_graft": self.graft_beta.correction(now.t) if self.grafting == "adam" else one,
        }

    def observe(self, x: jax.Array, slots: Slots, stack: Stack) -> Any:
        return {
            "left": self._sides(slots.left, times_conjugate(x, x)),
            "right": self._sides(slots.right, conjugate_times(x, x)),
        }

    def is_due(self, slots: Slots, stack: Stack) -> jax.Array:
        begins = is_no_side(slots.root_left) & ~is_no_side(slots.left)
        return (stack.has_begun & (begins | is_turn(stack, self.stagger)))[:, 0, 0]

    def renew(self, x: jax.Array, slots: Slots, stack: Stack) -> Any:
        method: Any = self.root
        sides = {"root_left": slots.left, "root_right": slots.right}
        return {
            name: inverse_root(stack.of_sides * side, self.eps, self.exponent, method=method)
            for name, side in sides.items()
        }

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        new = {**vars(slots), "mu": self.b1.mix(slots.mu, x)}
        if slots.graft_nu is not None:
            nu, squares = slots.graft_nu, abs_sq(x)
            new["graft_nu"] = nu + squares if self.grafting == "adagrad" else self.graft_beta.mix(nu, squares)
        m = stack.of_mu * new["mu"]
        u = slots.root_left @ m @ slots.root_right
        first = m
        if self.grafting is not None:
            first = self._graft(m, new["graft_nu"], stack)
            least = np.array(LEAST, first.real.dtype)
            u = u * divide(norms_along(first, MATRIX), norms_along(u, MATRIX) + least)
        return jnp.where(stack.has_begun, u, first), {k: v for k, v in new.items() if v is not None}

    def _sides(self, old: jax.Array, new: jax.Array) -> jax.Array:
        return old + new if self.b2 is None else self.b2.mix(old, new)

    def _graft(self, m: jax.Array, nu: jax.Array | None, stack: Stack) -> jax.Array:
        """What the other method makes of the momentum."""
        return m if nu is None else divide(m, sqrt(nu / stack.of_graft) + self.graft_eps)


@builds(ScaleByShampoo)
def scale_by_shampoo(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule | None = 0.999,
    eps: ScalarOrSchedule = 1e-12,
    precondition_frequency: ScalarOrSchedule = 10,
    start_preconditioning_step: ScalarOrSchedule | None = None,
    *,
    block_size: int = 1024,
    grafting: Grafting | None = "adam",
    graft_beta: ScalarOrSchedule = 0.999,
    graft_eps: ScalarOrSchedule = 1e-8,
    exponent: float = 0.25,
    root: RootMethod = "eigen",
    bias_correction: bool = True,
    stagger: bool = True,
    views: Views = None,
) -> Transform:
    """Rescales the momentum of matrices by roots of the second moments of their rows and columns.

        L = b2 L + (1 - b2) g g*        R = b2 R + (1 - b2) g* g        m = b1 m + (1 - b1) g
        P = (L^ + eps I)^-p             Q = (R^ + eps I)^-p             u = P m^ Q |a| / (|P m^ Q| + 1e-16)

    with m^ = m / (1 - b1^t), L^ = L / (1 - b2^t), and R^ alike. `a` is what the method that is grafted would
    make of m^; it is the update until P and Q are there, which is at `start_preconditioning_step`. Every
    `precondition_frequency` updates they are computed anew; between these an update costs four products. A
    matrix is cut into blocks of at most `block_size`, each of which is one for itself.

    Args:
        b1: decay of the average of the gradients, in [0, 1).
        b2: decay of L and R, in [0, 1); None for their sums, as in the first paper.
        eps: added to the diagonals of L and R, >= 0.
        precondition_frequency: the number of updates from one root to the next, >= 1.
        start_preconditioning_step: the first update with roots; by default `precondition_frequency`.
        block_size: the longest side of a block that a matrix is cut into.
        grafting: the method whose size an update has; block by block. It is m^ / (sqrt(v) + graft_eps) with
            the sum v of squares (`"adagrad"`), their average (`"rmsprop"`), or that corrected for its start
            (`"adam"`), or m^ (`"sgd"`). None leaves the size as it is.
        graft_beta: decay of that method's average of squares, in [0, 1).
        graft_eps: added to its root, >= 0.
        exponent: the exponent of the roots, > 0; p above.
        root: how a root is computed: from eigenvalues, or `"newton"`, by products alone, which does without
            a decomposition where it converges and has no derivative backwards.
        bias_correction: correct averages for their start at zero; those of Shampoo itself.
        stagger: whether what costs much is computed matrix after matrix, so that no step has all of it; else
            for all at once, as the authors have it.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform with the slots `mu`, `graft_nu`, `left`, `right`, `root_left` and `root_right`, of each
        block.

    Raises:
        ValueError: another name, or a size that is none; at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, w = gradtx.scale_by_shampoo(block_size=4), {"kernel": jnp.ones((8, 3))}
        >>> tx.init(w)["slots"]["scale_by_shampoo"]["left"]["4x3"].shape
        (2, 4, 4)

    References:
        Gupta et al., Shampoo: Preconditioned Stochastic Tensor Optimization, 2018,
        https://arxiv.org/abs/1802.09568; Shi et al., A Distributed Data-Parallel PyTorch Implementation of
        the Distributed Shampoo Optimizer, 2023, https://arxiv.org/abs/2309.06497.
    """
    ...
