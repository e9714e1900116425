"""Float64 references of what Optax has in `contrib`, and of adaptive clipping.

In the formulas t is 1 at the first update, g is a gradient, theta a parameter; ||.|| and <.,.> are over
all leaves, <a, b> the real part of the sum of conj(a) b.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from references import (
    AddDecayedWeights,
    Chain,
    Number,
    Reference,
    ScaleByLearningRate,
    ScaleByRms,
    Sgd,
    _mean,
    divide,
    inner,
    norm,
    square,
    wide,
)


@dataclasses.dataclass
class Mechanize(Reference):
    """theta0 + S Delta: how far to follow the path Delta of the base's updates u, learned on the way.

    One step, elementwise over the n betas b_i = 1 - 10^-i with a tuner s_i each, S their sum:

        h = <Delta, g + lambda S ||g|| theta / (||theta|| + eps)>      Delta, S and theta are old
        Delta = Delta + u
        r = b r - s clip(h, -m, m)                                     s and m are old
        m = max(b m, |h| + eps)
        v = b^2 v + h^2
        s = (s_init m / n + max(r, 0)) / (sqrt(v) + eps)
        update = theta0 + S Delta - theta                              S and Delta are new

    r, m, v and Delta start from 0, s_i from s_init; theta0 are the parameters at the first update.
    The base has g as it comes. The old Delta is taken from the parameters,
    (theta - theta0) / (S + eps), unless `keep_delta`: then it is the sum of the u themselves.

    "paper": s starts from 0, h is not clipped, m = max(b m, |h|), r = max(b r - s h, 0).

    Cutkosky, Defazio and Mehta 2023, arXiv:2306.00144, algorithm 1, whose Delta is kept: "paper" with
    `keep_delta`. That is the authors' PyTorch code (optimizedlearning/mechanic) with `store_delta`,
    but for its m, from 1e-6, and its lambda term, of theta + u. "optax" is their JAX code, Optax
    0.2.8, with which the paper's experiments were run.
    """

    base: Reference
    weight_decay: Number = 1e-2
    eps: Number = 1e-8
    s_init: float = 1e-6
    num_betas: int = 6
    variant: str = "optax"
    keep_delta: bool = False

    def init(self, params):
        super().init(params)
        self.base.init(params)
        if self.variant not in ("optax", "paper"):
            raise ValueError(self.variant)
        self.r, self.m, self.v = np.zeros((3, self.num_betas))
        self.s = np.full(self.num_betas, self.s_init if self.variant == "optax" else 0.0)
        self.delta = [np.zeros_like(wide(p)) for p in params]

    def update(self, grads, params, **extra):
        h = self.numbers()
        grads, params = [wide(g) for g in grads], [wide(p) for p in params]
        moves = self.base.update(grads, params, **extra)
        scale = self.s.sum()
        if h.t == 1:
            self.start_params = [p.copy() for p in params]
        elif not h.keep_delta:
            self.delta = [
                divide(p - p0, scale + h.eps) for p, p0 in zip(params, self.start_params, strict=True)
            ]
        pull = divide(h.weight_decay * scale * norm(*grads), norm(*params) + h.eps)
        slope = inner(self.delta, [g + pull * p for g, p in zip(grads, params, strict=True)])
        self.delta = [d + u for d, u in zip(self.delta, moves, strict=True)]
        self._tune(slope, h)
        return [
            p0 + self.s.sum() * d - p for p0, d, p in zip(self.start_params, self.delta, params, strict=True)
        ]

    def _tune(self, slope, h):
        betas = 1 - 10.0 ** -np.arange(1, h.num_betas + 1)
        optax = h.variant == "optax"
        counted = np.clip(slope, -self.m, self.m) if optax else slope
        self.r = betas * self.r - self.s * counted
        gain = np.maximum(self.r, 0.0)
        if not optax:
            self.r = gain
        self.m = np.maximum(betas * self.m, abs(slope) + (h.eps if optax else 0.0))
        self.v = betas**2 * self.v + slope**2
        self.s = divide(h.s_init / h.num_betas * self.m + gain, np.sqrt(self.v) + h.eps)


def _sophia(m, curvature, h):
    if np.iscomplexobj(m):
        u = np.empty_like(m)
        u.real = _sophia(m.real, np.real(curvature), h)
        u.imag = _sophia(m.imag, np.imag(curvature) if np.iscomplexobj(curvature) else curvature, h)
        return u
    u = divide(m, np.maximum(h.gamma * curvature, h.eps))
    return u if h.clip_threshold is None else np.clip(u, -h.clip_threshold, h.clip_threshold)


@dataclasses.dataclass
class ScaleBySophia(Reference):
    """clip(m^ / max(gamma c, eps), -rho, rho), elementwise, with c a mean of the curvature:

        m = b1 m + (1 - b1) g,  m^ = m / (1 - b1^t)
        c = b2 c + (1 - b2) hessian(g, theta, t)         at t = 1, k + 1, 2 k + 1, ...

    rho is `clip_threshold`, None for no clip, and k `update_interval`; m and c start from 0. The
    hessian, list in, list out, estimates the diagonal of the Hessian; its c counts from the next
    step on, so that the first is of c = 0. 0 / 0 counts as 0. A complex leaf is two real ones;
    an estimate that is real there is of both.

    With `estimate_first` the new c counts at once, and without `bias_correction` m^ = m: so both in
    the paper, Liu et al. 2023, arXiv:2305.14342, algorithm 3. The authors' code (Liuhong99/Sophia)
    has no bias correction either, but its c comes after the steps k, 2 k, ... and counts from the
    next on. The defaults are Optax 0.2.8's.
    """

    b1: Number = 0.965
    b2: Number = 0.99
    eps: Number = 1e-8
    gamma: Number = 0.01
    clip_threshold: Number | None = 1.0
    update_interval: int = 10
    bias_correction: bool = True
    estimate_first: bool = False
    hessian: dataclasses.InitVar[Callable | None] = None

    def __post_init__(self, hessian):
        self.estimate = hessian

    def update(self, grads, params, **extra):
        h = self.numbers()
        grads, params = [wide(g) for g in grads], [wide(p) for p in params]
        means = [
            _mean(g, s, h, bias_correction=h.bias_correction) for g, s in zip(grads, self.slots, strict=True)
        ]
        before = [s.c for s in self.slots]
        if (h.t - 1) % h.update_interval == 0:
            for s, c in zip(self.slots, self.estimate(grads, params, h.t), strict=True):
                s.c = h.b2 * s.c + (1 - h.b2) * wide(c)
        curvatures = [s.c for s in self.slots] if h.estimate_first else before
        return [_sophia(m, c, h) for m, c in zip(means, curvatures, strict=True)]


class Sophia(Chain):
    """-eta (u + lambda theta) with u of `ScaleBySophia` and the decay on the leaves of `mask`."""

    def __init__(self, learning_rate, *, weight_decay=1e-4, mask=None, **sophia):
        super().__init__(
            ScaleBySophia(**sophia),
            AddDecayedWeights(weight_decay, mask),
            ScaleByLearningRate(learning_rate),
        )


class Estimate(Reference):
    """What an estimator of the diagonal of the Hessian gives, in the place of gradients."""

    def __init__(self, hessian):
        self.hessian = hessian

    def init(self, params):
        pass

    def update(self, grads, params, **extra):
        return self.hessian(grads, params)


@dataclasses.dataclass
class Sam(Reference):
    """Sharpness-aware minimization over rounds of k = `sync_period` calls.

    In each of a round's first k - 1 calls the parameters go against the update of `adversarial` at
    g, uphill. At the last they go back to the theta where the round began, and on from there by the
    update that `base` has for g, the gradient at the point reached:

        calls 1 .. k - 1    update = -adversarial(g, point)
        call k              update = theta - point + base(g, theta)

    The base sees no other gradient, and the adversarial optimizer not that one. It begins each
    round anew, at its theta, unless `reset_state` is false. k = 1 is the base alone.

    The paper's, Foret et al. 2020, arXiv:2010.01412, is k = 2 with rho g / ||g|| for the climb,
    `adversarial` SGD of the normalized gradient with rate rho. As Optax 0.2.8 but for three faults of
    its: at k = 1 every step there starts from where the one before started, and not from where it
    led; its reset has the point of the climb in place of theta; it picks by multiplication, so
    that a nan in the update or the state of the optimizer whose turn it is not counts.
    """

    base: Reference
    adversarial: Reference
    sync_period: int = 2
    reset_state: bool = True

    def init(self, params):
        super().init(params)
        self.base.init(params)
        self.adversarial.init(params)

    def update(self, grads, params, **extra):
        call = self.t % self.sync_period
        self.t += 1
        params = [wide(p) for p in params]
        if call == 0:
            self.start_params = params
            if self.reset_state:
                self.adversarial.init(params)
        if call < self.sync_period - 1:
            return [-u for u in self.adversarial.update(grads, params, **extra)]
        steps = self.base.update(grads, self.start_params, **extra)
        return [p0 - p + u for p0, p, u in zip(self.start_params, params, steps, strict=True)]


@dataclasses.dataclass
class OpaqueSam(Sam):
    """A round of `Sam` in one call: only the base's step is seen, and k - 1 gradients are taken here.

    `grad_fn(params, i)` is the gradient after climb i + 1, from 0 to k - 2; lists of leaves. As
    Optax 0.2.8.
    """

    def update(self, grads, params, *, grad_fn=None, **extra):
        self.t += 1
        params = [wide(p) for p in params]
        point = params
        if self.reset_state:
            self.adversarial.init(params)
        for i in range(self.sync_period - 1):
            climb = self.adversarial.update(grads, point, **extra)
            point = [p - u for p, u in zip(point, climb, strict=True)]
            grads = grad_fn(point, i)
        return self.base.update(grads, params, **extra)


def _unit_norms(x, axis):
    if axis is None:
        inputs = 1 if x.ndim in (2, 3) else x.ndim - 1
        axis = tuple(range(x.ndim if x.squeeze().ndim <= 1 else inputs))
    return np.sqrt(square(x).sum(axis, keepdims=True))


@dataclasses.dataclass
class AdaptiveGradClip(Reference):
    """g min(1, c max(||theta||, eps) / ||g||), the norms over each unit of a leaf.

    A unit has all that leads to one output: it is the whole leaf where at most one axis is longer
    than 1; else axis 0 of 2 and of 3 axes, all axes but the last of 4 (HWIO) and of more; or what
    `axis` says.

    Brock et al. 2021, arXiv:2102.06171, section 4, and the authors' code
    (deepmind-research/nfnets), up to 4 axes; 3 are there those of a multi-head projection, so that
    the units of a kernel WIO are smaller than the paper's. Optax 0.2.8 adds 5 axes and
    has an error for more. Either divides by max(||g||, 1e-6), which clips too much where c eps is
    less; no part of the paper, and not followed.
    """

    clipping: Number
    eps: Number = 1e-3
    axis: int | tuple[int, ...] | None = None

    def leaf(self, g, p, s, h):
        size, bound = _unit_norms(g, h.axis), h.clipping * np.maximum(_unit_norms(p, h.axis), h.eps)
        return np.where(size > bound, divide(bound, np.where(size > bound, size, 1.0)) * g, g)


@dataclasses.dataclass
class SplitRealAndImaginary(Reference):
    """The base's update, to which a complex leaf is two real ones, its real and its imaginary part."""

    base: Reference

    def init(self, params):
        super().init(params)
        self.complex = [np.iscomplexobj(p) for p in params]
        self.base.init(self._split(params))

    def update(self, grads, params, **extra):
        parts = iter(self.base.update(self._split(grads), self._split(params), **extra))
        updates = []
        for is_complex in self.complex:
            u = wide(next(parts))
            if is_complex:
                u = u.astype(np.complex128)
                u.imag = next(parts)
            updates.append(u)
        return updates

    def _split(self, leaves):
        pairs = zip(leaves, self.complex, strict=True)
        return [part for x, both in pairs for part in ((np.real(x), np.imag(x)) if both else (x,))]


