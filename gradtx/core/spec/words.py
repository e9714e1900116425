"""Numbers and lists of leaves in words, for errors and reports."""

from __future__ import annotations

from collections.abc import Sequence


def named(path: str) -> str:
    """The path of a leaf; a tree that is one leaf has none."""
    return path or "the whole tree"


def some(paths: Sequence[str], most: int = 3) -> str:
    """The first few paths of leaves, and how many more there are."""
    rest = len(paths) - most
    return ", ".join(map(named, paths[:most])) + (f" and {rest:,} more" if rest > 0 else "")


def count(number: int, one: str, many: str = "") -> str:
    """A number of things: `1 leaf`, `1,200 leaves`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(count: int) -> str:
    """A number of bytes with its unit: `512 B`, `38.6 MiB`."""
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    # 1023.95 would round to 1024.0.
    while value >= 1023.95:
        value, unit = value / 1024, next(units)
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
