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
