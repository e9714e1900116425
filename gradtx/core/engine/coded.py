"""Slots in a format: in which, as `gradtx.store` or a rule's own dtype says, and such a slot in an update.

In a state the values stand under the name of the slot and the scales beside, under that name and `_scales`,
each as a tree like the parameters. In an update both are one `Coded`, and a rule sees what it stands for.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import math
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine.blocks import block_counts, stays_on_shards
from gradtx.core.engine.formats import FORMATS, Format
from gradtx.core.engine.labels import said_of_each
from gradtx.core.engine.leaves import flatten, paths
from gradtx.core.engine.on_shards import each_by_itself
from gradtx.core.engine.placement import (
    Placement,
    Size,
    parts_of,
    placed_as,
    resharded,
    sharded_like,
    typed_sharding,
)
from gradtx.core.engine.steps import Unit
from gradtx.core.numbers.states import EVAL
from gradtx.core.numerics import cast, compute_dtype, is_complex, is_trainable, real_dtype
from gradtx.core.rounding import seed
from gradtx.core.shards import is_manual
from gradtx.core.spec.spec import show

SCALES = "_scales"
"""What the name of a slot has behind it where the state keeps its scales."""

MEANS, MEAN_SQUARES = "means", "mean_squares"
"""What a slot may be declared to be an average of: what has a sign, and what has none."""

FULL = "float32"
"""In place of a format: as wide as arithmetic is, which is at least float32."""

Said = Any
"""A format by its name, or what says one of each leaf."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """In which formats the slots of some transforms are kept, as `gradtx.store` was told.

    Attributes:
        formats: by the name of a slot, alone or behind that of its transform and a dot, or `MEANS` and
            `MEAN_SQUARES`, what was said.
        min_size: the fewest elements of what is kept in a format.
        seed: what rounding at random begins with.
    """

    formats: tuple[tuple[str, Said], ...]
    min_size: int
    seed: int

    @property
    def static_parts(self) -> Any:
        """What of it is code."""
        return self.formats, self.min_size, self.seed

    def named(self, unit: Unit, name: str) -> tuple[Said, bool]:
        """What was said of a slot by its name, and whether something was."""
        said = dict(self.formats)
        for key in (f"{unit.where}.{name}", name):
            if key in said:
                return said[key], True
        return None, False


MIN_SIZE = 4096
"""The fewest elements of what is kept in a format, unless another number is said."""


@dataclasses.dataclass(frozen=True)
class SlotStorage:
    """In which format one slot of a transform is kept.

    Attributes:
        unit: the transform.
        name: the slot.
        said: a format's name, or what says it of each leaf.
        min_size: the fewest elements of what is kept so.
        seed: what rounding at random begins with.
        must: whether an array that cannot be kept so is an error.
    """

    unit: Unit
    name: str
    said: Said
    min_size: int
    seed: int
    must: bool

    @property
    def where(self) -> str:
        """Its name for errors."""
        return f"{self.unit.where}.{self.name}"

    @functools.cached_property
    def is_scaled(self) -> bool:
        """Whether there may be scales: only a format's name says that there are none."""
        return not isinstance(self.said, str) or _format(self.where, self.said).scaled

    def check(self) -> None:
        """Raises for a format that the slot cannot have."""
        for name in [self.said] if isinstance(self.said, str) else _names(self.said):
            self._fitting(name)

    def _fitting(self, name: Any) -> Format | None:
        """The format of a name, None for full width; an error for one that the slot cannot have."""
        if name is None or name == FULL:
            return None
        found, slot = _format(self.where, name), self.unit.transform.slots[self.name]
        if found.nonnegative and not slot.nonnegative:
            raise ValueError(
                f"{self.where} may have a sign, which {name!r} has no room for. Take 'int8' or another "
                f"format of numbers with a sign; or declare it as Slot(nonnegative=True) if it has none."
            )
        if found.signed and slot.nonnegative:
            raise ValueError(
                f"{self.where} is never negative, and in {name!r} small numbers of it would be 0, by which "
                f"an update is divided. Take 'uint8' or 'uint4', which keep square roots, or 'bfloat16'."
            )
        if found.scaled and self.name == EVAL:
            raise ValueError(
                f"{self.where} is what gradtx.eval_params returns, so that it is kept as it is: take "
                f"'bfloat16' or 'float16', or leave it as it is."
            )
        return found

    def of_leaves(self, tree: Any, count: int) -> list[Format | None]:
        """The format of each leaf of a tree, whatever its size."""
        if isinstance(self.said, str):
            return [self._fitting(self.said)] * count
        where = f"store: the format of {self.name!r}"
        said = said_of_each(self.said, tree, [True] * count, where, "formats", "a format")
        return [self._fitting(x[0]) if x else None for x in said]

    def why_wide(self, format: Format | None, shape: tuple[int, ...], dtype: Any) -> str:
        """Why an array stays in full width, which is that of arithmetic; empty for one that need not."""
        if format is None:
            return "as said"
        if math.prod(shape) < self.min_size:
            return f"fewer than {self.min_size:,} elements"
        if not format.fits(shape):
            return "no axes" if not shape else "no elements" if not math.prod(shape) else "an odd last axis"
        return "complex" if is_complex(dtype) else ""

    def chosen(self, format: Format | None, shape: tuple[int, ...], dtype: Any, path: str) -> Format | None:
        """The format of one array, None of one that stays in full width."""
        why = self.why_wide(format, shape, dtype)
        if format is not None and why == "complex" and self.must:
            raise ValueError(
                f"{self.where}: {format.name!r} cannot keep the complex leaf {path!r}. Say 'float32' for it: "
                f"gradtx.store(tx, {self.name}={{{path!r}: 'float32', '*': {format.name!r}}})."
            )
        return None if why else format

    def of_stacks(self) -> Format | None:
        """The format of stacks of matrices, whatever their size."""
        if not isinstance(self.said, str):
            raise ValueError(
                f"{self.where} is one array for all matrices of a size, whatever leaf they are of, so that "
                f"it has one format; got {show(self.said)}."
            )
        return self._fitting(self.said)

    def number(self, path: str) -> np.uint32:
        """A number for the slot of a leaf, or of a stack, for what is drawn at random."""
        return np.uint32(zlib.crc32(f"{self.where}/{path}".encode()) ^ (self.seed & 0xFFFFFFFF))


