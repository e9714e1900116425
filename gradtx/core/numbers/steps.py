"""Numbers of steps, exact up to 2^31 and beyond: whole steps are integers, and float32 holds them to 2^24.

A step count of the state is an integer, and so is its difference to a boundary; a hyperparameter that is a
number of steps stands in the state as two floats, the nearest one and what is missing to the given value.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.numerics import cast, number_dtype
from gradtx.core.spec.fields import LAST

REST = "_rest"
"""What ends the name of the second float of a number of steps in the state."""

_LARGEST = float(np.nextafter(np.float32(2**31), np.float32(0)))
"""The largest float32 that an int32 holds."""


def next_count(count: Any, by: Any = 1) -> jax.Array:
    """A count with one more, or with one more where `by` is true; at 2^31 - 1 it stays."""
    count = jnp.asarray(count)
    last = np.asarray(LAST, count.dtype)
    return jnp.where(count < last, count + jnp.asarray(by).astype(count.dtype), last)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["whole", "rest"], meta_fields=[])
class Steps:
    """A number of steps: a whole one, int32, and the rest, a float that is 0 where it is a whole number.

    Sums, differences and comparisons are exact; in all other arithmetic it is its value, a float.
    """

    def __init__(self, whole: Any, rest: Any) -> None:
        self.whole, self.rest = whole, rest

    @classmethod
    def of(cls, x: Any, rest: Any = 0.0) -> Steps:
        """The steps that an integer, a float, or the two floats of the state are."""
        if isinstance(x, Steps):
            return x
        if isinstance(x, int | float) and not isinstance(x, bool):
            x, rest = nearest(x), missing(x)
        x = jnp.asarray(x)
        if x.dtype == np.int32:
            return cls(x, jnp.zeros_like(x, number_dtype()))
        if jnp.issubdtype(x.dtype, jnp.integer):
            return cls(*_of_integer(x))
        return cls(*whole_and_rest(cast(x, number_dtype()), jnp.asarray(rest, number_dtype())))

    @property
    def value(self) -> jax.Array:
        """The nearest float."""
        return cast(self.whole, self.rest.dtype) + self.rest

    def floor(self) -> jax.Array:
        """The whole steps, int32."""
        return whole_steps(self.whole, self.rest)

    def ceil(self) -> jax.Array:
        """The whole steps that are not less, int32."""
        return ceiling(self.whole, self.rest)

    def from_zero(self) -> Steps:
        """Itself, 0 where it is less."""
        return Steps(*from_zero(self.whole, self.rest))

    def __sub__(self, other: Any) -> Steps:
        other = Steps.of(other)
        return Steps(self.whole - other.whole, self.rest - other.rest)

    def is_multiple(self, period: Steps) -> jax.Array:
        """Whether a period goes into these whole steps without a rest; one below 1, of a schedule, is 1."""
        return jax.lax.rem(self.whole, jnp.maximum(period.floor(), 1)) == 0

    def __floordiv__(self, other: Any) -> jax.Array:
        other = Steps.of(other)
        return whole_quotient(self.whole, self.rest, other.whole, other.rest)

    def __lt__(self, other: Any) -> jax.Array:
        return _compare("lt", self, other)

    def __le__(self, other: Any) -> jax.Array:
        return _compare("le", self, other)

    def __gt__(self, other: Any) -> jax.Array:
        return _compare("gt", self, other)

    def __ge__(self, other: Any) -> jax.Array:
        return _compare("ge", self, other)

    def __add__(self, other: Any) -> Any:
        # In the rest, since the whole steps may be the last that int32 holds.
        return Steps(self.whole, self.rest + Steps.of(other).value)

    def __mul__(self, other: Any) -> jax.Array:
        return self.value * other

    def __truediv__(self, other: Any) -> jax.Array:
        return self.value / (other.value if isinstance(other, Steps) else other)

    def __rsub__(self, other: Any) -> jax.Array:
        return other - self.value

    def __rtruediv__(self, other: Any) -> jax.Array:
        return other / self.value

    def __pow__(self, other: Any) -> jax.Array:
        return self.value**other

    def __neg__(self) -> jax.Array:
        return -self.value

    __radd__, __rmul__ = __add__, __mul__

    def __jax_array__(self) -> jax.Array:
        return self.value


def nearest(x: Any) -> Any:
    """The first float of a number of steps in the state: what float32 holds, whatever the precision is."""
    if isinstance(x, Tracer):
        return x
    with np.errstate(over="ignore"):
        near = np.asarray(x, np.float64).astype(np.float32).astype(np.float64)
    return near if near.ndim else type(x)(near) if isinstance(x, float) else float(near)


def missing(x: Any) -> Any:
    """The second float of a number of steps: its difference to the first."""
    if isinstance(x, Tracer):
        integer = jnp.issubdtype(x.dtype, jnp.integer)
        return _missing_of_integer(x) if integer else jnp.zeros_like(x, number_dtype())
    if isinstance(x, int) and not isinstance(x, bool):
        near = nearest(x)
        return float(x - int(near)) if np.isfinite(near) else 0.0
    near = np.asarray(nearest(x))
    rest = np.where(np.isfinite(near), np.asarray(x, np.float64) - np.where(np.isfinite(near), near, 0), 0.0)
    return rest if rest.ndim else type(x)(rest) if isinstance(x, float) else float(rest)


def given(near: Any, rest: Any) -> Any:
    """The number of steps that two floats of a state are, as it was given: floats for arrays on the host."""
    if isinstance(near, jax.ShapeDtypeStruct):
        return near
    if isinstance(near, Tracer) or isinstance(rest, Tracer):
        return near + rest
    near, rest = np.asarray(near), np.asarray(rest)
    if near.dtype == np.float64:
        return near + rest
    exact = near.astype(np.float64) + rest
    # What was given in a few decimals, as 4.3, is the shortest number that is stored in the same two floats.
    short = np.array([float(str(x)) for x in near.ravel()]).reshape(near.shape)
    return np.where((missing(short) == rest) & (exact != np.round(exact)), short, exact)


def _of_integer(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An integer that int32 may not hold, or that is narrower."""
    info = np.iinfo(x.dtype)
    low, high = max(info.min, -LAST), min(info.max, LAST)
    whole = jnp.clip(x, np.asarray(low, x.dtype), np.asarray(high, x.dtype))
    return whole.astype(np.int32), (x - whole).astype(number_dtype())


