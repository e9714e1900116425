"""Rprop: a step size for each element, which grows while the gradient keeps its sign."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


class ScaleByRprop(Rule, name="scale_by_rprop"):
    """s = clip(s eta_plus), or clip(s eta_minus) where the sign has changed;  u = s sign(g)."""

    learning_rate: NonNegative
    eta_minus: NonNegative
    eta_plus: NonNegative
    min_step_size: NonNegative
    max_step_size: NonNegative

    supports_complex = False

    step_sizes = Slot(init=lambda rule, param: rule.learning_rate, nonnegative=True)
    prev_updates = Slot()

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        # The product of the two might underflow.
        agreement = jnp.sign(g) * jnp.sign(slots.prev_updates)
        factor = jnp.where(agreement > 0, self.eta_plus, self.eta_minus)
        changed = jnp.clip(slots.step_sizes * factor, self.min_step_size, self.max_step_size)
        sizes = jnp.where(agreement == 0, slots.step_sizes, changed)
        u = jnp.where(agreement < 0, jnp.zeros_like(g), sizes * jnp.sign(g))
        return u, {"step_sizes": sizes, "prev_updates": u}


@builds(ScaleByRprop)
def scale_by_rprop(
    learning_rate: ScalarOrSchedule,
    eta_minus: ScalarOrSchedule = 0.5,
    eta_plus: ScalarOrSchedule = 1.2,
    min_step_size: ScalarOrSchedule = 1e-6,
    max_step_size: ScalarOrSchedule = 50.0,
) -> Transform:
    """Moves each element by a size of its own, whatever the size of the gradient.

    For each element, with p the product of the signs of this gradient and the one before:

        s = clip(s eta_plus) where p > 0, clip(s eta_minus) where p < 0, s where p = 0
        u = s sign(g), or 0 where p < 0; the next p is 0 then

    It is for gradients without noise. Optax gives the step before in place of this one.

    Args:
        learning_rate: the first size of the steps, >= 0; it is no factor of the later ones.
        eta_minus: the factor of a size where the sign has changed, usually below 1.
        eta_plus: the factor of a size where the sign has stayed, usually above 1.
        min_step_size: the smallest size that a change may give, >= 0.
        max_step_size: the largest size that a change may give, >= 0.

    Returns:
        A transform with slots `step_sizes` and `prev_updates`.

    Raises:
        TypeError: at `init`, a complex leaf, for which it has no meaning.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_rprop(1.0)
        >>> _, state = tx.update(jnp.array([3.0, -0.1]), tx.init(jnp.zeros(2)))
        >>> tx.update(jnp.array([2.0, 5.0]), state)[0].round(3).tolist()
        [1.2000000476837158, 0.0]

    References:
        Riedmiller and Braun, A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP
        Algorithm, 1993.
    """
    ...
