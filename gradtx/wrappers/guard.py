"""A guard: steps that would do harm are skipped, and the last steps are on record."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.rule import Slot, Whole, WholeScalar
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine.on_shards import refuse_unnamed
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform, missing
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.numbers.steps import Steps, next_count
from gradtx.core.numerics import Decay
from gradtx.core.shards import on_some_shard
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import (
    PositiveLimit,
    ScalarOrSchedule,
    StepLimit,
)
from gradtx.core.spec.spec import show
from gradtx.wrappers.blackbox import Verdict, empty_marks, empty_metrics, record
from gradtx.wrappers.spikes import RunningLevel, choose

Watch = Literal["gradient_norm", "loss"]


class Guard(Wrapper, name="guard"):
    """inner(g) where g and the loss are finite and x <= mean + deviations std; else 0, and inner rests."""

    inner: Any
    watch: str
    deviations: PositiveLimit | None
    decay: Decay
    warmup: StepLimit
    patience: StepLimit
    updates: bool
    axis_name: str | tuple[str, ...] | None

    counts: ClassVar[str] = "int32"
    faults = Slot(real=True, dtype="counts", shape=lambda rule, shape: ())
    first = Whole(lambda guard, params: np.full(2, -1, np.int32))
    skipped = WholeScalar(dtype="int32")
    in_a_row = WholeScalar(dtype="int32")
    spikes = WholeScalar(dtype="int32")
    seen = WholeScalar(dtype="int32")
    mean = WholeScalar()
    std = WholeScalar()
    metrics = Whole(empty_metrics)
    marks = Whole(empty_marks)

    def check(self) -> None:
        if self.watch not in get_args(Watch):
            raise ValueError(f"guard: watch must be 'gradient_norm' or 'loss', got {show(self.watch)}.")

    @property
    def needs(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The loss, if it is watched."""
        return ("value",) if self.watch == "loss" else ()

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        faulty = ~call.finite(self.axis_name)
        norm = call.number(call.norm(self.axis_name))
        loss = self._loss(call)
        watched = norm if self.watch == "gradient_norm" or loss is None else loss
        level = RunningLevel(slots.mean, slots.std, slots.seen)
        no = jnp.array(False)
        limit, warm = (None, no) if self.deviations is None else level.limit(self.deviations, self.warmup)
        spike = no if limit is None else warm & ~(watched <= limit)
        is_new_level = spike & (Steps.of(slots.spikes) >= self.patience)
        cases = {
            Verdict.GRADIENT: faulty.any(),
            Verdict.LOSS: no if loss is None else ~jnp.isfinite(loss),
            Verdict.SPIKE: spike & ~is_new_level,
        }
        if self.updates and gs:
            updates, *_ = call.preview(self.inner, gs, slots.inner, call.params, slots.seen >= 0)
            bad = jnp.stack([~jnp.isfinite(u).all() for u in updates])
            bad = on_some_shard(bad, self.axis_name, updates)
            faulty = jnp.where(faulty.any(), faulty, bad)
            cases[Verdict.UPDATE] = faulty.any()
        cases[Verdict.NEW_LEVEL] = is_new_level
        verdict = jnp.select(list(cases.values()), [jnp.int32(v) for v in cases], jnp.int32(Verdict.APPLIED))
        good = (verdict == Verdict.APPLIED) | (verdict == Verdict.NEW_LEVEL)
        result, inner = call.run(self.inner, gs, slots.inner, when=good)
        level = choose(verdict == Verdict.NEW_LEVEL, level.restarted(), level)
        # A norm that overflowed has a verdict, but no place in an average.
        level = choose(good & jnp.isfinite(watched), level.after(watched, self.decay), level)
        leaf = jnp.int32(-1)
        if gs:
            leaf = jnp.where(faulty.any(), jnp.array(call.positions, jnp.int32)[jnp.argmax(faulty)], leaf)
        fault = jnp.stack([call.step, leaf])
        kept = {
            **level._asdict(),
            **record(slots, call.step, verdict, leaf, loss, norm, limit, warm),
            "faults": [f if f is None else next_count(f, faulty[i]) for i, f in enumerate(slots.faults)],
            "first": jnp.where((slots.first[1] < 0) & (leaf >= 0), fault, slots.first),
            "skipped": next_count(slots.skipped, ~good),
            "in_a_row": jnp.where(good, 0, next_count(slots.in_a_row)),
            "spikes": jnp.where(good, 0, next_count(slots.spikes, verdict == Verdict.SPIKE)),
        }
        # The statistics decide and are otherwise not part of any loss: 0 times their derivative may be NaN.
        return result, {**jax.lax.stop_gradient(kept), "inner": inner}

    def _loss(self, call: WrappedUpdate) -> jax.Array | None:
        """The loss as all shards know it."""
        value = call.extra.get("value")
        if value is None:
            if self.watch == "loss":
                raise TypeError(missing("guard", "value"))
            return None
        if jnp.shape(value) != ():
            raise ValueError(
                f"guard: value must be the loss, a scalar; its shape is {jnp.shape(value)}. "
                f"Pass the mean over the batch, as in value=jnp.mean(losses)."
            )
        loss = call.number(value)
        refuse_unnamed("guard: value", self, loss)
        return loss if self.axis_name is None else jax.lax.pmean(loss, self.axis_name)


