"""The picture: how many times as many steps as the base each contestant takes on each problem."""

from __future__ import annotations

import io
import math
import pathlib
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from picture_settings import SHEET, light_and_dark

from .contestants import BASE
from .page import Results, compared, means
from .problems import Problem

EDGES = [0.25, 0.4, 0.6, 0.8, 0.95, 1.05, 1.25, 1.7, 2.5, 4]
"""Where the color of a ratio changes."""
ON_PALE, ON_DEEP = "#0a0a0a", "#fafafa"
"""What is written on a cell, which has its colour also on a dark page."""
LINE, TOP, BOTTOM = 0.19, 0.35, 0.6
"""Heights in inches: of a row, and of what is written above and below all."""


def draw(results: Results, problems: Mapping[str, Problem], path: pathlib.Path) -> None:
    with matplotlib.rc_context(SHEET | {"svg.hashsalt": "board"}):
        _draw(results, problems, path)


def _draw(results: Results, problems: Mapping[str, Problem], path: pathlib.Path) -> None:
    comparisons = {name: compared(of, problems[name]) for name, of in results.items()}
    order = means(comparisons)
    columns = [*comparisons, "all"]
    ratios = np.array([[*(rows[name].ratio for rows in comparisons.values()), order[name]] for name in order])
    height = TOP + LINE * len(order) + BOTTOM
    figure = Figure(figsize=(9, height))
    axes = figure.add_axes((0.2, BOTTOM / height, 0.78, LINE * len(order) / height))
    reached = np.array(
        [[*(math.isfinite(rows[name].median) for rows in comparisons.values()), True] for name in order]
    )
    clipped = np.ma.masked_where(~reached, np.clip(ratios, EDGES[0], EDGES[-1] - 1e-6))
    colors = matplotlib.colormaps["RdBu_r"].with_extremes(bad="0.8")
    axes.imshow(clipped, cmap=colors, norm=BoundaryNorm(EDGES, 256), aspect="auto", interpolation="nearest")
    for x, column in enumerate(columns):
        for y, name in enumerate(order):
            row = comparisons[column][name] if column in comparisons else None
            axes.annotate(
                f"{ratios[y, x]:.2f}" if reached[y, x] else "-",
                (x, y),
                ha="center",
                va="center_baseline",
                fontsize=7,
                color=ON_PALE if EDGES[1] <= ratios[y, x] < EDGES[-2] or not reached[y, x] else ON_DEEP,
                fontweight="bold" if row is not None and row.verdict else "normal",
            )
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(order)), list(order), fontsize=8)
    axes.get_yticklabels()[list(order).index(BASE)].set_fontweight("bold")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(
        f"steps to the target as a multiple of {BASE}'s, all tuned alike; blue is faster\n"
        "bold: by more than luck on that problem; -: fewer than half of the seeds reached it",
        fontsize=8,
    )
    made = io.StringIO()
    figure.savefig(made, format="svg", metadata={"Date": None})
    path.write_text(light_and_dark(made.getvalue(), fixed=(ON_PALE, ON_DEEP)), encoding="utf-8")
