"""Float64 references: every algorithm a second time, from its paper, in plain numpy.

They share nothing with the library, so that a wrong formula cannot hide in both. A reference is
an object with

    init(params)                    params: a list of arrays, one a leaf
    update(grads, params, **extra)  the updates, a list of arrays to be added to the parameters

and keeps its own slots and step counter. Its constructor takes the names that the library uses;
a number may also be a schedule, a function of the step, which is 0 at the first update. In the
formulas t is 1 at the first update, g is a gradient and theta a parameter. A complex leaf counts
|g|^2 wherever a real one counts g^2.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

Schedule = Callable[[int], float]
Number = float | Schedule


def wide(x):
    """x as an array of float64, or complex128 if it is complex."""
    return np.asarray(x, np.result_type(x, np.float64))


def square(x):
    """|x|^2, which is real."""
    return np.real(x) ** 2 + np.imag(x) ** 2


def rms(x):
    """Root of the mean of |x|^2 over a leaf, 0 for an empty one."""
    return np.sqrt(np.mean(square(x))) if np.size(x) else 0.0


def norm(*leaves):
    """Root of the sum of |x|^2 over all leaves."""
    return math.sqrt(sum(np.sum(square(wide(x))) for x in leaves))


def divide(x, y):
    """x / y, where zero over zero is zero."""
    x, y = np.broadcast_arrays(x, y)
    out = np.zeros(x.shape, np.result_type(x, y))
    return np.divide(x, y, out=out, where=(x != 0) | (y != 0))


def sign(x):
    """x / |x|, 0 at 0; for a real x its sign."""
    return divide(x, np.abs(x))


def run(reference, params, grads_by_step, **extra):
    """The parameters after each step.

    Each entry of `grads_by_step` is a list of gradients, or a function from the parameters to one.
    """
    params = [wide(p) for p in params]
    reference.init(params)
    trajectory = []
    for entry in grads_by_step:
        grads = entry(params) if callable(entry) else entry
        updates = reference.update(grads, params, **extra)
        params = [p + u for p, u in zip(params, updates, strict=True)]
        trajectory.append(params)
    return trajectory


class Slots(SimpleNamespace):
    """What a leaf carries from step to step; a slot that was not written yet is 0."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return 0.0


class Reference:
    """The frame of a reference that treats each leaf by itself.

    A subclass is a dataclass of hyperparameters with one method, `leaf(g, p, s, h)`: the update of
    a leaf from its gradient, its parameter, its slots and the step's numbers. The numbers are the
    hyperparameters, t, and the leaf's index.
    """

    def init(self, params):
        self.t = 0
        self.slots = [Slots() for _ in params]

    def numbers(self):
        """Begin the next step: its t, and every schedule at t - 1."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values = {k: v(self.t) if callable(v) and k != "decay_rate_fn" else v for k, v in fields.items()}
        self.t += 1
        return SimpleNamespace(t=self.t, **values)

    def update(self, grads, params, **extra):
        h = self.numbers()
        updates = []
        for i, (g, p, s) in enumerate(zip(grads, params, self.slots, strict=True)):
            h.index = i
            updates.append(wide(self.leaf(wide(g), wide(p), s, h)))
        return updates

    def leaf(self, g, p, s, h):
        raise NotImplementedError


# The arithmetic that a transform and its optimizer have in common. Each takes the gradient, the
# leaf's slots, which it moves on, and the step's numbers.


def _l2(g, p, weight_decay):
    """g + lambda theta: the gradient of the loss with 1/2 lambda |theta|^2 added."""
    return g if weight_decay is None else g + weight_decay * p


def _decays(h):
    return h.mask is None or h.mask[h.index]


def _decay(p, h):
    """lambda theta; 0 without a lambda, and on a leaf outside the mask."""
    return 0.0 if h.weight_decay is None or not _decays(h) else h.weight_decay * p


def _heavy_ball(u, s, h):
    """v = mu v + u; gives v, or u + mu v with Nesterov's momentum."""
    s.v = h.momentum * s.v + u
    return u + h.momentum * s.v if h.nesterov else s.v


def _trace(g, s, decay, h):
    damped = g if h.t == 1 and not h.dampen_first else (1 - h.dampening) * g
    s.v = decay * s.v + damped
    return g + decay * s.v if h.nesterov else s.v


def _rss(g, s, h):
    s.sum = (h.initial_accumulator_value if h.t == 1 else s.sum) + square(g)
    return divide(g, np.sqrt(s.sum + h.eps) if h.eps_in_sqrt else np.sqrt(s.sum) + h.eps)


def _rms(g, s, h, centered):
    if h.t == 1:
        s.nu = h.initial_scale
    old = 0.0 if h.first_gradient and h.t == 1 else h.decay
    s.mu = old * s.mu + (1 - old) * g
    s.nu = old * s.nu + (1 - old) * square(g)
    correction = 1 - h.decay**h.t if h.bias_correction else 1.0
    moment = s.nu / correction
    if centered:
        moment = np.maximum(moment - square(s.mu / correction), 0.0)
    return divide(g, np.sqrt(moment + h.eps) if h.eps_in_sqrt else np.sqrt(moment) + h.eps)


def _adadelta(g, s, h):
    s.g2 = h.rho * s.g2 + (1 - h.rho) * square(g)
    delta = divide(np.sqrt(s.d2 + h.eps) * g, np.sqrt(s.g2 + h.eps))
    s.d2 = h.rho * s.d2 + (1 - h.rho) * square(delta)
    return delta


def _mean(g, s, h, nesterov=False, bias_correction=True):
    """m = b1 m + (1 - b1) g; gives m^, one step ahead with Nesterov's momentum."""
    s.m = h.b1 * s.m + (1 - h.b1) * g
    c, c_next = (1 - h.b1**h.t, 1 - h.b1 ** (h.t + 1)) if bias_correction else (1.0, 1.0)
    return h.b1 * s.m / c_next + (1 - h.b1) * g / c if nesterov else s.m / c


def _over_root(m, v, eps, eps_root=0.0):
    return divide(m, np.sqrt(v + eps_root) + eps)


def _adam(g, s, h, nesterov, bias_correction=True, eps_scaled=False):
    m_hat = _mean(g, s, h, nesterov, bias_correction)
    s.v = h.b2 * s.v + (1 - h.b2) * square(g)
    c = 1 - h.b2**h.t if bias_correction else 1.0
    if eps_scaled:
        return math.sqrt(c) * _over_root(m_hat, s.v, h.eps, h.eps_root)
    return _over_root(m_hat, s.v / c, h.eps, h.eps_root)


def _ademamix(g, s, h):
    s.m1 = h.b1 * s.m1 + (1 - h.b1) * g
    s.m2 = h.b3 * s.m2 + (1 - h.b3) * g
    s.v = h.b2 * s.v + (1 - h.b2) * square(g)
    m = s.m1 / (1 - h.b1**h.t) + h.alpha * s.m2
    return _over_root(m, s.v / (1 - h.b2**h.t), h.eps, h.eps_root)


def _belief(g, s, h):
    m_hat = _mean(g, s, h, h.nesterov)
    s.v = h.b2 * s.v + (1 - h.b2) * square(g - s.m) + h.eps_root
    return _over_root(m_hat, s.v / (1 - h.b2**h.t), h.eps)


def _yogi(g, s, h, eps_root, initial_accumulator_value):
    if h.t == 1:
        s.m = s.v = initial_accumulator_value
    m_hat = _mean(g, s, h)
    s.v = s.v - (1 - h.b2) * sign(s.v - square(g)) * square(g)
    return _over_root(m_hat, s.v / (1 - h.b2**h.t), h.eps, eps_root)


def _amsgrad(g, s, h):
    m_hat = _mean(g, s, h, bias_correction=h.bias_correction_mu)
    s.v = h.b2 * s.v + (1 - h.b2) * square(g)
    s.largest = np.maximum(s.largest, s.v / (1 - h.b2**h.t) if h.bias_correction_nu else s.v)
    return _over_root(m_hat, s.largest, h.eps, h.eps_root)


def _adamax(g, s, h):
    m_hat = _mean(g, s, h)
    s.n = np.maximum(h.b2 * s.n, np.abs(g) + h.eps)
    return divide(m_hat, s.n)


def _adan(g, s, h):
    change = g - s.g if h.t > 1 else np.zeros_like(g)
    s.g = g
    s.m = h.b1 * s.m + (1 - h.b1) * g
    s.d = h.b2 * s.d + (1 - h.b2) * change
    s.n = h.b3 * s.n + (1 - h.b3) * square(g + h.b2 * change)
    m_hat, d_hat, n_hat = s.m / (1 - h.b1**h.t), s.d / (1 - h.b2**h.t), s.n / (1 - h.b3**h.t)
    return _over_root(m_hat + h.b2 * d_hat, n_hat, h.eps, h.eps_root)


def _radam(g, s, h):
    m_hat = _mean(g, s, h, h.nesterov)
    s.v = h.b2 * s.v + (1 - h.b2) * square(g)
    rho_inf = 2 / (1 - h.b2) - 1
    rho = 2 * np.average(np.arange(1, h.t + 1), weights=h.b2 ** np.arange(h.t)) - 1
    if rho < h.threshold:
        return m_hat
    r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    c2 = 1 - h.b2**h.t
    eps, eps_root = (h.eps / math.sqrt(c2), h.eps_root / c2) if h.eps_scaled else (h.eps, h.eps_root)
    return r * _over_root(m_hat, s.v / c2, eps, eps_root)


def _novograd(g, p, s, h):
    b2 = h.b2 if h.t > 1 else 0.0
    s.v = b2 * s.v + (1 - b2) * np.sum(square(g))
    s.m = h.b1 * s.m + _over_root(g, s.v, h.eps, h.eps_root) + h.weight_decay * p
    return s.m


