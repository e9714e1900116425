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
