"""Float64 references of rules and schedules that Optax does not have.

In the formulas t is 1 at the first update, g is a gradient, theta a parameter, eta the learning rate;
<a, b> is the real part of conj(a) b. A direction is what will be subtracted, an update what will be added.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from contrib_references import _unit_norms
from references import (
    Number,
    Reference,
    Schedule,
    _clip_block_rms,
    _decay,
    _decays,
    _mean,
    _over_root,
    divide,
    norm,
    rms,
    sign,
    square,
    wide,
)

# Of a leaf's shape: some of its axes.
Axes = Callable[[tuple[int, ...]], tuple[int, ...]]


def _laprop(g, s, h):
    s.v = h.b2 * s.v + (1 - h.b2) * square(g)
    s.m = h.b1 * s.m + (1 - h.b1) * _over_root(g, s.v / (1 - h.b2**h.t), h.eps)
    return s.m / (1 - h.b1**h.t)


@dataclasses.dataclass
class ScaleByLaprop(Reference):
    """m / (1 - b1^t) with m = b1 m + (1 - b1) g / (sqrt(v^) + eps) and v = b2 v + (1 - b2) |g|^2 from 0.

    v^ = v / (1 - b2^t): the second correction goes into m, and eps stands outside the root of the
    corrected v. Ziyin, Wang and Ueda 2020, arXiv:2002.04839; the authors' code puts the learning rate
    into m too, which is the same for a constant one.
    """

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-15

    def leaf(self, g, p, s, h):
        return _laprop(g, s, h)


@dataclasses.dataclass
class Laprop(Reference):
    """-eta (u + lambda theta), u that of `ScaleByLaprop`.

    The authors' code decays last, by lambda and not eta lambda: theta = (1 - lambda) (theta - eta u).
    """

    learning_rate: Number
    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-15
    weight_decay: Number | None = None
    mask: list[bool] | None = None

    def leaf(self, g, p, s, h):
        return -h.learning_rate * (_laprop(g, s, h) + _decay(p, h))


@dataclasses.dataclass
class ScaleByAdamAtan2(Reference):
    """a atan2(m^, b sqrt(v^)), Adam's m^ and v^; a atan2(|m^|, b sqrt(v^)) m^ / |m^| for a complex m^.

    At most a pi / 2, unchanged when every gradient is multiplied by one positive number, and 0 where
    m^ is. Everett et al. 2024, arXiv:2407.05872, appendix C.5. Their table C4: a = b agrees with Adam
    where |m^| << sqrt(v^), a = 1 / atan(1 / b) where |m^| = sqrt(v^), which is 4 / pi = 1.27 for b = 1.
    """

    b1: Number = 0.9
    b2: Number = 0.999
    a: Number = 1.27
    b: Number = 1.0

    def leaf(self, g, p, s, h):
        m_hat = _mean(g, s, h)
        s.v = h.b2 * s.v + (1 - h.b2) * square(g)
        return h.a * np.arctan2(np.abs(m_hat), h.b * np.sqrt(s.v / (1 - h.b2**h.t))) * sign(m_hat)


def _stable_adam(g, s, h):
    """Adam's direction and the number that it is to be divided by."""
    m_hat = _mean(g, s, h)
    s.v = h.b2 * s.v + (1 - h.b2) * square(g)
    v_hat = s.v / (1 - h.b2**h.t)
    ratio = divide(np.abs(g), np.sqrt(np.maximum(v_hat, h.eps**2)))
    return _over_root(m_hat, v_hat, h.eps), max(1.0, rms(ratio) / h.clip_threshold)


@dataclasses.dataclass
class ScaleByStableAdam(Reference):
    """u / max(1, RMS / d), u Adam's direction, RMS^2 the mean of |g|^2 / max(v^, eps^2) over a leaf.

    u = m^ / (sqrt(v^) + eps), and v^ is the corrected one: the paper corrects inside the averages,
    with b (1 - b^(t-1)) / (1 - b^t) for b, which makes them m^ and v^ themselves. Wortsman et al.
    2023, arXiv:2304.13013, algorithm 2, where d = 1.
    """

    b1: Number = 0.9
    b2: Number = 0.99
    eps: Number = 1e-6
    clip_threshold: Number = 1.0

    def leaf(self, g, p, s, h):
        u, by = _stable_adam(g, s, h)
        return u / by