def _rprop(g, s, h):
    if h.t == 1:
        s.step = h.learning_rate
    turn = sign(g) * s.sign
    longer = np.minimum(h.eta_plus * s.step, h.max_step_size)
    shorter = np.maximum(h.eta_minus * s.step, h.min_step_size)
    s.step = np.where(turn > 0, longer, np.where(turn < 0, shorter, s.step))
    s.sign = np.where(turn < 0, 0.0, sign(g))
    return s.step * s.sign


def _sm3(g, s, h, b1, b2, eps):
    v = b2 * s.least + (1.0 if b2 == 1 else 1 - b2) * square(g)
    axes = range(v.ndim)
    others = [tuple(other for other in axes if other != axis) for axis in axes]
    largest = [v.max(over, keepdims=True, initial=0.0) for over in others]
    s.least = functools.reduce(np.minimum, largest or [v])
    s.m = b1 * s.m + (1 - b1) * divide(g, np.sqrt(v + eps))
    return s.m


def _trust(u, p, min_norm=0.0, trust_coefficient=1.0, eps=0.0):
    theta, length = max(norm(p), min_norm), max(norm(u), min_norm)
    return u if theta == 0 or length == 0 else trust_coefficient * theta / (length + eps) * u


def _optimistic(g, s, h):
    old = s.g if h.t > 1 else g
    s.g = g
    return (h.alpha + h.beta) * g - h.beta * old


def _lion(g, s, h):
    direction = sign(h.b1 * s.m + (1 - h.b1) * g)
    s.m = h.b2 * s.m + (1 - h.b2) * g
    return direction


def _factored_axes(shape, h):
    """The two largest axes, the later ones among equals, or None where a leaf is not factored."""
    if not h.factored or len(shape) < 2:
        return None
    axes = sorted(range(len(shape)), key=lambda axis: (shape[axis], axis))[-2:]
    return axes if shape[axes[0]] >= h.min_dim_size_to_factor else None


def _factored_rms(g, s, h, step_offset, epsilon):
    if getattr(h, "decay_rate_fn", None) is None:
        beta2 = 1 - max(h.t - step_offset, 1) ** -h.decay_rate
    else:
        beta2 = h.decay_rate_fn(h.t - 1 - step_offset, h.decay_rate)
    g2 = square(g) + epsilon
    axes = _factored_axes(g.shape, h)
    if axes is None:
        s.v = beta2 * s.v + (1 - beta2) * g2
        return divide(g, np.sqrt(s.v))
    rows, columns = axes
    s.row = beta2 * s.row + (1 - beta2) * g2.mean(columns, keepdims=True)
    s.column = beta2 * s.column + (1 - beta2) * g2.mean(rows, keepdims=True)
    return divide(g, np.sqrt(divide(s.row * s.column, s.row.mean(rows, keepdims=True))))


def _clip_block_rms(u, threshold):
    return u / np.maximum(1.0, rms(u) / threshold)


class Chain(Reference):
    """Each reference transforms the updates of the one before."""

    def __init__(self, *references):
        self.references = references

    def init(self, params):
        for reference in self.references:
            reference.init(params)

    def update(self, grads, params, **extra):
        for reference in self.references:
            grads = reference.update(grads, params, **extra)
        return grads


class Sum(Chain):
    """The sum of what several references make of one gradient."""

    def update(self, grads, params, **extra):
        outputs = [reference.update(grads, params, **extra) for reference in self.references]
        return [sum(leaves) for leaves in zip(*outputs, strict=True)]


class Ratio(Chain):
    """a(g) / b(g), where zero over zero is zero."""

    def __init__(self, a, b):
        super().__init__(a, b)

    def update(self, grads, params, **extra):
        a, b = (reference.update(grads, params, **extra) for reference in self.references)
        return [divide(x, y) for x, y in zip(a, b, strict=True)]


@dataclasses.dataclass
class Identity(Reference):
    """g."""

    def leaf(self, g, p, s, h):
        return g


@dataclasses.dataclass
class SetToZero(Reference):
    """0."""

    def leaf(self, g, p, s, h):
        return np.zeros_like(g)


@dataclasses.dataclass
class Scale(Reference):
    """c g."""

    step_size: Number

    def leaf(self, g, p, s, h):
        return h.step_size * g


@dataclasses.dataclass
class ScaleByLearningRate(Reference):
    """-eta g, or eta g without the flip of the sign."""

    learning_rate: Number
    flip_sign: bool = True

    def leaf(self, g, p, s, h):
        return -h.learning_rate * g if h.flip_sign else h.learning_rate * g


@dataclasses.dataclass
class ScaleBySchedule(Reference):
    """c(t - 1) g."""

    step_size_fn: Schedule

    def leaf(self, g, p, s, h):
        return h.step_size_fn * g


@dataclasses.dataclass
class Clip(Reference):
    """min(max(g, -c), c), elementwise."""

    max_delta: Number

    def leaf(self, g, p, s, h):
        return np.clip(g, -h.max_delta, h.max_delta)


@dataclasses.dataclass
class ClipByGlobalNorm(Reference):
    """g min(1, c / ||g||), the norm over all leaves (Pascanu et al. 2013, arXiv:1211.5063)."""

    max_norm: Number

    def update(self, grads, params, **extra):
        h = self.numbers()
        length = norm(*grads)
        factor = h.max_norm / length if length > h.max_norm else 1.0
        return [factor * wide(g) for g in grads]


@dataclasses.dataclass
class ClipByBlockRms(Reference):
    """g / max(1, rms(g) / c), the root mean square over each leaf (arXiv:1804.04235, section 6)."""

    threshold: Number

    def leaf(self, g, p, s, h):
        return _clip_block_rms(g, h.threshold)


@dataclasses.dataclass
class AddDecayedWeights(Reference):
    """g + lambda theta, on the leaves that `mask`, a list of booleans, names."""

    weight_decay: Number
    mask: list[bool] | None = None

    def leaf(self, g, p, s, h):
        return g + h.weight_decay * p if _decays(h) else g


@dataclasses.dataclass
class Ema(Reference):
    """m = b m + (1 - b) g from m = 0; gives m / (1 - b^t), or m without the debiasing."""

    decay: Number
    debias: bool = True

    def leaf(self, g, p, s, h):
        s.m = h.decay * s.m + (1 - h.decay) * g
        return s.m / (1 - h.decay**h.t) if h.debias else s.m


@dataclasses.dataclass
class Debias(Reference):
    """g / (1 - b^t)."""

    decay: Number

    def leaf(self, g, p, s, h):
        return g / (1 - h.decay**h.t)


@dataclasses.dataclass
class Square(Reference):
    """|g|^2."""

    def leaf(self, g, p, s, h):
        return square(g)


@dataclasses.dataclass
class Sqrt(Reference):
    """The square root of g."""

    def leaf(self, g, p, s, h):
        return np.sqrt(g)


@dataclasses.dataclass
class Sign(Reference):
    """g / |g|, and 0 at 0."""

    def leaf(self, g, p, s, h):
        return sign(g)


@dataclasses.dataclass
class Offset(Reference):
    """g + c."""

    value: Number

    def leaf(self, g, p, s, h):
        return g + h.value


@dataclasses.dataclass
class Trace(Reference):
    """v = mu v + (1 - tau) g from v = 0; gives v, or g + mu v with Nesterov's momentum.

    With `dampen_first=False` the first step is v = g, which is what torch does. Polyak 1964;
    Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning".
    """

    decay: Number
    nesterov: bool = False
    dampening: Number = 0.0
    dampen_first: bool = True

    def leaf(self, g, p, s, h):
        return _trace(g, s, h.decay, h)


@dataclasses.dataclass
class ScaleByRss(Reference):
    """G = G + |g|^2; gives g / sqrt(G + eps), or g / (sqrt(G) + eps).

    AdaGrad: Duchi, Hazan and Singer 2011, "Adaptive subgradient methods", with diagonal matrices.
    """

    initial_accumulator_value: Number = 0.1
    eps: Number = 1e-7
    eps_in_sqrt: bool = True

    def leaf(self, g, p, s, h):
        return _rss(g, s, h)


@dataclasses.dataclass
class ScaleByRms(Reference):
    """nu = b nu + (1 - b) |g|^2; gives g / sqrt(nu + eps), or g / (sqrt(nu) + eps).

    nu starts at `initial_scale`. With `first_gradient` the first average is |g|^2 itself, the
    form of the founding lecture; with `bias_correction` nu / (1 - b^t) takes the place of nu.
    RMSProp: Tieleman and Hinton 2012, lecture 6.5.
    """

    decay: Number = 0.9
    eps: Number = 1e-8
    initial_scale: Number = 0.0
    eps_in_sqrt: bool = True
    bias_correction: bool = False
    first_gradient: bool = False

    def leaf(self, g, p, s, h):
        return _rms(g, s, h, centered=False)


@dataclasses.dataclass
class ScaleByStddev(ScaleByRms):
    """`ScaleByRms` with the variance nu - |mu|^2, not below 0, in the place of nu.

    mu = b mu + (1 - b) g from mu = 0; `bias_correction` and `first_gradient` apply to mu as well.
    Graves 2013, arXiv:1308.0850, section 4.2.
    """

    def leaf(self, g, p, s, h):
        return _rms(g, s, h, centered=True)


@dataclasses.dataclass
class ScaleByAdadelta(Reference):
    """d = sqrt(E[d^2] + eps) / sqrt(E[g^2] + eps) g, both averages from 0 with decay rho.

    E[g^2] takes in g before d is formed, E[d^2] takes in d after. Zeiler 2012, arXiv:1212.5701.
    """

    rho: Number = 0.9
    eps: Number = 1e-6

    def leaf(self, g, p, s, h):
        return _adadelta(g, s, h)