@dataclasses.dataclass
class DifferentiallyPrivateAggregate(Reference):
    """(sum over examples of g min(1, C / ||g||) + sigma C xi) / L, with xi standard normal.

    Axis 0 of each leaf of the gradients is the examples, and ||g|| is over all leaves of one. C is
    `l2_norm_clip`, sigma `noise_multiplier`, L `batch_size` or else the number of examples given.
    `noise(t)` is xi, a list of leaves without axis 0, each entry of variance 1; of a complex leaf each
    part. None is xi = 0. Abadi et al. 2016, arXiv:1607.00133, algorithm 1; L there is the lot's
    expected size, a constant, where examples are drawn one by one. As Optax 0.2.8, whose xi on a
    complex leaf has only half the variance in each part.
    """

    l2_norm_clip: Number
    noise_multiplier: Number
    batch_size: int | None = None
    noise: dataclasses.InitVar[Callable | None] = None

    def __post_init__(self, noise):
        self.draw = noise

    def update(self, grads, params, **extra):
        h = self.numbers()
        grads = [wide(g) for g in grads]
        norms = np.sqrt(sum(square(g).sum(tuple(range(1, g.ndim))) for g in grads))
        factors = np.where(norms > h.l2_norm_clip, divide(h.l2_norm_clip, norms), 1.0)
        sums = [np.tensordot(factors, g, 1) for g in grads]
        if self.draw is not None:
            scale = h.noise_multiplier * h.l2_norm_clip
            sums = [x + scale * xi for x, xi in zip(sums, self.draw(h.t), strict=True)]
        size = len(norms) if h.batch_size is None else h.batch_size
        return [divide(x, size) for x in sums]


