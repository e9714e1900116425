"""Clipping the gradient of each example of a batch, as differential privacy needs it."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.engine import leaves as lv
from gradtx.core.norms import Parts, parts_of_examples
from gradtx.core.numerics import cast, compute_dtype, is_trainable, real_dtype
from gradtx.core.spec.fields import Scalar

PyTree = Any


def per_example_global_norm_clip(grads: PyTree, l2_norm_clip: Scalar) -> tuple[PyTree, jax.Array]:
    """Clips the gradient of each example by its norm over the whole tree, and sums over the examples.

        sum over b of g_b min(1, C / ||g_b||)

    Norms and sums are taken in at least float32. Unlike with `clip_by_global_norm` the bound always holds: of
    an example with an Inf or NaN no finite element contributes.

    Args:
        grads: a tree of gradients with the examples along axis 0; `None` counts as nothing.
        l2_norm_clip: C, the bound of the norm of each example, >= 0.

    Returns:
        The tree of sums, in the dtypes of the gradients (float32 for integers), and how many examples were
        clipped.

    Raises:
        ValueError: there is no leaf, or one has another number of examples or no axis.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> grads = {"w": jnp.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])}
        >>> sums, count = gradtx.per_example_global_norm_clip(grads, 1.0)
        >>> [round(float(x), 5) for x in sums["w"]], int(count)
        ([0.9, 1.2], 1)

    References:
        Abadi et al., Deep Learning with Differential Privacy, 2016, https://arxiv.org/abs/1607.00133.
    """
    leaves, structure = _examples("per_example_global_norm_clip", grads)
    squares = parts_of_examples([_wide(x) for x in leaves if x is not None])
    factors, count = _factors(squares, l2_norm_clip)
    return structure.unflatten([None if x is None else _sum(x, factors) for x in leaves]), count


def per_example_layer_norm_clip(
    grads: PyTree, global_l2_norm_clip: Scalar, uniform: bool = True
) -> tuple[PyTree, PyTree]:
    """Clips the gradient of each example leaf by leaf, and sums over the examples.

        sum over b of g_b min(1, C_i / ||g_b||) for leaf i

    where C_i is C / sqrt(K) for K leaves, or C sqrt(D_i / D) for a leaf with D_i of all D parameters; either
    way the whole tree of an example has at most the norm C. Everything else is as in
    `per_example_global_norm_clip`.

    Args:
        grads: a tree of gradients with the examples along axis 0; `None` counts as nothing.
        global_l2_norm_clip: C, the bound of the norm of each example, >= 0.
        uniform: the same bound for all leaves; False for bounds by their sizes.

    Returns:
        The tree of sums, and a tree of how many examples were clipped in each leaf.

    Raises:
        ValueError: there is no leaf, or one has another number of examples or no axis.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> grads = {"w": jnp.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])}
        >>> sums, counts = gradtx.per_example_layer_norm_clip(grads, 1.0)
        >>> [round(float(x), 5) for x in sums["w"]], int(counts["w"])
        ([0.9, 1.2], 1)

    References:
        McMahan et al., Learning Differentially Private Recurrent Language Models, 2017,
        https://arxiv.org/abs/1710.06963.
    """
    leaves, structure = _examples("per_example_layer_norm_clip", grads)
    sizes = [None if x is None else math.prod(x.shape[1:]) for x in leaves]
    everything, number = sum(n or 0 for n in sizes), sum(n is not None for n in sizes)
    sums, counts = [], []
    for x, size in zip(leaves, sizes, strict=True):
        if x is None or size is None:
            sums.append(None)
            counts.append(None)
            continue
        share = 1 / number if uniform else size / max(everything, 1)
        squares = parts_of_examples([_wide(x)])
        dtype = squares.plain.dtype
        bound = jnp.asarray(global_l2_norm_clip, dtype) * jnp.asarray(math.sqrt(share), dtype)
        factors, count = _factors(squares, bound)
        sums.append(_sum(x, factors))
        counts.append(count)
    return structure.unflatten(sums), structure.unflatten(counts)


def _examples(where: str, grads: PyTree) -> tuple[list[Any], Any]:
    leaves, structure = lv.flatten(grads)
    leaves = [None if x is None else lv.as_array(x) for x in leaves]
    known = [(path, x) for path, x in zip(lv.paths(grads), leaves, strict=True) if x is not None]
    if not known:
        raise ValueError(f"{where}: there is no gradient, and so no number of examples.")
    first, reference = known[0]
    for path, x in known:
        if not x.ndim or x.shape[0] != reference.shape[0]:
            has = (
                f"has {x.shape[0]} examples, and {first!r} has {reference.shape[0]}"
                if x.ndim
                else "is a scalar"
            )
            raise ValueError(
                f"{where}: the leaf {path!r} {has}. Give the gradients of each example, stacked along axis "
                f"0, as jax.vmap(jax.grad(loss), in_axes=(None, 0)) does."
            )
    return leaves, structure


def _wide(x: jax.Array) -> jax.Array:
    return cast(x, compute_dtype(x.dtype) if is_trainable(x.dtype) else jnp.float32)


def _factors(squares: Parts, bound: Any) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """The factors of each example, and how many are clipped."""
    bound = jnp.asarray(bound).astype(squares.plain.dtype)
    factor, shrink = squares.clip_factors(bound)
    clipped = ~(squares.norm() <= bound)
    return (jnp.where(squares.finite, factor, jnp.zeros_like(factor)), shrink), jnp.sum(
        clipped, dtype=jnp.int32
    )


def _sum(x: jax.Array, factors: tuple[jax.Array, ...]) -> jax.Array:
    wide = _wide(x)
    factor, shrink = (
        f.astype(real_dtype(wide.dtype)).reshape(-1, *(1 for _ in x.shape[1:])) for f in factors
    )
    result = jnp.sum(factor * (shrink * wide), axis=0)
    return cast(result, x.dtype) if is_trainable(x.dtype) else result
