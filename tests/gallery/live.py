"""The data of docs/live.md: paths on a grid of numbers, so that the page has nothing to compute.

A coordinate is a whole number from 0 to 4095 over three times the frame, written as two letters of `LETTERS`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

from .functions import FUNCTIONS, Function

STEPS = 60
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MOST = 4095
SHOWN = [f for f in FUNCTIONS if f.name in ("rosenbrock", "beale", "ravine")]
LEVELS = 16


@dataclasses.dataclass(frozen=True)
class Live:
    """An optimizer, the values that each of its numbers takes, and those shown first."""

    name: str
    values: Mapping[str, tuple[float, ...]]
    start: Mapping[str, float]

    def made(self, **numbers: float) -> Any:
        return getattr(gradtx, self.name)(**numbers)

    def points(self) -> list[dict[str, float]]:
        """Every combination of the values; the last number varies fastest."""
        return [
            dict(zip(self.values, each, strict=True)) for each in itertools.product(*self.values.values())
        ]


SMALL = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
OPTIMIZERS = [
    Live(
        "sgd",
        {
            "learning_rate": SMALL,
            "momentum": (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95),
            "weight_decay": (0.0, 0.1, 1.0),
        },
        {"learning_rate": 0.02, "momentum": 0.7, "weight_decay": 0.0},
    ),
    Live(
        "adam",
        {
            "learning_rate": RATES,
            "b1": (0.0, 0.5, 0.8, 0.9, 0.95),
            "b2": (0.5, 0.9, 0.999),
            "eps": (1e-8, 0.1, 10.0),
        },
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.999, "eps": 1e-8},
    ),
    Live(
        "adamw",
        {
            "learning_rate": RATES,
            "b1": (0.0, 0.5, 0.9),
            "b2": (0.5, 0.9, 0.999),
            "eps": (1e-8, 1.0),
            "weight_decay": (0.0, 0.1, 1.0),
        },
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.1},
    ),
    Live(
        "rmsprop",
        {
            "learning_rate": RATES,
            "decay": (0.0, 0.5, 0.9, 0.99),
            "eps": (1e-8, 0.1, 10.0),
            "momentum": (0.0, 0.5, 0.9),
        },
        {"learning_rate": 0.05, "decay": 0.9, "eps": 1e-8, "momentum": 0.0},
    ),
    Live(
        "lion",
        {
            "learning_rate": RATES,
            "b1": (0.0, 0.5, 0.9, 0.95),
            "b2": (0.5, 0.9, 0.99),
            "weight_decay": (0.0, 0.1, 1.0),
        },
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "weight_decay": 0.1},
    ),
]
"""The sliders of each; `decay` of RMSprop is what Adam calls b2."""


def follow(one: Live, points: list[dict[str, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The paths on each function and for each combination of numbers, and the losses at their ends."""
    tx = one.made(**points[0])
    losses = [function.loss for function in SHOWN]

    def run(which: jax.Array, start: jax.Array, numbers: dict[str, jax.Array]) -> Any:
        def loss(p: jax.Array) -> jax.Array:
            return jax.lax.switch(which, losses, p)

        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            new, state = gradtx.apply_gradients(tx, jax.grad(loss)(params), state, params)
            return (new, state), new

        state = gradtx.set_hyperparams(tx.init(start), **numbers)
        path = jnp.concatenate([start[None], jax.lax.scan(step, (start, state), length=STEPS)[1]])
        return path, loss(path[-1])

    each = jax.jit(jax.vmap(jax.vmap(run, (None, None, 0)), (0, 0, None)))
    numbers = {name: jnp.asarray([point[name] for point in points]) for name in points[0]}
    starts = jnp.asarray([function.start for function in SHOWN])
    paths, ends = each(jnp.arange(len(SHOWN)), starts, numbers)
    return np.asarray(paths), np.asarray(ends)


def bounds(function: Function) -> np.ndarray:
    """The plane that a coordinate can be in, three times as wide and high as the frame."""
    low, high = np.array(function.frame).T
    return np.stack([2 * low - high, 2 * high - low])


