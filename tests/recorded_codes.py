"""The codes that torchao makes of recorded blocks, beside those that the formats of slots make of them.

`golden/make_formats.py` has recorded them. The tests and `conformance.py` read what is here.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine.formats import FORMATS


class Codes(NamedTuple):
    """A format beside a recording: what it keeps, both kinds of codes, and which of them should be equal."""

    kept: tuple[jax.Array, Any]
    ours: np.ndarray
    theirs: np.ndarray
    comparable: np.ndarray
    otherwise: str

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many codes are compared, how many of these differ, and how many are left out."""
        different = (self.ours != self.theirs) & self.comparable
        return int(self.comparable.sum()), int(different.sum()), int((~self.comparable).sum())


@functools.cache
def recorded() -> dict[str, np.ndarray]:
    """`formats.npz`."""
    with np.load(Path(__file__).parent / "golden" / "formats.npz") as file:
        return dict(file)


def codes(name: str) -> Codes:
    """A format of `OF_FORMATS` beside what was recorded."""
    kept = FORMATS[name].encode(jnp.asarray(recorded()["x"]), (len(recorded()["x"]), 1), None)
    return OF_FORMATS[name](kept)


def _of_int4(kept: tuple[jax.Array, Any]) -> Codes:
    x, values = recorded()["x"], np.asarray(kept[0])
    ours = np.stack([values & 15, values >> 4], axis=-1).reshape(x.shape)
    positive = np.broadcast_to(x.max(-1, keepdims=True) > -x.min(-1, keepdims=True), x.shape)
    why = "the largest of a block is negative: torchao keeps 0.89 of it, and here the scale has its sign"
    return Codes(kept, ours, recorded()["codes_of_4_bits"], positive, why)


def _of_float8(kept: tuple[jax.Array, Any]) -> Codes:
    theirs = recorded()["float8"]
    why = "torchao makes 0 of them, and here none but 0 becomes 0"
    return Codes(kept, np.asarray(kept[0]).view(np.uint8), theirs, (theirs & 0x7F) != 0, why)


OF_FORMATS = {"int4": _of_int4, "float8_e4m3": _of_float8}
"""By the name of a format, how its codes and those that were recorded are compared."""