@dataclasses.dataclass
class StableAdamw(Reference):
    """-eta (u + lambda theta) / max(1, RMS / d) as in `ScaleByStableAdam`: eta is clipped, so the decay is.

    With `clip_decay` off the decay is eta lambda theta: `ScaleByStableAdam` followed by a decay.
    """

    learning_rate: Number
    b1: Number = 0.9
    b2: Number = 0.99
    eps: Number = 1e-6
    clip_threshold: Number = 1.0
    weight_decay: Number | None = 1e-2
    mask: list[bool] | None = None
    clip_decay: bool = True

    def leaf(self, g, p, s, h):
        u, by = _stable_adam(g, s, h)
        return -h.learning_rate * (u / by + _decay(p, h) / (by if h.clip_decay else 1.0))


def _corrected(g, s, h):
    before = g if h.t == 1 and not h.zero_start else s.g
    c = g + h.gamma * h.b1 / (1 - h.b1) * (g - before)
    s.g = g
    return c / max(1.0, norm(c))


@dataclasses.dataclass
class ReduceVariance(Reference):
    """c / max(1, ||c||), c = g + gamma b1 / (1 - b1) (g - g'), the norm over each leaf.

    g' is the gradient of the step before: MARS-approx. (In the exact form it is the gradient of the
    present batch at the parameters before, a second evaluation.) At the first step g' is 0, and so
    c = (1 + gamma b1 / (1 - b1)) g: the authors' code. Unless `zero_start`: then it is g, and c = g,
    as the paper's x_1 = x_0 makes it. Yuan et al. 2024, arXiv:2411.10438, algorithm 2.
    """

    b1: Number = 0.95
    gamma: Number = 0.025
    zero_start: bool = True

    def leaf(self, g, p, s, h):
        return _corrected(g, s, h)


@dataclasses.dataclass
class ScaleByMars(Reference):
    """Adam's direction m^ / (sqrt(v^) + eps) of what `ReduceVariance` gives."""

    b1: Number = 0.95
    b2: Number = 0.99
    eps: Number = 1e-8
    gamma: Number = 0.025
    zero_start: bool = True

    def leaf(self, g, p, s, h):
        c = _corrected(g, s, h)
        m_hat = _mean(c, s, h)
        s.v = h.b2 * s.v + (1 - h.b2) * square(c)
        return _over_root(m_hat, s.v / (1 - h.b2**h.t), h.eps)


def _agreement(a, b):
    """The cosine between a and b as elements, from their directions alone; 0 where one is 0."""
    return np.real(np.conj(sign(a)) * sign(b))


class _Around(Reference):
    """A rule that changes what its base makes of the gradients."""

    def init(self, params):
        super().init(params)
        self.base.init(params)

    def update(self, grads, params, **extra):
        h = self.numbers()
        moves = self.base.update(grads, params, **extra)
        return [wide(self.move(wide(u), wide(g), h)) for u, g in zip(moves, grads, strict=True)]


@dataclasses.dataclass
class Cautious(_Around):
    """u where it goes with the descent, 0 elsewhere, times n / (how many are kept), by leaf.

    It does where <u, g> < 0 if the base gives an update (`descent`), where <u, g> > 0 if it gives a
    direction: no sign is guessed. With k of n elements kept the factor is

        "clamp"     1 / max(k / n, 1e-3)    c_adamw.py and c_muon.py of the authors, since 2025
        "plus_one"  n / (k + 1)             their first code, and still c_lion.py and c_adafactor.py
        "paper"     1 / (k / n + eps)       algorithm 1, with eps unnamed: 1e-8

    Nothing is kept where u or g is 0. A decay does not belong in the base. Liang et al. 2024,
    arXiv:2411.16085.
    """

    base: Reference
    descent: bool = True
    variant: str = "clamp"

    def move(self, u, g, h):
        kept = (-_agreement(u, g) if h.descent else _agreement(u, g)) > 0
        n, k = kept.size, np.count_nonzero(kept)
        if n == 0:
            return u
        factors = {"clamp": 1 / max(k / n, 1e-3), "plus_one": n / (k + 1), "paper": 1 / (k / n + 1e-8)}
        return factors[h.variant] * np.where(kept, u, 0.0)