@dataclasses.dataclass
class ScaleByAdam(Reference):
    """m = b1 m + (1 - b1) g and v = b2 v + (1 - b2) |g|^2, both from 0; gives

        m^ / (sqrt(v^ + eps_root) + eps),  m^ = m / (1 - b1^t),  v^ = v / (1 - b2^t).

    `eps_scaled`: sqrt(1 - b2^t) m^ / (sqrt(v + eps_root) + eps), the efficient form at the end of
    the paper's section 2. `nesterov` (Dozat 2016, "Incorporating Nesterov momentum into Adam"):
    m^ = b1 m / (1 - b1^(t + 1)) + (1 - b1) g / (1 - b1^t). Without `bias_correction` every
    1 - b^t is 1. Kingma and Ba 2015, arXiv:1412.6980.
    """

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    eps_root: Number = 0.0
    nesterov: bool = False
    bias_correction: bool = True
    eps_scaled: bool = False

    def leaf(self, g, p, s, h):
        return _adam(g, s, h, h.nesterov, h.bias_correction, h.eps_scaled)


@dataclasses.dataclass
class ScaleByAdemamix(Reference):
    """m1 = b1 m1 + (1 - b1) g, m2 = b3 m2 + (1 - b3) g and v = b2 v + (1 - b2) |g|^2, all from 0; gives

        (m1 / (1 - b1^t) + alpha m2) / (sqrt(v / (1 - b2^t) + eps_root) + eps).

    Pagliardini, Ablin and Grangier 2024, arXiv:2409.03137, algorithm 1, where eps_root is 0.
    """

    b1: Number = 0.9
    b2: Number = 0.999
    b3: Number = 0.9999
    alpha: Number = 6.0
    eps: Number = 1e-8
    eps_root: Number = 0.0

    def leaf(self, g, p, s, h):
        return _ademamix(g, s, h)


@dataclasses.dataclass
class ScaleByBelief(Reference):
    """m^ / (sqrt(s^) + eps) with Adam's m^, s = b2 s + (1 - b2) |g - m|^2 + eps_root and s^ = s / (1 - b2^t).

    m is the new one, and s keeps every eps_root. `nesterov` as in `ScaleByAdam`. AdaBelief: Zhuang
    et al. 2020, arXiv:2010.07468, algorithm 2, where one epsilon is both.
    """

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-16
    eps_root: Number = 1e-16
    nesterov: bool = False

    def leaf(self, g, p, s, h):
        return _belief(g, s, h)


@dataclasses.dataclass
class ScaleByYogi(Reference):
    """Adam with v = v - (1 - b2) sign(v - |g|^2) |g|^2, so that v moves by |g|^2 at most.

    m and v both start at `initial_accumulator_value`, and are corrected as if from 0, as Adam's; the
    paper has no correction. Zaheer et al. 2018, "Adaptive methods for nonconvex optimization",
    algorithm 2.
    """

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-3
    eps_root: Number = 0.0
    initial_accumulator_value: Number = 1e-6

    def leaf(self, g, p, s, h):
        return _yogi(g, s, h, h.eps_root, h.initial_accumulator_value)


@dataclasses.dataclass
class ScaleByAmsgrad(Reference):
    """Adam with the largest v^ so far in the place of v^.

    The two flags leave out the correction of m or v, the paper's form without both. Reddi, Kale and
    Kumar 2018, "On the convergence of Adam and beyond", algorithm 2.
    """

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    eps_root: Number = 0.0
    bias_correction_mu: bool = True
    bias_correction_nu: bool = True

    def leaf(self, g, p, s, h):
        return _amsgrad(g, s, h)


@dataclasses.dataclass
class ScaleByAdamax(Reference):
    """m^ / n with Adam's m^ and n = max(b2 n, |g| + eps) from 0.

    Kingma and Ba 2015, arXiv:1412.6980, algorithm 2, without the eps.
    """

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8

    def leaf(self, g, p, s, h):
        return _adamax(g, s, h)


@dataclasses.dataclass
class ScaleByAdan(Reference):
    """(m^ + b2 d^) / (sqrt(n^ + eps_root) + eps), each an average from 0 over its 1 - b^t:

        m = b1 m + (1 - b1) g,  d = b2 d + (1 - b2) c,  n = b3 n + (1 - b3) |g + b2 c|^2

    with the change c = g - (the gradient before), 0 at the first step. Xie et al. 2022,
    arXiv:2208.06677, algorithm 1, whose betas are the 1 - b of here: its factor 1 - beta2 of the
    changes is b2, as in the authors' code, which adds the corrections.
    """

    b1: Number = 0.98
    b2: Number = 0.92
    b3: Number = 0.99
    eps: Number = 1e-8
    eps_root: Number = 0.0

    def leaf(self, g, p, s, h):
        return _adan(g, s, h)


@dataclasses.dataclass
class ScaleByRadam(Reference):
    """Adam's direction times r where rho_t >= threshold, before that m^ alone:

        r = sqrt((rho_t - 4) (rho_t - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho_t)).

    rho_t, the length of the plain average that looks back as far as v^ does, is 2 a - 1, where a is
    the mean age of the gradients in v^, 1 for the newest, with weights b2^(age - 1); rho_inf is its
    limit 2 / (1 - b2) - 1. This is the paper's rho_inf - 2 t b2^t / (1 - b2^t) without the
    cancellation. Its threshold is 4, that of the authors' code 5. `nesterov` and
    `eps_scaled` as in `ScaleByAdam`.
    Liu et al. 2020, arXiv:1908.03265, section 4 and algorithm 2.
    """

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    eps_root: Number = 0.0
    threshold: Number = 5.0
    nesterov: bool = False
    eps_scaled: bool = False

    def leaf(self, g, p, s, h):
        return _radam(g, s, h)


@dataclasses.dataclass
class ScaleByNovograd(Reference):
    """m = b1 m + g / (sqrt(v + eps_root) + eps) + lambda theta from 0, v = b2 v + (1 - b2) ||g||^2.

    v is one number a leaf, at the first step ||g||^2 itself. Ginsburg et al. 2019, arXiv:1905.11286,
    algorithm 1.
    """

    b1: Number = 0.9
    b2: Number = 0.25
    eps: Number = 1e-8
    eps_root: Number = 0.0
    weight_decay: Number = 0.0

    def leaf(self, g, p, s, h):
        return _novograd(g, p, s, h)


@dataclasses.dataclass
class ScaleByRprop(Reference):
    """step sign(g), with a step for each element, the first one `learning_rate`.

    Where g has the sign of the gradient before, the step grows by eta_plus, up to the maximum; where
    it has the other one, the step shrinks by eta_minus, down to the minimum, the element does not
    move, and 0 is remembered in the place of g. For real leaves. Riedmiller and Braun 1993, "A direct
    adaptive method for faster backpropagation learning"; in the form iRprop- of Igel and Hüsken
    2003, "Empirical evaluation of the improved Rprop learning algorithms", which is PyTorch's.
    """

    learning_rate: Number
    eta_minus: Number = 0.5
    eta_plus: Number = 1.2
    min_step_size: Number = 1e-6
    max_step_size: Number = 50.0

    def leaf(self, g, p, s, h):
        return _rprop(g, s, h)


@dataclasses.dataclass
class ScaleBySm3(Reference):
    """m = b1 m + (1 - b1) g / sqrt(v + eps) from 0; v = |g|^2 + (the least bound of the element).

    The sets of the cover are the slices of a leaf, one for every index of every axis, and the bound
    of a slice is the largest v within it at the step before, at first 0. The elements of a vector are
    slices by themselves, and so is a scalar. b2 < 1 makes v an average, (1 - b2) |g|^2 + b2 (bound).
    Anil et al. 2019, arXiv:1901.11150, algorithm SM3-II, without the eps.
    """

    b1: Number = 0.9
    b2: Number = 1.0
    eps: Number = 1e-8

    def leaf(self, g, p, s, h):
        return _sm3(g, s, h, h.b1, h.b2, h.eps)


@dataclasses.dataclass
class ScaleByLion(Reference):
    """sign(b1 m + (1 - b1) g), and then m = b2 m + (1 - b2) g; m from 0.

    Chen et al. 2023, arXiv:2302.06675.
    """

    b1: Number = 0.9
    b2: Number = 0.99

    def leaf(self, g, p, s, h):
        return _lion(g, s, h)


@dataclasses.dataclass
class ScaleByFactoredRms(Reference):
    """g / sqrt(V), V = R C / mean(R) the outer product of the averages of |g|^2 + epsilon.

    R averages its means over one of the two largest axes, C over the other, mean(R) is over what
    is left of the two; further axes are a batch. A leaf of one axis, or with one of the two below
    `min_dim_size_to_factor`, keeps V in full. The averages decay by
    1 - max(t - step_offset, 1)^-decay_rate, 0 at the first step, or as `decay_rate_fn` says.
    Adafactor: Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 and 5.
    """

    factored: bool = True
    decay_rate: Number = 0.8
    step_offset: int = 0
    min_dim_size_to_factor: int = 128
    epsilon: Number = 1e-30
    decay_rate_fn: object = None

    def leaf(self, g, p, s, h):
        return _factored_rms(g, s, h, h.step_offset, h.epsilon)


@dataclasses.dataclass
class ScaleByParamBlockRms(Reference):
    """g max(rms(theta), min_scale): Adafactor's relative step, arXiv:1804.04235, section 8."""

    min_scale: Number = 1e-3

    def leaf(self, g, p, s, h):
        return g * max(rms(p), h.min_scale)


@dataclasses.dataclass
class ScaleByParamBlockNorm(Reference):
    """g max(||theta||, min_scale), the norm over each leaf."""

    min_scale: Number = 1e-3

    def leaf(self, g, p, s, h):
        return g * max(norm(p), h.min_scale)


