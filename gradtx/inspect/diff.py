"""Where two optimizers part, and which setting or convention is responsible."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import numpy as np

from gradtx._pages import Block, Code, Line, Page, Row, Sentences, Table, filled
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.protocol import AnyTransform, Params
from gradtx.core.spec.spec import show
from gradtx.formulas.formula import present
from gradtx.formulas.notation import text
from gradtx.inspect.changes import Change, Comparison
from gradtx.inspect.divergence import Divergence, apart, divergences, representatives, steps_for
from gradtx.inspect.trajectory import LATER, Followed

LONGEST = 6
"""The number of lines of a formula that a report shows; `formula` has all of it."""

SAMPLE = {
    "LayerNorm": {"bias": (256,), "scale": (256,)},
    "dense": {"bias": (256,), "kernel": (256, 256)},
    "temperature": (),
}
"""The shapes of the leaves that optimizers are compared on where no parameters are given."""


@dataclasses.dataclass(frozen=True)
class Parting:
    """Where two optimizers part.

    Attributes:
        step: the step, from 0.
        name: the slot, the schedule, or `"update"`.
        leaf: the path of the leaf; None for what is the whole tree's.
        a: the value that the first optimizer has there; its layout, if nothing else differs; None for what
            has no formula.
        b: the value that the second one has.
    """

    step: int
    name: str
    leaf: str | None
    a: float | str | None
    b: float | str | None

    @property
    def relative(self) -> float:
        """The difference of the two values relative to the larger one; NaN for what is no number."""
        if not isinstance(self.a, float) or not isinstance(self.b, float):
            return math.nan
        return abs(self.a - self.b) / (max(abs(self.a), abs(self.b)) or 1.0)

    def __str__(self) -> str:
        what = self.name if self.leaf is None else f"the {self.name} of {self.leaf!r}"
        if self.a is None or self.b is None:
            return f"step {self.step:,} in {what}"
        if isinstance(self.a, str) or isinstance(self.b, str):
            return f"step {self.step:,} in {what}: stored as {self.a} and as {self.b}"
        digits = next((n for n in range(4, 17) if f"{self.a:.{n}g}" != f"{self.b:.{n}g}"), 17)
        return f"step {self.step:,} in {what}: {self.a:.{digits}g} and {self.b:.{digits}g}"


@dataclasses.dataclass(frozen=True, repr=False)
class Difference(Page):
    """What `diff` found: true if the optimizers part. It prints as a report.

    Attributes:
        a: the first optimizer.
        b: the second one.
        first: where they first part, in a slot, an update or a schedule; None if they do not.
        update: where their updates first part; None if they do not.
        causes: the fewest differences in what is written without which they would not part there.
        others: the other differences in what is written.
        formulas: what first parts, as each of them computes it.
        opaque: slots, or `"update"`, that have no formula, since loops or the like compute them: they are
            told apart by what they are computed from.
        steps: the number of steps that they were followed for.
        rounding: where they part by no more than that a state rounds its numbers, which is no difference;
            None if they do not, or part otherwise before.
    """

    a: Any
    b: Any
    first: Parting | None
    update: Parting | None
    causes: tuple[Change, ...]
    others: tuple[Change, ...]
    formulas: tuple[str, str] | None
    opaque: tuple[str, ...]
    steps: int
    rounding: Parting | None = None

    def __bool__(self) -> bool:
        return self.first is not None

    def blocks(self) -> list[list[Block]]:
        """What it says."""
        blocks: list[Block] = [Code("a:", show(self.a)), Code("b:", show(self.b))]
        if self.opaque:
            names = ", ".join(self.opaque)
            blocks.append(Sentences([f"Compared by what it is computed from, having no formula: {names}."]))
        if self.first is None or self.formulas is None:
            same = "compute the same" if self.rounding is None else "compute the same up to rounding,"
            text = f"They {same} for {self.steps} steps, and at some later ones up to {LATER[-1]:,}."
            return [[*blocks, Line(text), *self._rounding(), *_listed("Written differently:", self.others)]]
        blocks += [Line(f"They part at {self.first}."), *self._rounding()]
        if self.update is None:
            blocks.append(Line(f"Their updates are the same for {self.steps} steps."))
        elif self.update != self.first:
            blocks.append(Line(f"Their updates part at {self.update}."))
        blocks += _listed("Because of:", self.causes)
        if not self.causes:
            blocks.append(Line("They are written alike, so it is their code."))
        blocks += _listed("Also different:", self.others)
        if len({*self.formulas}) > 1 or not self.causes:
            name = self.first.name
            blocks += [
                Code(f"{x}: {name} =", code, LONGEST) for x, code in zip("ab", self.formulas, strict=True)
            ]
        return [blocks]

    def __repr__(self) -> str:
        return str(self)

    def _rounding(self) -> list[Block]:
        if self.rounding is None:
            return []
        relative = self.rounding.relative
        much = "" if math.isnan(relative) else f"by {relative:.0e} of the value, "
        before = (
            "Before that they differ by rounding alone" if self.first else "They differ by rounding alone"
        )
        text = (
            f"{before}, since a state keeps each number as the nearest that float32 has; with exact numbers "
            f"they would not. They first do {much}at {self.rounding}."
        )
        return [Sentences([text])]


@dataclasses.dataclass(frozen=True)
class Changes(Block):
    """Differences in what is written, under a title."""

    title: str
    changes: Sequence[Change]

    def lines(self) -> list[str]:
        return [self.title, *(line for change in self.changes for line in filled(str(change), "    "))]

    def html(self) -> str:
        rows = [Row([x.where, x.a or "-", x.b or "-", x.meaning]) for x in self.changes]
        return Line(self.title).html() + Table(["", "a", "b", ""], rows, "<<<<").html()


def _listed(title: str, changes: Sequence[Change]) -> list[Block]:
    return [Changes(title, changes)] if changes else []


def diff(tx_a: AnyTransform, tx_b: AnyTransform, params: Params = None) -> Difference:
    """Where two optimizers part: the first step, slot and leaf, and the setting or convention responsible.

    Both are traced and followed in float64 on the same gradients, which have several magnitudes, on one leaf
    of each set of leaves that they treat alike. It works from shapes, so that parameters of any size will do.
    What is written differently is then made equal, one change after the other, to see which of it matters.

    Args:
        tx_a: a transform of any library.
        tx_b: another one.
        params: the parameters, arrays or `jax.ShapeDtypeStruct`s; by default a kernel, biases and scales.

    Returns:
        The difference. It prints as a report, and is true where the optimizers part.

    Raises:
        ValueError: a mask or the labels of an optimizer do not fit the parameters.

    Examples:
        >>> import gradtx
        >>> found = gradtx.diff(gradtx.adam(1e-3), gradtx.adam(1e-3, eps=0.0, eps_root=1e-8))
        >>> found.first.step, found.first.name, [change.where for change in found.causes]
        (0, 'update', ['adam.eps', 'adam.eps_root'])
    """
    if params is None:
        params = jax.tree.map(
            lambda shape: jax.ShapeDtypeStruct(shape, np.float32),
            SAMPLE,
            is_leaf=lambda x: isinstance(x, tuple),
        )
    leaves, written = representatives(tx_a, tx_b, params), Comparison(tx_a, tx_b)
    a, b = Followed(tx_a, params, leaves), Followed(tx_b, params, leaves)
    steps = steps_for(a, b, leaves)
    found = divergences(a, b, leaves, steps)
    first = found[0] if found else None
    causes: list[int] = []
    if first is not None:
        of_first = [first.trajectories[0].leaf]
        causes = _causes(
            written,
            lambda tx: divergences(a, Followed(tx, params, leaves), of_first, steps),
            first.order,
        )
    rounded = apart(a, b, leaves, steps)
    if first and rounded and rounded[0].order >= first.order:
        rounded = []
    partings = [_parting(divergence, lv.paths(params)) for divergence in found]
    return Difference(
        a=tx_a,
        b=tx_b,
        first=partings[0] if first else None,
        update=next((p for p in partings if p.name == "update"), None),
        causes=tuple(written.changes[i] for i in causes),
        others=tuple(change for i, change in enumerate(written.changes) if i not in causes),
        formulas=(_formula(first, 0), _formula(first, 1)) if first else None,
        opaque=tuple(sorted(a.opaque | b.opaque)),
        steps=steps,
        rounding=_parting(rounded[0], lv.paths(params)) if rounded else None,
    )


def _parting(divergence: Divergence, paths: list[str]) -> Parting:
    leaf = None if divergence.leaf is None else paths[divergence.leaf]
    return Parting(divergence.step, divergence.names[0], leaf, *divergence.values)


def _formula(divergence: Divergence, which: int) -> str:
    """What parts, as one of the two optimizers computes it."""
    shown = present(divergence.trajectories[which].traced)
    return text({**shown.definitions, **shown.slots, "update": shown.update}[divergence.names[which]])


def _causes(
    written: Comparison, parted: Callable[[Any], list[Divergence]], order: tuple[int, ...]
) -> list[int]:
    """The fewest changes, by trying, that keep the second optimizer with the first one past a divergence."""

    def keeps(chosen: Collection[int]) -> bool:
        try:
            found = parted(written.render(chosen))
        except (TypeError, ValueError):
            return False  # these arguments have no meaning together
        return not found or found[0].order > order

    every = range(len(written.changes))
    if len(every) == 1:
        return [0]
    alone = next((i for i in every if keeps([i])), None)
    if alone is not None:
        return [alone]
    needed = list(every)
    if keeps(needed):
        for i in every:
            fewer = [j for j in needed if j != i]
            needed = fewer if keeps(fewer) else needed
    return needed