def _format(where: str, name: Any) -> Format:
    if name not in FORMATS:
        raise ValueError(f"{where}: there is no format {show(name)}. There are {FULL}, {', '.join(FORMATS)}.")
    return FORMATS[name]


def _names(said: Said) -> list[str]:
    """The names of formats that can be seen in what says one of each leaf."""
    if isinstance(said, str):
        return [said]
    if isinstance(said, Mapping):
        return [name for x in said.values() for name in _names(x)]
    if isinstance(said, list | tuple):
        pairs = all(isinstance(x, tuple) and len(x) == 2 for x in said)
        return [name for x in said for name in _names(x[1] if pairs else x)]
    return []


def storage_of(unit: Unit, name: str) -> SlotStorage | None:
    """In which format a slot of a unit is kept; None where nothing was said.

    What was said of it by its name goes first, that nearest to it before others; then the dtype that its
    transform was given; then what was said of all averages.
    """
    slot = unit.transform.slots[name]
    declared = getattr(unit.transform, slot.dtype) if isinstance(slot.dtype, str) else None
    for storage in reversed(unit.stores):
        said, is_said = storage.named(unit, name)
        if is_said:
            return _checked(unit, name, said, storage.min_size, storage.seed, must=True)
    if declared is not None:
        found = FORMATS.get(declared)
        is_plain = found is None or not (found.scaled or found.stochastic)
        return None if is_plain else _checked(unit, name, declared, MIN_SIZE, 0, must=True)
    kind = (MEAN_SQUARES if slot.nonnegative else MEANS) if slot.mean else None
    for storage in reversed(unit.stores):
        said = dict(storage.formats).get(kind) if kind else None
        if said is not None:
            return _checked(unit, name, said, storage.min_size, storage.seed, must=False)
    return None


