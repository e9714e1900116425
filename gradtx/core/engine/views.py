"""A leaf as a batch of matrices: which axes are rows, which columns, and how they are cut into blocks."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.engine.placement import Size, parts_of, reshaped
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Declared
from gradtx.core.spec.spec import show

Shape = tuple[int, ...]
Blocks = int | tuple[int, ...]
"""How many blocks of one size, or the size of each."""


class MatrixView(Declared, name="matrix_view"):
    """Which axes of a leaf are rows and which columns; the others are a batch of matrices."""

    axes: str
    row_blocks: Blocks
    column_blocks: Blocks

    def check(self) -> None:
        letters = set(self.axes) if isinstance(self.axes, str) else set()
        if not {"r", "c"} <= letters <= {"b", "r", "c"}:
            raise ValueError(
                f"{self.name}: axes has a letter for each axis of a leaf, 'r' for rows, 'c' for columns and "
                f"'b' for a batch, with an 'r' and a 'c' at least; got {show(self.axes)}."
            )
        for key in ("row_blocks", "column_blocks"):
            blocks = getattr(self, key)
            each = blocks if isinstance(blocks, tuple) else (blocks,)
            if not each or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in each):
                raise ValueError(
                    f"{self.name}: {key} is how many blocks there are, or a tuple of their sizes, each >= 1; "
                    f"got {show(blocks)}."
                )

    def of(self, shape: Shape) -> Cut:
        """The matrices of a leaf of a shape.

        Raises:
            ValueError: it has another number of axes, or the blocks do not make it up.
        """
        if len(self.axes) != len(shape):
            raise ValueError(
                f"{self!r} is of {len(self.axes)} axes, and the leaf has the shape {tuple(shape)}"
            )
        at = {letter: [i for i, x in enumerate(self.axes) if x == letter] for letter in "brc"}
        rows, columns = (math.prod(shape[i] for i in at[letter]) for letter in "rc")
        return Cut(
            tuple(map(int, shape)),
            tuple(at["b"]),
            tuple(at["r"]),
            tuple(at["c"]),
            _sizes(self.row_blocks, rows, "rows"),
            _sizes(self.column_blocks, columns, "columns"),
        )


def _sizes(blocks: Blocks, size: int, what: str) -> tuple[int, ...]:
    """The size of each block."""
    if isinstance(blocks, tuple):
        if sum(blocks) != size:
            raise ValueError(f"blocks of {', '.join(map(str, blocks))} {what} are {sum(blocks)}, of {size}")
        return blocks
    if size % blocks:
        raise ValueError(f"{size} {what} are no {blocks} blocks of one size")
    return (size // blocks,) * blocks


@dataclasses.dataclass(frozen=True)
class Cut:
    """The matrices that a leaf of a known shape consists of.

    Blocks of one size stand beside each other as a batch does; blocks of several sizes are parts of their
    own.

    Attributes:
        shape: the shape of the leaf.
        batch: the axes that are a batch.
        rows: the axes that together are the rows.
        columns: the axes that together are the columns.
        row_sizes: the number of rows of each block.
        column_sizes: the number of columns of each block.
    """

    shape: Shape
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    row_sizes: tuple[int, ...]
    column_sizes: tuple[int, ...]

    @property
    def _order(self) -> tuple[int, ...]:
        return (*self.batch, *self.rows, *self.columns)

    @property
    def _leading(self) -> Shape:
        """The sizes of the batch."""
        return tuple(self.shape[i] for i in self.batch)

    @functools.cached_property
    def is_even(self) -> bool:
        """Whether all matrices have one size, so that they are one part."""
        return len({*self.row_sizes}) == len({*self.column_sizes}) == 1

    @functools.cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The rows and columns of the matrices of each part."""
        if self.is_even:
            return ((self.row_sizes[0], self.column_sizes[0]),)
        return tuple(itertools.product(self.row_sizes, self.column_sizes))

    def within(self, size: int) -> Cut:
        """The same, of blocks whose sides are at most some size, the last of each shorter if need be."""

        def cut(sizes: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(min(size, n - start) for n in sizes for start in range(0, max(n, 1), size))

        return dataclasses.replace(self, row_sizes=cut(self.row_sizes), column_sizes=cut(self.column_sizes))

    @property
    def matrix_axes(self) -> tuple[int | None, int | None]:
        """The axis of the leaf that the rows are, and that of the columns, where it is one and not cut."""
        pairs = ((self.rows, self.row_sizes), (self.columns, self.column_sizes))
        rows, columns = (axes[0] if len(axes) == len(sizes) == 1 else None for axes, sizes in pairs)
        return rows, columns

    def split(self, x: jax.Array) -> list[jax.Array]:
        """The matrices of each part, as (number, rows, columns)."""
        count = math.prod(self._leading)
        whole = jnp.transpose(x, self._order).reshape(count, sum(self.row_sizes), sum(self.column_sizes))
        if self.is_even:
            (rows, columns), m, n = self.sizes[0], len(self.row_sizes), len(self.column_sizes)
            if m == n == 1:
                return [whole]
            batch, of_rows, of_columns = parts_of(whole)
            cut = reshaped(whole, (count, m, rows, n, columns), (batch, None, of_rows, None, of_columns))
            cut = cut.transpose(0, 1, 3, 2, 4)
            return [reshaped(cut, (count * m * n, rows, columns), (batch, of_rows, of_columns))]
        corners = zip(self._corners(), self.sizes, strict=True)
        return [whole[:, i : i + rows, j : j + columns] for (i, j), (rows, columns) in corners]

    def join(self, parts: list[jax.Array]) -> jax.Array:
        """The leaf that consists of such parts."""
        count = math.prod(self._leading)
        if self.is_even:
            (rows, columns), m, n = self.sizes[0], len(self.row_sizes), len(self.column_sizes)
            batch, of_rows, of_columns = parts_of(parts[0])
            cut = reshaped(parts[0], (count, m, n, rows, columns), (batch, None, None, of_rows, of_columns))
            cut = cut.transpose(0, 1, 3, 2, 4)
            whole = reshaped(cut, (count, m * rows, n * columns), (batch, of_rows, of_columns))
        else:
            n = len(self.column_sizes)
            bands = [jnp.concatenate(parts[i : i + n], axis=2) for i in range(0, len(parts), n)]
            whole = jnp.concatenate(bands, axis=1)
        order = self._order
        back = sorted(range(len(order)), key=order.__getitem__)
        return jnp.transpose(whole.reshape([self.shape[i] for i in order]), back)

    def sides(self, rows: int, columns: int) -> tuple[int, int]:
        """The size of a matrix; a side that is not cut remembers the first axis of the leaf in it."""
        m = Size.along(rows, self.rows[0]) if len(self.row_sizes) == 1 else rows
        n = Size.along(columns, self.columns[0]) if len(self.column_sizes) == 1 else columns
        return m, n

    @functools.cached_property
    def of_each(self) -> tuple[tuple[int, int], ...]:
        """The sides of each matrix: all blocks of the first of the batch, then those of the next."""
        if self.is_even:
            return (self.sides(*self.sizes[0]),) * self.count(0)
        return tuple(self.sides(*size) for size in self.sizes) * self.count(0)

    def split_each(self, x: jax.Array) -> list[jax.Array]:
        """Each matrix by itself, in the order of `of_each`."""
        parts = self.split(x)
        return [part[i] for i in range(self.count(0)) for part in parts]

    def join_each(self, matrices: Sequence[jax.Array]) -> jax.Array:
        """The leaf that consists of such matrices."""
        n = len(self.sizes)
        return self.join([jnp.stack(matrices[k::n]) for k in range(n)])

    def _corners(self) -> list[tuple[int, int]]:
        rows, columns = (
            [0, *itertools.accumulate(sizes)][:-1] for sizes in (self.row_sizes, self.column_sizes)
        )
        return list(itertools.product(rows, columns))

    def arranged(self, parts: list[Any]) -> Any:
        """What is remembered of the matrices of each part, (number, ...), by the leaf's batch and its blocks.

        Of blocks of several sizes it is a tuple, of an array for each block.
        """
        if self.is_even:
            blocks = [len(sizes) for sizes in (self.row_sizes, self.column_sizes) if len(sizes) > 1]
            return parts[0].reshape(*self._leading, *blocks, *parts[0].shape[1:])
        return tuple(None if x is None else x.reshape(*self._leading, *x.shape[1:]) for x in parts)

    def count(self, part: int) -> int:
        """The number of matrices of a part."""
        blocks = len(self.row_sizes) * len(self.column_sizes) if self.is_even else 1
        return math.prod(self._leading) * blocks


@builds(MatrixView)
def matrix_view(axes: str, row_blocks: Blocks = 1, column_blocks: Blocks = 1) -> MatrixView:
    """Says how a leaf is a batch of matrices, for the optimizers that treat a weight as one.

    Rows are what is summed over where the weight is multiplied by an input, and columns what comes out, as in
    a kernel of Flax, `x @ kernel`. Several axes of rows are one, in their order, and so for columns.

    Args:
        axes: a letter for each axis, `'r'` for rows, `'c'` for columns, `'b'` for a batch: layers that are
            scanned, experts, heads. `"brc"` is a stack of kernels, `"rrrc"` the kernel of a convolution with
            height, width, inputs and outputs, `"rcc"` a kernel of shape (inputs, heads, outputs of each).
        row_blocks: into how many blocks of one size the rows are cut, or the size of each.
        column_blocks: the same of the columns; `3` for queries, keys and values that are one kernel, or
            `(768, 256, 256)` where they are of several sizes.

    Returns:
        The view, to be given to `gradtx.muon` and others, by a pattern of paths.

    Raises:
        ValueError: `axes` has another letter, or no row or no column; a number of blocks is not >= 1.

    Examples:
        >>> import gradtx
        >>> gradtx.matrix_view("brc", column_blocks=3)
        matrix_view('brc', column_blocks=3)
    """
    ...
