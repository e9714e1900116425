"""MARS: gradients whose variance is reduced by the gradient before."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import excess, norm
from gradtx.core.numerics import Decay
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


class ReduceVariance(Rule, name="reduce_variance"):
    """c = g + gamma b1 / (1 - b1) (g - g_before);  u = c / max(1, ||c||)."""

    b1: Decay
    gamma: NonNegative
    axis_name: str | tuple[str, ...] | None

    previous_gradient = Slot()

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"share": self.gamma * self.b1.value / self.b1.complement}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        c = g + leaf.share * (g - slots.previous_gradient)
        size = norm([c], axis_name=self.axis_name)
        divisor, shrink = excess(size, size.dtype.type(1))
        return shrink * c / divisor, {"previous_gradient": g}


@builds(ReduceVariance)
def reduce_variance(
    b1: ScalarOrSchedule = 0.95,
    gamma: ScalarOrSchedule = 0.025,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Corrects gradients by how they have changed, which makes the average of them less noisy: MARS.

        c = g + gamma b1 / (1 - b1) (g - g_before)          u = c / max(1, ||c||), the norm of each leaf

    g_before is the gradient of the step before, and 0 at first. It stands before any rule that averages by
    `b1`: before `scale_by_adam` it is `mars`, and before `ema(b1, debias=False)` and `sign` it is MARS-Lion.

    Args:
        b1: decay of the first moment, in [0, 1); that of the rule that follows.
        gamma: the strength of the correction, >= 0.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform with the slot `previous_gradient`.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.reduce_variance(b1=0.5, gamma=0.5)
        >>> _, state = tx.update(jnp.array([0.25]), tx.init(jnp.zeros(1)))
        >>> tx.update(jnp.array([0.5]), state)[0].tolist()
        [0.625]

    References:
        Yuan et al., MARS: Unleashing the Power of Variance Reduction for Training Large Models, 2024,
        https://arxiv.org/abs/2411.10438.
    """
    ...
