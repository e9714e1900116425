"""The picture of one name: a path, a curve, an answer to gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import gradtx
from gradtx.inspect.style import COLOURS, SMALL, dress
from picture_settings import SOFT

from . import draw, schedules
from .functions import FUNCTIONS, STEPS
from .members import Member
from .paths import runs

SETTINGS = draw.SETTINGS | {"axes.labelsize": 8.5}
GREY = "#888888"
SHOWN = ("rosenbrock", "ravine")

SIGNALS = 60
"""The steps over which an answer to gradients is drawn."""


def made(call: str) -> Any:
    return eval(call, dict(vars(gradtx)))


def path(member: Member) -> str:
    """Its path on two of the functions of the gallery."""
    shown = [run for run in runs(member) if run.function.name in SHOWN]
    with matplotlib.rc_context(SETTINGS):
        figure = draw.sheet("", (7.4, 2.9))
        for ax, run in zip(figure.subplots(1, 2), shown, strict=True):
            draw.panel(ax, {member.label: run}, contours=7, size=SMALL)
        left, right = (f"`{member.code(run.rate)}`" for run in shown)
        codes = left if left == right else f"{left} on the left and {right} on the right"
        words = f"{codes}: {STEPS} steps from the white circle, a dot after each {draw.DOT_EVERY}"
        if member.chosen:
            words += "; the rates are the best of a grid"
        return draw.text(figure, f"The path of {member.name} on two functions", f"{words}.")


def schedule(call: str) -> str:
    name = schedules.name(call)
    with matplotlib.rc_context(SETTINGS):
        figure = draw.sheet("", (7.4, 2.3))
        ax = figure.subplots()
        gradtx.plot_schedule({name: made(call)}, schedules.STEPS, ax=ax)
        ax.set(title="", ylim=(-0.004, 0.108))
        ax.set_title("", loc="left")
        return draw.text(figure, f"The values of {name} over the steps", f"`{call}`")


def signals() -> dict[str, np.ndarray]:
    """Gradients of one number over the steps, by what they are."""
    steps = np.arange(SIGNALS)
    return {
        "1, then 0": np.where(steps < SIGNALS // 2, 1.0, 0.0),
        "1 and -1 in turns": np.where(steps % 2, -1.0, 1.0),
        "1, and once 5": np.where(steps == SIGNALS // 2, 5.0, 1.0),
    }


LENGTHS = (SIGNALS, SIGNALS // 3, SIGNALS)
"""How much of each is drawn: many turns beside each other are a smear."""


def answers(call: str) -> np.ndarray:
    """The updates that a transform makes of each of the signals, with a parameter that is 1."""
    tx, param = made(call), jnp.ones(1)

    def follow(signal: jax.Array) -> jax.Array:
        def step(state: Any, gradient: jax.Array) -> Any:
            update, state = tx.update(gradient, state, param)
            return state, update[0]

        return jax.lax.scan(step, tx.init(param), signal[:, None])[1]

    return np.asarray(jax.jit(jax.vmap(follow))(jnp.asarray([*signals().values()], jnp.float32)))


def over_time(call: str) -> str:
    with matplotlib.rc_context(SETTINGS):
        figure = draw.sheet("", (7.4, 2.3))
        panels = figure.subplots(1, 3)
        for ax, (what, gradients), updates, length in zip(
            panels, signals().items(), answers(call), LENGTHS, strict=True
        ):
            steps = np.arange(1, length + 1)
            ax.plot(steps, gradients[:length], color=SOFT, linewidth=1, label="gradients")
            ax.plot(steps, updates[:length], color=COLOURS[0], linewidth=1.8, label="updates")
            _dressed(ax, f"gradients: {what}", "step")
        panels[0].legend(fontsize=8, frameon=False)
        return draw.text(
            figure,
            f"The updates of {named(call)} for three sequences of gradients",
            f"What `{call}` makes of the gradients of one number.",
        )


def _dressed(ax: Any, title: str, x: str, y: str = "") -> None:
    dress(ax, title, x, y)
    ax.set_title(title, loc="left", fontsize=SMALL, fontweight="bold")
    ax.grid(visible=True, color=GREY, alpha=0.25, linewidth=0.6)


def alike(call: str) -> str:
    """What a transform makes of gradients, which is the same at each step, where all parameters are 1."""
    tx = made(call)

    @jax.jit
    @jax.vmap
    def update(gradient: jax.Array) -> jax.Array:
        params = jnp.ones_like(gradient)
        return tx.update(gradient, tx.init(params), params)[0]

    numbers = np.linspace(-3, 3, 121, dtype=np.float32)[:, None]
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    around = np.stack([np.cos(turns), np.sin(turns)], -1).astype(np.float32)
    with matplotlib.rc_context(SETTINGS):
        figure = draw.sheet("", (7.4, 2.7))
        line, plane = figure.subplots(1, 2)
        line.plot(numbers, numbers, color=SOFT, linewidth=1, label="as it comes")
        line.plot(numbers, update(numbers), color=COLOURS[0], linewidth=1.8, label="update")
        line.legend(fontsize=8, frameon=False)
        _dressed(line, "one number", "gradient", "update")
        for length, colour in zip((0.5, 1.2, 2.0), COLOURS, strict=False):
            before, after = length * around, np.asarray(update(length * around))
            ways = np.stack([before, after, np.full_like(after, np.nan)], 1).reshape(-1, 2)
            plane.plot(*ways.T, color=GREY, linewidth=0.6)
            plane.plot(*before.T, ".", color=colour, markersize=3)
            plane.plot(*after.T, "o", color=colour, markersize=4.5)
        plane.set_aspect("equal", adjustable="datalim")
        plane.locator_params(nbins=6)
        _dressed(plane, "two numbers", "first number", "second number")
        return draw.text(
            figure,
            f"What {named(call)} makes of gradients of one and of two numbers",
            f"What `{call}` makes of gradients of one number, and of two: from each gradient, a small dot, a "
            f"line leads to its update, a large one{PARAMETERS if _needs_params(tx) else ''}.",
        )


PARAMETERS = ". All parameters are 1"


def _needs_params(tx: Any) -> bool:
    """Whether updates are others, or none, where the parameters are others."""
    gradient = jnp.full(2, 2.0)
    try:
        made = [tx.update(gradient, tx.init(gradient), params)[0] for params in (gradient, None)]
    except ValueError:
        return True
    return not np.array_equal(*made)


ROWS, COLUMNS, REPEATED = 12, 8, 10


def a_matrix() -> np.ndarray:
    """A gradient of which some directions and some rows are much larger than others."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, COLUMNS)))[0] for n in (ROWS, COLUMNS))
    sizes = np.geomspace(1, 0.3, ROWS)[:, None]
    return (sizes * (left * np.geomspace(1, 0.02, COLUMNS) @ right.T)).astype(np.float32)


