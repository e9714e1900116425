"""What all pictures of the documents have in common."""

from __future__ import annotations

from typing import Any

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
    # A white sheet: it is read on a white page and on a dark one.
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}
"""For `matplotlib.rc_context`; with a salt for the names in an SVG its bytes are the same each time."""