@dataclasses.dataclass
class ScheduleFree(Reference):
    """Any reference, its updates averaged in the place of a schedule and a momentum.

    The parameters are y, where the gradients are taken; z starts at them, and x, which is not kept,
    is the average to evaluate. With u the base's update from g at y, eta_t the learning rate and
    W_0 = 0:

        x = (y - (1 - b1) z) / b1
        z = z + u
        W_t = W_(t-1) + w_t,  w_t = max(eta_1, ..., eta_t)^p,  c = w_t / W_t
        x = (1 - c) x + c z
        update = b1 x + (1 - b1) z - y

    p is `weight_lr_power`; c = 0 if W_t = 0; b1 > 0. `eval_params(params)` gives x. eta only weighs:
    the base has its own learning rate, which should be the same.

    Defazio et al. 2024, arXiv:2405.15682, and facebookresearch/schedule_free. The authors' wrapper
    hands z to its base for the parameters, Optax y, which is followed: a decay in the base is then
    at y, as in the authors' SGD and AdamW. Optax 0.2.8 evaluates a schedule eta at the count t, but
    the base at t - 1, so that a step's weight belongs to the next step's rate; here, as in the
    paper, both are of one step, t - 1.
    """

    base: Reference
    learning_rate: Number
    b1: float = 0.9
    weight_lr_power: Number = 2.0

    def init(self, params):
        super().init(params)
        self.base.init(params)
        self.z = [wide(p).copy() for p in params]
        self.largest, self.total = 0.0, 0.0

    def eval_params(self, params):
        return [(wide(y) - (1 - self.b1) * z) / self.b1 for y, z in zip(params, self.z, strict=True)]

    def update(self, grads, params, **extra):
        h = self.numbers()
        x = self.eval_params(params)
        moves = self.base.update(grads, params, **extra)
        self.z = [z + u for z, u in zip(self.z, moves, strict=True)]
        self.largest = max(self.largest, h.learning_rate)
        weight = self.largest**h.weight_lr_power
        self.total += weight
        c = weight / self.total if self.total > 0 else 0.0
        x = [(1 - c) * x + c * z for x, z in zip(x, self.z, strict=True)]
        leaves = zip(x, self.z, params, strict=True)
        return [self.b1 * x + (1 - self.b1) * z - y for x, z, y in leaves]


