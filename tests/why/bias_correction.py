"""Without bias correction Adam's first steps are several times too long."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import numpy as np
from matplotlib.figure import Figure

import gradtx

from . import style
from .experiment import Experiment, Measured, Run

STEPS, ELEMENTS, FIRST = 2_000, 64, 100
RATE, NOISE = 0.01, 0.3
METHODS = {"corrected": True, "uncorrected": False}


@functools.partial(jax.jit, static_argnums=0)
def follow(method: str, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The updates for gradients of 1 with noise, and the places of a descent from its minimum."""
    tx = gradtx.adam(RATE, bias_correction=METHODS[method])

    def step(carry, noise):
        place, state, other = carry
        updates, other = tx.update(1.0 + NOISE * noise, other)
        place, state = gradtx.apply_gradients(tx, place + noise, state, place)
        return (place, state, other), (updates, place)

    start = 0.0 * noise[0]
    return jax.lax.scan(step, (start, tx.init(start), tx.init(start)), noise)[1]


def run(method: str, seed: int) -> Run:
    """A seed draws the noise of the gradients."""
    noise = np.random.default_rng(seed).normal(size=(STEPS, ELEMENTS)).astype(np.float32)
    updates, places = follow(method, noise)
    return {
        "lengths": np.abs(np.mean(updates, axis=1)) / RATE,
        "distances": np.sqrt(np.mean(np.square(places), axis=1)) / RATE,
    }


def measure(run: Run) -> Measured:
    return {
        "first": float(run["lengths"][0]),
        "longest": float(run["lengths"][:FIRST].max()),
        "farthest": float(run["distances"].max()),
        "late": float(run["lengths"][-FIRST:].mean()),
    }


def claim(corrected: Measured, uncorrected: Measured) -> dict[str, bool]:
    return {
        "the first step is one rate long with the correction, and more than three without": 0.8
        < corrected["first"]
        < 1.2
        < 3
        < uncorrected["first"],
        f"of the first {FIRST} steps none is longer than 1.2 rates with the correction, and one is longer "
        "than 5 without": corrected["longest"] < 1.2 < 5 < uncorrected["longest"],
        "from a minimum, noise drives it more than twice as far away without the correction": uncorrected[
            "farthest"
        ]
        > 2 * corrected["farthest"],
    }


def draw(runs: Mapping[str, Run]) -> Figure:
    figure, (lengths, distances) = style.panels(
        "Without bias correction the first steps are several times too long",
        "Length of a step, for gradients around 1",
        "Distance from a minimum where it began",
    )
    at = style.some(STEPS, 120)
    for (_, run), colour in zip(runs.items(), (style.BLUE, style.VERMILION), strict=True):
        style.band(lengths, at + 1, run["lengths"][:, at], colour)
        style.band(distances, at + 1, run["distances"][:, at], colour)
    for axes in (lengths, distances):
        axes.set(xlabel="step", xlim=(1, STEPS), ylim=(0, None))
        style.logarithmic(axes.xaxis, 1, 10, 100, 1000)
        axes.grid(axis="y")
    style.name(lengths, "without", (60, 5.6), style.VERMILION)
    style.name(lengths, "with the correction", (3, 0.55), style.BLUE)
    style.name(distances, "without", (9, 17.0), style.VERMILION, "right")
    style.name(distances, "with the correction", (30, 3.4), style.BLUE)
    lengths.set_ylabel("in learning rates")
    distances.set_ylabel("in learning rates, root mean square")
    return figure


EXPERIMENT = Experiment(
    name="bias_correction",
    setting=(
        f"Adam with a learning rate of {RATE}, on {ELEMENTS} elements. Left: gradients of 1 with noise of "
        f"{NOISE}. Right: a descent on 1/2 theta² from its minimum, with noise of 1. A seed draws the "
        "noise."
    ),
    methods=tuple(METHODS),
    quantities={
        "first": "length of the first step, in learning rates",
        "longest": f"longest of the first {FIRST} steps, in learning rates",
        "late": f"mean length of the last {FIRST} of {STEPS:,} steps, in learning rates",
        "farthest": "largest distance from the minimum where it began, in learning rates",
    },
    run=run,
    measure=measure,
    claim=claim,
    draw=draw,
)
