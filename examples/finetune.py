"""Fine-tuning: a new head on a body that stays as it is, or moves slowly.

    python examples/finetune.py

A small network learns scikit-learn's digits. Then comes another scanner, which is noisy and has codes
of its own for the ten digits, with five labelled images of each. A new head learns them in three ways:
alone, with the body at a tenth of its learning rate, and with a new body, from scratch. Which leaf is
which is told by paths. The example exits with an error if fine-tuning does not pay.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from rich.console import Console
from rich.table import Table
from train_digits import digits

import gradtx
import gradtx.flax

RATE, SHOTS, NOISE = 3e-3, 5, 0.2
GROUPS = {"body/*": "body", "head/*": "head"}
OPTIMIZERS = {
    "head alone": gradtx.partition({"body": gradtx.set_to_zero(), "head": gradtx.adamw(RATE)}, GROUPS),
    "head and slow body": gradtx.chain(
        gradtx.adamw(RATE), gradtx.scale_by_group({"body": 0.1, "head": 1.0}, GROUPS)
    ),
    "from scratch": gradtx.adamw(RATE),
}
Array = jax.Array | np.ndarray
console = Console(highlight=False)


class Network(nnx.Module):
    """64 pixels to the logits of ten classes: a body of two layers, and a head."""

    def __init__(self, seed: int) -> None:
        rngs = nnx.Rngs(seed)
        self.body = nnx.Sequential(
            nnx.Linear(64, 128, rngs=rngs), nnx.relu, nnx.Linear(128, 64, rngs=rngs), nnx.relu
        )
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images: Array) -> jax.Array:
        return self.head(self.body(images))


def loss_fn(model: Network, images: Array, labels: Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()


@nnx.jit
def train_step(model: Network, optimizer: gradtx.flax.Optimizer, images: Array, labels: Array) -> None:
    optimizer.update(model, nnx.grad(loss_fn)(model, images, labels))


@nnx.jit
def accuracy(model: Network, images: Array, labels: Array) -> jax.Array:
    return jnp.mean(model(images).argmax(-1) == labels)


def train(model: Network, tx: gradtx.Transform, images: Array, labels: Array, epochs: int) -> int:
    """Trains in batches of 50; the bytes that the optimizer keeps for the leaves."""
    optimizer = gradtx.flax.Optimizer(model, tx, wrt=nnx.Param)
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(images))
        for rows in order[: len(order) // 50 * 50].reshape(-1, 50):
            train_step(model, optimizer, images[rows], labels[rows])
    return sum(x.nbytes for x in jax.tree.leaves(nnx.state(optimizer)["opt_state"]["slots"]))


def compare(draws: int) -> dict[str, tuple[float, int]]:
    """The mean test accuracy over some draws of the labelled images, and the bytes of the optimizer."""
    images, test_images, labels, test_labels = digits()
    half = len(images) // 2
    pretrained = Network(0)
    train(pretrained, gradtx.adamw(RATE), images[:half], labels[:half], epochs=15)
    score = accuracy(pretrained, test_images, test_labels)
    console.print(f"the first scanner's digits: test accuracy {score:.1%}")

    rng = np.random.default_rng(0)
    codes = rng.permutation(10)
    scanned, test_scanned = (
        x + NOISE * rng.standard_normal(x.shape, np.float32) for x in (images[half:], test_images)
    )
    scores, kept = {name: [] for name in OPTIMIZERS}, {}
    for draw in range(1, draws + 1):
        few = [rng.choice(np.flatnonzero(labels[half:] == digit), SHOTS, False) for digit in range(10)]
        rows = np.concatenate(few)
        for name, tx in OPTIMIZERS.items():
            model = Network(draw)
            if name != "from scratch":
                nnx.update(model.body, jax.tree.map(jnp.copy, nnx.state(pretrained.body)))
            kept[name] = train(model, tx, scanned[rows], codes[labels[half:][rows]], epochs=100)
            scores[name].append(float(accuracy(model, test_scanned, codes[test_labels])))
    return {name: (float(np.mean(scores[name])), kept[name]) for name in OPTIMIZERS}


def main() -> None:
    results = compare(draws=5)
    table = Table("the second scanner's", "test accuracy", "optimizer state")
    for name, (score, size) in results.items():
        table.add_row(name, f"{score:.1%}", f"{size / 1024:.0f} KiB")
    console.print(table)
    scratch, _ = results.pop("from scratch")
    for name, (score, _) in results.items():
        if not score > max(scratch + 0.03, 0.7):
            raise SystemExit(f"{name}: only {score:.1%} correct, and {scratch:.1%} from scratch")


if __name__ == "__main__":
    main()
