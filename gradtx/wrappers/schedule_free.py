"""Schedule-free learning: an average of the iterates in the place of momentum and of a schedule."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gradtx.core.compose.combine import as_part, visit
from gradtx.core.compose.rule import Rule, Slot, WholeScalar
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.program import Builder
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import divide
from gradtx.core.spec.arguments import factory
from gradtx.core.spec.fields import (
    DType,
    DTypeName,
    NonNegative,
    NonNegativeSteps,
    PositiveFraction,
    Rate,
    ScalarOrSchedule,
)
from gradtx.core.spec.spec import call_arguments


class ScheduleFree(Rule, name="schedule_free"):
    """z += u;  x += c (z - x), the average to evaluate;  theta = b1 x + (1 - b1) z."""

    learning_rate: Rate
    b1: PositiveFraction
    weight_lr_power: NonNegative
    state_dtype: DTypeName
    warmup_steps: NonNegativeSteps | None

    needs = ("params",)
    last: ClassVar[bool] = True

    z = Slot(dtype="state_dtype", init=lambda rule, param: param)
    weight_sum, max_lr, share = WholeScalar(), WholeScalar(), WholeScalar(lambda rule: 1.0)

    def prepare(self, now: Now) -> dict[str, Any]:
        warm = self._warm(now)
        largest = jnp.maximum(now.max_lr, warm * self.learning_rate)
        weight = largest**self.weight_lr_power
        total = now.weight_sum + weight
        c = divide(weight, total)
        kept = {"max_lr": largest, "weight_sum": total, "share": self.b1}
        # The parameters are those that the b1 of before made of x and z.
        ratio = self.b1 / now.share
        pull = jnp.where(now.step == 0, c, (1 - ratio) + ratio * c)
        return {**kept, "warm": warm, "pull": pull, "push": 1 - self.b1 * (1 - c) - pull}

    def _warm(self, now: Now) -> jax.Array:
        """The part of the learning rate that is in force, which grows over the warmup."""
        one = jnp.ones_like(now.t)
        if self.warmup_steps is None:
            return one
        is_warm = now.exact_t >= self.warmup_steps
        return jnp.where(is_warm, one, now.t / jnp.where(is_warm, one, self.warmup_steps.value))

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        step = leaf.warm * g
        z = slots.z + step
        # Of b1 x' + (1 - b1) z' - y, with b1 x = y - (1 - b1) z, nothing is left that cancels. By the new z
        # and not by the old one, so that z can be moved in place.
        return leaf.pull * (z - leaf.param) + leaf.push * step, {"z": z}


class Free(Composed):
    """An optimizer, and the average of what it makes, in one program."""

    base_optimizer: Any
    average: ScheduleFree

    def __init__(self, base_optimizer: Any, average: ScheduleFree) -> None:
        self._set(base_optimizer=as_part(average.name, base_optimizer), average=average)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return call_arguments(
            self.average.name, {"base_optimizer": self.base_optimizer, **self.average._values()}
        )

    def _visit(self, builder: Builder) -> None:
        visit(self.base_optimizer, builder)
        builder.add_declared(self.average)


@factory
def schedule_free(
    base_optimizer: AnyTransform,
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    weight_lr_power: ScalarOrSchedule = 2.0,
    state_dtype: DType | None = None,
    *,
    warmup_steps: ScalarOrSchedule | None = None,
) -> Transform:
    """Averages the iterates of an optimizer, in the place of its momentum and of a schedule that decays.

    The parameters y are where gradients are taken, x is what to evaluate with and z what the optimizer moves,
    with u its update and eta its learning rate; both start at the parameters.

        z <- z + u                      w = max(all eta so far)^weight_lr_power,  c = w / (the sum of all w)
        x <- x + c (z - x)              y = b1 x + (1 - b1) z

    Evaluate with `gradtx.eval_params(state, params)`, which is x = (y - (1 - b1) z) / b1. The optimizer
    should have no momentum of its own, and may have a warmup.

    Args:
        base_optimizer: the optimizer, of any library; it moves z by gradients at y, and sees y.
        learning_rate: the size of the steps, >= 0 or a schedule; how much each one counts follows from it.
        b1: the part of x in the parameters, which are b1 x + (1 - b1) z, in (0, 1].
        weight_lr_power: with which power of the learning rate a step counts, >= 0.
        state_dtype: dtype to store z in; by default the parameter's, at least float32.
        warmup_steps: the length of the warmup in steps, >= 0; updates and the learning rate are multiplied by
            t / warmup_steps, up to 1. By default there is none.

    Returns:
        An optimizer with the slot `z`; the state has `weight_sum`, `max_lr` and `share`, which is b1.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, y = gradtx.schedule_free(gradtx.sgd(0.5), learning_rate=0.5), jnp.array([1.0])
        >>> state = tx.init(y)
        >>> for _ in range(20):
        ...     y, state = gradtx.apply_gradients(tx, 2 * y, state, y)
        >>> bool(abs(gradtx.eval_params(state, y)[0]) < 0.1)
        True

    References:
        Defazio et al., The Road Less Scheduled, 2024, https://arxiv.org/abs/2405.15682.
    """
    rule = ScheduleFree(
        learning_rate=learning_rate,
        b1=b1,
        weight_lr_power=weight_lr_power,
        state_dtype=state_dtype,
        warmup_steps=warmup_steps,
    )
    return Free(base_optimizer, rule)
