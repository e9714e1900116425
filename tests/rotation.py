"""Which entries of a catalogue meet which costly laws, unless all meet all with `--full`.

A costly law compiles programs of its own. It meets every feature of the engine in some entry, and the rest of
the entries take turns, so that a new entry costs one such pair and not as many as there are laws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import pytest


def rotation(features: Mapping[str, Set[str]], laws: Sequence[str]) -> dict[str, list[str]]:
    """The entries that each law meets; the same ones every time.

    Args:
        features: what each entry uses.
        laws: the costly laws.

    Returns:
        For each law: every entry whose turn it is, which is at one law of them all, and of the others as few
        as it takes to have each feature once. Which ones differs from law to law.
    """
    names = list(features)
    everything = frozenset().union(*features.values())
    result = {}
    for turn, law in enumerate(laws):
        chosen = [name for i, name in enumerate(names) if i % len(laws) == turn]
        start = turn * len(names) // len(laws)
        others = [name for name in names[start:] + names[:start] if name not in chosen]
        while missing := everything.difference(*(features[name] for name in chosen)):
            chosen.append(max(others, key=lambda name: len(features[name] & missing)))
        result[law] = sorted(chosen, key=names.index)
    return result


def one_of(n: int, cases: Iterable[Any]) -> list[Any]:
    """The cases of a test, each n-th for what CI runs and the others for `--full`."""
    return [pytest.param(case, marks=() if i % n == 0 else pytest.mark.full) for i, case in enumerate(cases)]