def _checked(
    unit: Unit, name: str, said: Said, min_size: int, start: int, *, must: bool
) -> SlotStorage | None:
    if said is None or (isinstance(said, str) and said == FULL):
        return None
    made = SlotStorage(unit, name, said, min_size, start, must)
    made.check()
    return made


_WIDE = contextvars.ContextVar("gradtx.as_wide", default=False)


@contextlib.contextmanager
def as_wide() -> Iterator[None]:
    """A context in which states are made and updated without formats, as what reads a formula does."""
    token = _WIDE.set(True)
    try:
        yield
    finally:
        _WIDE.reset(token)


def is_as_wide() -> bool:
    """Whether this is inside of that context."""
    return _WIDE.get()


@jax.tree_util.register_pytree_node_class
class Coded:
    """A slot of a leaf, or a stack of one, in a format.

    Attributes:
        values: what is stored.
        scales: beside it, None of a format without.
        seed: a number of the step and the slot, None of a format that rounds to the nearest.
        format: the format.
    """

    values: Any
    scales: Any

    def __init__(self, values: Any, scales: Any, seed: Any, format: Format) -> None:
        self.values, self.scales, self.seed, self.format = values, scales, seed, format

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what it stands for."""
        return self.format.of(self.values.shape)

    @property
    def dtype(self) -> Any:
        """The dtype of what it stands for."""
        return jnp.result_type(self.values if self.scales is None else self.scales)

    def load(self) -> jax.Array:
        """What it stands for."""
        x = each_by_itself(lambda: self.format.decode(self.values, self.scales))
        return resharded(x, typed_sharding(self.values), parts_of(self.values))

    def in_full_width(self) -> jax.Array:
        """What it stands for, in the width of arithmetic."""
        loaded = self.load()
        return loaded.astype(compute_dtype(loaded.dtype))

    def store(self, new: jax.Array) -> Coded:
        """A new value in the same format."""
        counts = () if self.scales is None else self.scales.shape

        def encoded() -> tuple[jax.Array, Any]:
            return self.format.encode(new, counts, self.format.random(new, self.seed))

        # Inside of `jax.shard_map` a shard has blocks of its own.
        values, scales = each_by_itself(encoded)
        # Where devices divide a leaf and not its blocks, neither types nor the compiler keep it where it was.
        stays = scales is None or is_manual() or stays_on_shards(new.shape, counts)
        place = sharded_like if stays else placed_as
        values = place(values, self.values)
        if scales is not None and (old := self.scales) is not None:
            scales = place(cast(scales, jnp.result_type(old)), old)
        return Coded(values, scales, None, self.format)

    def tree_flatten(self) -> tuple[tuple[Any, ...], Hashable]:
        """Its arrays, and what is none."""
        return (self.values, self.scales, self.seed), self.format

    @classmethod
    def tree_unflatten(cls, format: Any, arrays: Any) -> Coded:
        """The inverse of it."""
        values, scales, seed = arrays
        return cls(values, scales, seed, format)


def coded(storage: SlotStorage, values: Any, scales: Any, format: Format | None, path: str, step: Any) -> Any:
    """An array of a state, as a `Coded` where it is in a format.

    Raises:
        TypeError: it is in a form that is neither that format nor a plain number's.
    """
    if values is None:
        return None
    # One that is too small for its format is as wide as arithmetic is.
    if format is not None and (values.dtype, scales is not None) == (np.dtype(format.dtype), format.scaled):
        start = seed(step, storage.number(path)) if format.stochastic else None
        return Coded(values, scales, start, format)
    if scales is not None or not is_trainable(values.dtype):
        raise TypeError(
            f"{storage.where} of {path!r} is {values.dtype.name} in the state, and this transform keeps it "
            f"{f'in {format.name!r}' if format else 'as float32'}. Bring the state into its formats, from "
            f"those of the transform that made it: params, state, report = gradtx.convert_state(old_tx, "
            f"state, tx, params)."
        )
    return values


def coded_slot(
    storage: SlotStorage, values: Any, scales: Any, tree: Any, step: Any, *, is_stacked: bool
) -> Any:
    """A slot of a state that has a format: each of its arrays, as a `Coded` where it is in the format.

    Args:
        storage: its format.
        values: the slot, a tree like `tree` or the stacks of matrices by their names.
        scales: what is beside it, None for nothing.
        tree: the parameters, or the gradients.
        step: the number of updates before this one.
        is_stacked: whether it is of stacks.
    """
    if is_stacked:
        beside = scales or {}
        return {k: coded(storage, x, beside.get(k), storage.of_stacks(), k, step) for k, x in values.items()}
    structure = flatten(tree)[1]
    flat = structure.flatten_up_to(values)
    found = [None] * len(flat) if scales is None else structure.flatten_up_to(scales)
    given = zip(flat, found, storage.of_leaves(tree, len(flat)), paths(tree), strict=True)
    return structure.unflatten([coded(storage, *each, step) for each in given])


def decoded(slot: Any) -> Any:
    """A slot of a leaf, or a stack, in full width where it is in a format; another one as it is."""
    return slot.in_full_width() if isinstance(slot, Coded) else slot


def parts(slots: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Slots as a state has them: the values, and the scales beside."""
    values = [x.values if isinstance(x, Coded) else x for x in slots]
    return values, [x.scales if isinstance(x, Coded) else None for x in slots]


