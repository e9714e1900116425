"""Float64 references of rules that treat a leaf as matrices: its last two axes, the others being a batch.

In the formulas t is 1 at the first update, g is a gradient, theta a parameter, eta the learning rate. A
matrix has m rows (inputs) and n columns (outputs). A direction is what will be subtracted, an update what
will be added.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from references import Number, Reference, _adam, sign, square

STANDARD = (3.4445, -4.7750, 2.0315)
SETS = {
    "dion": [
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ],
    "polar_express": [
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ],
}


def polynomial(x: np.ndarray, coefficients: Any) -> np.ndarray:
    """What the steps make of a matrix, by its singular values alone: s <- a s + b s^3 + c s^5."""
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    for a, b, c in coefficients:
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ vh


def first(x: np.ndarray, preconditioning: str, eps: float, margin: float) -> np.ndarray:
    """A matrix over the norm that the steps begin with; of aol each row of the shorter side over its own."""
    s = np.linalg.svd(x, compute_uv=False)
    if preconditioning == "aol":
        tall = x.shape[0] > x.shape[1]
        y = x.conj().T if tall else x
        sums = np.abs(y @ y.conj().T).sum(axis=1, keepdims=True)
        y = y / np.sqrt(np.maximum(sums, eps))
        return y.conj().T if tall else y
    if preconditioning == "schatten":
        return x / np.sqrt(max(np.sqrt((s**4).sum()), eps))
    size = s.max(initial=0.0) if preconditioning == "spectral" else math.sqrt((s**2).sum())
    return x / (margin * size + eps)


def polar(x, ns_coeffs=STANDARD, ns_steps=5, eps=1e-8, preconditioning="frobenius"):
    """The polar factor of each matrix of a leaf, about."""
    margin = 1.02 if ns_coeffs == "polar_express" else 1.0
    rows = SETS.get(ns_coeffs, [STANDARD] * ns_steps) if isinstance(ns_coeffs, str) else ns_coeffs
    if not isinstance(rows[0], tuple):
        rows = [rows] * ns_steps
    if not x.size:
        return x
    flat = x.reshape(-1, *x.shape[-2:])
    return np.stack([polynomial(first(y, preconditioning, eps, margin), rows) for y in flat]).reshape(x.shape)


def scale(shape, scaling, consistent_rms=None):
    """sigma, the size of an update for a shape."""
    m, n = shape[-2:]
    if consistent_rms is not None:
        return consistent_rms * math.sqrt(max(m, n))
    return {
        "none": 1.0,
        "jordan": math.sqrt(max(1.0, n / max(m, 1))),
        "moonlight": 0.2 * math.sqrt(max(m, n)),
        "dion": math.sqrt(n / max(m, 1)),
    }[scaling]


@dataclasses.dataclass
class Orthogonalize(Reference):
    """sigma pol(g); what is no matrix passes."""

    ns_coeffs: Any = STANDARD
    ns_steps: int = 5
    eps: Number = 1e-8
    preconditioning: str = "frobenius"
    scaling: str = "none"
    consistent_rms: Number | None = None

    def leaf(self, g, p, s, h):
        if g.ndim < 2:
            return g
        u = polar(g, self.ns_coeffs, self.ns_steps, h.eps, self.preconditioning)
        return scale(g.shape, self.scaling, h.consistent_rms) * u


def _muon(g, s, h, scaling, bias_correction=True):
    beta, t = h.beta, h.t
    s.m = beta * s.m + (1 - beta) * g
    c, c_next = (1 - beta**t, 1 - beta ** (t + 1)) if bias_correction else (1.0, 1.0)
    m = beta * s.m / c_next + (1 - beta) * g / c if h.nesterov else s.m / c
    u = polar(m, h.ns_coeffs, h.ns_steps, h.eps, h.preconditioning)
    if h.adaptive:
        u = np.real(np.conj(m) * u).sum(axis=(-2, -1), keepdims=True) * u
    return scale(g.shape, scaling, h.consistent_rms) * u


@dataclasses.dataclass
class ScaleByMuon(Reference):
    """sigma pol(m), with Nesterov's momentum m corrected for its start; what is no matrix passes."""

    ns_coeffs: Any = STANDARD
    ns_steps: int = 5
    beta: Number = 0.95
    eps: Number = 1e-8
    nesterov: bool = True
    adaptive: bool = False
    preconditioning: str = "frobenius"
    bias_correction: bool = True
    scaling: str = "none"
    consistent_rms: Number | None = None

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else _muon(g, s, h, self.scaling, self.bias_correction)


