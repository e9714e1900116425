"""D-Adaptation of Adam: a step size that is estimated while it runs."""

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


class ScaleByDadaptAdam(Rule, name="scale_by_dadapt_adam"):
    """d = max(d, r / ((1 - b3) ||s||_1)), averages by b3 = sqrt(b2);  u = Adam's with rate d."""

    learning_rate: Rate
    b1: Decay
    b2: Decay
    eps: NonNegative
    estim_lr0: Positive
    weight_decay: NonNegative
    axis_name: str | tuple[str, ...] | None

    needs = ("params",)

    mu, nu = Slot(mean=True), Slot(real=True, mean=True, nonnegative=True)
    grad_sum = Slot()
    d = WholeScalar(init=lambda rule: rule.estim_lr0)
    r = WholeScalar()

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        correction = sqrt(self.b2.correction(now.t)) / self.b1.correction(now.t)
        return {"step": now.d * self.learning_rate * correction, "share": self.b2.root().complement}

    def _grad_sum(self, g: jax.Array, slots: Slots, leaf: Leaf) -> jax.Array:
        return Decay(leaf.share).mix(slots.grad_sum, leaf.step * g)

    def measure(self, g: jax.Array, slots: Slots, leaf: Leaf) -> dict[str, jax.Array]:
        weighted = divide(slots.grad_sum, sqrt(slots.nu) + self.eps)
        return {
            "progress": inner_product(g, weighted),
            "size": jnp.sum(jnp.abs(self._grad_sum(g, slots, leaf))),
        }

    def conclude(self, totals: Scope, now: Now) -> dict[str, jax.Array]:
        r = Decay(now.share).mix(now.r, now.step * totals.progress)
        estimate = divide(r, now.share * totals.size)
        return grown(now, r, estimate)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu, nu = self.b1.mix(slots.mu, leaf.step * g), self.b2.mix(slots.nu, abs_sq(g))
        u = -divide(mu, sqrt(nu) + self.eps) - leaf.step * (self.weight_decay * leaf.param)
        return u, {"mu": mu, "nu": nu, "grad_sum": self._grad_sum(g, slots, leaf)}


@builds(ScaleByDadaptAdam)
def scale_by_dadapt_adam(
    learning_rate: ScalarOrSchedule = 1.0,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    estim_lr0: ScalarOrSchedule = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """D-Adapted Adam's whole step, sign included; `gradtx.dadapt_adamw` is the same under Optax's signature.

    With d the estimate so far, d' the next one, b3 = sqrt(b2), eta the learning rate and
    l = d eta sqrt(1 - b2^t) / (1 - b1^t):

        r  = b3 r + (1 - b3) l <g, s / (sqrt(v) + eps)>          s and v of before
        s  = b3 s + (1 - b3) l g                                 d' = max(d, r / ((1 - b3) ||s||_1))
        m  = b1 m + (1 - b1) l g                                 v  = b2 v + (1 - b2) |g|²
        u  = -m / (sqrt(v) + eps) - lambda l theta

    The inner product and the norm are over all leaves.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, a factor of the estimated rate,
            usually 1 or a schedule that ends at 0.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        estim_lr0: the first estimate of the rate, > 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; decoupled, the learning rate multiplies
            it.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform with the slots `mu`, `nu`, `grad_sum` and the scalars `d` and `r`; `update` needs the
        parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.scale_by_dadapt_adam(), jnp.ones(2)
        >>> float(tx.init(params)["slots"]["scale_by_dadapt_adam"]["d"]) == jnp.float32(1e-6)
        Array(True, dtype=bool)

    References:
        Defazio and Mishchenko, Learning-Rate-Free Learning by D-Adaptation, 2023,
        https://arxiv.org/abs/2301.07733.
    """
    ...