@builds(Guard)
def guard(
    inner: AnyTransform,
    *,
    watch: Watch = "gradient_norm",
    deviations: ScalarOrSchedule | None = 6.0,
    decay: ScalarOrSchedule = 0.99,
    warmup: ScalarOrSchedule = 100,
    patience: ScalarOrSchedule = 10,
    updates: bool = False,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Skips the steps that would do harm: the update is zero, and the wrapped transform rests bit for bit.

    A step is skipped when

    - an element of the gradient is Inf or NaN, or the loss is not finite (the keyword argument `value=`, if
      given);
    - the watched number x is a spike: x > mean + deviations * std, of an exponential average over the steps
      that went through;
    - with `updates`, the update is not finite although the gradient is.

    The step after goes through as if nothing had been. What is not finite is never applied. But after
    `patience` spikes with no good step among them, the next spike is taken for the new level: it is applied,
    and the average starts anew from it, so that no change of level stops the training for ever.

    The state counts what was skipped (`skipped`, and without a break `in_a_row`), and the faults of each leaf
    (`faults`); `gradtx.report(state)` prints the last 32 steps and names the leaf that was the first to fail.

    Args:
        inner: the wrapped transform, of any library; a norm that it clips by is measured once for both.
        watch: the number whose spikes are skipped: `"gradient_norm"`, or `"loss"`, which then must be given.
        deviations: how many standard deviations above the mean are a spike, > 0, usually 3 to 10. None: no
            step is skipped for its size. A std below 0.0003 |mean|, which may be rounding, counts as that.
        decay: decay of the average, in [0, 1); 0.99 looks back about 100 steps.
        warmup: the number of good steps before a step may count as a spike, >= 0.
        patience: the number of spikes, with no good step among them, that are skipped before the level is
            accepted, >= 0.
        updates: also skip a step whose update is not finite. It costs the arithmetic of `inner` a second time
            (about twice the time of an Adam step), since nothing may be written before all of it was seen.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree: all shards
            then decide alike. Where the leaves vary over a manual axis it is required.

    Returns:
        The transform. Its `inner` state has a step of its own, which counts the good steps. Reverse mode
        works through `update`, also where a step is skipped; `apply_gradients` is for forward mode.

    Raises:
        TypeError: `watch="loss"` and `update` was called without `value=`.
        ValueError: `watch` is something else; `value` is not a scalar; inside `jax.shard_map` the leaves vary
            over an axis that `axis_name` does not name.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.guard(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)))
        >>> params = {"w": jnp.ones(2), "b": jnp.zeros(2)}
        >>> state = tx.init(params)
        >>> grads = {"w": jnp.ones(2), "b": jnp.array([0.0, jnp.inf])}
        >>> new, state = gradtx.apply_gradients(tx, grads, state, params, value=0.5)
        >>> new["w"].tolist()
        [1.0, 1.0]
        >>> print(gradtx.report(state))
        guard: 1 of 1 steps skipped, 1 in a row; the first fault was at step 0 in 'b'
        step  loss  gradient_norm  limit
           0   0.5            inf      -  skipped: gradient not finite, first in 'b'
    """
    ...
