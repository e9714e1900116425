"""The loss along an update, from the parameters on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.on_shards import refuse_unnamed
from gradtx.core.engine.transform import added, cast_like
from gradtx.core.engine.update import GRAD, VALUE_FN
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.numerics import cast, inner_product, is_trainable, number_dtype, real_dtype, total
from gradtx.core.spec.spec import is_array, show

Leaves = list[Any]
T = TypeVar("T")

GIVEN = ("value", GRAD, VALUE_FN)
"""The keyword arguments of `update` that are a line search's own; the loss may take any other."""


class Point(NamedTuple):
    """A point on a line: how far it is, the loss there, and its derivative along the line."""

    rate: jax.Array
    value: jax.Array
    slope: jax.Array


class Line:
    """phi(t) = f(theta + t u), with f the loss, theta the parameters and u the update.

    Nothing of it has a derivative: the rate that a line search finds is a constant to `jax.grad`.

    Attributes:
        start: the point at t = 0, from the loss and the gradient that `update` was given.
        grads: the gradient there, as `jax.grad` gives it.
    """

    def __init__(self, us: Leaves, call: WrappedUpdate, where: str) -> None:
        assert call.params is not None
        self.where, self.tree = where, call.tree
        self.us, self.params = constant((us, call.params))
        self.loss = functools.partial(call.extra[VALUE_FN], **constant(_accepted(call.extra)))
        given = call.extra.get(GRAD)
        found = [jnp.conj(g) for g in call.given] if given is None else call.leaves(given)
        self.grads = [cast(lv.as_array(g), u.dtype) for g, u in zip(constant(found), self.us, strict=True)]
        value, zero = self._number(constant(call.extra["value"])), jnp.zeros((), number_dtype())
        self.start = Point(zero, value, self.slope(self.grads))

    def slope(self, grads: Leaves) -> jax.Array:
        """The derivative along the line, where the loss has a gradient."""
        parts = [inner_product(jnp.conj(g), u) for g, u in zip(grads, self.us, strict=True)]
        return cast(total(parts), number_dtype())

    def at(self, rate: jax.Array) -> tuple[jax.Array, Callable[[], Leaves]]:
        """The loss at a point, and what gives its gradient there."""
        ends = list(map(added, self.params, scaled(self.us, rate)))
        value, pull = jax.vjp(lambda leaves: self._number(self.loss(self.tree(leaves))), ends)
        refuse_unnamed(f"{self.where}: the loss", self, value)

        def gradient() -> Leaves:
            (grads,) = pull(jnp.ones_like(value))
            return [cast(g, u.dtype) for g, u in zip(grads, self.us, strict=True)]

        return value, gradient

    def point(self, rate: jax.Array) -> tuple[Point, Leaves]:
        """A point, and the gradient of the loss there."""
        value, gradient = self.at(rate)
        grads = gradient()
        return Point(rate, value, self.slope(grads)), grads

    def _number(self, value: Any) -> jax.Array:
        value = lv.as_array(value)
        if value.shape or jnp.iscomplexobj(value):
            raise ValueError(
                f"{self.where}: the loss must be a real number, got {value.dtype} of shape {value.shape}. "
                f"Average it over the examples."
            )
        return value.astype(number_dtype())


def scaled(us: Leaves, rate: jax.Array) -> Leaves:
    """An update times a rate; times 0 exactly 0."""
    made = [cast(rate, real_dtype(u.dtype)) * u for u in us]
    return [jnp.where(rate == 0, jnp.zeros_like(u), u) for u in made]


def constant(tree: T) -> T:
    """A tree of which no array has a derivative."""

    def fixed(x: Any) -> Any:
        is_differentiable = is_array(x) and is_trainable(x.dtype)
        return jax.lax.stop_gradient(x) if is_differentiable else x

    return jax.tree.map(fixed, tree)


def _accepted(extra: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `update` that the loss takes."""
    value_fn = extra[VALUE_FN]
    if not callable(value_fn):
        raise TypeError(f"value_fn must be the loss, a function of the parameters, got {show(value_fn)}.")
    rest = {name: value for name, value in extra.items() if name not in GIVEN}
    parameters = inspect.signature(value_fn).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return {name: value for name, value in rest.items() if takes_all or name in parameters}


def broken(error: jax.Array) -> jax.Array:
    """By how much a condition is broken: 0 where it holds, the largest number where nothing is known."""
    return jnp.where(jnp.isfinite(error), jnp.maximum(error, 0), most(error))


def most(x: jax.Array) -> np.ndarray:
    """The largest number: whoever looks for what is not finite would stop at infinity."""
    return np.array(jnp.finfo(x.dtype).max, x.dtype)


def repeat(goes_on: Callable[[T], jax.Array], trial: Callable[[T], T], start: T, *seen: Any) -> T:
    """A loop of trials; outside of `jit` a plain one, which compiles nothing.

    `seen` is what a trial looks at beside what it is given.
    """

    def same(state: T) -> T:
        return jax.tree.map(cast_like, trial(state), state)

    state = start
    if not any(isinstance(x, Tracer) for x in jax.tree.leaves((start, seen))):
        while not isinstance(again := goes_on(state), Tracer):
            if not again:
                return state
            state = same(state)
    return jax.lax.while_loop(goes_on, same, state)


def either(condition: jax.Array, one: Callable[[], T], other: Callable[[], T]) -> T:
    """What one of two functions gives; outside of `jit` by a plain `if`, which compiles nothing."""
    if isinstance(condition, Tracer):
        return jax.lax.cond(condition, one, other)
    return one() if condition else other()


def chosen(condition: jax.Array, one: T, other: T) -> T:
    """One of two trees, by a condition that is traced."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), one, other)
