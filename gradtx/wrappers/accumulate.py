"""Accumulation: one update from the mean gradient of several micro-batches."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Slot, WholeScalar
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine.on_shards import axis_name_of
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.numbers.steps import Steps, next_count
from gradtx.core.numerics import cast, real_dtype
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, Period, ScalarOrSchedule
from gradtx.core.spec.spec import show

NonFinite = Literal["drop", "skip", "keep"]


class Accumulating(Wrapper):
    """s += g on each micro-step; after k of them inner(s / k), and s starts anew."""

    inner: Any
    every: Period
    accumulator_dtype: DTypeName
    sum = Slot(dtype="accumulator_dtype")
    count = WholeScalar(dtype="int32")
    clock = WholeScalar(dtype="int32")
    skipped = WholeScalar(dtype="int32")
    latest = WholeScalar(dtype="int32")

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def updates_in(self, calls: int) -> int | None:
        every: Any = self.every
        return None if callable(every) else calls // math.ceil(every)

    drops: ClassVar[bool] = False
    """Whether a sum that is not finite is dropped, with its update."""

    def judge(self, gs: list[jax.Array], slots: Any, call: WrappedUpdate) -> tuple[Any, dict[str, Any]]:
        """Whether to take these gradients, and what to remember of the judgement."""
        raise NotImplementedError

    def gather(self, sums: list[jax.Array], number: jax.Array) -> list[jax.Array]:
        """The gradients for the inner transform from the sums of a number of them: their mean."""
        return [s / cast(number, real_dtype(s.dtype)) for s in sums]

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        good, remembered = self.judge(gs, slots, call)
        number = next_count(slots.count, good)
        sums = [jnp.where(good, s + g, s) for s, g in zip(slots.sum, gs, strict=True)]
        full = good & (Steps.of(number) >= self.every)

        def gathered(sums: list[jax.Array]) -> list[jax.Array]:
            return self.gather(sums, call.number(number))

        result, inner, sums, ran = call.spend(
            self.inner, sums, slots.inner, full, gathered, checked=self.drops, axis_name=axis_name_of(self)
        )
        return result, {
            "sum": sums,
            "count": jnp.where(full, 0, number),
            "clock": next_count(slots.clock, ran),
            "skipped": next_count(slots.skipped, ~good | (full & ~ran)),
            "latest": jnp.where(ran, next_count(call.step), slots.latest),
            "inner": inner,
            **remembered,
        }


class Accumulate(Accumulating, name="accumulate"):
    """Drops a sum that is not finite, leaves out a gradient that is not, or takes all as it is."""

    non_finite: str
    axis_name: str | tuple[str, ...] | None

    def check(self) -> None:
        if self.non_finite not in get_args(NonFinite):
            known = ", ".join(map(repr, get_args(NonFinite)))
            raise ValueError(f"accumulate: non_finite must be one of {known}, got {show(self.non_finite)}.")

    @property
    def drops(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether a sum that is not finite is dropped, with its update."""
        return self.non_finite == "drop"

    def judge(self, gs: list[jax.Array], slots: Any, call: WrappedUpdate) -> tuple[Any, dict[str, Any]]:
        return (call.finite(self.axis_name).all() if self.non_finite == "skip" else jnp.array(True)), {}


@builds(Accumulate)
def accumulate(
    inner: AnyTransform,
    every: ScalarOrSchedule,
    *,
    non_finite: NonFinite = "drop",
    accumulator_dtype: DType | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Gathers the gradients of several micro-batches and updates with their mean.

    On each micro-step s += g, in at least float32. On every k-th, inner(s / k) runs and s starts anew; on the
    others the update is zero, and the inner transform costs nothing and keeps its state bit for bit. Through
    `gradtx.apply_gradients` such a step is one add; plain `update` also writes the zeros. Where a loop holds
    all micro-batches at once, `gradtx.accumulate_gradients` needs no buffer between steps.

    Args:
        inner: the wrapped transform, of any library; it runs on the mean, with the parameters and the keyword
            arguments of the micro-step that completes it.
        every: the number k of micro-steps for an update, a whole number from 1 to 2^31 - 1; a schedule
            gets the number of updates so far, and what it gives is rounded up.
        non_finite: what becomes of a micro-gradient with an Inf or NaN anywhere. `"drop"`: the mean that it
            got into is dropped, the inner transform rests, and the next sum starts, as a large batch with a
            bad example is skipped elsewhere; it costs a look at the mean. `"skip"` leaves out that
            micro-gradient alone, so that the update is the mean of k good ones; it costs a look at each,
            about half an add more on every micro-step. `"keep"` passes on what comes. `skipped` in the state
            counts what was dropped or left out. The sum s itself must be finite: where finite micro-gradients
            are so large that it overflows, 3.4e38 in float32, it is dropped as if one of them were not, and
            with `"skip"` or `"keep"` the inner transform gets an Inf.
        accumulator_dtype: dtype to store what is accumulated in; that is the sum. By default the parameter's,
            at least float32.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required, unless `non_finite` is `"keep"`: without it each
            shard would look at itself.

    Returns:
        The transform. A leaf that has no gradient on the micro-step that completes the mean sits the update
        out; its sum goes into the next. The `inner` state has a step of its own, which counts updates.
        Reverse mode works through `update`; `apply_gradients` is for forward mode.

    Raises:
        ValueError: `every` is out of its domain.
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.accumulate(gradtx.sgd(1.0), 2)
        >>> params = jnp.zeros(1)
        >>> state = tx.init(params)
        >>> for gradient in (1.0, 3.0, 5.0):
        ...     params, state = gradtx.apply_gradients(tx, jnp.array([gradient]), state, params)
        ...     print(params)
        [0.]
        [-2.]
        [-2.]
    """
    ...
