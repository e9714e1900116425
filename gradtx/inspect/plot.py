"""Plots of schedules, of what was measured, and of the paths that optimizers take; they need matplotlib."""

from __future__ import annotations

import dataclasses
import functools
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
from gradtx.core.spec.words import count
from gradtx.inspect.schedules_over_run import sampled
from gradtx.inspect.style import SMALL, Axes, dress, name_lines, on_steps, on_values, place_legend, prepare

History = Mapping[str, Any] | Iterable[tuple[int, Mapping[str, Any]]]
"""Metrics over a run."""


def _axes(ax: Axes | None, height: float = 4.0) -> Axes:
    """The axes to draw on: those given, or new ones, on a figure of some height in inches."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install 'gradtx[plot]'.") from error
    return plt.subplots(figsize=(6.4, height), layout="constrained")[1]


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
    prepare(on)
    for name, values in drawn.items():
        on.plot(at, values, label=name, **style)
    on_steps(on)
    on_values(on, decades=False)
    names = [line.get_label() for line in on.get_lines()]
    title = f"{count(len(names), 'schedule')} over {count(steps, 'step')}" if len(names) > 1 else names[0]
    dress(on, title, "step", "value")
    name_lines(on)
    return on


def _by_name(given: Any, is_one: Callable[[Any], bool]) -> Mapping[str, Any]:
    """What to draw by its name; what has none goes by its code."""
    if isinstance(given, Mapping):
        return given
    several = given if isinstance(given, list | tuple) and not is_one(given) else [given]
    return {show(one): one for one in several}


def _values(name: str, schedule: Any, at: np.ndarray) -> np.ndarray:
    try:
        return sampled(as_number(f"plot_schedule: {name}", schedule), at)
    except jax.errors.ConcretizationTypeError as error:
        raise TypeError(
            f"plot_schedule: {name} cannot be traced, as every update does: it must decide with jnp.where, "
            f"not with `if`."
        ) from error


def plot_metrics(
    history: History, names: Sequence[str] | None = None, *, ax: Axes | None = None, **style: Any
) -> Axes:
    """Draws what `gradtx.metrics` gave over a run.

    Each quantity has a panel of its own below the others, where its parts stand together, as the learning
    rates of several transforms. Its scale is logarithmic where all values are positive and go over more than
    two decades, and else linear.

    Args:
        history: pairs `(step, gradtx.metrics(state))`; or a dict of arrays by name, in which `step` may be
            the steps. A metric that is missing at a step is not drawn there.
        names: which metrics to draw; by default all but `measured_at`.
        ax: the matplotlib axes to draw on; by default new ones.
        **style: keyword arguments for matplotlib's `plot`.

    Returns:
        The axes. Where there are several quantities, the panels are its `child_axes`, from above; a call
        with the same axes draws into the same panels.

    Raises:
        ImportError: matplotlib is not there.
        KeyError: a name is not in the history.
        TypeError: the history is another thing, or a metric is no number.
        ValueError: there is nothing to draw, or the axes have panels of other quantities.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.track(gradtx.sgd(0.1), every=1), jnp.ones(2)
        >>> state, history = tx.init(params), []
        >>> for step in range(3):
        ...     params, state = gradtx.apply_gradients(tx, params, state, params)
        ...     history.append((step, gradtx.metrics(state)))
        >>> ax = gradtx.plot_metrics(history, ["gradient_norm", "update_ratio"])
        >>> [panel.get_title("left") for panel in ax.child_axes]
        ['gradient_norm', 'update_ratio']
    """
    series = _series(history)
    wanted = [name for name in series if name != "measured_at"] if names is None else names
    for name in wanted:
        if name not in series:
            raise KeyError(f"plot_metrics: there is no metric {name!r}. There are {', '.join(series)}.")
    if not wanted:
        raise ValueError("plot_metrics: the history has no metrics; wrap the optimizer in gradtx.track.")
    together: dict[str, list[str]] = {}
    for name in wanted:
        together.setdefault(_quantity(name), []).append(name)
    on = _axes(ax, height=max(4.0, 0.5 + 1.4 * len(together)))
    panels = _panels(on, [*together])
    for (quantity, names), panel in zip(together.items(), panels, strict=True):
        prepare(panel)
        for name in names:
            panel.plot(*series[name], label=name, **style)
        on_steps(panel)
        most = 1.0 if quantity == "clip_fraction" else None
        on_values(panel, most=most, whole=quantity == "skipped")
        dress(panel, names[0] if len(names) == 1 else quantity, y=UNITS.get(quantity, ""))
    # The panels have one axis of steps, on which there must be room for the names in all of them.
    for quantity, panel in zip(together, panels, strict=True):
        name_lines(panel, functools.partial(_part, quantity))
    lowest = on.child_axes[-1] if on.child_axes else on
    lowest.set_xlabel("step")
    return on


UNITS = {
    "gradient_norm": "||g||",
    "update_norm": "||u||",
    "parameter_norm": "||θ||",
    "update_ratio": "||u|| / ||θ||",
    "clip_fraction": "share of updates",
    "skipped": "steps",
}
"""What is on the axis of each quantity that `track` and the guards give, if its name does not say it."""


def _quantity(name: str) -> str:
    """What a metric measures, without the part of the tree or the place that it is of."""
    known = [part for part in name.split("/") if part in UNITS or part == "learning_rate"]
    return known[0] if known else name


def _part(quantity: str, name: str) -> str:
    """What a metric is of, where the quantity is in the title."""
    return name.replace(quantity, "").strip("/") or "the whole tree"


def _panels(on: Axes, quantities: list[str]) -> list[Axes]:
    """The axes of each quantity inside of `on`, below each other; of a single one `on` itself."""
    there = {panel.get_gid(): panel for panel in on.child_axes}
    if len(quantities) == 1 and not there:
        return [on]
    if not there and not on.get_lines():
        on.set_axis_off()
        # Of its height a panel has two parts, and its title and the space above it one.
        height = 2 / (3 * len(quantities))
        for i, quantity in enumerate(quantities):
            there[quantity] = on.inset_axes((0, (len(quantities) - 1 - i) * 1.5 * height, 1, height))
            there[quantity].set_gid(quantity)
            if i:
                there[quantity].sharex(there[quantities[0]])
            if i + 1 < len(quantities):
                there[quantity].tick_params(labelbottom=False)
    if not {*quantities} <= {*there}:
        other = ", ".join(there) or "lines"
        raise ValueError(f"plot_metrics: these axes have {other} already; give it others to draw on.")
    return [there[quantity] for quantity in quantities]


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
        The axes; its lines are the paths, each with `steps + 1` points. They set the frame, but for those
        that diverge: such a path ends at the frame, or where the parameters or the loss are no longer finite,
        and says so in its label. So does one that leaves a frame that was given.

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
    on = _axes(ax, height=4.8)
    draw_paths(on, loss, paths, np.asarray(params), steps)
    return on


def draw_paths(
    on: Axes,
    loss: Callable[[jax.Array], jax.Array],
    paths: Mapping[str, Path],
    start: np.ndarray,
    steps: int,
    contours: int = 20,
) -> None:
    """Draws what `plot_paths` draws, of paths that are known."""
    own = on.get_autoscalex_on() and on.get_autoscaley_on()
    if own:
        limits = _frame([*paths.values()], start)
        on.set(xlim=limits[:, 0], ylim=limits[:, 1])
    prepare(on)
    for name, path in paths.items():
        points, fate = path.within(np.array([on.get_xlim(), on.get_ylim()]).T)
        (line,) = on.plot(*points.T, marker=".", markersize=4, label=f"{name} ({fate})" if fate else name)
        end = {"marker": "X", "s": 70} if fate else {"marker": "o", "s": 45}
        on.scatter(*points[-1:].T, color=line.get_color(), zorder=3, clip_on=False, **end)
    _mark_start(on, start, [path.points for path in paths.values()])
    dress(
        on, f"{count(len(paths), 'path')} over {count(steps, 'step')}", "first parameter", "second parameter"
    )
    place_legend(on, movable=own)
    _draw_contours(on, loss, start.dtype, contours)


@dataclasses.dataclass(frozen=True)
class Path:
    """A path as long as the parameters and the loss are finite, and whether it ends higher than it began."""

    points: np.ndarray
    finite: bool
    ascended: bool

    @classmethod
    def of(cls, points: np.ndarray, losses: np.ndarray) -> Path:
        """The path through all points, of which some may not be finite."""
        finite = np.isfinite(points).all(-1) & np.isfinite(losses)
        known = len(points) if finite.all() else int(np.argmin(finite))
        return cls(points[:known], known == len(points), bool(losses[-1] > losses[0]))

    @property
    def diverged(self) -> bool:
        return self.ascended or not self.finite

    def within(self, limits: np.ndarray) -> tuple[np.ndarray, str]:
        """Its points up to where it leaves the frame for good, and what is to be said of it, if anything."""
        low, high = limits.min(0), limits.max(0)
        inside = ((self.points >= low) & (self.points <= high)).all(-1)
        fate = "diverged" if self.diverged else "leaves the picture"
        if not len(self.points) or inside[-1] or not inside.any():
            return self.points, "" if self.finite and len(inside) and inside[-1] else fate
        last = int(np.flatnonzero(inside)[-1])
        step = self.points[last + 1] - self.points[last]
        # How much of the step that leaves the frame is inside, by each of the two parameters.
        room = np.where(step > 0, high - self.points[last], self.points[last] - low)
        shares = np.divide(room, np.abs(step), out=np.ones(2), where=step != 0)
        end = self.points[last] + step * min(shares.min(), 1.0)
        return np.concatenate([self.points[: last + 1], np.clip(end, low, high)[None]]), fate


def _frame(paths: list[Path], start: np.ndarray) -> np.ndarray:
    """The least and the largest of both parameters: around the paths that do not diverge.

    Where all do, the nearer half of each is what can be seen of it.
    """
    kept = [path.points for path in paths if not path.diverged]
    if not kept:
        for path in paths:
            far = np.linalg.norm(path.points - start, axis=-1)
            kept.append(path.points[far <= np.median(far)] if len(far) else path.points)
    points = np.concatenate([start[None], *kept]).astype(np.float64)
    low, high = points.min(0), points.max(0)
    # Contours of a valley need some width to be seen, also of a path straight along it.
    size = np.maximum(high - low, 0.5 * (high - low).max() or 1.0)
    middle = (low + high) / 2
    return np.stack([middle - 0.6 * size, middle + 0.6 * size])


def _mark_start(on: Axes, start: np.ndarray, paths: list[np.ndarray]) -> None:
    """Marks where the paths start, with the word on the side to which none of them goes."""
    on.scatter(*start, facecolor="white", edgecolor="black", s=45, zorder=4)
    away = -np.sum([np.sign(path[1] - start) for path in paths if len(path) > 1] or [[0, -1]], 0)
    place = {-1: "right", 0: "center", 1: "left"}[int(np.sign(away[0]))]
    above = {-1: "top", 0: "center", 1: "bottom"}[int(np.sign(away[1]))]
    text = on.annotate(
        "start", start, 6 * np.sign(away), textcoords="offset points", fontsize=SMALL, zorder=4
    )
    text.set(horizontalalignment=place, verticalalignment=above)


def _draw_contours(on: Axes, loss: Any, dtype: Any, number: int) -> None:
    """The loss over the frame: the lower the lighter."""
    grid = [np.linspace(low, high, 200) for low, high in (on.get_xlim(), on.get_ylim())]
    points = np.stack(np.meshgrid(*grid), -1).astype(dtype)
    heights = np.ma.masked_invalid(jax.vmap(jax.vmap(loss))(jnp.asarray(points)))
    if not heights.count() or heights.min() == heights.max():
        return
    levels = _levels(heights, number)
    shades = [float(heights.min()), *levels, float(heights.max())]
    on.contourf(*grid, heights, levels=shades, cmap="Greys", alpha=0.35, zorder=0)
    on.contour(*grid, heights, levels=levels, colors="#888888", linewidths=0.5, linestyles="-", zorder=0)


def _path(loss: Any, tx: Any, params: jax.Array, steps: int) -> Path:
    """The parameters before the first and after each update."""

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        new, state = apply_gradients(tx, grads, state, params, value=value, grad=grads, value_fn=loss)
        return (new, state), new

    def follow(carry: Any) -> Any:
        path = jnp.concatenate([params[None], jax.lax.scan(step, carry, length=steps)[1]])
        return path, jax.vmap(loss)(path)

    return Path.of(*map(np.asarray, jax.jit(follow)((params, tx.init(params)))))


def _levels(heights: np.ma.MaskedArray, number: int) -> np.ndarray:
    """Levels of contours that are closer to each other near the least height."""
    low, high = float(heights.min()), float(heights.max())
    return low + (high - low) * np.linspace(0, 1, number + 2)[1:-1] ** 3
