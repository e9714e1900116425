"""What an experiment is: methods that run from a seed, what is measured of them, and what that claims."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

SEEDS = range(8)

Run = Mapping[str, np.ndarray]
"""Of one method and seed: arrays by name."""
Measured = Mapping[str, float]
"""Of one method and seed: the value of each quantity."""


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """Methods on one problem.

    Attributes:
        name: of its picture and of its place on the page.
        setting: what is trained, and what a seed draws.
        methods: what is compared, by the names on the page.
        quantities: the words for each quantity that is measured.
        run: a method from a seed.
        measure: the quantities of a run.
        claim: the statements about the measured quantities of the methods, in their order, and whether
            each holds.
        draw: the picture, from the runs of each method over all seeds, which are stacked.
    """

    name: str
    setting: str
    methods: tuple[str, ...]
    quantities: Mapping[str, str]
    run: Callable[[str, int], Run]
    measure: Callable[[Run], Measured]
    claim: Callable[..., Mapping[str, bool]]
    draw: Callable[[Mapping[str, Run]], Figure]

    def measured(self, seed: int) -> list[Measured]:
        """The quantities of each method."""
        return [self.measure(ran(self, method, seed)) for method in self.methods]

    def runs(self, seeds: Sequence[int] = SEEDS) -> dict[str, Run]:
        """The runs of each method, stacked over seeds."""
        found = {}
        for method in self.methods:
            several = [ran(self, method, seed) for seed in seeds]
            found[method] = {name: np.stack([run[name] for run in several]) for name in several[0]}
        return found


@functools.cache
def ran(experiment: Experiment, method: str, seed: int) -> Run:
    """A run, which the tests, the picture and the page share."""
    return {name: np.asarray(values) for name, values in experiment.run(method, seed).items()}


def false_statements(experiment: Experiment, measured: Sequence[Measured]) -> list[str]:
    """What the experiment claims and does not hold."""
    return [statement for statement, holds in experiment.claim(*measured).items() if not holds]


def exchanges(measured: Sequence[Measured]) -> Iterator[list[Measured]]:
    """The same with two methods under each other's name, for each two."""
    for i, j in itertools.combinations(range(len(measured)), 2):
        exchanged = list(measured)
        exchanged[i], exchanged[j] = measured[j], measured[i]
        yield exchanged
