"""Scaling: by a number, a schedule or the learning rate."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.combine import chain
from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import builds, factory
from gradtx.core.spec.fields import Number, Rate, ScalarOrSchedule


class Scale(Rule, name="scale"):
    """u = step_size g."""

    step_size: Number

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return self.step_size * g, slots


@builds(Scale)
def scale(step_size: ScalarOrSchedule) -> Transform:
    """Multiplies the updates by a number: u = step_size g.

    The sign is yours: a chain that ends with `scale(1e-3)` climbs. To descend use `scale(-1e-3)`, or
    `scale_by_learning_rate(1e-3)`.

    Args:
        step_size: any number, or a schedule.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale(-0.5)
        >>> tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0].tolist()
        [-0.5, -0.5]
    """
    ...


class ScaleBySchedule(Rule, name="scale_by_schedule"):
    """u = step_size_fn(step) g."""

    step_size_fn: Number

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return self.step_size_fn * g, slots


@builds(ScaleBySchedule)
def scale_by_schedule(step_size_fn: ScalarOrSchedule) -> Transform:
    """Multiplies the updates by a schedule: u = step_size_fn(step) g, with the step from 0.

    Args:
        step_size_fn: a schedule of this library or any function of the step; its sign is kept.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_schedule(gradtx.linear_schedule(1.0, 0.0, 2))
        >>> state = tx.init(jnp.float32(0.0))
        >>> for _ in range(3):
        ...     u, state = tx.update(jnp.float32(1.0), state)
        ...     print(float(u))
        1.0
        0.5
        0.0
    """
    ...


class ScaleByLearningRate(Rule, name="scale_by_learning_rate"):
    """u = -learning_rate g."""

    learning_rate: Rate
    flip_sign: bool

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        factor = -self.learning_rate if self.flip_sign else self.learning_rate
        return factor * g, slots


@factory
def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule | None = None, *, flip_sign: bool = True
) -> Transform:
    """Multiplies the updates by the negative learning rate: u = -learning_rate g.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; update t, from 0, uses `learning_rate(t)`.
            With None the updates pass unchanged, sign included.
        flip_sign: False for u = +learning_rate g.

    Returns:
        A transform without slots.

    Raises:
        ValueError: a constant rate is negative.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_learning_rate(0.1)
        >>> gradtx.hyperparams(tx.init(jnp.ones(2)))
        {'learning_rate': 0.1}
    """
    if learning_rate is None:
        return chain()
    return ScaleByLearningRate(learning_rate=learning_rate, flip_sign=flip_sign)
