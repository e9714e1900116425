"""CAME: Adafactor's direction, weighed by how far its average can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import excess, root_mean_square
from gradtx.core.numerics import Decay, abs_sq, divide_again, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, NonNegative, PositiveLimit, ScalarOrSchedule
from gradtx.transforms.factored import Factored, Shape, axes_to_factor, col_shape, row_shape


def _mean_along(shape_along: Callable[[Shape, tuple[int, int] | None], Shape | None]) -> Slot:
    """Means of squares along one of the axes that are factored."""
    return Slot(
        real=True,
        shape=lambda rule, shape: shape_along(shape, rule._axes(shape)),
        mean=True,
        nonnegative=True,
    )


class ScaleByCame(Rule, name="scale_by_came"):
    """d = g / sqrt(V), clipped;  m = b1 m + (1 - b1) d;  u = m / sqrt(S), S an average of (d - m)²."""

    b1: Decay
    b2: Decay
    b3: Decay
    eps1: NonNegative
    eps2: NonNegative
    clip_threshold: PositiveLimit
    min_dim_size_to_factor: int
    mu_dtype: DTypeName

    def _axes(self, shape: Shape) -> tuple[int, int] | None:
        return axes_to_factor(shape, self.min_dim_size_to_factor)

    mu = Slot(dtype="mu_dtype", mean=True)
    v_row, s_row = _mean_along(row_shape), _mean_along(row_shape)
    v_col, s_col = _mean_along(col_shape), _mean_along(col_shape)
    v = Slot(
        real=True, shape=lambda rule, shape: None if rule._axes(shape) else shape, mean=True, nonnegative=True
    )

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        squares, axes = abs_sq(g) + self.eps1, self._axes(g.shape)
        if axes is None:
            v = self.b2.mix(slots.v, squares)
            mu = self._average(slots.mu, divide_again(g, sqrt(v)))[0]
            return mu, {"mu": mu, "v": v, "v_row": None, "v_col": None, "s_row": None, "s_col": None}
        moment = Factored(slots.v_row, slots.v_col, axes).mixed(self.b2, squares)
        mu, residual = self._average(slots.mu, divide_again(g, moment.root()))
        trust = Factored(slots.s_row, slots.s_col, axes).mixed(self.b3, abs_sq(residual) + self.eps2)
        kept = {"v_row": moment.row, "v_col": moment.col, "s_row": trust.row, "s_col": trust.col}
        return divide_again(mu, trust.root()), {"mu": mu, "v": None, **kept}

    def _average(self, mu: jax.Array, direction: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The average of the clipped directions, and how far this one is from it."""
        divisor, shrink = excess(root_mean_square(direction), self.clip_threshold)
        direction = shrink * direction / divisor
        mu = self.b1.mix(mu, direction)
        return mu, direction - mu


@builds(ScaleByCame)
def scale_by_came(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    eps1: ScalarOrSchedule = 1e-30,
    eps2: ScalarOrSchedule = 1e-16,
    clip_threshold: ScalarOrSchedule = 1.0,
    min_dim_size_to_factor: int = 1,
    mu_dtype: DType | None = None,
) -> Transform:
    """Rescales gradients as Adafactor does, and their average by how much they differ from it.

        V = b2 V + (1 - b2) (|g|² + eps1)
        d = g / sqrt(V),  d <- d / max(1, rms(d) / clip_threshold)
        m = b1 m + (1 - b1) d
        S = b3 S + (1 - b3) (|d - m|² + eps2)           u = m / sqrt(S)

    Of V and S only the means of rows and of columns are kept, R and C, and V = R C / mean(R), for the two
    largest axes of a leaf; further axes are a batch. A leaf with fewer axes keeps all of V, and u = m. No
    average is corrected for its start at 0.

    Args:
        b1: decay of the first moment, in [0, 1); here of rescaled gradients.
        b2: decay of the second moment, in [0, 1).
        b3: decay of the average of squared distances, in [0, 1).
        eps1: added to the squared gradients, >= 0.
        eps2: added to the squared distances, >= 0.
        clip_threshold: the largest root mean square of a direction, > 0; infinity for none.
        min_dim_size_to_factor: the smallest axis that is worth factoring.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.

    Returns:
        A transform with the slots `mu`, and `v_row`, `v_col`, `s_row` and `s_col`, or `v`, for each leaf.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> state = gradtx.scale_by_came().init(jnp.zeros((4, 3)))
        >>> [(name, x.shape) for name, x in sorted(state["slots"]["scale_by_came"].items()) if x is not None]
        [('mu', (4, 3)), ('s_col', (4,)), ('s_row', (3,)), ('v_col', (4,)), ('v_row', (3,))]

    References:
        Luo et al., CAME: Confidence-guided Adaptive Memory Efficient Optimization, 2023,
        https://arxiv.org/abs/2307.02047.
    """
    ...
