"""What all pictures of the documents have in common: words, colours, and how they look on a dark page."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np

INK, SOFT = "#1f2328", "#59636e"

SHEET: dict[Any, Any] = {
    # Text stays text, which is found, scaled and read aloud.
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    # A sheet of its own: also where a page is dark and the browser does not say so, all can be read.
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}
"""For `matplotlib.rc_context`; with a salt for the names in an SVG its bytes are the same each time."""

DARK = "#131416"
"""The sheet on a dark page, which is the colour of the page itself."""

PAINT = r"\b(fill|stroke): (#[0-9a-f]{6})\b"


def light_and_dark(svg: str, fixed: Collection[str] = ()) -> str:
    """The picture with a second set of colours, which a browser takes where the page is dark.

    As it was drawn it is for a light page, and so it looks in what knows no second set.

    Args:
        svg: the picture, as matplotlib writes it.
        fixed: the colours that stay, as those of words on a coloured ground do.
    """
    head, _, drawn = svg.partition("</style>")
    rules = []
    for name, look in re.findall(r"^\.(\w+)\{(.*)\}$", head, re.M):
        changed = [f"{paint}:{dark(c)}" for paint, c in re.findall(PAINT, look) if c not in fixed]
        rules += [f".{name}{{{';'.join(changed)}}}"] if changed else []
    for paint, colour in sorted(set(re.findall(PAINT, drawn))):
        if colour not in fixed:
            rules.append(f'[style*="{paint}: {colour}"]{{{paint}:{dark(colour)}!important}}')
    # Words that say no colour are black.
    rules.insert(0, f"text{{fill:{dark('#000000')}}}")
    return "\n".join(
        [f"{head.rstrip()}\n@media (prefers-color-scheme: dark) {{", *rules, "}", f"</style>{drawn}"]
    )


def dark(colour: str) -> str:
    """What a colour is on a dark page: greys change places, and others are lighter, each of its hue."""
    if colour == "#ffffff":
        return DARK
    lightness, a, b = _oklab(colour)
    share = min(np.hypot(a, b) / 0.04, 1.0)
    grey, light = 0.19 + 0.78 * (1 - lightness) ** 0.75, 1.05 - 0.6 * lightness
    made = (1 - share) * grey + share * light
    for strength in np.linspace(1, 0, 21):  # as colourful as a screen can show it
        rgb = _linear(made, a * strength, b * strength)
        if rgb.min() >= -1e-3 and rgb.max() <= 1 + 1e-3:
            break
    rgb = np.clip(rgb, 0, 1)
    shown = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * x):02x}" for x in shown)


_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def _oklab(colour: str) -> np.ndarray:
    """Lightness, and how red and how yellow, as eyes see it (Ottosson 2020, https://bottosson.github.io)."""
    shown = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    rgb = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    return _TO_LAB @ np.cbrt(_TO_CONES @ rgb)


def _linear(*lab: float) -> np.ndarray:
    return np.linalg.solve(_TO_CONES, np.linalg.solve(_TO_LAB, np.array(lab)) ** 3)
