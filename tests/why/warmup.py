"""A linear schedule with warmup trains steadier than its peak rate all along."""

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

STEPS, WARMUP, LAST = 400, 40, 40
EXAMPLES, INPUTS, HIDDEN, BATCH = 256, 8, 32, 8
PEAK = 0.1
METHODS = {
    "constant": lambda: gradtx.constant_schedule(PEAK),
    "warmup and decay": lambda: gradtx.warmup_linear_decay_schedule(0.0, PEAK, WARMUP, STEPS),
}


def loss_of(weights, inputs, labels):
    """The cross entropy of a network with two hidden layers."""
    hidden = jnp.tanh(jnp.tanh(inputs @ weights["first"]) @ weights["second"])
    return jnp.mean(jnp.logaddexp(0.0, -labels * (hidden @ weights["last"])))


@functools.partial(jax.jit, static_argnums=0)
def train(method: str, weights, inputs: jax.Array, labels: jax.Array, batches: jax.Array) -> jax.Array:
    """The loss over all examples before each step."""
    tx = gradtx.adam(METHODS[method]())

    def step(carry, batch):
        weights, state = carry
        gradients = jax.grad(loss_of)(weights, inputs[batch], labels[batch])
        return gradtx.apply_gradients(tx, gradients, state, weights), loss_of(weights, inputs, labels)

    return jax.lax.scan(step, (weights, tx.init(weights)), batches)[1]


def run(method: str, seed: int) -> Run:
    """A seed draws the examples, a tenth of whose labels are wrong, the first weights, and the batches."""
    rng = np.random.default_rng(seed)

    def matrix(*shape):
        return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    weights = {"first": matrix(INPUTS, HIDDEN), "second": matrix(HIDDEN, HIDDEN), "last": matrix(HIDDEN)}
    inputs = rng.normal(size=(EXAMPLES, INPUTS)).astype(np.float32)
    labels = np.sign((inputs @ matrix(INPUTS, 2)).prod(axis=1)) * np.where(rng.random(EXAMPLES) < 0.1, -1, 1)
    batches = rng.integers(0, EXAMPLES, (STEPS, BATCH))
    return {"losses": np.asarray(train(method, weights, inputs, labels.astype(np.float32), batches))}


def measure(run: Run) -> Measured:
    losses = run["losses"]
    return {
        "highest": float(losses[:WARMUP].max() / losses[0]),
        "rises": float(np.maximum(np.diff(losses), 0.0).sum()),
        "spread": float(losses[-LAST:].std()),
        "last": float(losses[-LAST:].mean()),
    }


def claim(constant: Measured, schedule: Measured) -> dict[str, bool]:
    return {
        f"with the schedule the loss rises less in the first {WARMUP} steps": schedule["highest"]
        < constant["highest"],
        "over the whole run the rises of the loss add up to less": schedule["rises"] < constant["rises"],
        f"in the last {LAST} steps the loss spreads less than half as much": schedule["spread"]
        < 0.5 * constant["spread"],
        f"the mean loss of the last {LAST} steps is lower": schedule["last"] < constant["last"],
    }


def draw(runs: Mapping[str, Run]) -> Figure:
    figure, (rates, losses) = style.panels(
        "With warmup and a linear decay training is steadier",
        "The learning rate",
        "The loss over all examples, of one seed",
        ratios=(1, 1.9),
    )
    for (method, run), colour in zip(runs.items(), (style.VERMILION, style.BLUE), strict=True):
        rate, corners = METHODS[method](), (0, WARMUP, STEPS)
        rates.plot(corners, [float(rate(step)) for step in corners], color=colour)
        losses.plot(run["losses"][0], color=colour, linewidth=1.2)
    style.name(rates, "constant", (STEPS, PEAK * 1.04), style.VERMILION, "right")
    style.name(rates, "warmup\nand decay", (WARMUP + 20, PEAK * 0.3), style.BLUE)
    style.name(losses, "constant", (STEPS * 0.72, 1.12), style.VERMILION)
    style.name(losses, "warmup and decay", (STEPS * 0.62, 0.1), style.BLUE)
    rates.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    losses.set(xlabel="step", ylabel="cross entropy, nats", ylim=(0, None))
    return figure


EXPERIMENT = Experiment(
    name="warmup",
    setting=(
        f"A network with two hidden layers of {HIDDEN} learns {EXAMPLES} examples, a tenth of which are "
        f"labelled wrongly, by Adam in {STEPS} batches of {BATCH}. Both have the same peak rate of "
        f"{PEAK}, which is nearly too much. A seed draws the examples, the first weights and the batches."
    ),
    methods=tuple(METHODS),
    quantities={
        "highest": f"highest loss of the first {WARMUP} steps, as a multiple of the first",
        "rises": "all rises of the loss, added up",
        "spread": f"standard deviation of the loss in the last {LAST} steps",
        "last": f"mean loss of the last {LAST} steps",
    },
    run=run,
    measure=measure,
    claim=claim,
    draw=draw,
)
