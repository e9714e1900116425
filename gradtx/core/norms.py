"""Norms that neither overflow nor underflow where the result can be represented.

A sum of squares is exact to rounding for a wide range of norms, in float32 from about 1e-15 to 1e14, and is
taken first. Only outside of it the arrays are read again, multiplied by a power of two that brings their
squares into the range. An ordinary step pays for one comparison.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.numerics import (
    abs_sq,
    cast,
    compute_dtype,
    divide,
    real_dtype,
    sqrt,
    stacked,
    total,
    usually,
    widest,
)
from gradtx.core.shards import Axes, cond, shard_axes, summed
from gradtx.core.summing import plain_sum, scaled_sum

T = TypeVar("T")


class _Range:
    """What is exact in a dtype: sums of squares from `low` an element to `high`, and factors from `factor`.

    Small numbers have their squares in the range when multiplied by `up`, large ones by `down`;
    then also the derivatives of their norm are in range.
    """

    def __init__(self, dtype: Any) -> None:
        about = jnp.finfo(dtype)
        # What squares lose below the smallest normal number is then less than the rounding of their sum.
        self.low = math.ldexp(1.0, about.minexp + about.nmant + 1)
        # Many sums can still be added, and the least of what is larger is far above `low` when scaled down.
        self.high = math.ldexp(1.0, about.maxexp * 3 // 4)
        self.up = np.array(np.ldexp(1.0, about.maxexp * 11 // 20), dtype)
        self.down = np.array(np.ldexp(1.0, -(about.maxexp * 5 // 8)), dtype)
        self.one = np.ones((), dtype)
        self.factor = np.array(np.ldexp(1.0, about.minexp * 4 // 5), dtype)

    def holds(self, sums: jax.Array, size: int) -> jax.Array:
        """Whether sums of so many squares are exact."""
        return (sums >= size * self.low) & (sums <= self.high)


def _size(x: jax.Array, batch: int) -> int:
    return math.prod(x.shape[batch:])


class Parts(NamedTuple):
    """A sum of squares, `small / up² + plain + large / down²`, in parts to be added over leaves and shards.

    What is summed on one device adds to the one part in which it is exact. Only Inf and NaN make a part not
    finite.
    """

    small: jax.Array
    plain: jax.Array
    large: jax.Array

    @property
    def finite(self) -> jax.Array:
        """Whether there is no Inf and no NaN among what was squared."""
        return jnp.isfinite(self.large)

    def mean(self, size: float) -> Parts:
        """The same divided by a number of elements."""
        return Parts(*(part / size for part in self))

    def top(self) -> tuple[jax.Array, jax.Array]:
        """An exact sum of squares, times the square of a factor, and that factor: `down`, 1 or `up`."""
        limits = _Range(self.plain.dtype)
        is_large, is_plain = self.large != 0, self.plain != 0
        # Chosen at run time: XLA would multiply two constants, and their product is out of range.
        down = jnp.where(is_large, limits.down, limits.one)
        back = jnp.where(is_plain, 1 / limits.up, limits.one)
        rest = jnp.where(is_plain, self.plain + self.small * back * back, self.small)
        top = jnp.where(is_large, self.large + self.plain * down * down, rest)
        return top, jnp.where(is_large, limits.down, jnp.where(is_plain, limits.one, limits.up))

    def sum(self) -> jax.Array:
        """The sum as one number, as far as that can be represented."""
        norm = self.norm()
        return jnp.where((self.small == 0) & (self.large == 0), self.plain, norm * norm)

    def norm(self) -> jax.Array:
        """The root of the sum, Inf only if it cannot be represented."""
        top, factor = self.top()
        return sqrt(top) / factor

    def clip_factors(self, bound: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Two factors that are `min(1, bound / norm)` together, and 1 where something is not finite."""
        return _clip_factors(*self.top(), bound)


