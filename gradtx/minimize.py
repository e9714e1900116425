"""Minimization of a function in one compiled loop."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from gradtx.core.engine.composed import Composed
from gradtx.core.engine.kernels import is_plain
from gradtx.core.engine.program import Program
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.transform import apply_gradients

T = TypeVar("T")


def minimize(
    loss: Callable[[T], jax.Array], params: T, tx: AnyTransform, steps: int
) -> tuple[T, dict[str, jax.Array]]:
    """Minimizes a function of the parameters with an optimizer, in one compiled `scan`.

    Args:
        loss: a differentiable function of the parameters that gives a real scalar.
        params: the parameters to start from; a tree of arrays, which is not changed.
        tx: a transform of any library; a call with the same `loss` and other numbers in `tx` compiles
            nothing.
        steps: the number of updates.

    Returns:
        The final parameters, and the history: `{"loss": losses}`, one before each update.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params, history = gradtx.minimize(lambda x: (x - 3) ** 2, jnp.float32(0), gradtx.adam(0.1), 200)
        >>> round(float(params), 2), float(history["loss"][0])
        (3.0, 9.0)
    """
    return _loop(loss, tx, steps)(params, tx.init(params))


class _Loops:
    """The compiled loops of one loss: they live as long as it, and as what is code in the optimizer."""

    def __init__(self) -> None:
        self.plain: dict[Any, Any] = {}
        self.coded: weakref.WeakKeyDictionary[Program, dict[int, Any]] = weakref.WeakKeyDictionary()


_LOOPS: weakref.WeakKeyDictionary[Any, _Loops] = weakref.WeakKeyDictionary()


def _loop(loss: Any, tx: Any, steps: int) -> Any:
    """The compiled loop of a loss and an optimizer up to its numbers."""
    try:
        loops = _LOOPS.setdefault(loss, _Loops())
    except TypeError:  # it has no hash or no weak reference, so nothing can be kept with it
        return _compiled(lambda: loss, lambda: tx, steps)
    if not isinstance(tx, Composed):
        return _compiled(lambda: loss, lambda: tx, steps)
    reference, program = weakref.ref(loss), tx.program
    if is_plain(program):
        key = program, program.masks, steps
        return loops.plain.setdefault(key, _compiled(reference, lambda: tx, steps))
    lengths = loops.coded.setdefault(program, {})
    owner = weakref.ref(tx)
    return lengths.setdefault(steps, _compiled(reference, owner, steps))


def _compiled(loss: Callable[[], Any], tx: Callable[[], Any], steps: int) -> Any:
    def run(params: Any, state: Any) -> tuple[Any, Any]:
        function, optimizer = loss(), tx()

        def body(carry: Any, _: Any) -> tuple[Any, jax.Array]:
            params, state = carry
            value, grads = jax.value_and_grad(function)(params)
            # Of complex parameters jax.grad gives the conjugate of the direction of ascent.
            params, state = apply_gradients(
                optimizer,
                jax.tree.map(jnp.conj, grads),
                state,
                params,
                value=value,
                grad=grads,
                value_fn=function,
            )
            return (params, state), value

        (params, _), values = jax.lax.scan(body, (params, state), None, length=steps)
        return params, {"loss": values}

    return jax.jit(run)
