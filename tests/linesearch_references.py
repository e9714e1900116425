"""Float64 references of L-BFGS and of the two line searches.

In the formulas w are the parameters, u the updates that a line search is given, f the loss, and
<a, b> is the real part of the sum of conj(a) b over all leaves. A line search is given `grad` as
jax.grad has it, which for a complex leaf is the conjugate of the direction of steepest ascent: the
slope of t -> f(w + t u) is the real part of the sum of grad u, with no conjugate. `value_fn` and
`grad_fn` take a list of leaves, and give f and the list of its gradients.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from typing import NamedTuple

import numpy as np

from references import Chain, Number, Reference, ScaleByLearningRate, norm, wide


def inner(a, b):
    """Real part of the sum of conj(a) b over all leaves."""
    return float(sum(np.real(np.vdot(x, y)) for x, y in zip(a, b, strict=True)))


def slope(grad, u):
    """Derivative of t -> f(w + t u): the real part of the sum of grad u."""
    return inner([np.conj(wide(g)) for g in grad], u)


def along(a, t, b):
    """The leaves a + t b."""
    return [x + t * y for x, y in zip(a, b, strict=True)]


def times(t, u):
    """The leaves t u; zeros for t = 0, even where u is not finite."""
    return [t * x if t else np.zeros_like(x) for x in u]


class Pair(NamedTuple):
    """A step s, the change y of the gradient over it, and <s, y>."""

    s: list
    y: list
    sy: np.float64


def _pair(s, y):
    """The pair, or None where it does not count."""
    sy, ss, yy = (np.float64(x) for x in (inner(s, y), norm(*s), norm(*y)))
    usable = np.all(np.isfinite([ss, yy, sy, 1 / sy, sy / yy / yy]))
    return Pair(s, y, sy) if usable and sy > np.finfo(np.float64).eps * ss * yy else None


@dataclasses.dataclass
class ScaleByLbfgs(Reference):
    """H g, H the inverse Hessian that the latest pairs s = w_k - w_{k-1}, y = g_k - g_{k-1} make.

    H_0 = gamma I;  H_{j+1} = (I - rho s y^T) H_j (I - rho y s^T) + rho s s^T, rho = 1 / <s, y>, over
    the pairs from the oldest to the latest. gamma = <s, y> / <y, y> of the latest pair, and without
    a pair min(1, 1 / ||g||); 1 throughout without `scale_init_precond`.

    Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms 7.4 and 7.5; Liu and Nocedal
    1989. A pair with <s, y> <= eps ||s|| ||y||, or one that is not finite, takes a place in the
    memory but is passed over: with it H would not be positive definite. The first gamma is Optax's,
    which also takes every pair as it is: the two are the same where <s, y> > 0.
    """

    memory_size: int = 10
    scale_init_precond: bool = True

    def init(self, params):
        super().init(params)
        self.pairs = collections.deque(maxlen=self.memory_size)
        self.before = None

    @np.errstate(all="ignore")
    def update(self, grads, params, **extra):
        h = self.numbers()
        g, w = [wide(x) for x in grads], [wide(x) for x in params]
        if self.before:
            self.pairs.append(_pair(along(w, -1, self.before[0]), along(g, -1, self.before[1])))
        self.before = w, g
        pairs = [pair for pair in self.pairs if pair]

        gamma, size = 1.0, norm(*g)
        if h.scale_init_precond and pairs:
            gamma = pairs[-1].sy / norm(*pairs[-1].y) / norm(*pairs[-1].y)
        elif h.scale_init_precond and size > 1:
            gamma = 1 / size
        q, alphas = g, []
        for s, y, sy in reversed(pairs):
            alphas.append(inner(s, q) / sy)
            q = along(q, -alphas[-1], y)
        r = [gamma * x for x in q]
        for (s, y, sy), alpha in zip(pairs, reversed(alphas), strict=True):
            r = along(r, alpha - inner(y, r) / sy, s)
        return r


class _LineSearch(Reference):
    """The frame of a line search; after an update `rate`, `value` and `trials` tell how it went."""

    def init(self, params):
        super().init(params)
        self.rate, self.value, self.trials = 1.0, math.inf, 0

    def previous(self):
        """The rate before; 1 at first, and after a search that found none."""
        return self.rate or 1.0


@dataclasses.dataclass
class ScaleByBacktrackingLinesearch(_LineSearch):
    """t u, t the first trial with f(w + t u) <= (1 + rtol) f(w) + t slope_rtol <grad, u> + atol.

    The first trial is min(increase_factor t_before, max_learning_rate), each further one is
    decrease_factor times the one before. The last of the max_backtracking_steps + 1 is taken as it
    is, but t = 0 where f is not finite there.

    Nocedal and Wright, Numerical Optimization, algorithm 3.1; the first trial as in Vaswani et al.
    2019, arXiv:1905.09997. After t = 0 the search starts anew from 1; Optax stays at 0 from then on.
    """

    max_backtracking_steps: int
    slope_rtol: Number = 1e-4
    decrease_factor: Number = 0.8
    increase_factor: Number = 1.5
    max_learning_rate: Number = 1.0
    atol: Number = 0.0
    rtol: Number = 0.0
    store_grad: bool = False

    def init(self, params):
        super().init(params)
        self.decrease_error = math.inf

    @np.errstate(all="ignore")
    def update(self, grads, params, *, value, grad, value_fn, **extra):
        h = self.numbers()
        u, w, f0 = [wide(x) for x in grads], [wide(x) for x in params], float(value)
        descent = slope(grad, u)
        t = min(h.increase_factor * self.previous(), h.max_learning_rate)
        for self.trials in range(1, h.max_backtracking_steps + 2):
            f = float(value_fn(along(w, t, u)))
            error = f - (1 + h.rtol) * f0 - t * h.slope_rtol * descent
            if error <= h.atol or self.trials == h.max_backtracking_steps + 1:
                break
            t *= h.decrease_factor
        self.decrease_error = math.inf if math.isnan(error) else max(error, 0.0)
        self.rate, self.value = (t, f) if math.isfinite(f) else (0.0, f0)
        return times(self.rate, u)


class Point(NamedTuple):
    """A trial t, f(w + t u) and the slope there."""

    t: float
    f: float
    d: float


def _cubic(a, b, c):
    """The minimum of the cubic with a's value and slope, and the values of b and c.

    The cubic is a.f + a.d x + second x^2 + third x^3, x = t - a.t. Of the two ways to write its
    minimum each is taken where nothing cancels: `third` is all rounding where f is quadratic.
    """
    b_rest, c_rest = ((x.f - a.f - a.d * (x.t - a.t)) / (x.t - a.t) ** 2 for x in (b, c))
    third = (b_rest - c_rest) / (b.t - c.t)
    second = b_rest - third * (b.t - a.t)
    root = np.sqrt(second**2 - 3 * third * a.d)
    return a.t + (-a.d / (second + root) if second > 0 else (root - second) / (3 * third))


def _quadratic(a, b):
    """The minimum of the parabola with a's value and slope, and b's value."""
    width = b.t - a.t
    return a.t - a.d * width**2 / (2 * (b.f - a.f - a.d * width))


def _interpolate(low, high, third):
    """A trial within the interval: of the cubic, else of the parabola, else its middle."""
    left, right = min(low.t, high.t), max(low.t, high.t)
    for t, margin in ((_cubic(low, high, third), 0.2), (_quadratic(low, high), 0.1)):
        if left + margin * (right - left) < t < right - margin * (right - left):
            return t
    return (left + right) / 2


@dataclasses.dataclass
class ScaleByZoomLinesearch(_LineSearch):
    """t u, t such that f decreases enough and its slope flattens enough; d(t) is the slope at t.

    Decrease: f(t) <= f(0) + slope_rtol t d(0), or, f(t) being at most f(0) + approx_dec_rtol |f(0)|,
    d(t) <= (2 slope_rtol - 1) d(0) (Hager and Zhang 2006, equations 23 and 27; not for None).
    Curvature: |d(t)| <= curv_rtol |d(0)|. Either may be missed by `tol`.

    Nocedal and Wright, Numerical Optimization, algorithm 3.5, which multiplies t by increase_factor
    until an interval must hold such a t, and 3.6, which narrows it. Where the trials are used up, or
    the interval was no wider than stepsize_precision, the step is the lowest trial of enough decrease;
    without any the last trial of all, but t = 0 where f or d is not finite there. A trial at
    max_learning_rate that 3.5 would pass is taken. The decisions are those of Optax, which, however,
    takes the last trial of enough decrease of 3.5 before any, stays at t = 0 with "keep", where here
    the next search starts from 1; for complex leaves has the slope at 0 from the conjugate of grad;
    and has rounding for the minimum of a cubic that is nearly a parabola.
    """

    max_linesearch_steps: int
    max_learning_rate: Number | None = None
    tol: Number = 0.0
    increase_factor: Number = 2.0
    slope_rtol: Number = 1e-4
    curv_rtol: Number = 0.9
    approx_dec_rtol: Number | None = 1e-6
    stepsize_precision: Number = 1e-5
    initial_guess_strategy: str = "keep"

    @np.errstate(all="ignore")
    def update(self, grads, params, *, value, grad, value_fn, grad_fn, **extra):
        h = self.numbers()
        u, w = [wide(x) for x in grads], [wide(x) for x in params]

        def trial(t):
            at = along(w, t, u)
            return Point(np.float64(t), np.float64(value_fn(at)), np.float64(slope(grad_fn(at), u)))

        zero = Point(np.float64(0), np.float64(value), np.float64(slope(grad, u)))
        guess = {"one": 1.0, "keep": self.previous()}[h.initial_guess_strategy]
        found = self.search(trial, zero, guess, h)
        self.rate, self.value = float(found.t), float(found.f)
        return times(self.rate, u)

    def errors(self, at, zero, h):
        """By how much a trial misses the decrease and the curvature; inf for NaN."""
        decrease = at.f - zero.f - h.slope_rtol * at.t * zero.d
        if h.approx_dec_rtol is not None:
            near = at.f - zero.f - h.approx_dec_rtol * abs(zero.f)
            flat = at.d - (2 * h.slope_rtol - 1) * zero.d
            decrease = np.minimum(decrease, np.maximum(flat, near))
        curvature = abs(at.d) - h.curv_rtol * abs(zero.d)
        return (math.inf if np.isnan(x) else max(x, 0.0) for x in (decrease, curvature))

    def search(self, trial, zero, guess, h):
        safe = before = zero
        low = high = third = None
        for self.trials in range(1, max(h.max_linesearch_steps, 1) + 1):
            limited = small = False
            if low is None:
                t = guess if self.trials == 1 else h.increase_factor * before.t
                limited = h.max_learning_rate is not None and t >= h.max_learning_rate
                new = trial(h.max_learning_rate if limited else t)
            else:
                small = abs(high.t - low.t) <= h.stepsize_precision
                new = trial(_interpolate(low, high, third))
            decrease, curvature = self.errors(new, zero, h)
            if max(decrease, curvature) <= h.tol:
                return new
            if decrease <= h.tol and (safe.t == 0 or new.f < safe.f):
                safe = new
            if small and safe.t > 0:
                break
            if low is None:
                if decrease > 0 or (self.trials > 1 and new.f >= before.f):
                    low, high, third = before, new, before
                elif new.d >= 0:
                    low, high, third = new, before, new
                elif limited:
                    return new
                before = new
            elif decrease > 0 or new.f >= low.f:
                high, third = new, high
            elif new.d * (high.t - low.t) >= 0:
                low, high, third = new, low, high
            else:
                low, third = new, low
        return safe if safe.t > 0 or math.isinf(decrease) else new


class Lbfgs(Chain):
    """-eta H g with the H of `ScaleByLbfgs`, eta 1 unless given, times the rate of a zoom search.

    The search has 20 trials and starts from 1. Liu and Nocedal 1989.
    """

    def __init__(self, learning_rate=None, memory_size=10, scale_init_precond=True):
        super().__init__(
            ScaleByLbfgs(memory_size, scale_init_precond),
            ScaleByLearningRate(1.0 if learning_rate is None else learning_rate),
            ScaleByZoomLinesearch(20, initial_guess_strategy="one"),
        )
        self.direction, self.search = self.references[0], self.references[-1]
