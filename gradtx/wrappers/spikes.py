"""The running level of a number: its mean and standard deviation, and what counts as a spike above it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.numbers.steps import Steps, next_count
from gradtx.core.numerics import Decay, divide

ROUNDING = 3e-4
"""What summing millions of squares in float32 may do to a norm, relatively: less deviation is none."""


class RunningLevel(NamedTuple):
    """Mean and standard deviation by an exponential average, both corrected for its start.

    After n numbers x_i the weights are w_i = (1 - b) b^(n - i) / (1 - b^n), which sum to 1:

        mean = sum w_i x_i,   std² = sum w_i (x_i - mean)²

    They are moved on by a = (1 - b) / (1 - b^n) and d = x - mean, without the cancellation of E[x²] - E[x]²:
    mean += a d, std² = (1 - a) (std² + a d²).
    """

    mean: jax.Array
    std: jax.Array
    seen: jax.Array

    def limit(self, deviations: jax.Array, warmup: Steps) -> tuple[jax.Array, jax.Array]:
        """The limit mean + deviations * std, and whether `warmup` numbers, and at least one, were seen.

        Before that it says nothing; it is not infinite then, which would stop whoever looks for infinities
        with `jax.debug_infs`.
        """
        std = jnp.maximum(self.std, ROUNDING * jnp.abs(self.mean))
        warm = (Steps.of(self.seen) >= warmup) & (self.seen > 0)
        return self.mean + deviations * std, warm

    def after(self, x: jax.Array, decay: Decay) -> RunningLevel:
        """With one more number."""
        count = next_count(self.seen)
        first = count == 1
        share = divide(decay.complement, decay.correction(count.astype(x.dtype)))
        d = x - self.mean
        rest = jnp.sqrt(jnp.maximum(1 - share, 0.0))
        std = rest * _hypotenuse(self.std, jnp.sqrt(share) * jnp.abs(d))
        return RunningLevel(jnp.where(first, x, self.mean + share * d), jnp.where(first, 0.0, std), count)

    def restarted(self) -> RunningLevel:
        """Without any number."""
        return RunningLevel(*map(jnp.zeros_like, self))


def _hypotenuse(a: jax.Array, b: jax.Array) -> jax.Array:
    """sqrt(a² + b²) for a, b >= 0, without overflow in between, and without the infinity in `jnp.hypot`."""
    longer = jnp.maximum(a, b)
    return longer * jnp.sqrt(1 + divide(jnp.minimum(a, b), longer) ** 2)


def choose(condition: jax.Array, one: RunningLevel, other: RunningLevel) -> RunningLevel:
    """One level or the other."""
    return RunningLevel(*(jnp.where(condition, a, b) for a, b in zip(one, other, strict=True)))
