"""MoMo: momentum whose step ends where a model of the averaged loss meets its lower bound."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot, WholeScalar
from gradtx.core.engine.scope import Leaf, Now, Scope, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, inner_product, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, Number, Rate, ScalarOrSchedule
from gradtx.transforms.loss_value import value_of


class FromModel(Rule):
    """The step that the averages of losses and gradients, and of their products with parameters, give."""

    learning_rate: Rate
    lower_bound: Number
    weight_decay: NonNegative
    adapt_lower_bound: bool
    axis_name: str | tuple[str, ...] | None

    needs = ("params", "value")

    exp_avg = Slot(mean=True)
    barf, gamma = WholeScalar(), WholeScalar()
    lb = WholeScalar(init=lambda rule: rule.lower_bound)

    def _start(self, now: Now, share: jax.Array, rho: jax.Array) -> dict[str, jax.Array]:
        """What the averages begin with: how much of now they take in, and the sum of their weights."""
        barf = Decay(share).mix(now.barf, value_of(now, self.name))
        return {"share": share, "rho": rho, "barf": jnp.where(jnp.isfinite(barf), barf, now.barf)}

    def _average(self, g: jax.Array, slots: Slots, leaf: Leaf) -> jax.Array:
        return Decay(leaf.share).mix(slots.exp_avg, g)

    def _direction(self, average: jax.Array, g: jax.Array, slots: Slots, leaf: Leaf) -> jax.Array:
        """The average in the metric of the rule."""
        return average

    def measure(self, g: jax.Array, slots: Slots, leaf: Leaf) -> dict[str, jax.Array]:
        average = self._average(g, slots, leaf)
        direction = self._direction(average, g, slots, leaf)
        return {
            "along": inner_product(g, leaf.param),
            "ahead": inner_product(average, leaf.param),
            "size": inner_product(average, direction),
        }

    def conclude(self, totals: Scope, now: Now) -> dict[str, jax.Array]:
        ahead, size = totals.ahead, totals.size
        rate, rho, zero = self.learning_rate, now.rho, jnp.zeros_like(now.gamma)
        gamma = Decay(now.share).mix(now.gamma, totals.along)
        w = 1 + rate * self.weight_decay
        bound = now.lb if self.adapt_lower_bound else self.lower_bound
        if self.adapt_lower_bound:
            cap = w * (now.barf - gamma) + ahead
            reset = jnp.maximum(cap / (2 * w * rho), self.lower_bound)
            bound = jnp.where(cap < w * rho * bound, reset, bound)
        reach = jnp.maximum(w * (now.barf - rho * bound - gamma) + ahead, zero)
        tau = jnp.minimum(rate / rho, divide(reach, size))
        if self.adapt_lower_bound:
            bound = jnp.maximum((now.barf - gamma + ahead - tau * size / 2) / rho, self.lower_bound)
        # A leaf that is not finite must not spoil what is of all leaves.
        sound = jnp.isfinite(gamma) & jnp.isfinite(ahead) & jnp.isfinite(size)
        kept = {"gamma": jnp.where(sound, gamma, now.gamma), "lb": jnp.where(sound, bound, now.lb)}
        return {**kept, "tau": jnp.where(sound, tau, zero), "w": w}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        average = self._average(g, slots, leaf)
        direction = self._direction(average, g, slots, leaf)
        decay = self.learning_rate * self.weight_decay * leaf.param
        return -(leaf.tau * direction + decay) / leaf.w, {"exp_avg": average}


class Momo(FromModel, name="momo"):
    """d averages g;  u = (theta - tau d) / (1 + eta lambda) - theta,  tau <= eta, by value."""

    beta: Decay

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        one = jnp.ones_like(now.t)
        return self._start(now, jnp.where(now.step == 0, one, self.beta.complement), one)


class MomoAdam(FromModel, name="momo_adam"):
    """d averages g;  u = (theta - tau d / D) / (1 + eta lambda) - theta,  D as Adam has it, tau by value."""

    b1: Decay
    b2: Decay
    eps: NonNegative

    exp_avg_sq = Slot(real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        start = self._start(now, self.b1.complement, self.b1.correction(now.t))
        return {**start, "of_sq": 1 / self.b2.correction(now.t)}

    def _direction(self, average: jax.Array, g: jax.Array, slots: Slots, leaf: Leaf) -> jax.Array:
        squares = self.b2.mix(slots.exp_avg_sq, abs_sq(g))
        return divide(average, sqrt(leaf.of_sq * squares) + self.eps)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        u, kept = super().apply(g, slots, leaf)
        return u, {**kept, "exp_avg_sq": self.b2.mix(slots.exp_avg_sq, abs_sq(g))}


@builds(Momo)
def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 0.9,
    lower_bound: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    adapt_lower_bound: bool = False,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """MoMo: momentum with a step size from the loss, at most the learning rate.

    With eta the learning rate, w = 1 + eta lambda, and averages by beta that start at their first value:

        d, f, c    average g, the loss, and <g, theta>
        tau        = min(eta, max(w (f - bound - c) + <d, theta>, 0) / ||d||²)
        u          = (theta - tau d) / w - theta

    The products and norms are over all leaves.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, the largest tau.
        beta: decay of the average of the gradients, in [0, 1).
        lower_bound: a lower bound of the loss.
        weight_decay: lambda, the strength of the weight decay, >= 0; proximal, divided by w.
        adapt_lower_bound: whether to raise the bound by what the model says, for a loss whose minimum is not
            known.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer with the slot `exp_avg` and the scalars `barf` (f), `gamma` (c) and `lb`, the bound;
        `update` needs the parameters and `value=`, the loss.

    Raises:
        ValueError: while tracing, a `value` that is no real scalar.
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> tx, theta = gradtx.momo(), jnp.array([3.0, 4.0])
        >>> value, g = jax.value_and_grad(lambda x: jnp.sum(x**2) / 2)(theta)
        >>> gradtx.apply_gradients(tx, g, tx.init(theta), theta, value=value)[0].tolist()
        [1.5, 2.0]

    References:
        Schaipp et al., MoMo: Momentum Models for Adaptive Learning Rates, 2023,
        https://arxiv.org/abs/2305.07583.
    """
    ...


@builds(MomoAdam)
def momo_adam(
    learning_rate: ScalarOrSchedule = 0.01,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    lower_bound: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    adapt_lower_bound: bool = False,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """MoMo in the metric of Adam: Adam with a step size from the loss, at most the learning rate.

    With eta the learning rate, w = 1 + eta lambda, rho = 1 - b1^t, and averages by b1 that start at 0:

        d, f, c    average g, the loss, and <g, theta>        D = sqrt(v / (1 - b2^t)) + eps, v as in Adam
        tau        = min(eta / rho, max(w (f - rho bound - c) + <d, theta>, 0) / <d, d / D>)
        u          = (theta - tau d / D) / w - theta

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, the largest tau.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        lower_bound: a lower bound of the loss.
        weight_decay: lambda, the strength of the weight decay, >= 0; proximal, divided by w.
        adapt_lower_bound: whether to raise the bound by what the model says, for a loss whose minimum is not
            known.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer with the slots `exp_avg` and `exp_avg_sq` and the scalars `barf` (f), `gamma` (c) and
        `lb`, the bound; `update` needs the parameters and `value=`, the loss.

    Raises:
        ValueError: while tracing, a `value` that is no real scalar.
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx
        >>> gradtx.momo_adam(0.1, weight_decay=0.01)
        momo_adam(0.1, weight_decay=0.01)

    References:
        Schaipp et al., MoMo: Momentum Models for Adaptive Learning Rates, 2023,
        https://arxiv.org/abs/2305.07583.
    """
    ...
