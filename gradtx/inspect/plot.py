"""Plots of schedules, of what was measured, and of the paths that optimizers take; they need matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.numerics import number_dtype
from gradtx.core.schedule import bind
from gradtx.core.spec import show
from gradtx.core.transform import apply_gradients

Axes = Any
"""A `matplotlib.axes.Axes`."""

History = Mapping[str, Any] | Iterable[tuple[int, Mapping[str, Any]]]
"""Metrics over a run."""


def _axes(ax: Axes | None) -> Axes:
    """The axes to draw on: those given, or new ones."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install 'gradtx[plot]'.") from error
    return plt.subplots()[1]


def plot_schedule(schedules: Any, steps: int, *, ax: Axes | None = None, **style: Any) -> Axes:
    """Draws schedules over the steps of a run.

    Args:
        schedules: a schedule, a list of them, or a dict of them by name. Any function of the step is one; a
            number is a constant.
        steps: the number of updates in the run; the value of each is drawn, from 0 to `steps - 1`.
        ax: the matplotlib axes to draw on; by default new ones.
        **style: keyword arguments for matplotlib's `plot`.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: `steps` is less than 1.

    Examples:
        >>> import gradtx
        >>> schedule = gradtx.warmup_cosine_decay_schedule(0.0, 3e-4, 100, 1000)
        >>> ax = gradtx.plot_schedule({"rate": schedule}, steps=1000)
        >>> [line.get_label() for line in ax.get_lines()]
        ['rate']
    """
    if steps < 1:
        raise ValueError(f"plot_schedule: steps must be at least 1, got {steps}.")
    if not isinstance(schedules, Mapping):
        several = list(schedules) if isinstance(schedules, list | tuple) else [schedules]
        schedules = {show(schedule): schedule for schedule in several}
    on = _axes(ax)
    # A line of more points than a screen has columns is slow to draw and looks the same.
    at = np.unique(np.linspace(0, steps - 1, min(steps, 2_000)).round().astype(np.int32))
    for name, schedule in schedules.items():
        on.plot(at, _values(schedule, at), label=name, **style)
    on.set_xlabel("step")
    on.set_ylabel("value")
    on.legend()
    return on


def _values(schedule: Any, at: np.ndarray) -> np.ndarray:
    value = bind(schedule)
    if not callable(value):
        return np.full(at.shape, np.asarray(value))
    return np.asarray(jax.lax.map(value, jnp.asarray(at)))


def plot_metrics(
    history: History, names: Sequence[str] | None = None, *, ax: Axes | None = None, **style: Any
) -> Axes:
    """Draws what `gradtx.metrics` gave over a run.

    The scale is logarithmic where values go over more than two decades; a value of 0 is then not drawn.

    Args:
        history: pairs `(step, gradtx.metrics(state))`; or a dict of arrays by name, in which `step` may be
            the steps. A metric that is missing at a step is not drawn there.
        names: which metrics to draw; by default all but `measured_at`.
        ax: the matplotlib axes to draw on; by default new ones.
        **style: keyword arguments for matplotlib's `plot`.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not there.
        KeyError: a name is not in the history.
        ValueError: there is nothing to draw.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.track(gradtx.sgd(0.1), every=1), jnp.ones(2)
        >>> state, history = tx.init(params), []
        >>> for step in range(3):
        ...     params, state = gradtx.apply_gradients(tx, params, state, params)
        ...     history.append((step, gradtx.metrics(state)))
        >>> ax = gradtx.plot_metrics(history, ["gradient_norm", "update_ratio"])
        >>> [line.get_label() for line in ax.get_lines()]
        ['gradient_norm', 'update_ratio']
    """
    series = _series(history)
    wanted = [name for name in series if name != "measured_at"] if names is None else names
    for name in wanted:
        if name not in series:
            raise KeyError(f"plot_metrics: there is no metric {name!r}. There are {', '.join(series)}.")
    if not wanted:
        raise ValueError("plot_metrics: the history has no metrics; wrap the optimizer in gradtx.track.")
    on = _axes(ax)
    for name in wanted:
        on.plot(*series[name], label=name, **style)
    if _spans_decades(np.concatenate([series[name][1] for name in wanted])):
        on.set_yscale("log", nonpositive="mask")
    on.set_xlabel("step")
    on.legend()
    return on


