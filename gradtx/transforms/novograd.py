"""NovoGrad's second moment, one number for each leaf."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norm_squared
from gradtx.core.numerics import Decay, divide_again, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, Fraction, NonNegative, ScalarOrSchedule


class ScaleByNovograd(Rule, name="scale_by_novograd"):
    """v = b2 v + (1 - b2) ||g||²;  m = b1 m + g / (sqrt(v + eps_root) + eps) + weight_decay theta;  u = m."""

    b1: Fraction
    b2: Decay
    eps: NonNegative
    eps_root: NonNegative
    weight_decay: NonNegative
    mu_dtype: DTypeName
    axis_name: str | tuple[str, ...] | None

    needs = ("params",)

    mu = Slot(dtype="mu_dtype", mean=True)
    nu = Slot(real=True, shape=lambda rule, shape: (), mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        one = jnp.ones_like(self.b2.complement)
        return {"share": jnp.where(now.step == 0, one, self.b2.complement)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        nu = Decay(leaf.share).mix(slots.nu, norm_squared([g], self.axis_name))
        direction = divide_again(g, sqrt(nu + self.eps_root) + self.eps) + self.weight_decay * leaf.param
        mu = self.b1 * slots.mu + direction
        return mu, {"mu": mu, "nu": nu}


@builds(ScaleByNovograd)
def scale_by_novograd(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.25,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mu_dtype: DType | None = None,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Divides each leaf's gradient by a running norm, and adds momentum.

        v = b2 v + (1 - b2) ||g||², one number a leaf; ||g||² at the first step
        m = b1 m + g / (sqrt(v + eps_root) + eps) + lambda theta        u = m

    Args:
        b1: the decay of the velocity, in [0, 1].
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; it passes through the velocity.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform with the slots `mu` and `nu`, the latter a number for each leaf; `update` needs the
        parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.scale_by_novograd(), jnp.zeros(2)
        >>> tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0].round(6).tolist()
        [0.6000000238418579, 0.800000011920929]

    References:
        Ginsburg et al., Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep
        Networks, 2019, https://arxiv.org/abs/1905.11286.
    """
    ...
