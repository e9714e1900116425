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
        begun = [where for where, is_first in _flags(part, arrays).items() if not is_first]
        if part.step == 0 and begun:
            raise ValueError(
                f"{part.where} is at step 0, and {begun[0]} says that the first update was made. Give both "
                f"what is so."
            )
        if part.step is not None:
            continue
        needs = depends_on_step(part.tx.program) if isinstance(part.tx, Composed) else ""
        if needs or begun:
            remedy = (
                "Pass step=, the number of updates made so far."
                if part is clock
                else "Give tx a number, or a rule, that does not depend on it there."
            )
            needed = f"{needs} of tx depends on it" if needs else f"{begun[0]} says that there was one"
            raise ValueError(f"{part.where} does not say how many updates were made, and {needed}. {remedy}")
        part.step = 0


def _flags(clock: Clock, arrays: list[Any]) -> dict[str, bool]:
    """What says whether the first step is still to come, by where it stands in the Optax state."""
    return {
        f"{link.item.where}.{link.row.is_first}": bool(arrays[getattr(link.item.state, link.row.is_first)])
        for link in clock.links
        if link.row.is_first
    }


def _inwards(clock: Clock, arrays: list[Any]) -> None:
    """Takes what the counters say, the innermost first."""
    counted = {c.where: count(arrays[c.position], c.where) - c.first for c in clock.reading.counters}
    counted |= {where: 0 for where, is_first in _flags(clock, arrays).items() if is_first}
    if len(set(counted.values())) > 1:
        listed = ", ".join(f"{where} is {n}" for where, n in counted.items())
        raise ValueError(
            f"The counters of the Optax state disagree, and a chain of gradtx has one step: {listed}. If one "
            f"of them was started anew on purpose, set them to one number first."
        )
    clock.step = next(iter(counted.values()), None)
    for link in clock.links:
        for name, inner in link.inner.items():
            _inwards(inner, arrays)
            _relate(link, name, clock, arrays)


def _outwards(clock: Clock, arrays: list[Any]) -> None:
    """Tells what is wrapped the step of the chain, where they are the same."""
    for link in clock.links:
        for name, inner in link.inner.items():
            _relate(link, name, clock, arrays)
            _outwards(inner, arrays)


def _relate(link: Link, name: str, clock: Clock, arrays: list[Any]) -> None:
    inner, steps = link.inner[name], link.row.inner[name].steps
    values = {name: arrays[i] for name, i in link.whole().items() if isinstance(i, int)}
    rule = link.target.unit.transform
    for mine, said in zip((clock, inner), steps(rule, values, clock.step, inner.step), strict=True):
        if mine.step is not None and said != mine.step:
            raise ValueError(
                f"The counters of the Optax state disagree: {mine.where} is at step {mine.step}, and "
                f"{link.item.where} at step {said}. Set them to one number first."
            )
        mine.step = said
