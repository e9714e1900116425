"""Minimization of a function in one compiled loop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from gradtx.core.engine.structure import Structure
from gradtx.core.engine.transform import apply_gradients


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _loop(loss: Any, tx: Any, steps: int, params: Any, state: Any) -> tuple[Any, Any]:
    def body(carry: Any, _: Any) -> tuple[Any, jax.Array]:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        params, state = apply_gradients(tx, grads, state, params, value=value, grad=grads, value_fn=loss)
        return (params, state), value

    (params, _), values = jax.lax.scan(body, (params, state), None, length=steps)
    return params, {"loss": values}


def minimize(
    loss: Callable[[Any], jax.Array], params: Any, tx: Any, steps: int
) -> tuple[Any, dict[str, jax.Array]]:
    """Minimizes a function of the parameters with an optimizer, in one compiled `scan`.

    Args:
        loss: a differentiable function of the parameters that gives a real scalar.
        params: the start, a tree of arrays; it is not changed.
        tx: an optimizer. A call with the same `loss` and other numbers in `tx` compiles nothing.
        steps: the number of updates.

    Returns:
        The final parameters, and the history: `{"loss": losses}`, one before each update.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params, history = gradtx.minimize(lambda x: (x - 3) ** 2, jnp.float32(0), gradtx.adam(0.1), 200)
        >>> round(float(params), 2), float(history["loss"][0])
        (3.0, 9.0)
    """
    return _loop(loss, Structure.of(tx), steps, params, tx.init(params))
