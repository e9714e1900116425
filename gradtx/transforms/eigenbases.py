"""Matrices in the eigenbases of their rows and columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.matrix_rule import MatrixRule, MatrixSlot
from gradtx.core.decompositions import eigh, orthonormal
from gradtx.core.engine.scope import Slots, Stack
from gradtx.core.numerics import Decay, anywhere
from gradtx.core.products import conjugate_times, diagonal, times_conjugate
from gradtx.transforms.refreshes import is_turn

Pair = tuple[Any, Any]
"""Of the rows and of the columns, None for a side that is too long."""


def of_rows(rule: Any, rows: int, columns: int) -> tuple[int, int]:
    """The shape of a basis of the rows."""
    return rows, rows


def of_columns(rule: Any, rows: int, columns: int) -> tuple[int, int]:
    """The shape of a basis of the columns."""
    return columns, columns


def within_rows(rule: Any, rows: int, columns: int) -> tuple[int, int] | None:
    """The shape of a basis of the rows, if they are not too many for the rule."""
    return (rows, rows) if rows <= rule.max_precond_dim else None


def within_columns(rule: Any, rows: int, columns: int) -> tuple[int, int] | None:
    """The shape of a basis of the columns, if they are not too many for the rule."""
    return (columns, columns) if columns <= rule.max_precond_dim else None


def is_unset(x: jax.Array) -> jax.Array:
    """For each of many, whether it is still the zeros of the start: nothing was computed for it yet.

    That is told by what is stored, since a gradient may come later than the first step.
    """
    return jnp.all(x == 0, axis=tuple(range(1, x.ndim)), keepdims=True)


def is_no_basis(basis: jax.Array) -> jax.Array:
    """The same of a basis, which has no column of zeros."""
    return is_unset(basis[..., :1])


def is_no_side(side: jax.Array) -> jax.Array:
    """The same of a positive semidefinite matrix, which has a diagonal of zeros only if it is zero."""
    return is_unset(diagonal(side)[..., None])


def is_set(bases: Pair) -> Any:
    """For each of many, as (number, 1, 1), whether it has bases; False where both sides are too long."""
    known = next((q for q in bases if q is not None), None)
    return False if known is None else ~is_no_basis(known)


def bases_and_sides(slots: Slots) -> tuple[Pair, Pair]:
    """The bases, and what they are the eigenvectors of."""
    return (slots.basis_left, slots.basis_right), (slots.left, slots.right)


def present(**slots: Any) -> dict[str, Any]:
    """New slots by name, without those of a side that is too long."""
    return {name: x for name, x in slots.items() if x is not None}


def with_sides(new: dict[str, Any], x: jax.Array, decay: Decay) -> dict[str, Any]:
    """Slots in which the sides, of those that there are, are averages with one more gradient in it."""
    products = {"left": times_conjugate(x, x), "right": conjugate_times(x, x)}
    return {**new, **{name: decay.mix(new[name], y) for name, y in products.items() if name in new}}


class OfEigenbases(MatrixRule):
    """What rules have in common that remember the eigenbases of both sides, and make them anew in turn."""

    stagger: bool

    left, basis_left = MatrixSlot(of=within_rows), MatrixSlot(of=within_rows)
    right, basis_right = MatrixSlot(of=within_columns), MatrixSlot(of=within_columns)

    sees_index = True

    def is_due(self, slots: Slots, stack: Stack) -> jax.Array:
        """Whether it is a matrix's turn; of one without bases whether there is something to make them of."""
        pairs = zip(*bases_and_sides(slots), strict=True)
        basis, side = next((pair for pair in pairs if pair[0] is not None), (None, None))
        if basis is None or side is None:
            return jnp.zeros((), bool)
        due = jnp.where(is_no_basis(basis), ~is_no_side(side), is_turn(stack, self.stagger))
        return due[:, 0, 0]


def into(x: jax.Array, bases: Pair) -> jax.Array:
    """A matrix in the bases."""
    left, right = bases
    x = x if left is None else conjugate_times(left, x)
    return x if right is None else x @ right


def back(x: jax.Array, bases: Pair) -> jax.Array:
    """A matrix that is in the bases."""
    left, right = bases
    x = x if left is None else left @ x
    return x if right is None else times_conjugate(x, right)


def eigenbasis(x: jax.Array) -> jax.Array:
    """The eigenvectors of Hermitian matrices, those of the largest eigenvalues first."""
    return eigh(x)[1][..., ::-1] if x.size else x


def eigenbases(sides: Pair) -> Pair:
    """The eigenvectors of both sides."""
    left, right = (None if side is None else eigenbasis(side) for side in sides)
    return left, right


def begun_or_turned(
    old: tuple[Pair, Any], sides: Pair, turn: Callable[[tuple[Pair, Any], Pair], tuple[Pair, Any]]
) -> tuple[Pair, Any]:
    """Bases and what follows them: the eigenvectors where there are none yet, elsewhere what `turn` gives."""
    has = is_set(old[0])
    turned = jax.lax.cond(anywhere(jnp.any(has)), turn, lambda old, sides: old, old, sides)
    bases = jax.lax.cond(
        anywhere(jnp.any(~has)),
        lambda bases, sides: jax.tree.map(lambda q, new: jnp.where(has, q, new), bases, eigenbases(sides)),
        lambda bases, sides: bases,
        turned[0],
        sides,
    )
    return bases, turned[1]


def in_order(old: tuple[Pair, jax.Array], sides: Pair) -> tuple[Pair, jax.Array]:
    """Bases after a step of a power iteration, their columns put in the order of their eigenvalues before.

    What is kept of the squares of each element in the bases is put in the same order.
    """
    bases, nu = old
    made: list[Any] = []
    for axis, side, basis in zip((-2, -1), sides, bases, strict=True):
        if side is None:
            made.append(None)
            continue
        product = side @ basis
        values = jnp.real(jnp.sum(jnp.conj(basis) * product, axis=-2))
        order = jnp.argsort(values, axis=-1, descending=True)
        nu = jnp.take_along_axis(nu, jnp.expand_dims(order, -1 if axis == -2 else -2), axis=axis)
        ordered = jnp.take_along_axis(product, jnp.expand_dims(order, -2), axis=-1)
        made.append(orthonormal(ordered))
    return (made[0], made[1]), nu
