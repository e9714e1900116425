"""The page: what was run, an order of all, and a table for each problem."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from .contestants import BASE
from .problems import Problem
from .race import AROUND, FIRST, FRESH, GRID, PENALTY, SECOND, Result
from .significance import holm, sign_flip

Results = Mapping[str, Mapping[str, Result]]
"""By problem, and in it by contestant."""
LEVEL = 0.05

PAGE = """\
# The board

Every ready-made optimizer on small problems that differ in kind, each tuned with the same budget, against
AdamW. Nothing is left out because it lost. One command from the checkout trains all of it and writes this
page and the picture:

    python -m tests.board

`--problem NAME` and `--optimizer NAME` run a part, and `--quick` tries everything for a few steps; neither
writes anything. {setting}

![{alternative}](board.svg)

## How it was run

- **Tuned** is one number, the learning rate or what plays its part; it stays the same for the whole run,
  without a schedule, and everything else is as the defaults have it. {grid} values from {low:.3g} to
  {high:.3g}, each {factor:.2g} times the last, are tried from seed {first}; then {around} values within a
  factor of {within:.2g} of the best from seeds {second}. The best takes the fewest steps to the target, in
  the mean of their logarithms. That is {budget} runs for each optimizer and problem, whichever it is.
- **Measured** is that number from {count} fresh seeds, {fresh}: one compiled program trains {count} runs at
  once, for tuning and for this. A seed says where the parameters start and which examples come when, and is
  the same for all; the problem itself, its data and its teacher do not change.
- **Steps to the target** are those up to the first evaluation at or below it. A run that does not get there
  within the budget of steps, or that does not end in a finite number, has not reached it, and counts as one
  that took {penalty} budgets where a number is needed.
- **The targets** are fixed numbers. They were chosen before most of the optimizers had run, so that AdamW
  gets there in about half of the budget.

| problem | what it is | budget | target | AdamW's median |
|---|---|---|---|---|
{problems}

## All of them

- *ratio*: the steps to the target as a multiple of AdamW's from the same seed, in the geometric mean over
  seeds and then over problems. Below 1 is faster.
- *reached*: on how many problems at least half of the seeds reached the target.
- *faster*, *slower*: on how many problems it differs from AdamW by more than luck, at a level of {level}.
- *edge*: on how many problems the best of the first {grid} values was the first or the last one.
- *p*: of the ratios of the problems, see below.

{overall}

## What the tests can show

On each problem the {count} ratios to AdamW are paired by their seeds. The test is exact: of all {patterns:,}
ways to turn some of the ratios upside down, it counts those whose mean is as far from 1. This is corrected,
after Holm, for the number of optimizers on the problem. It says whether two optimizers, each at its one
tuned value, differ on this problem, by however little: two that take nearly the same path differ by one
percent beyond doubt. The luck of the tuning is not in it. Other seeds there, or a finer grid, may have given
some percent more or less.

The *p* of the table above is the same test with one ratio for each of the {kinds} problems: whether the
difference would hold on more problems of such kinds. With so few it cannot be below {least:.2g}. It is not
corrected for the {others} comparisons; if it were, nothing could be below {level}.

## What they cannot

- The problems are small, the runs short and the rates constant. What an optimizer does for a large model, in
  a long run, under a schedule, with more weight decay or with other betas is not asked here.
- A step is not a second: `lbfgs` evaluates the loss up to 20 times in one, and every tenth of `sophia` has a
  product with the Hessian. State and memory are not measured either.
- Some are made for something else than the fewest steps at a tuned rate: `adafactor`, `came`, `adam_mini`
  and `sm3` for memory (on matrices as small as these `adafactor` keeps whole moments), `prodigy`,
  `dadapt_adamw`, `dog`, `dowg` and `cocob` for runs that nobody tunes, `rprop` and `lbfgs` for gradients
  without noise, `dpsgd` for privacy, here with a clip of 1 and noise of the same size on the few examples of
  a step.
- `sgd, momentum 0.9` is no optimizer of its own. It takes part because `sgd` has no momentum by default.