def matrix(call: str) -> str:
    tx, gradient = made(call), jnp.asarray(a_matrix())
    params = {"w": jnp.asarray(np.random.default_rng(1).normal(size=gradient.shape), jnp.float32)}

    def step(state: Any, _: Any) -> Any:
        update, state = tx.update({"w": gradient}, state, params)
        return state, update["w"]

    update = np.asarray(jax.jit(lambda: jax.lax.scan(step, tx.init(params), length=REPEATED)[1][-1])())
    with matplotlib.rc_context(SETTINGS):
        figure = draw.sheet("", (7.4, 2.5))
        values, rows = figure.subplots(1, 2)
        for shown, colour, label in ((gradient, SOFT, "gradient"), (update, COLOURS[0], "update")):
            sizes = np.linalg.svd(shown, compute_uv=False)
            values.plot(
                np.arange(1, COLUMNS + 1), sizes / sizes[0], "o-", color=colour, label=label, markersize=4
            )
            lengths = np.linalg.norm(shown, axis=1)
            rows.plot(np.arange(1, ROWS + 1), lengths / lengths.max(), "o-", color=colour, markersize=4)
        values.legend(fontsize=8, frameon=False)
        values.set(ylim=(-0.03, 1.06))
        rows.set(ylim=(-0.03, 1.06))
        _dressed(values, "singular values", "from the largest on", "share of the largest")
        _dressed(rows, "lengths of the rows", "row", "share of the longest")
        return draw.text(
            figure,
            f"The singular values and rows of an update of {named(call)}",
            f"What `{call}` makes of a gradient of {ROWS} x {COLUMNS} that comes {REPEATED} times.",
        )


def drawn_schedules() -> str:
    calls = (
        "warmup_cosine_decay_schedule(0.0, 0.1, 20, 200)",
        "exponential_decay(0.1, 50, 0.5)",
        "linear_schedule(0.1, 0.0, 200)",
    )
    with matplotlib.rc_context(SETTINGS):
        figure = draw.sheet("", (7.4, 3.2))
        gradtx.plot_schedule([made(call) for call in calls], 200, ax=figure.subplots())
        return draw.text(
            figure,
            "Three schedules over 200 steps, each with its name",
            f"`plot_schedule([{', '.join(calls)}], 200)`",
        )


def drawn_paths() -> str:
    """Rates on both sides of the bound of gradient descent in the ravine, which is 2/40."""
    ravine = next(function for function in FUNCTIONS if function.name == "ravine")
    calls = ("sgd(0.01)", "sgd(0.045)", "sgd(0.052)", "adam(0.1)")
    with matplotlib.rc_context(SETTINGS):
        figure = draw.sheet("", (7.4, 4.0))
        optimizers = {call: made(call) for call in calls}
        gradtx.plot_paths(ravine.loss, optimizers, ravine.start, 40, ax=figure.subplots())
        return draw.text(
            figure,
            "Four paths in a ravine, of which one diverges",
            f"Of {', '.join(f'`{call}`' for call in calls)} the third has too large a rate: it is cut at the "
            "frame, and its name says so.",
        )


def drawn_metrics() -> str:
    """A short run that is tracked: a regression in batches, with warmup and a clipped gradient."""
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, 0.1, 10, 80)
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(schedule))
    tx = gradtx.track(clipped, every=1)
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(80, 8, 4)), jnp.float32)
    targets = inputs @ jnp.asarray([1.0, -2.0, 0.5, 3.0])

    def step(carry: Any, batch: Any) -> Any:
        params, state = carry
        x, y = batch
        grads = jax.grad(lambda w: jnp.mean((x @ w - y) ** 2))(params)
        params, state = gradtx.apply_gradients(tx, grads, state, params)
        return (params, state), gradtx.metrics(state)

    start = jnp.full(4, 0.1)
    history = jax.lax.scan(step, (start, tx.init(start)), (inputs, targets))[1]
    with matplotlib.rc_context(SETTINGS):
        figure = draw.sheet("", (7.4, 5.2))
        names = ["learning_rate", "gradient_norm", "update_norm", "clip_fraction"]
        gradtx.plot_metrics(history, names, ax=figure.subplots())
        return draw.text(
            figure,
            "Metrics of a run, a panel for each quantity",
            "Four metrics of `track(chain(clip_by_global_norm(1.0), adam(schedule)))` over 80 steps of a "
            "regression in batches.",
        )


PLOTS = {
    "plot_schedule": drawn_schedules,
    "plot_paths": drawn_paths,
    "plot_metrics": drawn_metrics,
}


def named(call: str) -> str:
    return call.partition("(")[0]
