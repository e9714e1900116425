"""Updates at a root mean square of 1."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import root_mean_square
from gradtx.core.numerics import divide_again
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


class NormalizeByBlockRms(Rule, name="normalize_by_block_rms"):
    """u = g / (rms(g) + eps)."""

    eps: NonNegative
    axis_name: str | tuple[str, ...] | None

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return divide_again(g, root_mean_square(g, self.axis_name) + self.eps), slots


@builds(NormalizeByBlockRms)
def normalize_by_block_rms(
    eps: ScalarOrSchedule = 1e-8,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Divides the update of each leaf by its root mean square: u = g / (sqrt(mean(|g|²)) + eps).

    Args:
        eps: added to the denominator, >= 0.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform without slots.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, b = gradtx.normalize_by_block_rms(), {"bias": jnp.array([3.0, -3.0])}
        >>> tx.update(b, tx.init(b))[0]["bias"].tolist()
        [1.0, -1.0]
    """
    ...