@dataclasses.dataclass
class Grams(_Around):
    """-|u| sign(g) if the base gives an update (`descent`), |u| sign(g) if a direction; 0 where g is 0.

    The sign of a complex g is g / |g|. Cao, Li and Song 2024, arXiv:2412.17107.
    """

    base: Reference
    descent: bool = True

    def move(self, u, g, h):
        return (-1.0 if h.descent else 1.0) * np.abs(u) * sign(g)


@dataclasses.dataclass
class AddCautiousDecayedWeights(Reference):
    """u + lambda theta where <u, theta> >= 0, u elsewhere, for a direction u; where > 0 with `strict`.

    The two differ where u is 0: the paper decays there. Chen et al. 2025, arXiv:2510.12402,
    algorithm 1; `strict` in modded-nanogpt's track 3.
    """

    weight_decay: Number
    mask: list[bool] | None = None
    strict: bool = False

    def leaf(self, u, p, s, h):
        agreement = _agreement(u, p)
        where = (agreement > 0 if h.strict else agreement >= 0) & bool(_decays(h))
        return u + np.where(where, h.weight_decay * p, 0.0)


@dataclasses.dataclass
class Hyperball(Reference):
    """W' |W| / |W'| - W with W' = W - eta u |W| / |u|, norms over each leaf, u the base's direction.

    No move of one element, which could only come back, nor where u, W or W' is 0. The radius is the
    present norm, which no step changes but by rounding, or with "initial" the norm at `init`. marin
    lib/levanter/src/levanter/optim/adamh.py and muonh.py ("current"), HeavyBall 3.2.1 ("initial").
    """

    base: Reference
    learning_rate: Number
    radius: str = "current"

    def init(self, params):
        super().init(params)
        self.base.init(params)
        for s, p in zip(self.slots, params, strict=True):
            s.radius = norm(p)

    def update(self, grads, params, **extra):
        h = self.numbers()
        leaves = zip(self.base.update(grads, params, **extra), params, self.slots, strict=True)
        return [self.move(wide(u), wide(p), s, h) for u, p, s in leaves]

    def move(self, u, p, s, h):
        length, radius = norm(u), norm(p) if h.radius == "current" else s.radius
        if p.size <= 1 or 0 in (length, radius, norm(p)):
            return np.zeros_like(p)
        moved = p - h.learning_rate * radius * (u / length)
        return moved * (radius / norm(moved)) - p if norm(moved) else np.zeros_like(p)


def _two_largest(shape, least):
    """The two largest axes, the later ones among equals; None for a leaf that is kept in full."""
    if len(shape) < 2 or 0 in shape:
        return None
    axes = np.argsort(shape, kind="stable")[-2:]
    return axes if shape[axes[0]] >= least else None


def _rank_one(x, averages, decay, axes):
    """The averages (R, C) of the means of x over the later of two axes and over the other, one step on."""
    (rows, columns), (r, c) = axes, averages or (0.0, 0.0)
    return (
        decay * r + (1 - decay) * x.mean(columns, keepdims=True),
        decay * c + (1 - decay) * x.mean(rows, keepdims=True),
    )


def _over_root_of_outer(x, averages, axes):
    """x / sqrt(R C / mean(R)), the mean over what is left of the two axes."""
    r, c = averages
    return divide(x, np.sqrt(divide(r * c, r.mean(axes[0], keepdims=True))))


