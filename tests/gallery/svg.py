"""Makes a picture of matplotlib's small: points that a line does not need are left out, and digits too."""

from __future__ import annotations

import collections
import re
from xml.sax.saxutils import escape

import numpy as np

TOLERANCE, OF_AREAS = 0.1, 0.5
"""In points of the picture, how far a curve may be from the one that was drawn, and the edge of an area."""


LONG = r"(?<![\w#.])-?\d+\.\d{3,}"
"""A number with more digits than can be seen."""


def described(svg: str, words: str) -> str:
    """The picture with a description, in the place of matplotlib's own metadata."""
    return re.sub(r"<metadata>.*?</metadata>", f"<desc>{escape(words)}</desc>", svg, count=1, flags=re.S)


def smaller(svg: str) -> str:
    svg = re.sub(r' d="([^"]*)"', lambda found: f' d="{_path(found[1])}"', svg)
    # In tags alone: between them are words, as the code of an optimizer is.
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(LONG, lambda found: _number(float(found[0])), tag[0]), svg)
    svg = re.sub(r"<!--.*?-->\s*|<!DOCTYPE[^>]*>\s*", "", svg, flags=re.S)
    svg = _without_names(svg)
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)
    fonts = re.search(r"font-family: [^;]*; ", svg)
    if fonts:  # said once, for the whole picture
        svg = svg.replace(fonts[0], "").replace("<svg ", f'<svg style="{fonts[0].strip()}" ', 1)
    svg = re.sub(r"(?:<use [^>]*/>\s*)+", _shared, svg)
    svg = _with_classes(svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


def _with_classes(svg: str) -> str:
    """Looks that come again and again are said once, and go by a letter."""
    looks = collections.Counter(re.findall(r' style="([^"]*)"', svg))
    often = [look for look, times in looks.items() if times > 2]
    names = {look: f"{'abcdefghijklmnopqrstuvwxyz'[i % 26]}{i // 26 or ''}" for i, look in enumerate(often)}
    svg = re.sub(
        r' style="([^"]*)"', lambda look: f' class="{names[look[1]]}"' if look[1] in names else look[0], svg
    )
    rules = "".join(f"\n.{name}{{{look}}}" for look, name in names.items())
    return svg.replace("</style>", f"{rules}\n</style>", 1)


def _without_names(svg: str) -> str:
    """Without names that nothing refers to, and without groups that then say nothing."""
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    kept, groups = [], []
    for part in re.split(r"(</?g\b[^>]*>)", svg):
        if part.startswith("<g"):
            groups.append(part != "<g>")
        if not re.match(r"</?g\b", part) or (groups.pop() if part == "</g>" else groups[-1]):
            kept.append(part)
    return "".join(kept)


def _shared(found: re.Match[str]) -> str:
    """Marks of one look, which is said once for all of them."""
    looks = set(re.findall(r' style="[^"]*"', found[0]))
    if len(looks) > 1 or found[0].count("<use") < 2:
        return found[0]
    (look,) = looks or {""}
    return f"<g{look}>{found[0].replace(look, '') if look else found[0]}</g>\n"


def _number(x: float) -> str:
    return f"{x:.2f}".rstrip("0").rstrip(".")


def _path(data: str) -> str:
    """The data of a path of lines with fewer points; one with curves keeps all of them."""
    if re.search(r"[^MLz\d\s.e-]", data):
        return " ".join(data.split())
    made = []
    for part in data.split("M")[1:]:
        closed = part.rstrip().endswith("z")
        numbers = [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", part)]
        points = np.array(numbers).reshape(-1, 2)
        kept = points[_needed(points, OF_AREAS if closed else TOLERANCE)]
        # Whole tenths, each from the one before, which takes the fewest letters and adds up to no error.
        tenths = np.rint(kept * 10).astype(int)
        first, *rest = [tenths[0], *np.diff(tenths, axis=0)]
        steps = " ".join(f"{_tenths(x)} {_tenths(y)}" for x, y in rest if x or y)
        made.append(
            f"M{_tenths(first[0])} {_tenths(first[1])}{'l' if steps else ''}{steps}{'z' if closed else ''}"
        )
    return "".join(made).replace(" -", "-")


def _tenths(x: int) -> str:
    return f"{x / 10:.1f}".removesuffix(".0").replace("0.", ".", 1) if abs(x) < 10 else f"{x / 10:g}"


def _needed(points: np.ndarray, tolerance: float) -> np.ndarray:
    """Which points are farther than the tolerance from the line without them (Douglas and Peucker's way)."""
    keep = np.zeros(len(points), bool)
    keep[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        along = points[last] - points[first]
        between = points[first + 1 : last] - points[first]
        length = np.hypot(*along)
        far = (
            np.abs(along[0] * between[:, 1] - along[1] * between[:, 0]) / length
            if length
            else np.hypot(*between.T)
        )
        most = int(far.argmax())
        if far[most] > tolerance:
            middle = first + 1 + most
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return keep
