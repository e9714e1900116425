"""64 learning rates trained at once.

    python examples/sweep.py

Hyperparameters are data in the optimizer's state, so `vmap` over `init` makes 64 states that differ
in their learning rate alone, and `vmap` over the training step trains them together, compiled once.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.console import Console
from train_digits import digits

import gradtx

RATES = np.logspace(-5, 0.5, 64)
STEPS, BATCH = 300, 128
console = Console(highlight=False)
compiled: list[str] = []  # grows whenever the step is traced


def start(key: jax.Array) -> dict[str, jax.Array]:
    first, second = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (64, 32)) / 8,
        "b1": jnp.zeros(32),
        "w2": jax.random.normal(second, (32, 10)) / np.sqrt(32),
        "b2": jnp.zeros(10),
    }


def loss_fn(params: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
    logits = jax.nn.relu(images @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def train_step(params: Any, state: Any, images: jax.Array, labels: jax.Array) -> tuple:
    """One step of one network; the learning rate in force is the one in `state`."""
    compiled.append("train_step")
    loss, grads = jax.value_and_grad(loss_fn)(params, images, labels)
    params, state = gradtx.apply_gradients(gradtx.adamw(1e-3), grads, state, params)
    return params, state, loss


def sweep() -> np.ndarray:
    """The test loss of each learning rate's network."""
    images, test_images, labels, test_labels = map(jnp.asarray, digits())
    params = start(jax.random.key(0))
    states = jax.vmap(lambda rate: gradtx.adamw(rate).init(params))(jnp.asarray(RATES))
    networks = jax.tree.map(lambda leaf: jnp.stack([leaf] * RATES.size), params)
    step = jax.jit(jax.vmap(train_step, in_axes=(0, 0, None, None)), donate_argnums=(0, 1))
    random = np.random.default_rng(0)
    for _ in range(STEPS):
        rows = random.integers(len(images), size=BATCH)
        networks, states, _ = step(networks, states, images[rows], labels[rows])
    return np.asarray(jax.vmap(loss_fn, in_axes=(0, None, None))(networks, test_images, test_labels))


def draw(losses: np.ndarray, path: Path) -> None:
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    best = losses.argmin()
    axes.loglog(RATES, losses, "o-", ms=4)
    axes.plot(RATES[best], losses[best], "o", color="tab:red", ms=8)
    axes.annotate(
        f"{RATES[best]:.2g}",
        (RATES[best], losses[best]),
        (0, -18),
        textcoords="offset points",
        ha="center",
        color="tab:red",
    )
    axes.set(
        xlabel="learning rate",
        ylabel="test loss",
        title=f"AdamW on digits: {RATES.size} learning rates in one compiled step",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description="64 learning rates trained at once.")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"), help="folder (runs/sweep)")
    out = parser.parse_args().out
    began = time.perf_counter()
    losses = sweep()
    seconds = time.perf_counter() - began
    best = losses.argmin()
    console.print(f"{RATES.size} networks, {STEPS} steps, {seconds:.1f} s")
    console.print(f"best: learning rate {RATES[best]:.2g}, test loss {losses[best]:.3f}")
    out.mkdir(parents=True, exist_ok=True)
    draw(losses, out / "sweep.png")
    console.print(f"picture {out / 'sweep.png'}, compilations {len(compiled)}")
    assert len(compiled) == 1, compiled


if __name__ == "__main__":
    main()
