"""Distance over gradients (DoG), leaf by leaf."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norm
from gradtx.core.numerics import abs_sq, divide, sqrt
from gradtx.core.shards import over_shards
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, NonNegative, Number, Positive, ScalarOrSchedule
from gradtx.transforms.from_start import larger, only_if_finite


def _one_number(rule: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return ()


class ScaleByDistanceOverGradients(Rule, name="scale_by_distance_over_gradients"):
    """u = s r / sqrt(G + eps) g,  r a leaf's largest distance from its start,  G the sum of ||g||²."""

    reps_rel: Positive
    eps: NonNegative
    param_dtype: DTypeName
    global_scale: Number
    axis_name: str | tuple[str, ...] | None

    needs = ("params",)

    init_params = Slot(dtype="param_dtype", init=lambda rule, param: param)
    max_dist = Slot(real=True, shape=_one_number, nonnegative=True)
    grad_sum_of_squares = Slot(real=True, shape=_one_number, nonnegative=True)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        least = self.reps_rel * (1 + self._norm(slots.init_params))
        known = jnp.maximum(slots.max_dist, least)
        distance = larger(self._norm(leaf.param - slots.init_params), known)
        grads = slots.grad_sum_of_squares + over_shards(jnp.sum(abs_sq(g)), self.axis_name, g)
        rate = only_if_finite(grads, divide(distance, sqrt(grads + self.eps)))
        # A gradient with an Inf or NaN stays to be found, one whose square is out of range moves nothing.
        rate = jnp.where(jnp.isfinite(self._norm(g)), rate, jnp.ones_like(rate))
        kept = {"max_dist": distance, "grad_sum_of_squares": larger(grads, slots.grad_sum_of_squares)}
        return self.global_scale * (rate * g), {"init_params": slots.init_params, **kept}

    def _norm(self, x: jax.Array) -> jax.Array:
        return norm([x], axis_name=self.axis_name)


@builds(ScaleByDistanceOverGradients)
def scale_by_distance_over_gradients(
    reps_rel: ScalarOrSchedule = 1e-6,
    eps: ScalarOrSchedule = 1e-8,
    param_dtype: DType | None = "float32",
    global_scale: ScalarOrSchedule = 1.0,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Scales each leaf's gradient by DoG's rate for this leaf: the distance so far over that of gradients.

        r = max(r, ||theta - theta0||)        G = G + ||g||²        u = global_scale r / sqrt(G + eps) g

    r starts at reps_rel (1 + ||theta0||). `scale_by_dog` has one rate for all leaves.

    Args:
        reps_rel: the first distance, as a part of 1 + ||theta0||, > 0.
        eps: added inside the root, >= 0.
        param_dtype: dtype to store the first parameters in; None for the parameter's, at least float32.
        global_scale: a factor of all updates.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform whose `update` needs the parameters, with the slots `init_params`, and `max_dist` and
        `grad_sum_of_squares`, a number for each leaf.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, p = gradtx.scale_by_distance_over_gradients(reps_rel=0.1, eps=0.0), jnp.array([0.0])
        >>> print(f"{tx.update(jnp.array([5.0]), tx.init(p), p)[0][0]:.2f}")
        0.10

    References:
        Ivgi et al., DoG is SGD's Best Friend, 2023, https://arxiv.org/abs/2302.12022.
    """
    ...
