"""Finds the step of each chain: Optax keeps a counter in each transform, gradtx one for a whole chain."""

from __future__ import annotations

from typing import Any

from gradtx.core.engine.composed import Composed
from gradtx.interop.fitting import count, depends_on_step
from gradtx.interop.optax.match import Clock, Link


def settle(clock: Clock, arrays: list[Any], given: int | None) -> None:
    """Sets the step of every clock: from its counters, from what it wraps, or as given; else 0.

    Raises where they disagree, and where nothing says the step and something depends on it.
    """
    _inwards(clock, arrays)
    if given is not None:
        if clock.step is not None and clock.step != given:
            raise ValueError(
                f"step={given} was given, and the Optax state is at step {clock.step}. Leave it out."
            )
        clock.step = count(given, "step")
    _outwards(clock, arrays)
    for part in clock.every():
        if part.step is not None:
            continue
        needs = depends_on_step(part.tx.program) if isinstance(part.tx, Composed) else ""
        if needs:
            remedy = (
                "Pass step=, the number of updates made so far."
                if part is clock
                else "Give tx a number, or a rule, that does not depend on it there."
            )
            raise ValueError(
                f"{part.where} does not say how many updates were made, and {needs} of tx depends on it. "
                f"{remedy}"
            )
        part.step = 0


def _inwards(clock: Clock, arrays: list[Any]) -> None:
    """Takes what the counters say, the innermost first."""
    counted = {where: count(arrays[i], where) for where, i in clock.reading.counters}
    if len(set(counted.values())) > 1:
        listed = ", ".join(f"{where} is {n}" for where, n in counted.items())
        raise ValueError(
            f"The counters of the Optax state disagree, and a chain of gradtx has one step: {listed}. If one "
            f"of them was started anew on purpose, set them to one number first."
        )
    clock.step = next(iter(counted.values()), None)
    for link in clock.links:
        if link.inner is not None:
            _inwards(link.inner, arrays)
            _relate(link, clock, arrays)


def _outwards(clock: Clock, arrays: list[Any]) -> None:
    """Tells what is wrapped the step of the chain, where they are the same."""
    for link in clock.links:
        if link.inner is not None:
            _relate(link, clock, arrays)
            _outwards(link.inner, arrays)


def _relate(link: Link, clock: Clock, arrays: list[Any]) -> None:
    inner = link.inner
    assert inner is not None
    values = {name: arrays[i] for name, i in link.whole().items() if isinstance(i, int)}
    rule = link.target.unit.transform
    for mine, said in zip((clock, inner), link.row.steps(rule, values, clock.step, inner.step), strict=True):
        if mine.step is not None and said != mine.step:
            raise ValueError(
                f"The counters of the Optax state disagree: {mine.where} is at step {mine.step}, and "
                f"{link.item.where} at step {said}. Set them to one number first."
            )
        mine.step = said
