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

    A subclass has a field `views`, and gives `solve`, `apply` if something is done to each element first, and
    `Slot`s and `MatrixSlot`s. For each update the engine calls, after `prepare`, for each leaf `apply`, with
    the `Slot`s; then `solve(x, slots, stack)`. There `x` has what `apply` gave for many matrices of one size,
    as an array of shape (number, rows, columns), and `slots` the `MatrixSlot`s, as (number, ...). It returns
    the update of each, and the new `MatrixSlot`s by name. What it does to one matrix does not depend on the
    others, and how many come at once is for the engine to say. `solve_sees` names `Slot`s that `solve` finds
    in `slots` too, cut as `x` is, as `apply` left them. A rule with a `Key` finds one for each matrix in
    `stack.keys`.

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

    solve_sees: ClassVar[tuple[str, ...]] = ()
    """The `Slot`s that `solve` looks at."""

    sees_index: ClassVar[bool] = False
    """Whether `solve` finds a number for each matrix in `stack.index`, from 0, which stays with it."""

    def cut(self, cut: Cut) -> Cut:
        """How the matrices of a leaf are cut further: not at all."""
        return cut

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        """What is done to each element first: nothing."""
        return g, slots

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        """The update of each matrix, and the new slots of matrices by name."""
        raise NotImplementedError
