"""Float64 references of Muon's kin: what its polar factor is taken of, and what becomes of it, is another.

As in `matrix_references`: t is 1 at the first update, g is a gradient, theta a parameter, eta the learning
rate; a leaf is matrices of m inputs and n outputs in its last two axes, the others being a batch. A direction
is what will be subtracted, an update what will be added. M is the momentum and B what Nesterov makes of it,
neither corrected for its start; pol is the polar factor, sigma the size for a shape.
"""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from matrix_references import STANDARD, BesideAdam, InTurn, each_matrix, is_turn, polar, scale
from references import Number, Reference, Slots, _adam, norm, square

CONVERGING = (2.0, -1.5, 0.5)


def momentum(g, s, h):
    """M = beta M + (1 - beta) g; B = beta M + (1 - beta) g, or M."""
    s.m = g * 0 if h.t == 1 else s.m
    s.m = h.beta * s.m + (1 - h.beta) * g
    return h.beta * s.m + (1 - h.beta) * g if h.nesterov else s.m


def lengths(x, axis=-2):
    """The norm along an axis, which is kept; by default one of each output."""
    return np.sqrt(square(x).sum(axis=axis, keepdims=True))


@dataclasses.dataclass
class ScaleBySoapMuon(InTurn):
    """sigma pol(S), S = Q_L (P / sqrt(v)) Q_R*, P = Q_L* B Q_R, v = b2 v + (1 - b2) |P|^2.

    L = b L + (1 - b) g g* and R follow the direction, from 0. Q is of the eigenvectors of the first ones, the
    largest first, and every few updates one step of a power iteration, its columns and v ordered before by
    diag(Q* L Q). The first direction has no bases and is Muon's. sqrt(v) is at least eps.
    """

    ns_coeffs: Any = CONVERGING
    ns_steps: int = 12
    beta: Number = 0.95
    b2: Number = 0.9
    shampoo_beta: Number = 0.9
    eps: Number = 1e-14
    nu_eps: Number = 1e-8
    precondition_frequency: Number = 1
    nesterov: bool = True
    preconditioning: str = "schatten"
    scaling: str = "jordan"

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else each_matrix(self.one, g, s, h)

    def one(self, g, s, h):
        b = momentum(g, s, h)
        if h.t == 1:
            s.v, x = np.zeros(g.shape), b
            s.left, s.right = (np.zeros((k, k), g.dtype) for k in g.shape)
        else:
            turned = s.ql.conj().T @ b @ s.qr
            s.v = h.b2 * s.v + (1 - h.b2) * square(turned)
            x = s.ql @ (turned / np.sqrt(np.maximum(s.v, h.nu_eps**2))) @ s.qr.conj().T
        s.left = h.shampoo_beta * s.left + (1 - h.shampoo_beta) * (g @ g.conj().T)
        s.right = h.shampoo_beta * s.right + (1 - h.shampoo_beta) * (g.conj().T @ g)
        if h.t == 1:
            s.ql, s.qr = (np.linalg.eigh(side)[1][:, ::-1] for side in (s.left, s.right))
        elif is_turn(h, h.t - 1, h.precondition_frequency):
            for axis, side, name in ((0, s.left, "ql"), (1, s.right, "qr")):
                q = getattr(s, name)
                order = np.argsort(-np.real(np.diag(q.conj().T @ side @ q)), kind="stable")
                s.v = np.take(s.v, order, axis=axis)
                setattr(s, name, np.linalg.qr(side @ q[:, order])[0])
        u = polar(x, self.ns_coeffs, self.ns_steps, h.eps, self.preconditioning)
        return scale(g.shape, self.scaling) * u


@dataclasses.dataclass
class SoapMuon(BesideAdam, ScaleBySoapMuon):
    """SOAP-Muon."""

    weight_decay: Number = 0.025


def balanced(x, h, factor):
    """pol(D x), D of the longer side's rows, moved some times toward rows of pol(D x) that are as long."""
    if x.shape[0] == x.shape[1]:
        return factor(x)
    if x.shape[0] < x.shape[1]:
        return balanced(x.conj().T, h, factor).conj().T
    d = 1 / np.maximum(lengths(x, 1), h.eps)
    for _ in range(h.balancing_steps - 1):
        sizes = np.maximum(lengths(factor(d * x), 1), h.eps) ** 2
        d = d * (x.shape[1] / x.shape[0] / sizes) ** h.balancing_power
    return factor(d * x)


@dataclasses.dataclass
class ScaleByAurora(Reference):
    """sigma pol(D B), D diagonal on the longer side, so that the slices along it are about as long."""

    ns_coeffs: Any = CONVERGING
    ns_steps: int = 12
    beta: Number = 0.95
    balancing_steps: int = 2
    balancing_power: Number = 0.5
    eps: Number = 1e-7
    nesterov: bool = True
    scaling: str = "jordan"

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else each_matrix(self.one, g, s, h)

    def one(self, g, s, h):
        factor = lambda x: polar(x, self.ns_coeffs, self.ns_steps, h.eps)  # noqa: E731
        return scale(g.shape, self.scaling) * balanced(momentum(g, s, h), h, factor)


@dataclasses.dataclass
class Aurora(BesideAdam, ScaleByAurora):
    """Aurora."""

    learning_rate: Number = 0.05
    weight_decay: Number = 0.025


def largest(x, steps):
    """The largest singular value, by some steps of a power iteration from ones on the side of the inputs."""
    v = np.ones(x.shape[0]) / math.sqrt(x.shape[0])
    for _ in range(steps):
        v = x @ (x.conj().T @ v)
        v = v / max(norm(v), 1e-300)
    return norm(x.conj().T @ v)


