"""Averages of the parameters."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.combine import as_part, visit
from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.program import Builder
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform, added
from gradtx.core.numbers.states import EVAL
from gradtx.core.numbers.steps import Steps
from gradtx.core.numerics import Decay
from gradtx.core.spec.arguments import factory
from gradtx.core.spec.fields import DType, DTypeName, NonNegativeSteps, Scalar, ScalarOrSchedule
from gradtx.core.spec.spec import call_arguments


class Average(Rule):
    """An average of the parameters that the update makes; the update passes as it is."""

    accumulator_dtype: DTypeName

    eval_params = Slot(dtype="accumulator_dtype", init=lambda rule, param: param)
    needs = ("params",)
    last: ClassVar[bool] = True

    def check(self) -> None:
        if self.accumulator_dtype and np.dtype(self.accumulator_dtype).itemsize < 4:
            raise ValueError(
                f"{self.name}: accumulator_dtype must be 'float32' or wider, got {self.accumulator_dtype!r}, "
                f"in which an average stands still: the steps that it takes round to nothing."
            )

    def mixed(self, old: jax.Array, new: jax.Array, leaf: Any) -> jax.Array:
        """The next average, from the last one and the new parameter."""
        raise NotImplementedError

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return g, {EVAL: self.mixed(slots.eval_params, added(leaf.param, g), leaf)}


class EmaParams(Average, name="ema_params"):
    """a = decay a + (1 - decay) (p + u)."""

    decay: Decay

    def mixed(self, old: jax.Array, new: jax.Array, leaf: Any) -> jax.Array:
        return self.decay.mix(old, new)


class PolyakAverage(Average, name="polyak_average"):
    """a = a + (p + u - a) / n for the n-th parameters since `start`."""

    start: NonNegativeSteps

    def prepare(self, now: Now) -> dict[str, Any]:
        n = (now.exact_t - Steps.of(self.start.ceil())).value
        return {"begins": n <= 1, "share": Decay(1 / jnp.maximum(n, 1))}

    def mixed(self, old: jax.Array, new: jax.Array, leaf: Any) -> jax.Array:
        return jnp.where(leaf.begins, new, leaf.share.mix(old, new))


class Averaged(Composed):
    """A transform, and an average of the parameters that it makes, in one program."""

    inner: Any
    average: Average

    def __init__(self, inner: Any, average: Average) -> None:
        self._set(inner=as_part(average.name, inner), average=average)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return call_arguments(self.average.name, {"inner": self.inner, **self.average._values()})

    def _visit(self, builder: Builder) -> None:
        visit(self.inner, builder)
        builder.add_declared(self.average)


@factory
def ema_params(
    inner: AnyTransform, decay: ScalarOrSchedule, *, accumulator_dtype: DType | None = None
) -> Transform:
    """Runs a transform and keeps an exponential moving average of the parameters that it makes.

        u = inner(g)        a = decay a + (1 - decay) (p + u),   a = p at init

    The updates are those of `inner`; `gradtx.eval_params(state, params)` gives the average. Of bfloat16
    parameters it averages p + u in float32, before that is rounded to what is stored. A leaf without a
    gradient keeps its average. Around everything else it is the average over all of training. Inside
    `accumulate` the average moves when the parameters do; around `accumulate` it would move on every
    micro-step.

    Args:
        inner: the wrapped transform, of any library; it gives the final updates.
        decay: decay of the average, in [0, 1); usually 0.999 or more. A schedule warms it up:
            `linear_schedule(0.0, 0.999, 2000)`, or `lambda t: jnp.minimum(0.9999, (1 + t) / (10 + t))`.
        accumulator_dtype: dtype to store what is accumulated in; that is the average, at least in float32. By
            default the parameter's, or float32 if that is wider.

    Returns:
        A transform with the slot `eval_params`.

    Raises:
        ValueError: `accumulator_dtype` is narrower than float32; at init, a transform after this one changes
            the updates, so that what was averaged would not be the parameters.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.ema_params(gradtx.sgd(1.0), 0.75), jnp.zeros(1)
        >>> params, state = gradtx.apply_gradients(tx, jnp.array([-4.0]), tx.init(params), params)
        >>> params, gradtx.eval_params(state, params)
        (Array([4.], dtype=float32), Array([1.], dtype=float32))
    """
    return Averaged(inner, EmaParams(decay=decay, accumulator_dtype=accumulator_dtype))


@factory
def polyak_average(
    inner: AnyTransform, start: Scalar = 0, *, accumulator_dtype: DType | None = None
) -> Transform:
    """Runs a transform and keeps the uniform mean of the parameters that it makes.

        u = inner(g)        a = mean of the p + u of the updates from number `start` on

    Before that update the average is the latest p + u. In other respects it is like `ema_params`.

    Args:
        inner: the wrapped transform, of any library; it gives the final updates.
        start: the first update whose parameters count, >= 0. With 0 all count but the initial ones.
        accumulator_dtype: dtype to store what is accumulated in; that is the average, at least in float32. By
            default the parameter's, or float32 if that is wider.

    Returns:
        A transform with the slot `eval_params`.

    Raises:
        ValueError: as for `ema_params`, or `start` is negative.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.polyak_average(gradtx.sgd(1.0)), jnp.zeros(1)
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     params, state = gradtx.apply_gradients(tx, jnp.array([-1.0]), state, params)
        >>> params, gradtx.eval_params(state, params)
        (Array([3.], dtype=float32), Array([2.], dtype=float32))

    References:
        Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992,
        https://doi.org/10.1137/0330046.
    """
    return Averaged(inner, PolyakAverage(start=start, accumulator_dtype=accumulator_dtype))
