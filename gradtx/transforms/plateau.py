"""A scale that is reduced when the loss has stopped to fall."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.rule import Rule, WholeScalar
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numbers.steps import Steps, next_count
from gradtx.core.numerics import Decay, number_dtype
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Fraction, NonNegative, NonNegativeSteps, Period, ScalarOrSchedule
from gradtx.transforms.loss_value import value_of


class ReduceOnPlateau(Rule, name="reduce_on_plateau"):
    """u = s g,  s times `factor` whenever `patience` losses in a row were no better than the best one."""

    factor: Fraction
    patience: NonNegativeSteps
    rtol: NonNegative
    atol: NonNegative
    cooldown: NonNegativeSteps
    accumulation_size: Period
    min_scale: NonNegative

    needs = ("value",)

    scale = WholeScalar(lambda rule: 1.0)
    # Infinity would stand in the way of whoever looks for what is not finite.
    best_value = WholeScalar(lambda rule: float(jnp.finfo(number_dtype()).max))
    avg_value = WholeScalar()
    count, plateau_count, cooldown_count = (WholeScalar(dtype="int32") for _ in range(3))

    def prepare(self, now: Now) -> dict[str, Any]:
        count = next_count(now.count)
        mean = Decay(1 / count.astype(now.avg_value.dtype)).mix(now.avg_value, value_of(now, self.name))
        judged = Steps.of(count) >= self.accumulation_size
        found = self._judgement(now, mean)
        kept = {name: jnp.where(judged, x, getattr(now, name)) for name, x in found.items()}
        return {
            **kept,
            "count": jnp.where(judged, 0, count),
            "avg_value": jnp.where(judged, jnp.zeros_like(mean), mean),
        }

    def _judgement(self, now: Now, mean: jax.Array) -> dict[str, jax.Array]:
        """The scale, the best mean and the counts after a mean of losses."""
        is_better = mean < now.best_value - (self.rtol * jnp.abs(now.best_value) + self.atol)
        waits = now.cooldown_count > 0
        bad = jnp.where(is_better | waits, 0, next_count(now.plateau_count))
        reduces = (bad > 0) & (Steps.of(bad) >= self.patience)
        reduced = jnp.maximum(self.factor * now.scale, self.min_scale)
        left = jnp.maximum(now.cooldown_count - np.int32(1), 0)
        return {
            "scale": jnp.where(reduces, reduced, now.scale),
            "best_value": jnp.where(is_better, mean, now.best_value),
            "plateau_count": jnp.where(reduces, 0, bad),
            "cooldown_count": jnp.where(reduces, self.cooldown.ceil(), left),
        }

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return leaf.scale * g, slots


@builds(ReduceOnPlateau)
def reduce_on_plateau(
    factor: ScalarOrSchedule = 0.1,
    patience: ScalarOrSchedule = 10,
    rtol: ScalarOrSchedule = 1e-4,
    atol: ScalarOrSchedule = 0.0,
    cooldown: ScalarOrSchedule = 0,
    accumulation_size: ScalarOrSchedule = 1,
    min_scale: ScalarOrSchedule = 0.0,
) -> Transform:
    """Scales updates by a number that is reduced when the loss has stopped to fall.

    The scale s is 1 at first. Whenever `accumulation_size` losses have come, with m their mean, and best the
    least m so far:

        m < best - (rtol |best| + atol)     m is the best one
        `patience` times in a row not       s = max(factor s, min_scale), and `cooldown` means do not count

    and u = s g, with the new s at once. A loss that is NaN is no better than any.

    Args:
        factor: what the scale is multiplied by, in [0, 1].
        patience: how many means in a row may be no better; 0 and 1 are the same.
        rtol: by how much a mean must be better, as a part of the best one, >= 0.
        atol: the same as a number, >= 0.
        cooldown: how many means do not count after a reduction.
        accumulation_size: how many losses a mean is of, a whole number >= 1; more than 1 for losses of single
            batches.
        min_scale: the least scale, >= 0.

    Returns:
        A transform without slots; `update` needs `value=`, the loss. The state has `scale`, `best_value`,
        `plateau_count`, `cooldown_count`, `count` and `avg_value`.

    Raises:
        TypeError: while tracing, `value` is missing.
        ValueError: while tracing, `value` is no real number.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, g = gradtx.reduce_on_plateau(factor=0.5, patience=2), jnp.ones(())
        >>> state, scales = tx.init(g), []
        >>> for loss in [2.0, 1.0, 1.0, 1.0, 1.0]:
        ...     u, state = tx.update(g, state, value=loss)
        ...     scales.append(float(u))
        >>> scales
        [1.0, 1.0, 1.0, 0.5, 0.5]

    References:
        ReduceLROnPlateau of PyTorch and of Keras; in PyTorch one loss more must be no better.
    """
    ...