@dataclasses.dataclass
class ScaleByTrustRatio(Reference):
    """c ||theta|| / (||g|| + eps) g, norms over each leaf, none below min_norm; g where one is 0.

    You, Gitman and Ginsburg 2017, arXiv:1708.03888, section 4.
    """

    min_norm: Number = 0.0
    trust_coefficient: Number = 1.0
    eps: Number = 0.0

    def leaf(self, g, p, s, h):
        return _trust(g, p, h.min_norm, h.trust_coefficient, h.eps)


@dataclasses.dataclass
class ScaleByOptimisticGradient(Reference):
    """(alpha + beta) g - beta (the gradient before), which at the first step is g.

    Daskalakis et al. 2018, arXiv:1711.00141; with two coefficients Mokhtari, Ozdaglar and Pattathil
    2020, arXiv:1901.08511.
    """

    alpha: Number = 1.0
    beta: Number = 1.0

    def leaf(self, g, p, s, h):
        return _optimistic(g, s, h)


@dataclasses.dataclass
class Centralize(Reference):
    """g less its mean over all axes but the first; g itself with less than two axes.

    Yong et al. 2020, arXiv:2004.01461: the mean over what feeds one output, of weights whose outputs
    are the first axis.
    """

    def leaf(self, g, p, s, h):
        inputs = tuple(range(1, g.ndim))
        return g - g.mean(inputs, keepdims=True) if inputs and g.size else g


@dataclasses.dataclass
class NormalizeByUpdateNorm(Reference):
    """c g / (||g|| + eps), the norm over all leaves."""

    scale_factor: Number = 1.0
    eps: Number = 1e-6

    def update(self, grads, params, **extra):
        h = self.numbers()
        return [divide(h.scale_factor * wide(g), norm(*grads) + h.eps) for g in grads]


@dataclasses.dataclass
class KeepParamsNonnegative(Reference):
    """-theta where theta + g < 0, elsewhere g."""

    def leaf(self, g, p, s, h):
        return np.where(p + g < 0, -p, g)


@dataclasses.dataclass
class ZeroNans(Reference):
    """0 where g is not a number, elsewhere g."""

    def leaf(self, g, p, s, h):
        return np.where(np.isnan(g), 0.0, g)


@dataclasses.dataclass
class Fromage(Reference):
    """The step from theta to (theta - eta r g) / sqrt(1 + eta^2), r = ||theta|| / ||g|| over each leaf.

    No norm is below min_norm, and r = 1 where one is 0. The factor of theta is written so that it
    stays exact for a small eta. Bernstein et al. 2020, arXiv:2002.03432, algorithm 1.
    """

    learning_rate: Number
    min_norm: Number = 1e-6

    def leaf(self, g, p, s, h):
        shrink = math.expm1(-math.log1p(h.learning_rate**2) / 2)
        return shrink * p - (1 + shrink) * h.learning_rate * _trust(g, p, h.min_norm)


# Fromage's transform is the whole optimizer too.
ScaleByFromage = Fromage


@dataclasses.dataclass
class Prodigy(Reference):
    """Adam whose step size d is an estimate of the distance to the solution.

    One step, with d the old estimate, d' the new one, eta the learning rate, c the bias correction
    sqrt(1 - b2^t) / (1 - b1^t) and b3 = sqrt(b2) unless given:

        r = b3 r + d / d0 (d eta c) <g, theta0 - theta>     d is old, both times
        s = b3 s + d / d0 (d eta c) g                       d is old, both times
        d' = max(d, coef r / ||s||_1)                       r and s are new
        m = b1 m + (1 - b1) d g                             d is old
        v = b2 v + (1 - b2) d^2 |g|^2                       d is old
        update = -d eta c (m / (sqrt(v) + d' eps) + lambda theta)

    so that only eps is scaled by the new estimate, where the paper's algorithm 4 has d. With
    `safeguard_warmup` s takes in d / d0 d g. The inner product and the norm are over all leaves;
    d0 is `estim_lr0`, coef `estim_lr_coef`. As in the authors' prodigyopt, a step whose learning
    rate is 0 does nothing, nor does one before the first nonzero gradient, and t does not count
    them. c is Optax's choice, in prodigyopt an option that is off; without `bias_correction` c = 1.
    Mishchenko and Defazio 2024, arXiv:2306.06101.
    """

    learning_rate: Number = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    beta3: float | None = None
    eps: Number = 1e-8
    estim_lr0: float = 1e-6
    estim_lr_coef: Number = 1.0
    weight_decay: Number = 0.0
    safeguard_warmup: bool = False
    bias_correction: bool = True

    def init(self, params):
        super().init(params)
        self.start_params = [wide(p).copy() for p in params]
        self.d, self.r, self.taken = self.estim_lr0, 0.0, 0

    def update(self, grads, params, **extra):
        h = self.numbers()
        grads, params = [wide(g) for g in grads], [wide(p) for p in params]
        skip = [np.zeros_like(p) for p in params]
        if h.learning_rate == 0:
            return skip
        b1, b2 = h.betas
        b3 = math.sqrt(b2) if h.beta3 is None else h.beta3
        d, t = self.d, self.taken + 1
        c = math.sqrt(1 - b2**t) / (1 - b1**t) if h.bias_correction else 1.0
        step = d * h.learning_rate * c
        gain = d / h.estim_lr0 * (d if h.safeguard_warmup else step)
        for g, s in zip(grads, self.slots, strict=True):
            s.m = b1 * s.m + (1 - b1) * d * g
            s.v = b2 * s.v + (1 - b2) * square(d * g)
            s.s = b3 * s.s + gain * g
        size = sum(np.sum(np.abs(s.s)) for s in self.slots)
        if size == 0:
            return skip
        leaves = zip(grads, self.start_params, params, strict=True)
        progress = sum(np.real(np.vdot(g, p0 - p)) for g, p0, p in leaves)
        self.r = b3 * self.r + d / h.estim_lr0 * step * progress
        self.d, self.taken = max(d, h.estim_lr_coef * self.r / size), t
        return [
            -step * (divide(s.m, np.sqrt(s.v) + self.d * h.eps) + h.weight_decay * p)
            for s, p in zip(self.slots, params, strict=True)
        ]


# Prodigy's transform is already the whole optimizer, sign and all.
ScaleByProdigy = Prodigy


@dataclasses.dataclass
class Rmsprop(Reference):
    """u = -eta times `ScaleByRms`, or `ScaleByStddev` if centered, of g + lambda theta.

    With momentum the learning rate is inside the buffer: v = mu v + u from 0; gives v, or u + mu v
    with Nesterov's momentum.
    """

    learning_rate: Number
    decay: Number = 0.9
    eps: Number = 1e-8
    initial_scale: Number = 0.0
    eps_in_sqrt: bool = True
    centered: bool = False
    momentum: Number | None = None
    nesterov: bool = False
    bias_correction: bool = False
    first_gradient: bool = False
    weight_decay: Number | None = None

    def leaf(self, g, p, s, h):
        u = -h.learning_rate * _rms(_l2(g, p, h.weight_decay), s, h, h.centered)
        return u if h.momentum is None else _heavy_ball(u, s, h)


@dataclasses.dataclass
class Adadelta(Reference):
    """-eta d with d of `ScaleByAdadelta` and g + lambda theta for g; without eta, d itself."""

    learning_rate: Number | None = None
    rho: Number = 0.9
    eps: Number = 1e-6
    weight_decay: Number = 0.0

    def leaf(self, g, p, s, h):
        delta = _adadelta(_l2(g, p, h.weight_decay), s, h)
        return delta if h.learning_rate is None else -h.learning_rate * delta


@dataclasses.dataclass
class Adam(Reference):
    """-eta times the direction of `ScaleByAdam`; a weight decay is coupled: g + lambda theta."""

    learning_rate: Number
    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    eps_root: Number = 0.0
    nesterov: bool = False
    bias_correction: bool = True
    eps_scaled: bool = False
    weight_decay: Number | None = None

    def leaf(self, g, p, s, h):
        g = _l2(g, p, h.weight_decay)
        return -h.learning_rate * _adam(g, s, h, h.nesterov, h.bias_correction, h.eps_scaled)


@dataclasses.dataclass
class Adamw(Reference):
    """With a the direction of `ScaleByAdam`, alpha the learning rate, eta the schedule or 1:

        "rate"      -eta alpha (a + lambda theta)       PyTorch, BERT, Optax
        "schedule"  -eta (alpha a + lambda theta)       the paper's line 12
        "none"      -eta alpha a - lambda theta         the decay as it is

    Leaves outside `mask`, a list of booleans, are not decayed. Loshchilov and Hutter 2019,
    arXiv:1711.05101, algorithm 2.
    """

    learning_rate: Number
    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    eps_root: Number = 0.0
    nesterov: bool = False
    bias_correction: bool = True
    eps_scaled: bool = False
    weight_decay: Number = 1e-4
    mask: list[bool] | None = None
    decay_coupling: str = "rate"
    schedule: Schedule | None = None

    def leaf(self, g, p, s, h):
        eta = 1.0 if h.schedule is None else h.schedule
        coupling = {"rate": eta * h.learning_rate, "schedule": eta, "none": 1.0}
        decay = coupling[h.decay_coupling] * h.weight_decay * p if _decays(h) else 0.0
        direction = _adam(g, s, h, h.nesterov, h.bias_correction, h.eps_scaled)
        return -eta * h.learning_rate * direction - decay


