"""The picture of a name, which `python -m tests.gallery` draws where there is something to see."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "gallery" / "symbols"


def figure(name: str, up: str) -> Iterator[str]:
    """The picture as Markdown, if there is one; what it shows, and the words below it, are written in it."""
    path = FOLDER / f"{name}.svg"
    if path.exists():
        svg = path.read_text(encoding="utf-8")
        title, words = (html.unescape(_said(svg, tag)) for tag in ("title", "desc"))
        yield f"```{{figure}} {up}gallery/symbols/{path.name}\n:alt: {title}\n\n{words}\n```\n"


def _said(svg: str, tag: str) -> str:
    return svg.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