def _came(g, s, h):
    axes = _two_largest(g.shape, h.min_dim_size_to_factor)
    g2 = square(g) + h.eps1
    if axes is None:
        s.v = h.b2 * s.v + (1 - h.b2) * g2
        u = divide(g, np.sqrt(s.v))
    else:
        s.v = _rank_one(g2, s.v, h.b2, axes)
        u = _over_root_of_outer(g, s.v, axes)
    u = _clip_block_rms(u, h.clip_threshold)
    s.m = h.b1 * s.m + (1 - h.b1) * u
    if axes is None:
        return s.m
    s.instability = _rank_one(square(u - s.m) + h.eps2, s.instability, h.b3, axes)
    return _over_root_of_outer(s.m, s.instability, axes)


@dataclasses.dataclass
class ScaleByCame(Reference):
    """m / sqrt(S), with m = b1 m + (1 - b1) u from 0 and u = w / max(1, RMS(w) / d), w = g / sqrt(V).

    V and S are outer products R C / mean(R) of averages, from 0 and never corrected:

        V  of the means of |g|^2 + eps1 over either of the two largest axes, of decay b2
        S  of those of |u - m|^2 + eps2, with the new m, of decay b3

    Further axes are a batch, except in RMS(w), which is that of the leaf, and d is
    `clip_threshold`. A leaf of fewer than two axes, or whose second largest is below
    `min_dim_size_to_factor`, or without elements keeps V in full and gives m itself. Luo et al. 2023,
    arXiv:2307.02047, whose sums for the means make no difference to V and S. The leaf that is kept
    in full is from the authors' came-pytorch 0.1.3, came_pytorch/CAME.py, which factors the last two
    axes of all others.
    """

    b1: Number = 0.9
    b2: Number = 0.999
    b3: Number = 0.9999
    eps1: Number = 1e-30
    eps2: Number = 1e-16
    clip_threshold: Number = 1.0
    min_dim_size_to_factor: int = 1

    def leaf(self, g, p, s, h):
        return _came(g, s, h)


@dataclasses.dataclass
class Came(Reference):
    """-eta (u + lambda theta), u that of `ScaleByCame`; the decay is that of came-pytorch 0.1.3."""

    learning_rate: Number
    b1: Number = 0.9
    b2: Number = 0.999
    b3: Number = 0.9999
    eps1: Number = 1e-30
    eps2: Number = 1e-16
    clip_threshold: Number = 1.0
    min_dim_size_to_factor: int = 1
    weight_decay: Number | None = 0.0
    mask: list[bool] | None = None

    def leaf(self, g, p, s, h):
        return -h.learning_rate * (_came(g, s, h) + _decay(p, h))


def _block_mean(x, kept):
    """The mean over the axes that are not kept; 0 for a block without elements."""
    kept = {axis % x.ndim for axis in kept}
    over = tuple(axis for axis in range(x.ndim) if axis not in kept)
    return x.sum(over, keepdims=True) / max(1, math.prod(x.shape[axis] for axis in over))


class _Blocks(Reference):
    """A reference with `axes`, which is a function of a shape and not of the step."""

    def __post_init__(self, axes):
        self.kept = axes or (lambda shape: (len(shape) - 1,) if len(shape) > 1 else ())

    def adam_mini(self, g, s, h):
        m_hat = _mean(g, s, h)
        s.v = h.b2 * s.v + (1 - h.b2) * _block_mean(square(g), self.kept(g.shape))
        return _over_root(m_hat, s.v / (1 - h.b2**h.t), h.eps)


@dataclasses.dataclass
class ScaleByAdamMini(_Blocks):
    """m^ / (sqrt(v^) + eps), Adam's m^, with one v = b2 v + (1 - b2) mean(|g|^2) for each block of a leaf.

    Both are corrected: m^ = m / (1 - b1^t), v^ = v / (1 - b2^t). `axes(shape)` gives the axes along
    which blocks lie one beside the other, and the mean is over the others: none for one block a
    leaf, all for Adam. By default the last one of two and more (an output each), else none. Zhang
    et al. 2024, arXiv:2406.16793, and the authors' adam-mini 1.1.1,
    adam_mini/adam_mini.py, which takes the partition from the parameters' names.
    """

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    axes: dataclasses.InitVar[Axes | None] = None

    def leaf(self, g, p, s, h):
        return self.adam_mini(g, s, h)


