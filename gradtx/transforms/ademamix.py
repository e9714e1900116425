"""AdEMAMix's rescaling: Adam with a second, much slower average of the gradient."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, NonNegative, ScalarOrSchedule


class ScaleByAdemamix(Rule, name="scale_by_ademamix"):
    """Adam with m2 = b3 m2 + (1 - b3) g:  u = (m1^ + alpha m2) / (sqrt(v^ + eps_root) + eps)."""

    b1: Decay
    b2: Decay
    b3: Decay
    alpha: NonNegative
    eps: NonNegative
    eps_root: NonNegative
    mu_dtype: DTypeName

    m1, m2 = Slot(dtype="mu_dtype", mean=True), Slot(dtype="mu_dtype", mean=True)
    nu = Slot(real=True, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"of_m1": 1 / self.b1.correction(now.t), "of_nu": 1 / self.b2.correction(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        m1, m2 = self.b1.mix(slots.m1, g), self.b3.mix(slots.m2, g)
        nu = self.b2.mix(slots.nu, abs_sq(g))
        u = divide(leaf.of_m1 * m1 + self.alpha * m2, sqrt(leaf.of_nu * nu + self.eps_root) + self.eps)
        return u, {"m1": m1, "m2": m2, "nu": nu}


@builds(ScaleByAdemamix)
def scale_by_ademamix(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 6.0,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: DType | None = None,
) -> Transform:
    """Rescales a mix of a fast and a slow average of the gradient by Adam's second moment.

    For each element, with t from 1:

        m1 = b1 m1 + (1 - b1) g             m1^ = m1 / (1 - b1^t)
        m2 = b3 m2 + (1 - b3) g
        v  = b2 v + (1 - b2) |g|²           v^  = v / (1 - b2^t)
        u  = (m1^ + alpha m2) / (sqrt(v^ + eps_root) + eps)

    The slow average has no bias correction: it starts at 0 and gains weight over about 1 / (1 - b3) updates.
    The official code takes its schedules of `b3` and `alpha` at t; here, as in Optax, a schedule is taken at
    t - 1, so give it one step ahead to reproduce those runs.

    Args:
        b1: decay of the first moment, in [0, 1); this moment is the fast average.
        b2: decay of the second moment, in [0, 1).
        b3: decay of the slow average, in [0, 1); the paper raises it by a schedule from `b1` to 0.9999, for
            stable early updates.
        alpha: weight of the slow average, >= 0; usually 4 to 10. The paper raises it linearly from 0. With 0
            the update is Adam's.
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32. Both averages have it; in a 16-bit dtype a slow average with `b3` near 1 loses most of
            what each gradient adds.

    Returns:
        A transform with slots `m1`, `m2` and `nu`. An element with zero gradient from the start gets 0.

    Raises:
        ValueError: a decay outside [0, 1), or a negative `alpha` or eps.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.chain(gradtx.scale_by_ademamix(b3=0.9), gradtx.scale_by_learning_rate(1e-3))
        >>> params = {"w": jnp.ones(3)}
        >>> updates, state = tx.update({"w": jnp.array([1.0, -2.0, 0.5])}, tx.init(params), params)
        >>> [round(float(u), 6) for u in updates["w"]]
        [-0.0016, 0.0016, -0.0016]

    References:
        Pagliardini, Ablin and Grangier, The AdEMAMix Optimizer: Better, Faster, Older, 2024,
        https://arxiv.org/abs/2409.03137.
    """
    ...
