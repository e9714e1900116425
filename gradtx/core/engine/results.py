"""What a rule gives back, checked: an update of the gradient's shape, and the slots that it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gradtx.core.spec.spec import show


def checked_update(
    where: str, g: jax.Array, own: Mapping[str, Any], result: Any, method: str = "apply"
) -> tuple[jax.Array, Any]:
    """The update and the new slots by name, as a rule's `apply`, or another method, must give them.

    Args:
        where: the rule's name, for errors.
        g: the gradient that it got.
        own: the slots that it has for the leaf, None where it has none.
        result: what it gave.
        method: the method that gave it.

    Raises:
        TypeError: `result` is not an update and slots.
        ValueError: the update has another shape than the gradient, a slot is missing or has another shape
            than before, or there is one that the rule does not declare.
    """
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            f"{where}: {method} must return the update and the new slots, as in `return u, {{'mu': mu}}`, or "
            f"`return u, slots` where they stay; it returned {_describe(result)}."
        )
    update, slots = result
    if getattr(update, "shape", None) != g.shape:
        raise ValueError(
            f"{where}: {method} returned {_describe(update)} as the update, for a gradient of shape "
            f"{g.shape}. An update has the shape of the gradient; sums over a whole leaf or tree belong into "
            "`measure`."
        )
    kept = checked_slots(where, method, own, slots)
    for name, old in own.items():
        if old is not None and name not in kept:
            raise ValueError(
                f"{where}: {method} returned {_listed(kept)}, without the slot {name!r}. Return all of "
                f"{_listed(own)}; `slots.{name}` where it stays as it is."
            )
    return update, kept


def checked_slots(where: str, method: str, own: Mapping[str, Any], slots: Any) -> Mapping[str, Any]:
    """New slots by name, as a rule's method gave them: some of its own, each of its shape."""
    kept = slots if isinstance(slots, Mapping) else vars(slots) if hasattr(slots, "__dict__") else None
    if kept is None:
        raise TypeError(
            f"{where}: {method} must return the new slots by name, as in `return u, {{'mu': mu}}`; it "
            f"returned {_describe(slots)}."
        )
    for name in kept:
        if name not in own:
            raise ValueError(
                f"{where}: {method} returned a slot {name!r} that the rule does not declare. It declares "
                f"{_listed(own)}; add `{name} = gradtx.Slot()` to the class, or leave it out."
            )
    for name, old in own.items():
        if old is not None and name in kept:
            _check_shape(where, method, f"slot {name!r}", kept[name], old.shape)
    return kept


def checked_scalars(where: str, method: str, made: Any, kept: Mapping[str, Any]) -> dict[str, Any]:
    """The scalars that a rule's method gave by name; those that are remembered keep their shape."""
    if not isinstance(made, Mapping):
        raise TypeError(
            f"{where}: {method} must return scalars by name, a dict; it returned {_describe(made)}."
        )
    for name in {*made} & {*kept}:
        _check_shape(where, method, f"scalar {name!r}", made[name], np.shape(kept[name]))
    return dict(made)


def checked_measures(where: str, made: Any) -> dict[str, Any]:
    """What a rule's `measure` gave by name: scalars, which are then summed over the tree."""
    made = checked_scalars(where, "measure", made, {})
    for name, x in made.items():
        _check_shape(where, "measure", f"scalar {name!r}", x, ())
    return made


def _check_shape(where: str, method: str, what: str, x: Any, shape: tuple[int, ...]) -> None:
    if x is None or np.shape(x) != shape:
        raise ValueError(f"{where}: {method} returned {_describe(x)} as the {what}, which has shape {shape}.")


def _describe(x: Any) -> str:
    if isinstance(x, jax.Array | np.ndarray):
        return f"an array of shape {x.shape}"
    if isinstance(x, tuple | list | Mapping):
        return f"a {type(x).__name__} of {len(x)}"
    return show(x)


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, names)) or "no slot"
