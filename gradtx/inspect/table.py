"""Sizes in plain text."""

from __future__ import annotations


def size(count: int) -> str:
    """A number of bytes with its unit: `512 B`, `38.6 MiB`."""
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    # 1023.95 would round to 1024.0.
    while value >= 1023.95:
        value, unit = value / 1024, next(units)
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
