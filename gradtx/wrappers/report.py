"""The report of a guard, read from a state: what was skipped, when, and which leaf was the first to fail."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from gradtx._pages import Block, Line, Page, Row, Table
from gradtx.core.engine import leaves as lv
from gradtx.core.numbers.hyperparams import array_of, states_of
from gradtx.core.numbers.states import INNER, kept_in
from gradtx.wrappers.blackbox import LIMIT_IS_KNOWN, LOSS_IS_KNOWN, MARKS, METRICS, Verdict
from gradtx.wrappers.guard import Guard


@dataclasses.dataclass(frozen=True)
class Step:
    """What a guard saw of one step.

    Attributes:
        step: its number, from 0.
        verdict: what the guard decided.
        loss: the loss, None where it was not given.
        gradient_norm: the norm of the gradient that the guard got.
        limit: the largest value of the watched number that was no spike; None where none was in force.
        leaf: the path of the first leaf that was not finite.
    """

    step: int
    verdict: Verdict
    loss: float | None
    gradient_norm: float
    limit: float | None
    leaf: str | None

    @property
    def skipped(self) -> bool:
        """Whether the step was skipped."""
        return self.verdict not in (Verdict.APPLIED, Verdict.NEW_LEVEL)

    def cells(self) -> list[str]:
        """The row of a table."""
        where = "" if self.leaf is None else f", first in {self.leaf!r}"
        numbers = (self.loss, self.gradient_norm, self.limit)
        return [
            str(self.step),
            *("-" if x is None else f"{x:.4g}" for x in numbers),
            self.verdict.words + where,
        ]


@dataclasses.dataclass(frozen=True)
class Report(Page):
    """What a guard has seen; it prints as a table.

    Attributes:
        name: the guard's path in the state.
        steps: the number of steps so far, skipped ones among them.
        skipped: the number of steps that were skipped.
        in_a_row: how many of them were the last ones.
        first_step: the step of the first fault, None if there was none.
        first_leaf: the path of the first leaf that was not finite then.
        faults: for each leaf that ever was not finite, by path, at how many steps.
        last: the last steps, at most 32, in order.
    """

    name: str
    steps: int
    skipped: int
    in_a_row: int
    first_step: int | None
    first_leaf: str | None
    faults: dict[str, int]
    last: tuple[Step, ...]

    def blocks(self) -> list[list[Block]]:
        """What it says."""
        head = f"{self.name}: {self.skipped} of {self.steps} steps skipped, {self.in_a_row} in a row"
        if self.first_step is not None:
            head += f"; the first fault was at step {self.first_step} in {self.first_leaf!r}"
        names = ["step", *METRICS, ""]
        rows = [Row(step.cells()) for step in self.last]
        return [[Line(head), Table(names, rows, ">" * (len(names) - 1) + "<")]]


def report(x: Any, name: str = "") -> Report:
    """What a `guard` has seen: the steps it skipped and why, and the leaf that was the first to fail.

    Args:
        x: an optimizer state, or what holds one: a `TrainState`, an `nnx.Optimizer`, another library's state.
        name: which guard, if there are several: its path in the state or the end of it, such as
            `'heads/guard'`.

    Returns:
        A `Report`, which prints as a table of the last 32 steps. What it says can also be read as attributes:
        `skipped`, `in_a_row`, `first_step`, `first_leaf`, `faults`, and `last`, the steps.

    Raises:
        TypeError: there is no gradtx state in `x`, or it is traced.
        ValueError: there is no guard of that name, or more than one; or the state is a batch of states.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.guard(gradtx.sgd(0.1))
        >>> params = {"w": jnp.ones(2)}
        >>> _, state = tx.update({"w": jnp.array([1.0, jnp.nan])}, tx.init(params), params)
        >>> gradtx.report(state).first_leaf
        'w'
        >>> print(gradtx.report(state))
        guard: 1 of 1 steps skipped, 1 in a row; the first fault was at step 0 in 'w'
        step  loss  gradient_norm  limit
           0     -            nan      -  skipped: gradient not finite, first in 'w'
    """
    states_of(x)
    found = [
        ("/".join(kept.path).replace(".", "/"), kept.slots, kept.state["step"])
        for kept in kept_in(x)
        if set(kept.slots) == _KEYS
    ]
    chosen = [guard for guard in found if f"/{guard[0]}".endswith(f"/{name}" if name else "")]
    chosen = [guard for guard in chosen if guard[0] == name] or chosen
    if len(chosen) != 1:
        wanted = f" called {name!r}" if name else ""
        count = "no guard" if not chosen else f"more than one guard ({len(chosen)})"
        known = ", ".join(path for path, _, _ in found)
        names = f" There are {known}; give one of these names." if found else ""
        raise ValueError(f"There is {count}{wanted} in this {type(x).__name__}.{names}")
    return _read(*chosen[0])


_KEYS = {*Guard.slots, *Guard.scalars, INNER}


def _read(name: str, node: Any, step: Any) -> Report:
    paths = lv.paths(node["faults"])
    if np.ndim(array_of(node["skipped"])):
        raise ValueError(
            "This is a batch of states: report one of them, as in jax.tree.map(lambda x: x[0], state)."
        )
    leaves = lv.flatten(node["faults"])[0]
    counts = {path: int(_host(n)) for path, n in zip(paths, leaves, strict=True) if n is not None}
    first_step, first_leaf = _host(node["first"])
    metrics, marks = _host(node["metrics"]), _host(node["marks"])
    rows = sorted(zip(marks.tolist(), metrics.tolist(), strict=True))
    return Report(
        name=name,
        steps=int(_host(step)),
        skipped=int(_host(node["skipped"])),
        in_a_row=int(_host(node["in_a_row"])),
        first_step=int(first_step) if first_leaf >= 0 else None,
        first_leaf=paths[first_leaf] if first_leaf >= 0 else None,
        faults={path: n for path, n in counts.items() if n},
        last=tuple(_step(mark, metric, paths) for mark, metric in rows if mark[0] >= 0),
    )


def _step(mark: list[int], metric: list[float], paths: list[str]) -> Step:
    marks, metrics = dict(zip(MARKS, mark, strict=True)), dict(zip(METRICS, metric, strict=True))
    return Step(
        step=marks["step"],
        verdict=Verdict(marks["verdict"]),
        loss=metrics["loss"] if marks["known"] & LOSS_IS_KNOWN else None,
        gradient_norm=metrics["gradient_norm"],
        limit=metrics["limit"] if marks["known"] & LIMIT_IS_KNOWN else None,
        leaf=paths[marks["leaf"]] if marks["leaf"] >= 0 else None,
    )


def _host(x: Any) -> np.ndarray:
    """An array of a state on the host, where it must be one state's."""
    array = array_of(x)
    if isinstance(array, jax.ShapeDtypeStruct):
        raise TypeError("This state is abstract (jax.ShapeDtypeStruct): a report needs the arrays of one.")
    return np.asarray(array)
