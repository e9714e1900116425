"""How the pictures look: colours that the colour-blind tell apart, and a name beside each line."""

from __future__ import annotations

import contextlib
import io
import pathlib
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from picture_settings import INK, SHEET, SOFT, light_and_dark

BLUE, VERMILION, GREEN = "#0072b2", "#c94f00", "#00805e"
"""In the order of use: the method that a claim praises is blue, the one beside it vermilion."""
FAINT = "#d1d9e0"
WIDTH, HEIGHT = 8.4, 3.5

SETTINGS = SHEET | {
    "svg.hashsalt": "why",
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titlepad": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


@contextlib.contextmanager
def applied() -> Iterator[None]:
    with matplotlib.rc_context(SETTINGS):
        yield


def panels(title: str, *titles: str, ratios: tuple[float, ...] | None = None) -> tuple[Figure, list[Axes]]:
    """A figure with the panels side by side; each title says what is seen."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1, wspace=0.06)  # type: ignore[union-attr]
    figure.suptitle(title, x=0.015, ha="left", fontsize=11.5, fontweight="bold")
    found = figure.subplots(1, len(titles), width_ratios=ratios, squeeze=False)[0]
    for axes, one in zip(found, titles, strict=True):
        axes.set_title(one, color=SOFT)
    return figure, list(found)


def band(axes: Axes, x: np.ndarray, runs: np.ndarray, colour: str, **style: Any) -> None:
    """The median of runs as a line, and their range as a band."""
    axes.fill_between(x, runs.min(0), runs.max(0), color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, np.median(runs, 0), color=colour, **style)


def name(
    axes: Axes, words: str, at: tuple[float, float], colour: str = INK, align: str = "left", **more: Any
) -> None:
    """Words at a place of the data, in the colour of the line that they name."""
    axes.annotate(
        words,
        at,
        color=colour,
        ha=align,
        fontweight="bold" if colour not in (INK, SOFT) else "normal",
        annotation_clip=False,
        **{"va": "center", "fontsize": 9} | more,
    )


def threads(axes: Axes, x: np.ndarray, runs: np.ndarray, colour: str, **style: Any) -> None:
    """The median of runs as a line, and each run as a thin one."""
    axes.plot(x, runs.T, color=colour, alpha=0.3, linewidth=0.7)
    axes.plot(x, np.median(runs, 0), color=colour, **style)


def logarithmic(axis: XAxis | YAxis, *at: float) -> None:
    """A logarithmic axis with ticks at these values, written as they are read."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(FixedLocator(at))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6f}".rstrip("0").rstrip(".")))
    axis.set_minor_locator(NullLocator())


def some(length: int, most: int = 300) -> np.ndarray:
    """Steps to draw, from 0: as many on each decade, each once."""
    return np.unique(np.geomspace(1, length, most).round().astype(int)) - 1


def save(figure: Figure, path: pathlib.Path) -> None:
    made = io.StringIO()
    figure.savefig(
        made, format="svg", metadata={"Title": figure.get_suptitle(), "Date": None, "Creator": None}
    )
    path.write_text(light_and_dark(made.getvalue()), encoding="utf-8")
