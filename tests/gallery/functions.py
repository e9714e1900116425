"""The functions of two numbers that the optimizers go down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax

STEPS = 150
NOISE = 0.5
"""The standard deviation of the noise in the gradient of the noisy quadratic."""


@dataclasses.dataclass(frozen=True)
class Function:
    """A loss, where the paths start, what part of the plane is drawn, and what there is to see."""

    name: str
    title: str
    loss: Callable[[jax.Array], jax.Array]
    start: tuple[float, float]
    frame: tuple[tuple[float, float], tuple[float, float]]
    about: str
    noise: float = 0.0


def rosenbrock(p: jax.Array) -> jax.Array:
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def beale(p: jax.Array) -> jax.Array:
    x, y = p
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def saddle(p: jax.Array) -> jax.Array:
    return 0.5 * p[0] ** 2 + 0.125 * (p[1] ** 2 - 2) ** 2


def ravine(p: jax.Array) -> jax.Array:
    return 0.5 * (p[0] ** 2 + 40 * p[1] ** 2)


def quadratic(p: jax.Array) -> jax.Array:
    return 0.5 * (p[0] ** 2 + 4 * p[1] ** 2)


FUNCTIONS = [
    Function(
        "rosenbrock",
        "Rosenbrock",
        rosenbrock,
        (-1.2, 1.0),
        ((-1.7, 1.7), (-0.9, 2.2)),
        "(1 - x)² + 100 (y - x²)²: a bent valley with a flat floor; the minimum is at (1, 1).",
    ),
    Function(
        "beale",
        "Beale",
        beale,
        (1.0, 1.2),
        ((0.2, 3.8), (-1.0, 1.6)),
        "(1.5 - x + x y)² + (2.25 - x + x y²)² + (2.625 - x + x y³)²: flat where it ends, steep where it "
        "begins; the minimum is at (3, 0.5).",
    ),
    Function(
        "saddle",
        "Saddle",
        saddle,
        (1.5, 0.02),
        ((-1.0, 1.8), (-0.6, 2.2)),
        "x²/2 + (y² - 2)²/8: the path starts beside the ridge y = 0 and first goes to the saddle at (0, 0); "
        "a minimum is at (0, 1.41).",
    ),
    Function(
        "ravine",
        "Ravine",
        ravine,
        (-2.0, 0.7),
        ((-2.4, 1.2), (-1.0, 1.0)),
        "(x² + 40 y²)/2: forty times as steep across the valley as along it; the minimum is at (0, 0).",
    ),
    Function(
        "noisy",
        "Noisy quadratic",
        quadratic,
        (-2.0, 1.2),
        ((-2.4, 1.4), (-1.1, 1.6)),
        f"(x² + 4 y²)/2, with normal noise of standard deviation {NOISE} in each gradient; the minimum is at "
        "(0, 0).",
        noise=NOISE,
    ),
]
