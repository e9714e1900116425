"""Arithmetic on whole trees, under the names of `optax.tree`.

Each leaf is computed as `jax.numpy` does it; `None` is no leaf, and stands in the same places of all trees.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def add(tree_x: PyTree, tree_y: PyTree, *other_trees: PyTree) -> PyTree:
    """The sum of trees, leaf by leaf.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.add({"w": jnp.ones(2)}, {"w": jnp.ones(2)}, {"w": jnp.ones(2)})["w"].tolist()
        [3.0, 3.0]
    """
    return jax.tree.map(lambda *xs: sum(xs[1:], xs[0]), tree_x, tree_y, *other_trees)


def sub(tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """The difference of two trees: x - y.

    Examples:
        >>> import gradtx
        >>> gradtx.tree.sub({"w": 3.0}, {"w": 1.0})
        {'w': 2.0}
    """
    return jax.tree.map(lambda x, y: x - y, tree_x, tree_y)


def mul(tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """The product of two trees: x y.

    Examples:
        >>> import gradtx
        >>> gradtx.tree.mul({"w": 3.0}, {"w": 2.0})
        {'w': 6.0}
    """
    return jax.tree.map(lambda x, y: x * y, tree_x, tree_y)


def div(tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """The quotient of two trees: x / y.

    Examples:
        >>> import gradtx
        >>> gradtx.tree.div({"w": 3.0}, {"w": 2.0})
        {'w': 1.5}
    """
    return jax.tree.map(lambda x, y: x / y, tree_x, tree_y)


def scale(scalar: Any, tree: PyTree) -> PyTree:
    """A multiple of a tree: scalar x.

    Examples:
        >>> import gradtx
        >>> gradtx.tree.scale(2.0, {"w": 3.0})
        {'w': 6.0}
    """
    return jax.tree.map(lambda x: scalar * x, tree)


def add_scale(tree_x: PyTree, scalar: Any, tree_y: PyTree) -> PyTree:
    """The sum of a tree and a multiple of another one: x + scalar y. Where x has `None`, the result has.

    Examples:
        >>> import gradtx
        >>> gradtx.tree.add_scale({"w": 1.0, "b": None}, 2.0, {"w": 3.0, "b": 4.0})
        {'b': None, 'w': 7.0}
    """
    return jax.tree.map(
        lambda x, y: None if x is None else x + scalar * y, tree_x, tree_y, is_leaf=lambda x: x is None
    )


def clip(tree: PyTree, min_value: Any = None, max_value: Any = None) -> PyTree:
    """Each element in [min_value, max_value]; None for no bound.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.clip(jnp.array([-2.0, 0.5, 3.0]), -1.0, 1.0).tolist()
        [-1.0, 0.5, 1.0]
    """
    return jax.tree.map(lambda x: jnp.clip(x, min_value, max_value), tree)


def where(condition: Any, tree_x: PyTree, tree_y: PyTree) -> PyTree:
    """The elements of x where the condition holds, those of y elsewhere.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.where(True, {"w": jnp.ones(2)}, {"w": jnp.zeros(2)})["w"].tolist()
        [1.0, 1.0]
    """
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def conj(tree: PyTree) -> PyTree:
    """The complex conjugate.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.conj(jnp.array([1 + 2j])).tolist()
        [(1-2j)]
    """
    return jax.tree.map(jnp.conj, tree)


def real(tree: PyTree) -> PyTree:
    """The real part.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.real(jnp.array([1 + 2j])).tolist()
        [1.0]
    """
    return jax.tree.map(jnp.real, tree)


def zeros_like(tree: PyTree, dtype: Any = None) -> PyTree:
    """A tree of zeros of the same shapes, in the same dtypes or in `dtype`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.zeros_like({"w": jnp.ones(2)})["w"].tolist()
        [0.0, 0.0]
    """
    return full_like(tree, 0, dtype)


def ones_like(tree: PyTree, dtype: Any = None) -> PyTree:
    """A tree of ones of the same shapes, in the same dtypes or in `dtype`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.ones_like({"w": jnp.zeros(2)}, "bfloat16")["w"].dtype.name
        'bfloat16'
    """
    return full_like(tree, 1, dtype)


def full_like(tree: PyTree, fill_value: Any, dtype: Any = None) -> PyTree:
    """A tree of one value of the same shapes, in the same dtypes or in `dtype`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.full_like({"w": jnp.zeros(2)}, 0.5)["w"].tolist()
        [0.5, 0.5]
    """
    return jax.tree.map(lambda x: jnp.full_like(x, fill_value, dtype=dtype), tree)


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """A tree in a dtype; as it is if that is None.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.cast({"w": jnp.zeros(2)}, "bfloat16")["w"].dtype.name
        'bfloat16'
    """
    return tree if dtype is None else jax.tree.map(lambda x: x.astype(dtype), tree)


def cast_like(tree: PyTree, other_tree: PyTree) -> PyTree:
    """A tree in the dtypes of another one.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.cast_like(jnp.zeros(2), jnp.zeros(2, "bfloat16")).dtype.name
        'bfloat16'
    """
    return jax.tree.map(lambda x, y: x.astype(y.dtype) if hasattr(y, "dtype") else x, tree, other_tree)


def batch_shape(tree: PyTree, shape: tuple[int, ...] = ()) -> PyTree:
    """Each leaf repeated along new leading axes.

    Args:
        tree: a tree of arrays.
        shape: the sizes of the new axes.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.tree.batch_shape({"w": jnp.ones(2)}, (3,))["w"].shape
        (3, 2)
    """
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)
