"""How weight decay enters an update, found by following it through the formula."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from gradtx.formulas.expression import ZERO, Expression, intern, rewrite, symbol, symbols, within
from gradtx.formulas.formula import Formula
from gradtx.formulas.numeric import Evaluator
from gradtx.formulas.simplify import make


class Coupling(enum.Enum):
    """How weight decay enters the update."""

    COUPLED = "through the slots or the normalised gradient"
    RATE = "times the learning rate"
    SCHEDULE = "times the schedule alone"
    INDEPENDENT = "by itself"


@dataclasses.dataclass(frozen=True)
class Decay:
    """The weight decay of a leaf.

    Attributes:
        coupling: how it enters.
        factor: the share of the parameter that a step takes away, where the schedules are at their largest;
            negative if it grows; None where the gradients decide.
    """

    coupling: Coupling
    factor: float | None

    @property
    def half_life(self) -> float | None:
        """The number of such steps in which a parameter without a gradient halves."""
        if self.factor is None or not 0 < self.factor < 1:
            return None
        return math.log(2) / -math.log1p(-self.factor)


DECAYED = symbol("the decayed parameter")


def decay_of(formula: Formula, clocks: Iterable[str]) -> Decay | None:
    """Follows each product of numbers and the parameter through a formula, whose steps are named `clocks`."""
    free = {*clocks, *formula.values, *formula.definitions}
    theta = symbol("theta")
    bodies = [formula.update, *formula.slots.values()]
    products = {
        node: other
        for node in within(bodies)
        if node.op == "mul"
        for a, other in (node.args, node.args[::-1])
        if a is theta and symbols(other) <= free and _largest(formula, make("neg", other)) != 0
    }
    results = [r for node, k in products.items() if (r := _entered(formula, node, k, free)) is not None]
    return max(results, key=lambda decay: decay.coupling is Coupling.COUPLED, default=None)


def _entered(formula: Formula, product: Expression, k: Expression, free: set[str]) -> Decay | None:
    names = list(formula.slots)
    update, *slots = rewrite([formula.update, *formula.slots.values()], {product: DECAYED}, intern)
    bodies = dict(zip(names, slots, strict=True))
    for name in _followed(update, bodies):
        # A copy of the parameters is moved by the update, and does not steer it.
        if "theta" not in symbols(formula.start[name]) and _decays(_chosen(bodies[name])):
            return Decay(Coupling.COUPLED, None)
    inline = {symbol(f"{name}'"): body for name, body in bodies.items() if _decays(body)}
    update = _made(rewrite([update], inline, intern)[0])
    coefficient = _coefficient(update)
    if coefficient is None:
        return Decay(Coupling.COUPLED, None)
    if coefficient is ZERO:
        return None
    factor = make("mul", coefficient, k)
    largest = _largest(formula, factor) if symbols(factor) <= free else None
    rest = rewrite([update], {DECAYED: ZERO}, make)[0]
    scaling = {
        name
        for name in symbols(rest) & {*formula.values, *formula.definitions}
        if _degree(rest, name) and formula.values.get(name) != -1  # which only turns the sign
    }
    shared = {name for name in scaling if _degree(factor, name)}
    coupling = (
        Coupling.INDEPENDENT if not shared else Coupling.RATE if shared == scaling else Coupling.SCHEDULE
    )
    return Decay(coupling, largest)


def _decays(x: Expression) -> bool:
    return DECAYED in within([x])


def _chosen(x: Expression) -> Expression:
    """An expression without the conditions of its choices, which decide whether and not how."""

    def rule(op: str, *args: Any) -> Expression:
        return intern("either", *args[1:]) if op == "where" else intern(op, *args)

    return rewrite([x], {}, rule)[0]


def _made(x: Expression) -> Expression:
    """The ordinary step that decays: not the one that is left out, nor the one that ends a round."""

    def rule(op: str, *args: Any) -> Expression:
        decaying = [a for a in args[1:] if _decays(a)] if op == "where" else []
        return decaying[-1] if decaying else intern(op, *args)

    return rewrite([x], {}, rule)[0]


def _followed(update: Expression, bodies: dict[str, Expression]) -> set[str]:
    """The slots that an update is made of, in this step or later."""
    found: set[str] = set()
    queue = [update]
    while queue:
        for name in symbols(_chosen(queue.pop())):
            name = name.removesuffix("'")
            if name in bodies and name not in found:
                found.add(name)
                queue.append(bodies[name])
    return found


def _coefficient(x: Expression) -> Expression | None:
    """What the decayed parameter is multiplied by; None where `x` is not affine in it."""
    known: dict[Expression, Expression | None] = {}
    for node in within([x]):
        parts = [known[a] for a in node.parts]
        if node is DECAYED:
            known[node] = intern("number", 1)
        elif all(p is ZERO for p in parts):
            known[node] = ZERO
        elif None in parts:
            known[node] = None
        else:
            known[node] = _linear(node, parts)
    return known[x]


def _linear(node: Expression, parts: list[Any]) -> Expression | None:
    op = node.op
    if op in ("add", "sub", "neg"):
        return make(op, *parts)
    if op == "mul":
        (a, b), (ka, kb) = node.args, parts
        return make("mul", a, kb) if ka is ZERO else make("mul", ka, b) if kb is ZERO else None
    if op in ("div", "divide") and parts[1] is ZERO:
        return make("div", parts[0], node.args[1])
    return None


def _degree(x: Expression, name: str) -> float | None:
    """The power of a name by which an expression scales: 0 if it is not in it, None where that is unclear."""
    known: dict[Expression, float | None] = {}
    for node in within([x]):
        known[node] = _power(node, [known[a] for a in node.parts], name)
    return known[x]


def _power(node: Expression, parts: list[float | None], name: str) -> float | None:
    op = node.op
    if op == "symbol":
        return float(node.args[0] == name)
    if not any(parts) and None not in parts:
        return 0.0
    if None in parts:
        return None
    known: list[Any] = parts
    if op == "mul":
        return known[0] + known[1]
    if op in ("div", "divide"):
        return known[0] - known[1]
    if op in ("neg", "abs", "sum", "mean"):
        return known[0]
    if op == "sqrt":
        return known[0] / 2
    if op in ("add", "sub", "where"):
        powers = {p for p, a in zip(known, node.parts, strict=True) if a is not ZERO}
        if op == "where" and known[0] == 0:
            powers = {p for p, a in zip(known[1:], node.parts[1:], strict=True) if a is not ZERO}
        return powers.pop() if len(powers) == 1 else None
    return None


def _largest(formula: Formula, factor: Expression) -> float | None:
    """The largest share that is taken away, over the steps where schedules may turn."""
    turns = {round(v) for v in formula.values.values() if 1 <= v <= 1e9}
    turns |= {a + b for a in turns for b in turns} if len(turns) < 16 else set()
    grid = {round(1.2**i) for i in range(90)} | {t + d for t in turns for d in (0, 1, 2)}
    t = np.array(sorted(grid), float)
    inline = {symbol(name): x for name, x in formula.definitions.items()}
    while symbols(factor) & formula.definitions.keys():
        factor = rewrite([factor], inline)[0]
    # What is no hyperparameter is a step, of the chain or of a part.
    (found,) = Evaluator([factor])(dict.fromkeys(symbols(factor), t) | dict(formula.values))
    return float(np.max(-np.asarray(found)))
