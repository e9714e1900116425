"""The steps of a program: units, which transform updates, and how parallel branches fork and join.

Parallel branches are operations on a stack of values, so that a program stays one list that can be cut
anywhere, also inside a branch. `through` runs such a list on values of any kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from gradtx.core.engine.leaves import Mask
from gradtx.core.numbers.paths import Path
from gradtx.core.spec.fields import Declared

ROWS = "rows"
"""The name under which a state says, for each leaf, in which row of the stacks its first matrix stands."""


@dataclasses.dataclass(frozen=True)
class Unit:
    """One step of a program that transforms updates: a rule, or a transform of whole trees."""

    path: Path
    transform: Any
    masks: tuple[Mask, ...]
    sources: dict[str, tuple[Path, str]]
    """For each hyperparameter of a rule, the scope and the argument that the state keeps it under."""
    stores: tuple[Any, ...] = ()
    """In which formats its slots are kept, as what is around it says; the last one is the nearest."""

    @property
    def where(self) -> str:
        """The name for errors; of another library's transform its own, and beside it that in the state."""
        name, its_own = ".".join(self.path), self.transform.its_own_name
        return f"{its_own} ({name})" if its_own else name


@dataclasses.dataclass(frozen=True)
class Fork:
    """Starts parallel branches: the value is kept beside a copy, which the first branch works on."""


@dataclasses.dataclass(frozen=True)
class Swap:
    """Ends a branch: its result is kept, and the next branch starts on what came into the fork."""


@dataclasses.dataclass(frozen=True)
class Join:
    """Ends the last branch: the results of all become one; on a leaf that is masked out the input passes."""

    branches: int
    how: Callable[..., Any]
    path: Path
    masks: tuple[Mask, ...] = dataclasses.field(compare=False)

    @property
    def where(self) -> str:
        """The name for errors."""
        return ".".join(self.path)


Step = Unit | Fork | Swap | Join


def through(
    steps: Iterable[Step],
    stack: list[Any],
    unit: Callable[[Unit, Any], Any],
    join: Callable[[Join, Any, list[Any]], Any],
    copy: Callable[[Any], Any] = lambda value: value,
) -> list[Any]:
    """Takes a stack of values through some steps; the value worked on is the last one.

    Args:
        steps: consecutive steps of a program, which may begin or end inside a branch.
        stack: the value worked on, after what open forks have kept.
        unit: `unit(step, value)`, what a unit makes of a value.
        join: `join(step, original, results)`, what a join makes of the branches' results and their input.
        copy: `copy(value)`, what a branch starts on.

    Returns:
        The stack after the steps.
    """
    for step in steps:
        *below, value = stack
        if isinstance(step, Unit):
            stack = [*below, unit(step, value)]
        elif isinstance(step, Fork):
            stack = [*below, value, copy(value)]
        elif isinstance(step, Swap):
            *rest, original = below
            stack = [*rest, value, original, copy(original)]
        else:
            *rest, original = below
            cut = len(rest) - step.branches + 1
            stack = [*rest[:cut], join(step, original, [*rest[cut:], value])]
    return stack


def is_declared(step: Any) -> bool:
    """Whether a step of a program declares its fields and slots: a rule or a wrapper."""
    return isinstance(step, Unit) and isinstance(step.transform, Declared)


def is_rule(step: Any) -> bool:
    """Whether a step of a program is a rule, which works leaf by leaf."""
    return is_declared(step) and not step.transform.whole
