"""A pairwise cover: few rows in which every two values of two dimensions meet."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Mapping, Sequence

Row = tuple[str, ...]


def pairs(row: Row) -> set[tuple[int, str, int, str]]:
    """The pairs of values that meet in a row."""
    return {(i, a, j, b) for (i, a), (j, b) in itertools.combinations(enumerate(row), 2)}


def cover(
    dimensions: Mapping[str, Sequence[str]],
    possible: Callable[[Row], bool] = lambda row: True,
    covered: Callable[[tuple[int, str, int, str]], bool] = lambda pair: False,
) -> list[Row]:
    """Rows that cover every pair of values; the same ones every time.

    The first two dimensions are crossed in full, as any cover must; the others get, row after row, the values
    that complete the most pairs that are still open, and of those the ones used least so far.

    Args:
        dimensions: the values of each dimension.
        possible: whether a row can be run.
        covered: whether a pair is tested elsewhere.
    """
    names = list(dimensions)
    everything = itertools.combinations(enumerate(dimensions.values()), 2)
    open_pairs = {
        pair
        for (i, left), (j, right) in everything
        for a, b in itertools.product(left, right)
        if not covered(pair := (i, a, j, b))
    }
    rows, used = [], collections.Counter()

    def add_best(fixed: dict[int, str]) -> None:
        free = [[fixed[i]] if i in fixed else values for i, values in enumerate(dimensions.values())]
        choices = [row for row in itertools.product(*free) if possible(row)]
        if choices:
            best = max(choices, key=lambda row: (len(pairs(row) & open_pairs), -sum(used[v] for v in row)))
            if pairs(best) & open_pairs:
                open_pairs.difference_update(pairs(best))
                used.update(best)
                rows.append(best)

    for first, second in itertools.product(dimensions[names[0]], dimensions[names[1]]):
        add_best({0: first, 1: second})
    for i, a, j, b in sorted(open_pairs):
        if (i, a, j, b) in open_pairs:
            add_best({i: a, j: b})
    return rows
