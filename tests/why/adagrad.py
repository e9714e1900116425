"""AdaGrad's rate decays to nothing; RMSprop forgets, and its rate does not."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import numpy as np
from matplotlib.figure import Figure

import gradtx

from . import style
from .experiment import Experiment, Measured, Run

STEPS, ELEMENTS = 3_000, 64
FIRST, LAST, TIMES = 1_000, 1_050, 30
"""The steps of the burst, in which gradients are so many times as large."""
METHODS = {
    "AdaGrad": lambda: gradtx.adagrad(0.1, initial_accumulator_value=0.0),
    "RMSprop": lambda: gradtx.rmsprop(0.1),
}


@functools.partial(jax.jit, static_argnums=0)
def rates(method: str, gradients: jax.Array) -> jax.Array:
    """By how much each step multiplies its gradient."""
    tx = METHODS[method]()

    def step(state, gradient):
        updates, state = tx.update(gradient, state)
        return state, -updates / gradient

    return jax.lax.scan(step, tx.init(gradients[0]), gradients)[1]


def run(method: str, seed: int) -> Run:
    """A seed draws the gradients: of elements that are alike, and of one size but for the burst."""
    gradients = np.random.default_rng(seed).normal(size=(STEPS, ELEMENTS)).astype(np.float32)
    gradients[FIRST:LAST] *= TIMES
    return {"rates": np.median(rates(method, gradients), axis=1)}


def measure(run: Run) -> Measured:
    def around(step: int) -> float:
        return float(np.median(run["rates"][step - 20 : step]))

    return {
        "early": around(100),
        "quiet": around(FIRST) / around(100),
        "burst": around(STEPS) / around(FIRST),
    }


def claim(adagrad: Measured, rmsprop: Measured) -> dict[str, bool]:
    return {
        f"from step 100 to step {FIRST:,} AdaGrad loses more than half of its rate, RMSprop less than a "
        "quarter": adagrad["quiet"] < 0.5 < 0.75 < rmsprop["quiet"],
        "after the burst AdaGrad never has a quarter of its rate again, RMSprop has three quarters or more": (
            adagrad["burst"] < 0.25 < 0.75 < rmsprop["burst"]
        ),
    }


def draw(runs: Mapping[str, Run]) -> Figure:
    figure, (axes,) = style.panels(
        "AdaGrad's rate decays to nothing; RMSprop's comes back",
        f"What a step multiplies the gradient by; gradients of one size, but {TIMES} times that in "
        f"{LAST - FIRST} steps",
    )
    at = np.union1d(style.some(STEPS, 150), np.arange(FIRST - 10, LAST + 60, 3))
    axes.axvspan(FIRST, LAST, color=style.FAINT, alpha=0.6, linewidth=0)
    for (method, run), colour in zip(runs.items(), (style.VERMILION, style.BLUE), strict=True):
        style.band(axes, at + 1, run["rates"][:, at], colour)
        style.name(axes, method, (STEPS * 1.06, np.median(run["rates"][:, -100:])), colour)
    at_burst = FIRST * 0.95, 0.45
    style.name(axes, f"{LAST - FIRST} gradients,\n{TIMES} times as large", at_burst, style.SOFT, "right")
    style.name(axes, "falls as 1 / √t", (60, 6.5e-3), style.SOFT, "right")
    axes.set(xlim=(1, STEPS), xlabel="step", ylabel="rate of the step")
    style.logarithmic(axes.xaxis, 1, 10, 100, 1000, STEPS)
    style.logarithmic(axes.yaxis, 1e-3, 1e-2, 0.1)
    return figure


EXPERIMENT = Experiment(
    name="adagrad",
    setting=(
        f"A seed draws {STEPS:,} gradients of {ELEMENTS} elements, normally distributed, and {TIMES} "
        f"times as large from step {FIRST:,} to {LAST:,}; the rate is the median over the elements."
    ),
    methods=tuple(METHODS),
    quantities={
        "early": "rate at step 100",
        "quiet": f"rate at step {FIRST:,}, as a share of that at step 100",
        "burst": f"rate at step {STEPS:,}, as a share of that before the burst",
    },
    run=run,
    measure=measure,
    claim=claim,
    draw=draw,
)
