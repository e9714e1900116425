"""Transforms that run on a condition: only finite gradients, or where a function of the step says so."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import WholeScalar
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform, accepted
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.numbers.steps import Steps, next_count
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import ScalarOrSchedule, StepLimit


class ApplyIfFinite(Wrapper, name="apply_if_finite"):
    """inner(g) where g is finite, or after more than `max_consecutive_errors` that were not; else 0."""

    inner: Any
    max_consecutive_errors: StepLimit
    axis_name: str | tuple[str, ...] | None

    notfinite_count = WholeScalar(dtype="int32")
    last_finite = WholeScalar(lambda rule: True, dtype="bool")
    total_notfinite = WholeScalar(dtype="int32")

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        finite = call.finite(self.axis_name).all()
        count = jnp.where(finite, 0, next_count(slots.notfinite_count))
        gives_up = Steps.of(count) > self.max_consecutive_errors
        result, inner = call.run(self.inner, gs, slots.inner, when=finite | gives_up)
        return result, {
            "notfinite_count": jnp.where(gives_up, 0, count),
            "last_finite": finite,
            "total_notfinite": next_count(slots.total_notfinite, ~finite),
            "inner": inner,
        }


@builds(ApplyIfFinite)
def apply_if_finite(
    inner: AnyTransform,
    max_consecutive_errors: ScalarOrSchedule,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Skips steps with an Inf or NaN in the gradient, until there were too many in a row.

    On such a step the update is zero and the wrapped transform rests bit for bit. The step after
    `max_consecutive_errors` of them is applied as it is, whatever that does to the parameters; then the count
    starts anew, so that the next ones are skipped again. `gradtx.guard` never applies such a step.

    Args:
        inner: the wrapped transform, of any library.
        max_consecutive_errors: how many steps in a row are skipped, >= 0.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree.

    Returns:
        The transform. Its state has `notfinite_count`, the skips since the last step that was applied,
        `last_finite`, whether the last gradient was finite, and `total_notfinite`.

    Raises:
        ValueError: `max_consecutive_errors` is negative; inside `jax.shard_map` the leaves vary over an axis
            that `axis_name` does not name.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.apply_if_finite(gradtx.sgd(1.0), 2)
        >>> state = tx.init(jnp.zeros(1))
        >>> for gradient in (1.0, jnp.nan, 2.0):
        ...     update, state = tx.update(jnp.array([gradient]), state)
        ...     print(update)
        [-1.]
        [0.]
        [-2.]
    """
    ...


class Conditional(Wrapper):
    """inner(g) where should_transform_fn(calls)."""

    inner: Any
    should_transform_fn: Callable[..., Any]
    forward_extra_args: bool

    calls = WholeScalar(dtype="int32")

    @property
    def needs(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The keyword arguments that the function cannot do without."""
        if not self.forward_extra_args:
            return ()
        _, *others = inspect.signature(self.should_transform_fn).parameters.values()
        named = [p for p in others if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        return tuple(p.name for p in named if p.default is p.empty)

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def updates_in(self, calls: int) -> int | None:
        return None

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        extra = accepted(self.should_transform_fn, call.extra) if self.forward_extra_args else {}
        when = jnp.asarray(self.should_transform_fn(slots.calls, **extra))
        if when.shape != ():
            raise ValueError(
                f"{self.name}: should_transform_fn must give one bool; it gave an array of shape "
                f"{when.shape}. It decides for all leaves at once: reduce the array with jnp.all or jnp.any."
            )
        otherwise = None if self.in_place else gs
        result, inner = call.run(self.inner, gs, slots.inner, when=when.astype(bool), otherwise=otherwise)
        return result, {"calls": next_count(slots.calls), "inner": inner}


class ConditionallyTransform(Conditional, name="conditionally_transform"):
    """inner(g) where should_transform_fn(calls), else g."""

    in_place = False


class ConditionallyMask(Conditional, name="conditionally_mask"):
    """inner(g) where should_transform_fn(calls), else 0."""


@builds(ConditionallyTransform)
def conditionally_transform(
    inner: AnyTransform,
    should_transform_fn: Callable[..., jax.Array | bool],
    forward_extra_args: bool = False,
) -> Transform:
    """Runs a transform on some steps; on the others the updates pass as they came, and it rests bit for bit.

    On a step that it does not run on, an optimizer hands on raw gradients: this is for a part of a chain.
    `conditionally_mask` gives zeros instead.

    Args:
        inner: the wrapped transform, of any library.
        should_transform_fn: `should_transform_fn(step)`, whether to run; `step` counts calls from 0. It is
            traced, so it decides with `jnp`, not with `if`.
        forward_extra_args: whether the function also gets the keyword arguments of `update` that it takes.

    Returns:
        The transform. Its state counts the `calls`; the `inner` state has a step of its own, which counts
        the times that it ran.

    Raises:
        TypeError: `update` was called without a keyword argument that the function needs.
        ValueError: the function gives an array with axes.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.conditionally_transform(gradtx.scale(10.0), lambda step: step >= 1)
        >>> state = tx.init(jnp.zeros(1))
        >>> for _ in range(2):
        ...     update, state = tx.update(jnp.ones(1), state)
        ...     print(update)
        [1.]
        [10.]
    """
    ...


@builds(ConditionallyMask)
def conditionally_mask(
    inner: AnyTransform,
    should_transform_fn: Callable[..., jax.Array | bool],
    forward_extra_args: bool = False,
) -> Transform:
    """Runs a transform on some steps; on the others the update is zero, and it rests bit for bit.

    Args:
        inner: the wrapped transform, of any library.
        should_transform_fn: `should_transform_fn(step)`, whether to run; `step` counts calls from 0. It is
            traced, so it decides with `jnp`, not with `if`.
        forward_extra_args: whether the function also gets the keyword arguments of `update` that it takes.

    Returns:
        The transform. Its state counts the `calls`; the `inner` state has a step of its own, which counts
        the times that it ran. Reverse mode works through `update`; `apply_gradients` is for forward mode.

    Raises:
        TypeError: `update` was called without a keyword argument that the function needs.
        ValueError: the function gives an array with axes.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.conditionally_mask(
        ...     gradtx.sgd(1.0), lambda step, *, value: value < 5.0, forward_extra_args=True
        ... )
        >>> state = tx.init(jnp.zeros(1))
        >>> for loss in (2.0, 9.0):
        ...     update, state = tx.update(jnp.ones(1), state, value=loss)
        ...     print(update)
        [-1.]
        [0.]
    """
    ...
