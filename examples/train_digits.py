"""Handwritten digits with a small Flax NNX network, under every optimizer.

    python examples/train_digits.py
    python examples/train_digits.py --optimizer adamw

Trains scikit-learn's 8x8 digits with each optimizer in turn, prints the accuracy on the held-out
fifth and draws all the curves in one picture, `digits.png`. The default, AdamW, has to classify
more than 97 % correctly, or the example exits with an error.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx
import gradtx.flax

EPOCHS, BATCH = 30, 32
STEPS = EPOCHS * 44  # 1,437 images to train on make 44 batches
OPTIMIZERS = {
    "sgd": gradtx.sgd(0.2),
    "momentum": gradtx.sgd(0.05, momentum=0.9),
    "nesterov": gradtx.sgd(0.05, momentum=0.9, nesterov=True),
    "adagrad": gradtx.adagrad(0.1),
    "rmsprop": gradtx.rmsprop(1e-3),
    "adadelta": gradtx.adadelta(1.0),
    "adam": gradtx.adam(2e-3),
    "adamw": gradtx.adamw(
        gradtx.warmup_linear_decay_schedule(0.0, 5e-3, warmup_steps=100, decay_steps=STEPS),
        weight_decay=0.05,
    ),
    "lion": gradtx.lion(2e-4, weight_decay=0.1),
    "adafactor": gradtx.adafactor(3e-2),
    "prodigy": gradtx.prodigy(1.0),
}
console = Console(highlight=False)


class Network(nnx.Module):
    """64 pixels to the logits of ten digits."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(64, 256, rngs=rngs)
        self.out = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.out(nnx.relu(self.hidden(images)))


def digits() -> tuple[np.ndarray, ...]:
    """Images for training and testing, then their labels; pixels in [0, 1]."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    parts = train_test_split(images, labels, test_size=0.2, random_state=1, stratify=labels)
    return tuple(np.asarray(part) for part in parts)


def loss_fn(model: Network, images: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()


@nnx.jit
def train_step(
    model: Network, optimizer: gradtx.flax.Optimizer, images: jax.Array, labels: jax.Array
) -> jax.Array:
    loss, grads = nnx.value_and_grad(loss_fn)(model, images, labels)
    optimizer.update(model, grads)
    return loss


@nnx.jit
def accuracy(model: Network, images: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(model(images).argmax(-1) == labels)


def train(tx: Any, data: tuple) -> tuple[list[float], list[float]]:
    """The mean training loss and the test accuracy of every epoch."""
    images, test_images, labels, test_labels = data
    model = Network(nnx.Rngs(0))
    optimizer = gradtx.flax.Optimizer(model, tx, wrt=nnx.Param)
    losses, accuracies = [], []
    for epoch in range(EPOCHS):
        order = np.random.default_rng(epoch).permutation(len(images))
        batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
        epoch_losses = [train_step(model, optimizer, images[b], labels[b]) for b in batches]
        losses.append(float(np.mean(epoch_losses)))
        accuracies.append(float(accuracy(model, test_images, test_labels)))
    return losses, accuracies


def draw(curves: dict[str, tuple[list[float], list[float]]], path: Path) -> None:
    """Training loss by epoch on the left, final test accuracy on the right."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    colors = [*(f"C{i}" for i in range(10)), "black"]
    for color, (name, (losses, accuracies)) in zip(colors, curves.items(), strict=False):
        left.semilogy(np.arange(1, EPOCHS + 1), losses, color=color, label=name)
        bar = right.barh(name, 100 * accuracies[-1], color=color)
        right.bar_label(bar, fmt="%.1f", padding=3)
    left.set(xlabel="epoch", ylabel="loss", title="Training on scikit-learn's digits")
    left.legend(frameon=False, ncols=2, fontsize="small")
    right.set(xlabel="%", xlim=(90, 100), title="Test accuracy")
    right.invert_yaxis()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description="Digits under every optimizer.")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), help="only this one")
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="folder (runs/digits)")
    options = parser.parse_args()
    data, curves = digits(), {}
    for name in [options.optimizer] if options.optimizer else OPTIMIZERS:
        losses, accuracies = curves[name] = train(OPTIMIZERS[name], data)
        console.print(f"{name:10} loss {losses[-1]:.4f}   test accuracy {accuracies[-1]:.1%}")
    options.out.mkdir(parents=True, exist_ok=True)
    draw(curves, options.out / "digits.png")
    console.print(f"picture {options.out / 'digits.png'}")
    name = options.optimizer or "adamw"
    if not curves[name][1][-1] > 0.97:
        raise SystemExit(f"{name} classifies only {curves[name][1][-1]:.1%} correctly")


if __name__ == "__main__":
    main()
