"""What may be luck: exact tests of paired differences, corrected for their number."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np


@functools.cache
def signs(number: int) -> np.ndarray:
    """All ways to choose so many signs; the first has a plus everywhere."""
    return np.array(list(itertools.product((1.0, -1.0), repeat=number)))


def sign_flip(differences: Sequence[float] | np.ndarray) -> float:
    """The chance of a sum as far from 0 if each difference were as likely to have the other sign.

    It is exact, over all choices of the signs, and assumes nothing about how the differences are distributed.
    The least that it can be is 2 / 2^n.
    """
    sums = np.abs(signs(len(differences)) @ np.asarray(differences))
    return float(np.mean(sums >= sums[0] * (1 - 1e-9)))


def holm(chances: Sequence[float]) -> list[float]:
    """The same chances for many tests at once, after Holm: that any of those rejected was true."""
    order = np.argsort(chances, kind="stable")
    factors = len(chances) - np.arange(len(chances))
    raised = np.maximum.accumulate(np.asarray(chances)[order] * factors)
    result = np.empty(len(chances))
    result[order] = np.minimum(raised, 1.0)
    return result.tolist()
