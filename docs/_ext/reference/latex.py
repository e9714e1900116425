"""What `gradtx.formula` finds, written in LaTeX."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping

from gradtx.formulas.expression import Expression, number, rewrite, symbol, symbols, within
from gradtx.formulas.formula import Formula
from gradtx.formulas.notation import text

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
)
GREEK = frozenset(_GREEK.split())
KNOWN = {
    "learning_rate": r"\eta",
    "weight_decay": r"\lambda",
    "eps": r"\varepsilon",
    "eps_root": r"\varepsilon_{\mathrm{root}}",
    **{f"b{i}": rf"\beta_{i}" for i in range(1, 4)},
}
"""Names that papers write as letters."""

_AT_T = {"update": "u_t", "g": "g_t", "schedule": "s_n"}

_OR, _AND, _NOT, _COMPARE, _ADD, _MATMUL, _MUL, _POWER, _ATOM = range(9)
_COMPARISONS = {"lt": "<", "le": r"\le", "gt": ">", "ge": r"\ge", "eq": "=", "ne": r"\ne"}
_FUNCTIONS = {"max": r"\max", "min": r"\min", "exp": r"\exp", "log": r"\log", "cos": r"\cos", "sin": r"\sin"}
_OVER_LEAVES = {"total": r"\sum", "every": r"\bigwedge", "any": r"\bigvee"}
_OVER_AXES = ("sum", "mean", "all", "some", "largest", "smallest")
_LONG = 40
"""The length, as plain text, of a part that is worth a line of its own where it occurs twice."""
_WIDTH = 60
"""The letters of a sum that still stands on one line."""


def letter(name: str) -> str:
    """A name as mathematics: a letter where papers have one, else the name itself."""
    name = name.rpartition(".")[2]
    if name in KNOWN:
        return KNOWN[name]
    head, digits = re.fullmatch(r"(.*?)(\d*)", name, re.S).groups()  # type: ignore[union-attr]
    if head in GREEK:
        head = rf"\{head}"
    elif len(head) > 1:
        head, digits = rf"\mathrm{{{name.replace('_', chr(92) + '_')}}}", ""
    return f"{head}_{{{digits}}}" if digits else head


def letters(formula: Formula) -> dict[str, str]:
    """The hyperparameters that a formula shows as a letter of another name, and the letters."""
    return {name: KNOWN[name] for name in sorted(used(formula) & set(KNOWN))}


def used(formula: Formula) -> set[str]:
    """The names in what a formula shows."""
    return symbols(formula.update, *(formula.slots[name] for name in formula.shown()))


def lines(formula: Formula) -> list[str]:
    """The equations of a formula, in the order in which to read them."""
    named = [(f"{name}'", formula.slots[name]) for name in formula.shown()]
    rates = [(name, x) for name, x in formula.definitions.items() if name in used(formula)]
    return _equations([*named, ("update", formula.update), *rates], formula.slots)


def schedule_lines(formula: Formula) -> list[str]:
    """The equations of a schedule, by the step n from 0 that it is called with."""
    (value,) = formula.definitions.values()
    steps = {x: symbol("n") for x in within([value]) if x.op == "sub" and text(x) == "t - 1"}
    return _equations([("schedule", *rewrite([value], steps))], {})


def _equations(named: list[tuple[str, Expression]], slots: Mapping[str, Expression]) -> list[str]:
    roots = {x for _, x in named}
    nodes = within(roots, _shown)
    uses = collections.Counter(part for node in nodes for part in _shown(node))
    parts = [n for n in nodes if n not in roots and _is_worth_a_line(n, uses[n])]
    writer, result = _Writer(slots), []
    for name, x in named:
        for node in within([x], _shown):
            if node in parts:
                parts.remove(node)
                part = f"x_{{{1 + sum(line.startswith('x_') for line in result)}}}"
                result.append(f"{part} &= {writer.write(node)[0]}")
                writer.known[node] = part, _ATOM
        result.append(f"{writer.name(name)} &= {writer.broken(x)}")
    return result


def _is_worth_a_line(x: Expression, uses: int) -> bool:
    """A choice inside of something, or a long part that occurs more than once."""
    return x.op == "where" or (uses > 1 and bool(x.parts) and len(text(x)) >= _LONG)


def _shown(x: Expression) -> tuple[Expression, ...]:
    """The parts that are written: a sum over all leaves shows the one over the first."""
    return x.parts[:1] if x.op in _OVER_LEAVES else x.parts


class _Writer:
    """Writes expressions. A slot has the index t after the update, and t - 1 before it."""

    def __init__(self, slots: Mapping[str, Expression]) -> None:
        self.slots = slots
        self.known: dict[Expression, tuple[str, int]] = {}

    def name(self, name: str) -> str:
        if name in _AT_T:
            return _AT_T[name]
        base = name.removesuffix("'")
        if base in self.slots or base == "theta":
            written, index = letter(base), "t" if name.endswith("'") else "t-1"
            return f"{{{written}}}_{{{index}}}" if "_{" not in written else f"{written[:-1]},{index}}}"
        return letter(name)

    def write(self, x: Expression) -> tuple[str, int]:
        """The LaTeX, and how tightly its outermost operation binds."""
        if x not in self.known:
            self.known[x] = self._write(x)
        return self.known[x]

    def within(self, x: Expression, level: int) -> str:
        shown, own = self.write(x)
        return shown if own >= level and not (shown.startswith("-") and level > _ADD) else _paren(shown)

    def broken(self, x: Expression) -> str:
        """A long sum on several lines."""
        whole = self.write(x)[0]
        if _width(whole) <= _WIDTH or x.op not in ("add", "sub"):
            return whole
        first = self.broken(x.args[0])
        last = self.within(x.args[1], _ADD if x.op == "add" else _MATMUL)
        if last.startswith("-"):
            last = _paren(last)
        return rf"{first} \\ &\qquad {'+' if x.op == 'add' else '-'} {last}"

    def _write(self, x: Expression) -> tuple[str, int]:
        op, args = x.op, x.args
        if op == "number":
            return _number(args[0]), _ADD if text(x).startswith("-") else _ATOM
        if op == "symbol":
            return self.name(args[0]), _ATOM
        if op in ("add", "sub"):
            last = self.within(args[1], _ADD if op == "add" else _MATMUL)
            sign = "+" if op == "add" else "-"
            return f"{self.within(args[0], _ADD)} {sign} {_signed(last)}", _ADD
        if op == "neg":
            return f"-{_signed(self.within(args[0], _MUL))}", _ADD
        if op == "mul":
            a, b = self.within(args[0], _MUL), self.within(args[1], _MUL)
            return rf"{a} \cdot {b}" if b[0].isdigit() else rf"{a}\,{b}", _MUL
        if op in ("div", "divide"):
            return rf"\dfrac{{{self.write(args[0])[0]}}}{{{self.write(args[1])[0]}}}", _POWER
        if op == "pow":
            return f"{{{self.within(args[0], _ATOM)}}}^{{{self.write(args[1])[0]}}}", _POWER
        return self._rest(x)

    def _rest(self, x: Expression) -> tuple[str, int]:
        op, args = x.op, x.args
        if op == "eq" and all(a.op == "call" and a.args[0].startswith("position[") for a in args):
            return "I", _ATOM
        if op in _COMPARISONS:
            a, b = (self.within(a, _ADD) for a in args)
            return f"{a} {_COMPARISONS[op]} {b}", _COMPARE
        if op in ("and", "or"):
            level, sign = (_AND, r"\land") if op == "and" else (_OR, r"\lor")
            return f"{self.within(args[0], level)} {sign} {self.within(args[1], level)}", level
        if op == "not":
            return rf"\lnot {self.within(args[0], _ATOM)}", _NOT
        if op == "where":
            condition, yes, no = (self.write(a)[0] for a in args)
            cases = rf"{yes} & \text{{if }} {condition} \\ {no} & \text{{otherwise}}"
            return rf"\begin{{cases}} {cases} \end{{cases}}", _OR
        if op in _OVER_LEAVES:
            inner = args[0].args[0] if args[0].op == "sum" and args[0].args[1] is None else args[0]
            return rf"{_OVER_LEAVES[op]}_{{\mathrm{{leaves}}}} {self.within(inner, _MATMUL)}", _MATMUL
        if op == "matmul":
            return rf"{self.within(args[0], _MATMUL)}\,{self.within(args[1], _POWER)}", _MATMUL
        if op == "transposed":
            return rf"{{{self.within(args[0], _ATOM)}}}^\top", _POWER
        if op == "abs":
            return rf"\left|{self.write(args[0])[0]}\right|", _ATOM
        if op == "sqrt":
            return rf"\sqrt{{{self.write(args[0])[0]}}}", _ATOM
        name = args[0] if op == "call" else op
        index = ""
        if op in _OVER_AXES and args[1:2] not in ((), (None,)):
            index = rf"_{{\mathrm{{axis}}\,{','.join(map(str, args[1]))}}}"
        called = _FUNCTIONS.get(name) or rf"\operatorname{{{_escaped(name)}}}"
        shown = ", ".join(self.write(a)[0] for a in x.parts)
        return f"{called}{index}{_paren(shown)}" if shown else called, _ATOM


def _number(value: object) -> str:
    shown = text(number(value))
    mantissa, _, exponent = shown.partition("e")
    if not exponent:
        return shown.replace("inf", r"\infty").replace("pi", r"\pi")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}".removeprefix(r"1 \cdot ")


def _width(shown: str) -> int:
    """About how many letters some LaTeX is wide; of a fraction both parts count."""
    return len(re.sub(r"\\[A-Za-z]+|[{}\\, ]", "", shown))


def _signed(shown: str) -> str:
    return _paren(shown) if shown.startswith("-") else shown


def _paren(shown: str) -> str:
    return rf"\left({shown}\right)"


def _escaped(name: str) -> str:
    return name.replace("_", r"\_")
