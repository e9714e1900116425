"""The learning rate that a transform gives a leaf, where torch has one number for a parameter group."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from gradtx.core.engine.kernels import with_values
from gradtx.core.engine.steps import Unit
from gradtx.core.numbers.hyperparams import tidy
from gradtx.core.numerics import number_dtype

RATE = "scale_by_learning_rate"
MULTIPLIERS = ("scale", "scale_by_schedule", "negate", RATE)
UNTOLD = "scale_by_param_block_rms"
"""Multiplies by what depends on the parameters."""

Arguments = dict[Any, Any]
"""The hyperparameters of a program at a step."""


def is_multiplier(unit: Unit) -> bool:
    """Whether it multiplies the update by a number."""
    return unit.transform.name in MULTIPLIERS


def is_scheduled(unit: Unit) -> bool:
    """Whether a number of it is a schedule."""
    return any(callable(unit.transform.__dict__[field]) for field in unit.sources)


def in_rate(units: list[Unit]) -> list[Unit]:
    """The units that make up the rate of a leaf: the multipliers, but for those of the gradient.

    Before the first unit of the optimizer a multiplier scales the gradient, as one may scale a loss.
    """
    optimizer = [u.transform.name == RATE or _is_counted(u) for u in units]
    first = optimizer.index(True) if any(optimizer) else 0
    return [u for u in units[first:] if is_multiplier(u)]


def misplaced(units: list[Unit]) -> Iterator[str]:
    """The multipliers that scale a part of the update, in words: what follows adds to it or rescales it."""
    inside = in_rate(units)
    for i, unit in enumerate(units):
        later = [u for u in units[i + 1 :] if _is_counted(u)]
        later = [u.transform.name for u in later if u.transform.name != "trace"]
        if unit in inside and unit.transform.name != RATE and later:
            yield f"{unit.transform.name} stands before {later[0]} in tx"


def factor(units: list[Unit], arguments: Arguments) -> float:
    """The product of some multipliers, with its sign."""
    # A multiplier's factor is what it makes of 1.
    factors = [tidy(np.asarray(with_values(u, arguments).apply(1.0, {}, None)[0])) for u in units]
    return tidy(np.asarray(np.prod(factors), number_dtype()))


@dataclasses.dataclass(frozen=True)
class Rate:
    """What stands for torch's `lr` at a leaf.

    Attributes:
        value: the rate in force.
        climbs: whether the update goes up the gradient.
        is_scheduled: whether a part of it is a schedule.
        is_told: whether it is all that multiplies the update.
    """

    value: float
    climbs: bool
    is_scheduled: bool
    is_told: bool


def rate_of(units: list[Unit], arguments: Arguments) -> Rate:
    """The rate that the units of a leaf give it."""
    inside = in_rate(units)
    return Rate(
        value=abs(factor(inside, arguments)),
        climbs=factor([u for u in units if is_multiplier(u)], arguments) > 0,
        is_scheduled=any(map(is_scheduled, inside)),
        is_told=all(u.transform.name != UNTOLD for u in units),
    )


def is_frozen(units: list[Unit]) -> bool:
    """Whether the update is set to zero and stays zero to the end."""
    names = [unit.transform.name for unit in units]
    return "set_to_zero" in names and not any(map(_is_counted, units[names.index("set_to_zero") :]))


def _is_counted(unit: Unit) -> bool:
    """Whether it makes or decays the update, so that its place among the multipliers matters."""
    return bool(unit.transform.slots) or unit.transform.name == "add_decayed_weights"
