"""Updates of a given norm."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Now, Scope, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, Number, ScalarOrSchedule


class Normalize(Rule, name="normalize"):
    """u = g / ||g||."""

    axis_name: str | tuple[str, ...] | None

    measures_norm = True

    def conclude(self, totals: Scope, now: Now) -> dict[str, jax.Array]:
        size = totals.squares.norm()
        return {"factor": self._factor(size, jnp.ones_like(size))}

    def _factor(self, size: jax.Array, wanted: jax.Array) -> jax.Array:
        """What gives the wanted norm to what has a size, 1 where that is 0 or not finite."""
        has_size, one = (size > 0) & jnp.isfinite(size), jnp.ones_like(size)
        return jnp.where(has_size, wanted / jnp.where(has_size, size, one), one)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return leaf.factor * g, slots


class NormalizeByUpdateNorm(Normalize, name="normalize_by_update_norm"):
    """u = scale_factor g / (||g|| + eps)."""

    scale_factor: Number
    eps: NonNegative

    def conclude(self, totals: Scope, now: Now) -> dict[str, jax.Array]:
        size = totals.squares.norm() + self.eps
        return {"factor": self._factor(size, self.scale_factor)}


@builds(NormalizeByUpdateNorm)
def normalize_by_update_norm(
    scale_factor: ScalarOrSchedule = 1.0,
    eps: ScalarOrSchedule = 1e-6,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Gives all updates together a norm: u = scale_factor g / (||g|| + eps), the norm over the whole tree.

    A tree with an Inf or NaN stays as it is, so that the bad leaf can be found, and so does a tree of zeros.

    Args:
        scale_factor: the norm of what comes out.
        eps: added to the norm, >= 0.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would have a norm of its own.

    Returns:
        A transform without slots.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.normalize_by_update_norm(10.0, eps=0.0)
        >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0].tolist()
        [6.0, 8.0]
    """
    ...


@builds(Normalize)
def normalize(*, axis_name: str | tuple[str, ...] | None = None) -> Transform:
    """Gives all updates together the norm 1: u = g / ||g||, the norm over the whole tree.

    A tree with an Inf or NaN stays as it is, so that the bad leaf can be found, and so does a tree of zeros.

    Args:
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would have a norm of its own.

    Returns:
        A transform without slots.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.normalize()
        >>> [round(float(x), 6) for x in tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0]]
        [0.6, 0.8]
    """
    ...
