"""Clipping: by value, by the norm of the whole tree, by the root mean square of a leaf."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.protocol import Updates
from gradtx.core.engine.scope import Leaf, Now, Scope, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import Squares, excess
from gradtx.core.norms import norm as norm_of
from gradtx.core.numerics import is_trainable, number_dtype, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Limit, PositiveLimit, ScalarOrSchedule


class Clip(Rule, name="clip"):
    """u = max(-max_delta, min(max_delta, g))."""

    max_delta: Limit

    supports_complex = False

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return jnp.clip(g, -self.max_delta, self.max_delta), slots


@builds(Clip)
def clip(max_delta: ScalarOrSchedule) -> Transform:
    """Clips every element to [-max_delta, max_delta]. A NaN stays NaN.

    Args:
        max_delta: the bound of each element, >= 0.

    Returns:
        A transform without slots.

    Raises:
        TypeError: at `init`, a complex leaf, for which it has no meaning.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.clip(1.0)
        >>> tx.update(jnp.array([-3.0, 0.5]), tx.init(jnp.zeros(2)))[0].tolist()
        [-1.0, 0.5]
    """
    ...


class ClipByGlobalNorm(Rule, name="clip_by_global_norm"):
    """u = g min(1, max_norm / ||g||)."""

    max_norm: Limit
    axis_name: str | tuple[str, ...] | None

    measures_norm = True
    reports: ClassVar[Any] = {"clip_fraction": lambda concluded: concluded["factor"] < 1}

    def conclude(self, totals: Scope, now: Now) -> dict[str, jax.Array]:
        bound = self.max_norm.astype(totals.squares.total.dtype)
        factor, shrink = totals.squares.clip_factors(bound)
        return {"factor": factor, "shrink": shrink}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return leaf.factor * (leaf.shrink * g), slots


@builds(ClipByGlobalNorm)
def clip_by_global_norm(
    max_norm: ScalarOrSchedule, *, axis_name: str | tuple[str, ...] | None = None
) -> Transform:
    """Scales all updates down together when their norm is too large.

        u = g min(1, max_norm / ||g||),   ||g||² = sum |g|² over the whole tree, in at least float32

    A tree with an Inf or NaN is not clipped: the leaves keep their values, so that the bad one can be found.
    A finite tree is clipped however large it is, even where its norm is too large for the dtype.

    Args:
        max_norm: the bound of the norm, >= 0; a gradient of zero stays zero.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be clipped by itself.
            Of them a leaf is summed over those over which it varies; where types do not say that, under
            `jax.pmap` and with `check_vma=False`, over all.

    Returns:
        A transform without slots.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.clip_by_global_norm(1.0)
        >>> u, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
        >>> [round(float(x), 6) for x in u]
        [0.6, 0.8]

    References:
        Pascanu, Mikolov and Bengio, On the difficulty of training Recurrent Neural Networks, 2012,
        https://arxiv.org/abs/1211.5063.
    """
    ...


class ClipByBlockRms(Rule, name="clip_by_block_rms"):
    """u = g / max(1, rms(g) / threshold)."""

    threshold: PositiveLimit
    axis_name: str | tuple[str, ...] | None

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        squares, one = Squares([g], axis_name=self.axis_name), jnp.ones_like(self.threshold)
        size = float(max(squares.size, 1))
        divisor, shrink = squares.then(
            lambda total: (jnp.maximum(one, sqrt(total / size) / self.threshold), one),
            lambda parts: excess(parts.mean(size).norm(), self.threshold),
        )
        return shrink * g / divisor, slots


@builds(ClipByBlockRms)
def clip_by_block_rms(
    threshold: ScalarOrSchedule,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Scales each leaf down when its root mean square is too large: u = g / max(1, rms(g) / threshold).

    A leaf with an Inf or NaN is left as it is.

    Args:
        threshold: the bound of the root mean square of each leaf, > 0.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform without slots.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.clip_by_block_rms(1.0)
        >>> tx.update(jnp.array([2.0, -2.0]), tx.init(jnp.zeros(2)))[0].tolist()
        [1.0, -1.0]

    References:
        Shazeer and Stern, Adafactor, 2018, https://arxiv.org/abs/1804.04235.
    """
    ...


def global_norm(updates: Updates) -> jax.Array:
    """The Euclidean norm of a whole tree, accumulated in at least float32: sqrt(sum |x|²).

    Args:
        updates: a tree of arrays; `None` counts as nothing.

    Returns:
        A real scalar, 0 for an empty tree, with gradient 0 at 0.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> float(gradtx.global_norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
        5.0
    """
    leaves = [jnp.asarray(x) for x in lv.flatten(updates)[0] if x is not None]
    return norm_of([x if is_trainable(x.dtype) else x.astype(number_dtype()) for x in leaves])
