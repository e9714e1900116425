"""How weight decay enters an update, found by following it through the formula."""

from __future__ import annotations

import dataclasses
import enum
import functools
from typing import Any

import numpy as np

from gradtx.formulas.expression import ZERO, Expression, intern, reached, rewrite, symbol, symbols, within
from gradtx.formulas.formula import Formula, present
from gradtx.formulas.numeric import Evaluator
from gradtx.formulas.period import half_life
from gradtx.formulas.scaling import coefficient_of, degree
from gradtx.formulas.simplify import LAST, make
from gradtx.formulas.trace import Traced


class Coupling(enum.Enum):
    """How weight decay enters the update."""

    COUPLED = "through the slots or the normalised gradient"
    RATE = "times the learning rate"
    SCHEDULE = "times the schedule alone"
    INDEPENDENT = "by itself"
    UNKNOWN = "by a constant that may hold the learning rate"


@dataclasses.dataclass(frozen=True)
class DecayKind:
    """The weight decay of a leaf.

    Attributes:
        coupling: how it enters.
        factor: the share of the parameter that a step takes away, where the schedules are at their largest;
            negative if it grows; None where the gradients decide.
        half_life: the number of calls of `update` in which a parameter without a gradient would halve, if
            the schedules stayed there; None where it never does, or nobody knows.
    """

    coupling: Coupling
    factor: float | None
    half_life: float | None


DECAYED = symbol("the decayed parameter")


@dataclasses.dataclass(frozen=True)
class _Share:
    """How one product of a number and the parameter enters the update, and its factor, None if not known."""

    coupling: Coupling
    factor: Expression | None = None


def decay_of(traced: Traced, calls: int | None) -> DecayKind | None:
    """Finds weight decay: follows each product of a number and the parameter to where it enters the update.

    `calls` is the period of the update, as `calls_of_a_round` gives it.
    """
    formula = present(traced)
    clocks = {cell.name for cell in traced.cells if cell.kind == "step"}
    free = {*clocks, *formula.values, *formula.definitions}
    theta = symbol("theta")
    bodies = [formula.update, *formula.slots.values()]
    products = {
        node: other
        for node in within(bodies)
        if node.op == "mul"
        for a, other in (node.args, node.args[::-1])
        if a is theta and symbols(other) <= free and _largest(formula, make("neg", other))[1] != 0
    }
    shares = [r for node, k in products.items() if (r := _entered(formula, node, k, free)) is not None]
    if not shares:
        return None
    coupling = next(c for c in Coupling if any(share.coupling is c for share in shares))
    factors = [share.factor for share in shares if share.factor is not None]
    if coupling is Coupling.COUPLED or len(factors) < len(shares):
        return DecayKind(coupling, None, None)
    whole = functools.reduce(functools.partial(make, "add"), factors)
    step, factor = _largest(formula, whole)
    return DecayKind(coupling, factor, half_life(traced, clocks, step, factor, calls))


def _entered(formula: Formula, product: Expression, k: Expression, free: set[str]) -> _Share | None:
    names = list(formula.slots)
    update, *slots = rewrite([formula.update, *formula.slots.values()], {product: DECAYED}, intern)
    bodies = dict(zip(names, slots, strict=True))

    def made_of(x: Expression) -> set[str]:
        return {name.removesuffix("'") for name in symbols(_chosen(x))}

    for name in reached(update, bodies, made_of):
        # A copy of the parameters is moved by the update, and does not steer it.
        if "theta" not in symbols(formula.start[name]) and _decays(_chosen(bodies[name])):
            return _Share(Coupling.COUPLED)
    inline = {symbol(f"{name}'"): body for name, body in bodies.items() if _decays(body)}
    update = _made(rewrite([update], inline, intern)[0])
    coefficient = coefficient_of(update, DECAYED)
    if coefficient is None:
        return _Share(Coupling.COUPLED)
    if coefficient is ZERO:
        return None
    factor = make("mul", coefficient, k)
    rest = rewrite([update], {DECAYED: ZERO}, make)[0]
    scaling = {
        name
        for name in symbols(rest) & {*formula.values, *formula.definitions}
        if degree(rest, name) and formula.values.get(name) != -1  # which only turns the sign
    }
    shared = {name for name in scaling if degree(factor, name)}
    if not scaling:
        # A rate without a name has become one number with what it multiplies.
        coupling = Coupling.UNKNOWN
    elif not shared:
        coupling = Coupling.INDEPENDENT
    else:
        coupling = Coupling.RATE if shared == scaling else Coupling.SCHEDULE
    return _Share(coupling, factor if symbols(factor) <= free else None)


def _decays(x: Expression) -> bool:
    return DECAYED in within([x])


def _chosen(x: Expression) -> Expression:
    """An expression without the conditions of its choices, which select a branch and give no value."""

    def rule(op: str, *args: Any) -> Expression:
        return intern("either", *args[1:]) if op == "where" else intern(op, *args)

    return rewrite([x], {}, rule)[0]


def _made(x: Expression) -> Expression:
    """An expression in which each choice takes its branch that decays, as an ordinary step does."""

    def rule(op: str, *args: Any) -> Expression:
        decaying = [a for a in args[1:] if _decays(a)] if op == "where" else []
        return decaying[-1] if decaying else intern(op, *args)

    return rewrite([x], {}, rule)[0]


FARTHEST = 90
"""The powers of 1.2 up to 13 million, as many steps as the longest runs have: each long phase has some."""


def _largest(formula: Formula, factor: Expression) -> tuple[float, float]:
    """The step at which the largest share is taken away, of those where schedules may turn, and the share."""
    # A hyperparameter from 1 on may be the length of a phase; a phase may begin where another one ends.
    turns = {round(v) for v in formula.values.values() if 1 <= v < LAST}
    turns |= {a + b for a in turns for b in turns} if len(turns) < 16 else set()
    grid = {round(1.2**i) for i in range(FARTHEST)} | {t + d for t in turns for d in (0, 1, 2)}
    t = np.array(sorted(grid), float)
    inline = {symbol(name): x for name, x in formula.definitions.items()}
    while symbols(factor) & formula.definitions.keys():
        factor = rewrite([factor], inline)[0]
    # What is no hyperparameter is a step, of the chain or of a part.
    (found,) = Evaluator([factor])(dict.fromkeys(symbols(factor), t) | dict(formula.values))
    shares = np.broadcast_to(-np.real(np.asarray(found)), t.shape)
    highest = np.argmax(shares)
    return float(t[highest]), float(shares[highest])
