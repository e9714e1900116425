"""Polyak's step size: how far the loss is from its minimum, over the squared norm of the gradient."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Now, Scope, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import divide, sqrt, usually
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Limit, NonNegative, Number, ScalarOrSchedule
from gradtx.core.spec.spec import show
from gradtx.transforms.loss_value import value_of

Variant = Literal["sps", "sps+"]


class ScaleByPolyak(Rule, name="scale_by_polyak"):
    """u = min((value - f_min) / (||g||² + eps), max_learning_rate) g."""

    f_min: Number
    max_learning_rate: Limit
    eps: NonNegative
    variant: str
    axis_name: str | tuple[str, ...] | None

    needs = ("value",)
    measures_norm = True

    def check(self) -> None:
        if self.variant not in get_args(Variant):
            raise ValueError(f"{self.name}: variant must be 'sps' or 'sps+', got {show(self.variant)}.")

    def conclude(self, totals: Scope, now: Now) -> dict[str, jax.Array]:
        squares = totals.squares.sum()
        gap = (value_of(now, self.name) - self.f_min).astype(squares.dtype)
        if self.variant == "sps+":
            gap = jnp.maximum(gap, jnp.zeros_like(gap))
        is_exact = usually((squares >= jnp.finfo(squares.dtype).tiny) & jnp.isfinite(squares))
        # Where the square is out of range, the gradient is divided by the root twice.
        root = jnp.maximum(totals.squares.norm(), sqrt(self.eps))
        moves, one = (root > 0) & jnp.isfinite(root), jnp.ones_like(root)
        at_once = jnp.minimum(divide(gap, squares + self.eps), self.max_learning_rate)
        twice = jnp.minimum(divide(gap, root), self.max_learning_rate * root)
        size = jnp.where(is_exact, at_once, twice)
        inverse = jnp.where(is_exact, one, divide(one, root))
        return {"size": jnp.where(moves, size, 0.0), "inverse": jnp.where(moves, inverse, 0.0)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return leaf.size * (leaf.inverse * g), slots


@builds(ScaleByPolyak)
def scale_by_polyak(
    f_min: ScalarOrSchedule = 0.0,
    max_learning_rate: ScalarOrSchedule = 1.0,
    eps: ScalarOrSchedule = 0.0,
    variant: Variant = "sps",
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Scales gradients by Polyak's step size, which is right for a loss that is known at its minimum.

        u = min((value - f_min) / (||g||² + eps), max_learning_rate) g

    The norm is over all leaves; a tree of zeros stays, and one with an Inf or NaN moves nothing.

    Args:
        f_min: the least value of the loss, or a lower bound of it.
        max_learning_rate: the largest step size, >= 0.
        eps: added to the squared norm, >= 0.
        variant: `"sps"`; or `"sps+"`, in which a loss below `f_min` moves nothing, and not backwards.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform without slots; `update` needs `value=`, the loss.

    Raises:
        ValueError: another `variant`; while tracing, a `value` that is no real scalar.
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, g = gradtx.scale_by_polyak(), jnp.array([3.0, 4.0])
        >>> [round(float(u), 6) for u in tx.update(g, tx.init(g), value=5.0)[0]]
        [0.6, 0.8]

    References:
        Loizou et al., Stochastic Polyak Step-size for SGD: An Adaptive Learning Rate for Fast Convergence,
        2020, https://arxiv.org/abs/2002.10542; Garrigos et al., Function Value Learning: Adaptive Learning
        Rates Based on the Polyak Stepsize and Function Splitting in ERM, 2023,
        https://arxiv.org/abs/2307.14528.
    """
    ...
