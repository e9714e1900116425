"""When what costs much is computed anew: for all matrices at once, or for one after another."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradtx.core.engine.scope import Stack
from gradtx.core.numbers.steps import Steps


def turns(steps: Steps, period: Steps) -> dict[str, jax.Array]:
    """What `is_turn` must know: how many steps of a period are over, and how many it has."""
    length = jnp.maximum(period.floor(), 1)
    return {"phase": jax.lax.rem(steps.whole, length), "period": length}


def is_turn(stack: Stack, stagger: bool) -> jax.Array:
    """For each matrix, as (number, 1, 1), whether it is its turn, which is once in each period.

    Not staggered, it is where the period is over; staggered, each matrix is a step before the next.
    """
    over = stack.phase + stack.index if stagger else jnp.broadcast_to(stack.phase, stack.index.shape)
    return (jax.lax.rem(over, jnp.broadcast_to(stack.period, over.shape)) == 0)[:, None, None]
