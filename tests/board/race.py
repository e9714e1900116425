"""A contestant on a problem: one compiled program for the grid, the rates around the best, and fresh seeds.

The program trains as many runs at once as the grid has rates. Each has a rate and a seed of its own, so that
the same program also trains the best rate from as many fresh seeds.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import gradtx

from .contestants import CONTESTANTS, Contestant
from .problems import Problem, problem

GRID = 10.0 ** np.arange(-4.5, 2.01, 0.5)
"""The rates of the first round."""
AROUND = 10.0 ** (np.arange(-3, 4) / 8)
"""Those of the second round, as factors of the best."""
FIRST, SECOND, FRESH = (0,), (1, 2, 3, 4), tuple(range(100, 100 + len(GRID)))
"""The seeds of the three rounds."""
PENALTY = 2
"""A run that does not reach the target counts as one of this many times the budget."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a contestant did on a problem.

    Attributes:
        rate: the tuned number.
        edge: whether the first round's best was the first or the last of the grid.
        steps: the steps to the target of each fresh seed; infinite where it was not reached.
        finals: the last value of each fresh seed; infinite where it is not finite.
        seconds: what compiling and running took.
    """

    rate: float
    edge: bool
    steps: tuple[float, ...]
    finals: tuple[float, ...]
    seconds: float


@functools.cache
def start(problem: Problem, seed: int, steps: int) -> Any:
    """The first parameters and the examples of a seed, the same for every contestant."""
    rng = np.random.default_rng(seed)
    return problem.init(rng), problem.examples(rng, steps)


def curve(contestant: Contestant, problem: Problem) -> Callable[..., jax.Array]:
    """One run as a function: the values at its evaluations."""

    def step(tx: Any, carry: Any, seen: Any) -> tuple[Any, None]:
        params, state = carry

        def loss(params: Any) -> jax.Array:
            return problem.loss(params, seen)

        value, grads = jax.value_and_grad(loss)(params)
        given = {"value": value, "grad": grads, "value_fn": loss, "obj_fn": loss}
        if contestant.per_example:
            alone = jax.tree.map(lambda x: x[:, None], seen)
            grads = jax.vmap(jax.grad(problem.loss), (None, 0))(params, alone)
        return gradtx.apply_gradients(tx, grads, state, params, **given), None

    def run(rate: jax.Array, seed: jax.Array, params: Any, examples: Any) -> jax.Array:
        tx = contestant.build(rate, jax.random.key(seed))

        def stretch(carry: Any, seen: Any) -> tuple[Any, jax.Array]:
            carry, _ = jax.lax.scan(functools.partial(step, tx), carry, seen)
            return carry, problem.evaluate(gradtx.eval_params(carry[1], carry[0]))

        stretches = jax.tree.map(lambda x: x.reshape(-1, problem.every, *x.shape[1:]), examples)
        return jax.lax.scan(stretch, (params, tx.init(params)), stretches)[1]

    return run


class Race:
    """The compiled runs of a contestant on a problem."""

    def __init__(self, contestant: Contestant, problem: Problem, steps: int | None = None) -> None:
        self.problem, self.steps = problem, steps or problem.steps
        self.program = jax.jit(jax.vmap(curve(contestant, problem)))

    def values(self, rates: np.ndarray, seeds: tuple[int, ...]) -> np.ndarray:
        """The values of every rate from every seed, `[rate, seed, evaluation]`."""
        runs = [(rate, seed) for rate in rates for seed in seeds]
        calls = [self.called(runs[i : i + len(GRID)]) for i in range(0, len(runs), len(GRID))]
        return np.concatenate(calls).reshape(len(rates), len(seeds), -1)

    def called(self, runs: list[tuple[float, int]]) -> np.ndarray:
        """The values of as many runs as the grid has rates, so that it is always the same program."""
        starts = [start(self.problem, seed, self.steps) for _, seed in runs]
        rates, seeds = zip(*runs, strict=True)
        stacked = jax.tree.map(lambda *each: np.stack(each), *starts)
        return np.asarray(self.program(np.array(rates, np.float32), np.array(seeds, np.uint32), *stacked))

    def measured(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The steps to the target and the last values; infinite for a run that does not end in a number."""
        finals = np.where(np.isfinite(values[..., -1]), values[..., -1], np.inf)
        met = (values <= self.problem.target) & np.isfinite(finals)[..., None]
        return np.where(met.any(-1), (met.argmax(-1) + 1.0) * self.problem.every, np.inf), finals

    def best(self, rates: np.ndarray, seeds: tuple[int, ...]) -> int:
        """Which rate takes the fewest steps; among equals, the one whose last values are least."""
        steps, finals = self.measured(self.values(rates, seeds))
        counted = np.log(np.minimum(steps, PENALTY * self.steps)).mean(-1)
        return int(np.lexsort((np.median(finals, -1), counted))[0])

    def result(self) -> Result:
        began = time.perf_counter()
        first = self.best(GRID, FIRST)
        rates = GRID[first] * AROUND
        rate = rates[self.best(rates, SECOND)]
        steps, finals = self.measured(self.values(np.array([rate]), FRESH))
        return Result(
            float(rate),
            first in (0, len(GRID) - 1),
            tuple(steps[0].tolist()),
            tuple(finals[0].tolist()),
            time.perf_counter() - began,
        )


def run(task: tuple[str, str, int | None]) -> tuple[str, str, Result]:
    """A contestant on a problem, by their names; of a quick run, with so many evaluations."""
    name, on, evaluations = task
    found = problem(on)
    steps = None if evaluations is None else evaluations * found.every
    result = Race(CONTESTANTS[name], found, steps).result()
    jax.clear_caches()  # nothing compiled is used again
    return name, on, result