def _spans_decades(values: np.ndarray) -> bool:
    positive = values[values > 0]
    return bool(positive.size and (values >= 0).all() and positive.max() > 100 * positive.min())


def _series(history: Any) -> dict[str, Any]:
    """The steps and the values of each metric, in the order in which they come."""
    if isinstance(history, Mapping):
        arrays = {name: np.asarray(values) for name, values in history.items()}
        steps = arrays.pop("step", None)
        return {
            name: (np.arange(len(values)) if steps is None else steps, values)
            for name, values in arrays.items()
        }
    found: dict[str, list[tuple[int, Any]]] = {}
    for step, metrics in history:
        for name, value in metrics.items():
            found.setdefault(name, []).append((step, value))
    return {name: tuple(map(np.asarray, zip(*pairs, strict=True))) for name, pairs in found.items()}


def plot_paths(
    loss: Callable[[jax.Array], jax.Array],
    optimizers: Mapping[str, Any],
    start: Any,
    steps: int,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draws the contours of a loss of two parameters, and the path of each optimizer down it.

    Args:
        loss: a function of an array of two elements that gives a scalar.
        optimizers: transforms of any library by name. `update` gets `value`, `grad` and `value_fn`.
        start: the two parameters to start from.
        steps: the number of updates.
        ax: the matplotlib axes to draw on; by default new ones. Limits that they have are kept.

    Returns:
        The axes; its lines are the paths, each with `steps + 1` points.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: `start` has not two elements, or `steps` is less than 1.

    Examples:
        >>> import gradtx
        >>> ax = gradtx.plot_paths(
        ...     lambda p: p[0] ** 2 + 10 * p[1] ** 2,
        ...     {"sgd": gradtx.sgd(0.05), "adam": gradtx.adam(0.1)},
        ...     start=(2.0, 1.0),
        ...     steps=30,
        ... )
        >>> [line.get_label() for line in ax.get_lines()]
        ['sgd', 'adam']
    """
    params = jnp.asarray(start, number_dtype())
    if params.shape != (2,):
        raise ValueError(f"plot_paths: start must be two numbers, got shape {params.shape}.")
    if steps < 1:
        raise ValueError(f"plot_paths: steps must be at least 1, got {steps}.")
    on = _axes(ax)
    paths = {name: _path(loss, tx, params, steps) for name, tx in optimizers.items()}
    for name, path in paths.items():
        on.plot(*path.T, marker=".", label=name)
    on.scatter(*params, color="black", zorder=3)
    grid = [np.linspace(low, high, 100) for low, high in (on.get_xlim(), on.get_ylim())]
    points = np.stack(np.meshgrid(*grid), -1).astype(params.dtype)
    heights = np.asarray(jax.vmap(jax.vmap(loss))(jnp.asarray(points)))
    on.contour(*grid, heights, levels=_levels(heights), colors="grey", linewidths=0.5, zorder=0)
    on.legend()
    return on


def _path(loss: Any, tx: Any, params: jax.Array, steps: int) -> np.ndarray:
    """The parameters before the first and after each update."""

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        new, state = apply_gradients(tx, grads, state, params, value=value, grad=grads, value_fn=loss)
        return (new, state), new

    path = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[1])((params, tx.init(params)))
    return np.asarray(jnp.concatenate([params[None], path]))


def _levels(heights: np.ndarray) -> np.ndarray:
    """Levels of contours that are closer to each other near the least height."""
    finite = heights[np.isfinite(heights)]
    low, high = finite.min(), finite.max()
    return low + (high - low) * np.linspace(0, 1, 22)[1:-1] ** 3
