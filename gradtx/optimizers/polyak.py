"""Gradient descent with Polyak's step size."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.transforms.polyak import Variant, scale_by_polyak
from gradtx.transforms.scale import scale_by_learning_rate


@recipe
def polyak_sgd(
    max_learning_rate: ScalarOrSchedule = 1.0,
    scaling: ScalarOrSchedule = 1.0,
    f_min: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 0.0,
    variant: Variant = "sps",
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Gradient descent with Polyak's step size, times `scaling`; see `scale_by_polyak`.

    Args:
        max_learning_rate: the largest step size, >= 0.
        scaling: a factor of each step, >= 0 or a schedule.
        f_min: the least value of the loss, or a lower bound of it.
        eps: added to the squared norm, >= 0.
        variant: `"sps"`; or `"sps+"`, in which a loss below `f_min` moves nothing, and not backwards.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer without slots; `update` needs `value=`, the loss.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> tx, theta = gradtx.polyak_sgd(), jnp.array([3.0, 4.0])
        >>> value, g = jax.value_and_grad(lambda x: jnp.sum(x**2) / 2)(theta)
        >>> gradtx.apply_gradients(tx, g, tx.init(theta), theta, value=value)[0].tolist()
        [1.5, 2.0]

    References:
        Loizou et al., Stochastic Polyak Step-size for SGD: An Adaptive Learning Rate for Fast Convergence,
        2020, https://arxiv.org/abs/2002.10542.
    """
    direction = scale_by_polyak(f_min, max_learning_rate, eps, variant, axis_name=axis_name)
    return chain(direction, scale_by_learning_rate(scaling))
