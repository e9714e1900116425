"""Float64 references of rules and schedules that Optax does not have.

In the formulas t is 1 at the first update, g is a gradient, theta a parameter, eta the learning rate;
<a, b> is the real part of conj(a) b. A direction is what will be subtracted, an update what will be added.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from references import (
    Number,
    Reference,
    Schedule,
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


@dataclasses.dataclass
class ScaleByMars(Reference):
    """Adam's direction of c / max(1, ||c||), c = g + gamma b1 / (1 - b1) (g - g'), the norm over each leaf.

    Adam's is m^ / (sqrt(v^) + eps). g' is the gradient of the step before: MARS-approx. (In the
    exact form it is the gradient of the present batch at the parameters before, a second
    evaluation.) At the first step g' is 0, and so c = (1 + gamma b1 / (1 - b1)) g: the authors'
    code. Unless `zero_start`: then it is g, and c = g, as the paper's x_1 = x_0 makes it. Yuan et
    al. 2024, arXiv:2411.10438, algorithm 2.
    """

    b1: Number = 0.95
    b2: Number = 0.99
    eps: Number = 1e-8
    gamma: Number = 0.025
    zero_start: bool = True

    def leaf(self, g, p, s, h):
        before = g if h.t == 1 and not h.zero_start else s.g
        c = g + h.gamma * h.b1 / (1 - h.b1) * (g - before)
        s.g = g
        c = c / max(1.0, norm(c))
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


# Schedules: each gives a function of the step, which is 0 at the first update.

_SHAPES = {
    "linear": lambda x: 1 - x,
    "1-sqrt": lambda x: 1 - math.sqrt(x),
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "exponential": lambda x: math.expm1(1 - x) / math.expm1(1),
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
) -> Schedule:
    """A line up to the peak at `warmup_steps`, the peak up to `decay_begin`, then end + (peak - end) f(x).

    x goes from 0 to 1 in `decay_steps` and stays; f(x) is 1 - x, 1 - sqrt(x), (1 + cos(pi x)) / 2 or
    (e^(1 - x) - 1) / (e - 1), that of ibm-granite/dolomite-engine. Hu et al. 2024,
    arXiv:2404.06395; 1 - sqrt: Hägele et al. 2024, arXiv:2405.18392, equation 1.
    """

    def value(step):
        if step < warmup_steps:
            return init_value + (peak_value - init_value) * step / warmup_steps
        x = _progress(step, decay_begin, decay_steps)
        return end_value + (peak_value - end_value) * _SHAPES[shape](x)

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