@dataclasses.dataclass
class Decayed(Reference):
    """The frame of an optimizer with a weight decay; a subclass has `direction(g, s, h)`.

    With eta the learning rate, lambda theta the decay of a leaf that `mask` names, and u the
    direction, of g unless said otherwise:

        "gradient"  -eta u, with u of g + lambda theta     coupled, 1/2 lambda |theta|^2 in the loss
        "rate"      -eta (u + lambda theta)                decoupled, as in AdamW
        "schedule"  -(eta u + lambda theta)                decoupled, eta without a schedule
        "none"      -eta u - lambda theta                  decoupled, the decay as it is
    """

    learning_rate: Number
    _: dataclasses.KW_ONLY
    weight_decay: Number | None = None
    mask: list[bool] | None = None
    decay_coupling: str = "gradient"

    def leaf(self, g, p, s, h):
        decay, eta = _decay(p, h), h.learning_rate
        inside, outside = {
            "gradient": (1.0, 0.0),
            "rate": (0.0, eta),
            "schedule": (0.0, 1.0),
            "none": (0.0, 1.0),
        }[h.decay_coupling]
        return -eta * self.direction(g + inside * decay, s, h) - outside * decay

    def direction(self, g, s, h):
        raise NotImplementedError


@dataclasses.dataclass(kw_only=True)
class Decoupled(Decayed):
    """`Decayed` that decays by the rate unless told otherwise."""

    decay_coupling: str = "rate"


@dataclasses.dataclass
class Sgd(Decayed):
    """-eta v with v of `Trace`, or -eta g without momentum, with the decay of `Decayed`."""

    momentum: Number | None = None
    nesterov: bool = False
    dampening: Number = 0.0
    dampen_first: bool = True

    def direction(self, g, s, h):
        return g if h.momentum is None else _trace(g, s, h.momentum, h)


@dataclasses.dataclass
class Adagrad(Decayed):
    """-eta times `ScaleByRss`, with the decay of `Decayed`."""

    initial_accumulator_value: Number = 0.1
    eps: Number = 1e-7
    eps_in_sqrt: bool = True

    def direction(self, g, s, h):
        return _rss(g, s, h)


@dataclasses.dataclass
class Ademamix(Decoupled):
    """-eta times `ScaleByAdemamix`, with the decay of `Decayed`."""

    b1: Number = 0.9
    b2: Number = 0.999
    b3: Number = 0.9999
    alpha: Number = 5.0
    eps: Number = 1e-8
    eps_root: Number = 0.0
    _: dataclasses.KW_ONLY
    weight_decay: Number = 0.0

    def direction(self, g, s, h):
        return _ademamix(g, s, h)


@dataclasses.dataclass
class Lion(Decoupled):
    """-eta times `ScaleByLion`, with the decay of `Decayed`."""

    b1: Number = 0.9
    b2: Number = 0.99
    _: dataclasses.KW_ONLY
    weight_decay: Number = 1e-3

    def direction(self, g, s, h):
        return _lion(g, s, h)


@dataclasses.dataclass
class Adabelief(Decayed):
    """-eta times `ScaleByBelief`, with the decay of `Decayed`."""

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-16
    eps_root: Number = 1e-16
    nesterov: bool = False

    def direction(self, g, s, h):
        return _belief(g, s, h)


@dataclasses.dataclass
class Yogi(Decayed):
    """-eta times `ScaleByYogi`, with the decay of `Decayed`."""

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-3

    def direction(self, g, s, h):
        return _yogi(g, s, h, eps_root=0.0, initial_accumulator_value=1e-6)


@dataclasses.dataclass
class Amsgrad(Decayed):
    """-eta times `ScaleByAmsgrad`, with the decay of `Decayed`."""

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    eps_root: Number = 0.0
    bias_correction_mu: bool = True
    bias_correction_nu: bool = True

    def direction(self, g, s, h):
        return _amsgrad(g, s, h)


@dataclasses.dataclass
class Adamax(Decayed):
    """-eta times `ScaleByAdamax`, with the decay of `Decayed`."""

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8

    def direction(self, g, s, h):
        return _adamax(g, s, h)


@dataclasses.dataclass
class Adamaxw(Decoupled):
    """`Adamax` with a decay by the rate."""

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    _: dataclasses.KW_ONLY
    weight_decay: Number = 1e-4

    def direction(self, g, s, h):
        return _adamax(g, s, h)


@dataclasses.dataclass
class Adan(Decoupled):
    """-eta times `ScaleByAdan`, with the decay of `Decayed`.

    By the rate it is the authors' option `no_prox`; the paper divides theta by 1 + lambda eta.
    """

    b1: Number = 0.98
    b2: Number = 0.92
    b3: Number = 0.99
    eps: Number = 1e-8
    eps_root: Number = 1e-8
    _: dataclasses.KW_ONLY
    weight_decay: Number = 0.0

    def direction(self, g, s, h):
        return _adan(g, s, h)


@dataclasses.dataclass
class Radam(Decayed):
    """-eta times `ScaleByRadam`, with the decay of `Decayed`."""

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    eps_root: Number = 0.0
    threshold: Number = 5.0
    nesterov: bool = False
    eps_scaled: bool = False

    def direction(self, g, s, h):
        return _radam(g, s, h)


@dataclasses.dataclass
class Sm3(Decayed):
    """-eta times `ScaleBySm3`, whose b1 is the momentum, with the decay of `Decayed`."""

    momentum: Number = 0.9

    def direction(self, g, s, h):
        return _sm3(g, s, h, h.momentum, b2=1.0, eps=1e-8)


@dataclasses.dataclass
class SignSgd(Decoupled):
    """-eta sign(g), with the decay of `Decayed`. Bernstein et al. 2018, arXiv:1802.04434."""

    def direction(self, g, s, h):
        return sign(g)


@dataclasses.dataclass
class Signum(Decoupled):
    """-eta sign(m) with m = b m + (1 - b) g from 0, and the decay of `Decayed`. arXiv:1802.04434."""

    beta: Number = 0.9

    def direction(self, g, s, h):
        s.m = h.beta * s.m + (1 - h.beta) * g
        return sign(s.m)


@dataclasses.dataclass
class OptimisticGradientDescent(Decayed):
    """-eta times `ScaleByOptimisticGradient`, with the decay of `Decayed`."""

    alpha: Number = 1.0
    beta: Number = 1.0

    def direction(self, g, s, h):
        return _optimistic(g, s, h)


@dataclasses.dataclass
class OptimisticAdamV2(Decoupled):
    """-eta times `ScaleByOptimisticGradient` of Adam's direction, with the decay of `Decayed`.

    Daskalakis et al. 2018, arXiv:1711.00141, algorithm 1, without Nesterov's momentum.
    """

    alpha: Number = 1.0
    beta: Number = 1.0
    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    eps_root: Number = 0.0
    nesterov: bool = True

    def direction(self, g, s, h):
        return _optimistic(_adam(g, s, h, h.nesterov), s, h)


@dataclasses.dataclass
class Rprop(Reference):
    """The negative of `ScaleByRprop`, of g + lambda theta on the leaves that `mask` names."""

    learning_rate: Number
    eta_minus: Number = 0.5
    eta_plus: Number = 1.2
    min_step_size: Number = 1e-6
    max_step_size: Number = 50.0
    weight_decay: Number | None = None
    mask: list[bool] | None = None

    def leaf(self, g, p, s, h):
        return -_rprop(g + _decay(p, h), s, h)


@dataclasses.dataclass
class Lars(Reference):
    """v = mu v - eta w from 0, with w = `ScaleByTrustRatio` of g + lambda theta.

    Gives v, or mu v - eta w with Nesterov's momentum. The paper, algorithm 1, has
    ||g|| + lambda ||theta|| in the place of ||g + lambda theta||. You, Gitman and Ginsburg 2017,
    arXiv:1708.03888.
    """

    learning_rate: Number
    weight_decay: Number = 0.0
    trust_coefficient: Number = 0.001
    eps: Number = 0.0
    momentum: Number = 0.9
    nesterov: bool = False

    def leaf(self, g, p, s, h):
        w = _trust(_l2(g, p, h.weight_decay), p, trust_coefficient=h.trust_coefficient, eps=h.eps)
        return _heavy_ball(-h.learning_rate * w, s, h)


@dataclasses.dataclass
class Lamb(Reference):
    """-eta times `ScaleByTrustRatio` of a + lambda theta, a the direction of `ScaleByAdam`.

    You et al. 2020, arXiv:1904.00962, algorithm 2, with the identity as its phi.
    """

    learning_rate: Number
    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-6
    eps_root: Number = 0.0
    weight_decay: Number = 0.0
    mask: list[bool] | None = None

    def leaf(self, g, p, s, h):
        return -h.learning_rate * _trust(_adam(g, s, h, nesterov=False) + _decay(p, h), p)


@dataclasses.dataclass
class Novograd(Reference):
    """-eta m with m of `ScaleByNovograd`, the decay within it."""

    learning_rate: Number
    b1: Number = 0.9
    b2: Number = 0.25
    eps: Number = 1e-6
    eps_root: Number = 0.0
    weight_decay: Number = 0.0

    def leaf(self, g, p, s, h):
        return -h.learning_rate * _novograd(g, p, s, h)


@dataclasses.dataclass
class Adafactor(Reference):
    """The factored direction, clipped by its rms, times eta max(rms(theta), 1e-3); negated.

    Before the negation come, if asked for, an average of decay `momentum` without debiasing, and
    then weight_decay_rate theta, which the learning rate does not multiply.
    """

    learning_rate: Number | None = None
    min_dim_size_to_factor: int = 128
    decay_rate: Number = 0.8
    decay_offset: int = 0
    multiply_by_parameter_scale: bool = True
    clipping_threshold: Number | None = 1.0
    momentum: Number | None = None
    weight_decay_rate: Number | None = None
    eps: Number = 1e-30
    factored: bool = True

    def leaf(self, g, p, s, h):
        u = _factored_rms(g, s, h, h.decay_offset, h.eps)
        if h.clipping_threshold is not None:
            u = _clip_block_rms(u, h.clipping_threshold)
        if h.learning_rate is not None:
            u = h.learning_rate * u
        if h.multiply_by_parameter_scale:
            u = max(rms(p), 1e-3) * u
        if h.momentum is not None:
            u = s.m = h.momentum * s.m + (1 - h.momentum) * u
        return -_l2(u, p, h.weight_decay_rate)


