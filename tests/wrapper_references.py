"""Float64 references of the wrappers, in plain numpy; their interface is that of `references`."""

from __future__ import annotations

import dataclasses

import numpy as np

from references import Number, Reference, ScaleByAdam, sign, square, wide


class Accumulate(Reference):
    """The mean or the sum of k gradients goes to the inner reference; nothing moves in between."""

    def __init__(self, inner, every, use_grad_mean=True, should_skip_update_fn=None, drops=False):
        self.inner, self.every, self.use_grad_mean = inner, every, use_grad_mean
        self.should_skip, self.drops = should_skip_update_fn, drops

    def init(self, params):
        self.inner.init(params)
        self.updates, self.kept = 0, []

    def update(self, grads, params, **extra):
        zeros = [np.zeros_like(wide(p)) for p in params]
        if self.should_skip is not None and self.should_skip(grads, self.updates, params)[0]:
            return zeros
        self.kept.append([wide(g) for g in grads])
        every = self.every(self.updates) if callable(self.every) else self.every
        if len(self.kept) < every:
            return zeros
        share = len(self.kept) if self.use_grad_mean else 1
        means = [sum(gs) / share for gs in zip(*self.kept, strict=True)]
        self.kept = []
        if self.drops and not is_finite(means):
            return zeros
        self.updates += 1
        return self.inner.update(means, params, **extra)


def is_finite(grads):
    """Whether every element is."""
    return all(np.isfinite(wide(g)).all() for g in grads)


class Guard(Reference):
    """Skips what is not finite, and spikes above the level of the steps that went through.

    The level is the weighted mean and standard deviation of all numbers since it started, each taken from
    its definition. `verdicts` keeps what became of each step.
    """

    def __init__(self, inner, deviations=6.0, decay=0.99, warmup=100, patience=10, watch="", updates=False):
        del updates  # of a reference they are finite
        self.inner, self.watch = inner, watch
        self.deviations, self.decay, self.warmup, self.patience = deviations, decay, warmup, patience

    def init(self, params):
        self.inner.init(params)
        self.level, self.spikes, self.verdicts, self.limits = [], 0, [], []

    def limit(self):
        """The largest number that is no spike."""
        x = np.array(self.level)
        if self.deviations is None or len(x) < max(self.warmup, 1):
            return np.inf
        weights = (1 - self.decay) * self.decay ** np.arange(len(x))[::-1]
        weights = weights / weights.sum()
        mean = np.sum(weights * x)
        std = np.sqrt(np.sum(weights * (x - mean) ** 2))
        return mean + self.deviations * max(std, 3e-4 * abs(mean))

    def judged(self, grads, value):
        """What becomes of a step."""
        if not is_finite(grads):
            return "gradient"
        if value is not None and not np.isfinite(value):
            return "loss"
        x = value if self.watch == "loss" else np.sqrt(sum(np.sum(square(wide(g))) for g in grads))
        self.limits.append(self.limit())
        if x > self.limits[-1]:
            if self.spikes < self.patience:
                self.spikes += 1
                return "spike"
            self.level, self.spikes = [x], 0
            return "new level"
        self.spikes = 0
        self.level.append(x)
        return "applied"

    def update(self, grads, params, value=None, **extra):
        self.verdicts.append(self.judged(grads, value))
        if self.verdicts[-1] in ("applied", "new level"):
            return self.inner.update(grads, params, **extra)
        return [np.zeros_like(wide(p)) for p in params]


class ApplyIfFinite(Reference):
    """Skips what is not finite, `most` times in a row; then applies one and starts to count anew."""

    def __init__(self, inner, most):
        self.inner, self.most = inner, most

    def init(self, params):
        self.inner.init(params)
        self.count = self.total = 0

    def update(self, grads, params, **extra):
        if not is_finite(grads):
            self.count, self.total = self.count + 1, self.total + 1
            if self.count <= self.most:
                return [np.zeros_like(wide(p)) for p in params]
        self.count = 0
        return self.inner.update(grads, params, **extra)


class Conditional(Reference):
    """The inner reference on some steps; on the others the gradients, or zeros."""

    def __init__(self, inner, condition, passes):
        self.inner, self.condition, self.passes = inner, condition, passes

    def init(self, params):
        self.inner.init(params)
        self.step = 0

    def update(self, grads, params, **extra):
        self.step += 1
        if self.condition(self.step - 1):
            return self.inner.update(grads, params, **extra)
        return [wide(g) if self.passes else np.zeros_like(wide(g)) for g in grads]


