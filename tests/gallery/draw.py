"""The pictures: paths on every function, with one panel each, and every schedule."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import gradtx
from gradtx.inspect.plot import Path, draw_paths
from picture_settings import SHEET, light_and_dark

from . import schedules
from .functions import FUNCTIONS, STEPS
from .members import Member
from .paths import Run, runs
from .svg import described, smaller

SETTINGS = SHEET | {"svg.hashsalt": "gallery", "xtick.labelsize": 8, "ytick.labelsize": 8}
DOT_EVERY = 10
"""The steps from dot to dot."""


def paths(title: str, members: Sequence[Member]) -> str:
    """A panel for each function with the path of each optimizer, and their names in the sixth."""
    with matplotlib.rc_context(SETTINGS):
        figure = sheet(title, (9.6, 6.4))
        panels = figure.subplots(2, 3).ravel()
        handles: list[Any] = []
        for k, ax in zip(range(len(FUNCTIONS)), panels, strict=False):
            panel(ax, {member.label: runs(member)[k] for member in members})
            handles = ax.get_lines()
        # The last panel names the lines, which have the same colours in all.
        panels[-1].set_axis_off()
        panels[-1].legend(
            handles,
            [member.label for member in members],
            loc="center left",
            fontsize=11,
            frameon=False,
            title=f"{STEPS} steps, a dot after each {DOT_EVERY}",
            title_fontsize=9,
            alignment="left",
            labelspacing=0.8,
        )
        return text(figure)


def panel(ax: Any, shown: Mapping[str, Run], contours: int = 20, size: float = 10.5) -> None:
    """One of many panels: few words, and what is to be said of a path that leaves, in its colour."""
    function = next(iter(shown.values())).function
    ax.set(xlim=function.frame[0], ylim=function.frame[1])
    recorded = {name: Path.of(run.path, run.losses) for name, run in shown.items()}
    draw_paths(ax, function.loss, recorded, np.asarray(function.start, np.float32), STEPS, contours)
    legend = ax.get_legend()
    if legend is not None:
        legend.remove()
    ax.set_title(function.title, loc="left", fontsize=size, fontweight="bold")
    ax.set(xlabel="", ylabel="")
    ax.locator_params(nbins=5)
    # The edges of the shades are the contours; drawn once, they take a third less.
    shades, *lines = [each for each in ax.collections if hasattr(each, "levels")]
    for each in lines:
        each.remove()
    shades.set(edgecolor="#888888", linewidth=0.35)
    said = 0
    for line, name in zip(ax.get_lines(), shown, strict=True):
        line.set_markevery(DOT_EVERY)
        fate = line.get_label().removeprefix(name).strip(" ()")
        if fate:
            where = (0.98, 0.03 + 0.065 * said)
            ax.text(
                *where,
                f"{name} {fate}",
                transform=ax.transAxes,
                ha="right",
                fontsize=8,
                color=line.get_color(),
                bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
                zorder=5,
            )
            said += 1


def diverging() -> str:
    """Rates on both sides of the bound of gradient descent in the ravine, which is 2/40."""
    function = next(function for function in FUNCTIONS if function.name == "ravine")
    with matplotlib.rc_context(SETTINGS):
        figure = sheet("One rate too large", (8.4, 4.2))
        ax = figure.subplots()
        ax.set(xlim=function.frame[0], ylim=function.frame[1])
        rates: Mapping[str, Any] = {f"sgd({rate})": gradtx.sgd(rate) for rate in (0.01, 0.045, 0.052)}
        gradtx.plot_paths(function.loss, rates, function.start, 60, ax=ax)
        ax.set_title("Gradient descent in the ravine, 60 steps", loc="left", fontsize=10.5, fontweight="bold")
        return text(figure)


def every_schedule() -> str:
    with matplotlib.rc_context(SETTINGS):
        figure = sheet(f"Every schedule, over {schedules.STEPS} steps", (9.6, 11.5))
        panels = figure.subplots((len(schedules.CALLS) + 2) // 3, 3).ravel()
        for call, ax in zip(schedules.CALLS, panels, strict=False):
            gradtx.plot_schedule({schedules.name(call): schedules.made(call)}, schedules.STEPS, ax=ax)
            ax.set_title(schedules.name(call), loc="left", fontsize=9, fontweight="bold")
            ax.set(xlabel="", ylabel="", ylim=(-0.004, 0.108))
        for ax in panels[len(schedules.CALLS) :]:
            ax.set_axis_off()
        return text(figure)


def sheet(title: str, size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr]
    figure.suptitle(title, x=0.012, ha="left", fontsize=12.5, fontweight="bold")
    return figure


def text(figure: Figure, title: str = "", words: str = "") -> str:
    """The picture as SVG, with its title and words about it, which whoever shows it can read there."""
    buffer = io.StringIO()
    title = title or figure.get_suptitle()
    figure.savefig(buffer, format="svg", metadata={"Title": title, "Date": None, "Creator": None})
    return light_and_dark(smaller(described(buffer.getvalue(), words or title)))


def save(svg: str, path: pathlib.Path) -> None:
    path.write_text(svg, encoding="utf-8")
