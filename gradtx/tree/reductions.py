"""Numbers of whole trees, under the names of `optax.tree`: sums, extremes, norms and sizes."""

from __future__ import annotations

import builtins
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.numerics import total
from gradtx.core.summing import sums_of_squares
from gradtx.transforms.clip import global_norm

PyTree = Any


def size(tree: PyTree) -> int:
    """The number of elements.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.size({"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)})
        9
    """
    return builtins.sum(math.prod(jnp.shape(x)) for x in jax.tree.leaves(tree))


def sum(tree: PyTree, associative_reduction: bool = False) -> Any:
    """The sum of all elements.

    Args:
        tree: a tree of arrays.
        associative_reduction: whether the sums of the leaves may be added in any order.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> float(gradtx.tree.sum({"w": jnp.ones((2, 3)), "b": jnp.ones(3)}))
        9.0
    """
    del associative_reduction  # One order is an order.
    return builtins.sum(jnp.sum(x) for x in jax.tree.leaves(tree))


def max(tree: PyTree) -> Any:
    """The largest element; -inf where there is none.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> float(gradtx.tree.max({"w": jnp.array([1.0, 3.0]), "b": jnp.float32(2.0)}))
        3.0
    """
    return functools.reduce(jnp.maximum, [jnp.max(x) for x in _filled(tree)], -math.inf)


def min(tree: PyTree) -> Any:
    """The smallest element; inf where there is none.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> float(gradtx.tree.min({"w": jnp.array([1.0, 3.0]), "b": jnp.float32(2.0)}))
        1.0
    """
    return functools.reduce(jnp.minimum, [jnp.min(x) for x in _filled(tree)], math.inf)


def _filled(tree: PyTree) -> list[Any]:
    return [x for x in jax.tree.leaves(tree) if jnp.size(x)]


def vdot(tree_x: PyTree, tree_y: PyTree) -> Any:
    """The inner product: the sum of conj(x) y.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> x = {"w": jnp.array([1.0, 2.0]), "b": jnp.float32(3.0)}
        >>> float(gradtx.tree.vdot(x, x))
        14.0
    """
    return sum(jax.tree.map(lambda x, y: jnp.conj(x) * y, tree_x, tree_y))


def norm(tree: PyTree, ord: Any = None, squared: bool = False) -> jax.Array:
    """The norm of all elements as one vector.

    Args:
        tree: a tree of arrays.
        ord: None or 2 for sqrt(sum |x|²), in at least float32 as `gradtx.global_norm`; 1 for sum |x|; inf for
            max |x|.
        squared: whether to give its square.

    Raises:
        ValueError: another `ord`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> [float(gradtx.tree.norm(jnp.array([3.0, -4.0]), ord)) for ord in (None, 1, "inf")]
        [5.0, 7.0, 4.0]
    """
    if ord is None or ord == 2:
        return (
            total(sums_of_squares(list(map(jnp.asarray, jax.tree.leaves(tree)))))
            if squared
            else (global_norm(tree))
        )
    if ord == 1:
        result = sum(jax.tree.map(jnp.abs, tree))
    elif ord in (math.inf, "inf", "infinity"):
        result = max(jax.tree.map(jnp.abs, tree))
    else:
        raise ValueError(f"gradtx.tree.norm: ord must be None, 1, 2 or inf, got {ord!r}.")
    return jnp.asarray(result * result if squared else result)
