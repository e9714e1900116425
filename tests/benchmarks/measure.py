"""Measuring side by side: contestants take turns in short rounds, so that other load hits all of them."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

BASE = "base"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: what gradtx and what it is compared with cost, and what was promised."""

    case: str
    variant: str
    gradtx: str
    base: str
    ratio: str
    fastest: str
    target: str
    met: bool | None


def show_seconds(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def take_turns(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The seconds that each contestant reports in each round; the one who starts changes every round."""
    names, seconds = list(contestants), {name: [] for name in contestants}
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(contestants[name]())
    return seconds


def rows(case: str, seconds: dict[str, list[float]], target: float | None) -> list[Row]:
    """The medians, the median of each round's ratio to the base, and the ratio of the fastest rounds."""
    base = seconds[BASE]
    result = []
    for variant, own in seconds.items():
        if variant == BASE:
            continue
        ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
        result.append(
            Row(
                case,
                variant,
                show_seconds(statistics.median(own)),
                show_seconds(statistics.median(base)),
                f"{ratio:.3f}",
                f"{min(own) / min(base):.3f}",
                "" if target is None else f"<= {target}",
                None if target is None else ratio <= target,
            )
        )
    return result


def owning(step: Callable[..., Any], held: Any, grads: Any) -> Callable[[], Any]:
    """A call of a step that owns its parameters and state, which are donated each time; one has been made."""

    def call() -> Any:
        nonlocal held
        held = step(*held, grads)
        return held

    jax.block_until_ready(call())
    return call


def wall(call: Callable[[], Any], times: int) -> Callable[[], float]:
    """Seconds for one call, over `times` calls and until the last result is there."""

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(times):
            result = call()
        jax.block_until_ready(result)
        return (time.perf_counter() - start) / times

    return measure


def processor(parts: Sequence[Callable[[Any], Any]]) -> list[float]:
    """The process's CPU seconds in each of `parts`, where each is given what the one before it returned."""
    seconds, value = [], None
    for part in parts:
        start = time.process_time()
        value = part(value)
        seconds.append(time.process_time() - start)
    return seconds
