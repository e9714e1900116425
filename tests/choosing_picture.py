"""Draws docs/tutorials/14-choosing-one.svg from what the page computes.

python tests/choosing_picture.py
"""

from __future__ import annotations

import doctest
import pathlib
import re
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from why import style

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "tutorials" / "14-choosing-one.md"


def computed() -> dict[str, Any]:
    """What the page has computed when it shows the picture."""
    text = PAGE.read_text().partition(f"({PAGE.stem}.svg)")[0]
    scope: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        for example in doctest.DocTestParser().get_examples(block):
            exec(example.source, scope)
    return scope


def draw(rates: np.ndarray, losses: dict[str, np.ndarray]) -> Figure:
    """A panel for each optimizer, with the others behind it; losses have an axis of rates, one of seeds."""
    figure = Figure(figsize=(style.WIDTH, 2.9), layout="constrained")
    figure.suptitle(
        "Each has a learning rate of its own", x=0.015, ha="left", fontsize=11.5, fontweight="bold"
    )
    panels = figure.subplots(1, len(losses), sharey=True)
    for axes, (name, each) in zip(panels, losses.items(), strict=True):
        style.logarithmic(axes.xaxis, 0.001, 0.01, 0.1)
        style.logarithmic(axes.yaxis, 0.1, 0.3, 1, 3)
        axes.set(title=name, ylim=(0.06, 3))
        for others in losses.values():
            axes.plot(rates, np.median(others, 1), color=style.FAINT, linewidth=1.2)
        style.band(axes, rates, each.T, style.BLUE, zorder=3)
        best = int(np.argmin(np.median(each, 1)))
        at = rates[best], np.median(each, 1)[best]
        axes.plot(*at, "o", color=style.BLUE, zorder=4)
        words = np.format_float_positional(rates[best])
        axes.annotate(words, at, (0, -9), textcoords="offset points", color=style.BLUE, ha="center", va="top")
    panels[0].set_ylabel("loss on unseen digits")
    figure.supxlabel("learning rate", fontsize=9, color=style.SOFT)
    return figure


def main() -> None:
    scope = computed()
    losses = {name: np.asarray(each) for name, each in scope["losses"].items()}
    with style.applied():
        style.save(draw(np.asarray(scope["rates"]), losses), PAGE.with_suffix(".svg"))


if __name__ == "__main__":
    main()
