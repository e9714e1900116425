"""The loss and its gradient from the state of a line search, which has evaluated them already."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.protocol import Updates
from gradtx.core.numbers.states import kept_in
from gradtx.linesearch.backtracking import ScaleByBacktrackingLinesearch
from gradtx.linesearch.zoom import ScaleByZoomLinesearch

_KEYS = [
    {*search.slots, *search.scalars} for search in (ScaleByBacktrackingLinesearch, ScaleByZoomLinesearch)
]


def value_and_grad_from_state(value_fn: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, Updates]]:
    """`jax.value_and_grad` that takes what a line search has found, where it has found something.

    A line search ends with the loss and its gradient at the parameters that it makes, which are those that
    the next step begins with, as long as the loss is the same function (no other batch) and nothing else
    moves the parameters.

    Args:
        value_fn: the loss, a function of the parameters and other arguments.

    Returns:
        A function of the parameters and these arguments, and of `state=`, the optimizer's state, that gives
        the loss and its gradient. Before the first step, and where the loss that was found is not finite, it
        evaluates them. The gradient may be the state's own array: where the state is donated to the next
        step, give both to one compiled function.

    Raises:
        ValueError: the state has no line search, or one that keeps no gradient (`store_grad=True` for
            backtracking) or works on some of the leaves alone.
        KeyError: it has several line searches.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> def loss(x):
        ...     return jnp.sum(x**2)
        >>> tx, x = gradtx.lbfgs(), jnp.array([1.0, 2.0, 3.0])
        >>> state, value_and_grad = tx.init(x), gradtx.value_and_grad_from_state(loss)
        >>> for _ in range(2):
        ...     value, grad = value_and_grad(x, state=state)
        ...     x, state = gradtx.apply_gradients(tx, grad, state, x, value=value, value_fn=loss)
        >>> bool(loss(x) < 1e-9)
        True
    """

    @functools.wraps(value_fn)
    def value_and_grad(params: Any, *args: Any, state: Any, **kwargs: Any) -> tuple[jax.Array, Updates]:
        slots = _line_search(state)
        leaves, structure = lv.flatten(params)
        grads = lv.align(structure, slots["grad"], params, "gradients of the state", "params")
        for i, (x, g) in enumerate(zip(leaves, grads, strict=True)):
            if x is not None and g is None:
                raise ValueError(
                    f"value_and_grad_from_state: the state has no gradient of the leaf "
                    f"{lv.paths(params)[i]!r}. A line search must keep it (store_grad=True) and work on all "
                    f"leaves; otherwise use jax.value_and_grad."
                )
        value = slots["value"]
        known = jnp.isfinite(value) & (slots["num_linesearch_steps"] > 0)

        def evaluated() -> tuple[Any, Any]:
            return jax.value_and_grad(value_fn)(params, *args, **kwargs)

        def found() -> tuple[Any, Any]:
            shapes = jax.eval_shape(evaluated)
            return jax.tree.map(lambda x, s: x.astype(s.dtype), (value, structure.unflatten(grads)), shapes)

        if isinstance(known, Tracer):
            return jax.lax.cond(known, found, evaluated)
        return found() if known else evaluated()

    return value_and_grad


def _line_search(state: Any) -> Any:
    """What the one line search in a state keeps."""
    found = [kept.slots for kept in kept_in(state) if set(kept.slots) in _KEYS]
    if not found:
        raise ValueError("value_and_grad_from_state: there is no line search in this state.")
    if len(found) > 1:
        raise KeyError(
            f"value_and_grad_from_state: there is more than one line search ({len(found)}) in this state."
        )
    return found[0]