def _missing_of_integer(x: jax.Array) -> jax.Array:
    whole, more = _of_integer(x)
    near = x.astype(number_dtype())
    held = jnp.clip(near, -_LARGEST, _LARGEST)
    return (whole - held.astype(np.int32)).astype(near.dtype) + more - (near - held)


# These functions guard against rounding, and a formula reads them by their names, as what they are of exact
# numbers: `gradtx.formulas.interpret`.


@jax.jit
def whole_and_rest(near: jax.Array, rest: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A float and what is missing to a number of steps, as a whole number from 0, and the rest."""
    held = jnp.floor(jnp.clip(jax.lax.stop_gradient(near), 0.0, _LARGEST))
    # The parts are added as integers: XLA takes sums of constant floats in another order.
    parts = [near - held, rest]
    whole = [jnp.trunc(jnp.clip(jax.lax.stop_gradient(x), -(2.0**30), 2.0**30)) for x in parts]
    start, more = held.astype(np.int32), whole[0].astype(np.int32) + whole[1].astype(np.int32)
    taken = jnp.clip(more, -start, np.int32(LAST) - start)
    left = (parts[0] - whole[0]) + (parts[1] - whole[1])
    return start + taken, left + cast(more - taken, left.dtype)


@jax.jit
def from_zero(whole: jax.Array, rest: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A number of steps, 0 where it is less."""
    negative = cast(whole, rest.dtype) < -rest
    return jnp.where(negative, 0, whole), jnp.where(negative, 0.0, rest)


@jax.jit
def whole_steps(whole: jax.Array, rest: jax.Array) -> jax.Array:
    """The whole steps in a number of steps."""
    return whole + jnp.floor(jax.lax.stop_gradient(rest)).astype(np.int32)


@jax.jit
def ceiling(whole: jax.Array, rest: jax.Array) -> jax.Array:
    """The least whole number of steps that is not less."""
    return whole + jnp.ceil(jax.lax.stop_gradient(rest)).astype(np.int32)


@jax.jit
def whole_quotient(whole: jax.Array, rest: jax.Array, length: jax.Array, more: jax.Array) -> jax.Array:
    """How many times a number of steps > 0 fits into another one >= 0, as a float."""
    exact = (rest == 0) & (more == 0) & (length > 0)
    quotient = cast(whole // jnp.maximum(length, np.int32(1)), rest.dtype)
    total = jnp.where(exact, jnp.ones_like(rest), cast(length, rest.dtype) + more)
    return jnp.where(exact, quotient, jnp.floor((cast(whole, rest.dtype) + rest) / total))


def _comparison(name: str) -> Callable[..., jax.Array]:
    def compare(whole: jax.Array, rest: jax.Array, other: jax.Array, more: jax.Array) -> jax.Array:
        difference = cast(whole - other, rest.dtype)
        return getattr(operator, name)(difference, jax.lax.stop_gradient(more - rest))

    compare.__name__ = compare.__qualname__ = f"steps_{name}"
    return jax.jit(compare)


_COMPARISONS = {name: _comparison(name) for name in ("lt", "le", "gt", "ge")}


def _compare(name: str, a: Steps, b: Any) -> jax.Array:
    b = Steps.of(b)
    return _COMPARISONS[name](a.whole, a.rest, b.whole, b.rest)