def first_coded(
    place: Placement, format: Format, shape: tuple[int, ...], value: Any, leaf: Any, made: Any
) -> tuple[Any, Any]:
    """A slot of the first state, as values and scales, sharded as the leaf is.

    Args:
        place: where arrays are made.
        format: its format.
        shape: its shape, whose sizes remember axes of the leaf.
        value: the value of all its elements, None where they have several.
        leaf: the leaf.
        made: makes the slot as it would be without a format.
    """
    sizes = Size.of(shape) if shape == np.shape(leaf) else shape
    of_values, of_scales = format.shapes(sizes)
    wide = real_dtype(compute_dtype(jnp.result_type(leaf)))
    if place.abstract or (value is not None and value == 0.0):
        values = place.slot(of_values, np.dtype(format.dtype), format.zero, leaf)
        return values, None if of_scales is None else place.slot(of_scales, wide, 0.0, leaf)
    values, scales = _encoded(format, made())
    values = place.part(of_values, values, leaf)
    return values, None if of_scales is None else place.part(of_scales, scales.astype(wide), leaf)


def first_stack(
    format: Format, shape: tuple[int, ...], dtype: Any, value: Any, make: Callable[..., Any]
) -> tuple[Any, Any]:
    """A stack of the first state, as values and scales; `make(shape, dtype, value)` makes an array."""
    # No block has elements of two matrices, which may be of two leaves.
    count, size = shape[0], shape[1:]
    of_values, of_scales = format.shapes(size)
    row = jnp.broadcast_to(jnp.asarray(value, dtype), size)
    values, scales = format.encode(row, block_counts(size), None)
    made = make((count, *of_values), np.dtype(format.dtype), values)
    return made, None if of_scales is None else make((count, *of_scales), dtype, scales)


@functools.partial(jax.jit, static_argnums=0)
def _encoded(format: Format, x: jax.Array) -> tuple[jax.Array, Any]:
    return format.encode(x, block_counts(x.shape), None)
