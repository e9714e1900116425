"""What `gradtx.formula` finds, as the site shows it in LaTeX."""

from __future__ import annotations

from collections.abc import Iterable

from gradtx.formulas.expression import rewrite, symbol, within
from gradtx.formulas.formula import Formula
from gradtx.formulas.latex import equations, lettered
from gradtx.formulas.notation import text


def letters(formula: Formula) -> dict[str, str]:
    """The names that a formula shows as a letter of another name, and the letters."""
    return lettered(formula.used())


def lines(formula: Formula) -> list[str]:
    """The equations of a formula, in the order in which to read them."""
    return equations(formula.named(), formula.slots)


def carries(formula: Formula, names: Iterable[str]) -> int:
    """With how many arguments, at most, a formula calls functions of these names."""
    nodes = within(x for _, x in formula.named())
    return max((len(x.parts) for x in nodes if x.op == "call" and x.args[0] in {*names}), default=0)


def schedule_lines(formula: Formula) -> list[str]:
    """The equations of a schedule, by the step n from 0 that it is called with."""
    (value,) = formula.definitions.values()
    steps = {x: symbol("n") for x in within([value]) if x.op == "sub" and text(x) == "t - 1"}
    return equations([("schedule", *rewrite([value], steps))])
