"""Adam's direction with a step that shrinks where the second moment lags behind the gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import excess, root_mean_square
from gradtx.core.numerics import Decay, abs_sq, divide, divide_again, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, NonNegative, PositiveLimit, ScalarOrSchedule


class ScaleByStableAdam(Rule, name="scale_by_stable_adam"):
    """u = (Adam's + lambda theta) / max(1, RMS / threshold),  RMS² the mean of |g|² / max(v^, eps²)."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    threshold: PositiveLimit
    mu_dtype: DTypeName
    nu_dtype: DTypeName
    weight_decay: NonNegative
    axis_name: str | tuple[str, ...] | None

    needs = ("params",)

    mu = Slot(dtype="mu_dtype", mean=True)
    nu = Slot(dtype="nu_dtype", real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"of_mu": 1 / self.b1.correction(now.t), "of_nu": 1 / self.b2.correction(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu, nu = self.b1.mix(slots.mu, g), self.b2.mix(slots.nu, abs_sq(g))
        root = sqrt(leaf.of_nu * nu)
        size = root_mean_square(divide_again(g, jnp.maximum(root, self.eps)), self.axis_name)
        divisor, shrink = excess(size, self.threshold)
        u = divide(leaf.of_mu * mu, root + self.eps) + self.weight_decay * leaf.param
        return shrink * u / divisor, {"mu": mu, "nu": nu}


@builds(ScaleByStableAdam)
def scale_by_stable_adam(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-6,
    threshold: ScalarOrSchedule = 1.0,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Adam's direction, smaller where gradients are larger than their second moment knows of.

        u = (m^ / (sqrt(v^) + eps) + lambda theta) / max(1, RMS / threshold)
        RMS² = mean of |g|² / max(v^, eps²)

    with the moments m^ and v^ of `scale_by_adam`, and the mean over a leaf: update clipping, as in Adafactor.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        threshold: the bound of the root mean square of each leaf, > 0; here of rescaled gradients.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nu_dtype: dtype to store the second moment in; by default the parameter's, at least float32.
        weight_decay: lambda, the strength of the weight decay, >= 0; it is divided too, as a smaller learning
            rate makes a smaller decay.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform with the slots `mu` and `nu`; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, g = gradtx.scale_by_stable_adam(eps=0.0), jnp.array([1.0, -1.0])
        >>> _, state = tx.update(g, tx.init(g), g)
        >>> abs(tx.update(100 * g, state, g)[0]).round(2).tolist()
        [0.5299999713897705, 0.5299999713897705]

    References:
        Wortsman et al., Stable and low-precision training for large-scale vision-language models, 2023,
        https://arxiv.org/abs/2304.13013.
    """
    ...
