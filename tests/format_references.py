"""The formats of slots in float64 numpy, written from the docstring of `gradtx.store`."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np

FLOAT8 = {"float8_e4m3": ml_dtypes.float8_e4m3fn, "float8_e5m2": ml_dtypes.float8_e5m2}
SIXTEEN = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def levels_of_4_bits():
    """The signed levels: midpoints of parts of [0.1, 1] in three decades, both signs, and 0 and 1."""
    levels = [0.0, 1.0]
    for i in range(3):
        borders = np.linspace(0.1, 1, 2**i + 1)
        middle = (borders[1:] + borders[:-1]) / 2 * 10.0 ** (i - 2)
        levels += [*middle, *-middle]
    return np.sort(levels)


def blocks(shape, counts):
    """The slices of each block, of as many along each axis; the last one of an axis may be shorter."""
    along = []
    for n, count in zip(shape, counts, strict=True):
        size = -(-n // count) if count else 1
        along.append([slice(i * size, (i + 1) * size) for i in range(count)])
    return itertools.product(*along)


def encode(name, block):
    """The codes of a block as whole numbers and its scale; the levels of 4 bits by their rank.

    Of a float8 the codes are its values.
    """
    size = np.sqrt(block) if name in ("uint8", "uint4") else block
    scale = np.max(np.abs(size), initial=0.0)
    if name == "int4":
        scale = size.max() if size.max() >= -size.min() else size.min()
    part = size / scale if scale != 0 else np.zeros_like(size)
    match name:
        case "int8":
            codes = np.floor(127 * (2 * part / (1 + np.abs(part))) + 0.5)
        case "uint8":
            codes = np.where(block > 0, np.maximum(np.floor(255 * part + 0.5), 1), 0)
        case "uint4":
            codes = np.clip(np.floor(16 * part + 0.5), 1, 16)
        case "int4":
            codes = np.argmin(np.abs(part[..., None] - levels_of_4_bits()), axis=-1)
        case _:
            kind = FLOAT8[name]
            least = float(ml_dtypes.finfo(kind).smallest_subnormal)
            wide = part * float(ml_dtypes.finfo(kind).max)
            wide = np.where((wide != 0) & (np.abs(wide) < least), np.copysign(least, wide), wide)
            codes = wide.astype(kind).astype(np.float64)
    return codes, scale


def decode(name, codes, scale):
    """What codes and a scale stand for."""
    match name:
        case "int8":
            y = codes / 127
            return y / (2 - np.abs(y)) * scale
        case "uint8":
            return (codes / 255 * scale) ** 2
        case "uint4":
            return (codes / 16 * scale) ** 2
        case "int4":
            return levels_of_4_bits()[codes.astype(int)] * scale
    return codes / float(ml_dtypes.finfo(FLOAT8[name]).max) * scale


def kept(name, x, counts):
    """What an array is once it has been kept in a format, and how far apart the values beside it are.

    A code that lies on the border of two may be either in another precision.
    """
    x = np.asarray(x).astype(np.float64)
    if name in SIXTEEN:
        return x.astype(SIXTEEN[name]).astype(np.float64)
    result = np.empty_like(x)
    for place in blocks(x.shape, counts):
        result[place] = decode(name, *encode(name, x[place])) if np.isfinite(x[place]).all() else np.nan
    return result
