"""Momentum damps the swings across a ravine and goes faster along it."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

import gradtx

from . import style
from .experiment import Experiment, Measured, Run

STEPS, LATE = 40, 20
RATE = 0.0475
STEEP = 39.0, 41.5
METHODS = {"plain descent": None, "momentum 0.5": 0.5}


@functools.partial(jax.jit, static_argnums=0)
def descend(method: str, slopes: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The places before each step and after the last, and their losses, of 1/2 (a x² + b y²)."""
    tx = gradtx.sgd(RATE, momentum=METHODS[method])

    def loss(place: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(slopes * place**2)

    def step(carry, _):
        place, state = carry
        value, gradient = jax.value_and_grad(loss)(place)
        return gradtx.apply_gradients(tx, gradient, state, place), (place, value)

    return jax.lax.scan(step, (start, tx.init(start)), length=STEPS + 1)[1]


def run(method: str, seed: int) -> Run:
    """A seed draws where it begins, and how steep the sides are: nearly as steep as the rate allows."""
    rng = np.random.default_rng(seed)
    slopes = np.array([1.0, rng.uniform(*STEEP)], np.float32)
    places, losses = descend(method, slopes, rng.uniform(0.8, 1.2, 2).astype(np.float32))
    return {"places": np.asarray(places), "losses": np.asarray(losses)}


def measure(run: Run) -> Measured:
    along, across = run["places"].T
    return {
        "across": float(np.abs(across[LATE:]).max()),
        "sides": float(np.sum(across[1:] * across[:-1] < 0)),
        "along": float(abs(along[-1])),
    }


def claim(plain: Measured, momentum: Measured) -> dict[str, bool]:
    return {
        f"after {LATE} steps plain descent still swings ten times as far across as momentum": plain["across"]
        > 10 * momentum["across"],
        "plain descent changes sides in every step, momentum does not": momentum["sides"]
        < plain["sides"]
        == STEPS,
        "momentum has less than half as far to go along the valley": momentum["along"] < 0.5 * plain["along"],
    }


def draw(runs: Mapping[str, Run]) -> Figure:
    figure, (valley, losses) = style.panels(
        "Momentum damps the swings across a ravine, and is faster along it",
        f"The paths from one start, {STEPS} steps",
        "The loss, median and range over seeds",
        ratios=(1.25, 1),
    )
    x, y = np.meshgrid(np.linspace(-0.2, 1.3, 16), np.linspace(-1.3, 1.3, 53))
    levels = [0.0, 0.25, 1.0, 3.0, 7.0, 13.0, 21.0, 31.0, 50.0]
    depth = LinearSegmentedColormap.from_list("depth", ["#ffffff", "#c2cad4"])
    valley.contourf(x, y, 0.5 * (x**2 + 40 * y**2), levels, cmap=depth)
    for (_, run), colour in zip(runs.items(), (style.VERMILION, style.BLUE), strict=True):
        valley.plot(*run["places"][0].T, color=colour, marker="o", markersize=2.8, linewidth=1.2)
        style.band(losses, np.arange(STEPS + 1), run["losses"], colour)
    valley.plot(0, 0, "*", color=style.INK, markersize=10)
    style.name(valley, "plain descent", (0.66, 0.95), style.VERMILION, "right")
    style.name(valley, "momentum", (0.42, -0.62), style.BLUE, "right")
    style.name(valley, "minimum", (0.0, 0.22), align="center")
    plain, momentum = (float(np.median(run["losses"][:, -1])) for run in runs.values())
    style.name(losses, "plain\ndescent", (STEPS + 1, plain), style.VERMILION)
    style.name(losses, "momentum", (STEPS + 1, momentum), style.BLUE)
    valley.set(xlim=(-0.2, 1.05), xlabel="along the valley", ylabel="across the valley")
    losses.set(xlabel="step", ylabel="loss", xlim=(0, STEPS))
    style.logarithmic(losses.yaxis, 1e-4, 1e-3, 1e-2, 0.1, 1, 10)
    return figure


EXPERIMENT = Experiment(
    name="momentum",
    setting=(
        f"The loss is 1/2 (along² + a across²) and the learning rate {RATE}; a seed draws the start, and "
        f"a between {STEEP[0]:g} and {STEEP[1]:g}. Plain descent would diverge from {2 / RATE:.1f} on."
    ),
    methods=tuple(METHODS),
    quantities={
        "across": f"largest distance from the valley's floor after step {LATE}",
        "sides": f"changes of side in {STEPS} steps",
        "along": f"distance left along the valley after {STEPS} steps",
    },
    run=run,
    measure=measure,
    claim=claim,
    draw=draw,
)
