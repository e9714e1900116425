"""Two new optimizers in about 15 lines, beside Adam.

    python examples/compose.py

The first is put together from atoms. Adam is the ratio of an average gradient and the root of the
average square; take the root before the average, and the denominator is the average magnitude.

The second is a rule: hyperparameters and slots are declared, and `apply` is the formula for one
array. It is Adam without the coordinates in which the step would climb (Liang et al., Cautious
Optimizers, 2024, https://arxiv.org/abs/2411.16085). Trees, dtypes, masks, the step counter, and
hyperparameters that never recompile come from the engine.
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

import gradtx

console = Console(highlight=False)


def average(b: float) -> Any:
    """The exponential moving average of what comes in, without the pull of its zero start."""
    return gradtx.chain(gradtx.ema(b, debias=False), gradtx.debias(b))


def adam_from_atoms(rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Any:
    """Adam: an average gradient over the root of the average square."""
    root = gradtx.chain(gradtx.square(), average(b2), gradtx.sqrt(), gradtx.offset(eps))
    return gradtx.chain(gradtx.ratio(average(b1), root), gradtx.scale_by_learning_rate(rate))


def magnitude_adam(rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Any:
    """A new one: the root comes before the average."""
    magnitude = gradtx.chain(gradtx.square(), gradtx.sqrt(), average(b2), gradtx.offset(eps))
    return gradtx.chain(gradtx.ratio(average(b1), magnitude), gradtx.scale_by_learning_rate(rate))


class ScaleByCautiousAdam(gradtx.Rule, name="scale_by_cautious_adam"):
    """u = m^ / (sqrt(v^) + eps) where u g > 0, else 0; enlarged by the share that was dropped."""

    b1: gradtx.Decay
    b2: gradtx.Decay
    eps: gradtx.NonNegative
    mu = gradtx.Slot()
    nu = gradtx.Slot(real=True)

    def prepare(self, now: Any) -> dict[str, jax.Array]:
        return {"c1": self.b1.correction(now.t), "c2": self.b2.correction(now.t)}

    def apply(self, g: jax.Array, slots: Any, leaf: Any) -> tuple[jax.Array, Any]:
        mu, nu = self.b1.mix(slots.mu, g), self.b2.mix(slots.nu, g * g)
        u = (mu / leaf.c1) / (jnp.sqrt(nu / leaf.c2) + self.eps)
        agrees = u * g > 0
        u = jnp.where(agrees, u, 0) / jnp.maximum(agrees.mean(), 1e-3)
        return u, {"mu": mu, "nu": nu}


def cautious_adam(rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Any:
    return gradtx.chain(ScaleByCautiousAdam(b1=b1, b2=b2, eps=eps), gradtx.scale_by_learning_rate(rate))


OPTIMIZERS = {
    "adam": gradtx.adam(3e-3),
    "adam from atoms": adam_from_atoms(3e-3),
    "magnitude adam": magnitude_adam(3e-3),
    "cautious adam": cautious_adam(3e-3),
}


def spirals() -> tuple[jax.Array, jax.Array]:
    """Points on two interleaved spirals, and the spiral that each is on."""
    turn = jnp.linspace(0.5, 3.0, 200) * jnp.pi
    arm = jnp.stack([turn * jnp.cos(turn), turn * jnp.sin(turn)], axis=1) / 10
    return jnp.concatenate([arm, -arm]), jnp.repeat(jnp.arange(2), 200)


def start(key: jax.Array, sizes: tuple[int, ...] = (2, 64, 64, 1)) -> list[dict[str, jax.Array]]:
    return [
        {"w": jax.random.normal(k, (m, n)) * np.sqrt(2 / m), "b": jnp.zeros(n)}
        for k, m, n in zip(jax.random.split(key, 3), sizes, sizes[1:], strict=False)
    ]


def loss(params: list[dict[str, jax.Array]]) -> jax.Array:
    x, arm = spirals()
    *hidden, last = params
    for layer in hidden:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    score = (x @ last["w"] + last["b"])[:, 0]
    return jnp.mean(jax.nn.softplus(jnp.where(arm == 1, -score, score)))


def draw(histories: dict[str, np.ndarray], path: Path) -> None:
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    styles = {"adam": {"lw": 4, "alpha": 0.35}, "adam from atoms": {"ls": "--", "color": "black"}}
    for name, history in histories.items():
        axes.semilogy(history, label=name, **styles.get(name, {}))
    axes.set(xlabel="step", ylabel="loss", title="Two spirals, told apart by a small network")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description="Two new optimizers beside Adam.")
    parser.add_argument("--out", type=Path, default=Path("runs/compose"), help="(runs/compose)")
    out = parser.parse_args().out
    histories = {}
    for name, tx in OPTIMIZERS.items():
        _, history = gradtx.minimize(loss, start(jax.random.key(0)), tx, steps=600)
        histories[name] = np.asarray(history["loss"])
        console.print(f"{name:16} loss after 600 steps {histories[name][-1]:.5f}")
    console.print(OPTIMIZERS["magnitude adam"])
    out.mkdir(parents=True, exist_ok=True)
    draw(histories, out / "compose.png")
    console.print(f"picture {out / 'compose.png'}")


if __name__ == "__main__":
    main()
