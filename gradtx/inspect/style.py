"""How all pictures look: colours, axes, and the names of lines, which stand where they cover none.

It works on the axes that it is given, and imports nothing of matplotlib's.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

Axes = Any
"""A `matplotlib.axes.Axes`."""

COLOURS = ("#3e41d5", "#e07214", "#14a978", "#a865b3", "#682006", "#101127")
"""Six that are far apart also to people who see no red, no green or no blue, and on white can be read as
letters."""

WIDTHS = (2.2, 1.9, 1.6, 1.4, 1.2, 1.1)
"""A line over another one is the thinner, so that both are seen where they are the same."""

DASHES = ("-", "--", "-.", ":")
"""When the colours are used up, they come again with the next of these."""

PAD = 8
"""The pixels at 100 dots an inch that stay free around names."""

SMALL, TITLE = 9, 11
"""The sizes of names and titles in points."""

OURS = "gradtx"
"""The mark of what is made again when more is drawn on the same axes."""


def prepare(ax: Axes) -> None:
    """Gives the lines to come their looks, behind those that the axes have."""
    looks = [(*look, dash) for dash in DASHES for look in zip(COLOURS, WIDTHS, strict=True)]
    used = len(ax.get_lines()) % len(looks)
    colours, widths, dashes = zip(*looks[used:], *looks[:used], strict=True)
    ax.set_prop_cycle(color=colours, linewidth=widths, linestyle=dashes)


def dress(ax: Axes, title: str, x: str = "", y: str = "") -> None:
    """Gives the axes a title, if they have none of the user's, and says what their units are."""
    left = ax.set_title(ax.get_title("left"), loc="left")
    if left.get_gid() == OURS or not any(map(ax.get_title, ("left", "center", "right"))):
        left.set(text=_wrapped(ax, title, TITLE), gid=OURS, fontsize=TITLE, fontweight="bold")
    if x:
        ax.set_xlabel(x)
    if y:
        ax.set_ylabel(y)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def on_steps(ax: Axes) -> None:
    """An axis of whole steps from the first to the last that is drawn, unless the user made it otherwise."""
    drawn = [line.get_xdata() for line in ax.get_lines() if len(line.get_xdata())]
    first, last = (min(map(np.min, drawn)), max(map(np.max, drawn))) if drawn else (0, 1)
    if not (ax.get_autoscalex_on() and ax.get_xscale() == "linear"):
        return
    # This forgets the ticks of an earlier picture on the same axes.
    ax.set_xscale("linear")
    room = 0.02 * (last - first) or 0.5
    ax.set_xlim(first - room, last + room, auto=True)
    ax.grid(visible=True, color="#888888", alpha=0.25, linewidth=0.6)
    ax.locator_params(axis="x", integer=True, nbins=6)
    ax.xaxis.set_major_formatter("{x:,.0f}")


def on_values(ax: Axes, *, decades: bool = True, most: float | None = None, whole: bool = False) -> None:
    """An axis of values: logarithmic where all are positive and span decades, and else linear.

    A linear axis of values that are not negative begins at 0.

    Args:
        ax: the axes.
        decades: whether it may become logarithmic; otherwise the user's scale stays.
        most: where a linear axis ends, if that is known.
        whole: whether the values are whole numbers.
    """
    drawn = np.concatenate([[], *(np.asarray(line.get_ydata(), float) for line in ax.get_lines())])
    values = drawn[np.isfinite(drawn)]
    if not decades and ax.get_yscale() != "linear":
        return
    if decades and values.size and (values > 0).all() and values.max() > 100 * values.min():
        ax.set_yscale("log")
        return
    ax.set_yscale("linear")
    ax.locator_params(axis="y", min_n_ticks=1 if whole else 3, integer=whole)
    ax.yaxis.set_major_formatter(_formatter(float(np.abs(values).max()) if values.size else 1.0))
    if values.size and (values >= 0).all() and ax.get_autoscaley_on():
        top = (values.max() if most is None else most) or 1.0
        # A line along 0 would lie on the frame.
        ax.set_ylim(-0.03 * top, 1.06 * top, auto=True)


def _formatter(largest: float) -> Any:
    """Writes the numbers of an axis in full, so that no factor stands apart from them."""
    if not largest or 1e-3 <= largest < 1e6:
        return lambda x, _: f"{x:,.12g}" if abs(x) > 1e-12 * largest else "0"
    return lambda x, _: f"{x:.6g}" if not x else _power(x)


