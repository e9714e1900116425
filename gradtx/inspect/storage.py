"""Slots in 16 bits and in formats that lose what they should remember, found by computing their formulas."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine.formats import FORMATS
from gradtx.core.engine.steps import Unit, is_rule
from gradtx.core.spec.fields import AT_RANDOM
from gradtx.formulas.expression import symbols
from gradtx.formulas.numeric import Evaluator
from gradtx.formulas.trace import Traced, composed, trace
from gradtx.inspect.kept_slots import KeptSlot, kept_slots
from gradtx.inspect.survey import Surveyed

GRADIENT = 1e-4
"""An ordinary gradient of a large model."""
SMALL, LARGE = 1e-2, 1e3
"""Gradients that are small and large beside what a slot of 1 remembers."""
LATER = 10
"""A step at which a first one is no longer special."""

PARTS = np.concatenate([[1.0], np.logspace(-4, 0, 40)[:-1], [1.0]])
"""The elements of a block, as parts of its largest; the last one fills up a pair."""


class Loss(enum.Enum):
    """How a slot loses what it should remember."""

    STUCK = "it never decays: with no gradient a value of 1 stays 1"
    FOLLOWS = "its elements move with the largest of their block alone"
    STOPS = "it is a sum that stops growing"
    DRIFTS = "it never decays, and is rounded anew with the largest of its block"
    UNDERFLOWS = "an ordinary gradient leaves no trace in it"


@dataclasses.dataclass(frozen=True)
class Lossy:
    """A slot that loses what it should remember.

    Attributes:
        unit: the place in the state of its transform.
        slot: its name.
        form: its format or dtype.
        loss: how it loses it.
        written: the code that gives it another format.
        better: the format to take instead.
        leaves: the paths of its leaves.
    """

    unit: str
    slot: str
    form: str
    loss: Loss
    written: Callable[[str], str]
    better: str
    leaves: tuple[str, ...]


def lossy_slots(level: Surveyed) -> Iterator[Lossy]:
    """The slots in 16 bits or in a format that lose what float32 would keep."""
    for inner in level.levels():
        program, traces = inner.program, dict[Any, Traced]()
        for slot in kept_slots(inner, inside=False):
            unit, name = program.unit_at.get(slot.path[:-1]), slot.path[-1]
            if unit is None or not is_rule(unit) or name not in unit.transform.slots:
                continue
            for form, leaves in _by_form(slot):
                if unit.path not in traces:
                    shape = jax.ShapeDtypeStruct((2, 2), np.float32)
                    traces[unit.path] = trace(composed(unit.transform), shape, 0)
                after = _Slot.of(traces[unit.path], name)
                for loss, better in [] if after is None else _losses(after, form, unit, name):
                    yield Lossy(unit.where, name, form, loss, _written(unit, name), better, leaves)


def _by_form(slot: KeptSlot) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The formats and the dtypes of 16 bits of a slot, each with the paths of its leaves."""
    for form in slot.forms:
        if form in FORMATS or form in ("bfloat16", "float16"):
            arrays = tuple(x for x in slot.arrays if x.form == form)
            paths = (path for path, *_ in dataclasses.replace(slot, arrays=arrays).parts())
            yield form, tuple(dict.fromkeys(paths))


def _written(unit: Unit, name: str) -> Callable[[str], str]:
    """What writes the code that gives a slot a format: where it was given one, or around the transform."""
    field = unit.transform.slots[name].dtype
    is_said = any(storage.named(unit, name)[1] for storage in unit.stores)
    if isinstance(field, str) and unit.transform.__dict__[field] is not None and not is_said:
        return lambda form: f"{field}={form!r}"
    return lambda form: f"gradtx.store(tx, {name}={form!r})"


def _losses(after: _Slot, form: str, unit: Unit, name: str) -> Iterator[tuple[Loss, str]]:
    """How a slot loses what it should remember in a format, and the format to take instead."""
    format, at_random = FORMATS[form], f"{form.removesuffix('_stochastic')}_stochastic"
    if at_random not in AT_RANDOM:
        at_random = f"{'uint8' if unit.transform.slots[name].nonnegative else 'int8'}_stochastic"
    one = np.ones(1)
    never_decays = after(one, 0.0) == 1
    is_sum = after(one, SMALL) > 1
    if format.scaled:
        if never_decays and (is_sum or after(one, LARGE) > 1):
            yield Loss.DRIFTS, "bfloat16_stochastic" if is_sum else "bfloat16"
        elif not never_decays and not format.stochastic and _follows(after, form):
            yield Loss.FOLLOWS, at_random
        return
    if not format.stochastic:
        if not never_decays and _stored(after(one, 0.0), form) == 1:
            yield Loss.STUCK, at_random
        if never_decays and is_sum and _stored(after(one, SMALL), form) == 1:
            yield Loss.STOPS, at_random
    # Where it is rounded at random, most of the time nothing is there to divide an update by.
    traces = after(np.zeros(1), GRADIENT)
    if traces != 0 and _stored(traces, form) == 0:
        yield Loss.UNDERFLOWS, "float32"


def _follows(after: _Slot, form: str) -> bool:
    """Whether most elements of a block stay as they are without a gradient while the largest has one."""
    before = _stored(PARTS, form)
    new = after(before, 0.0)
    new[[0, -1]] = 1.0
    there = (before != 0) & (before < 1)
    return bool(there.any() and np.mean((_stored(new, form) == before)[there]) > 0.5)


def _stored(values: np.ndarray, form: str) -> np.ndarray:
    """Values of one block after they were stored, rounded to the nearest."""
    format = FORMATS[form]
    x = jnp.asarray(values, np.float32)
    return np.asarray(format.decode(*format.encode(x, (1,), None)), float)


@dataclasses.dataclass(frozen=True)
class _Slot:
    """A slot of a traced rule, to be computed."""

    traced: Traced
    cell: Any

    @classmethod
    def of(cls, traced: Traced, name: str) -> _Slot | None:
        """The slot of a name; None of one that the formula has not."""
        cells = (c for c in traced.cells if c.kind == "slot" and c.name.rpartition(".")[2] == name)
        cell = next(cells, None)
        return None if cell is None else cls(traced, cell)

    def __call__(self, before: np.ndarray, gradient: float) -> np.ndarray:
        """Its elements after a gradient."""
        cells = self.traced.cells
        starts = Evaluator([cell.start for cell in cells])({"theta": 0.0})
        values: dict[str, Any] = dict.fromkeys(symbols(self.cell.new), 0.0) | {"g": gradient}
        for other, start in zip(cells, starts, strict=True):
            values[other.name] = start + LATER if other.kind == "step" else start
        (new,) = Evaluator([self.cell.new])(values | {self.cell.name: before})
        return np.broadcast_to(np.asarray(new, float), before.shape).copy()
