"""Adadelta needs no learning rate: it does the same for losses of many scales."""

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

STEPS, LAST, ELEMENTS = 1_000, 100, 16
SCALES = 10.0 ** np.arange(-3.0, 3.01, 0.5)
WIDE = SCALES >= 0.1
"""Where the gradients are much larger than the root of eps, at least at first."""
NOISE = 0.1
CURVATURES = np.geomspace(0.05, 1.0, ELEMENTS)
TOP = 1.0
"""Where the picture ends."""
METHODS = {"Adadelta": lambda: gradtx.adadelta(1.0, eps=1e-6), "descent, rate 0.2": lambda: gradtx.sgd(0.2)}


@functools.partial(jax.jit, static_argnums=0)
def losses(method: str, scales: jax.Array, start: jax.Array, noise: jax.Array) -> jax.Array:
    """For each scale the loss before each step, without the scale."""
    tx, curvatures = METHODS[method](), jnp.asarray(CURVATURES, jnp.float32)

    def of(scale):
        def step(carry, noise):
            place, state = carry
            gradient = scale * (curvatures * place + noise)
            return gradtx.apply_gradients(tx, gradient, state, place), 0.5 * jnp.sum(curvatures * place**2)

        return jax.lax.scan(step, (start, tx.init(start)), noise)[1]

    return jax.vmap(of)(scales)


def run(method: str, seed: int) -> Run:
    """A seed draws the start and the noise of the gradients."""
    rng = np.random.default_rng(seed)
    start = rng.normal(size=ELEMENTS).astype(np.float32)
    noise = (NOISE * rng.normal(size=(STEPS, ELEMENTS))).astype(np.float32)
    found = np.asarray(losses(method, SCALES.astype(np.float32), start, noise))
    return {"left": np.nan_to_num(found[:, -LAST:].mean(axis=1) / found[:, 0], nan=np.inf)}


def measure(run: Run) -> Measured:
    left = run["left"]
    return {
        "at_one": float(left[SCALES == 1.0][0]),
        "best": float(left[WIDE].min()),
        "worst": float(left[WIDE].max()),
    }


def claim(adadelta: Measured, descent: Measured) -> dict[str, bool]:
    return {
        f"over losses scaled by {SCALES[WIDE][0]:g} to {SCALES[-1]:,.0f}, what Adadelta leaves of the loss "
        "differs by less than a factor of 2": adadelta["worst"] < 2 * adadelta["best"],
        "the same rate of plain descent diverges for some of them": not np.isfinite(descent["worst"]),
    }


def draw(runs: Mapping[str, Run]) -> Figure:
    figure, (axes,) = style.panels(
        "Adadelta needs no learning rate while its gradients are well above √eps",
        f"What is left of the loss after {STEPS:,} steps, by the scale of the loss; thin lines are seeds",
    )
    axes.axvspan(SCALES[0] / 2, 0.06, color=style.FAINT, alpha=0.45, linewidth=0)
    style.name(axes, "gradients come\nnear √eps", (SCALES[0] / 1.7, 8e-4), style.SOFT)
    adadelta, descent = (run["left"] for run in runs.values())
    style.threads(axes, SCALES, adadelta, style.BLUE, marker="o", markersize=4)
    stays = np.isfinite(descent).all(axis=0)
    style.threads(axes, SCALES[stays], descent[:, stays], style.VERMILION, marker="o", markersize=4)
    for scale in SCALES[~stays]:
        axes.plot(scale, TOP * 0.75, "^", color=style.VERMILION, markersize=6, clip_on=False)
    axes.set(xlabel="what the loss is multiplied by", ylabel="share of the first loss")
    style.logarithmic(axes.xaxis, *SCALES[::2])
    style.logarithmic(axes.yaxis, 1e-3, 1e-2, 0.1, 1)
    axes.grid(axis="y")
    axes.set(ylim=(3e-4, TOP), xlim=(SCALES[0] / 2, SCALES[-1]))
    style.name(axes, "Adadelta", (SCALES[-1] * 1.2, np.median(adadelta[:, -1])), style.BLUE)
    style.name(axes, "descent, rate 0.2", (6.5, 0.04), style.VERMILION)
    style.name(axes, "diverges", (SCALES[~stays][0] * 1.05, TOP * 0.35), style.VERMILION)
    return figure


EXPERIMENT = Experiment(
    name="adadelta",
    setting=(
        f"A quadratic of {ELEMENTS} numbers with curvatures from {CURVATURES[0]:g} to {CURVATURES[-1]:g}, "
        f"and noise of {NOISE} in the gradients, for {STEPS:,} steps at eps = 1e-6; all of it is "
        "multiplied by a factor. A seed draws the start and the noise."
    ),
    methods=tuple(METHODS),
    quantities={
        "at_one": "left of the loss where it is multiplied by 1",
        "best": f"the least that is left over scales of {SCALES[WIDE][0]:g} to {SCALES[-1]:,.0f}",
        "worst": "the most that is left over these",
    },
    run=run,
    measure=measure,
    claim=claim,
    draw=draw,
)
