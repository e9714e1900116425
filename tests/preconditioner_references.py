"""Float64 references of rules that precondition a matrix by second moments of its rows and columns.

As in `matrix_references`: t is 1 at the first update, g is a gradient, theta a parameter, eta the learning
rate; a leaf is matrices of m inputs and n outputs in its last two axes, the others being a batch. A direction
is what will be subtracted, an update what will be added.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np

from matrix_references import BesideAdam, InTurn, each_matrix, is_turn
from references import Number, sign, square


def eigen_root(a, exponent, eps):
    """(a + eps 1)^-exponent; if the smallest eigenvalue is still below eps all move up until it is eps."""
    values, vectors = np.linalg.eigh(a + eps * np.eye(len(a)))
    if values.min(initial=eps) < eps:
        values = values - values.min() + eps
    return (vectors * np.array([x**-exponent if x > 0 else 0.0 for x in values])) @ vectors.conj().T


def newton_root(a, p, eps, most_steps=100, tolerance=1e-6):
    """(a + eps 1)^(-1/p): x goes to it and y to 1 by w = ((p + 1) 1 - y) / p, x <- x w, y <- w^p y."""
    one = np.eye(len(a))
    a = a + eps * one
    z = (p + 1) / (2 * np.sqrt(square(a).sum()))
    x, y = z ** (1 / p) * one, z * a
    for _ in range(most_steps):
        if np.abs(y - one).max() <= tolerance:
            break
        w = one + (one - y) / p
        x, y = x @ w, np.linalg.matrix_power(w, p) @ y
    return x


def _graft(m, s, h):
    """What the grafted method makes of the momentum."""
    if h.grafting == "sgd":
        return m
    v = s.v / (1 - h.graft_beta**h.t) if h.grafting == "adam" else s.v
    return m / (np.sqrt(v) + h.graft_eps)


def _shampoo(g, s, h, block):
    """One block."""
    if h.t == 1:
        s.m, s.v = np.zeros_like(g), np.zeros(g.shape)
        s.left, s.right = (np.zeros((k, k), g.dtype) for k in g.shape)
        s.roots = [np.zeros((k, k), g.dtype) for k in g.shape]
    start = h.start_preconditioning_step or h.precondition_frequency
    keep, weight = (1, 1) if h.b2 is None else (h.b2, 1 - h.b2)
    s.left = keep * s.left + weight * (g @ g.conj().T)
    s.right = keep * s.right + weight * (g.conj().T @ g)
    if h.t == start or (h.t > start and is_turn(h, h.t, h.precondition_frequency, block)):
        c = 1 - h.b2**h.t if h.bias_correction and h.b2 is not None else 1.0
        root = eigen_root if h.root == "eigen" else lambda a, p, eps: newton_root(a, round(1 / p), eps)
        s.roots = [root(side / c, h.exponent, h.eps) for side in (s.left, s.right)]
    if h.grafting == "adagrad":
        s.v = s.v + square(g)
    else:
        s.v = h.graft_beta * s.v + (1 - h.graft_beta) * square(g)
    s.m = h.b1 * s.m + (1 - h.b1) * g
    m = s.m / (1 - h.b1**h.t) if h.bias_correction else s.m
    if h.t < start:
        return m if h.grafting is None else _graft(m, s, h)
    u = s.roots[0] @ m @ s.roots[1]
    if h.grafting is None:
        return u
    return u * (np.sqrt(square(_graft(m, s, h)).sum()) / (np.sqrt(square(u).sum()) + 1e-16))


@dataclasses.dataclass
class ScaleByShampoo(InTurn):
    """L^-p m R^-p at the size of another method, in blocks; what is no matrix passes."""

    b1: Number = 0.9
    b2: Number | None = 0.999
    eps: Number = 1e-12
    precondition_frequency: Number = 10
    start_preconditioning_step: Number | None = None
    block_size: int = 1024
    grafting: str | None = "adam"
    graft_beta: Number = 0.999
    graft_eps: Number = 1e-8
    exponent: float = 0.25
    root: str = "eigen"
    bias_correction: bool = True

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else each_matrix(self.one, g, s, h)

    def one(self, g, s, h):
        size = self.block_size
        cuts = [(i, j) for i in range(0, g.shape[0], size) for j in range(0, g.shape[1], size)]
        if h.t == 1:
            s.blocks = {cut: SimpleNamespace() for cut in cuts}
        u = np.empty_like(g)
        for block, (i, j) in enumerate(cuts):
            at = slice(i, i + size), slice(j, j + size)
            u[at] = _shampoo(g[at], s.blocks[i, j], h, block)
        return u


@dataclasses.dataclass
class Shampoo(BesideAdam, ScaleByShampoo):
    """Shampoo."""

    adam_b2: Number = 0.999


@dataclasses.dataclass
class ScaleByKlSoap(InTurn):
    """Adam in the eigenbases of two factors, each learned from g whitened by the other's eigenvalues."""

    b1: Number = 0.95
    b2: Number = 0.95
    shampoo_beta: Number = 0.95
    eps: Number = 1e-8
    precondition_frequency: Number = 10
    init_factor: Number = 0.1

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else each_matrix(self.one, g, s, h)

    def one(self, g, s, h):
        m, n = g.shape
        b = h.shampoo_beta
        if h.t == 1:
            s.left, s.right = (1 - b) * (g @ g.conj().T) / n, (1 - b) * (g.conj().T @ g) / m
            s.ql, s.qr = (np.linalg.eigh(side)[1][:, ::-1] for side in (s.left, s.right))
            s.rl, s.rr = (np.full(k, h.init_factor**-0.5) for k in (m, n))
            s.m, s.v = np.zeros_like(g), np.zeros(g.shape)
            return np.zeros_like(g)
        turned = s.ql.conj().T @ g @ s.qr
        s.m = h.b1 * s.m + (1 - h.b1) * turned
        s.v = h.b2 * s.v + (1 - h.b2) * square(turned)
        u = s.ql @ (s.m / (np.sqrt(s.v) + h.eps)) @ s.qr.conj().T
        by_right, by_left = turned * s.rr, turned * s.rl[:, None]
        x, y = s.ql @ by_right, by_left @ s.qr.conj().T
        s.left = b * s.left + (1 - b) * (x @ x.conj().T) / n
        s.right = b * s.right + (1 - b) * (y.conj().T @ y) / m
        for name, new, k in (
            ("rl", square(by_right).mean(axis=1), m),
            ("rr", square(by_left).mean(axis=0), n),
        ):
            value = b / getattr(s, name) ** 2 + (1 - b) * new
            setattr(s, name, np.minimum(1 / np.sqrt(value), max(10, min(k, 4000))))
        if is_turn(h, h.t - 1, h.precondition_frequency):
            moment = s.ql @ s.m @ s.qr.conj().T
            s.ql, s.qr = np.linalg.qr(s.left @ s.ql)[0], np.linalg.qr(s.right @ s.qr)[0]
            s.m = s.ql.conj().T @ moment @ s.qr
        return u