def _power(x: float) -> str:
    """A number as `2.5e-4`."""
    digits, _, power = f"{x:.6e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def name_lines(ax: Axes, name: Callable[[str], str] = str) -> None:
    """Writes the name of each line to its right end; above all lines, where the names are long.

    Of its label, `name` makes the name.

    Room is made inside of the axes, so that nothing is covered, on any figure; where the limits are the
    user's, there is a legend. A line alone has its name in the title.
    """
    for text in [text for text in ax.texts if text.get_gid() == OURS]:
        text.remove()
    if ax.get_legend() is not None and ax.get_legend().get_gid() == OURS:
        ax.get_legend().remove()
    lines = [line for line in ax.get_lines() if not line.get_label().startswith("_") and _end(line)]
    if len(lines) < 2:
        return
    if not (ax.get_autoscalex_on() and ax.get_autoscaley_on()):
        legend_of(ax, lines, "best", name)
        return
    texts = [_named(ax, line, name) for line in lines]
    boxes = [text.get_window_extent() for text in texts]
    pad = _pad(ax)
    width = max(box.width for box in boxes) + 3 * pad
    height = max(box.height for box in boxes) + 1
    if width > 0.4 * ax.bbox.width or height * len(lines) > ax.bbox.height:
        for text in texts:
            text.remove()
        _above(ax, lines, name)
        return
    _make_room(ax, width)
    # Each at the height of its line, but at least a line's height above the one below.
    ends = [ax.transData.transform(_end(line))[1] for line in lines]
    order = sorted(range(len(lines)), key=lambda i: ends[i])
    placed = _spread([ends[i] for i in order], height, ax.bbox.y0 + height / 2, ax.bbox.y1 - height / 2)
    points = 72 / ax.figure.dpi
    for i, y in zip(order, placed, strict=True):
        texts[i].set_position((1.6 * pad * points, (y - ends[i]) * points))


def _end(line: Any) -> tuple[float, float] | None:
    """The last point of a line."""
    points = np.asarray(line.get_xydata(), float)
    points = points[np.isfinite(points).all(-1)]
    return tuple(points[-1]) if len(points) else None


def _named(ax: Axes, line: Any, name: Callable[[str], str]) -> Any:
    """The name of a line, in its colour."""
    return ax.annotate(
        name(line.get_label()),
        _end(line),
        (0, 0),
        textcoords="offset points",
        color=line.get_color(),
        fontsize=SMALL,
        va="center",
        gid=OURS,
        annotation_clip=False,
    )


def _make_room(ax: Axes, width: float) -> None:
    """Widens the axes to the right, so that so many pixels are free behind the ends of the lines."""
    low, high = ax.get_xlim()
    last = max(end[0] for end in map(_end, ax.get_lines()) if end)
    free = (high - last) / (high - low) * ax.bbox.width
    if free >= width:
        return
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    ax.set_xlim(low, low + (last - low) * ax.bbox.width / (ax.bbox.width - width), auto=None)
    # There are no steps where the names are.
    ax.set_xticks(ticks)


def _spread(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Heights in order, as near to those wanted as they can be with a gap between them."""
    placed: list[float] = []
    for y in wanted:
        placed.append(max(y, placed[-1] + gap if placed else low))
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], placed[i + 1] - gap if i + 1 < len(placed) else high)
    return placed


def _above(ax: Axes, lines: list[Any], name: Callable[[str], str] = str) -> None:
    """A legend over the lines, for which the axes are made higher."""
    legend = legend_of(ax, lines, "upper left", name)
    needed = legend.get_window_extent().height + 2 * _pad(ax)
    if needed > 0.6 * ax.bbox.height:
        _outside(ax, legend)
        return
    scale, (low, high) = ax.yaxis.get_transform(), ax.get_ylim()
    tops = [np.nanmax(np.asarray(line.get_ydata(), float)) for line in lines]
    low, top, high = scale.transform([low, max(tops), high])
    high = max(high, low + (top - low) * ax.bbox.height / (ax.bbox.height - needed))
    ax.set_ylim(*scale.inverted().transform([low, high]), auto=None)


def place_legend(ax: Axes, movable: bool) -> None:
    """A legend in a corner where no line is; where there is none, above the lines, or beside the axes.

    Args:
        ax: the axes.
        movable: whether the axes may be made higher.
    """
    lines = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
    # A line is drawn with some width, and its end with a mark.
    for where in ("upper right", "upper left", "lower right", "lower left"):
        box = legend_of(ax, lines, where).get_window_extent().padded(_pad(ax))
        if not any(line.get_path().transformed(line.get_transform()).intersects_bbox(box) for line in lines):
            return
    if movable:
        _above(ax, lines)
    else:
        _outside(ax, ax.get_legend())


def _outside(ax: Axes, legend: Any) -> None:
    """Moves a legend to the right of the axes."""
    legend.set_loc("upper left")
    legend.set_bbox_to_anchor((1.02, 1), ax.transAxes)


def legend_of(ax: Axes, lines: list[Any], where: str, name: Callable[[str], str] = str) -> Any:
    """A legend; long names, as code is, go over several lines."""
    names = [_wrapped(ax, name(line.get_label()), SMALL) for line in lines]
    legend = ax.legend(lines, names, loc=where, fontsize=SMALL, framealpha=0.85, edgecolor="none")
    legend.set_gid(OURS)
    return legend


def _wrapped(ax: Axes, text: str, points: float) -> str:
    """A text in as many lines as it takes over the width of the axes."""
    # Letters are about 0.6 of their size wide; a legend has the sample of a line too.
    return "\n".join(textwrap.wrap(text, max(20, int(ax.bbox.width / ax.figure.dpi * 72 / points / 0.66))))


def _pad(ax: Axes) -> float:
    return PAD * ax.figure.dpi / 100