class _ScheduleFreeOptimizer(Reference):
    """`ScheduleFree` around `base(rate)`, with a warmup."""

    def base(self, rate):
        raise NotImplementedError

    def rate(self, step):
        eta = self.learning_rate
        eta = eta(step) if callable(eta) else eta
        return eta * min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else eta

    def init(self, params):
        base = self.base(self.rate)
        self.wrapped = ScheduleFree(base, self.rate, self.b1, self.weight_lr_power)
        self.wrapped.init(params)

    def update(self, grads, params, **extra):
        return self.wrapped.update(grads, params, **extra)

    def eval_params(self, params):
        return self.wrapped.eval_params(params)


@dataclasses.dataclass
class ScheduleFreeSgd(_ScheduleFreeOptimizer):
    """`ScheduleFree` with the base -eta_t (g + lambda y).

    eta_t is the learning rate, with `warmup_steps` = T > 0 times min(1, t / T), in the base and in
    the weights: the paper and the authors' SGDScheduleFree. Optax 0.2.8 has t / T in the weights,
    but (t - 1) / T in the base, so that the first gradient counts for nothing and the average still
    weighs it; and with `warmup_steps=0` its rate is 0 for ever, the authors' without warmup.
    """

    learning_rate: Number = 1.0
    warmup_steps: int | None = None
    b1: float = 0.9
    weight_decay: Number | None = None
    weight_lr_power: Number = 2.0

    def base(self, rate):
        return Sgd(rate, weight_decay=self.weight_decay)


