"""Adam scales L2 in the gradient away where gradients are large; decoupled decay shrinks all alike."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import gradtx

from . import style
from .experiment import Experiment, Measured, Run

STEPS, EACH = 1_000, 16
SIZES = 10.0 ** np.arange(0.0, 2.01, 0.25)
RATE, DECAY = 1e-3, 0.1
METHODS = {"L2 in the gradient": gradtx.adam, "decoupled": gradtx.adamw}
EXPECTED = 1 - (1 - RATE * DECAY) ** STEPS


@functools.partial(jax.jit, static_argnums=0)
def last(method: str, gradients: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights that began at 1, with the decay and without it, after the same gradients."""
    several = METHODS[method](RATE, weight_decay=DECAY), METHODS[method](RATE, weight_decay=0.0)

    def end(tx):
        def step(carry, gradient):
            weights, state = carry
            return gradtx.apply_gradients(tx, gradient, state, weights), None

        start = jnp.ones_like(gradients[0])
        return jax.lax.scan(step, (start, tx.init(start)), gradients)[0][0]

    return end(several[0]), end(several[1])


def run(method: str, seed: int) -> Run:
    """A seed draws the gradients, which are noise of mean 0 and of another size for each row of weights."""
    noise = np.random.default_rng(seed).normal(size=(STEPS, len(SIZES), EACH))
    with_decay, without = last(method, (noise * SIZES[:, None]).astype(np.float32))
    return {"taken": np.mean(np.asarray(without) - np.asarray(with_decay), axis=1)}


def measure(run: Run) -> Measured:
    return {"quiet": float(run["taken"][0]), "loud": float(run["taken"][-1])}


def claim(coupled: Measured, decoupled: Measured) -> dict[str, bool]:
    return {
        f"with L2 in the gradient, weights whose gradients are {SIZES[-1]:g} times as large lose less than a "
        "twentieth as much": coupled["loud"] < coupled["quiet"] / 20,
        "with decoupled decay they lose the same as the others, to 5 percent": abs(
            decoupled["loud"] / decoupled["quiet"] - 1
        )
        < 0.05,
        "decoupled decay takes 1 - (1 - eta lambda)^t of the loud weights, to 5 percent": abs(
            decoupled["loud"] / EXPECTED - 1
        )
        < 0.05,
    }


def draw(runs: Mapping[str, Run]) -> Figure:
    figure, (axes,) = style.panels(
        "Adam scales L2 in the gradient away where gradients are large",
        f"What decay took of a weight of 1 in {STEPS:,} steps, by the size of its gradients",
    )
    for (_, run), colour in zip(runs.items(), (style.VERMILION, style.BLUE), strict=True):
        style.band(axes, SIZES, 100 * run["taken"], colour, marker="o", markersize=4)
    axes.set(xlabel="size of the gradients (standard deviation)", ylabel="taken by decay, percent")
    style.logarithmic(axes.xaxis, 1, 10, 100)
    axes.grid(axis="y")
    style.name(axes, "decoupled (AdamW)", (SIZES[-1], 100 * EXPECTED * 1.08), style.BLUE, "right")
    style.name(axes, "L2 in the gradient (Adam)", (SIZES[2] * 1.12, 100 * EXPECTED * 0.36), style.VERMILION)
    axes.set_ylim(0, 11)
    return figure


EXPERIMENT = Experiment(
    name="decay",
    setting=(
        f"{len(SIZES)} rows of {EACH} weights that begin at 1, at eta = {RATE} and lambda = {DECAY}. A "
        "seed draws the gradients, which are noise of mean 0. What was taken is the difference to the "
        "same run without decay."
    ),
    methods=tuple(METHODS),
    quantities={
        "quiet": f"taken of a weight with gradients of size {SIZES[0]:g}",
        "loud": f"taken of a weight with gradients of size {SIZES[-1]:g}",
    },
    run=run,
    measure=measure,
    claim=claim,
    draw=draw,
)
