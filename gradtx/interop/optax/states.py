"""Reading a state of Optax: what it consists of, in the order of its chain, and where each part stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from gradtx.core.numbers.states import is_state
from gradtx.interop.optax.table import COUNTERS, GROUPS, INJECTED, MEASURED, ROWS

KNOWN = {row.state for rows in ROWS.values() for row in rows}
BEFORE = {row.state: row.before for rows in ROWS.values() for row in rows if row.before}


@dataclasses.dataclass(frozen=True)
class Item:
    """One state of Optax with content: `state` has the position of each array in its place."""

    state: Any
    where: str
    groups: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The name of its class."""
        return type(self.state).__name__


@dataclasses.dataclass(frozen=True)
class Injected:
    """Hyperparameters that Optax keeps: the position of each by name, but for those that schedules set."""

    positions: dict[str, int]
    where: str
    groups: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Counter:
    """A counter of steps: its position, and what it says before the first step."""

    where: str
    position: int
    first: int = 0


@dataclasses.dataclass
class Reading:
    """What was read: content in order, counters of steps, and injected hyperparameters."""

    items: list[Item] = dataclasses.field(default_factory=list)
    counters: list[Counter] = dataclasses.field(default_factory=list)
    injected: list[Injected] = dataclasses.field(default_factory=list)
    order: Sequence[str] = ()


def numbered(state: Any) -> tuple[list[Any], Any]:
    """The arrays of a state, and the state with their positions in their place."""
    leaves, structure = jax.tree.flatten(state)
    return leaves, structure.unflatten(range(len(leaves)))


def read(state: Any, where: str, order: Sequence[str] = ()) -> Reading:
    """What a numbered state consists of; `order` is that of the names of a chain with names."""
    reading = Reading(order=order)
    _read(state, where, (), reading)
    return reading


def _is_masked(x: Any) -> bool:
    return type(x).__name__ == "MaskedNode"


def unmasked(tree: Any) -> Any:
    """A tree with None where Optax masks a leaf out."""
    return jax.tree.map(lambda x: None if _is_masked(x) else x, tree, is_leaf=_is_masked)


def _read(state: Any, where: str, groups: tuple[str, ...], into: Reading) -> None:
    kind = type(state).__name__
    if state is None or kind in MEASURED or (hasattr(state, "_fields") and not _has_content(state)):
        return
    if is_state(state):
        raise TypeError(f"{where} is a state of gradtx already; a state of Optax is wanted.")
    if kind in COUNTERS:
        into.counters.append(Counter(f"{where}.{COUNTERS[kind]}", getattr(state, COUNTERS[kind])))
    elif kind in INJECTED and not _has_stateful_schedules(state):
        into.counters.append(Counter(f"{where}.count", state.count))
        scheduled = getattr(state, "hyperparams_states", {})
        for name, inner in scheduled.items():
            _read(inner, f"{where}.hyperparams_states[{name!r}]", groups, into)
        constants = {k: v for k, v in state.hyperparams.items() if k not in scheduled}
        into.injected.append(Injected(constants, f"{where}.hyperparams", groups))
        _read(state.inner_state, f"{where}.inner_state", groups, into)
    elif kind in GROUPS:
        for label, inner in state.inner_states.items():
            _read(inner, f"{where}.inner_states[{label!r}]", (*groups, str(label)), into)
    elif kind == "MaskedState":
        _read(state.inner_state, f"{where}.inner_state", groups, into)
    elif hasattr(state, "_fields"):
        if kind in BEFORE:
            _read(getattr(state, BEFORE[kind]), f"{where}.{BEFORE[kind]}", groups, into)
        into.items.append(Item(state, where, groups))
    elif isinstance(state, Mapping | tuple | list):
        for key, part in _children(state, into.order):
            _read(part, f"{where}[{key!r}]", groups, into)
    else:
        raise TypeError(
            f"{where} is no state of an Optax transform. If it comes from a checkpoint, restore it into the "
            f"structure of what the Optax optimizer's init gives, so that its named tuples come back."
        )


def _children(state: Any, order: Sequence[str]) -> list[tuple[Any, Any]]:
    """The parts of a chain; JAX sorts the keys of a dict, which is another order than the chain's."""
    if not isinstance(state, Mapping):
        return list(enumerate(state))
    return sorted(state.items(), key=lambda part: order.index(part[0]) if part[0] in order else len(order))


def _has_content(state: Any) -> bool:
    return type(state).__name__ in KNOWN or bool(jax.tree.leaves(state))


def _has_stateful_schedules(state: Any) -> bool:
    scheduled = getattr(state, "hyperparams_states", {})
    return any(type(s).__name__ not in COUNTERS for s in scheduled.values())
