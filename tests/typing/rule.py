"""A rule from its paper, a recipe around it, and a transform of two functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import gradtx
from gradtx.typing import Leaf, Now, Slots


class ScaleByBelief(gradtx.Rule, name="scale_by_belief_of_mine"):
    """m = b1 m + (1 - b1) g;  s = b2 s + (1 - b2) |g - m|²;  u = m^ / (sqrt(s^) + eps)."""

    b1: gradtx.Decay
    b2: gradtx.Decay
    eps: gradtx.NonNegative

    mu, nu = gradtx.Slot(), gradtx.Slot(real=True)

    def prepare(self, now: Now) -> dict[str, Any]:
        return {"c1": self.b1.correction(now.t), "c2": self.b2.correction(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, dict[str, Any]]:
        mu = self.b1.mix(slots.mu, g)
        nu = self.b2.mix(slots.nu, abs(g - mu) ** 2)
        return mu / leaf.c1 / (jnp.sqrt(nu / leaf.c2) + self.eps), {"mu": mu, "nu": nu}


@gradtx.recipe
def belief(
    learning_rate: gradtx.ScalarOrSchedule, b1: gradtx.ScalarOrSchedule = 0.9, weight_decay: float = 0.0
) -> gradtx.Transform:
    return gradtx.chain(
        ScaleByBelief(b1=b1, b2=0.999, eps=1e-8),
        gradtx.add_decayed_weights(weight_decay),
        gradtx.scale_by_learning_rate(learning_rate),
    )


def half(u: jax.Array) -> jax.Array:
    return u / 2


def twice(u: jax.Array) -> jax.Array:
    return 2 * u


def halved() -> gradtx.GradientTransformation:
    def update(
        updates: gradtx.Updates, state: gradtx.OptState, params: gradtx.Params | None = None, **extra: Any
    ) -> tuple[gradtx.Updates, gradtx.OptState]:
        return jax.tree.map(half, updates), state

    return gradtx.GradientTransformation(gradtx.init_empty_state, update)


class Doubled:
    """A transform of any other library is what has the two functions."""

    def init(self, params: gradtx.Params) -> gradtx.EmptyState:
        return gradtx.EmptyState()

    def update(
        self, updates: gradtx.Updates, state: gradtx.EmptyState, params: gradtx.Params | None = None
    ) -> tuple[gradtx.Updates, gradtx.EmptyState]:
        return jax.tree.map(twice, updates), state


def main() -> None:
    params = {"w": jnp.array([1.0, -2.0])}
    tx = gradtx.chain(belief(0.1, weight_decay=0.01), halved(), Doubled())
    state = tx.init(params)
    updates, state = tx.update(params, state, params)
    assert updates["w"].shape == (2,)
    assert gradtx.hyperparams(state)["learning_rate"] == 0.1

    direction = gradtx.ratio(
        gradtx.chain(gradtx.ema(0.9, debias=False), gradtx.debias(0.9)),
        gradtx.chain(gradtx.square(), gradtx.ema(0.999, debias=False), gradtx.debias(0.999), gradtx.sqrt()),
    )
    by_atoms = gradtx.named_chain(("direction", direction), ("rate", gradtx.scale_by_learning_rate(0.1)))
    new, state = gradtx.apply_gradients(by_atoms, params, by_atoms.init(params), params)
    assert new["w"].dtype == jnp.float32


if __name__ == "__main__":
    main()
