"""Steps that keep the norm of a leaf, in the place of weight decay."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norm
from gradtx.core.numerics import divide
from gradtx.core.shards import over_shards, varying
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Rate, ScalarOrSchedule


class ScaleByHyperball(Rule, name="scale_by_hyperball"):
    """theta' = theta - eta g ||theta|| / ||g||;  u = theta' ||theta|| / ||theta'|| - theta."""

    learning_rate: Rate
    axis_name: str | tuple[str, ...] | None

    needs = ("params",)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        if over_shards(g.size, self.axis_name, g) <= 1 and not varying(g):
            return jnp.zeros_like(g), slots  # one number has nowhere to go
        size = self._norm(leaf.param)
        ratio = divide(size, self._norm(g))
        way = -self.learning_rate * jnp.where(jnp.isfinite(ratio), ratio, jnp.ones_like(ratio)) * g
        after = self._norm(leaf.param + way)
        shrink = jnp.where(jnp.isfinite(after), divide(size, after), jnp.ones_like(after))
        # The difference of the two, of which nothing cancels that is not small itself.
        return shrink * way + (shrink - 1) * leaf.param, slots

    def _norm(self, x: jax.Array) -> jax.Array:
        return norm([x], axis_name=self.axis_name)


@builds(ScaleByHyperball)
def scale_by_hyperball(
    learning_rate: ScalarOrSchedule,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Makes a step of a direction whose size is a part of the leaf's norm, and which keeps this norm.

        theta' = theta - eta u ||theta|| / ||u||            theta <- theta' ||theta|| / ||theta'||

    It stands at the end, in the place of a learning rate and of weight decay, behind any direction. It is for
    matrices: a leaf of zeros does not move, and neither does one of a single element.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, a part of the norm.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform without slots; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.chain(gradtx.scale_by_adam(), gradtx.scale_by_hyperball(0.1))
        >>> theta = jnp.array([[3.0, 4.0]])
        >>> theta, _ = gradtx.apply_gradients(tx, jnp.array([[1.0, -1.0]]), tx.init(theta), theta)
        >>> print(f"{jnp.linalg.norm(theta):.3f}")
        5.000

    References:
        Wen et al., Hyperball Optimization, 2025, and the optimizers MuonH and AdamH of Marin's Levanter.
    """
    ...
