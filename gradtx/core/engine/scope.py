"""What the methods of a rule see: `now` once for an update, `slots` and `leaf` for each leaf."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax

from gradtx.core.numbers.steps import Steps


class Scope(SimpleNamespace):
    """Named values."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"There is no {name!r} here, only {', '.join(sorted(vars(self)))}.")


class Now(Scope):
    """What `prepare` and `conclude` see of an update, beside each whole-tree scalar by its name.

    Attributes:
        step: the number of updates before this one, from 0, as schedules see it; a float.
        t: the number of this update, from 1, as papers count; a float.
        exact_t: the same, exact past 2^24.
        extra: the keyword arguments that the rule needs.
    """

    step: jax.Array
    t: jax.Array
    exact_t: Steps
    extra: dict[str, Any]


class Leaf(Scope):
    """What `measure` and `apply` see of a leaf, beside each scalar that was prepared or concluded.

    Attributes:
        param: the parameter, in the dtype to compute in; None where the caller gave none.
        key: a random key of this step and leaf, for a rule that has a `Key`.
    """

    param: Any
    key: jax.Array


class Stack(Scope):
    """What `solve` sees of matrices of one size: each scalar that was prepared or concluded.

    Attributes:
        keys: a random key of this step for each matrix, for a rule that has a `Key`.
        index: a number for each matrix, for a rule that asks for it by `sees_index`.
        param: the parameters of each matrix, for a rule that asks for them by `sees_param`.
    """

    keys: jax.Array
    index: jax.Array
    param: jax.Array


class Slots(Scope):
    """The slots of a leaf by name, in the dtype to compute in; of a wrapper, lists of them."""


RESERVED = ("step", "t", "exact_t", "extra", "param", "key", "keys", "index")
"""Names that a whole-tree scalar cannot have."""
