"""Comparing trees, with messages that name the leaf."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.numerics import real_dtype

PyTree = Any


def x64() -> AbstractContextManager[None]:
    """A context in which arrays may have 64 bits."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return importlib.import_module("jax.experimental").enable_x64(True)  # before JAX 0.8


def same_layout(actual: PyTree, expected: PyTree, what: str) -> None:
    """Asserts the same tree, with the shape, dtype and weak type of every leaf."""
    a, b = jax.tree.structure(actual), jax.tree.structure(expected)
    assert a == b, f"{what}: the tree changed from {b} to {a}"
    for path, x, y in both_leaves(actual, expected):
        one, other = layout(x), layout(y)
        assert one == other, f"{what} {path}: {other} became {one}"


def both_leaves(one: PyTree, other: PyTree) -> zip[tuple[str, Any, Any]]:
    """The path and the leaves of two trees of one structure."""
    return zip(leaf_paths(one), jax.tree.leaves(one), jax.tree.leaves(other), strict=True)


def layout(x: Any) -> str:
    """The shape, dtype and weak type of a leaf, in words."""
    weak = ", weakly typed" if getattr(x, "weak_type", False) else ""
    return f"{jnp.result_type(x)}{list(jnp.shape(x))}{weak}"


def identical(actual: PyTree, expected: PyTree, what: str) -> None:
    """Asserts that two trees are equal bit for bit."""
    same_layout(actual, expected, what)
    for path, x, y in both_leaves(actual, expected):
        x, y = np.asarray(x), np.asarray(y)
        assert x.tobytes() == y.tobytes(), f"{what} {path}: {y} became {x}"


def close(
    actual: PyTree, expected: PyTree, what: str, *scale: PyTree, ulp: float = 4, of_leaf: bool = False
) -> None:
    """Asserts that two trees agree to some ulp of the largest of `expected` and `scale`.

    That is the largest elementwise, or with `of_leaf` of a whole leaf.
    """
    a, b = jax.tree.structure(actual), jax.tree.structure(expected)
    assert a == b, f"{what}: the trees are {a} and {b}"
    beside = [jax.tree.leaves(s) for s in scale]
    for i, (path, x) in enumerate(zip(leaf_paths(actual), jax.tree.leaves(actual), strict=True)):
        y = jax.tree.leaves(expected)[i]
        unit = ulp * _spacing([y, *(s[i] for s in beside)], np.asarray(x).dtype)
        unit = np.max(unit, initial=0) if of_leaf else unit
        with np.errstate(invalid="ignore"):
            difference = np.abs(wide(x) - wide(y))
            bad = ~((difference <= unit) | (np.isnan(wide(x)) & np.isnan(wide(y))) | (wide(x) == wide(y)))
        assert not bad.any(), (
            f"{what} {path}: {np.asarray(x)} and {np.asarray(y)} differ by "
            f"{np.max(difference / unit) * ulp:.3g} ulp of {np.asarray(x).dtype}"
        )


def wide(x: Any) -> np.ndarray:
    """A leaf in double precision, on the host."""
    x = np.asarray(x)
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _spacing(xs: list[Any], dtype: Any) -> np.ndarray:
    """One ulp of `dtype` at the largest magnitude."""
    dtype = real_dtype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else np.dtype(np.float32)
    size = np.max([np.abs(wide(x)) for x in xs], axis=0)
    size = np.where(np.isfinite(size), size, 1.0)
    eps, tiny = float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
    _, exponent = np.frexp(np.maximum(size, tiny))
    return np.ldexp(eps, exponent - 1)


def leaf_paths(tree: PyTree) -> list[str]:
    """The path of each leaf that is not `None`."""
    return [
        jax.tree_util.keystr(p, simple=True, separator="/") or "(root)"
        for p, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


def finite(tree: PyTree, what: str) -> None:
    """Asserts that every number is finite."""
    for path, x in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True):
        if jnp.issubdtype(jnp.result_type(x), jnp.inexact):
            assert np.isfinite(wide(x)).all(), f"{what} {path}: {np.asarray(x)}"
