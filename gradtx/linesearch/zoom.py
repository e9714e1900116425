"""The zoom line search: an interval in which a good rate must lie, made smaller by interpolation."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import WholeScalar
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Limit, NonNegative, Positive, PositiveLimit, ScalarOrSchedule
from gradtx.core.spec.spec import show
from gradtx.linesearch.line import Leaves, Line, Point, broken, chosen, most, repeat
from gradtx.linesearch.search import Found, LineSearch

Errors = tuple[jax.Array, jax.Array]
Guess = Literal["one", "keep"]


class _Search(NamedTuple):
    """What is known by now.

    Attributes:
        low: the best end of the interval; before one is known, the last trial.
        high: the other end, which may be to the left.
        third: the end that was there before, through which a cubic goes.
        has_interval: whether there is an interval.
        best: the point to end with, the gradient there, and by how much it breaks the two conditions.
        is_safe: whether the loss decreases enough there.
        trials: how many rates were tried.
        done: whether both conditions hold at the best point, or no trial can be better.
        failed: whether the search gives up.
    """

    low: Point
    high: Point
    third: Point
    has_interval: jax.Array
    best: tuple[Point, Leaves, Errors]
    is_safe: jax.Array
    trials: jax.Array
    done: jax.Array
    failed: jax.Array


class ScaleByZoomLinesearch(LineSearch, name="scale_by_zoom_linesearch"):
    """u = t g,  t a rate at which the loss decreases enough and is flat enough along g."""

    max_linesearch_steps: Positive
    max_learning_rate: PositiveLimit | None
    tol: NonNegative
    increase_factor: Positive
    slope_rtol: NonNegative
    curv_rtol: Limit
    approx_dec_rtol: NonNegative | None
    stepsize_precision: NonNegative
    initial_guess_strategy: str
    verbose: bool

    curvature_error = WholeScalar()

    @property
    def tolerance(self) -> Any:
        return self.tol

    def check(self) -> None:
        if self.initial_guess_strategy not in get_args(Guess):
            raise ValueError(
                f"{self.name}: initial_guess_strategy must be 'one' or 'keep', got "
                f"{show(self.initial_guess_strategy)}."
            )

    def search(self, line: Line, before: jax.Array) -> Found:
        guess = before if self.initial_guess_strategy == "keep" else jnp.ones_like(before)
        start, none = line.start, jnp.zeros((), jnp.int32)
        zero = jnp.zeros_like(before)
        no, nowhere = none > 0, (start, line.grads, (zero, zero))

        def goes_on(s: _Search) -> jax.Array:
            return ~(s.done | s.failed)

        def trial(s: _Search) -> _Search:
            outside, is_largest = self._outside(s, guess)
            point, grads = line.point(jnp.where(s.has_interval, _inside(s), outside))
            return self._after(s, (point, grads, self._errors(point, start)), nowhere, is_largest)

        begin = _Search(start, start, start, no, nowhere, no, none, no, no)
        end = repeat(goes_on, trial, begin, line.params, line.us)
        point, grads, (decrease, curvature) = end.best
        return Found(point, grads, end.trials, {"decrease_error": decrease, "curvature_error": curvature})

    def _outside(self, s: _Search, guess: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The next rate as long as there is no interval, and whether it is the largest there may be."""
        rate = jnp.where(s.trials == 0, guess, self.increase_factor * s.low.rate)
        if self.max_learning_rate is None:
            return rate, s.trials < 0
        return jnp.minimum(rate, self.max_learning_rate), rate >= self.max_learning_rate

    def _errors(self, new: Point, start: Point) -> Errors:
        """By how much the conditions are broken: of a loss that decreases enough, and is flat enough."""
        decrease = new.value - start.value - self.slope_rtol * new.rate * start.slope
        if self.approx_dec_rtol is not None:
            # Where rounding hides the decrease of the loss, its slope shows it.
            rise = new.value - start.value - self.approx_dec_rtol * jnp.abs(start.value)
            slope = new.slope - (2 * self.slope_rtol - 1) * start.slope
            decrease = jnp.minimum(decrease, jnp.maximum(rise, slope))
        flat = jnp.where(start.slope == 0, 0, self.curv_rtol * jnp.abs(start.slope))
        curvature = jnp.abs(new.slope) - flat
        return broken(decrease), broken(curvature)

    def _after(
        self, s: _Search, new: tuple[Point, Leaves, Errors], nowhere: Any, is_largest: jax.Array
    ) -> _Search:
        """What is known after a trial."""
        point, _, (decrease, curvature) = new
        trials = s.trials + 1
        is_good = jnp.maximum(decrease, curvature) <= self.tol
        # The new point is one end: the far one if the loss has not fallen enough. Otherwise it is the best by
        # now, and the far end is where the loss still falls to: the old far end, or the point before.
        is_far = (decrease > 0) | ((point.value >= s.low.value) & (s.has_interval | (s.trials > 0)))
        onwards = jnp.where(s.has_interval, s.high.rate - s.low.rate, 1)
        turns = ~is_far & (point.slope * onwards >= 0)
        low = chosen(is_far, s.low, point)
        high = chosen(is_far, point, chosen(turns, s.low, s.high))
        third = chosen(s.has_interval, chosen(is_far | turns, s.high, s.low), low)
        has_interval = s.has_interval | is_far | turns | is_good
        done = is_good | (is_largest & ~has_interval)

        is_better = (decrease <= self.tol) & (~s.is_safe | (point.value < s.best[0].value))
        is_safe = s.is_safe | is_better
        # Where the loss has decreased enough nowhere, the last point has to do, if the loss is finite there.
        last = chosen(decrease < most(decrease), new, (*nowhere[:2], new[2]))
        best = chosen(is_better | done | ~is_safe, last, s.best)
        is_small = s.has_interval & (jnp.abs(s.high.rate - s.low.rate) <= self.stepsize_precision)
        failed = ~done & ((trials >= self.max_linesearch_steps) | (is_small & is_safe))
        return _Search(low, high, third, has_interval, best, is_safe, trials, done, failed)


