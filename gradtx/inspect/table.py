"""Numbers and tables in plain text, for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 100


def size(count: int) -> str:
    """A number of bytes with its unit: `512 B`, `38.6 MiB`."""
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    # 1023.95 would round to 1024.0.
    while value >= 1023.95:
        value, unit = value / 1024, next(units)
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def filled(text: str, indent: str = "", hang: str = "    ") -> list[str]:
    """The lines of a text, the first after `indent`, the others `hang` deeper."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + hang,
        break_on_hyphens=False,
    )


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines: the first column to the left, the others to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]