@dataclasses.dataclass
class Muon(Reference):
    """-eta (sigma pol(m) + lambda theta) for matrices, and AdamW for the rest."""

    learning_rate: Number
    ns_coeffs: Any = STANDARD
    ns_steps: int = 5
    beta: Number = 0.95
    eps: Number = 1e-8
    weight_decay: Number = 0.0
    nesterov: bool = True
    adaptive: bool = False
    preconditioning: str = "frobenius"
    adam_b1: Number = 0.9
    adam_b2: Number = 0.999
    adam_eps_root: Number = 0.0
    adam_weight_decay: Number = 0.0
    adam_learning_rate: Number | None = None
    consistent_rms: Number | None = None
    convention: str = "optax"

    def leaf(self, g, p, s, h):
        if g.ndim >= 2:
            scaling = {"moonlight": "moonlight", "dion": "dion"}.get(self.convention, "jordan")
            u = _muon(g, s, h, scaling, self.convention == "optax")
            return -h.learning_rate * (u + h.weight_decay * p)
        numbers = SimpleNamespace(b1=h.adam_b1, b2=h.adam_b2, eps=h.eps, eps_root=h.adam_eps_root, t=h.t)
        rate = h.learning_rate if h.adam_learning_rate is None else h.adam_learning_rate
        return -rate * (_adam(g, s, numbers, self.nesterov) + h.adam_weight_decay * p)


def each_matrix(rule, g, s, h):
    """What a rule makes of each matrix of a leaf, which has slots of its own."""
    if h.t == 1:
        s.each = [SimpleNamespace() for _ in range(math.prod(g.shape[:-2]))]
    if not g.size:
        return g
    flat, made = g.reshape(-1, *g.shape[-2:]), []
    for h.matrix, (x, own) in enumerate(zip(flat, s.each, strict=True)):
        made.append(rule(x, own, h))
    return np.stack(made).reshape(g.shape)


def cut(n, size):
    """The lengths of the blocks of a side."""
    return [min(size, n - start) for start in range(0, n, size)]


@dataclasses.dataclass
class InTurn(Reference):
    """A reference that computes something anew every few updates, of one matrix after another.

    All matrices, or blocks, are numbered by their sizes, as these are written, and in each by leaf and batch;
    blocks of several sizes come block by block, of one size together.
    """

    stagger: bool = True

    def init(self, params):
        super().init(params)
        size, groups = getattr(self, "block_size", math.inf), {}
        for i, p in enumerate(params):
            if np.ndim(p) < 2:
                continue
            rows, columns = (cut(n, size) if size < math.inf else [n] for n in p.shape[-2:])
            blocks = [*enumerate(itertools.product(rows, columns))]
            each = [(b, k, shape) for b in range(math.prod(p.shape[:-2])) for k, shape in blocks]
            if len({*rows}) > 1 or len({*columns}) > 1:
                each.sort(key=lambda entry: entry[1])
            for b, k, (m, n) in each:
                groups.setdefault((f"{m}x{n}", np.iscomplexobj(p)), []).append((i, b, k))
        order = [key for name in sorted(groups) for key in groups[name]]
        self.number_of = {key: number for number, key in enumerate(order)}

    def numbers(self):
        h = super().numbers()
        h.number_of = self.number_of
        return h


def is_turn(h, k, period, block=0):
    """Whether a matrix has its turn after k steps: one in each period."""
    return (k + (h.number_of[h.index, h.matrix, block] if h.stagger else 0)) % period == 0


