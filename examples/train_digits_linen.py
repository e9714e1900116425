"""The loop of `train_digits.py` with Flax Linen and its `TrainState`.

    python examples/train_digits_linen.py

`gradtx.flax.TrainState` is Flax's with two differences: it updates and applies in one pass, and
`replace(tx=...)` puts the new optimizer's numbers in force. Flax's own
`flax.training.train_state.TrainState` works here as well, without another change.

Half way the learning rate is lowered in the state: nothing is compiled again.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from train_digits import BATCH, EPOCHS, digits

import gradtx
import gradtx.flax

console = Console(highlight=False)


class Network(nn.Module):
    """64 pixels to the logits of ten digits."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Dense(10)(nn.relu(nn.Dense(256)(images)))


@jax.jit
def train_step(
    state: gradtx.flax.TrainState, images: jax.Array, labels: jax.Array
) -> tuple[gradtx.flax.TrainState, jax.Array]:
    def loss_fn(params: dict) -> jax.Array:
        logits = state.apply_fn({"params": params}, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss


@jax.jit
def accuracy(state: gradtx.flax.TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(state.apply_fn({"params": state.params}, images).argmax(-1) == labels)


def main() -> None:
    images, test_images, labels, test_labels = digits()
    network = Network()
    state = gradtx.flax.TrainState.create(
        apply_fn=network.apply,
        params=network.init(jax.random.key(0), images[:1])["params"],
        tx=gradtx.adamw(2e-3, weight_decay=0.05),
    )
    for epoch in range(EPOCHS):
        if epoch == EPOCHS // 2:
            state = gradtx.set_hyperparams(state, learning_rate=2e-4)
        order = np.random.default_rng(epoch).permutation(len(images))
        batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
        losses = []
        for rows in batches:
            state, loss = train_step(state, images[rows], labels[rows])
            losses.append(float(loss))
        if (epoch + 1) % 5 == 0:
            score, rate = accuracy(state, test_images, test_labels), gradtx.hyperparams(state)
            console.print(
                f"epoch {epoch + 1:2}   rate {rate['learning_rate']}   "
                f"loss {np.mean(losses):.4f}   test accuracy {score:.1%}"
            )
    if not accuracy(state, test_images, test_labels) > 0.97:
        raise SystemExit("fewer than 97 % are classified correctly")


if __name__ == "__main__":
    main()
