"""Expressions as LaTeX, with the letters that papers have."""

from __future__ import annotations

import collections
import functools
import itertools
import re
from collections.abc import Iterable, Iterator

from gradtx.formulas.expression import Expression, symbols
from gradtx.formulas.notation import spelled
from gradtx.formulas.writing import (
    ADD,
    ATOM,
    MATMUL,
    MUL,
    OR,
    POWER,
    Writer,
    Written,
    lines,
    shown_parts,
)

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
)
GREEK = frozenset(_GREEK.split())
LETTERS = {
    "learning_rate": r"\eta",
    "weight_decay": r"\lambda",
    "eps": r"\varepsilon",
    "eps_root": r"\varepsilon_{\mathrm{root}}",
    **{f"b{i}": rf"\beta_{i}" for i in range(1, 4)},
}
"""Names that papers write as other letters."""

_AT_T = {"update": "u_t", "g": "g_t", "schedule": "s_n"}
_SIGNS = {
    **{"lt": "<", "le": r"\le", "gt": ">", "ge": r"\ge", "eq": "=", "ne": r"\ne"},
    **{"and": r"\land", "or": r"\lor", "not": r"\lnot", "matmul": r"\,"},
}
_FUNCTIONS = {"max": r"\max", "min": r"\min", "exp": r"\exp", "log": r"\log", "cos": r"\cos", "sin": r"\sin"}
_OVER_LEAVES = {"total": r"\sum", "every": r"\bigwedge", "any": r"\bigvee"}

WIDE = 60
"""About how many letters stand on one line."""
LONG = 16
"""The width of a part that is worth a line of its own where it occurs twice."""
_LEAST = 8
"""The width of a part by whose name a line becomes shorter."""


def latex(expression: Expression) -> str:
    """An expression in LaTeX, on one line."""
    return _Latex(symbols(expression), ()).whole(expression)


def equations(named: Iterable[tuple[str, Expression]], slots: Iterable[str] = ()) -> list[str]:
    """What some names are, as lines of LaTeX for an `aligned`; a slot has the index t after the update."""
    named, slots = list(named), tuple(slots)
    names = {name for name, _ in named} | symbols(*(x for _, x in named))
    writer = _Latex(names, slots)
    return [f"{writer.name(n)} &= {body}" for n, body in lines(named, lambda: _Latex(names, slots))]


def letters(names: Iterable[str]) -> dict[str, str]:
    """How names are written: by their ends, which are letters where papers have some, if these differ."""
    names = sorted({name.removesuffix("'") for name in names})
    ends = collections.Counter(name.rpartition(".")[2] for name in names)
    short = {name: name.rpartition(".")[2] for name in names}
    return {name: _letter(end if ends[end] == 1 else name) for name, end in short.items()}


def lettered(names: Iterable[str]) -> dict[str, str]:
    """The names that are written as letters of another name, and the letters."""
    known = {*LETTERS.values()}
    return {name: letter for name, letter in letters(names).items() if letter in known}


def at_first(name: str, names: Iterable[str]) -> str:
    """A slot before the first update."""
    return _indexed(letters(names)[name], "0")


@functools.cache
def _letter(name: str) -> str:
    """A name as mathematics: a letter where papers have one, else the name itself."""
    if name in LETTERS:
        return LETTERS[name]
    head, digits = re.fullmatch(r"(.*?)(\d*)", name, re.S).groups()  # type: ignore[union-attr]
    if head in GREEK:
        head = rf"\{head}"
    elif len(head) > 1:
        head, digits = rf"\mathrm{{{escaped(name)}}}", ""
    return f"{head}_{{{digits}}}" if digits else head


def escaped(name: str) -> str:
    """A name in which LaTeX sees no index."""
    return name.replace("_", r"\_")


def _indexed(letter: str, index: str) -> str:
    return f"{{{letter}}}_{{{index}}}" if "_{" not in letter else f"{letter[:-1]},{index}}}"