def _soap(g, s, h):
    """One matrix; t is 1 at the first gradient, which makes the bases alone."""
    if h.t == 1:
        s.left, s.right = (1 - h.shampoo_beta) * (g @ g.conj().T), (1 - h.shampoo_beta) * (g.conj().T @ g)
        s.ql, s.qr = (np.linalg.eigh(side)[1][:, ::-1] for side in (s.left, s.right))
        s.m, s.v = np.zeros_like(g), np.zeros(g.shape)
        return np.zeros_like(g)
    k = h.t - 1
    turned = s.ql.conj().T @ g @ s.qr
    s.m = h.b1 * s.m + (1 - h.b1) * turned
    s.v = h.b2 * s.v + (1 - h.b2) * square(turned)
    c = math.sqrt(1 - h.b2**k) / (1 - h.b1**k) if h.bias_correction else 1.0
    u = c * s.ql @ (s.m / (np.sqrt(s.v) + h.eps)) @ s.qr.conj().T
    s.left = h.shampoo_beta * s.left + (1 - h.shampoo_beta) * (g @ g.conj().T)
    s.right = h.shampoo_beta * s.right + (1 - h.shampoo_beta) * (g.conj().T @ g)
    if is_turn(h, k, h.precondition_frequency):
        m = s.ql @ s.m @ s.qr.conj().T
        for axis, side, name in ((0, s.left, "ql"), (1, s.right, "qr")):
            q = getattr(s, name)
            order = np.argsort(-np.real(np.diag(q.conj().T @ side @ q)), kind="stable")
            s.v = np.take(s.v, order, axis=axis)
            setattr(s, name, np.linalg.qr(side @ q[:, order])[0])
        s.m = s.ql.conj().T @ m @ s.qr
    return u


@dataclasses.dataclass
class ScaleBySoap(InTurn):
    """Adam in the eigenbases of L = b L + (1 - b) g g* and R, which are renewed every few updates."""

    b1: Number = 0.95
    b2: Number = 0.95
    shampoo_beta: Number = 0.95
    eps: Number = 1e-8
    precondition_frequency: Number = 10
    bias_correction: bool = True

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else each_matrix(_soap, g, s, h)


def _normuon(g, s, h):
    """One leaf of matrices."""
    s.m = h.beta * s.m + (1 - h.beta) * g
    c, c_next = (1 - h.beta**h.t, 1 - h.beta ** (h.t + 1)) if h.bias_correction else (1.0, 1.0)
    m = h.beta * s.m / c_next + (1 - h.beta) * g / c if h.nesterov else s.m / c
    o = polar(m, h.ns_coeffs, h.ns_steps, h.eps)
    s.v = h.b2 * s.v + (1 - h.b2) * square(o).mean(axis=-2, keepdims=True)
    u = o / (np.sqrt(s.v) + 1e-10)
    sizes = [np.sqrt(square(x).sum(axis=(-2, -1), keepdims=True)) for x in (o, u)]
    return scale(g.shape, "jordan") * sizes[0] / (sizes[1] + 1e-10) * u


@dataclasses.dataclass
class ScaleByNormuon(Reference):
    """o / sqrt(v) at the norm of o, with o = pol(m) and one v for each output; what is no matrix passes."""

    ns_coeffs: Any = STANDARD
    ns_steps: int = 5
    beta: Number = 0.95
    b2: Number = 0.95
    eps: Number = 1e-7
    nesterov: bool = True
    bias_correction: bool = False

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else _normuon(g, s, h)


@dataclasses.dataclass
class BesideAdam(Reference):
    """-eta (u + lambda theta) for matrices, of which the next class gives u, and AdamW for the rest."""

    learning_rate: Number = 0.0
    weight_decay: Number = 0.0
    adam_b1: Number = 0.9
    adam_b2: Number = 0.95
    adam_eps: Number = 1e-8
    adam_weight_decay: Number = 0.0

    def leaf(self, g, p, s, h):
        if g.ndim >= 2:
            return -h.learning_rate * (super().leaf(g, p, s, h) + h.weight_decay * p)
        numbers = SimpleNamespace(b1=h.adam_b1, b2=h.adam_b2, eps=h.adam_eps, eps_root=0.0, t=h.t)
        return -h.learning_rate * (_adam(g, s, numbers, False) + h.adam_weight_decay * p)


@dataclasses.dataclass
class Normuon(BesideAdam, ScaleByNormuon):
    """NorMuon."""


