"""Prodigy: Adam with a step size that is estimated from the distance travelled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot, WholeScalar
from gradtx.core.engine.scope import Leaf, Now, Scope, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, inner_product, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, Positive, Rate, ScalarOrSchedule
from gradtx.transforms.estimate import grown


class ScaleByProdigy(Rule, name="scale_by_prodigy"):
    """d = max(d, coef r / ||s||_1), from s += k g and r += k <g, theta0 - theta>;  u = Adam's with rate d."""

    learning_rate: Rate
    b1: Decay
    b2: Decay
    b3: Decay | None
    eps: NonNegative
    estim_lr0: Positive
    estim_lr_coef: NonNegative
    weight_decay: NonNegative
    safeguard_warmup: bool
    axis_name: str | tuple[str, ...] | None

    needs = ("params",)

    mu, nu = Slot(mean=True), Slot(real=True, mean=True, nonnegative=True)
    grad_sum = Slot()
    params0 = Slot(init=lambda rule, param: param)
    d = WholeScalar(init=lambda rule: rule.estim_lr0)
    r = WholeScalar()

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        correction = sqrt(self.b2.correction(now.t)) / self.b1.correction(now.t)
        step = now.d * self.learning_rate * correction
        relative = now.d / self.estim_lr0
        b3 = self.b3 or self.b2.root()
        return {
            "old_d": now.d,
            "step": step,
            "b3": b3.value,
            "gain": relative * (now.d if self.safeguard_warmup else step),
            "weight": relative * step,
        }

    def _grad_sum(self, g: jax.Array, slots: Slots, leaf: Leaf) -> jax.Array:
        return leaf.b3 * slots.grad_sum + leaf.gain * g

    def measure(self, g: jax.Array, slots: Slots, leaf: Leaf) -> dict[str, jax.Array]:
        way = slots.params0 - leaf.param
        return {
            "progress": inner_product(g, way),
            "size": jnp.sum(jnp.abs(self._grad_sum(g, slots, leaf))),
        }

    def conclude(self, totals: Scope, now: Now) -> dict[str, jax.Array]:
        r = now.b3 * now.r + now.weight * totals.progress
        estimate = self.estim_lr_coef * divide(r, totals.size)
        return grown(now, r, estimate)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        scaled = leaf.old_d * g
        mu, nu = self.b1.mix(slots.mu, scaled), self.b2.mix(slots.nu, abs_sq(scaled))
        direction = divide(mu, sqrt(nu) + leaf.d * self.eps) + self.weight_decay * leaf.param
        kept = {
            "mu": mu,
            "nu": nu,
            "grad_sum": self._grad_sum(g, slots, leaf),
            "params0": slots.params0,
        }
        return -leaf.step * direction, kept


@builds(ScaleByProdigy)
def scale_by_prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    b3: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-8,
    estim_lr0: ScalarOrSchedule = 1e-6,
    estim_lr_coef: ScalarOrSchedule = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    safeguard_warmup: bool = False,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Prodigy's whole step, sign included; `gradtx.prodigy` is the same under Optax's signature.

    With d the estimate so far, d' the next one, c = sqrt(1 - b2^t) / (1 - b1^t) and eta the learning rate:

        s  = b3 s + (d / d0) d eta c g
        r  = b3 r + (d / d0) d eta c <g, theta0 - theta>         d' = max(d, coef r / ||s||_1)
        m  = b1 m + (1 - b1) d g                                 v  = b2 v + (1 - b2) d² |g|²
        u  = -d eta c (m / (sqrt(v) + d' eps) + lambda theta)

    The inner product and the norm are over all leaves.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, a factor of the estimated rate,
            usually 1 or a schedule that ends at 0.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        b3: decay of the sums that the estimate is made from, in [0, 1); s and r above. sqrt(b2) by default.
        eps: added to the denominator, >= 0.
        estim_lr0: the first estimate of the rate, > 0; d0 above.
        estim_lr_coef: how eagerly the estimate grows, >= 0; coef above.
        weight_decay: lambda, the strength of the weight decay, >= 0; decoupled, the learning rate multiplies
            it.
        safeguard_warmup: leave the learning rate out of the estimate's denominator; s above. It is for
            schedules with a warmup.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform with the slots `mu`, `nu`, `grad_sum`, `params0` and the scalars `d` and `r`; `update`
        needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.scale_by_prodigy(), jnp.ones(2)
        >>> float(tx.init(params)["slots"]["scale_by_prodigy"]["d"]) == jnp.float32(1e-6)
        Array(True, dtype=bool)

    References:
        Mishchenko and Defazio, Prodigy: An Expeditiously Adaptive Parameter-Free Learner, 2023,
        https://arxiv.org/abs/2306.06101.
    """
    ...
