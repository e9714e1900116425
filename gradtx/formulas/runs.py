"""Arrays as expressions.

One expression describes all elements of an array and does not mention their positions, so that broadcasting
and reshaping change nothing. A vector that holds different things one after the other (packed scalars, the
numbers of a schedule, flattened leaves) is a list of `Runs`, which can be cut and joined exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.formulas.expression import Expression, fingerprint, intern, number, symbol

LONGEST = 64
"""A constant array of more elements is a symbol."""

STAND_IN = "@"
"""What stands in a name between what a thing is and which one: of a large constant, a key or a noise."""

CONSTANT = f"constant{STAND_IN}"


class Runs:
    """An array whose elements, in row-major order, are runs of equal expressions."""

    def __init__(self, parts: list[tuple[Expression, int]]) -> None:
        self.parts = parts

    @property
    def lengths(self) -> list[int]:
        """The length of each run."""
        return [n for _, n in self.parts]

    def cut(self, start: int, stop: int) -> list[tuple[Expression, int]]:
        """The runs between two positions."""
        found, at = [], 0
        for x, n in self.parts:
            length = min(stop, at + n) - max(start, at)
            if length > 0:
                found.append((x, length))
            at += n
        return found


Value = Expression | Runs


def runs(parts: Sequence[tuple[Expression, int]]) -> Value:
    """An array of runs; one expression where all are the same."""
    joined: list[tuple[Expression, int]] = []
    for x, n in parts:
        if joined and joined[-1][0] is x:
            joined[-1] = x, joined[-1][1] + n
        elif n:
            joined.append((x, n))
    return joined[0][0] if len(joined) == 1 else Runs(joined)


def pieces(value: Value, size: int) -> list[tuple[Expression, int]]:
    """The runs of an array of some size."""
    return value.parts if isinstance(value, Runs) else [(value, size)]


def one(value: Value, start: int, stop: int) -> Expression:
    """One expression for some elements of an array; where they are of several kinds, a function of these."""
    if isinstance(value, Expression):
        return value
    kinds = [x for x, _ in value.cut(start, stop)]
    return kinds[0] if len(kinds) == 1 else intern("call", "concatenate", str(value.lengths), *kinds)


def constant(x: Any) -> Value:
    """A concrete array."""
    if jnp.issubdtype(getattr(x, "dtype", np.float32), jax.dtypes.prng_key):
        data = np.asarray(jax.random.key_data(x))
        return symbol(f"key{STAND_IN}{fingerprint(repr((x.dtype, data.shape, data.tobytes())).encode())}")
    x = np.asarray(x)
    if x.size and (x == x.flat[0]).all():
        return _literal(x.flat[0])
    if x.size <= LONGEST:
        return runs([(_literal(v), 1) for v in x.flat])
    return symbol(CONSTANT + fingerprint(repr((x.dtype.name, x.shape)).encode() + x.tobytes()))


def stand_in(name: str) -> float | None:
    """A number between 0 and 1 for a quantity of which only the name is known, a different one for each name.

    None for names that stand for something else.
    """
    _, marked, which = name.partition(STAND_IN)
    return (int(which, 16) + 1) / (16.0 ** len(which) + 1) if marked else None


def _literal(x: Any) -> Expression:
    return number(bool(x) if x.dtype == bool else complex(x) if x.dtype.kind == "c" else float(x))


def each(fn: Callable[..., Expression], args: list[Value], sizes: list[int]) -> Any:
    """A function of single elements applied to arrays; an array of one element is repeated as needed."""
    wide = [(x, n) for x, n in zip(args, sizes, strict=True) if isinstance(x, Runs)]
    if not wide:
        return fn(*args)
    size = wide[0][1]
    if any(n != size for _, n in wide):
        return None
    ends = sorted(
        {sum(x.lengths[: i + 1]) for x, _ in wide if isinstance(x, Runs) for i in range(len(x.parts))}
    )
    result, start = [], 0
    for end in ends:
        here = [x.cut(start, end)[0][0] if isinstance(x, Runs) else x for x in args]
        result.append((fn(*here), end - start))
        start = end
    return runs(result)
