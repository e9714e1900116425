"""Exponential moving average of the updates."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, ScalarOrSchedule


class Ema(Rule, name="ema"):
    """m = decay m + (1 - decay) g;  u = m / (1 - decay^t), or m without debias."""

    decay: Decay
    debias: bool
    accumulator_dtype: DTypeName

    ema = Slot(dtype="accumulator_dtype", mean=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"scale": 1 / self.decay.correction(now.t)} if self.debias else {}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        m = self.decay.mix(slots.ema, g)
        return leaf.scale * m if self.debias else m, {"ema": m}


@builds(Ema)
def ema(decay: ScalarOrSchedule, debias: bool = True, accumulator_dtype: DType | None = None) -> Transform:
    """Replaces the updates by their exponential moving average.

        m = decay m + (1 - decay) g        u = m / (1 - decay^t), or m without debias

    Args:
        decay: decay of the average, in [0, 1).
        debias: correct averages for their start at zero; divide by 1 - decay^t, with t from 1.
        accumulator_dtype: dtype to store what is accumulated in; that is the average. By default the
            parameter's, at least float32.

    Returns:
        A transform with the slot `ema`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.ema(0.5, debias=False)
        >>> float(tx.update(jnp.float32(1.0), tx.init(jnp.float32(0.0)))[0])
        0.5
    """
    ...