{tables}
"""


@dataclasses.dataclass(frozen=True)
class Compared:
    """A result next to the base's.

    Attributes:
        ratio: the geometric mean of the steps as multiples of the base's.
        chance: of a ratio as far from 1 by luck, corrected for all contestants; None for the base.
    """

    result: Result
    ratio: float
    chance: float | None

    @property
    def median(self) -> float:
        return float(np.median(self.result.steps))

    @property
    def verdict(self) -> int:
        """1 if it is faster than the base by more than luck, -1 if slower, and 0 otherwise."""
        if self.chance is None or self.chance >= LEVEL:
            return 0
        return 1 if self.ratio < 1 else -1


def logarithms(result: Result, problem: Problem) -> np.ndarray:
    return np.log(np.minimum(result.steps, PENALTY * problem.steps))


def compared(results: Mapping[str, Result], problem: Problem) -> dict[str, Compared]:
    """All contestants on a problem, the fastest first; among equals, the one with the least last value."""
    base = logarithms(results[BASE], problem)
    differences = {name: logarithms(result, problem) - base for name, result in results.items()}
    others = [name for name in results if name != BASE]
    chances = dict(zip(others, holm([sign_flip(differences[name]) for name in others]), strict=True))
    rows = {
        name: Compared(result, math.exp(differences[name].mean()), chances.get(name))
        for name, result in results.items()
    }
    return dict(sorted(rows.items(), key=lambda row: (row[1].ratio, np.median(row[1].result.finals))))


def means(comparisons: Mapping[str, Mapping[str, Compared]]) -> dict[str, float]:
    """The geometric mean of each contestant's ratios over the problems, the fastest first."""
    names = next(iter(comparisons.values()))
    found = {
        name: math.exp(np.mean([math.log(rows[name].ratio) for rows in comparisons.values()]))
        for name in names
    }
    return dict(sorted(found.items(), key=lambda row: row[1]))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def shown_steps(row: Compared, problem: Problem) -> str:
    def one(steps: float) -> str:
        return f"{steps:.0f}" if math.isfinite(steps) else f">{problem.steps}"

    least, most = min(row.result.steps), max(row.result.steps)
    if not math.isfinite(least):
        return "-"
    return f"{one(row.median) if math.isfinite(row.median) else '-'} ({one(least)} to {one(most)})"


def shown_chance(chance: float | None) -> str:
    if chance is None:
        return ""
    return "<0.001" if chance < 1e-3 else f"{chance:.3f}"


def shown_value(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "not finite"


def problem_table(rows: Mapping[str, Compared], problem: Problem) -> str:
    header = ["optimizer", "rate", "steps to the target", "reached", "last value", "ratio", "p (Holm)", ""]
    mark = {1: "faster", 0: "", -1: "slower"}
    return table(
        header,
        [
            [
                name,
                f"{row.result.rate:.2g}" + " (edge)" * row.result.edge,
                shown_steps(row, problem),
                f"{sum(map(math.isfinite, row.result.steps))} of {len(row.result.steps)}",
                shown_value(float(np.median(row.result.finals))),
                f"{row.ratio:.2f}",
                shown_chance(row.chance),
                mark[row.verdict],
            ]
            for name, row in rows.items()
        ],
    )


def overall_table(comparisons: Mapping[str, Mapping[str, Compared]]) -> str:
    header = ["", "optimizer", "ratio", "reached", "faster", "slower", "edge", "p"]
    rows = []
    for place, (name, mean) in enumerate(means(comparisons).items(), 1):
        own = [rows[name] for rows in comparisons.values()]
        chance = None if name == BASE else sign_flip([math.log(row.ratio) for row in own])
        counts = [
            sum(math.isfinite(row.median) for row in own),
            sum(row.verdict == 1 for row in own),
            sum(row.verdict == -1 for row in own),
            sum(row.result.edge for row in own),
        ]
        rows.append([str(place), name, f"{mean:.2f}", *map(str, counts), shown_chance(chance)])
    return table(header, rows)


def page(results: Results, problems: Mapping[str, Problem], setting: str) -> str:
    """The whole page, for results of all contestants on some problems."""
    comparisons = {name: compared(of, problems[name]) for name, of in results.items()}
    medians = {name: rows[BASE].median for name, rows in comparisons.items()}
    described = [
        f"| {name} | {found.what} | {found.steps} | {found.target:g} | {medians[name]:g} |"
        for name, found in problems.items()
    ]
    tables = []
    for name, rows in comparisons.items():
        problem = problems[name]
        tables.append(f"## {name.capitalize()}\n\nTarget {problem.target:g} in {problem.steps} steps.\n")
        tables.append(problem_table(rows, problem) + "\n")
    return PAGE.format(
        setting=setting,
        alternative="Steps to the target of each optimizer on each problem as a multiple of AdamW's",
        grid=len(GRID),
        low=GRID[0],
        high=GRID[-1],
        factor=GRID[1] / GRID[0],
        first=FIRST[0],
        around=len(AROUND),
        within=AROUND[-1],
        second=f"{SECOND[0]} to {SECOND[-1]}",
        budget=len(GRID) + len(AROUND) * len(SECOND),
        count=len(FRESH),
        fresh=f"{FRESH[0]} to {FRESH[-1]}",
        penalty=PENALTY,
        problems="\n".join(described),
        level=LEVEL,
        overall=overall_table(comparisons),
        patterns=2 ** len(FRESH),
        kinds=len(results),
        least=2 / 2 ** len(results),
        others=len(next(iter(results.values()))) - 1,
        tables="\n".join(tables).rstrip(),
    )
