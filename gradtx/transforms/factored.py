"""Adafactor's parts: the factored second moment, and the scale of a parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import root_mean_square
from gradtx.core.numerics import Decay, abs_sq, bounded, cast, divide, divide_again, number_dtype, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule, StepNumber
from gradtx.core.spec.spec import show

Shape = tuple[int, ...]


def axes_to_factor(shape: Shape, least: int) -> tuple[int, int] | None:
    """The second largest axis and the largest, if there are two and both have so many elements or more."""
    if len(shape) < 2:
        return None
    second, first = (int(axis) for axis in np.argsort(shape, kind="stable")[-2:])
    return (second, first) if shape[second] >= least else None


def row_shape(shape: Shape, axes: tuple[int, int] | None) -> Shape | None:
    """The shape of the means along the largest axis; None without axes."""
    return None if axes is None else shape[: axes[1]] + shape[axes[1] + 1 :]


def col_shape(shape: Shape, axes: tuple[int, int] | None) -> Shape | None:
    """The shape of the means along the second largest axis; None without axes."""
    return None if axes is None else shape[: axes[0]] + shape[axes[0] + 1 :]


class Factored(NamedTuple):
    """Averages of the rows and of the columns of an array >= 0, of which row col / mean(row) is made.

    Attributes:
        row: the average along the largest of the two axes.
        col: the average along the other one.
        axes: the second largest axis and the largest.
    """

    row: jax.Array
    col: jax.Array
    axes: tuple[int, int]

    def mixed(self, decay: Decay, new: jax.Array) -> Factored:
        """The averages with one more array."""
        second, first = self.axes
        # One square that has overflowed would be in the mean of all rows, as infinity over infinity.
        row = bounded(decay.mix(self.row, jnp.mean(new, axis=first)))
        return Factored(row, bounded(decay.mix(self.col, jnp.mean(new, axis=second))), self.axes)

    def root(self) -> jax.Array:
        """The square root of what the averages stand for."""
        second, first = self.axes
        mean = bounded(jnp.mean(self.row, axis=second - (second > first), keepdims=True))
        return jnp.expand_dims(sqrt(divide(self.row, mean)), first) * jnp.expand_dims(sqrt(self.col), second)


class ScaleByFactoredRms(Rule, name="scale_by_factored_rms"):
    """V = V_row V_col / mean(V_row), averages of |g|² + epsilon;  u = g / sqrt(V)."""

    factored: bool
    decay_rate: NonNegative
    step_offset: StepNumber
    min_dim_size_to_factor: int
    epsilon: NonNegative
    decay_rate_fn: Any

    def _axes(self, shape: Shape) -> tuple[int, int] | None:
        return axes_to_factor(shape, self.min_dim_size_to_factor) if self.factored else None

    v_row = Slot(
        real=True, shape=lambda rule, shape: row_shape(shape, rule._axes(shape)), mean=True, nonnegative=True
    )
    v_col = Slot(
        real=True, shape=lambda rule, shape: col_shape(shape, rule._axes(shape)), mean=True, nonnegative=True
    )
    v = Slot(
        real=True, shape=lambda rule, shape: None if rule._axes(shape) else shape, mean=True, nonnegative=True
    )

    def check(self) -> None:
        if self.decay_rate_fn is not None and not callable(self.decay_rate_fn):
            raise TypeError(
                f"scale_by_factored_rms: decay_rate_fn must be a function of the step and of decay_rate, got "
                f"{show(self.decay_rate_fn)}."
            )

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        if self.decay_rate_fn is None:
            t = (now.exact_t - self.step_offset).value
            # A maximum has half of the derivative at 1, where it is that of an offset > 0.
            return {"complement": jnp.power(jnp.where(t > 1, t, 1.0), -self.decay_rate)}
        step = now.step - self.step_offset.value.astype(now.step.dtype)
        decay = jnp.asarray(self.decay_rate_fn(step, self.decay_rate))
        if decay.shape != ():
            raise ValueError(
                f"scale_by_factored_rms: decay_rate_fn must give a number, got shape {decay.shape}."
            )
        return {"complement": 1 - cast(decay, number_dtype())}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        decay, squares, axes = Decay(leaf.complement), abs_sq(g) + self.epsilon, self._axes(g.shape)
        if axes is None:
            v = decay.mix(slots.v, squares)
            return divide_again(g, sqrt(v)), {"v": v, "v_row": None, "v_col": None}
        moment = Factored(slots.v_row, slots.v_col, axes).mixed(decay, squares)
        return divide_again(g, moment.root()), {"v_row": moment.row, "v_col": moment.col, "v": None}


@builds(ScaleByFactoredRms)
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: ScalarOrSchedule = 0.8,
    step_offset: ScalarOrSchedule = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: ScalarOrSchedule = 1e-30,
    decay_rate_fn: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Transform:
    """Rescales gradients by a second moment that is stored as a row and a column.

    For a leaf whose two largest axes both have `min_dim_size_to_factor` elements or more:

        R = d_t R + (1 - d_t) mean_columns(|g|² + epsilon)      d_t = 1 - max(t - step_offset, 1)^-decay_rate
        C = d_t C + (1 - d_t) mean_rows(|g|² + epsilon)         u = g / sqrt(R C / mean(R))

    Other leaves keep a full second moment. Further axes are a batch.

    Args:
        factored: whether to factor second moments; False keeps them full.
        decay_rate: the exponent of the second moment's decay, >= 0; it is that of d_t above.
        step_offset: the step from which the second moment's decay counts; for a run that is continued with
            new moments.
        min_dim_size_to_factor: the smallest axis that is worth factoring.
        epsilon: added to the squared gradients, >= 0.
        decay_rate_fn: a function of the step and of `decay_rate` that gives the decay d_t; the step counts
            from 0, less `step_offset`. By default it is as above, which tends to 1; a bounded one keeps the
            moments moving.

    Returns:
        A transform with the slots `v_row` and `v_col`, or `v`, for each leaf.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> tx = gradtx.scale_by_factored_rms(min_dim_size_to_factor=2)
        >>> state = tx.init(jnp.zeros((4, 3)))
        >>> [x.shape for x in jax.tree.leaves(state["slots"])]
        [(4,), (3,)]

    References:
        Shazeer and Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, 2018,
        https://arxiv.org/abs/1804.04235.
    """
    ...


class ScaleByParamBlockRms(Rule, name="scale_by_param_block_rms"):
    """u = g max(rms(theta), min_scale)."""

    min_scale: NonNegative
    axis_name: str | tuple[str, ...] | None

    needs = ("params",)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return g * jnp.maximum(root_mean_square(leaf.param, self.axis_name), self.min_scale), slots


@builds(ScaleByParamBlockRms)
def scale_by_param_block_rms(
    min_scale: ScalarOrSchedule = 1e-3,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Makes steps relative to the size of each leaf: u = g max(rms(theta), min_scale).

    Args:
        min_scale: the least scale, >= 0; it lets a leaf of zeros move.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform without slots; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.scale_by_param_block_rms(), jnp.full(4, 2.0)
        >>> tx.update(jnp.ones(4), tx.init(params), params)[0].tolist()
        [2.0, 2.0, 2.0, 2.0]

    References:
        Shazeer and Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, 2018,
        https://arxiv.org/abs/1804.04235.
    """
    ...