@dataclasses.dataclass
class KlSoap(BesideAdam, ScaleByKlSoap):
    """KL-SOAP."""

    learning_rate: Number = 3e-3
    weight_decay: Number = 0.01
    adam_b1: Number = 0.95


@dataclasses.dataclass
class ScaleBySplus(InTurn):
    """The sign of m in the eigenbases of L = b2 L + (1 - b2) g g* and R, as they were the step before."""

    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-30
    inverse_every: Number = 100

    def leaf(self, g, p, s, h):
        return g if g.ndim < 2 else each_matrix(self.one, g, s, h)

    def one(self, g, s, h):
        if h.t == 1:
            s.m = np.zeros_like(g)
            s.q = [np.eye(k) for k in g.shape]
            s.side = [np.zeros((k, k), g.dtype) for k in g.shape]
        s.m = h.b1 * s.m + (1 - h.b1) * g
        left, right = s.q
        u = left @ sign(left.conj().T @ s.m @ right) @ right.conj().T
        for i, new in enumerate((g @ g.conj().T, g.conj().T @ g)):
            s.side[i] = h.b2 * s.side[i] + (1 - h.b2) * new
            if h.t == 1 or is_turn(h, h.t, h.inverse_every):
                s.q[i] = np.linalg.eigh(s.side[i] + h.eps * np.eye(len(s.side[i])))[1][:, ::-1]
        return u


@dataclasses.dataclass
class Splus(ScaleBySplus):
    """-eta' (u + lambda theta), eta' = 2 eta / (m + n) for matrices; for the rest c eta, and u = sign(m)."""

    learning_rate: Number = 0.1
    weight_decay: Number = 1e-2
    nonstandard_constant: Number = 0.001

    def leaf(self, g, p, s, h):
        if g.ndim < 2:
            s.m = h.b1 * s.m + (1 - h.b1) * g
            u, rate = sign(s.m), h.nonstandard_constant * h.learning_rate
        else:
            u, rate = super().leaf(g, p, s, h), 2 * h.learning_rate / max(sum(g.shape[-2:]), 1)
        return -rate * (u + h.weight_decay * p)
