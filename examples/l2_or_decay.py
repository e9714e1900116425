"""Why L2 in the gradient and decoupled weight decay differ under Adam.

    python examples/l2_or_decay.py

Both pull every weight towards zero. L2 adds `decay * w` to the gradient, and Adam divides it by the
size of that weight's gradients: the larger these are, the less of the pull is left. Decoupled decay
subtracts `rate * decay * w` after Adam, from every weight alike.

Here all the weights start at 1 and their gradients are pure noise, of a size from 0.01 to 100, so
whatever shrinks a weight is the decay. Printed and drawn: what is left of the weights of each size.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import gradtx

RATE, DECAY, STEPS, COPIES = 1e-3, 0.5, 2_000, 500
SIZES = np.logspace(-2, 2, 17)
OPTIMIZERS = {
    "L2 in the gradient": gradtx.chain(gradtx.add_decayed_weights(DECAY), gradtx.adam(RATE)),
    "decoupled decay": gradtx.adamw(RATE, weight_decay=DECAY),
    "no decay": gradtx.adam(RATE),
}
console = Console(highlight=False)


def what_is_left(tx: Any) -> np.ndarray:
    """The mean weight for each gradient size, after all the steps."""

    def step(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
        weights, state = carry
        noise = jax.random.normal(key, weights.shape) * SIZES
        return gradtx.apply_gradients(tx, noise, state, weights), None

    @jax.jit
    def run(weights: jax.Array, keys: jax.Array) -> jax.Array:
        (weights, _), _ = jax.lax.scan(step, (weights, tx.init(weights)), keys)
        return weights.mean(0)

    return np.asarray(run(jnp.ones((COPIES, SIZES.size)), jax.random.split(jax.random.key(0), STEPS)))


def draw(left: dict[str, np.ndarray], path: Path) -> None:
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, values in left.items():
        axes.semilogx(SIZES, values, "o-", label=name, ms=4)
    expected = np.exp(-RATE * DECAY * STEPS)
    axes.axhline(expected, color="gray", ls="--", lw=1)
    axes.text(SIZES[0], expected + 0.02, "exp(-rate · decay · steps)", color="gray")
    axes.set(
        xlabel="size of a weight's gradients",
        ylabel="what is left of the weight",
        title=f"Adam, rate {RATE}, decay {DECAY}, {STEPS:,} steps, gradients of noise alone",
        ylim=(-0.05, 1.08),
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(0, 0.7))
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description="L2 in the gradient or decoupled decay, under Adam.")
    parser.add_argument("--out", type=Path, default=Path("runs/l2_or_decay"), help="folder")
    out = parser.parse_args().out
    left = {name: what_is_left(tx) for name, tx in OPTIMIZERS.items()}
    table = Table("size of the gradients", *left, title="what is left of a weight of 1")
    for i, size in enumerate(SIZES):
        if i % 4 == 0:
            table.add_row(f"{size:g}", *[f"{values[i]:.3f}" for values in left.values()])
    console.print(table)
    out.mkdir(parents=True, exist_ok=True)
    draw(left, out / "l2_or_decay.png")
    console.print(f"picture {out / 'l2_or_decay.png'}")
    decoupled, l2 = left["decoupled decay"], left["L2 in the gradient"]
    if np.ptp(decoupled) > 0.02 or l2[-1] < 0.95 or l2[0] > 0.1:
        raise SystemExit("the two do not differ as they should")


if __name__ == "__main__":
    main()