# Schedules: each gives a function from the step, 0 at the first update, to a float.


def constant(value):
    """The value, always."""
    return lambda step: float(value)


def polynomial(init_value, end_value, power, transition_steps, transition_begin=0):
    """end + (init - end) (1 - f)^power; f goes from 0 to 1 over the transition.

    Without any transition steps it stays at init_value.
    """

    def schedule(step):
        if transition_steps <= 0:
            return float(init_value)
        f = min(max(step - transition_begin, 0), transition_steps) / transition_steps
        return end_value + (init_value - end_value) * (1 - f) ** power

    return schedule


def linear(init_value, end_value, transition_steps, transition_begin=0):
    """`polynomial` of power 1."""
    return polynomial(init_value, end_value, 1, transition_steps, transition_begin)


def cosine_decay(init_value, decay_steps, alpha=0.0, exponent=1.0):
    """init ((1 - alpha) ((1 + cos(pi f)) / 2)^exponent + alpha); f from 0 to 1 over decay_steps.

    Loshchilov and Hutter 2017, arXiv:1608.03983, one cycle.
    """

    def schedule(step):
        wave = (1 + math.cos(math.pi * min(step, decay_steps) / decay_steps)) / 2
        return init_value * ((1 - alpha) * wave**exponent + alpha)

    return schedule


def exponential_decay(
    init_value, transition_steps, decay_rate, transition_begin=0, staircase=False, end_value=None
):
    """init decay_rate^(k / transition_steps), k the steps since transition_begin, not below 0.

    A staircase rounds the exponent down. `end_value` bounds it from below if it falls, from above
    if it grows. Without any transition steps, or with the rate 0, it stays at init_value.
    """

    def schedule(step):
        if transition_steps <= 0 or decay_rate == 0:
            return float(init_value)
        exponent = max(step - transition_begin, 0) / transition_steps
        value = init_value * decay_rate ** (math.floor(exponent) if staircase else exponent)
        if end_value is None:
            return value
        return max(value, end_value) if decay_rate < 1 else min(value, end_value)

    return schedule


def piecewise_constant(init_value, boundaries_and_scales):
    """init times every scale whose boundary the step has reached, step >= boundary."""

    def schedule(step):
        scales = [scale for boundary, scale in boundaries_and_scales.items() if step >= boundary]
        return init_value * math.prod(scales)

    return schedule


def join(schedules, boundaries):
    """schedules[i] from boundaries[i - 1] on, counting its own steps from there."""

    def schedule(step):
        i = sum(step >= boundary for boundary in boundaries)
        return schedules[i](step - boundaries[i - 1] if i else step)

    return schedule


def _through(points, wave):
    """The value on a path through (step, value) points, whose share of the way is given a shape."""

    def schedule(step):
        value = points[0][1]
        for (start, before), (end, after) in itertools.pairwise(points):
            if step >= start:
                share = min((step - start) / (end - start), 1.0) if end > start else 1.0
                value = before + (after - before) * wave(share)
        return value

    return schedule


def _line(share):
    return share


def _half_cosine(share):
    return (1 - math.cos(math.pi * share)) / 2


def piecewise_interpolate(interpolate_type, init_value, boundaries_and_scales):
    """From init_value at 0 to its products with the scales, each reached at its boundary."""
    points = [(0, init_value)]
    for boundary, scale in sorted(boundaries_and_scales.items()):
        points.append((boundary, points[-1][1] * scale))
    return _through(points, {"linear": _line, "cosine": _half_cosine}[interpolate_type])


def linear_onecycle(
    transition_steps, peak_value, pct_start=0.3, pct_final=0.85, div_factor=25.0, final_div_factor=1e4
):
    """peak / div, up to the peak, back, and on to peak / (div final_div), in lines."""
    low = peak_value / div_factor
    ends = [int(pct_start * transition_steps), int(pct_final * transition_steps), transition_steps]
    values = [peak_value, low, low / final_div_factor]
    return _through([(0, low), *zip(ends, values, strict=True)], _line)


def cosine_onecycle(transition_steps, peak_value, pct_start=0.3, div_factor=25.0, final_div_factor=1e4):
    """peak / div, up to the peak, and down to peak / (div final_div), along half a cosine each."""
    low = peak_value / div_factor
    points = [(0, low), (int(pct_start * transition_steps), peak_value)]
    return _through([*points, (transition_steps, low / final_div_factor)], _half_cosine)


def warmup_exponential_decay(init_value, peak_value, warmup_steps, transition_steps, decay_rate, **kwargs):
    """Linear from init to peak over warmup_steps, then exponential decay with steps of its own."""
    decay = exponential_decay(peak_value, transition_steps, decay_rate, **kwargs)
    return join([linear(init_value, peak_value, warmup_steps), decay], [warmup_steps])


def sgdr(cosine_kwargs):
    """One warmup and cosine after another, each over its own decay_steps."""
    ends = np.cumsum([kwargs["decay_steps"] for kwargs in cosine_kwargs])
    return join([warmup_cosine_decay(**kwargs) for kwargs in cosine_kwargs], list(ends[:-1]))


def warmup_constant(init_value, peak_value, warmup_steps):
    """Linear from init to peak over warmup_steps, then peak."""
    return join([linear(init_value, peak_value, warmup_steps), constant(peak_value)], [warmup_steps])


def warmup_linear_decay(init_value, peak_value, warmup_steps, decay_steps, end_value=0.0):
    """Linear from init to peak over warmup_steps, then linear to end at decay_steps in all."""
    decay = linear(peak_value, end_value, decay_steps - warmup_steps)
    return join([linear(init_value, peak_value, warmup_steps), decay], [warmup_steps])


def warmup_cosine_decay(init_value, peak_value, warmup_steps, decay_steps, end_value=0.0, exponent=1.0):
    """Linear from init to peak over warmup_steps, then a cosine to end at decay_steps in all."""
    alpha = end_value / peak_value if peak_value else 0.0
    decay = cosine_decay(peak_value, decay_steps - warmup_steps, alpha, exponent)
    return join([linear(init_value, peak_value, warmup_steps), decay], [warmup_steps])


def _acprop(g, s, h):
    root = 1.0 if h.t == 1 else np.sqrt(s.v / (1 - h.b2 ** (h.t - 1)))
    s.m = h.b1 * s.m + (1 - h.b1) * g
    s.v = h.b2 * s.v + (1 - h.b2) * square(g - s.m) + h.eps_root
    return divide(g, root + h.eps)


def _within(x, bound):
    """x shrunk to the modulus `bound` where it is longer; for a real x a clip to -bound .. bound."""
    size = np.abs(x)
    return np.where(size > bound, divide(x, size) * bound, x)


def _adopt(g, s, h):
    if h.t == 1:
        s.v = square(g)
        return np.zeros_like(g)
    n = divide(g, np.maximum(np.sqrt(s.v), h.eps))
    if h.use_clipping:
        n = _within(n, h.clip_value_fn)
    s.v = h.b2 * s.v + (1 - h.b2) * square(g)
    s.m = h.b1 * s.m + (1 - h.b1) * n
    return h.b1 * s.m + (1 - h.b1) * n if h.nesterov else s.m


def _simplified_ademamix(g, s, h):
    s.m = h.b1 * s.m + g
    s.v = h.b2 * s.v + (1 - h.b2) * square(g)
    return _over_root(s.m + h.alpha * g, s.v / (1 - h.b2**h.t), h.eps, h.eps_root)


def _madgrad(g, p, s, h):
    rate = h.learning_rate + h.eps if h.learning_rate != 0 else 0.0
    weight = rate * math.sqrt(h.t)
    s.sum = s.sum + weight * g
    s.squares = s.squares + weight * square(g)
    z = s.start - divide(s.sum, np.cbrt(s.squares) + h.eps)
    return (1 - h.momentum) * (z - p)


def _cocob(g, p, s, h):
    size, away = np.abs(g), p - s.start
    s.largest = np.maximum(h.eps if h.t == 1 else s.largest, size)
    s.total = s.total + size
    s.reward = np.maximum(s.reward - np.real(np.conj(g) * away), 0.0)
    s.sum = s.sum - g
    bet = divide(s.sum, s.largest * np.maximum(s.total + s.largest, h.alpha * s.largest))
    return bet * (s.largest + s.reward) - away


class _Anchored(Reference):
    """The frame of a reference whose leaves remember where they started, in the slot `start`."""

    def init(self, params):
        super().init(params)
        for p, s in zip(params, self.slots, strict=True):
            s.start = wide(p).copy()


@dataclasses.dataclass
class ScaleByAcprop(Reference):
    """g / (sqrt(s^) + eps), where s^ is of the steps before this one and 1 at the first:

        s^ = s / (1 - b2^(t-1))                               s is old
        m = b1 m + (1 - b1) g
        s = b2 s + (1 - b2) |g - m|^2 + eps_root              m is new

    m and s start from 0, and m serves only to center s. ACProp: Zhuang et al. 2021,
    arXiv:2110.05454, and the authors' code without its options `rectify` and `momentum_update`;
    there the first step is g without an eps, and one epsilon is both. Optax 0.2.8 takes g - m with
    the old m, against the paper, the code and its own docstring; its s is 1 / b1^2 times this one.
    """

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-16
    eps_root: Number = 1e-16

    def leaf(self, g, p, s, h):
        return _acprop(g, s, h)


@dataclasses.dataclass
class Acprop(Decoupled):
    """-eta times `ScaleByAcprop`, with the decay of `Decayed`."""

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-16
    eps_root: Number = 1e-16
    _: dataclasses.KW_ONLY
    weight_decay: Number = 0.0

    def direction(self, g, s, h):
        return _acprop(g, s, h)


