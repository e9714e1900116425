"""What DoG and DoWG have in common: the distance from the first parameters, and sums of squared norms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.numerics import abs_sq


class FromTheStart(Rule):
    """A rule that knows the squared distance from the first parameters and the squared norm of gradients."""

    axis_name: str | tuple[str, ...] | None

    needs = ("params",)
    params0 = Slot(init=lambda rule, param: param)

    def measure(self, g: jax.Array, slots: Slots, leaf: Leaf) -> dict[str, jax.Array]:
        return {"way": jnp.sum(abs_sq(leaf.param - slots.params0)), "squares": jnp.sum(abs_sq(g))}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return leaf.rate * g, {"params0": slots.params0}


def larger(new: jax.Array, old: jax.Array) -> jax.Array:
    """The larger of two, the old one where the new is not finite: a bad leaf must not spoil the others."""
    return jnp.where((new > old) & jnp.isfinite(new), new, old)


def only_if_finite(grads: jax.Array, rate: jax.Array) -> jax.Array:
    """The rate, or 0 where it or the sum of the squares is not finite: none is known to be small enough."""
    return jnp.where(jnp.isfinite(grads) & jnp.isfinite(rate), rate, jnp.zeros_like(rate))
