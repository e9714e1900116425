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


def _adam(g, s, h):
    s.m = h.b1 * s.m + (1 - h.b1) * g
    s.v = h.b2 * s.v + (1 - h.b2) * square(g)
    c1, c1_next, c2 = 1.0, 1.0, 1.0
    if h.bias_correction:
        c1, c1_next, c2 = 1 - h.b1**h.t, 1 - h.b1 ** (h.t + 1), 1 - h.b2**h.t
    m_hat = h.b1 * s.m / c1_next + (1 - h.b1) * g / c1 if h.nesterov else s.m / c1
    if h.eps_scaled:
        return math.sqrt(c2) * divide(m_hat, np.sqrt(s.v + h.eps_root) + h.eps)
    return divide(m_hat, np.sqrt(s.v / c2 + h.eps_root) + h.eps)


def _ademamix(g, s, h):
    s.m1 = h.b1 * s.m1 + (1 - h.b1) * g
    s.m2 = h.b3 * s.m2 + (1 - h.b3) * g
    s.v = h.b2 * s.v + (1 - h.b2) * square(g)
    v_hat = s.v / (1 - h.b2**h.t)
    return divide(s.m1 / (1 - h.b1**h.t) + h.alpha * s.m2, np.sqrt(v_hat + h.eps_root) + h.eps)


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
        norm = math.sqrt(sum(np.sum(square(wide(g))) for g in grads))
        factor = h.max_norm / norm if norm > h.max_norm else 1.0
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
        return _adam(g, s, h)


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
class Sgd(Reference):
    """-eta v with v of `Trace`, or -eta g without momentum; g includes lambda theta."""

    learning_rate: Number
    momentum: Number | None = None
    nesterov: bool = False
    dampening: Number = 0.0
    dampen_first: bool = True
    weight_decay: Number | None = None

    def leaf(self, g, p, s, h):
        g = _l2(g, p, h.weight_decay)
        return -h.learning_rate * (g if h.momentum is None else _trace(g, s, h.momentum, h))


@dataclasses.dataclass
class Adagrad(Reference):
    """-eta times `ScaleByRss` of g + lambda theta."""

    learning_rate: Number
    initial_accumulator_value: Number = 0.1
    eps: Number = 1e-7
    eps_in_sqrt: bool = True
    weight_decay: Number | None = None

    def leaf(self, g, p, s, h):
        return -h.learning_rate * _rss(_l2(g, p, h.weight_decay), s, h)


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
        if h.momentum is None:
            return u
        s.v = h.momentum * s.v + u
        return u + h.momentum * s.v if h.nesterov else s.v


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
        return -h.learning_rate * _adam(_l2(g, p, h.weight_decay), s, h)


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
        return -eta * h.learning_rate * _adam(g, s, h) - decay


@dataclasses.dataclass
class Ademamix(Reference):
    """-eta (a + lambda theta) with a the direction of `ScaleByAdemamix`."""

    learning_rate: Number
    b1: Number = 0.9
    b2: Number = 0.999
    b3: Number = 0.9999
    alpha: Number = 5.0
    eps: Number = 1e-8
    eps_root: Number = 0.0
    weight_decay: Number = 0.0

    def leaf(self, g, p, s, h):
        return -h.learning_rate * (_ademamix(g, s, h) + h.weight_decay * p)


@dataclasses.dataclass
class Lion(Reference):
    """-eta (a + lambda theta) with a the direction of `ScaleByLion`."""

    learning_rate: Number
    b1: Number = 0.9
    b2: Number = 0.99
    weight_decay: Number = 1e-3

    def leaf(self, g, p, s, h):
        return -h.learning_rate * (_lion(g, s, h) + h.weight_decay * p)


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