@dataclasses.dataclass
class ScaleByAdopt(Reference):
    """The average m of gradients that the steps before have normalized:

        n = clip(g / max(sqrt(v), eps), c)                    v is old
        m = b1 m + (1 - b1) n                                 from 0
        v = b2 v + (1 - b2) |g|^2

    The first step only sets v = |g|^2, leaves m at 0 and gives 0. c is `clip_value_fn` at t - 1;
    clip shrinks a longer n to the modulus c, and without `use_clipping` n is as it is. With
    `nesterov` it gives b1 m + (1 - b1) n with the new m, which is Optax's addition. ADOPT:
    Taniguchi et al. 2024, arXiv:2411.02853, and the authors' code, which Optax 0.2.8 follows; the
    paper's first version has m = n at the second step. For a complex leaf the authors clip the two
    parts, each by a v of its own, and Optax cannot clip.
    """

    b1: Number = 0.9
    b2: Number = 0.9999
    eps: Number = 1e-6
    nesterov: bool = False
    use_clipping: bool = True
    clip_value_fn: Schedule = lambda step: step**0.25

    def leaf(self, g, p, s, h):
        return _adopt(g, s, h)


@dataclasses.dataclass
class Adopt(Reference):
    """-eta times `ScaleByAdopt`."""

    learning_rate: Number
    b1: Number = 0.9
    b2: Number = 0.9999
    eps: Number = 1e-6
    nesterov: bool = False
    use_clipping: bool = True
    clip_value_fn: Schedule = lambda step: step**0.25

    def leaf(self, g, p, s, h):
        return -h.learning_rate * _adopt(g, s, h)


@dataclasses.dataclass
class ScaleBySimplifiedAdemamix(Reference):
    """(m + alpha g) / (sqrt(v / (1 - b2^t) + eps_root) + eps), both moments from 0:

        m = b1 m + g                                          a sum, not a mean
        v = b2 v + (1 - b2) |g|^2

    m has no bias correction. Morwani et al. 2025, arXiv:2502.02431, where eps_root is 0; the same
    in the authors' code with its default options. Optax 0.2.8 agrees on real leaves; on complex
    ones it has g^2 for |g|^2.
    """

    b1: Number = 0.99
    b2: Number = 0.95
    alpha: Number = 0.0
    eps: Number = 1e-8
    eps_root: Number = 0.0

    def leaf(self, g, p, s, h):
        return _simplified_ademamix(g, s, h)


@dataclasses.dataclass
class SimplifiedAdemamix(Decoupled):
    """-eta times `ScaleBySimplifiedAdemamix`, with the decay of `Decayed`."""

    b1: Number = 0.99
    b2: Number = 0.95
    alpha: Number = 0.0
    eps: Number = 1e-8
    eps_root: Number = 0.0
    _: dataclasses.KW_ONLY
    weight_decay: Number = 0.0

    def direction(self, g, s, h):
        return _simplified_ademamix(g, s, h)


@dataclasses.dataclass
class ScaleByMadgrad(_Anchored):
    """(1 - momentum) (z - theta), which makes theta an average of the dual averages

        z = theta0 - s / (cbrt(q) + eps)                      s and q are new
        s = s + w g,  q = q + w |g|^2,  w = (eta + eps) sqrt(t)

    from s = q = 0, with theta0 the parameter at init. It is the whole update, sign and rate and
    all. MADGRAD: Defazio and Jelassi 2021, arXiv:2101.11075, algorithm 1, whose w has no eps. As
    in the authors' code, w is 0 where eta is; Optax 0.2.8 adds its eps there too, and on complex
    leaves has g^2 for |g|^2.
    """

    learning_rate: Number
    momentum: Number = 0.9
    eps: Number = 1e-6

    def leaf(self, g, p, s, h):
        return _madgrad(g, p, s, h)


@dataclasses.dataclass
class Madgrad(_Anchored):
    """`ScaleByMadgrad` of g + lambda theta: a coupled decay, the default of the authors' code."""

    learning_rate: Number
    momentum: Number = 0.9
    weight_decay: Number = 0.0
    eps: Number = 1e-6
    mask: list[bool] | None = None

    def leaf(self, g, p, s, h):
        return _madgrad(g + _decay(p, h), p, s, h)


@dataclasses.dataclass
class ScaleByCocob(_Anchored):
    """theta0 + w - theta, with theta0 the parameter at init and w the new bet of each coordinate:

        L = max(L, |g|)                                       from eps
        G = G + |g|
        R = max(R - <g, theta - theta0>, 0)
        C = C - g
        w = C / (L max(G + L, alpha L)) (L + R)               all new

    It is the whole update, sign and all. A complex coordinate is a bet in the plane: <g, x> is
    Re(conj(g) x), |.| the modulus. COCOB-Backprop: Orabona and Tommasi 2017, arXiv:1705.07795,
    algorithm 2, where L is 0 at first; eps is from the authors' code. Optax 0.2.8 agrees on real
    leaves.
    """

    alpha: Number = 100.0
    eps: Number = 1e-8

    def leaf(self, g, p, s, h):
        return _cocob(g, p, s, h)


@dataclasses.dataclass
class Cocob(_Anchored):
    """`ScaleByCocob` of eta (g + lambda theta).

    eta is a weight of the losses, as in Optax: but for eps a constant one changes nothing. The
    paper has neither number.
    """

    learning_rate: Number = 1.0
    alpha: Number = 100.0
    eps: Number = 1e-8
    weight_decay: Number = 0.0
    mask: list[bool] | None = None

    def leaf(self, g, p, s, h):
        return _cocob(h.learning_rate * (g + _decay(p, h)), p, s, h)


@dataclasses.dataclass
class DadaptAdamw(Reference):
    """Adam whose step size d is an estimate, from below, of the distance to the solution.

    One step, with eta the learning rate, c the bias correction sqrt(1 - b2^t) / (1 - b1^t),
    b = sqrt(b2), and a = d eta c with the old d all along; everything but d starts from 0:

        r = b r + (1 - b) a <g, s / (sqrt(v) + eps)>          s and v are old
        m = b1 m + (1 - b1) a g
        v = b2 v + (1 - b2) |g|^2
        s = b s + (1 - b) a g
        d = max(d, r / ((1 - b) ||s||_1))                     r and s are new
        update = -m / (sqrt(v) + eps) - a lambda theta        m and v are new

    so that a new d counts from the next step on. The inner product and the norm are over all
    leaves; d begins as `estim_lr0`, and stays while s is 0. Every step counts, as in Optax 0.2.8,
    which makes d nan there for good; the authors' DAdaptAdam with `decouple` does nothing at a step
    of rate 0 and before the first nonzero gradient, and does not count them. c is Optax's choice, in
    the authors' code an option that is off. Defazio and Mishchenko 2023, arXiv:2301.07733.
    """

    learning_rate: Number = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: Number = 1e-8
    estim_lr0: float = 1e-6
    weight_decay: Number = 0.0

    def init(self, params):
        super().init(params)
        self.d, self.r = self.estim_lr0, 0.0

    def update(self, grads, params, **extra):
        h = self.numbers()
        grads, params = [wide(g) for g in grads], [wide(p) for p in params]
        b1, b2 = h.betas
        b = math.sqrt(b2)
        a = self.d * h.learning_rate * math.sqrt(1 - b2**h.t) / (1 - b1**h.t)
        gain = 0.0
        for g, s in zip(grads, self.slots, strict=True):
            gain += np.sum(np.real(np.conj(g) * _over_root(s.s, s.v, h.eps)))
            s.m = b1 * s.m + (1 - b1) * a * g
            s.v = b2 * s.v + (1 - b2) * square(g)
            s.s = b * s.s + (1 - b) * a * g
        size = sum(np.sum(np.abs(s.s)) for s in self.slots)
        self.r = b * self.r + (1 - b) * a * gain
        if size:
            self.d = max(self.d, self.r / ((1 - b) * size))
        return [
            -_over_root(s.m, s.v, h.eps) - a * h.weight_decay * p
            for s, p in zip(self.slots, params, strict=True)
        ]


class _Distance(Reference):
    """What DoG and DoWG have in common: theta0 and the distance from it."""

    def init(self, params):
        super().init(params)
        self.start_params = [wide(p).copy() for p in params]
        self.sum = 0.0

    def distance(self, params):
        return norm(*(p - p0 for p, p0 in zip(params, self.start_params, strict=True)))

    def decayed(self, grads, params, h):
        decay = 0.0 if h.weight_decay is None else h.weight_decay
        return [g + decay * p for g, p in zip(grads, params, strict=True)]


@dataclasses.dataclass
class Dog(_Distance):
    """SGD with the distance over the gradients for its step size.

    With g including lambda theta, c the learning rate, r and G from the step before:

        r = max(r, ||theta - theta0||)
        G = G + ||g||^2
        update = -c r / sqrt(G + eps) g

    G starts at 0 and r, by `init_step`, at r0 for ("distance", r0), at a (1 + ||theta0||) for
    ("heuristic", a), at 0 for ("learning_rate", eta0), where moreover the first update is
    -c eta0 g. 0 / 0 counts as 0. theta0 are the parameters given to `init`.

    Ivgi et al. 2023, arXiv:2302.12022, and the authors' code (formll/dog), as Optax 0.2.8, with one
    difference to the authors that is Optax's and followed: their `init_eta` is the whole first step
    size, without c. In either a first gradient of 0 with ("learning_rate", eta0) leaves r = 0 and
    with it every later update at 0, and so here.
    """

    learning_rate: Number = 1.0
    init_step: tuple[str, float] = ("heuristic", 1e-6)
    eps: Number = 1e-8
    weight_decay: Number | None = None

    def init(self, params):
        super().init(params)
        kind, size = self.init_step
        starts = {"distance": size, "heuristic": size * (1 + norm(*params)), "learning_rate": 0.0}
        self.r = starts[kind]

    def update(self, grads, params, **extra):
        h = self.numbers()
        grads, params = [wide(g) for g in grads], [wide(p) for p in params]
        grads = self.decayed(grads, params, h)
        self.r = max(self.r, self.distance(params))
        self.sum += norm(*grads) ** 2
        kind, size = h.init_step
        if kind == "learning_rate" and h.t == 1:
            return [-h.learning_rate * size * g for g in grads]
        return [-h.learning_rate * divide(self.r * g, math.sqrt(self.sum + h.eps)) for g in grads]


