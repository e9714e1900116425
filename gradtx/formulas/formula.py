"""The update of one leaf as mathematics, derived from what runs."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.protocol import AnyTransform, Params
from gradtx.core.numbers.hyperparams import tidy
from gradtx.core.numerics import number_dtype
from gradtx.core.spec.arguments import suggestion
from gradtx.formulas.expression import ZERO, Expression, reached, rewrite, symbol, symbols, within
from gradtx.formulas.latex import at_first, equations, escaped, latex, lettered, letters
from gradtx.formulas.naming import Cell
from gradtx.formulas.notation import lines, text
from gradtx.formulas.presentation import Mirror
from gradtx.formulas.runs import STAND_IN
from gradtx.formulas.trace import Traced, companion, composed, programs, signatures, trace


@dataclasses.dataclass(frozen=True, repr=False)
class Formula:
    """What one update does to one leaf; it prints as mathematics, and a notebook shows it set.

    Each part is an expression over names: `g` is the gradient, `theta` the parameter, `t` the step from 1, a
    hyperparameter has the name that `gradtx.hyperparams` gives it, without the name of a wrapper before it, a
    slot its own, and `mu'` is the slot `mu` after the update. `total(x)` sums over all leaves, `sum(x)` and
    `mean(x)` over the leaf. Of matrices, `@` is the product, `^T` the transpose and `I` the identity; a
    decomposition gives its parts by name, as in `qr.Q(x)` and `eigh.vectors(x)`.

    Attributes:
        update: what is added to the parameter.
        slots: the new value of each slot and of each number that the transform remembers, by name.
        definitions: the value of each schedule, by name.
        start: what each of `slots` is before the first update.
        values: the hyperparameters.
    """

    update: Expression
    slots: Mapping[str, Expression]
    definitions: Mapping[str, Expression]
    start: Mapping[str, Expression]
    values: Mapping[str, float]

    def shown(self) -> list[str]:
        """The names of the slots that the update depends on, in this step or later, in an order to read."""
        needed = reached(self.update, self.slots, _without_primes)
        seen: set[str] = set()
        found: list[str] = []

        def visit(name: str) -> None:
            if name in seen:
                return
            seen.add(name)
            for other in sorted(symbols(self.slots[name])):
                if other.endswith("'") and other[:-1] in self.slots:
                    visit(other[:-1])
            found.append(name)

        for name in self.slots:
            if name in needed and self.slots[name] is not symbol(name):
                visit(name)
        return found

    def named(self) -> list[tuple[str, Expression]]:
        """What it shows, in an order to read: slots after the update, the update, and schedules."""
        found = [(f"{name}'", self.slots[name]) for name in self.shown()]
        found.append(("update", self.update))
        used, schedules = symbols(*(x for _, x in found)), []
        while more := [n for n in self.definitions if n in used and n not in schedules]:
            schedules += more
            used |= symbols(*(self.definitions[name] for name in more))
        return [*found, *((name, self.definitions[name]) for name in schedules)]

    def used(self) -> set[str]:
        """The names in the update and in the slots that it shows."""
        return symbols(self.update, *(self.slots[name] for name in self.shown()))

    def _plain(self) -> list[tuple[str, str]]:
        """The hyperparameters that simplify it by their values."""
        used = self.used()
        return [(k, f"{v:g}") for k, v in self.values.items() if k in used and (v <= 0 or v == 1)]

    def _first(self) -> list[tuple[str, Expression]]:
        """The slots that it shows which do not start at 0."""
        return [(name, self.start[name]) for name in self.shown() if self.start[name] is not ZERO]

    def __repr__(self) -> str:
        written = lines(self.named())
        width = max(len(name) for name, _ in written)
        shown = [_wrapped(f"{name:<{width}} = ", body) for name, body in written]
        plain = [f"{name} = {value}" for name, value in self._plain()]
        start = [f"{name} = {text(x)}" for name, x in self._first()]
        shown += [_wrapped("with ", ", ".join(plain))] if plain else []
        return "\n".join([*shown, *([_wrapped("at first ", ", ".join(start))] if start else [])])

    def latex(self) -> str:
        r"""The same in LaTeX, for a paper: an `aligned` of amsmath, to stand in an equation.

        The slot `mu` is there with the index t - 1 before the update and t after it, and names for which
        papers have letters are these; the last line says which.

        Examples:
            >>> import gradtx
            >>> print(gradtx.formula(gradtx.sgd(0.1)).latex())
            \begin{aligned}
            u_t &= -\eta\,g_t \\
            &\text{where } \eta = \mathrm{learning\_rate}
            \end{aligned}
        """
        rows = [*equations(self.named(), self.slots), *self._remarks()]
        return "\n".join((r"\begin{aligned}", " \\\\\n".join(rows), r"\end{aligned}"))

    def _remarks(self) -> list[str]:
        named = self.named()
        names = symbols(*(x for _, x in named)).union(name for name, _ in named)
        written = letters(names)
        remarks = {
            "with": [f"{written[name]} = {value}" for name, value in self._plain()],
            "at first": [f"{at_first(name, names)} = {latex(x)}" for name, x in self._first()],
            "where": [rf"{letter} = \mathrm{{{escaped(name)}}}" for name, letter in lettered(names).items()],
        }
        parts = {word: r",\; ".join(said) for word, said in remarks.items() if said}
        return [rf"&\text{{{word} }} {said}" for word, said in parts.items()]

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"


WIDTH = 100
"""The columns of a printed formula."""


def _wrapped(head: str, body: str) -> str:
    """A text cut into lines, where the later lines are indented to the start of the first."""
    margin = " " * min(len(head), WIDTH // 3)
    kept = re.sub(rf"(?<!,) (?!{_BREAKS} )", NO_BREAK, body)
    text = textwrap.fill(
        head + kept, WIDTH, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False
    )
    return text.replace(NO_BREAK, " ")


NO_BREAK = "\xa0"
_BREAKS = r"(?:[-+*/]|and|or)"
"""What a new line may begin with: a product without a sign stays together."""


def formula(tx: AnyTransform, params: Params = None, leaf: str | None = None) -> Formula:
    """The update of one leaf as mathematics, derived from what actually runs.

    It traces `update` without arrays and reads what was traced, so that no docstring can be wrong.

    Args:
        tx: a transform of any library.
        params: the parameters, arrays or `jax.ShapeDtypeStruct`s; by default two float32 matrices. Needed
            where a mask or a group decides what happens to a leaf.
        leaf: the path of a leaf of `params`, such as `"layers/0/kernel"`; not needed for a single one.

    Returns:
        The formula, which prints as it reads, and has `update`, `slots` and `definitions` as expressions. Its
        `latex()` is the same for a paper; a notebook shows it set.

    Raises:
        ValueError: there is no such leaf, or it has no gradient; or no `params` are given, but a leaf is, or
            `tx` has masks.

    Examples:
        >>> import gradtx
        >>> gradtx.formula(gradtx.sgd(0.1, momentum=0.9))
        trace' = momentum trace + (1 - dampening) g
        update = -learning_rate trace'
        with dampening = 0
    """
    tx = composed(tx)
    if params is None:
        if leaf is not None:
            raise ValueError(f"formula: {leaf!r} is a leaf of which tree? Give the parameters too.")
        masked = [unit.where for program in programs(tx) for unit in program.units if unit.masks]
        if masked:
            raise ValueError(
                f"formula: {masked[0]} works on some leaves only, so each leaf may have another formula. "
                f"Give the parameters and a leaf: formula(tx, params, 'path/of/the/leaf')."
            )
        matrix = jax.ShapeDtypeStruct((256, 128), np.float32)
        params, leaf = {"leaf": matrix, "other": matrix}, "leaf"
    position = _position(params, leaf)
    return present(trace(tx, params, position, companion(signatures(tx, params), position)))


def _position(params: Any, leaf: str | None) -> int:
    leaves, paths = lv.flatten(params)[0], lv.paths(params)
    trainable = [path for path, x in zip(paths, leaves, strict=True) if lv.is_trainable_leaf(x)]
    if leaf is None and len(trainable) == 1:
        (leaf,) = trainable
    if not trainable:
        raise ValueError("formula: the parameters have no leaf that a gradient exists for.")
    there_are = f"There are {', '.join(map(repr, trainable[:8]))}{', ...' * (len(trainable) > 8)}."
    if leaf is None:
        raise ValueError(f"formula: say which leaf, as in formula(tx, params, {trainable[0]!r}). {there_are}")
    if leaf not in paths:
        hint = suggestion(leaf, None, trainable)
        raise ValueError(f"formula: there is no leaf {leaf!r}. {hint or there_are}")
    if leaf not in trainable:
        raise ValueError(f"formula: the leaf {leaf!r} has no gradient, so nothing updates it. {there_are}")
    return paths.index(leaf)


def present(traced: Traced) -> Formula:
    """A traced update as people write it: what has a name is called by it."""
    kept = ("slot", "other", "whole", "step")
    remembered = [c for c in traced.cells if c.kind in kept and c.name != "t"]
    named = {c.new: symbol(f"{c.name}'") for c in remembered if c.new.op not in ("number", "symbol")}
    named.update({x: symbol(name) for name, x in traced.definitions.items() if x.op != "number"})
    named.update(_noises([traced.update, *(c.new for c in remembered)]))
    mirror = Mirror([c.name for c in remembered if c.kind == "slot"], traced.others)

    def body(x: Expression) -> Expression:
        without = {key: name for key, name in named.items() if key is not x}
        return rewrite([x], without, mirror.tidied)[0]

    own = [c for c in remembered if c.kind != "other"]
    return Formula(
        update=rewrite([traced.update], named, mirror.tidied)[0],
        slots={c.name: body(c.new) for c in own},
        definitions={name: body(x) for name, x in traced.definitions.items()},
        start={c.name: body(c.start) for c in own},
        values={
            c.name: _number(c)
            for c in traced.cells
            # Of a function of the step the state keeps the last value, which is not in force.
            if c.kind in ("number", "decay") and c.start.op == "number" and c.name not in traced.definitions
        },
    )


def _number(cell: Cell) -> float:
    """The value of a hyperparameter, which prints as it was given."""
    if cell.kind == "decay":
        return tidy(number_dtype().type(1 - cell.start.value), True)
    # A number of steps is more than the first of its two floats in the state.
    return tidy(number_dtype().type(cell.start.value if cell.written is None else cell.written))


def _noises(roots: list[Expression]) -> dict[Expression, Expression]:
    """The symbols of random noise, each with the plain name `noise` that is shown in its place."""
    names = {x: x.args[0].partition(STAND_IN)[0] for x in within(roots) if x.op == "symbol"}
    return {x: symbol(name) for x, name in names.items() if name != x.args[0] and name.startswith("noise")}


def _without_primes(x: Expression) -> set[str]:
    """The names in an expression, before the update or after it."""
    return {name.removesuffix("'") for name in symbols(x)}