@dataclasses.dataclass
class Soap(BesideAdam, ScaleBySoap):
    """SOAP."""

    learning_rate: Number = 3e-3
    weight_decay: Number = 0.01
    adam_b1: Number = 0.95


@dataclasses.dataclass
class ScaleByAdamuon(Reference):
    """0.2 sqrt(m n) N / |N|, N = O / (sqrt(v) + eps), O = pol(sign m'); m' with Nesterov's momentum."""

    ns_coeffs: Any = STANDARD
    ns_steps: int = 5
    beta: Number = 0.95
    eps: Number = 1e-7
    nu_eps: Number = 1e-8
    nesterov: bool = True

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else each_matrix(self.one, g, s, h)

    def one(self, g, s, h):
        if h.t == 1:
            s.m, s.v = np.zeros_like(g), np.zeros(g.shape)
        s.m = h.beta * s.m + (1 - h.beta) * g
        m = (1 - h.beta) * g + h.beta * s.m if h.nesterov else s.m
        o = polar(sign(m), self.ns_coeffs, self.ns_steps, h.eps)
        s.v = h.beta * s.v + (1 - h.beta) * square(o)
        u = o / (np.sqrt(s.v) + h.nu_eps)
        return 0.2 * math.sqrt(g.size) / (np.sqrt(square(u).sum()) + h.nu_eps) * u


@dataclasses.dataclass
class Adamuon(BesideAdam, ScaleByAdamuon):
    """AdaMuon."""

    weight_decay: Number = 0.01


@dataclasses.dataclass
class ScaleByDion2(Reference):
    """sigma pol of those slices of M = M + g with the largest sums of |M|; what was used is damped.

    The slices lie along the shorter side; of a square matrix they are its columns.
    """

    fraction: float = 0.25
    ef_decay: Number = 0.95
    ns_coeffs: Any = "polar_express"
    eps: Number = 1e-8
    scaling: str = "dion"

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else each_matrix(self.one, g, s, h)

    def one(self, g, s, h):
        if h.t == 1:
            s.m = np.zeros_like(g)
        s.m = s.m + g
        m, n = g.shape
        x = (s.m.T if n <= m else s.m).copy()
        k = max(1, math.ceil(self.fraction * len(x)))
        rows = np.sort(np.argsort(-np.abs(x).sum(axis=1), kind="stable")[:k])
        u = np.zeros_like(x)
        u[rows] = polar(x[rows], self.ns_coeffs, 5, h.eps)
        x[rows] *= h.ef_decay
        s.m, u = (x.T, u.T) if n <= m else (x, u)
        return scale(g.shape, self.scaling) * u


@dataclasses.dataclass
class Dion2(BesideAdam, ScaleByDion2):
    """Dion2."""

    learning_rate: Number = 0.01
    weight_decay: Number = 0.01


@dataclasses.dataclass
class ScaleByMatrixSize(Reference):
    """g / m, or 2 g / (m + n); what is no matrix passes."""

    size: str = "fan_in"

    def leaf(self, g, p, s, h):
        if g.ndim < 2:
            return g
        m, n = g.shape[-2:]
        return g / max(m if self.size == "fan_in" else (m + n) / 2, 1)


@dataclasses.dataclass
class NormalizeByBlockRms(Reference):
    """g / (rms(g) + eps)"""

    eps: Number = 1e-8

    def leaf(self, g, p, s, h):
        return g / (np.sqrt(square(g).sum() / max(g.size, 1)) + h.eps)


@dataclasses.dataclass
class Scion(Reference):
    """-eta (rho u + lambda theta), u of the momentum: sqrt(n / m) pol of matrices, the rest over its RMS."""

    learning_rate: Number
    b1: Number = 0.9
    radius: Number = 50.0
    rest_radius: Number = 1.0
    weight_decay: Number = 1.0
    eps: Number = 1e-7

    def leaf(self, g, p, s, h):
        s.m = h.b1 * s.m + (1 - h.b1) * g
        if g.ndim < 2:
            u = h.rest_radius * s.m / (np.sqrt(square(s.m).sum() / max(g.size, 1)) + 1e-8)
        else:
            u = h.radius * scale(g.shape, "dion") * polar(s.m, eps=h.eps)
        return -h.learning_rate * (u + h.weight_decay * p)
