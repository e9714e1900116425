"""Backtracking: shorter and shorter steps, until the loss decreases enough."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Slot
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Fraction, NonNegative, PositiveLimit, ScalarOrSchedule
from gradtx.linesearch.line import Leaves, Line, Point, broken, either, repeat
from gradtx.linesearch.search import Found, LineSearch


class _Trial(NamedTuple):
    rate: jax.Array
    value: jax.Array
    grads: Leaves
    error: jax.Array
    trials: jax.Array
    accepted: jax.Array


class ScaleByBacktrackingLinesearch(LineSearch, name="scale_by_backtracking_linesearch"):
    """u = t g,  t the first of eta, c eta, c² eta ... at which the loss decreases enough."""

    max_backtracking_steps: NonNegative
    slope_rtol: NonNegative
    decrease_factor: Fraction
    increase_factor: PositiveLimit
    max_learning_rate: PositiveLimit
    atol: NonNegative
    rtol: NonNegative
    store_grad: bool
    verbose: bool

    grad = Slot(shape=lambda search, shape: shape if search.store_grad else None)

    @property
    def tolerance(self) -> Any:
        return self.atol

    def check(self) -> None:
        if self.increase_factor == math.inf and self.max_learning_rate == math.inf:
            raise ValueError(
                f"{self.name}: with increase_factor=inf a search begins at max_learning_rate, which is inf "
                f"too. Give one of them a finite value."
            )

    def search(self, line: Line, before: jax.Array) -> Found:
        start = line.start
        first = jnp.minimum(self.increase_factor * before, self.max_learning_rate)

        def goes_on(last: _Trial) -> jax.Array:
            return ~last.accepted & (last.trials <= self.max_backtracking_steps)

        def trial(last: _Trial) -> _Trial:
            rate = jnp.where(last.trials > 0, self.decrease_factor * last.rate, last.rate)
            value, gradient = line.at(rate)
            bound = start.value + self.rtol * jnp.abs(start.value) + rate * self.slope_rtol * start.slope
            error = broken(value - bound)
            accepted, trials = error <= self.atol, last.trials + 1
            grads = last.grads
            if self.store_grad:
                is_last = accepted | (trials > self.max_backtracking_steps)
                grads = either(is_last, gradient, lambda: last.grads)
            return _Trial(rate, value, grads, error, trials, accepted)

        none = jnp.zeros((), jnp.int32)
        begin = _Trial(first, start.value, line.grads, jnp.zeros_like(first), none, none > 0)
        last = repeat(goes_on, trial, begin, line.params, line.us)
        return Found(
            Point(last.rate, last.value, start.slope), last.grads, last.trials, {"decrease_error": last.error}
        )


@builds(ScaleByBacktrackingLinesearch)
def scale_by_backtracking_linesearch(
    max_backtracking_steps: ScalarOrSchedule,
    slope_rtol: ScalarOrSchedule = 1e-4,
    decrease_factor: ScalarOrSchedule = 0.8,
    increase_factor: ScalarOrSchedule = 1.5,
    max_learning_rate: ScalarOrSchedule = 1.0,
    atol: ScalarOrSchedule = 0.0,
    rtol: ScalarOrSchedule = 0.0,
    store_grad: bool = False,
    verbose: bool = False,
) -> Transform:
    """Scales updates by a rate at which the loss decreases enough: the first of a falling sequence.

    With f the loss, u the update and eta = min(increase_factor * the last rate, max_learning_rate), the rate
    is the first t of eta, c eta, c² eta ... (c = decrease_factor) with

        f(theta + t u) <= f(theta) + slope_rtol t <grad f(theta), u> + rtol |f(theta)| + atol

    It stands behind what gives a direction of descent, as in `chain(sgd(1.0), ...)`. Where
    none of max_backtracking_steps + 1 rates will do, the last one is taken; where the loss is not finite
    there, nothing moves. The rate is a constant to `jax.grad`, as the loss's other arguments are.

    Args:
        max_backtracking_steps: how often the first rate may be shortened, >= 0.
        slope_rtol: the decrease that is asked for, as a part of what the slope promises, >= 0.
        decrease_factor: what a rate is multiplied by for the next trial, in [0, 1].
        increase_factor: what the last rate is multiplied by for the first trial, > 0; `math.inf` begins each
            search at `max_learning_rate`.
        max_learning_rate: the largest rate, > 0.
        atol: by how much the condition may be broken, >= 0.
        rtol: the same as a part of the loss, >= 0.
        store_grad: whether the gradient at the end is kept, for `value_and_grad_from_state`.
        verbose: whether to print the result of a search that found no rate to accept.

    Returns:
        A transform whose `update` needs the parameters, `value=`, the loss there, and `value_fn=`, the loss
        as a function of the parameters; further keyword arguments go to that function if it takes them. The
        gradient of the loss is the one that the chain was given, or `grad=`, as `jax.grad` gives it. The
        state has `learning_rate` (the rate), `value` (the loss after the step), `num_linesearch_steps`,
        `decrease_error` (0 where the condition holds), and with `store_grad` the slot `grad`.

    Raises:
        TypeError: while tracing, `value` or `value_fn` is missing, or `value_fn` is no function.
        ValueError: while tracing, the loss is no real number, or the leaves are shards inside `shard_map`.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> def loss(x):
        ...     return jnp.sum(x**2)
        >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(15))
        >>> x = jnp.array([1.0, 2.0, 3.0])
        >>> state = tx.init(x)
        >>> for _ in range(3):
        ...     value, grad = jax.value_and_grad(loss)(x)
        ...     x, state = gradtx.apply_gradients(tx, grad, state, x, value=value, value_fn=loss)
        >>> print(f"{loss(x):.2f}")
        0.65

    References:
        Nocedal, Wright, Numerical Optimization, 2006, section 3.1.
        Vaswani et al., Painless Stochastic Gradient, 2019, https://arxiv.org/abs/1905.09997.
    """
    ...