@dataclasses.dataclass
class AdamMini(_Blocks):
    """-eta (u + lambda theta), u that of `ScaleByAdamMini`."""

    learning_rate: Number
    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    axes: dataclasses.InitVar[Axes | None] = None
    weight_decay: Number | None = 0.0
    mask: list[bool] | None = None

    def leaf(self, g, p, s, h):
        return -h.learning_rate * (self.adam_mini(g, s, h) + _decay(p, h))


@dataclasses.dataclass
class RadialBrake(Reference):
    """u - (1 - k) <u, e> e for a direction u, e = theta / ||theta||, the product and norm over each leaf.

    k is `outward_scale` where -u leads away from 0, <u, e> < 0, and else `inward_scale`. Nothing is
    changed where theta is 0. KellerJordan/modded-nanogpt records/track_3_optimization,
    train_gpt_cwd_SOTA.py, scale_radial_update, which takes ||theta||^2 for 1e-12 where it is less.
    """

    outward_scale: Number = 0.5
    inward_scale: Number = 1.0

    def leaf(self, u, p, s, h):
        length = norm(p)
        if length == 0:
            return u
        outward = p / length
        along = np.sum(np.real(np.conj(outward) * u))
        scale = h.outward_scale if along < 0 else h.inward_scale
        return u - (1 - scale) * along * outward


@dataclasses.dataclass
class RowFloor(Reference):
    """u max(1, r ||theta|| / ||u||) for a direction u, the norms over each unit of a leaf; 0 where u is.

    Units are those of `AdaptiveGradClip`. KellerJordan/modded-nanogpt
    records/track_3_optimization, train_gpt_cwd_SOTA.py, the part under ROWFLOOR, with a matrix out x
    in, RHO = 1 and r = TARGET_UW; it takes either norm for 1e-8 where it is less.
    """

    min_ratio: Number = 0.3825
    axis: int | tuple[int, ...] | None = None

    def leaf(self, u, p, s, h):
        size, least = _unit_norms(u, h.axis), h.min_ratio * _unit_norms(p, h.axis)
        short = (size > 0) & (size < least)
        return np.where(short, least / np.where(short, size, 1.0), 1.0) * u


@dataclasses.dataclass
class EmaNesterov(Reference):
    """Any reference, its gradients taken ahead of where it is, by its average move.

    The parameters are y, and x is where the reference is: x_0 = y_0 and D_0 = 0. With u the inner
    update from the gradient at y_k, where k is the step,

        x_(k+1) = y_k + u
        D_(k+1) = gamma D_k + (1 - gamma) (x_(k+1) - x_k)
        y_(k+1) = x_(k+1) + beta_(k+1) D_(k+1)
        update = y_(k+1) - y_k

    so that beta_k goes with the gradient of step k, and beta_0 with nothing. `eval_params(params)`
    gives x. Yau et al. 2026, arXiv:2605.25395. modded-nanogpt records/track_3_optimization,
    train_gpt_cwd_SOTA.py, class EMA_Nesterov, scales beta with the learning rate, that of step k - 1
    for beta_k, and has it 0 for the first steps and the last.
    """

    inner: Reference
    beta: Number
    gamma: Number = 0.99

    def init(self, params):
        super().init(params)
        self.inner.init(params)
        self.x = [wide(p) for p in params]
        self.d = [np.zeros_like(x) for x in self.x]

    def eval_params(self, params):
        return self.x

    def update(self, grads, params, **extra):
        h = self.numbers()
        moves = self.inner.update(grads, params, **extra)
        before, self.x = self.x, [wide(y) + u for y, u in zip(params, moves, strict=True)]
        leaves = zip(self.d, self.x, before, strict=True)
        self.d = [h.gamma * d + (1 - h.gamma) * (x - x_before) for d, x, x_before in leaves]
        beta = self.beta(self.t) if callable(self.beta) else self.beta
        return [x + beta * d - wide(y) for x, d, y in zip(self.x, self.d, params, strict=True)]


