"""The paths, and the learning rate of each, by one rule.

The rate is that of the grid by which the mean loss over all steps is least: of two rates that arrive, the one
that arrives earlier, and without jumps up the hills.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

from .functions import FUNCTIONS, STEPS, Function
from .members import Member

RATES = (*tuple(float(f"{digit}e{power}") for power in range(-4, 1) for digit in (1, 2, 5)), 10.0)


@dataclasses.dataclass(frozen=True)
class Run:
    """One optimizer on one function: its rate, and the parameters before and after each step."""

    member: Member
    function: Function
    rate: float
    path: np.ndarray

    @property
    def end(self) -> tuple[float, float]:
        x, y = self.path[-1].tolist()
        return x, y

    @property
    def loss(self) -> float:
        return float(self.function.loss(jnp.asarray(self.path[-1])))


def optimizer(member: Member, function: Function, rate: float) -> Any:
    """The optimizer, behind the noise in the gradients of the function, which may be none."""
    return gradtx.chain(gradtx.add_noise(function.noise**2, 0.0, key=0), member.made(rate))


@functools.cache
def runs(member: Member) -> list[Run]:
    """Its run on each function, of which all are compiled as one, with all rates."""
    tx = optimizer(member, FUNCTIONS[0], RATES[0])
    losses = [function.loss for function in FUNCTIONS]
    rates = jnp.asarray(RATES if member.chosen else [1.0])

    def follow(which: jax.Array, start: jax.Array, noise: jax.Array, rate: jax.Array) -> Any:
        def loss(p: jax.Array) -> jax.Array:
            return jax.lax.switch(which, losses, p)

        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params)
            new, state = gradtx.apply_gradients(
                tx, grads, state, params, value=value, grad=grads, value_fn=loss
            )
            return (new, state), new

        state = tx.init(start)
        # The first of that name is of the noise, which comes first in the chain.
        eta = next(name for name in gradtx.hyperparams(state) if name in ("eta", "add_noise.eta"))
        state = gradtx.set_hyperparams(state, **{eta: noise**2})
        if member.chosen:
            state = gradtx.set_hyperparams(state, learning_rate=rate)
        rest = jax.lax.scan(step, (start, state), length=STEPS)[1]
        path = jnp.concatenate([start[None], rest])
        mean = jax.vmap(loss)(path).mean()
        return path, jnp.where(jnp.isfinite(mean), mean, jnp.inf)

    each_rate = jax.vmap(follow, (None, None, None, 0))
    each = jax.jit(jax.vmap(each_rate, (0, 0, 0, None)))
    starts = jnp.asarray([function.start for function in FUNCTIONS])
    noises = jnp.asarray([function.noise for function in FUNCTIONS])
    paths, means = map(np.asarray, each(jnp.arange(len(FUNCTIONS)), starts, noises, rates))
    return [
        Run(member, function, float(rates[i]), paths[k, i])
        for k, (function, i) in enumerate(zip(FUNCTIONS, means.argmin(1), strict=True))
    ]


class Recorded(NamedTuple):
    """A path that is known, as a transform, so that `plot_paths` need not run the optimizer again."""

    path: Any

    def init(self, params: jax.Array) -> jax.Array:
        del params
        return jnp.zeros((), jnp.int32)

    def update(self, grads: Any, state: jax.Array, params: Any = None, **extra: Any) -> Any:
        del grads, extra
        return jnp.asarray(self.path)[state + 1] - params, state + 1