class Partition(Reference):
    """Each leaf goes to the reference of its label, which sees its own leaves alone."""

    def __init__(self, inner, label_of):
        self.inner, self.label_of = inner, label_of

    def init(self, params):
        self.labels = [self.label_of("", p) for p in params]
        for label, reference in self.inner.items():
            reference.init(self.of(label, params))

    def of(self, label, leaves):
        return [x for x, own in zip(leaves, self.labels, strict=True) if own == label]

    def update(self, grads, params, **extra):
        groups = {
            label: iter(reference.update(self.of(label, grads), self.of(label, params), **extra))
            for label, reference in self.inner.items()
        }
        return [next(groups[label]) for label in self.labels]


class EmaParams(Reference):
    """The inner reference, and `average`: an exponential moving average of the parameters that it makes."""

    def __init__(self, inner, decay):
        self.inner, self.decay = inner, decay

    def init(self, params):
        self.inner.init(params)
        self.step, self.average = 0, [wide(p) for p in params]

    def update(self, grads, params, **extra):
        updates = self.inner.update(grads, params, **extra)
        d = self.decay(self.step) if callable(self.decay) else self.decay
        news = [wide(p) + u for p, u in zip(params, updates, strict=True)]
        self.average = [d * a + (1 - d) * p for a, p in zip(self.average, news, strict=True)]
        self.step += 1
        return updates


class PolyakAverage(Reference):
    """The inner reference, and `average`: the mean of all parameters that it made since update `start`."""

    def __init__(self, inner, start=0):
        self.inner, self.start = inner, start

    def init(self, params):
        self.inner.init(params)
        self.step, self.history, self.average = 0, [], [wide(p) for p in params]

    def update(self, grads, params, **extra):
        updates = self.inner.update(grads, params, **extra)
        if self.step <= self.start:
            self.history = []
        self.history.append([wide(p) + u for p, u in zip(params, updates, strict=True)])
        self.average = [np.mean(ps, axis=0) for ps in zip(*self.history, strict=True)]
        self.step += 1
        return updates


class Lookahead(Reference):
    """The inner reference moves fast weights; every few updates `average`, the slow ones, follow."""

    def __init__(self, inner, sync_period, slow_step_size, reset_state=False):
        self.inner, self.sync_period, self.slow_step_size = inner, sync_period, slow_step_size
        self.reset_state = reset_state

    def init(self, params):
        self.inner.init(params)
        self.step, self.since, self.average = 0, 0, [wide(p) for p in params]

    def update(self, grads, params, **extra):
        updates = self.inner.update(grads, params, **extra)
        period, share = (x(self.step) if callable(x) else x for x in (self.sync_period, self.slow_step_size))
        self.step, self.since = self.step + 1, self.since + 1
        if self.since < period:
            return updates
        fast = [wide(p) + u for p, u in zip(params, updates, strict=True)]
        self.average = [s + share * (f - s) for s, f in zip(self.average, fast, strict=True)]
        self.since = 0
        if self.reset_state:
            self.inner.init(self.average)
        return [s - wide(p) for s, p in zip(self.average, params, strict=True)]


class ApplyEvery(Reference):
    """Nothing until the k-th update, which is the sum of those since the last."""

    def __init__(self, k=1):
        self.k = k

    def init(self, params):
        self.kept = []

    def update(self, grads, params, **extra):
        self.kept.append([wide(g) for g in grads])
        if len(self.kept) < self.k:
            return [np.zeros_like(wide(p)) for p in params]
        sums = [sum(gs) for gs in zip(*self.kept, strict=True)]
        self.kept = []
        return sums


SIDES = {
    "optax": lambda m, n: (m >= n, m < n),
    "std": lambda m, n: (m <= n, m > n),
    "reverse_std": lambda m, n: (m > n, m <= n),
    "right": lambda m, n: (True, False),
    "left": lambda m, n: (False, True),
    "full": lambda m, n: (True, True),
}
"""Whether the rows, and whether the columns, of an m x n matrix are projected.

All but the first are the names of the authors, whose matrices have the outputs first: their right is here
the side of the rows.
"""


def upright(x):
    """Columns turned so that the largest entry of each, the first among equals, is positive."""
    largest = np.take_along_axis(x, np.abs(x).argmax(axis=-2, keepdims=True), axis=-2)
    return x * np.conj(sign(largest))