class ScaleByLeaf(Reference):
    """f(theta) g, with f a function of the leaf: of its shape, and not of the step."""

    def __init__(self, factor):
        self.factor = factor

    def update(self, grads, params, **extra):
        return [self.factor(wide(p)) * wide(g) for g, p in zip(grads, params, strict=True)]


@dataclasses.dataclass
class ScaleByLionMode(Reference):
    """f(|c|) c / |c|, c = b1 m + (1 - b1) g, and then m = b2 m + (1 - b2) g; m from 0.

    f(x) is 1 ("hard", which is Lion), tanh(smooth_beta x) ("smooth") or min(x, 1) ("refined"); the
    direction c / |c| of a real c is its sign, and 0 at 0. Optax 0.2.8 scale_by_lion. The refined Lion
    of Rong et al. 2025, doi:10.1038/s41598-025-07112-4, is another, with an arc tangent.
    """

    b1: Number = 0.9
    b2: Number = 0.99
    mode: str = "hard"
    smooth_beta: Number = 1.0

    def leaf(self, g, p, s, h):
        c = h.b1 * s.m + (1 - h.b1) * g
        s.m = h.b2 * s.m + (1 - h.b2) * g
        sizes = {
            "hard": np.ones_like,
            "smooth": lambda x: np.tanh(h.smooth_beta * x),
            "refined": lambda x: np.minimum(x, 1.0),
        }
        return sizes[h.mode](np.abs(c)) * sign(c)


# Schedules: each gives a function of the step, which is 0 at the first update.

_SHAPES = {
    "linear": lambda x, power: 1 - x,
    "1-sqrt": lambda x, power: 1 - math.sqrt(x),
    "cosine": lambda x, power: (1 + math.cos(math.pi * x)) / 2,
    "exponential": lambda x, power: math.expm1(1 - x) / math.expm1(1),
    "power": lambda x, power: (1 - x) ** power,
}


def _progress(step, begin, steps):
    """0 up to `begin`, 1 from `begin + steps` on, a line between."""
    return 0.0 if step < begin else 1.0 if step >= begin + steps else (step - begin) / steps


def warmup_stable_decay(
    peak_value: float,
    warmup_steps: int,
    decay_begin: int,
    decay_steps: int,
    shape: str = "linear",
    init_value: float = 0.0,
    end_value: float = 0.0,
    power: float = 1.0,
) -> Schedule:
    """A line up to the peak at `warmup_steps`, the peak up to `decay_begin`, then end + (peak - end) f(x).

    x goes from 0 to 1 in `decay_steps` and stays; f(x) is 1 - x, 1 - sqrt(x), (1 + cos(pi x)) / 2,
    (e^(1 - x) - 1) / (e - 1), that of ibm-granite/dolomite-engine, or (1 - x)^power, that of
    modded-nanogpt records/track_3_optimization, train_gpt_cwd_SOTA.py: its min(peak, c (T - step)^power)
    for T the end of the decay. Hu et al. 2024, arXiv:2404.06395; 1 - sqrt: Hägele et al. 2024,
    arXiv:2405.18392, equation 1.
    """

    def value(step):
        if step < warmup_steps:
            return init_value + (peak_value - init_value) * step / warmup_steps
        x = _progress(step, decay_begin, decay_steps)
        return end_value + (peak_value - end_value) * _SHAPES[shape](x, power)

    return value


def inverse_sqrt(peak_value: float, warmup_steps: int) -> Schedule:
    """peak min(step / w, sqrt(w / step)), the peak at w = `warmup_steps`.

    Without a warmup it is peak / sqrt(max(step, 1)). Vaswani et al. 2017, arXiv:1706.03762,
    equation 3, whose step is 1 at the first update and whose peak is (d w)^-1/2; t5x
    create_learning_rate_scheduler, "constant * linear_warmup * rsqrt_normalized_decay", whose step
    is 0.
    """

    def value(step):
        w = max(warmup_steps, 1)
        return peak_value * (step / w if step < warmup_steps else math.sqrt(w / max(step, w)))

    return value


