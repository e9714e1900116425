"""Float64 references of the wrappers, in plain numpy; their interface is that of `references`."""

from __future__ import annotations

import numpy as np

from references import Reference, square, wide


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
