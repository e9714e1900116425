"""Matrices in the eigenbases of their rows and columns."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.polar import conjugate

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


def into(x: jax.Array, bases: Pair) -> jax.Array:
    """A matrix in the bases."""
    left, right = bases
    x = x if left is None else conjugate(left) @ x
    return x if right is None else x @ right


def back(x: jax.Array, bases: Pair) -> jax.Array:
    """A matrix that is in the bases."""
    left, right = bases
    x = x if left is None else left @ x
    return x if right is None else x @ conjugate(right)


def eigenbasis(x: jax.Array) -> jax.Array:
    """The eigenvectors of Hermitian matrices, those of the largest eigenvalues first."""
    return jnp.linalg.eigh(x)[1][..., ::-1] if x.size else x


def begun(begins: jax.Array, sides: Pair, bases: Pair) -> Pair:
    """The bases, those of the matrices that begin by their eigenvectors, the largest eigenvalues first."""

    def make(sides: Pair, bases: Pair) -> Pair:
        left, right = (
            None if q is None else jnp.where(begins, eigenbasis(side), q)
            for side, q in zip(sides, bases, strict=True)
        )
        return left, right

    return jax.lax.cond(jnp.any(begins), make, lambda sides, bases: bases, sides, bases)
