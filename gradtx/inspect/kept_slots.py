"""The slots of a state, each with its formats, and how much of them is of which leaf; from shapes alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.layout import matrices_at_init
from gradtx.core.engine.steps import is_declared
from gradtx.core.numbers.paths import Path, lookup
from gradtx.inspect.explanation import Kept
from gradtx.inspect.survey import Surveyed
from gradtx.inspect.traced_costs import nbytes_on_one


@dataclasses.dataclass(frozen=True)
class KeptArray:
    """What a slot keeps of a leaf, or of all matrices of a size.

    Attributes:
        path: its place in the slot: the path of a leaf, or the name of a stack.
        leaf: the path of the leaf that it is of; None where it is of none, or of several.
        values: what is stored.
        scales: the scales beside it, None where there are none.
        form: the name of its format, or of its dtype.
        wide: why it is in full width although its slot has a format; else empty.
    """

    path: str
    leaf: str | None
    values: Any
    scales: Any = None
    form: str = ""
    wide: str = ""

    @property
    def arrays(self) -> list[Any]:
        """Its arrays."""
        return [self.values] if self.scales is None else [self.values, self.scales]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return nbytes(self.arrays)

    @property
    def on_one(self) -> int:
        """The size of what one device keeps of it."""
        return sum(map(nbytes_on_one, self.arrays))


@dataclasses.dataclass(frozen=True)
class KeptSlot:
    """A slot of a transform.

    Attributes:
        level: what the transform is a part of.
        path: its place there.
        arrays: what it keeps, in the order of the leaves.
    """

    level: Surveyed
    path: Path
    arrays: tuple[KeptArray, ...]

    @property
    def name(self) -> str:
        """Its place in the whole state, as one word."""
        return ".".join((*self.level.path, *self.path))

    @property
    def forms(self) -> tuple[str, ...]:
        """The names of its formats and dtypes."""
        return tuple(sorted({x.form for x in self.arrays}))

    @property
    def nbytes(self) -> int:
        """Its size in bytes, scales included."""
        return sum(x.nbytes for x in self.arrays)

    @property
    def on_one(self) -> int:
        """The size of what one device keeps of it."""
        return sum(x.on_one for x in self.arrays)

    @property
    def is_stacked(self) -> bool:
        """Whether it has an array for all matrices of a size."""
        return self.path in self.level.program.stack_paths

    def parts(self) -> Iterator[tuple[str, int, int]]:
        """The path of each leaf with how many bytes are of it, in all and by a device."""
        if not self.is_stacked:
            yield from ((x.leaf, x.nbytes, x.on_one) for x in self.arrays if x.leaf is not None)
            return
        level, unit = self.level, self.level.program.unit_at[self.path[:-1]]
        groups = matrices_at_init(level.program, unit, unit.transform, level.params, level.active)[1]
        stacks = {x.path: x for x in self.arrays}
        for group in groups:
            if group.name not in stacks:
                continue
            stack = stacks[group.name]
            for place in group.places:
                ends = place.start, place.start + place.count
                # Whole bytes, which add up to those of the stack.
                own, on_one = (
                    size * ends[1] // group.count - size * ends[0] // group.count
                    for size in (stack.nbytes, stack.on_one)
                )
                yield level.paths[place.leaf], own, on_one


def kept_slots(level: Surveyed, *, inside: bool = True) -> Iterator[KeptSlot]:
    """The slots of a level, and of those inside of it, in their order."""
    for path in level.program.slot_paths:
        if path in level.inner:
            yield from kept_slots(level.inner[path]) if inside else ()
        elif path not in level.program.scale_paths.values():
            found = tuple(_arrays(level, path))
            if found:
                yield KeptSlot(level, path, found)


def _arrays(level: Surveyed, path: Path) -> Iterator[KeptArray]:
    program, own = level.program, lookup(level.state["slots"], path)
    storage, beside = program.stored.get(path), program.scale_paths.get(path)
    scales = None if beside is None else lookup(level.state["slots"], beside)
    if path in program.stack_paths:
        for name, x in own.items():
            format = None if storage is None else storage.of_stacks()
            yield _array(storage, format, name, None, x, (scales or {}).get(name), x.shape[1:])
    elif path in program.leaf_slot_paths:
        values = lv.flatten(own)[0]
        formats = [None] * len(values) if storage is None else storage.of_leaves(level.params, len(values))
        widths = [None] * len(values) if scales is None else lv.flatten(scales)[0]
        for at, x, width, format in zip(level.paths, values, widths, formats, strict=True):
            if x is not None:
                yield _array(storage, format, at, at, x, width, x.shape)
    elif path in program.row_paths:
        for at, x in zip(level.paths, lv.flatten(own)[0], strict=True):
            if x is not None:
                yield KeptArray(at, at, x, form=x.dtype.name)
    else:
        foreign = path in program.unit_at and not is_declared(program.unit_at[path])
        of_leaves = _leaves_by_end(level.params) if foreign else {}
        for keys, x in jax.tree_util.tree_flatten_with_path(own)[0]:
            parts = tuple(lv.path_parts(keys))
            ends = (parts[i:] for i in range(len(parts) + 1))
            at, shape = next((of_leaves[end] for end in ends if end in of_leaves), (None, None))
            yield KeptArray("/".join(parts), at if shape == x.shape else None, x, form=x.dtype.name)


def _leaves_by_end(params: Any) -> dict[tuple[str, ...], tuple[str, Any]]:
    """By what the path of an array of another library's state ends with, the leaf that it may be of."""
    found = jax.tree_util.tree_flatten_with_path(params)[0]
    names = (path for path, x in zip(lv.paths(params), lv.flatten(params)[0], strict=True) if x is not None)
    return {tuple(lv.path_parts(keys)): (name, x.shape) for (keys, x), name in zip(found, names, strict=True)}


def _array(
    storage: Any, format: Any, path: str, leaf: str | None, values: Any, scales: Any, shape: Any
) -> KeptArray:
    """An array of a slot, as it would be loaded."""
    if storage is None:
        return KeptArray(path, leaf, values, form=values.dtype.name)
    if format is not None and (values.dtype, scales is not None) == (np.dtype(format.dtype), format.scaled):
        return KeptArray(path, leaf, values, scales, format.name)
    wide = storage.why_wide(format, shape, values.dtype)
    return KeptArray(path, leaf, values, None, values.dtype.name, wide)


def kept_of(name: str, arrays: list[Any]) -> Kept:
    """What is kept of some arrays."""
    dtypes = tuple(sorted({x.dtype.name for x in arrays}))
    return Kept(name, dtypes, nbytes(arrays), sum(map(nbytes_on_one, arrays)))


def kept_of_state(state: Any, slots: list[KeptSlot]) -> tuple[Kept, tuple[Kept, ...]]:
    """What is kept of a state, and of each of its slots; last of its numbers."""
    whole = dataclasses.replace(kept_of("state", jax.tree.leaves(state)), dtypes=())
    own = [Kept(slot.name, slot.forms, slot.nbytes, slot.on_one) for slot in slots]
    rest = (getattr(whole, size) - sum(getattr(kept, size) for kept in own) for size in ("nbytes", "on_one"))
    return whole, (*own, Kept("numbers", (), *rest))


def nbytes(tree: Any) -> int:
    """The size of a tree of abstract arrays in bytes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
