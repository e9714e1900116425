"""First steps: a linear model with ten inputs, trained by Adam, AdamW and Adadelta.

    python examples/first_steps.py

Data, initial weights and torch's losses over 100 epochs come from `first_steps_torch.json`, so the
numbers can be compared with torch's line by line; a difference beyond float32's rounding is an
error. Then the oldest rule of all, theta -= eta * gradient, with the gradient taken over all the
samples (gradient descent), over one (stochastic), and over a few (mini-batch).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

import gradtx
import gradtx.flax

RECORDED = json.loads(Path(__file__).with_name("first_steps_torch.json").read_text())
X, Y = jnp.asarray(RECORDED["x"]), jnp.asarray(RECORDED["y"])
TOLERANCE = 5e-6  # relative; 100 epochs of float32 rounding in another order of summation
OPTIMIZERS = {
    "adam": gradtx.adam(1e-3),
    "adamw": gradtx.adamw(1e-3, weight_decay=0.01),
    "adadelta": gradtx.adadelta(1.0),
}
console = Console(highlight=False)


def torch_start() -> nnx.Linear:
    """The layer as torch began with it; torch keeps the kernel transposed."""
    model = nnx.Linear(10, 1, rngs=nnx.Rngs(0))
    kernel, bias = jnp.asarray(RECORDED["weight"]).T, jnp.asarray(RECORDED["bias"])
    nnx.update(model, nnx.State({"kernel": kernel, "bias": bias}))
    return model


def mean_squared_error(model: nnx.Linear, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.square(model(x) - y).mean()


@nnx.jit
def train_step(model: nnx.Linear, optimizer: gradtx.flax.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
    loss, grads = nnx.value_and_grad(mean_squared_error)(model, x, y)
    optimizer.update(model, grads)
    return loss


def train(tx: Any, batches: Iterable[Any]) -> tuple[nnx.Linear, list[float]]:
    """A step for every batch, which is whatever selects rows; the model and the losses."""
    model = torch_start()
    optimizer = gradtx.flax.Optimizer(model, tx, wrt=nnx.Param)
    return model, [float(train_step(model, optimizer, X[rows], Y[rows])) for rows in batches]


def beside_torch() -> float:
    """Print our losses and torch's, and return the largest relative difference."""
    table = Table("epoch", title="mean squared error: gradtx | torch", title_justify="left")
    ours, torchs = {}, {}
    for name, tx in OPTIMIZERS.items():
        case = RECORDED["cases"][name]
        arguments = ", ".join(f"{key}={value}" for key, value in case["kwargs"].items())
        console.print(f"{name:10} gradtx.{tx}   torch.optim.{case['optimizer']}({arguments})", soft_wrap=True)
        table.add_column(name, justify="right")
        ours[name], torchs[name] = train(tx, [slice(None)] * 100)[1], case["losses"]
    for epoch in (1, 2, 10, 25, 50, 75, 100):
        pairs = [f"{ours[name][epoch - 1]:.6f} | {torchs[name][epoch - 1]:.6f}" for name in ours]
        table.add_row(str(epoch), *pairs)
    console.print(table)
    return max(np.max(np.abs(np.divide(ours[n], torchs[n]) - 1)) for n in ours)


def three_batches() -> None:
    """The same rule and the same number of steps, on all the samples, on one, and on eight."""
    random = np.random.default_rng(0)
    kinds = {
        "gradient descent: all 32 samples": [np.arange(32)] * 100,
        "stochastic: one sample": random.integers(32, size=(100, 1)),
        "mini-batch: eight samples": random.integers(32, size=(100, 8)),
    }
    tx = gradtx.sgd(0.05)
    console.print(f"theta -= 0.05 * gradient: {tx!r}, 100 steps, error over all samples")
    for name, batches in kinds.items():
        model, _ = train(tx, batches)
        console.print(f"  {name:34} {float(mean_squared_error(model, X, Y)):.4f}")


def main() -> None:
    difference = beside_torch()
    console.print(f"largest relative difference from torch: {difference:.1e}\n")
    three_batches()
    if not difference <= TOLERANCE:
        raise SystemExit(f"the losses differ from torch's by more than {TOLERANCE:.0e}")


if __name__ == "__main__":
    main()
