"""Gradients ahead of the parameters, along an average of where these have gone."""

from __future__ import annotations

from typing import Any, ClassVar

import jax

from gradtx.core.compose.combine import as_part, visit
from gradtx.core.compose.rule import Rule, Slot, WholeScalar
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.program import Builder
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay
from gradtx.core.spec.arguments import factory
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule
from gradtx.core.spec.spec import call_arguments


class EmaNesterov(Rule, name="ema_nesterov"):
    """D' = gamma D + (1 - gamma) (g + beta D);  u = g + beta' D', with the beta of before and of now."""

    beta: NonNegative
    gamma: Decay

    needs = ("params",)
    last: ClassVar[bool] = True

    direction = Slot(mean=True)
    ahead = WholeScalar()

    def prepare(self, now: Now) -> dict[str, Any]:
        return {"ahead": self.beta, "was_ahead": now.ahead}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        direction = self.gamma.mix(slots.direction, g + leaf.was_ahead * slots.direction)
        return g + leaf.ahead * direction, {"direction": direction}


class Ahead(Composed):
    """An optimizer, and the look-ahead along where it goes, in one program."""

    base_optimizer: Any
    lookahead: EmaNesterov

    def __init__(self, base_optimizer: Any, lookahead: EmaNesterov) -> None:
        self._set(base_optimizer=as_part(lookahead.name, base_optimizer), lookahead=lookahead)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return call_arguments(
            self.lookahead.name, {"base_optimizer": self.base_optimizer, **self.lookahead._values()}
        )

    def _visit(self, builder: Builder) -> None:
        visit(self.base_optimizer, builder)
        builder.add_declared(self.lookahead)


@factory
def ema_nesterov(
    base_optimizer: AnyTransform, beta: ScalarOrSchedule, gamma: ScalarOrSchedule = 0.99
) -> Transform:
    """Nesterov's acceleration along an average of steps, in the place of the last one, for any optimizer.

    The parameters y are where gradients are taken, ahead of x, and u is the update of the optimizer at y:

        x' = y + u              D = gamma D + (1 - gamma) (x' - x)              y = x' + beta D

    Evaluate with `gradtx.eval_params(state, params)`, which is x = y - beta D. The authors let beta follow
    the learning rate, and have it at 0 in the warmup and in the end of the decay: with a schedule s of the
    learning rate's shape, between 0 and 1, that is a schedule of 0.3 s to 0.6 s.

    Args:
        base_optimizer: the optimizer, of any library; it gets gradients at y, and sees y.
        beta: how far ahead, >= 0 or a schedule; at step t the one that the update t leaves the parameters
            with.
        gamma: decay of the average of the steps, in [0, 1).

    Returns:
        An optimizer whose `update` needs the parameters, with the slot `direction`, which is D; the state has
        `ahead`, the beta in the parameters.

    Raises:
        ValueError: at init, a transform after this one changes the updates.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, y = gradtx.ema_nesterov(gradtx.sgd(0.1), beta=0.5, gamma=0.5), jnp.array([1.0])
        >>> y, state = gradtx.apply_gradients(tx, jnp.array([4.0]), tx.init(y), y)
        >>> print(y, gradtx.eval_params(state, y))
        [0.5] [0.6]

    References:
        Yau et al., EMA-Nesterov: Stabilizing Nesterov's Lookahead for Accelerated Deep Learning Optimization,
        2026, https://arxiv.org/abs/2605.25395.
    """
    return Ahead(base_optimizer, EmaNesterov(beta=beta, gamma=gamma))