class _Latex(Writer):
    """Writes LaTeX. A slot has the index t after the update, and t - 1 before it."""

    signs = _SIGNS
    denied = ATOM

    def __init__(self, names: Iterable[str], slots: Iterable[str]) -> None:
        super().__init__()
        self.letters, self.slots = letters(names), frozenset(slots) | {"theta"}
        self.widths: dict[Expression, float] = {}

    def line(self, x: Expression) -> str:
        if self.width(x) <= WIDE or x.op not in ("add", "sub"):
            return self.whole(x)
        sign, level = ("+", ADD) if x.op == "add" else ("-", MATMUL)
        return rf"{self.line(x.args[0])} \\ &\qquad {sign} {self.summand(x.args[1], level)}"

    def paren(self, shown: str) -> str:
        return rf"\left({shown}\right)"

    def number(self, value: object) -> str:
        shown = spelled(value)
        mantissa, _, exponent = shown.partition("e")
        if not re.fullmatch(r"[-+]?\d+", exponent):
            return rf"\mathrm{{{shown}}}" if isinstance(value, bool) else _constants(shown)
        power = f"10^{{{int(exponent)}}}"
        return f"{mantissa[:-1]}{power}" if mantissa in ("1", "-1") else rf"{mantissa} \cdot {power}"

    def name(self, name: str) -> str:
        if name in _AT_T:
            return _AT_T[name]
        base = name.removesuffix("'")
        written = self.letters[base] if base in self.letters else _letter(base)
        if base in self.slots:
            return _indexed(written, "t" if name.endswith("'") else "t-1")
        return written + name[len(base) :]

    def product(self, a: Expression, b: Expression) -> str:
        left, right = self.within(a, MUL), self.within(b, MUL)
        return rf"{left} \cdot {right}" if right[0].isdigit() else rf"{left}\,{right}"

    def quotient(self, a: Expression, b: Expression) -> Written:
        return rf"\dfrac{{{self.whole(a)}}}{{{self.whole(b)}}}", POWER

    def power(self, a: Expression, b: Expression) -> str:
        return f"{{{self.within(a, ATOM)}}}^{{{self.whole(b)}}}"

    def choice(self, condition: Expression, yes: Expression, no: Expression) -> Written:
        cases = rf"{self.whole(yes)} & \text{{if }} {self.whole(condition)} \\ {self.whole(no)}"
        return rf"\begin{{cases}} {cases} & \text{{otherwise}} \end{{cases}}", OR

    def over_leaves(self, op: str, inner: Expression) -> Written:
        return rf"{_OVER_LEAVES[op]}_{{\mathrm{{leaves}}}} {self.within(inner, MATMUL)}", MATMUL

    def transposed(self, x: Expression) -> str:
        return rf"{{{self.within(x, ATOM)}}}^\top"

    def magnitude(self, x: Expression) -> str:
        return rf"\left|{self.whole(x)}\right|"

    def call(self, name: str, parts: tuple[Expression, ...], axes: tuple[str, ...]) -> str:
        shown = ", ".join(map(self.whole, parts))
        if name == "sqrt":
            return rf"\sqrt{{{shown}}}"
        index = rf"_{{\mathrm{{axis}}\,{','.join(axes)}}}" if axes else ""
        called = _FUNCTIONS.get(name) or rf"\operatorname{{{escaped(name)}}}"
        return f"{called}{index}{self.paren(shown)}" if shown else called

    def apart(self, x: Expression, uses: int) -> Iterator[Expression]:
        # A sum is broken where it is too long.
        while x.op not in ("add", "sub") and self.width(x) > WIDE:
            part = max((a for a in shown_parts(x) if a.parts), key=self.width, default=None)
            if part is None or self.width(part) < _LEAST:
                break
            yield self._named(part)
            del self.widths[x]
            self.known.pop(x, None)
        if uses and x.parts and (x.op == "where" or (uses > 1 and self.width(x) >= LONG)):
            yield self._named(x)

    def _named(self, x: Expression) -> Expression:
        self.widths[x] = 2
        return x

    def parts_called(self, taken: set[str]) -> Iterator[str]:
        return (f"x{i}" for i in itertools.count(1) if f"x{i}" not in taken)

    def width(self, x: Expression) -> float:
        """About how many letters wide it is; a fraction or a choice is as wide as its wider part."""
        if x not in self.widths:
            self.widths[x] = self._width(x)
        return self.widths[x]

    def _width(self, x: Expression) -> float:
        if x.op in ("number", "symbol"):
            return _letters_in(self.whole(x))
        widths = [self.width(part) for part in shown_parts(x)]
        if x.op in ("div", "divide"):
            return max(widths)
        if x.op == "where":
            return widths[0] + max(widths[1:]) + 4
        if x.op == "pow":
            return widths[0] + widths[1] / 2
        sign = {"add": 1, "sub": 1, "neg": 1, "mul": 0, "call": len(str(x.args[0]))}
        return sum(widths) + sign.get(x.op, 1 if x.op in _SIGNS else len(x.op)) + len(widths) - 1


def _letters_in(shown: str) -> int:
    """About how many letters some LaTeX is wide."""
    plain = re.sub(r"\\[a-z]+", "a", re.sub(r"\\(mathrm|cdot|,)", "", shown))
    return len(re.sub(r"[{}_^\\ ]", "", plain))


def _constants(shown: str) -> str:
    return shown.replace("inf", r"\infty").replace("pi", r"\pi")
