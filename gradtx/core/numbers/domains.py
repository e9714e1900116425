"""Which values a number of a state may take."""

from __future__ import annotations

from gradtx.core.numbers.paths import Path
from gradtx.core.spec.fields import Domain

DOMAINS: dict[Path, Domain] = {}
"""The domain of each number that a program of this process has put into a state, by its path."""
