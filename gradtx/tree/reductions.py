"""Numbers of whole trees, under the names of `optax.tree`: sums, extremes, norms and sizes."""

from __future__ import annotations

import builtins
import functools
import math
import operator
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
    exactly = functools.partial(jnp.vdot, precision=jax.lax.Precision.HIGHEST)
    return sum(jax.tree.map(exactly, tree_x, tree_y))


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


def allclose(a: PyTree, b: PyTree, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    """Whether two trees agree: |a - b| <= atol + rtol |b| for each element.

    Args:
        a: a tree of arrays.
        b: a tree of the same structure.
        rtol: the relative tolerance.
        atol: the absolute tolerance.
        equal_nan: whether a NaN agrees with a NaN.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> bool(gradtx.tree.allclose({"w": jnp.ones(2)}, {"w": jnp.ones(2) + 1e-7}))
        True
    """
    close = jax.tree.map(lambda x, y: jnp.allclose(x, y, rtol, atol, equal_nan), a, b)
    return functools.reduce(operator.and_, jax.tree.leaves(close), True)


def dtype(tree: PyTree, mixed_dtype_handler: str | None = None) -> Any:
    """The dtype of a tree; that of a new JAX array for one without leaves.

    Args:
        tree: a tree of arrays.
        mixed_dtype_handler: what to do where leaves differ: None for an error, `"promote"` for the dtype that
            JAX promotes all to, `"highest"` or `"lowest"` for one of theirs that all others promote to, or
            that promotes to all others.

    Raises:
        ValueError: the leaves differ, and it has not been said what to do, or none of theirs is such a dtype.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tree = {"w": jnp.ones(2, "bfloat16"), "b": jnp.ones(2, "float32")}
        >>> [str(gradtx.tree.dtype(tree, which)) for which in ("lowest", "highest")]
        ['bfloat16', 'float32']
    """
    if mixed_dtype_handler not in (None, "promote", "highest", "lowest"):
        raise ValueError(
            f"tree.dtype: mixed_dtype_handler must be None, 'promote', 'highest' or 'lowest', got "
            f"{mixed_dtype_handler!r}."
        )
    found = [*dict.fromkeys(jnp.asarray(x).dtype for x in jax.tree.leaves(tree))]
    if not found:
        return jnp.asarray(0.0).dtype
    names = ", ".join(map(str, found))
    if len(found) > 1 and mixed_dtype_handler is None:
        raise ValueError(
            f"tree.dtype: the leaves have {names}. Say which to give: mixed_dtype_handler='promote', "
            f"'highest' or 'lowest'."
        )
    with jax.numpy_dtype_promotion("standard"):
        if mixed_dtype_handler == "promote":
            return functools.reduce(jnp.promote_types, found)
        for one in found:
            if all(
                jnp.promote_types(one, other) == (other if mixed_dtype_handler == "lowest" else one)
                for other in found
            ):
                return one
    raise ValueError(f"tree.dtype: no dtype among {names} is the {mixed_dtype_handler}; use 'promote'.")
