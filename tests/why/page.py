"""The measured part of docs/why.md: for each experiment a table between two markers."""

from __future__ import annotations

import math
import re
import textwrap
from decimal import Decimal

import numpy as np

from .experiment import SEEDS, Experiment

WIDTH = 130
BEGIN, END = "<!-- measured: {} -->", "<!-- end -->"


def shown(value: float) -> str:
    """Two digits, three of what is above 100, and whole numbers as they are."""
    if not math.isfinite(value):
        return "diverged"
    if abs(value) < 1e-6:
        return "0"  # what rounding leaves
    if abs(value) >= 100:
        return f"{Decimal(f'{value:.2e}'):,.0f}"
    return f"{Decimal(f'{value:.1e}'):f}" if value % 1 else f"{value:.0f}"


def table(experiment: Experiment) -> str:
    """Each quantity of each method: the median over the seeds, and the range."""
    several = [experiment.measured(seed) for seed in SEEDS]
    lines = ["| | " + " | ".join(experiment.methods) + " |", "|---" * (1 + len(experiment.methods)) + "|"]
    for quantity, words in experiment.quantities.items():
        cells = []
        for i in range(len(experiment.methods)):
            values = [measured[i][quantity] for measured in several]
            middle, least, most = (shown(float(x)) for x in (np.median(values), min(values), max(values)))
            cells.append(middle if least == middle == most else f"{middle} ({least} to {most})")
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def claims(experiment: Experiment) -> str:
    statements = list(experiment.claim(*experiment.measured(SEEDS[0])))
    return "\n".join(f"- {statement}" for statement in statements)


def block(experiment: Experiment) -> str:
    """What stands between the markers of an experiment."""
    setting = textwrap.fill(experiment.setting, WIDTH)
    return (
        f"{setting}\n\nMedian over {len(SEEDS)} seeds, and the range where it shows:\n\n"
        f"{table(experiment)}\n\nAsserted for each seed:\n\n{claims(experiment)}"
    )


def blocks(text: str) -> dict[str, str]:
    """What the page has between the markers, by experiment."""
    pattern = BEGIN.format(r"(\w+)") + r"\n(.*?)\n" + END
    return dict(re.findall(pattern, text, flags=re.S))


def rewritten(text: str, experiments: tuple[Experiment, ...]) -> str:
    """The page with what is measured now."""
    for experiment in experiments:
        begin = BEGIN.format(experiment.name)
        if text.count(begin) != 1:
            raise ValueError(f"docs/why.md must have {begin!r} once, and has it {text.count(begin)} times.")
        head, _, tail = text.partition(begin)
        text = f"{head}{begin}\n{block(experiment)}\n{tail[tail.index(END) :]}"
    return text
