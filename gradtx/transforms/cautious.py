"""Cautious updates: only where the direction and the gradient agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.combine import Parallel
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import agree, real_dtype
from gradtx.core.shards import over_shards
from gradtx.core.spec.arguments import factory
from gradtx.transforms.elementary import identity


class BesideGradient(Parallel):
    """A direction, and the gradient that it was made of, joined into an update."""

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return self.name, self.members[:1], dict(vars(self.how))


def beside_gradient(name: str, how: Any, inner: Any) -> Transform:
    """A transform that joins what `inner` makes of a gradient with the gradient."""
    if isinstance(inner, Composed) and TURNING & set(_names(inner)):
        raise ValueError(
            f"{name}: it compares the signs of a direction and of the gradient, and {inner!r} has a "
            f"learning rate, which turns the sign. Write chain({name}(direction), "
            f"scale_by_learning_rate(rate)), with a direction such as scale_by_adam()."
        )
    return BesideGradient(name, how, (inner, identity()))


TURNING = {"scale_by_learning_rate", "negate", "scale_by_hyperball"}
"""What turns the sign of a direction."""


def _names(tx: Composed) -> Iterator[str]:
    """The names of all transforms in one, also of those that its wrappers run."""
    for unit in tx.program.units:
        yield getattr(unit.transform, "name", "")
    for part in tx.program.wrapped.values():
        if isinstance(part, Composed):
            yield from _names(part)


@dataclasses.dataclass(frozen=True)
class _Agreeing:
    """The direction where it agrees with the gradient, scaled up by what it leaves out of a leaf."""

    axis_name: str | tuple[str, ...] | None

    def __call__(self, u: jax.Array, g: jax.Array) -> jax.Array:
        # What is not a number stays to be found.
        kept = ~(agree(u, g) <= 0)
        count = over_shards(jnp.sum(kept, dtype=real_dtype(u.dtype)), self.axis_name, u, g)
        size = over_shards(u.size, self.axis_name, u, g)
        return jnp.where(kept, u / jnp.maximum(count / float(max(size, 1)), 1e-3), jnp.zeros_like(u))


@factory
def cautious(
    inner: AnyTransform,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Lets a direction pass where it agrees with the gradient in sign, and scales what is left up.

        u = inner(g)          u <- u 1[u g > 0] / max(the part of the elements where u g > 0, 1e-3)

    The part is that of a leaf. Of complex elements the real part of conj(u) g tells whether they agree.

    Args:
        inner: a transform that makes a direction, of any library, such as `scale_by_adam()`: the learning
            rate, which turns the sign, and weight decay come after it. With one that descends, which only a
            transform of gradtx tells, nothing would be left.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform with the state of `inner`.

    Raises:
        ValueError: `inner` has a learning rate.
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.chain(gradtx.cautious(gradtx.trace(0.5)), gradtx.scale_by_learning_rate(0.1))
        >>> state = tx.init(jnp.zeros(2))
        >>> _, state = tx.update(jnp.array([4.0, 4.0]), state)
        >>> print(tx.update(jnp.array([-1.0, 1.0]), state)[0])
        [-0.  -0.6]

    References:
        Liang et al., Cautious Optimizers: Improving Training with One Line of Code, 2024,
        https://arxiv.org/abs/2411.16085.
    """
    return beside_gradient("cautious", _Agreeing(axis_name), inner)
