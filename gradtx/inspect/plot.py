"""Plots of schedules, of what was measured, and of the paths that optimizers take; they need matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.combine import checked
from gradtx.core.engine.transform import apply_gradients
from gradtx.core.numerics import number_dtype
from gradtx.core.spec.fields import as_number
from gradtx.core.spec.spec import show
from gradtx.inspect.schedules_over_run import sampled

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
        steps: the number of updates; the value of each is drawn, from 0 to `steps - 1`.
        ax: the matplotlib axes to draw on; by default new ones.
        **style: keyword arguments for matplotlib's `plot`.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not there.
        TypeError: what was given is no schedule, or cannot be traced.
        ValueError: `steps` is less than 1, or there are no schedules.

    Examples:
        >>> import gradtx
        >>> schedule = gradtx.warmup_cosine_decay_schedule(0.0, 3e-4, 100, 1000)
        >>> ax = gradtx.plot_schedule({"rate": schedule}, steps=1000)
        >>> [line.get_label() for line in ax.get_lines()]
        ['rate']
    """
    if steps < 1:
        raise ValueError(f"plot_schedule: steps must be at least 1, got {steps}.")
    # A line of more points than a screen has columns is slow to draw and looks the same.
    at = np.unique(np.linspace(0, steps - 1, min(steps, 2_000)).round().astype(np.int32))
    named = _by_name(schedules, lambda given: False)
    if not named:
        raise ValueError("plot_schedule: there are no schedules to draw.")
    drawn = {name: _values(name, schedule, at) for name, schedule in named.items()}
    on = _axes(ax)
    for name, values in drawn.items():
        on.plot(at, values, label=name, **style)
    on.set_xlabel("step")
    on.set_ylabel("value")
    on.legend()
    return on


def _by_name(given: Any, is_one: Callable[[Any], bool]) -> Mapping[str, Any]:
    """What to draw by its name; what has none goes by its code."""
    if isinstance(given, Mapping):
        return given
    several = given if isinstance(given, list | tuple) and not is_one(given) else [given]
    return {show(one): one for one in several}


def _values(name: str, schedule: Any, at: np.ndarray) -> np.ndarray:
    try:
        return sampled(as_number(f"plot_schedule: {name!r}", schedule), at)
    except jax.errors.ConcretizationTypeError as error:
        raise TypeError(
            f"plot_schedule: {name!r} cannot be traced, as every update does: it must decide with jnp.where, "
            f"not with `if`."
        ) from error


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
        TypeError: the history is another thing, or a metric is no number.
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
        arrays = {name: _numbers(name, values) for name, values in history.items()}
        steps = arrays.pop("step", None)
        return {
            name: (np.arange(len(values)) if steps is None else steps, values)
            for name, values in arrays.items()
        }
    found: dict[str, list[tuple[int, Any]]] = {}
    for pair in history:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[1], Mapping)):
            raise TypeError(
                f"plot_metrics: the history must have pairs (step, metrics), got {show(pair)}. Of metrics "
                f"alone, enumerate(history) makes such pairs."
            )
        step, metrics = pair
        for name, value in metrics.items():
            found.setdefault(name, []).append((step, value))
    return {
        name: (np.array([step for step, _ in pairs]), _numbers(name, [value for _, value in pairs]))
        for name, pairs in found.items()
    }


def _numbers(name: str, values: Any) -> np.ndarray:
    """The values of a metric over the run."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype == object:
        raise TypeError(
            f"plot_metrics: the metric {name!r} must be a number at each step, got {show(values)}."
        )
    return array


def plot_paths(
    loss: Callable[[jax.Array], jax.Array],
    optimizers: Any,
    start: Any,
    steps: int,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draws the contours of a loss of two parameters, and the path of each optimizer down it.

    Args:
        loss: a function of an array of two elements that gives a scalar.
        optimizers: a transform of any library, a list of them, or a dict of them by name. `update` gets
            `value`, `grad` and `value_fn`.
        start: the two parameters to start from.
        steps: the number of updates.
        ax: the matplotlib axes to draw on; by default new ones. Limits that they have are kept.

    Returns:
        The axes; its lines are the paths, each with `steps + 1` points. One that diverges says so in its
        label, and ends before the parameters or the loss are no longer finite.

    Raises:
        ImportError: matplotlib is not there.
        TypeError: there is no transform among the optimizers.
        ValueError: there are no optimizers, `start` has not two elements, or `steps` is less than 1.

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
    if isinstance(start, Mapping) or np.shape(start) != (2,):
        raise ValueError(f"plot_paths: start must be two numbers, got {show(start)}.")
    params = jnp.asarray(start, number_dtype())
    if steps < 1:
        raise ValueError(f"plot_paths: steps must be at least 1, got {steps}.")
    named = _by_name(optimizers, lambda given: hasattr(given, "update"))
    if not named:
        raise ValueError("plot_paths: there are no optimizers to draw.")
    paths = {name: _path(loss, checked("plot_paths", tx), params, steps) for name, tx in named.items()}
    on = _axes(ax)
    for name, path in paths.items():
        on.plot(*path.T, marker=".", label=name if len(path) > steps else f"{name} (diverged)")
    on.scatter(*params, color="black", zorder=3)
    grid = [np.linspace(low, high, 100) for low, high in (on.get_xlim(), on.get_ylim())]
    points = np.stack(np.meshgrid(*grid), -1).astype(params.dtype)
    heights = np.ma.masked_invalid(jax.vmap(jax.vmap(loss))(jnp.asarray(points)))
    if heights.count() and heights.min() < heights.max():
        on.contour(*grid, heights, levels=_levels(heights), colors="grey", linewidths=0.5, zorder=0)
    on.legend()
    return on


def _path(loss: Any, tx: Any, params: jax.Array, steps: int) -> np.ndarray:
    """The parameters before the first and after each update, as long as they and the loss are finite."""

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        new, state = apply_gradients(tx, grads, state, params, value=value, grad=grads, value_fn=loss)
        return (new, state), new

    def follow(carry: Any) -> Any:
        path = jnp.concatenate([params[None], jax.lax.scan(step, carry, length=steps)[1]])
        return path, jnp.isfinite(path).all(-1) & jnp.isfinite(jax.vmap(loss)(path))

    path, finite = map(np.asarray, jax.jit(follow)((params, tx.init(params))))
    return path if finite.all() else path[: np.argmin(finite)]


def _levels(heights: np.ma.MaskedArray) -> np.ndarray:
    """Levels of contours that are closer to each other near the least height."""
    low, high = float(heights.min()), float(heights.max())
    return low + (high - low) * np.linspace(0, 1, 22)[1:-1] ** 3
