"""Conditions to skip a step, as plain functions of its updates: for `MultiSteps` and loops of your own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.engine import leaves as lv
from gradtx.core.norms import norm_squared as squared
from gradtx.core.spec.fields import Scalar

PyTree = Any


def skip_not_finite(
    updates: PyTree, gradient_step: Scalar, params: PyTree
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Whether an element of the updates is Inf or NaN.

    Args:
        updates: a tree of arrays; `None` counts as nothing.
        gradient_step: not used.
        params: not used.

    Returns:
        A bool, and what was seen: `should_skip`, the same bool, and `num_not_finite`, the number of such
        elements, int32.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> skip, seen = gradtx.skip_not_finite({"w": jnp.array([1.0, jnp.inf, jnp.nan])}, 0, None)
        >>> bool(skip), int(seen["num_not_finite"])
        (True, 2)
    """
    del gradient_step, params
    count = jnp.zeros((), jnp.int32)
    for x in _arrays(updates):
        count = count + jnp.sum(~jnp.isfinite(x), dtype=jnp.int32)
    should_skip = count > 0
    return should_skip, {"should_skip": should_skip, "num_not_finite": count}


def skip_large_updates(
    updates: PyTree, gradient_step: Scalar, params: PyTree, max_squared_norm: Scalar
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Whether the squared norm of the updates reaches a bound, or is not finite.

    Args:
        updates: a tree of arrays; `None` counts as nothing.
        gradient_step: not used.
        params: not used.
        max_squared_norm: the bound; give it with `functools.partial`.

    Returns:
        A bool, and what was seen: `should_skip`, the same bool, and `norm_squared`, sum |u|² over the whole
        tree in at least float32, real for complex updates too.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> skip, seen = gradtx.skip_large_updates({"w": jnp.array([3.0, 4.0])}, 0, None, 26.0)
        >>> bool(skip), float(seen["norm_squared"])
        (False, 25.0)
    """
    del gradient_step, params
    norm_squared = squared(_arrays(updates))
    # A comparison with NaN is false: so the bound must not be reached, rather than be exceeded.
    should_skip = ~(norm_squared < max_squared_norm)
    return should_skip, {"should_skip": should_skip, "norm_squared": norm_squared}


def _arrays(updates: PyTree) -> list[jax.Array]:
    return [lv.as_array(x) for x in lv.flatten(updates)[0] if lv.is_trainable_leaf(x)]
