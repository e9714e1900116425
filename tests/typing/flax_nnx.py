"""A loop of Flax NNX, with micro-batches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

import gradtx
import gradtx.flax


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.inside = nnx.Linear(3, 4, rngs=rngs)
        self.out = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y: jax.Array = self.out(nnx.relu(self.inside(x)))
        return y


def loss_fn(model: Model, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((model(x) - y) ** 2)


def main() -> None:
    model = Model(nnx.Rngs(0))
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-2))
    optimizer = gradtx.flax.Optimizer(model, tx, wrt=nnx.Param)
    grad_fn = gradtx.flax.accumulate_gradients(nnx.value_and_grad(loss_fn), 2)

    @nnx.jit
    def train_step(model: Model, optimizer: gradtx.flax.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = grad_fn(model, x, y)
        optimizer.update(model, grads)
        value: jax.Array = loss
        return value

    x, y = jnp.ones((4, 3)), jnp.zeros((4, 1))
    losses = [float(train_step(model, optimizer, x, y)) for _ in range(5)]
    assert losses[-1] < losses[0]
    gradtx.set_hyperparams(optimizer, learning_rate=1e-3)
    assert gradtx.hyperparams(optimizer)["learning_rate"] == 1e-3
    assert gradtx.step_count(optimizer) == 5


if __name__ == "__main__":
    main()
