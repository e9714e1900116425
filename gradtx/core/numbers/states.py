"""What a state says of itself: which states there are in an object, and what each transform keeps in them.

The user's parameters may have any names, also those of a state. What tells the two apart is therefore the
place: the keys of `slots` are the transforms, under each are its slots by name, and what is below a slot is
never looked into. The exceptions have names that no slot can have: `inner` (or `inner_...`) is the state of
a transform that a wrapper wraps, and what is under `foreign` or `transform` is another library's state.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.numbers.paths import Path, lookup, replaced

INNER = "inner"
FOREIGN, TRANSFORM = "foreign", "transform"

EVAL = "eval_params"
"""The slot of parameters to evaluate with, by which a state, which holds no code, is known to have some."""

CLOCK = "clock"
"""The scalar of a wrapper that its schedules run by, where it is not the step."""

INJECTED = "inject_hyperparams"
"""The wrapper whose numbers are the arguments of a function that makes an optimizer."""

BY_LABEL = "scale_by_group"
"""The transform whose numbers have the user's labels as names, and so no names that say what they are."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """What one transform keeps in a state.

    Attributes:
        path: where it stands: the keys of what holds the state, then transforms and wrapped transforms.
        slots: what it keeps, by name.
        state: the state that it is a part of.
    """

    path: Path
    slots: Mapping[str, Any]
    state: Any


def is_state(x: Any) -> bool:
    """Whether `x` is a gradtx state, which counts its steps in an integer."""
    if not isinstance(x, Mapping) or set(x) != {"step", "numbers", "slots"}:
        return False
    dtype = getattr(x["step"], "dtype", type(x["step"]))
    counts = dtype is int or (isinstance(dtype, np.dtype) and jnp.issubdtype(dtype, np.integer))
    return counts and isinstance(x["numbers"], Mapping) and isinstance(x["slots"], Mapping)


def holds_state(name: str) -> bool:
    """Whether what a transform keeps under a name is the state of a transform that it wraps."""
    return name == INNER or name.startswith(f"{INNER}_")


def needs_its_name(state: Any, key: str) -> bool:
    """Whether the numbers of a transform say what they are only beside its name.

    A wrapper's `decay` or `warmup` would stand among the numbers of the optimizer that it wraps. What is an
    optimizer itself, or has the arguments of one, is no such wrapper.
    """
    kind = _kind(key)
    if kind in (BY_LABEL, INJECTED) or kind.startswith("scale_by_"):
        return kind == BY_LABEL
    slots = {} if is_foreign(key) else state["slots"].get(key, {})
    return isinstance(slots, Mapping) and any(name == EVAL or holds_state(name) for name in slots)


def is_foreign(key: str) -> bool:
    """Whether a key of `slots` is that of another library's transform."""
    return _kind(key) in (FOREIGN, TRANSFORM)


def _kind(key: str) -> str:
    """The name of a transform without its group and without the number that tells it from others."""
    return re.sub(r"_\d+$", "", key.rpartition(".")[2])


def held(x: Any) -> Any:
    """The optimizer's state in what holds one."""
    # A TrainState and an nnx.Optimizer have theirs as opt_state; Optax's SAMState has two, and is one.
    return x if hasattr(x, "adv_state") else getattr(x, "opt_state", x)


def outermost_states(x: Any) -> list[Any]:
    """The gradtx states in `x` that are not inside another one."""
    return [state for _, state in _outermost(x)]


def nested_states(x: Any) -> list[tuple[Path, Any]]:
    """Every gradtx state in `x`, what is around another one before it, each with where it stands.

    That is a path of groups and transforms. What holds the only state there is has no part in it.
    """
    found: list[tuple[Path, Any]] = []
    outermost = _outermost(x)
    for keys, state in outermost:
        here = keys if len(outermost) > 1 else ()
        found.append((here, state))
        for (key, *names), part in _parts(state):
            # Between a wrapper and what it wraps the state has a key, `inner`, or `inner_` and which of them.
            which = [name.removeprefix(INNER).removeprefix("_") for name in names]
            around = (*here, *key.split("."), *filter(None, which))
            found += [((*around, *where), inner) for where, inner in nested_states(part)]
    return found


def kept_in(x: Any, path: Path = ()) -> Iterator[Kept]:
    """What each transform keeps in each gradtx state in `x`."""
    for keys, state in _outermost(x):
        here = (*path, *keys)
        for key, slots in state["slots"].items():
            if isinstance(slots, Mapping) and not is_foreign(key):
                yield Kept((*here, key), slots, state)
        for where, part in _parts(state):
            yield from kept_in(part, (*here, *where))


def mapped_states(f: Callable[[Any], Any], x: Any) -> Any:
    """`x` with each gradtx state replaced by what `f` makes of it, where `f` keeps the slots."""

    def mapped(state: Any) -> Any:
        if not is_state(state):
            return state
        slots = state["slots"]
        for path, part in _parts(state):
            slots = replaced(slots, path, mapped_states(f, part))
        return {**f(state), "slots": slots}

    return jax.tree.map(mapped, x, is_leaf=is_state)


def restarted(new: Any, old: Any, numbers: Callable[[Any, Any], Any]) -> Any:
    """A new state under the numbers that `numbers` makes of its own and an old one's.

    What is `None` in the slots of the new one is as in the old one.
    """

    def under(new: Any, old: Any) -> Any:
        if new is None or not is_state(new):
            return old if new is None else new
        slots = filled(new["slots"], old["slots"])
        for path, part in _parts(new):
            slots = replaced(slots, path, restarted(part, lookup(old["slots"], path), numbers))
        return {**new, "numbers": numbers(new["numbers"], old["numbers"]), "slots": slots}

    def filled(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda n, o: o if n is None else n, new, old, is_leaf=lambda x: x is None)

    return jax.tree.map(under, new, old, is_leaf=lambda x: x is None or is_state(x))


def _outermost(x: Any) -> list[tuple[Path, Any]]:
    found, _ = jax.tree_util.tree_flatten_with_path(held(x), is_leaf=is_state)
    return [
        (tuple(jax.tree_util.keystr((key,), simple=True) for key in keys), s)
        for keys, s in found
        if is_state(s)
    ]


def _parts(state: Any) -> list[tuple[Path, Any]]:
    """The places in the slots of a state where other transforms have their states, and what is there."""
    found: list[tuple[Path, Any]] = []
    for key, slots in sorted(state["slots"].items()):
        if is_foreign(key):
            found.append(((key,), slots))
        elif isinstance(slots, Mapping):
            found.extend(((key, name), part) for name, part in sorted(slots.items()) if holds_state(name))
    return found
