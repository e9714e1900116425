"""A loop of Flax Linen with a TrainState, as one scan."""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn

import gradtx
import gradtx.flax


class Model(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y: jax.Array = nn.Dense(1)(nn.relu(nn.Dense(4)(x)))
        return y


def predicted(params: gradtx.Params, x: jax.Array) -> jax.Array:
    return cast(jax.Array, Model().apply({"params": params}, x))


def main() -> None:
    model, x, y = Model(), jnp.ones((4, 3)), jnp.zeros((4, 1))
    variables = model.init(jax.random.key(0), x)
    tx = gradtx.adamw(gradtx.cosine_decay_schedule(1e-2, 100))
    state = gradtx.flax.TrainState.create(apply_fn=model.apply, params=variables["params"], tx=tx)

    def step(
        state: gradtx.flax.TrainState, batch: tuple[jax.Array, jax.Array]
    ) -> tuple[gradtx.flax.TrainState, jax.Array]:
        def loss(params: gradtx.Params) -> jax.Array:
            return jnp.mean((predicted(params, batch[0]) - batch[1]) ** 2)

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), value

    xs, ys = jnp.stack([x] * 5), jnp.stack([y] * 5)
    state, losses = jax.lax.scan(step, state, (xs, ys))
    assert float(losses[-1]) < float(losses[0])
    assert int(state.step) == 5
    state = gradtx.set_hyperparams(state, weight_decay=0.1)
    assert gradtx.hyperparams(state)["weight_decay"] == 0.1


if __name__ == "__main__":
    main()
