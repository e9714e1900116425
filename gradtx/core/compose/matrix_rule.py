"""Rules of matrices: what a method does to one weight, for all weights of one size at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Slots, Stack
from gradtx.core.engine.views import Cut

Shape = tuple[int, ...]


def _as_matrix(rule: Any, rows: int, columns: int) -> Shape | None:
    return rows, columns


@dataclasses.dataclass(frozen=True)
class MatrixSlot(Slot):
    """What a rule remembers for each matrix, and sees in `solve`.

    The state keeps it as one array for all matrices of a size, (number, ...), under the name of the size;
    `gradtx.slots_by_leaf` reads it by the leaves.

    Attributes:
        init: `init(rule, rows, columns)`, the initial value: a number or an array of the shape for a matrix.
        of: `of(rule, rows, columns)`, its shape for a matrix, or None for no slot; by default the matrix's.
    """

    of: Callable[[Any, int, int], Shape | None] = _as_matrix
    is_of_matrices: ClassVar[bool] = True


class MatrixRule(Rule):
    """A transform of matrices, which are what a leaf consists of as `views` says.

    A subclass has a field `views`, and gives `solve`, and the others when it needs them. `x` is what `apply`
    gave for many matrices of one size, as an array of shape (number, rows, columns), and `slots` has the
    `MatrixSlot`s, as (number, ...). What is done to one matrix does not depend on the others, and how many
    come at once is for the engine to say. For each update it calls, after `prepare`:

    1. `apply(g, slots, leaf)` for each leaf, with the `Slot`s.
    2. `observe(x, slots, stack)`: new slots, of those that must be there before something is renewed.
    3. `is_due(slots, stack)`: for each matrix, whether what costs much is to be made anew.
    4. `renew(x, slots, stack)`, for those that are due: new slots.
    5. `solve(x, slots, stack)`: the update of each matrix, and the new slots.

    `stack` has each scalar that `prepare` returned. A rule with a `Key` finds a key for each matrix in
    `stack.keys`. Where a field `stagger` is true few matrices are due at a time, and each is renewed for
    itself; elsewhere than on a CPU all are renewed at once if one is due, and those that are not stay.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> class OverSpectralNorm(gradtx.MatrixRule, name="over_spectral_norm"):
        ...     '''u = g over the largest singular value of each matrix'''
        ...
        ...     views: object = None
        ...
        ...     def solve(self, x, slots, stack):
        ...         return x / jnp.linalg.norm(x, ord=2, axis=(-2, -1), keepdims=True), slots
        >>> tx, w = OverSpectralNorm(), {"kernel": jnp.array([[0.0, 2.0], [4.0, 0.0]])}
        >>> tx.update(w, tx.init(w))[0]["kernel"].tolist()
        [[0.0, 0.5], [1.0, 0.0]]
    """

    is_of_matrices: ClassVar[bool] = True

    says_views: ClassVar[str] = "views"
    """What the argument with the views is called, for errors."""

    sees_param: ClassVar[bool] = False
    """Whether it finds the parameters of each matrix in `stack.param`; for a rule that needs `"params"`."""

    sees_index: ClassVar[bool] = False
    """Whether `solve` finds a number for each matrix in `stack.index`, from 0, which stays with it."""

    observes: ClassVar[bool] = False
    renews: ClassVar[bool] = False

    def __init_subclass__(cls, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(name=name, **kwargs)
        cls.observes = cls.observe is not MatrixRule.observe
        cls.renews = cls.renew is not MatrixRule.renew

    def cut(self, cut: Cut) -> Cut:
        """How the matrices of a leaf are cut further: not at all."""
        return cut

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        """What is done to each element first: nothing."""
        return g, slots

    def observe(self, x: jax.Array, slots: Slots, stack: Stack) -> Any:
        """New slots by name, those that `renew` must see."""
        raise NotImplementedError

    def is_due(self, slots: Slots, stack: Stack) -> jax.Array:
        """Whether `renew` is called: for each matrix, or one for all."""
        raise NotImplementedError

    def renew(self, x: jax.Array, slots: Slots, stack: Stack) -> Any:
        """New slots by name, of those that cost much."""
        raise NotImplementedError

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        """The update of each matrix, and the new slots of matrices by name."""
        raise NotImplementedError
