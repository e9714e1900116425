"""Fromage's step on a sphere around each leaf."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, Rate, ScalarOrSchedule
from gradtx.transforms.trust_ratio import trust_ratio


class ScaleByFromage(Rule, name="scale_by_fromage"):
    """theta + u = (theta - learning_rate ||theta|| / ||g|| g) / sqrt(1 + learning_rate²)."""

    learning_rate: Rate
    min_norm: NonNegative
    axis_name: str | tuple[str, ...] | None

    needs = ("params",)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        squared = self.learning_rate * self.learning_rate
        root = sqrt(1 + squared)
        # 1 / root - 1, without the difference of two numbers near 1.
        return {"along": -self.learning_rate / root, "inward": -squared / (root * (1 + root))}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        ratio = trust_ratio(g, leaf.param, self.min_norm, axis_name=self.axis_name)
        return leaf.along * (ratio * g) + leaf.inward * leaf.param, slots


@builds(ScaleByFromage)
def scale_by_fromage(
    learning_rate: ScalarOrSchedule,
    min_norm: ScalarOrSchedule = 1e-6,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Fromage's whole step, sign included; `gradtx.fromage` is the same as an optimizer.

        theta + u = (theta - eta ||theta|| / ||g|| g) / sqrt(1 + eta²)

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, a part of the leaf's own norm.
        min_norm: norms below it count as this, >= 0.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform without slots; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.scale_by_fromage(1.0), jnp.array([0.0, 1.0])
        >>> u, _ = tx.update(jnp.array([5.0, 0.0]), tx.init(params), params)
        >>> (params + u).round(4).tolist()
        [-0.707099974155426, 0.707099974155426]

    References:
        Bernstein et al., On the distance between two neural networks and the stability of learning, 2020,
        https://arxiv.org/abs/2002.03432.
    """
    ...
