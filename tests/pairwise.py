"""A pairwise cover: few rows in which every two values of two dimensions meet."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Mapping, Sequence, Set

Row = tuple[str, ...]
Pair = tuple[int, str, int, str]


def cover(
    dimensions: Mapping[str, Sequence[str]],
    features: Mapping[str, Set[str]],
    possible: Callable[[Row], bool] = lambda row: True,
    covered: Callable[[Pair], bool] = lambda pair: False,
) -> list[Row]:
    """Rows that cover every pair of values; the same ones every time.

    The values of the first dimension meet the others through what they have in common: it is each feature of
    theirs that meets each other value, so that the number of rows grows with the features. Each value of the
    first dimension has a row of its own besides. A row takes, dimension after dimension, the value that
    completes the most pairs that are still open, and of those the one used least so far.

    Args:
        dimensions: the values of each dimension.
        features: what each value of the first dimension has.
        possible: whether the values of a row, or some of them, have a meaning together.
        covered: whether a pair is tested elsewhere.
    """
    values = list(dimensions.values())
    open_pairs = {pair for pair in wanted(dimensions, features, possible) if not covered(pair)}
    rows, used = [], collections.Counter()

    def add(fixed: dict[int, str]) -> None:
        chosen = dict(fixed)
        for i, choices in enumerate(values):
            if i not in fixed:
                able = [v for v in choices if possible((*chosen.values(), v))]
                gain = {v: len(pairs({**chosen, i: v}, features) & open_pairs) for v in able}
                chosen[i] = max(able, key=lambda v, gain=gain: (gain[v], -used[v]))
        row = tuple(chosen[i] for i in range(len(values)))
        open_pairs.difference_update(pairs(chosen, features))
        used.update(row)
        rows.append(row)

    for first in values[0]:
        add({0: first})
    for i, a, j, b in sorted(open_pairs):
        if (i, a, j, b) in open_pairs:
            with_it = [v for v in values[0] if a in features[v] and possible((v, b))] if i == 0 else [a]
            add({i: min(with_it, key=used.__getitem__), j: b})
    return rows


def pairs(row: Mapping[int, str], features: Mapping[str, Set[str]]) -> set[Pair]:
    """The pairs that meet in a row, which has values at some dimensions."""
    return {
        (i, one, j, b)
        for (i, a), (j, b) in itertools.combinations(sorted(row.items()), 2)
        for one in (features[a] if i == 0 else [a])
    }


def wanted(
    dimensions: Mapping[str, Sequence[str]],
    features: Mapping[str, Set[str]],
    possible: Callable[[Row], bool],
) -> set[Pair]:
    """Every pair that has a meaning; a feature has one with a value if some entry that has it does."""
    found = set()
    for (i, left), (j, right) in itertools.combinations(enumerate(dimensions.values()), 2):
        for a, b in itertools.product(left, right):
            if possible((a, b)):
                found |= pairs({i: a, j: b}, features)
    return found