def coded(path: np.ndarray, function: Function) -> str:
    """A path in letters, up to where it leaves three times the frame or is no longer finite."""
    low, high = bounds(function)
    with np.errstate(invalid="ignore"):
        inside = ((path >= low) & (path <= high)).all(-1)
    kept = path[: len(path) if inside.all() else int(np.argmin(inside))]
    whole = np.rint((kept - low) / (high - low) * MOST).astype(int).ravel()
    return "".join(LETTERS[x // 64] + LETTERS[x % 64] for x in whole.tolist())


def decoded(text: str, function: Function) -> np.ndarray:
    """The path that the page draws for these letters."""
    digits = np.array([LETTERS.index(letter) for letter in text]).reshape(-1, 2, 2)
    low, high = bounds(function)
    return low + (digits[..., 0] * 64 + digits[..., 1]) / MOST * (high - low)


def contours(function: Function) -> list[str]:
    """The outlines of what is above each level, as SVG paths in a square of 1000."""
    import contourpy

    from .svg import smaller

    (left, right), (bottom, top) = function.frame
    x, y = np.linspace(left, right, 200), np.linspace(bottom, top, 200)
    plane = jnp.asarray(np.stack(np.meshgrid(x, y), -1))
    heights = np.asarray(jax.vmap(jax.vmap(function.loss))(plane), float)
    side = np.linspace(0, 1000, 200)
    lines = contourpy.contour_generator(side, side[::-1], heights)
    levels = heights.min() + (heights.max() - heights.min()) * np.linspace(0, 1, LEVELS + 2)[1:-1] ** 3
    found = []
    for level in levels:
        outlines = [np.asarray(line) for line in lines.lines(level) or ()]
        data = "".join("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in line) for line in outlines)
        found.append(smaller(f' d="{data}"')[4:-1])
    return found


def number(x: float) -> str:
    return f"{x:.3g}" if np.isfinite(x) else "not finite"


def data() -> dict[str, Any]:
    """What docs/_static/live.json holds."""
    functions = [
        {
            "name": function.name,
            "title": function.title,
            "frame": function.frame,
            "start": function.start,
            "loss": number(float(function.loss(jnp.asarray(function.start)))),
            "contours": contours(function),
        }
        for function in SHOWN
    ]
    optimizers = []
    for one in OPTIMIZERS:
        points = one.points()
        paths, ends = follow(one, points)
        optimizers.append(
            {
                "name": one.name,
                "numbers": [
                    {
                        "name": name,
                        "values": [f"{value:g}" for value in values],
                        "start": values.index(one.start[name]),
                    }
                    for name, values in one.values.items()
                ],
                "code": [repr(one.made(**point)) for point in points],
                "paths": [
                    [coded(path, function) for path in of_function]
                    for function, of_function in zip(SHOWN, paths, strict=True)
                ],
                "losses": [[number(float(end)) for end in of_function] for of_function in ends],
            }
        )
    return {
        "steps": STEPS,
        "letters": LETTERS,
        "most": MOST,
        "functions": functions,
        "optimizers": optimizers,
    }


def page() -> str:
    """docs/live.md."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "docs" / "_ext"))
    from reference import latex  # pyright: ignore[reportMissingImports]

    formulas = []
    for one in OPTIMIZERS:
        lines = latex.lines(gradtx.formula(one.made(**one.start)))
        equations = "\\\\[0.6em]\n".join(lines)
        formulas.append(
            f":::{{container}} live-formula live-{one.name}\n\n```{{math}}\n{equations}\n```\n\n:::\n"
        )
    return PAGE.replace("FORMULAS", "\n".join(formulas)).replace("STEPS", str(STEPS))


PAGE = r"""# Live: change the numbers

<!-- Written by `python -m tests.gallery`. -->

Choose an optimizer, and move its numbers: the path is what gradtx computed with them. Arrow keys move a
slider too.

<link rel="stylesheet" href="_static/live.css">
<div id="live" class="live" data-source="_static/live.json">
<p class="live-wait">The page needs JavaScript, and a server for its data: <code>python -m
http.server</code> in the
folder of the site is one.</p>
</div>
<script src="_static/live.js" defer></script>

## The formula

FORMULAS
$g_t$ is the gradient of step $t$, from 1, $\theta_{t-1}$ the parameters, and $u_t$ what is added to them.
$\eta$ is
`learning_rate`, $\beta_1$ and $\beta_2$ are `b1` and `b2`, $\varepsilon$ is `eps`, and $\lambda$ is
`weight_decay`.
The formulas are read from the code by `gradtx.formula`.

## What is shown

The page computes no step. `python -m tests.gallery` ran each optimizer for STEPS steps with each
combination of the
numbers on the sliders, by `jax.vmap` over the hyperparameters in its state, and wrote the paths down; the
page looks
one up and draws it. The functions are those of the [gallery](gallery/index.md). A path that goes far out
of the picture is
not followed further, and the line below the picture says so. With `weight_decay` the loss that is
shown is still the function alone, so that a path may end beside its minimum.
"""


def text() -> str:
    return json.dumps(data(), separators=(",", ":")) + "\n"