def _inside(s: _Search) -> jax.Array:
    """A rate inside of the interval: where a cubic has its least value, or a parabola, or in the middle."""
    left, width = jnp.minimum(s.low.rate, s.high.rate), jnp.abs(s.high.rate - s.low.rate)
    cubic, parabola = _least_of_cubic(s.low, s.high, s.third), _least_of_parabola(s.low, s.high)

    def is_inside(rate: jax.Array, margin: float) -> jax.Array:
        return (rate > left + margin * width) & (rate < left + width - margin * width)

    rate = jnp.where(is_inside(parabola, 0.1), parabola, (s.low.rate + s.high.rate) / 2)
    return jnp.where(is_inside(cubic, 0.2), cubic, rate)


def _least_of_parabola(a: Point, b: Point) -> jax.Array:
    """Where the parabola through two points, with the slope at the first, is least; `a` if it is nowhere."""
    x = b.rate - a.rate
    rise = b.value - a.value - a.slope * x
    return a.rate - _quotient(a.slope * x * x, 2 * rise)


def _least_of_cubic(a: Point, b: Point, c: Point) -> jax.Array:
    """The same for the cubic through three points."""
    x, y = b.rate - a.rate, c.rate - a.rate
    rise_b, rise_c = b.value - a.value - a.slope * x, c.value - a.value - a.slope * y
    # The cubic is p t³ + q t² + a.slope t + a.value.
    below = (x * y) ** 2 * (x - y)
    p = _quotient(y * y * rise_b - x * x * rise_c, below)
    q = _quotient(x * x * x * rise_c - y * y * y * rise_b, below)
    square = q * q - 3 * p * a.slope
    root = jnp.sqrt(jnp.maximum(square, 0))
    # The same root in two forms, each without a difference of what is nearly equal.
    step = jnp.where(q > 0, _quotient(-a.slope, q + root), _quotient(root - q, 3 * p))
    return jnp.where(square >= 0, a.rate + step, a.rate)


