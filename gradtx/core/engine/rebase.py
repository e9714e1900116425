"""Bringing an old state under the numbers of a transform."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np

from gradtx.core.engine.composed import Composed
from gradtx.core.engine.layout import check_slots, initial_numbers
from gradtx.core.engine.program import Program
from gradtx.core.engine.transform import Transform
from gradtx.core.numbers.hyperparams import array_of, by_name, entries_of, placed
from gradtx.core.numbers.paths import Path, lookup, replaced
from gradtx.core.numbers.schedule import CALLABLE, pack_schedules
from gradtx.core.numbers.states import restarted
from gradtx.core.spec.spec import show

T = TypeVar("T")


def rebase(tx: Transform, state: T) -> tuple[T, dict[str, tuple[Any, Any]]]:
    """Brings an old state under new settings: the slots and the step stay, every number comes from `tx`.

    Without it the numbers in the state are in force, whatever `tx` says.

    Args:
        tx: the transform with the new settings. Its slots must be those of the state.
        state: the old state, such as one that was restored.

    Returns:
        The new state, and what changed: a dict of names to (old, new), None where there was no such name.

    Raises:
        TypeError: `tx` is another library's, whose numbers are in its code.
        ValueError: the slots of `tx` are others than the state's.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> state = gradtx.adam(1e-3).init(jnp.zeros(3))
        >>> state, changes = gradtx.rebase(gradtx.adam(3e-4), state)
        >>> changes
        {'learning_rate': (0.001, 0.0003)}
    """
    if not isinstance(tx, Composed):
        raise TypeError(f"rebase takes a gradtx transform, whose numbers are in the state; got {show(tx)}.")
    new = rebased(tx.program, state)
    before, after = _settings(state), _settings(new)
    changes = {
        name: (before.get(name), after.get(name))
        for name in dict.fromkeys([*before, *after])
        if not np.array_equal(before.get(name, np.nan), after.get(name, np.nan))
    }
    return new, changes


def rebased(program: Program, state: Any) -> Any:
    """A state, whose numbers are not looked at, under those of a program."""
    check_slots(program, state)
    numbers, _ = initial_numbers(program)
    step = array_of(state["step"])
    if program.coded and not step.ndim:

        def record(path: Path, value: Any) -> None:
            lookup(numbers, path[:-1])[path[-1]] = value

        program.argument_values(numbers, step, record)
    numbers = jax.tree.map(
        lambda new: placed(new, new.dtype, step.shape + new.shape, step), pack_schedules(numbers)
    )
    slots = state["slots"]
    for path, part in program.wrapped.items():
        if isinstance(part, Composed):
            slots = replaced(slots, path, rebased(part.program, lookup(slots, path)))
    return {**state, "numbers": numbers, "slots": slots}


def started_anew(tx: Any, state: Any, params: Any) -> Any:
    """The state that `tx.init` makes for parameters, under the numbers in force in an old state.

    A leaf that is `None` in `params` keeps its slots.
    """

    def number(path: Any, new: Any, old: Any) -> Any:
        return new if path[-1].key == CALLABLE else old

    return restarted(tx.init(params), state, partial(jax.tree_util.tree_map_with_path, number))


def _settings(state: Any) -> dict[str, Any]:
    return {n: e.read() for n, e in by_name(entries_of(state)).items() if e.kind != "schedule"}
