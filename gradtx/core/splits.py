"""Parameters of 16 bits and what is kept beside each of them, so that an update is not lost in rounding.

A form says what a parameter and what is beside it stand for together, what to write for a new value, and
what to keep beside what was written. What is beside a parameter is relative to it: a parameter that somebody
else has changed counts as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.rounding import rounded


@dataclasses.dataclass(frozen=True)
class ParamForm:
    """How a parameter of 16 bits is kept.

    Attributes:
        beside: `beside(dtype)`, the dtype of what is kept beside a parameter of a dtype; None for nothing.
        value: `value(p, beside)`, what both stand for, in float32.
        rest: `rest(exact, p)`, what is kept beside `p`, that it may stand for `exact`.
        write: `write(exact, dtype, random)`, the parameter for a value.
        is_random: whether it asks for a random number in [0, 1) for each element.
        dtypes: the dtypes that it is for.
    """

    beside: Callable[[Any], Any]
    value: Callable[[jax.Array, Any], jax.Array]
    rest: Callable[[jax.Array, jax.Array], Any]
    write: Callable[[jax.Array, Any, Any], jax.Array]
    is_random: bool = False
    dtypes: tuple[str, ...] = ("bfloat16", "float16")


def _nearest(exact: jax.Array, dtype: Any, random: Any) -> jax.Array:
    return exact.astype(dtype)


def _alone(p: jax.Array, beside: Any) -> jax.Array:
    return p.astype(jnp.float32)


def _sum(p: jax.Array, beside: jax.Array) -> jax.Array:
    return p.astype(jnp.float32) + beside.astype(jnp.float32)


def _missing(exact: jax.Array, p: jax.Array) -> jax.Array:
    """What was rounded away, so that both together are rounded to p again; nothing of what is infinite."""
    wide = p.astype(jnp.float32)
    rest = jnp.where(jnp.isfinite(exact - wide), exact - wide, 0).astype(p.dtype)
    smaller = jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(rest, jnp.int16) - 1, p.dtype)
    stays = ((wide + rest.astype(jnp.float32)).astype(p.dtype) == p) | (rest == 0)
    return jnp.where(stays | jnp.isnan(p), rest, smaller)


def _copy_or(p: jax.Array, copy: jax.Array) -> jax.Array:
    """The copy, or the parameter where that was given another value since: one that no rounding gives."""
    own, kept, narrow = p.astype(jnp.float32), copy.astype(jnp.float32), jnp.finfo(p.dtype)
    # By their bits, since a CPU may take what is subnormal for 0; subnormal float16 is wider apart.
    near = (jnp.abs(_behind(kept, p)) <= 1 << (23 - narrow.nmant)) & ((_bits(p) ^ _bits(kept)) >= 0)
    near |= jnp.abs(kept - own) <= float(narrow.smallest_subnormal)
    return jnp.where(near & ~jnp.isnan(p), kept, own)


def _bits(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)


_SIZE, _INFINITY = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
"""The bits of a float32 without its sign, and those of infinity."""


@jax.custom_jvp
def _joined(p: jax.Array, beside: jax.Array) -> jax.Array:
    """The float32 whose bits are those of p, and behind them `beside`, a number with a sign, added.

    Of a parameter that somebody else has made 0 or infinite it is that: less than 0 and more than infinity
    would be NaN.
    """
    size = jnp.clip((_bits(p) & _SIZE) + beside, 0, _INFINITY)
    exact = jax.lax.bitcast_convert_type(size | (_bits(p) & ~_SIZE), jnp.float32)
    return jnp.where(jnp.isnan(p), p.astype(jnp.float32), exact)


@_joined.defjvp
def _joined_jvp(primals: Any, tangents: Any) -> Any:
    exact = _joined(*primals)
    return exact, tangents[0].astype(exact.dtype)


def _behind(exact: jax.Array, p: jax.Array) -> jax.Array:
    """How many float32 numbers lie between a parameter and its exact value; 0 on the other side of 0."""
    own, wanted = _bits(p), _bits(exact)
    apart = jnp.where((own ^ wanted) < 0, 0, wanted - own)
    return jnp.where(jnp.isnan(exact) | jnp.isnan(p), 0, apart)


@jax.custom_jvp
def _half_up(exact: jax.Array) -> jax.Array:
    """The nearest bfloat16, of two the one away from 0, so that what is behind it has 16 bits."""
    bits = (_bits(exact) + 0x8000) >> 16
    near = jax.lax.bitcast_convert_type(bits.astype(jnp.int16), jnp.bfloat16)
    return jnp.where(jnp.isnan(exact), exact.astype(jnp.bfloat16), near)


@_half_up.defjvp
def _half_up_jvp(primals: Any, tangents: Any) -> Any:
    near = _half_up(*primals)
    return near, tangents[0].astype(near.dtype)


def _split(bits: int) -> ParamForm:
    """A bfloat16 and what is behind it in some more bits."""
    unit, dtype = 1 << (16 - bits), np.dtype(f"int{bits}")
    most = jnp.iinfo(dtype)

    def rest(exact: jax.Array, p: jax.Array) -> jax.Array:
        whole = (_behind(exact, p) + unit // 2) // unit
        return jnp.clip(whole, most.min, most.max).astype(dtype)

    return ParamForm(
        beside=lambda leaf: dtype,
        value=lambda p, beside: _joined(p, beside.astype(jnp.int32) * unit),
        rest=rest,
        write=lambda exact, to, random: _half_up(exact),
        dtypes=("bfloat16",),
    )


FORMS = {
    "stochastic": ParamForm(lambda leaf: None, _alone, lambda exact, p: None, rounded, is_random=True),
    "kahan": ParamForm(lambda leaf: leaf, _sum, _missing, _nearest),
    "master": ParamForm(lambda leaf: np.dtype(np.float32), _copy_or, lambda exact, p: exact, _nearest),
    "split16": _split(16),
    "split8": _split(8),
}
"""The forms by their names."""
