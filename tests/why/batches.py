"""A mini-batch lies between all examples and one, in noise and in cost."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import gradtx

from . import style
from .experiment import Experiment, Measured, Run

EXAMPLES, INPUTS, STEPS, LAST, DRAWS = 512, 8, 800, 400, 400
METHODS = {"one example": 1, "a mini-batch of 32": 32, "all 512 examples": EXAMPLES}
SHORT = dict(zip(METHODS, ("one", "32", "all 512 examples"), strict=True))
RATE = 0.02
LEAST = 1e-4
"""Where the picture ends: less is near the rounding of float32."""


def loss_of(weights, inputs, targets):
    return 0.5 * jnp.mean(jnp.square(inputs @ weights - targets))


@jax.jit
def train(inputs: jax.Array, targets: jax.Array, batches: jax.Array) -> jax.Array:
    """The loss over all examples before each step, from weights of 0."""
    tx = gradtx.sgd(RATE)

    def step(carry, batch):
        weights, state = carry
        gradients = jax.grad(loss_of)(weights, inputs[batch], targets[batch])
        return gradtx.apply_gradients(tx, gradients, state, weights), loss_of(weights, inputs, targets)

    start = jnp.zeros_like(inputs[0])
    return jax.lax.scan(step, (start, tx.init(start)), batches)[1]


def run(method: str, seed: int) -> Run:
    """A seed draws the examples, whose targets are noisy, and the batches."""
    rng, size = np.random.default_rng(seed), METHODS[method]
    inputs = rng.normal(size=(EXAMPLES, INPUTS))
    targets = inputs @ rng.normal(size=INPUTS) * 2 + rng.normal(size=EXAMPLES)
    least = np.linalg.lstsq(inputs, targets)[0]
    floor = 0.5 * np.mean((inputs @ least - targets) ** 2)
    # Without repetition in a batch, so that a batch of all is all.
    batches = rng.permuted(np.tile(np.arange(EXAMPLES), (STEPS, 1)), axis=1)[:, :size]
    losses = train(inputs.astype(np.float32), targets.astype(np.float32), batches)
    gradients = -inputs * targets[:, None]
    full = gradients.mean(0)
    off = gradients[batches[:DRAWS]].mean(1) - full
    return {
        "size": np.array(size),
        "losses": np.asarray(losses) - floor,
        "noise": np.sqrt(np.mean(np.sum(off**2, axis=1)) / np.sum(full**2)),
    }


def measure(run: Run) -> Measured:
    losses = run["losses"]
    steps = int(np.argmax(losses <= 0.1 * losses[0]))
    return {
        "noise": float(run["noise"]),
        "left": float(np.maximum(losses[-LAST:], 0.0).mean() / losses[0]),
        "steps": float(steps),
        "cost": float(steps * run["size"]),
    }


def claim(one: Measured, some: Measured, all_of_them: Measured) -> dict[str, bool]:
    return {
        "the gradient of a mini-batch is less than half as noisy as that of one example, and noisier than "
        "that of all": all_of_them["noise"] < 1e-6 < some["noise"] < 0.5 * one["noise"],
        "what a mini-batch leaves of the loss is less than half of what one example leaves, and more than "
        "what all leave": all_of_them["left"] < some["left"] < 0.5 * one["left"],
        "to a tenth of the loss a mini-batch looks at four times as many examples as one example at a time, "
        "and at a quarter of those of full batches, or fewer": 4 * one["cost"]
        <= some["cost"]
        <= 0.25 * all_of_them["cost"],
    }


def draw(runs: Mapping[str, Run]) -> Figure:
    figure, (losses, noise) = style.panels(
        "A mini-batch lies between one example and all, in noise and in cost",
        "The loss over the examples looked at",
        "The noise of a gradient",
        ratios=(1.7, 1),
    )
    at = style.some(STEPS, 110)
    sizes = np.geomspace(1, EXAMPLES, 40)
    without_repetition = np.sqrt((EXAMPLES - sizes) / (EXAMPLES - 1) / sizes)
    of_one = np.median(next(iter(runs.values()))["noise"])
    noise.plot(sizes, of_one * without_repetition, color=style.FAINT, zorder=0)
    for (method, run), colour in zip(runs.items(), (style.VERMILION, style.BLUE, style.GREEN), strict=True):
        size = int(run["size"][0])
        style.band(losses, (at + 1) * size, np.maximum(run["losses"][:, at], 0.1 * LEAST), colour)
        noise.plot(size, np.median(run["noise"]), "o", color=colour, clip_on=False)
        style.name(losses, SHORT[method], (size, 70), colour)
    style.name(noise, "about 1 / √(batch)", (4.5, 1.5), style.SOFT)
    losses.set(xlabel="examples looked at", ylabel="loss above the least")
    losses.set_ylim(LEAST, 150)
    losses.margins(x=0.02)
    style.logarithmic(losses.xaxis, 1, 100, 10_000, 1_000_000)
    style.logarithmic(losses.yaxis, *10.0 ** np.arange(-4, 2))
    noise.set(xlabel="examples in a batch", ylabel="share of the gradient of all", ylim=(0, None))
    style.logarithmic(noise.xaxis, 1, 32, 512)
    return figure


EXPERIMENT = Experiment(
    name="batches",
    setting=(
        f"A linear model of {INPUTS} inputs learns {EXAMPLES} examples with noisy targets by plain "
        f"descent at a rate of {RATE}, for {STEPS} steps. A seed draws the examples and the batches."
    ),
    methods=tuple(METHODS),
    quantities={
        "noise": "deviation of the first gradient from that of all examples, relative to the latter",
        "left": f"excess loss in the last {LAST} of {STEPS} steps, as a share of the first",
        "steps": "steps until a tenth of the excess loss is left",
        "cost": "examples looked at until then",
    },
    run=run,
    measure=measure,
    claim=claim,
    draw=draw,
)
