"""Formats of slots: in how many bits a number is kept, and what it is taken for again.

A format turns an array into values, and most into a scale for each block of them beside; an optimizer's rule
sees what they stand for, in the dtype to compute in. A rule never knows.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine.blocks import beside, counts_along, join, largest, largest_with_sign, split
from gradtx.core.engine.placement import Size
from gradtx.core.numerics import divide, sqrt
from gradtx.core.rounding import rounded, uniform_like
from gradtx.core.spec.fields import AT_RANDOM

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Blockwise:
    """How numbers are kept as codes beside a scale for each block, element by element.

    Attributes:
        size: what of an element the codes are multiples of.
        code: `code(part, random)`, the code of what is a part of the scale.
        part: `part(code, dtype)`, what of the scale a code stands for.
        of_size: the inverse of `size`.
        scale: the scale of blocks.
    """

    size: Callable[[jax.Array], jax.Array]
    code: Callable[[jax.Array, Any], jax.Array]
    part: Callable[[jax.Array, Any], jax.Array]
    of_size: Callable[[jax.Array], jax.Array]
    scale: Callable[[jax.Array], jax.Array] = largest

    def encode(self, x: jax.Array, counts: Shape, random: Any) -> tuple[jax.Array, jax.Array]:
        """The codes and the scales of an array."""
        shape, blocks = x.shape, split(self.size(x), counts)
        scales = self.usable(self.scale(blocks))
        given = None if random is None else split(random, counts)
        return join(self.code_of(blocks, beside(scales), given), shape), scales

    def decode(self, values: jax.Array, scales: jax.Array) -> jax.Array:
        """The array that codes and scales stand for."""
        return join(self.read(split(values, scales.shape), beside(scales)), values.shape)

    @staticmethod
    def usable(scale: jax.Array) -> jax.Array:
        """A scale, NaN for infinity: a code times infinity would be infinity, of what is finite too."""
        return jnp.where(jnp.isfinite(scale), scale, scale - scale)

    def code_of(self, size: jax.Array, scale: jax.Array, random: Any) -> jax.Array:
        """The code of an element, from its size and the scale of its block."""
        return self.code(divide(size * jnp.sign(scale), jnp.abs(scale)), random)

    def read(self, code: jax.Array, scale: jax.Array) -> jax.Array:
        """What a code stands for, beside the scale of its block."""
        return self.of_size(self.part(code, scale.dtype) * scale)


@dataclasses.dataclass(frozen=True)
class Format:
    """How a slot is kept.

    Attributes:
        name: what `gradtx.store` calls it.
        dtype: the dtype of the values.
        encode: `encode(x, counts, random)`, the values and the scales (None without) of an array of real
            floats, whose blocks are as many along each axis; `random`, a number in [0, 1) for each element or
            None, decides between the two nearest values.
        decode: `decode(values, scales)`, the array that they stand for, in the dtype of the scales, or in
            that of the values.
        scaled: whether there are scales.
        nonnegative: whether it is for what is never below 0, and for nothing else.
        signed: whether it is for what has a sign; some are for anything.
        in_a_byte: how many values along the last axis are one of what is stored.
        stochastic: whether `random` is asked for.
        zero: the value that stands for 0.
        blockwise: how it is done to each element, of a format that does it so with one value for each.
    """

    name: str
    dtype: str
    encode: Callable[[jax.Array, Shape, Any], tuple[jax.Array, Any]]
    decode: Callable[[jax.Array, Any], jax.Array]
    scaled: bool = True
    nonnegative: bool = False
    signed: bool = False
    in_a_byte: int = 1
    stochastic: bool = False
    zero: int = 0
    blockwise: Blockwise | None = None

    def fits(self, shape: Shape) -> bool:
        """Whether an array of a shape can be kept so: it has axes, of which the last has whole bytes."""
        return len(shape) > 0 and math.prod(shape) > 0 and shape[-1] % self.in_a_byte == 0

    def shapes(self, shape: Shape) -> tuple[Shape, Shape | None]:
        """The shapes of the values and of the scales; a size remembers of which axis of a leaf it is."""
        n: Any = shape[-1]
        packed = n // self.in_a_byte
        last = Size.along(packed, n.axis) if hasattr(n, "axis") else packed
        return (*shape[:-1], last), counts_along(shape) if self.scaled else None

    def of(self, values: Shape) -> Shape:
        """The shape of what values of a shape stand for."""
        return (*values[:-1], values[-1] * self.in_a_byte)

    def random(self, x: jax.Array, seed: Any) -> Any:
        """A number in [0, 1) for each element, if it is asked for."""
        return uniform_like(x, seed) if self.stochastic else None


def _whole(x: jax.Array, random: Any, chance: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
    """A whole number beside each: the nearest, or with a random number one of the two.

    `chance(low, rest)` is that of `low + 1` for what is `low + rest`. What codes stand for is not linear in
    them, and it is that which is to be right on average.
    """
    if random is None:
        return jnp.floor(x + 0.5)
    low = jnp.floor(x)
    return low + (random.astype(x.dtype) < chance(low, x - low)).astype(x.dtype)


def _companded(part: jax.Array, random: Any) -> jax.Array:
    size = jnp.abs(part)

    # The code c stands for c / (254 - c).
    def chance(low: jax.Array, rest: jax.Array) -> jax.Array:
        return rest * (253 - low) / (254 - low - rest)

    whole = _whole(127 * (2 * size / (1 + size)), random, chance)
    return (jnp.sign(part) * whole).astype(jnp.int8)


def _expanded(code: jax.Array, dtype: Any) -> jax.Array:
    c = code.astype(dtype)
    return c / (254 - jnp.abs(c))


def _chance_of_square(low: jax.Array, rest: jax.Array) -> jax.Array:
    return rest * (2 * low + rest) / (2 * low + 1)


def _root_code(part: jax.Array, random: Any) -> jax.Array:
    """A code of a square root; of what is not 0 not that of 0, since updates are divided by it."""
    whole = _whole(255 * part, random, _chance_of_square)
    return jnp.maximum(whole, (part > 0).astype(part.dtype)).astype(jnp.uint8)


def _of_most(most: float) -> Callable[[jax.Array, Any], jax.Array]:
    """What a code is as a part of the largest one, which is exactly 1.

    Of `code / most * scale` the compiler makes the code times `scale / most`, by which a scale would move in
    each step of nothing.
    """

    def part(code: jax.Array, dtype: Any) -> jax.Array:
        x = code.astype(dtype)
        return jnp.where(x == most, jnp.ones_like(x), x / most)

    return part


_LEVELS = np.array([0.0055, 0.0325, 0.0775, 0.2125, 0.4375, 0.6625, 0.8875])
LEVELS = np.concatenate([-_LEVELS[::-1], [0.0], _LEVELS, [1.0]])
"""What the 16 signed codes of 4 bits stand for."""


def _nearest_level(part: jax.Array, random: Any) -> jax.Array:
    borders = ((LEVELS[1:] + LEVELS[:-1]) / 2).tolist()
    return functools.reduce(jnp.add, [(part > border).astype(jnp.uint8) for border in borders])


def _level(code: jax.Array, dtype: Any) -> jax.Array:
    return jnp.asarray(LEVELS, dtype)[code.astype(jnp.int32)]


def _sixteenths(part: jax.Array, random: Any) -> jax.Array:
    return jnp.maximum(_whole(16 * part, random, _chance_of_square) - 1, 0).astype(jnp.uint8)


def _of_sixteenths(code: jax.Array, dtype: Any) -> jax.Array:
    return (code.astype(dtype) + 1) / 16


def _paired(encode: Any) -> Any:
    """Codes of 4 bits, two along the last axis as one of 8."""

    def packed(x: jax.Array, counts: Shape, random: Any) -> tuple[jax.Array, jax.Array]:
        codes, scales = encode(x, counts, random)
        pairs = split(codes, (*codes.shape[:-1], codes.shape[-1] // 2))
        return join(pairs[..., :1] | (pairs[..., 1:] << 4), pairs.shape[::2]), scales

    return packed


def _unpaired(decode: Any) -> Any:
    def unpacked(values: jax.Array, scales: jax.Array) -> jax.Array:
        both = split(values, values.shape)
        shape = (*values.shape[:-1], 2 * values.shape[-1])
        return decode(join(jnp.concatenate([both & 15, both >> 4], axis=-1), shape), scales)

    return unpacked


def _float8(dtype: Any) -> Blockwise:
    most, least = float(jnp.finfo(dtype).max), float(jnp.finfo(dtype).smallest_subnormal)

    def code(part: jax.Array, random: Any) -> jax.Array:
        x = most * part
        # What is not 0 stays so: where it is a second moment, updates are divided by it.
        return jnp.where((x != 0) & (jnp.abs(x) < least), jnp.copysign(least, x), x).astype(dtype)

    return Blockwise(_as_it_is, code, _of_most(most), _as_it_is)


def _as_it_is(x: jax.Array) -> jax.Array:
    return x


def _cast(dtype: Any) -> Callable[[jax.Array, Shape, Any], tuple[jax.Array, None]]:
    def encode(x: jax.Array, counts: Shape, random: Any) -> tuple[jax.Array, None]:
        return (x.astype(dtype) if random is None else rounded(x, dtype, random)), None

    return encode


def _widened(values: jax.Array, scales: None) -> jax.Array:
    return values


def _of_blocks(name: str, dtype: str, blockwise: Blockwise, **fields: Any) -> Format:
    return Format(name, dtype, blockwise.encode, blockwise.decode, blockwise=blockwise, **fields)


def _of_pairs(name: str, blockwise: Blockwise, **fields: Any) -> Format:
    return Format(
        name, "uint8", _paired(blockwise.encode), _unpaired(blockwise.decode), in_a_byte=2, **fields
    )


_ALL = (
    Format("bfloat16", "bfloat16", _cast(jnp.bfloat16), _widened, scaled=False),
    Format("float16", "float16", _cast(jnp.float16), _widened, scaled=False, signed=True),
    _of_blocks("int8", "int8", Blockwise(_as_it_is, _companded, _expanded, _as_it_is), signed=True),
    _of_blocks("uint8", "uint8", Blockwise(sqrt, _root_code, _of_most(255), jnp.square), nonnegative=True),
    _of_blocks("float8_e4m3", "float8_e4m3fn", _float8(jnp.float8_e4m3fn)),
    _of_blocks("float8_e5m2", "float8_e5m2", _float8(jnp.float8_e5m2)),
    _of_pairs(
        "int4",
        Blockwise(_as_it_is, _nearest_level, _level, _as_it_is, largest_with_sign),
        signed=True,
        zero=0x77,
    ),
    _of_pairs("uint4", Blockwise(sqrt, _sixteenths, _of_sixteenths, jnp.square), nonnegative=True),
)
FORMATS: dict[str, Format] = {
    **{f.name: f for f in _ALL},
    **{
        name: dataclasses.replace(f, name=name, stochastic=True)
        for f in _ALL
        if (name := f"{f.name}_stochastic") in AT_RANDOM
    },
}
"""The formats by their names."""