def singular_vectors(g, rank):
    """The first left and right singular vectors of each matrix, as columns; signs as in `upright`."""
    u, _, vh = np.linalg.svd(g, full_matrices=False)
    return upright(u[..., :rank]), upright(adjoint(vh)[..., :rank])


def adjoint(x):
    """The conjugate transpose of each matrix."""
    return np.conj(np.swapaxes(x, -1, -2))


class ByMatrix(Reference):
    """The inner reference on the matrices of the last two axes, each of which is a leaf for it.

    Unless they are a `batch` of whole matrices, the first row of each is one and the others are another.
    """

    def __init__(self, inner, batch=False):
        self.inner, self.batch = inner, batch

    def init(self, params):
        self.inner.init(self.apart(params))

    def apart(self, leaves):
        return [matrix for x in leaves for matrix in self.matrices(x)]

    def matrices(self, x):
        if x.ndim < 2 or (not self.batch and x.shape[-2] < 2):
            return [x]
        each = x.reshape(-1, *x.shape[-2:])
        return [*each] if self.batch else [rows for m in each for rows in (m[:1], m[1:])]

    def update(self, grads, params, **extra):
        updates = iter(self.inner.update(self.apart(grads), self.apart(params), **extra))
        result = []
        for p in params:
            own = [next(updates) for _ in self.matrices(p)]
            result.append(np.concatenate(own).reshape(p.shape) if p.ndim > 1 else own[0])
        return result


@dataclasses.dataclass
class ScaleByGalore(Reference):
    """c P b(P* g Q) Q*, b being another rule, which sees nothing but the small matrices.

    Of P and Q the one on a side that is not projected is 1; the other has the first `rank` singular vectors
    of g, those of updates 1, 1 + k, 1 + 2 k, ... with k the gap. Both are 0 until a gradient says some, and
    one of zeros says none. The slots of b stay as they are when the vectors change. What is no matrix goes to
    b whole, and is not scaled; with `batches` the last two axes of any leaf are one.
    """

    rank: int = 128
    update_proj_gap: Number = 200
    scale: Number = 1.0
    base_optimizer: Reference | None = None
    proj_type: str = "optax"
    batches: bool = False

    def init(self, params):
        super().init(params)
        self.base = ScaleByAdam() if self.base_optimizer is None else self.base_optimizer
        self.base.init(params)

    def is_matrix(self, x):
        return (x.ndim == 2 or (self.batches and x.ndim > 2)) and x.size

    def project(self, g, s, h):
        if "p" not in vars(s):
            r = min(self.rank, *g.shape[-2:])
            s.p, s.q = (np.zeros((*g.shape[:-2], side, r)) for side in g.shape[-2:])
        due = (h.t - 1) % h.update_proj_gap == 0
        unset = ~s.p.any(axis=(-2, -1)) & ~s.q.any(axis=(-2, -1))
        taken = (g != 0).any(axis=(-2, -1)) & (due | unset)
        new = singular_vectors(g, self.rank)
        s.p, s.q = (np.where(taken[..., None, None], y, x) for x, y in zip((s.p, s.q), new, strict=True))
        return adjoint(self.sides(s, g)[0]) @ g @ self.sides(s, g)[1]

    def sides(self, s, g):
        """P and Q."""
        chosen = zip((s.p, s.q), SIDES[self.proj_type](*g.shape[-2:]), g.shape[-2:], strict=True)
        return [x if on else np.eye(size) for x, on, size in chosen]

    def directions(self, grads, h):
        grads = [wide(g) for g in grads]
        pairs = list(zip(grads, self.slots, strict=True))
        small = [self.project(g, s, h) if self.is_matrix(g) else g for g, s in pairs]
        moved = self.base.update(small, small)
        return [
            h.scale * (self.sides(s, g)[0] @ u @ adjoint(self.sides(s, g)[1])) if self.is_matrix(g) else u
            for u, (g, s) in zip(moved, pairs, strict=True)
        ]

    def update(self, grads, params, **extra):
        return self.directions(grads, self.numbers())


@dataclasses.dataclass
class Galore(ScaleByGalore):
    """-eta (u + lambda theta)."""

    learning_rate: Number = 0.0
    weight_decay: Number = 0.0
    mask: list[bool] | None = None

    def update(self, grads, params, **extra):
        h = self.numbers()
        updates = []
        for i, (u, p) in enumerate(zip(self.directions(grads, h), params, strict=True)):
            decay = h.weight_decay if h.mask is None or h.mask[i] else 0.0
            updates.append(-h.learning_rate * (u + decay * wide(p)))
        return updates
