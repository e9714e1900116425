"""The atoms: one arithmetic step each, from which larger transforms are put together."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.combine import SetToZero, chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide_again
from gradtx.core.numerics import sign as phase
from gradtx.core.numerics import sqrt as safe_sqrt
from gradtx.core.spec.arguments import builds, factory
from gradtx.core.spec.fields import Number, ScalarOrSchedule


@factory
def identity() -> Transform:
    """Leaves the updates as they are: u = g.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.identity()
        >>> float(tx.update(jnp.float32(3.0), tx.init(jnp.float32(0.0)))[0])
        3.0
    """
    return chain()


@builds(SetToZero)
def set_to_zero() -> Transform:
    """Makes the updates zero: u = 0, also where g is NaN.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.set_to_zero()
        >>> tx.update(jnp.array([1.0, jnp.nan]), tx.init(jnp.zeros(2)))[0].tolist()
        [0.0, 0.0]
    """
    ...


class Square(Rule, name="square"):
    """u = |g|²."""

    gives_real = True

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return abs_sq(g), slots


@builds(Square)
def square() -> Transform:
    """Squares the magnitudes: u = |g|², real also for complex leaves.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.square()
        >>> tx.update(jnp.array([-3.0, 2.0]), tx.init(jnp.zeros(2)))[0].tolist()
        [9.0, 4.0]
    """
    ...


class Sqrt(Rule, name="sqrt"):
    """u = sqrt(g)."""

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return jnp.sqrt(g) if jnp.iscomplexobj(g) else safe_sqrt(g), slots


@builds(Sqrt)
def sqrt() -> Transform:
    """Takes the root of updates >= 0; its derivative at 0 counts as 0.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.chain(gradtx.square(), gradtx.sqrt())
        >>> tx.update(jnp.array([-3.0, 2.0]), tx.init(jnp.zeros(2)))[0].tolist()
        [3.0, 2.0]
    """
    ...


class Sign(Rule, name="sign"):
    """u = g / |g|."""

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return phase(g), slots


@builds(Sign)
def sign() -> Transform:
    """Keeps the sign: u = g / |g|, and 0 for 0; for complex leaves the phase.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.sign()
        >>> tx.update(jnp.array([-3.0, 0.0, 2.0]), tx.init(jnp.zeros(3)))[0].tolist()
        [-1.0, 0.0, 1.0]
    """
    ...


class Negate(Rule, name="negate"):
    """u = -g."""

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return -g, slots


@builds(Negate)
def negate() -> Transform:
    """Flips the sign, from a direction to go against to an update: u = -g.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.negate()
        >>> float(tx.update(jnp.float32(3.0), tx.init(jnp.float32(0.0)))[0])
        -3.0
    """
    ...


class Offset(Rule, name="offset"):
    """u = g + value."""

    value: Number

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return g + self.value, slots


@builds(Offset)
def offset(value: ScalarOrSchedule) -> Transform:
    """Adds a number to every element: u = g + value.

    Args:
        value: the number to add, such as the eps of a denominator.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.offset(0.5)
        >>> tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)))[0].tolist()
        [0.5, 0.5]
    """
    ...


class Debias(Rule, name="debias"):
    """u = g / (1 - decay^t)."""

    decay: Decay

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"correction": self.decay.correction(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return divide_again(g, leaf.correction), slots


@builds(Debias)
def debias(decay: ScalarOrSchedule) -> Transform:
    """Removes the influence of an average's zero start: u = g / (1 - decay^t), with t from 1.

    Args:
        decay: decay of the average, in [0, 1); that of the average before it in the chain.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.chain(gradtx.ema(0.9, debias=False), gradtx.debias(0.9))
        >>> round(float(tx.update(jnp.float32(3.0), tx.init(jnp.float32(0.0)))[0]), 5)
        3.0

    References:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, 2014, https://arxiv.org/abs/1412.6980.
    """
    ...


@recipe
def scale_by_sign() -> Transform:
    """Optax's name of `sign`: u = g / |g|, and 0 for 0.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_sign()
        >>> tx.update(jnp.array([-3.0, 2.0]), tx.init(jnp.zeros(2)))[0].tolist()
        [-1.0, 1.0]
    """
    return sign()
