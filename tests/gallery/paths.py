"""The paths, and the learning rate of each, by one rule.

The rate is that of the grid by which the mean loss over all steps is least: of two rates that arrive, the one
that arrives earlier, and without jumps up the hills.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

from .functions import FUNCTIONS, STEPS, Function
from .members import Member

RATES = (*tuple(float(f"{digit}e{power}") for power in range(-4, 1) for digit in (1, 2, 5)), 10.0)


@dataclasses.dataclass(frozen=True)
class Run:
    """One optimizer on one function: its rate, and parameters and losses before and after each step."""

    member: Member
    function: Function
    rate: float
    path: np.ndarray
    losses: np.ndarray

    @property
    def end(self) -> tuple[float, float]:
        x, y = self.path[-1].tolist()
        return x, y

    @property
    def loss(self) -> float:
        return float(self.losses[-1])


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
                tx, grads, state, params, value=value, grad=grads, value_fn=loss, obj_fn=loss
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
        return path, jax.vmap(loss)(path)

    each_rate = jax.vmap(follow, (None, None, None, 0))
    each = jax.jit(jax.vmap(each_rate, (0, 0, 0, None)))
    starts = jnp.asarray([function.start for function in FUNCTIONS])
    noises = jnp.asarray([function.noise for function in FUNCTIONS])
    paths, losses = map(np.asarray, each(jnp.arange(len(FUNCTIONS)), starts, noises, rates))
    with np.errstate(over="ignore"):  # of a path that diverges
        means = losses.mean(-1)
    best = np.where(np.isfinite(means), means, np.inf).argmin(1)
    return [
        Run(member, function, float(rates[i]), paths[k, i], losses[k, i])
        for k, (function, i) in enumerate(zip(FUNCTIONS, best, strict=True))
    ]
