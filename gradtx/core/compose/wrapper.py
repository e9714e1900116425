"""Wrappers: transforms of whole trees, usually around other transforms.

A wrapper declares its fields and slots as a rule does, and sees the leaves that it works on as lists; trees,
`None`, masks, dtypes and the state's layout are the engine's.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gradtx.core.compose.combine import as_part
from gradtx.core.compose.rule import Slotted
from gradtx.core.compose.store import Stored
from gradtx.core.engine.coded import Storage
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.numbers.states import INNER, holds_state


def in_dtypes_of(new: Any, old: Any) -> Any:
    """A tree in the dtypes of another, strongly typed, as it is remembered."""
    return jax.tree.map(lambda x, o: jnp.asarray(x, o.dtype), new, old)


class Wrapper(Slotted):
    """A transform of whole trees.

    A subclass gives its name, its fields, its slots, the transforms that it wraps (`wrapped`), and `run`. Its
    schedules run by the step of the chain that it stands in, or by its own scalar named `clock`.
    """

    whole = True

    in_place: ClassVar[bool] = True
    """Whether `run` may return new parameters where `call.apply` is true, and not only updates.

    It may if it returns what `call.run` gave, or looks at `call.apply` itself.
    """

    sees_leaves: ClassVar[bool] = True
    """Whether the wrapped transforms see a leaf for each leaf; `flatten` shows them vectors."""

    shows_wide: ClassVar[bool] = False
    """Whether the wrapped transforms see parameters of 16 bits as float32, and move these as they say."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        for name, part in self.wrapped().items():
            if not holds_state(name):
                raise TypeError(
                    f"{self.name}: the state of a wrapped transform is called {INNER!r}, or {INNER!r} and a "
                    f"word, as in 'inner_{name}', by which it is found in a state; got {name!r}."
                )
            as_part(self.name, part)

    def wrapped(self) -> dict[str, Any]:
        """The wrapped transforms by name, `inner` or `inner_...`; each has a state of its own under it."""
        return {}

    def storing(self, stores: tuple[Storage, ...]) -> Any:
        """The same around transforms whose slots are kept in some formats."""
        parts, found = self.wrapped(), {}
        for key, value in self.__dict__.items():
            if any(value is part for part in parts.values()):
                found[key] = functools.reduce(Stored, reversed(stores), value)
        if len({id(self.__dict__[key]) for key in found}) < len({*map(id, parts.values())}):
            raise ValueError(
                f"store: {self.name} makes what it wraps anew, where no format can be brought in. Put store "
                f"around the transform inside of it."
            )
        copy = object.__new__(type(self))
        copy._set(**{**self.__getstate__(), **found})
        return copy

    def check_leaves(self, params: Any, on: list[bool], where: str) -> None:
        """Raises for parameters, of which it works on some, that it cannot be for; `init` asks."""

    def view(self, params: Any) -> Any:
        """What the wrapped transforms see of the parameters: of one structure with them if `sees_leaves`."""
        return params

    def updates_in(self, calls: int) -> int | None:
        """How many updates the wrapped transforms make in so many calls; None where that is not known."""
        return calls

    def run(self, gs: list[jax.Array], slots: Slots, call: WrappedUpdate) -> tuple[list[Any], dict[str, Any]]:
        """The result for the leaves' gradients, and the new slots and states by name."""
        raise NotImplementedError
