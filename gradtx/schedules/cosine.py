"""Half a cosine: plain, after a warmup, and with warm restarts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp

from gradtx.core.numbers.schedule import Schedule
from gradtx.core.numbers.steps import Steps
from gradtx.core.spec.arguments import builds, factory
from gradtx.core.spec.fields import NonNegative, NonNegativeSteps, Number, PositiveSteps, Scalar
from gradtx.schedules.linear import between, check_warmup, progress
from gradtx.schedules.piecewise import join_schedules


def _wave(fraction: jax.Array, exponent: jax.Array) -> jax.Array:
    return jnp.power((1 + jnp.cos(jnp.pi * fraction)) / 2, exponent)


class CosineDecaySchedule(Schedule, name="cosine_decay_schedule"):
    """From init_value to alpha init_value along half a cosine."""

    init_value: Number
    decay_steps: PositiveSteps
    alpha: Number
    exponent: NonNegative

    def at(self, step: Steps) -> jax.Array:
        wave = _wave(progress(step, self.decay_steps), self.exponent)
        return self.init_value * between(self.alpha, jnp.ones_like(self.alpha), wave)

    def corners(self) -> tuple[float, ...]:
        return (self.decay_steps,)


@builds(CosineDecaySchedule)
def cosine_decay_schedule(
    init_value: Scalar, decay_steps: Scalar, alpha: Scalar = 0.0, exponent: Scalar = 1.0
) -> Schedule:
    """Half a cosine, from init_value down to alpha init_value.

        value = init_value ((1 - alpha) w + alpha),   w = ((1 + cos(pi t / decay_steps)) / 2)^exponent

    Args:
        init_value: the first value; it is that of step 0.
        decay_steps: the length of the schedule in steps, > 0.
        alpha: the last value as a fraction of the first.
        exponent: the power of the cosine, >= 0.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: `decay_steps` is not positive.

    Examples:
        >>> import gradtx
        >>> [round(float(gradtx.cosine_decay_schedule(1.0, 4)(t)), 4) for t in (0, 2, 4)]
        [1.0, 0.5, 0.0]

    References:
        Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2016,
        https://arxiv.org/abs/1608.03983.
    """
    ...


class WarmupCosineDecaySchedule(Schedule, name="warmup_cosine_decay_schedule"):
    """Up from init_value to peak_value in a line, down to end_value along half a cosine."""

    init_value: Number
    peak_value: Number
    warmup_steps: NonNegativeSteps
    decay_steps: PositiveSteps
    end_value: Number
    exponent: NonNegative

    def check(self) -> None:
        check_warmup(self)

    def at(self, step: Steps) -> jax.Array:
        up = between(self.init_value, self.peak_value, progress(step, self.warmup_steps))
        fraction = progress(step - self.warmup_steps, self.decay_steps - self.warmup_steps)
        down = between(self.end_value, self.peak_value, _wave(fraction, self.exponent))
        return jnp.where(step < self.warmup_steps, up, down)

    def corners(self) -> tuple[float, ...]:
        return (self.warmup_steps, self.decay_steps)


@builds(WarmupCosineDecaySchedule)
def warmup_cosine_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Scalar,
    decay_steps: Scalar,
    end_value: Scalar = 0.0,
    exponent: Scalar = 1.0,
) -> Schedule:
    """A linear warmup, then half a cosine down.

    Args:
        init_value: the first value; it is that of step 0, usually 0 or small.
        peak_value: the value after the warmup; it is reached at step `warmup_steps`.
        warmup_steps: the length of the warmup in steps, >= 0.
        decay_steps: the length of the schedule in steps, > 0; the warmup is a part of it, and must be
            shorter.
        end_value: the last value; it holds from step `decay_steps` on.
        exponent: the power of the cosine, >= 0.

    Returns:
        A schedule whose numbers can be set in the state.

    Raises:
        ValueError: `decay_steps` is not greater than `warmup_steps`.

    Examples:
        >>> import gradtx
        >>> schedule = gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 2, 6)
        >>> [round(float(schedule(t)), 4) for t in (0, 1, 2, 4, 6)]
        [0.0, 0.5, 1.0, 0.5, 0.0]

    References:
        Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2016,
        https://arxiv.org/abs/1608.03983.
    """
    ...


@factory
def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Scalar]]) -> Schedule:
    """Warm restarts: one `warmup_cosine_decay_schedule` after another.

    Args:
        cosine_kwargs: the arguments of each, by name; each starts where the `decay_steps` of the one before
            end.

    Returns:
        A `join_schedules`, whose numbers can be set in the state.

    Raises:
        ValueError: there is none.

    Examples:
        >>> import gradtx
        >>> cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 0, "decay_steps": 2}
        >>> schedule = gradtx.sgdr_schedule([cycle, {**cycle, "peak_value": 0.5}])
        >>> [round(float(schedule(t)), 4) for t in range(5)]
        [1.0, 0.5, 0.5, 0.25, 0.0]

    References:
        Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2016,
        https://arxiv.org/abs/1608.03983.
    """
    cycles = list(cosine_kwargs)
    if not cycles:
        raise ValueError("sgdr_schedule: give the arguments of at least one cycle.")
    ends = list(itertools.accumulate(cycle["decay_steps"] for cycle in cycles))
    return join_schedules([warmup_cosine_decay_schedule(**cycle) for cycle in cycles], ends[:-1])
