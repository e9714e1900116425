"""The types of a transform's two functions, and of what passes through them, for annotations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

Params = Any
"""A tree of parameters: arrays in containers of any kind."""

Updates = Any
"""A tree of gradients or updates, like the parameters."""

OptState = Any
"""The state of a transform of any library: a tree of arrays."""


class TransformInitFn(Protocol):
    """The function `init` of a transform."""

    def __call__(self, params: Params) -> OptState: ...


class TransformUpdateFn(Protocol):
    """The function `update` of a transform."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None
    ) -> tuple[Updates, OptState]: ...


class TransformUpdateExtraArgsFn(Protocol):
    """The function `update` of a transform that takes keyword arguments."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, OptState]: ...


@runtime_checkable
class AnyTransform(Protocol):
    """A transform of any library: what has the two functions, as methods or as fields."""

    @property
    def init(self) -> Callable[[Params], OptState]:
        """The state for parameters."""
        ...

    @property
    def update(self) -> Callable[..., tuple[Updates, OptState]]:
        """The updates and the next state."""
        ...


if TYPE_CHECKING:
    Seed = int | jax.Array | np.ndarray | Sequence[int]
else:  # A config is read by what the annotations say, and may have a key's raw data as a list.
    Seed = Any


class EmptyState(NamedTuple):
    """The state of a transform that remembers nothing: a tree without leaves."""


def init_empty_state(params: Params) -> EmptyState:
    """The `init` of a transform that remembers nothing.

    Args:
        params: the parameters.

    Returns:
        A state without arrays.

    Examples:
        >>> import gradtx
        >>> gradtx.init_empty_state({"w": 1.0})
        EmptyState()
    """
    return EmptyState()


NO_PARAMS_MSG = "This transform needs the parameters: call update(updates, state, params)."
"""What a transform of one's own may say where it is called without them."""


class MaskedNode(NamedTuple):
    """A place in a tree of your own where nothing is: a tree without leaves.

    gradtx's own states have None there.
    """
