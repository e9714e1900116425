"""The mean gradient of a large batch, from micro-batches in one compiled loop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from gradtx.core.engine.leaves import as_array, flatten, paths
from gradtx.core.engine.placement import split_leading, zeros
from gradtx.core.numerics import cast, compute_dtype, is_complex, is_trainable, real_dtype
from gradtx.core.shards import scan

PyTree = Any


P = ParamSpec("P")
R = TypeVar("R")


def accumulate_gradients(grad_fn: Callable[P, R], n: int) -> Callable[P, R]:
    """A function like `grad_fn` that goes through its batch in n micro-batches and gives the mean.

        g = (g_1 + ... + g_n) / n,   in at least float32

    One compiled `scan` holds the gradient of a single micro-batch and one running sum; nothing stays between
    steps, as the sum of `gradtx.accumulate` does. For a loss that is a mean over examples the result is the
    gradient of the whole batch. Where all g_i are finite the mean is, however large they are: what is summed
    is g_i times a power of two that is at most 1/n.

    Args:
        grad_fn: a function of (params, *batches, **others), such as `jax.grad(loss)` or
            `jax.value_and_grad(loss, has_aux=True)`. All it returns is combined: floating and complex arrays
            by their mean, integers and bools by their sum, so that a count stays a count.
        n: the number of micro-batches, which divides the leading axis of every array in `batches`.

    Returns:
        A function of the same arguments and results. Keyword arguments are passed on as they are.

    Raises:
        ValueError: n is not a positive integer, or, when called, it does not divide a leading axis.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> def loss(w, x):
        ...     return jnp.mean((w - x) ** 2)
        >>> grad_fn = gradtx.accumulate_gradients(jax.value_and_grad(loss), 2)
        >>> value, gradient = grad_fn(jnp.float32(0.0), jnp.array([1.0, 2.0, 3.0, 4.0]))
        >>> float(value), float(gradient)
        (7.5, -5.0)
    """
    check_count(n)

    run: Callable[..., R] = grad_fn

    @functools.wraps(run)
    def over_micro_batches(params: PyTree, *batches: PyTree, **others: Any) -> R:
        def one(kept: PyTree, micro: PyTree) -> tuple[PyTree, R]:
            return kept, run(params, *micro, **others)

        return combined(one, None, batches, n, beside=params)[1]

    # Of the arguments by position the first are the parameters, which no type of a function can say.
    over: Any = over_micro_batches
    return over


def check_count(n: int) -> None:
    """Raises for a number of micro-batches that is none."""
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"accumulate_gradients: n must be a positive integer, got {n!r}.")


def combined(
    one: Callable[[Any, PyTree], tuple[Any, PyTree]], kept: Any, batches: PyTree, n: int, beside: Any = None
) -> tuple[Any, PyTree]:
    """What `one(kept, micro_batch) -> (kept, result)` keeps in the end, and its results combined.

    `beside` is what else `one` uses: where results are sharded arrays, the mesh is that of one of all these.
    """
    micro = _split(batches, n)
    first = jax.tree.map(lambda x: x[0], micro)
    _, shapes = jax.eval_shape(one, kept, first)
    start = zeros(jax.eval_shape(_widened, shapes), (beside, kept, batches))

    # A power of two changes no digit of a normal number, and finite results have no sum that overflows.
    weight = 0.5 ** (n - 1).bit_length()

    def body(carry: Any, batch: PyTree) -> Any:
        kept, sums = carry
        kept, result = one(kept, batch)
        weighted = jax.tree.map(lambda x: _scaled(jnp.multiply, x, weight), _widened(result))
        return (kept, jax.tree.map(jnp.add, sums, weighted)), None

    (kept, sums), _ = scan(body, (kept, start), micro)
    return kept, jax.tree.map(lambda s: _scaled(jnp.divide, s, n * weight), sums)


def _scaled(operate: Callable[..., jax.Array], x: jax.Array, number: float) -> jax.Array:
    """`x` times a number or divided by it, part by part where it is complex; a count stays as it is."""
    if not is_trainable(x.dtype):
        return x
    real = jnp.asarray(number, real_dtype(x.dtype))
    if is_complex(x.dtype):
        return jax.lax.complex(operate(x.real, real), operate(x.imag, real))
    return operate(x, real)


def _widened(results: PyTree) -> PyTree:
    """Results of a micro-batch in the dtypes to sum them in."""

    def wide(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        if is_trainable(x.dtype):
            return cast(x, compute_dtype(x.dtype))
        return cast(x, jnp.int32 if x.dtype == jnp.bool_ else x.dtype)

    return jax.tree.map(wide, results)


def _split(batches: PyTree, n: int) -> PyTree:
    leaves, structure = flatten(batches)
    for path, x in zip(paths(batches), leaves, strict=True):
        size = jnp.shape(x)[0] if jnp.ndim(x) else None
        if x is not None and (size is None or size % n):
            has = "no leading axis" if size is None else f"a leading axis of {size}"
            raise ValueError(
                f"accumulate_gradients: the batch's leaf {path!r} has {has}, which {n} micro-batches cannot "
                f"share evenly. Give what is not a batch by keyword, or another n."
            )
    return structure.unflatten([None if x is None else split_leading(as_array(x), n) for x in leaves])