@dataclasses.dataclass
class Dowg(_Distance):
    """SGD with the squared distance over the gradients weighted by it.

    With g including lambda theta, c the learning rate, q and v from the step before:

        q = max(q, ||theta - theta0||^2)
        v = v + q ||g||^2
        update = -c q / (sqrt(v) + eps) g

    v starts at 0, q at `init_estim_sq_dist`, a squared distance, or eps if that is None. 0 / 0
    counts as 0. theta0 are the parameters given to `init`.

    Khaled et al. 2023, arXiv:2305.16284, with the eps of the authors' code (rka97/dowg),
    which has no c and no lambda. As Optax 0.2.8.
    """

    learning_rate: Number = 1.0
    init_estim_sq_dist: float | None = None
    eps: Number = 1e-4
    weight_decay: Number | None = None

    def update(self, grads, params, **extra):
        h = self.numbers()
        grads, params = [wide(g) for g in grads], [wide(p) for p in params]
        grads = self.decayed(grads, params, h)
        if h.t == 1:
            self.q = h.eps if h.init_estim_sq_dist is None else h.init_estim_sq_dist
        self.q = max(self.q, self.distance(params) ** 2)
        self.sum += self.q * norm(*grads) ** 2
        return [-h.learning_rate * divide(self.q * g, math.sqrt(self.sum) + h.eps) for g in grads]


def inner(a, b):
    """Real part of the sum of conj(a) b over all leaves."""
    return float(sum(np.real(np.vdot(x, y)) for x, y in zip(a, b, strict=True)))


def _polyak(grads, value, h):
    """The step size; any will do for a zero gradient, and 0 is finite."""
    if h.variant not in ("sps", "sps+"):
        raise ValueError(h.variant)
    gap = float(value) - h.f_min
    if h.variant == "sps+":
        gap = max(gap, 0.0)
    size = norm(*grads) ** 2 + h.eps
    return min(gap / size, h.max_learning_rate) if size > 0 else 0.0


@dataclasses.dataclass
class ScaleByPolyak(Reference):
    """gamma g with gamma = min((f - f_min) / (||g||^2 + eps), max_learning_rate).

    gamma = 0 where the denominator is 0. "sps" takes the gap as it is, so that f < f_min turns the
    step around, without a bound; "sps+" has max(f - f_min, 0) for it.

    sps: Loizou et al. 2021, arXiv:2002.10542, SPS_max with c = 1 (c there divides the quotient
    inside the minimum); sps+: Garrigos et al. 2023, arXiv:2307.14528, which has no
    maximum. Optax 0.2.8 also has gamma = 0 where the denominator is up to 2.2e-16; that is no part
    of the method (it freezes every point with ||g|| < 1.5e-8), and is not followed.
    """

    f_min: Number = 0.0
    max_learning_rate: Number = 1.0
    eps: Number = 0.0
    variant: str = "sps"

    def update(self, grads, params, *, value, **extra):
        h = self.numbers()
        grads = [wide(g) for g in grads]
        gamma = _polyak(grads, value, h)
        return [gamma * g for g in grads]


@dataclasses.dataclass
class PolyakSgd(Reference):
    """-s gamma g with gamma of `ScaleByPolyak`, of the gradient as it comes, and s the scaling.

    So the formula in Optax's documentation. Its code scales the gradient by s first, and gamma
    then is min((f - f_min) / (s^2 ||g||^2 + eps), max_learning_rate): without the cap the step is
    divided by s where it should be multiplied. The documented formula is followed; they are the
    same for s = 1.
    """

    max_learning_rate: Number = 1.0
    scaling: Number = 1.0
    f_min: Number = 0.0
    eps: Number = 0.0
    variant: str = "sps"

    def update(self, grads, params, *, value, **extra):
        h = self.numbers()
        grads = [wide(g) for g in grads]
        gamma = _polyak(grads, value, h)
        return [-h.scaling * gamma * g for g in grads]


class _Model(Reference):
    """What MoMo and MoMo-Adam have in common; see there for the formulas."""

    def init(self, params):
        super().init(params)
        self.fbar, self.gamma, self.lb = 0.0, 0.0, None

    def averaging(self, h):
        """The factor of the old averages, and rho, the sum of the weights in the new ones."""
        raise NotImplementedError

    def metric(self, g, s, h):
        """The diagonal D of a leaf."""
        raise NotImplementedError

    def update(self, grads, params, *, value, **extra):
        h = self.numbers()
        grads, params = [wide(g) for g in grads], [wide(p) for p in params]
        beta, rho = self.averaging(h)
        self.fbar = beta * self.fbar + (1 - beta) * float(value)
        self.gamma = beta * self.gamma + (1 - beta) * inner(grads, params)
        directions = []
        for g, s in zip(grads, self.slots, strict=True):
            s.d = beta * s.d + (1 - beta) * g
            directions.append(divide(s.d, self.metric(g, s, h)))
        d = [s.d for s in self.slots]
        along, length2 = inner(d, params), inner(d, directions)
        w = 1 + h.learning_rate * h.weight_decay

        lb = self.lb if h.adapt_lower_bound and h.t > 1 else h.lower_bound
        if h.adapt_lower_bound:
            cap = w * (self.fbar - self.gamma) + along
            if cap < w * rho * lb:
                lb = max(cap / (2 * w * rho), h.lower_bound)
        reach = max(w * (self.fbar - rho * lb - self.gamma) + along, 0.0)
        tau = min(h.learning_rate / rho, reach / length2) if length2 > 0 else 0.0
        if h.adapt_lower_bound:
            lb = max((self.fbar - self.gamma + along - tau * length2 / 2) / rho, h.lower_bound)
        self.lb = lb
        return [(p - tau * u) / w - p for p, u in zip(params, directions, strict=True)]


@dataclasses.dataclass
class Momo(_Model):
    """Momentum whose step ends where the model of the averaged loss meets its lower bound.

    With beta_1 = 0 and beta_t = beta afterwards, alpha the learning rate, w = 1 + alpha lambda:

        d = beta_t d + (1 - beta_t) g
        fbar = beta_t fbar + (1 - beta_t) f
        gamma = beta_t gamma + (1 - beta_t) <g, theta>
        tau = min(alpha, max(w (fbar - lb - gamma) + <d, theta>, 0) / ||d||^2)
        theta' = (theta - tau d) / w

    tau = 0 if d = 0. lb is `lower_bound`; with `adapt_lower_bound` that is only its start and
    least value, and lb is reset before tau and estimated after it, theta being the old one:

        cap = w (fbar - gamma) + <d, theta>
        if cap < w lb:  lb = max(cap / (2 w), lower_bound)
        ... tau ...
        lb = max(fbar - gamma + <d, theta> - 1/2 tau ||d||^2, lower_bound)

    Schaipp et al. 2024, arXiv:2305.07583, in the form without bias correction and with the proximal
    weight decay, as the authors' code has it (fabian-sp/MoMo, `Momo`). Optax 0.2.8 does not divide
    tau d by w, so that its step is not the minimizer that tau was computed for: with a weight decay
    the authors are followed. It also has tau = 0 where ||d||^2 <= 2.2e-16, the authors have not.
    """

    learning_rate: Number = 1.0
    beta: Number = 0.9
    lower_bound: Number = 0.0
    weight_decay: Number = 0.0
    adapt_lower_bound: bool = False

    def averaging(self, h):
        return h.beta if h.t > 1 else 0.0, 1.0

    def metric(self, g, s, h):
        return 1.0


@dataclasses.dataclass
class MomoAdam(_Model):
    """`Momo` in the metric of Adam.

    With rho = 1 - b1^t, averages that all start at 0, and w = 1 + alpha lambda:

        d = b1 d + (1 - b1) g, and likewise fbar of f and gamma of <g, theta>
        v = b2 v + (1 - b2) |g|^2
        D = sqrt(v / (1 - b2^t)) + eps
        tau = min(alpha / rho, max(w (fbar - rho lb - gamma) + <d, theta>, 0) / <d, d / D>)
        theta' = (theta - tau d / D) / w

    and tau = 0 if <d, d / D> = 0. With `adapt_lower_bound`, before and after tau:

        cap = w (fbar - gamma) + <d, theta>
        if cap < w rho lb:  lb = max(cap / (2 w rho), lower_bound)
        ... tau ...
        lb = max((fbar - gamma + <d, theta> - 1/2 tau <d, d / D>) / rho, lower_bound)

    Schaipp et al. 2024, arXiv:2305.07583, as the authors' `MomoAdam` with its proximal weight decay
    (`divide=True`). Optax 0.2.8 differs as for `Momo`: tau d / D is not divided by w.
    """

    learning_rate: Number = 0.01
    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    lower_bound: Number = 0.0
    weight_decay: Number = 0.0
    adapt_lower_bound: bool = False

    def averaging(self, h):
        return h.b1, 1 - h.b1**h.t

    def metric(self, g, s, h):
        s.v = h.b2 * s.v + (1 - h.b2) * square(g)
        return np.sqrt(s.v / (1 - h.b2**h.t)) + h.eps
