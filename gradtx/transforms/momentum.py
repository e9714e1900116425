"""Momentum: the decaying sum of past updates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, Fraction, Number, ScalarOrSchedule


class Trace(Rule, name="trace"):
    """v = decay v + (1 - dampening) g;  u = v, or g + decay v with Nesterov."""

    decay: Fraction
    nesterov: bool
    accumulator_dtype: DTypeName
    dampening: Number
    dampen_first: bool

    trace = Slot(dtype="accumulator_dtype", mean=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        share = 1 - self.dampening
        return {
            "share": share if self.dampen_first else jnp.where(now.step == 0, jnp.ones_like(share), share)
        }

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        v = self.decay * slots.trace + leaf.share * g
        return g + self.decay * v if self.nesterov else v, {"trace": v}


@builds(Trace)
def trace(
    decay: ScalarOrSchedule,
    nesterov: bool = False,
    accumulator_dtype: DType | None = None,
    *,
    dampening: ScalarOrSchedule = 0.0,
    dampen_first: bool = True,
) -> Transform:
    """Adds momentum.

        v = decay v + (1 - dampening) g        u = v, or g + decay v with Nesterov

    Before the learning rate the velocity is independent of it (`sgd`); after it the rate is inside the
    buffer, v = mu v - eta g, which differs when eta changes: `chain(scale_by_learning_rate(eta), trace(mu))`.

    Args:
        decay: mu, the decay of the velocity, in [0, 1].
        nesterov: use Nesterov momentum; the step looks ahead along the velocity.
        accumulator_dtype: dtype to store what is accumulated in; that is the velocity. By default the
            parameter's, at least float32.
        dampening: tau, the part of the gradient that is left out of the velocity.
        dampen_first: whether the first step is dampened too; False for v = g there, as in PyTorch.

    Returns:
        A transform with the slot `trace`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.trace(0.5)
        >>> u, state = tx.update(jnp.float32(1.0), tx.init(jnp.float32(0.0)))
        >>> float(tx.update(jnp.float32(1.0), state)[0])
        1.5

    References:
        Polyak, Some methods of speeding up the convergence of iteration methods, 1964; Sutskever et al., On
        the importance of initialization and momentum in deep learning, 2013.
    """
    ...