def _clip_factors(top: jax.Array, factor: jax.Array, bound: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The second is 1 unless the first would be too small by itself to have all digits."""
    limits, root = _Range(top.dtype), sqrt(top)
    one = jnp.ones_like(root)
    clips = (root > bound * factor) & jnp.isfinite(root)
    # Where nothing is clipped the quotient may be anything, and so may its derivative.
    clipped = jnp.where(clips, root, one)
    is_whole = (bound == 0) | (divide(bound, clipped) * factor >= limits.factor)
    whole = usually(~clips | is_whole)
    shrink, grow = (jnp.where(whole, one, x) for x in (limits.factor, 1 / limits.factor))
    # Divided once: of two divisions XLA makes one, by a product that may overflow.
    return jnp.where(clips, divide(bound * grow, clipped) * factor, one), shrink


def _parts(leaves: Sequence[jax.Array], sums: jax.Array, batch: int) -> Parts:
    """The parts of the squares of some arrays, whose largest elements the sums as they come tell of.

    One factor for all of them keeps the largest exact, beside which those that it loses do not count.
    """
    dtype = sums.dtype
    # Of arrays that are known when it compiles XLA would make x² factor², each of which is out of range.
    leaves = jax.lax.optimization_barrier([cast(x, widest(x.dtype, dtype)) for x in leaves])
    limits, size = _Range(dtype), sum(_size(x, batch) for x in leaves)
    is_small, is_plain = sums < size * limits.low, limits.holds(sums, size)
    factor = jnp.where(is_small, limits.up, jnp.where(is_plain, limits.one, limits.down))
    found = scaled_sum(leaves, factor, batch)
    none, is_large = jnp.zeros_like(found), ~(is_small | is_plain)
    return Parts(*(jnp.where(here, found, none) for here in (is_small, is_plain, is_large)))


class Squares:
    """`sum |x|²` over some arrays, for use inside a traced function.

    Attributes:
        total: the sum as it comes, in at least float32; one for each example if there is a `batch` of them.
        leaves: the arrays, to look at again where the sum is not exact.
        axes: for each array, the mesh axes over which it is a shard, of those that `axis_name` names.
    """

    def __init__(
        self,
        leaves: Sequence[jax.Array],
        sums: Sequence[jax.Array] | None = None,
        batch: int = 0,
        axis_name: Axes = None,
    ) -> None:
        if sums is None:
            sums = [plain_sum(cast(x, compute_dtype(x.dtype)), batch) for x in leaves]
        self.sums, self.total, self.leaves, self.batch = list(sums), total(list(sums)), list(leaves), batch
        self.axes = [shard_axes(axis_name, x) for x in leaves]

    @property
    def size(self) -> int:
        """The number of elements, of each example."""
        return sum(summed(_size(x, self.batch), axes) for x, axes in zip(self.leaves, self.axes, strict=True))

    def then(self, ordinary: Callable[[jax.Array], T], careful: Callable[[Parts], T]) -> T:
        """What follows from the sum where that is exact, and what follows from its parts elsewhere."""
        if not self.leaves:
            return ordinary(self.total)
        if any(self.axes):
            return careful(self._over_shards())
        dtypes = [real_dtype(compute_dtype(x.dtype)) for x in self.leaves]
        exact = _Range(min(dtypes, key=lambda d: d.itemsize)).holds(self.total, self.size)

        def look(*leaves: jax.Array) -> T:
            # Sums of several dtypes may have overflowed in the narrower ones.
            wide = [cast(x, widest(x.dtype, self.total.dtype)) for x in leaves]
            again = self.total if len(set(dtypes)) == 1 else total([plain_sum(x, self.batch) for x in wide])
            return careful(_parts(leaves, jax.lax.stop_gradient(again), self.batch))

        return cond(usually(exact.all()), lambda *_: ordinary(self.total), look, *self.leaves)

    def _over_shards(self) -> Parts:
        """The sum in parts, where some of the arrays are shards: of each along its own axes."""
        groups: dict[tuple[str, ...], list[tuple[jax.Array, jax.Array]]] = {}
        for axes, *own in zip(self.axes, self.leaves, self.sums, strict=True):
            groups.setdefault(axes, []).append((own[0], own[1]))
        found = [
            summed(Squares(*zip(*own, strict=True), batch=self.batch).parts(), axes)
            for axes, own in groups.items()
        ]
        return functools.reduce(lambda a, b: Parts(*map(jax.lax.add, a, b)), found)

    def parts(self) -> Parts:
        """The sum in parts."""

        def plain(sums: jax.Array) -> Parts:
            # Nothing on each shard by itself, where a constant would be the same for all.
            nothing = sums - sums
            return Parts(nothing, sums, nothing)

        return self.then(plain, lambda parts: parts)

    def sum(self) -> jax.Array:
        """The sum, as far as it can be represented."""
        return self.then(lambda total: total, Parts.sum)

    def norm(self) -> jax.Array:
        """The root of the sum, Inf only if it cannot be represented."""
        return self.then(sqrt, Parts.norm)

    def root_mean_square(self) -> jax.Array:
        """The root of the mean of the squares; 0 for no element."""
        size = float(max(self.size, 1))  # an int32 may not hold it
        return self.then(lambda total: sqrt(total / size), lambda parts: parts.mean(size).norm())

    def clip_factors(self, bound: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Two factors that are `min(1, bound / norm)` together, and 1 where something is not finite."""
        # The ordinary branch computes nothing, which costs less than a branch that does.
        top, factor = self.then(lambda total: (total, jnp.ones_like(total)), Parts.top)
        return _clip_factors(top, factor, bound)


@functools.partial(jax.jit, static_argnames="axis_name")
def norm(
    leaves: Sequence[jax.Array], sums: Sequence[jax.Array] | None = None, axis_name: Axes = None
) -> jax.Array:
    """The norm of some arrays; `sums` are those of their squares where they have been taken already."""
    return Squares(leaves, sums, axis_name=axis_name).norm()


@functools.partial(jax.jit, static_argnums=1)
def norms_along(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The norms of an array along some axes, which stay with size 1."""
    sums = jnp.sum(abs_sq(x), axis=axes, keepdims=True)
    exact = _Range(sums.dtype).holds(sums, math.prod(x.shape[a] for a in axes))

    def look(x: jax.Array) -> jax.Array:
        most = jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0)
        unit = jnp.where((most > 0) & jnp.isfinite(most), most, 1)
        found = unit * sqrt(jnp.sum(abs_sq(x / unit), axis=axes, keepdims=True))
        return jnp.where(jnp.isfinite(most), found, most)

    return jax.lax.cond(usually(exact.all()), lambda _: sqrt(sums), look, x)


@functools.partial(jax.jit, static_argnames="axis_name")
def norm_squared(leaves: Sequence[jax.Array], axis_name: Axes = None) -> jax.Array:
    """The sum of the squares of some arrays, as far as it can be represented."""
    return Squares(leaves, axis_name=axis_name).sum()


@jax.jit
def parts_of_examples(leaves: Sequence[jax.Array]) -> Parts:
    """The same for each example along axis 0 of the arrays."""
    return Squares(leaves, batch=1).parts()


def excess(size: jax.Array, bound: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A divisor and a factor that are `max(1, size / bound)` together, and 1 where the size is not finite.

    The factor is 1 unless the quotient would overflow.
    """
    limits, one = _Range(size.dtype), jnp.ones_like(size)
    size = jnp.where(jnp.isfinite(size), size, jnp.zeros_like(size))
    shrink = jnp.where(limits.factor * size > bound, limits.factor, one)
    return jnp.maximum(one, shrink * size / bound), shrink


@functools.partial(jax.jit, static_argnames="axis_name")
def root_mean_square(x: jax.Array, axis_name: Axes = None) -> jax.Array:
    """`sqrt(mean |x|²)` of one leaf, in at least float32; 0 for an empty one."""
    return Squares([x], axis_name=axis_name).root_mean_square()


@jax.jit
def finite_leaves(sums: jax.Array, leaves: Sequence[jax.Array]) -> jax.Array:
    """For each leaf, whether it has no Inf and no NaN: the sums of its squares tell, unless they overflow."""
    finite = jnp.isfinite(sums)

    def look(*leaves: jax.Array) -> jax.Array:
        return stacked([jnp.isfinite(x).all() for x in leaves])

    return jax.lax.cond(usually(finite.all()), lambda *_: finite, look, *leaves)