def half_life(
    init_value: float, end_value: float, transition_steps: float, transition_begin: float = 0
) -> Schedule:
    """The decay whose half-life, log(1/2) / log(b), lies on a line between those of the two values.

    Pagliardini, Ablin and Grangier 2024, arXiv:2409.03137, section 3 (the scheduler of beta_3).
    """

    def value(step):
        share = _progress(step, transition_begin, transition_steps)
        first, last = (math.log(0.5) / math.log(b) for b in (init_value, end_value))
        return 0.5 ** (1 / ((1 - share) * first + share * last))

    return value


def qk_gamma(max_logits, tau):
    """tau / s for each head whose largest logit s is above tau, and 1 for the others."""
    s = np.asarray(max_logits, float)
    return tau / np.where(s > tau, s, tau)


def qk_factors(gamma, key_heads, alpha, sharing):
    """What query heads and key heads are multiplied by; a key head serves several query heads in a row.

    "group": all heads of a group use its least gamma; "key": the key head alone does; "query": a query head
    takes the whole of its gamma, and a key head that is shared none. Without sharing the first two are one.
    """
    groups = gamma.reshape(key_heads, -1)
    least = groups.min(axis=1, keepdims=True)
    if sharing == "query" and groups.shape[1] > 1:
        return gamma, np.ones(key_heads)
    queries = np.broadcast_to(least, groups.shape) if sharing == "group" else groups
    return queries.ravel() ** alpha, least.ravel() ** (1 - alpha)


@dataclasses.dataclass
class QkClip(Reference):
    """f (theta + u) - theta, u being the update of the optimizer and f gamma to a power, head by head.

    `roles` has for each leaf None, which leaves it alone, or a layer and a role: of a "query" f is
    gamma^alpha, of a "key" gamma^(1 - alpha), of a "rotary_query", whose keys all heads share, gamma. Such a
    leaf is (..., heads, size of a head). `max_logits` has for each layer the largest logit of each query
    head. Su 2025, kexue.fm/archives/11126, and Kimi K2, arXiv:2507.20534.
    """

    roles: list
    tau: Number = 100.0
    alpha: Number = 0.5
    sharing: str = "group"

    def update(self, grads, params, max_logits=None, **extra):
        h = self.numbers()
        key_heads = {
            role[0]: p.shape[-2]
            for role, p in zip(self.roles, params, strict=True)
            if role and role[1] == "key"
        }
        updates = []
        for role, u, p in zip(self.roles, grads, params, strict=True):
            u, p = wide(u), wide(p)
            if role is not None:
                layer, kind = role
                gamma = qk_gamma(max_logits[layer], h.tau)
                shared = qk_factors(gamma, key_heads.get(layer, len(gamma)), h.alpha, self.sharing)
                f = {"query": shared[0], "key": shared[1], "rotary_query": gamma}[kind]
                u = f[:, None] * (p + u) - p
            updates.append(u)
        return updates


class QkClipOfOneHead(Reference):
    """The same of matrices that are a head each: the first column is its query, the others are its key."""

    def __init__(self, **numbers):
        self.numbers_given = numbers

    def init(self, params):
        self.is_head = [p.ndim > 1 and p.shape[-1] > 1 for p in params]
        roles = [
            role
            for i, is_head in enumerate(self.is_head)
            for role in ([(i, "query"), (i, "key")] if is_head else [None])
        ]
        self.inner = QkClip(roles, **self.numbers_given)
        self.inner.init(roles)

    def parts(self, tree):
        return [
            part
            for x, is_head in zip(tree, self.is_head, strict=True)
            for part in ([x[..., None, :1], x[..., None, 1:]] if is_head else [x])
        ]

    def update(self, grads, params, max_logits=None, **extra):
        layers = {i: [max_logits] for i in range(len(params))}
        moved = iter(self.inner.update(self.parts(grads), self.parts(params), layers))
        return [
            np.concatenate([next(moved)[..., 0, :], next(moved)[..., 0, :]], axis=-1)
            if is_head
            else next(moved)
            for is_head in self.is_head
        ]
