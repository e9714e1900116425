"""What costs much and is computed anew now and then, of many matrices at a time or of one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.engine.scope import Stack
from gradtx.core.numbers.steps import Steps

PHASE, PERIOD = "phase", "period"


def turns(steps: Steps, period: Steps) -> dict[str, jax.Array]:
    """What `is_turn` must know of a step: how many steps of a period are over, and how many it has."""
    length = jnp.maximum(period.floor(), 1)
    return {PHASE: steps.whole % length, PERIOD: length}


def is_turn(stack: Stack, stagger: bool) -> jax.Array:
    """For each matrix, as (number, 1, 1), whether it is its turn: one in each period.

    Staggered, the turns of the matrices follow one another, and the first is the last of a period.
    """
    phase = stack.phase + (stack.index % stack.period if stagger else jnp.zeros_like(stack.index))
    return (phase % stack.period == 0)[:, None, None]


def refreshed(is_due: jax.Array, make: Callable[..., Any], old: Any, *given: Any, stagger: bool) -> Any:
    """`make(old, *given)` for the matrices that are due, and what is old for the others.

    Args:
        is_due: for each matrix, as (number, 1, 1).
        make: gives what `old` is, of as many matrices as it gets.
        old: what there is of each, arrays of (number, ...).
        given: what else `make` needs, alike.
        stagger: whether few are due at a time, so that each is made for itself; else all are made if one is.
    """

    def of_all(old: Any, *given: Any) -> Any:
        return jax.tree.map(lambda new, x: jnp.where(_like(is_due, x), new, x), make(old, *given), old)

    def in_turn(old: Any, *given: Any) -> Any:
        def one(_: None, each: Any) -> tuple[None, Any]:
            due, own = each
            own = jax.tree.map(lambda x: x[None], own)
            made = jax.lax.cond(due, make, lambda old, *given: old, *own)
            return None, jax.tree.map(lambda x: x[0], made)

        return jax.lax.scan(one, None, (is_due[:, 0, 0], (old, *given)))[1]

    several = stagger and len(is_due) > 1
    return jax.lax.cond(jnp.any(is_due), in_turn if several else of_all, lambda old, *given: old, old, *given)


def _like(is_due: jax.Array, x: jax.Array) -> jax.Array:
    return is_due.reshape(len(is_due), *[1] * (x.ndim - 1))
