"""ADOPT: the second moment of before divides the gradient, and momentum comes after."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, divide_again, number_dtype, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, NonNegative, ScalarOrSchedule


def fourth_root(step: Any) -> Any:
    """The bound of the paper: `step^(1/4)`."""
    return jnp.sqrt(jnp.sqrt(jnp.asarray(step, number_dtype())))


class ScaleByAdopt(Rule, name="scale_by_adopt"):
    """d = g / max(sqrt(v), eps), clipped;  m = b1 m + (1 - b1) d;  u = m;  then v = b2 v + (1 - b2) |g|²."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    mu_dtype: DTypeName
    nesterov: bool
    use_clipping: bool
    clip_value_fn: NonNegative

    mu = Slot(dtype="mu_dtype", mean=True)
    nu = Slot(real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        # The first gradient makes the second moment alone, and moves nothing.
        none, one = jnp.zeros_like(now.t), jnp.ones_like(now.t)
        return {"is_later": jnp.where(now.step == 0, none, one)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        d = divide_again(g, jnp.maximum(sqrt(slots.nu), self.eps))
        if self.use_clipping:
            d = _clipped(d, self.clip_value_fn, g)
        later = leaf.is_later > 0
        d = jnp.where(later, d, jnp.zeros_like(d))
        mu = self.b1.mix(slots.mu, d)
        nu = jnp.where(later, self.b2.mix(slots.nu, abs_sq(g)), abs_sq(g))
        return self.b1.mix(mu, d) if self.nesterov else mu, {"mu": mu, "nu": nu}


def _clipped(d: jax.Array, bound: jax.Array, g: jax.Array) -> jax.Array:
    """At most a bound in size; a gradient that is not finite stays to be found."""
    if jnp.iscomplexobj(d):
        return divide(bound * d, jnp.maximum(jnp.abs(d), bound))
    # Nothing is added to what is finite, and NaN to what is not. XLA makes one pass of what is used once.
    return jnp.clip(d, -bound, bound) + (g - g)


@builds(ScaleByAdopt)
def scale_by_adopt(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.9999,
    eps: ScalarOrSchedule = 1e-6,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: ScalarOrSchedule = fourth_root,
) -> Transform:
    """Rescales each gradient by the second moment of those before it, and averages what comes out.

    For each element, from the second update on, with c the bound:

        d = g / max(sqrt(v), eps),  |d| at most c        v is of the gradients before
        m = b1 m + (1 - b1) d                            u = m, or b1 m + (1 - b1) d with Nesterov
        v = b2 v + (1 - b2) |g|²

    The first gradient makes v = |g|² and moves nothing. Without the correlation of g and v it converges with
    every b2, which Adam does not.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: the least denominator, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nesterov: use Nesterov momentum.
        use_clipping: whether to bound the elements of what is averaged; d above.
        clip_value_fn: the bound, >= 0; a function of the step, from 0, by default its fourth root.

    Returns:
        A transform with the slots `mu` and `nu`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, g = gradtx.scale_by_adopt(), jnp.float32(2.0)
        >>> u, state = tx.update(g, tx.init(g))
        >>> float(u), round(float(tx.update(g, state)[0]), 6)
        (0.0, 0.1)

    References:
        Taniguchi et al., ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate, 2024,
        https://arxiv.org/abs/2411.02853.
    """
    ...