@dataclasses.dataclass
class ScaleByContraMuon(Reference):
    """sigma u |O| / |u|, u = O - c B / |B|_2, O = pol(B), |B|_2 by some steps of a power iteration."""

    ns_coeffs: Any = CONVERGING
    ns_steps: int = 12
    beta: Number = 0.95
    contra: Number = 0.2
    eps: Number = 1e-7
    nesterov: bool = True
    power_steps: int = 5
    scaling: str = "jordan"

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else each_matrix(self.one, g, s, h)

    def one(self, g, s, h):
        b = momentum(g, s, h)
        o = polar(b, self.ns_coeffs, self.ns_steps, h.eps)
        u = o - h.contra * b / max(largest(b, self.power_steps), 1e-300)
        return scale(g.shape, self.scaling) * norm(o) / max(norm(u), 1e-10) * u


@dataclasses.dataclass
class ContraMuon(BesideAdam, ScaleByContraMuon):
    """Contra-Muon."""


@dataclasses.dataclass
class ScaleByDion(Reference):
    """sigma P Q*: with B = M + g, P spans B Q_before, R = B* P, Q is R with columns of length 1.

    M = B - (1 - mu) P R*. P is of the longer side, of a square matrix of the outputs. `first_q` gives the
    first Q, of a shape.
    """

    rank_fraction: float = 1.0
    beta: Number = 0.95
    eps: Number = 1e-8
    rank_multiple_of: int = 1
    power_iters: int = 1
    first_q: Any = None

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else each_matrix(self.one, g, s, h)

    def one(self, g, s, h):
        of = self.rank_multiple_of
        shape = min(g.shape), min(min(g.shape), of * math.ceil(self.rank_fraction * min(g.shape) / of))
        if h.t == 1:
            s.m, s.q = np.zeros_like(g), self.first_q(shape)
        turned = g.shape[0] <= g.shape[1]
        b = s.m + g
        b = b.T if turned else b
        p, r = np.zeros((len(b), s.q.shape[1]), g.dtype), s.q
        for _ in range(self.power_iters if b.any() else 0):
            p = np.linalg.qr(b @ r)[0]
            r = b.conj().T @ p
        left = b - (1 - h.beta) * p @ r.conj().T
        s.q = r / (lengths(r) + h.eps)
        u = p @ s.q.conj().T
        s.m, u = (left.T, u.T) if turned else (left, u)
        return scale(g.shape, "dion") * u


@dataclasses.dataclass
class Dion(BesideAdam, ScaleByDion):
    """Dion."""

    learning_rate: Number = 0.01
    weight_decay: Number = 0.01


@dataclasses.dataclass
class ScaleByMuown(Reference):
    """theta' - theta, theta' = gain v / |v| - eta lambda theta, one gain and one |v| for each output.

    A step along -pol is taken by v, one of Adam by the gain. Of v only |v| is kept, as v = |v| theta / gain.
    With lambda the gain is then |theta'|. An output of zeros begins with a gain of sqrt(0.33).
    """

    learning_rate: Number = 0.0
    ns_coeffs: Any = STANDARD
    ns_steps: int = 5
    beta: Number = 0.95
    gain_b1: Number = 0.9
    gain_b2: Number = 0.95
    gain_eps: Number = 1e-8
    eps: Number = 1e-7
    weight_decay: Number = 0.0
    nesterov: bool = True
    scaling: str = "moonlight"
    consistent_rms: Number | None = None

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else self.rows(g, p, s, h) - p

    def rows(self, g, p, s, h):
        if h.t == 1:
            s.gain = s.length = np.where(lengths(p) > 0, lengths(p), math.sqrt(0.33))
            s.of_gain = Slots()
        u = p / s.gain
        along = np.real(u.conj() * g).sum(axis=-2, keepdims=True)
        across = s.gain / s.length * (g - along * u)
        s.m = h.beta * s.m + across
        o = polar(across + h.beta * s.m if h.nesterov else s.m, self.ns_coeffs, self.ns_steps, h.eps)
        numbers = SimpleNamespace(b1=h.gain_b1, b2=h.gain_b2, eps=h.gain_eps, eps_root=0.0, t=h.t)
        s.gain = s.gain - h.learning_rate * _adam(along, s.of_gain, numbers, False)
        v = s.length * u - h.learning_rate * scale(g.shape, self.scaling, h.consistent_rms) * o
        s.length = lengths(v)
        new = s.gain * (v / s.length)
        if h.weight_decay:
            new = new - h.learning_rate * h.weight_decay * p
            s.gain = lengths(new)
        return new


@dataclasses.dataclass
class Muown(ScaleByMuown):
    """Muown, and AdamW for what is no matrix."""

    learning_rate: Number = 3e-4
    scaling: str = "none"
    consistent_rms: Number | None = 0.2
    adam_b1: Number = 0.9
    adam_b2: Number = 0.95
    adam_eps: Number = 1e-8
    adam_weight_decay: Number = 0.0

    def leaf(self, g, p, s, h):
        if g.ndim >= 2:
            return super().leaf(g, p, s, h)
        numbers = SimpleNamespace(b1=h.adam_b1, b2=h.adam_b2, eps=h.adam_eps, eps_root=0.0, t=h.t)
        return -h.learning_rate * (_adam(g, s, numbers, False) + h.adam_weight_decay * p)