@dataclasses.dataclass
class ScheduleFreeAdamw(_ScheduleFreeOptimizer):
    """`ScheduleFree` with the base -eta_t (g / (sqrt(v / (1 - b2^t)) + eps) + lambda y).

    v = b2 v + (1 - b2) |g|^2 and eta_t is that of `ScheduleFreeSgd`, with the same differences to
    Optax 0.2.8. Optax and the authors' AdamWScheduleFree correct the bias in v, and are
    followed; the paper's algorithm 1 (their AdamWScheduleFreePaper) multiplies eta_t by
    sqrt(1 - b2^t), and with it eps, the decay and the weights of the average.
    """

    learning_rate: Number = 0.0025
    warmup_steps: int | None = None
    b1: float = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    weight_decay: Number = 0.0
    weight_lr_power: Number = 2.0

    def base(self, rate):
        return Chain(
            ScaleByRms(self.b2, self.eps, eps_in_sqrt=False, bias_correction=True),
            AddDecayedWeights(self.weight_decay),
            ScaleByLearningRate(rate),
        )


@dataclasses.dataclass
class ReduceOnPlateau(Reference):
    """scale g, the scale reduced when the value has stopped to fall.

    scale = 1, best = inf, bad = wait = 0 at first. Each time `accumulation_size` values have come,
    with m their mean, and before g is scaled:

        if m < best - rtol |best| - atol:  best = m, bad = 0    (m < inf while best = inf)
        otherwise:                         bad = bad + 1
        if wait > 0:                       wait = wait - 1, bad = 0
        if bad > patience:                 scale = max(factor scale, min_scale), bad = 0,
                                           wait = cooldown

    A NaN is no improvement. This is the mode "min" of PyTorch's ReduceLROnPlateau, where the scale
    is its learning rate over the first one, with three differences: PyTorch has
    m < (1 - rtol) best, or m < best - atol, which of a negative best makes every value up to
    rtol |best| above it an improvement (pytorch/pytorch#47513); its reduction is for the next steps
    and Optax's, and the one here, for this one too; it leaves out reductions by less than 1e-8.

    Optax 0.2.8 has m < (1 - rtol) best - atol, with the same fault (google-deepmind/optax#1767);
    with rtol = 1 that is NaN at first, and nothing ever an improvement. It also reduces at
    bad == patience, one value before PyTorch, and with patience = 0 when the value improves and
    only then. `reduce_at="patience"` is its (and Keras') count, mended: bad >= max(patience, 1).
    """

    factor: Number = 0.1
    patience: Number = 10
    rtol: Number = 1e-4
    atol: Number = 0.0
    cooldown: Number = 0
    accumulation_size: int = 1
    min_scale: Number = 0.0
    _: dataclasses.KW_ONLY
    reduce_at: str = "beyond"

    def init(self, params):
        super().init(params)
        self.scale, self.best, self.bad, self.wait = 1.0, math.inf, 0, 0
        self.values = []

    def update(self, grads, params, *, value, **extra):
        h = self.numbers()
        self.values.append(float(value))
        if len(self.values) == h.accumulation_size:
            self.judge(sum(self.values) / len(self.values), h)
            self.values = []
        return [self.scale * wide(g) for g in grads]

    def judge(self, mean, h):
        margin = 0.0 if math.isinf(self.best) else h.rtol * abs(self.best) + h.atol
        if mean < self.best - margin:
            self.best, self.bad = mean, 0
        else:
            self.bad += 1
        if self.wait > 0:
            self.wait, self.bad = self.wait - 1, 0
        if self.bad > (h.patience if h.reduce_at == "beyond" else max(h.patience, 1) - 1):
            self.scale = max(h.factor * self.scale, h.min_scale)
            self.bad, self.wait = 0, h.cooldown


@dataclasses.dataclass
class ScaleByDistanceOverGradients(Reference):
    """s r / sqrt(G + eps) g of each leaf by itself.

    r = max(reps_rel (1 + ||theta0||), the largest ||theta - theta0|| so far), G the sum of all ||g||^2 so
    far, with this one. Ivgi et al. 2023, arXiv:2302.12022, with one rate a layer.
    """

    reps_rel: Number = 1e-6
    eps: Number = 1e-8
    global_scale: Number = 1.0

    def leaf(self, g, p, s, h):
        if h.t == 1:
            s.start = p
        s.far = max(s.far, norm(p - s.start), h.reps_rel * (1 + norm(s.start)))
        s.sum = s.sum + norm(g) ** 2
        return h.global_scale * s.far / math.sqrt(s.sum + h.eps) * g
