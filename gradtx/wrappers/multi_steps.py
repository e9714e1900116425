"""Accumulation under the name, the arguments and the choices of Optax's `MultiSteps`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Whole
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.spec.arguments import factory
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.core.spec.spec import call_arguments
from gradtx.wrappers.accumulate import Accumulating

Skip = Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]]
"""`(updates, gradient_step, params) -> (whether to skip, what it saw)`, as `skip_not_finite` is."""


def _seen(tx: MultiStepsTransform, params: Any) -> Any:
    """What the function sees in gradients of zero, as the first value of what it sees."""
    if tx.should_skip_update_fn is None:
        return ()

    def seen(params: Any) -> Any:
        assert tx.should_skip_update_fn is not None
        zeros = jax.tree.map(jnp.zeros_like, params)
        return tx.should_skip_update_fn(zeros, jnp.zeros((), jnp.int32), params)[1]

    abstract = any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(params))
    return jax.eval_shape(seen, params) if abstract else seen(params)


class MultiStepsTransform(Accumulating, name="MultiSteps"):
    """Leaves out what a function says; sums in place of the mean on request."""

    use_grad_mean: bool
    should_skip_update_fn: Skip | None
    skip = Whole(_seen)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        values = self._values()
        given = {"opt": values.pop("inner"), "every_k_schedule": values.pop("every"), **values}
        return call_arguments(self.name, given)

    def judge(self, gs: list[jax.Array], slots: Any, call: WrappedUpdate) -> tuple[Any, dict[str, Any]]:
        if self.should_skip_update_fn is None:
            return jnp.array(True), {"skip": slots.skip}
        params = None if call.params is None else call.tree(call.params)
        skip, seen = self.should_skip_update_fn(call.tree(gs), slots.clock, params)
        return ~jnp.asarray(skip), {"skip": seen}

    def gather(self, sums: list[jax.Array], number: jax.Array) -> list[jax.Array]:
        return super().gather(sums, number) if self.use_grad_mean else sums

    def has_updated(self, state: Any) -> jax.Array:
        """Whether the last call of `update` or `apply_gradients` ran the inner optimizer."""
        slots = state["slots"][self.name]
        # At its end the step stays, so that the sum, which has begun anew, has to tell.
        return (slots["latest"] == state["step"]) & (slots["latest"] > 0) & (slots["count"] == 0)

    def gradient_transformation(self) -> Transform:
        """Itself: it is a transform already."""
        return self


@factory
def MultiSteps(
    opt: AnyTransform,
    every_k_schedule: ScalarOrSchedule,
    use_grad_mean: bool = True,
    should_skip_update_fn: Skip | None = None,
    accumulator_dtype: DType | None = "float32",
) -> MultiStepsTransform:
    """Gathers the gradients of several mini-batches, with Optax's arguments; see `accumulate`.

    On each call s += g; on every k-th, opt(s / k) runs (or opt(s)) and s starts anew; on the others the
    update is zero and `opt` costs nothing. Unlike `accumulate` it takes a gradient that is not finite unless
    `should_skip_update_fn` leaves it out. The sum s must be finite too: where finite gradients are so large
    that it overflows, at 3.4e38 in float32, `opt` gets an Inf, though their mean may be finite. Unlike
    Optax's it is a transform itself, hands keyword arguments to `opt`, and runs it only on the k-th call.

    Args:
        opt: the wrapped transform, of any library; it runs on the mean.
        every_k_schedule: the number k of micro-steps for an update, a whole number from 1 to 2^31 - 1; a
            schedule gets the number of updates so far, and what it gives is rounded up.
        use_grad_mean: whether `opt` gets the mean; otherwise the sum.
        should_skip_update_fn: `(updates, gradient_step, params) -> (whether to skip, what it saw)`, such as
            `gradtx.skip_not_finite`. What is skipped is not counted.
        accumulator_dtype: dtype to store what is accumulated in; that is the sum. None is the parameter's, at
            least float32.

    Returns:
        The transform, which also has Optax's `has_updated(state)` and `gradient_transformation()`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.MultiSteps(gradtx.sgd(1.0), every_k_schedule=2)
        >>> params = jnp.zeros(1)
        >>> state = tx.init(params)
        >>> for gradient in (1.0, 3.0):
        ...     updates, state = tx.update(jnp.array([gradient]), state, params)
        ...     print(updates, tx.has_updated(state))
        [0.] False
        [-2.] True
    """
    return MultiStepsTransform(
        inner=opt,
        every=every_k_schedule,
        use_grad_mean=use_grad_mean,
        should_skip_update_fn=should_skip_update_fn,
        accumulator_dtype=accumulator_dtype,
    )