def _quotient(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x / y`, and 0 where there is none."""
    has_one = (y != 0) & jnp.isfinite(x) & jnp.isfinite(y)
    return jnp.where(has_one, jnp.where(has_one, x, 0) / jnp.where(has_one, y, 1), 0)


@builds(ScaleByZoomLinesearch)
def scale_by_zoom_linesearch(
    max_linesearch_steps: ScalarOrSchedule,
    max_learning_rate: ScalarOrSchedule | None = None,
    tol: ScalarOrSchedule = 0.0,
    increase_factor: ScalarOrSchedule = 2.0,
    slope_rtol: ScalarOrSchedule = 1e-4,
    curv_rtol: ScalarOrSchedule = 0.9,
    approx_dec_rtol: ScalarOrSchedule | None = 1e-6,
    stepsize_precision: ScalarOrSchedule = 1e-5,
    initial_guess_strategy: Guess = "keep",
    verbose: bool = False,
) -> Transform:
    """Scales updates by a rate at which the loss has decreased enough and is flat enough.

    With f the loss, u the update, phi(t) = f(theta + t u) and c1, c2, c3 = slope_rtol, curv_rtol,
    approx_dec_rtol, the rate t is one with

        phi(t) <= phi(0) + c1 t phi'(0) + tol              and  |phi'(t)| <= c2 |phi'(0)| + tol

    (the strong Wolfe conditions). Where phi(t) <= phi(0) + c3 |phi(0)|, so that rounding may hide a
    decrease, phi'(t) <= (2 c1 - 1) phi'(0) + tol is as good as the first one. Rates are tried outwards until
    an interval must contain a good one; it is then made smaller by cubic and quadratic interpolation and
    bisection.

    When the trials are used up, or the interval is smaller than `stepsize_precision`, the best rate is taken
    at which the loss has decreased enough; without one the last rate, and 0 if the loss is not finite there.
    The rate is a constant to `jax.grad`, as the loss's other arguments are.

    Args:
        max_linesearch_steps: the largest number of trials, > 0; each evaluates the loss and its gradient.
        max_learning_rate: the largest rate, > 0; None for no bound.
        tol: by how much the conditions may be broken, >= 0.
        increase_factor: what a rate is multiplied by as long as there is no interval, > 0.
        slope_rtol: the decrease that is asked for, as a part of what the slope promises, >= 0; c1 above.
        curv_rtol: the slope that is allowed, as a part of the first one, >= 0; c2 above. `math.inf` asks for
            a decrease alone.
        approx_dec_rtol: how much of the loss rounding may hide, >= 0; c3 above. None for the first condition
            alone.
        stepsize_precision: the length of an interval that is not made smaller, >= 0.
        initial_guess_strategy: the first rate: `"keep"` for the last one that was found, `"one"` for 1, as
            suits a quasi-Newton method.
        verbose: whether to print the result of a search that found no rate to accept.

    Returns:
        A transform whose `update` needs the parameters, `value=`, the loss there, and `value_fn=`, the loss
        as a function of the parameters; further keyword arguments go to that function if it takes them. The
        gradient of the loss is the one that the chain was given, or `grad=`, as `jax.grad` gives it. The
        state has `learning_rate` (the rate), `value` and `grad` (the loss and its gradient after the step,
        for `value_and_grad_from_state`), `num_linesearch_steps`, `decrease_error` and `curvature_error` (0
        where the conditions hold).

    Raises:
        TypeError: while tracing, `value` or `value_fn` is missing, or `value_fn` is no function.
        ValueError: while tracing, the loss is no real number, or the leaves are shards inside `shard_map`.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> def loss(x):
        ...     return jnp.sum(x**2)
        >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(15))
        >>> x = jnp.array([1.0, 2.0, 3.0])
        >>> value, grad = jax.value_and_grad(loss)(x)
        >>> x, state = gradtx.apply_gradients(tx, grad, tx.init(x), x, value=value, value_fn=loss)
        >>> x.tolist()
        [0.0, 0.0, 0.0]

    References:
        Nocedal, Wright, Numerical Optimization, 2006, algorithms 3.5 and 3.6.
        Hager, Zhang, Algorithm 851: CG_DESCENT, 2006, https://doi.org/10.1145/1132973.1132979.
    """
    ...
