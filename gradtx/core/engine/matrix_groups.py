"""All matrices of one size, whatever leaf they are of: a group, whose slots the state keeps as one stack.

A stack is an array of shape (number, ...) with a row for each matrix: leaf after leaf in the order of the
tree, and in a leaf in the order of its batch and its blocks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gradtx.core.engine.views import Cut
from gradtx.core.numerics import compute_dtype


@dataclasses.dataclass(frozen=True)
class Place:
    """Where matrices of one leaf stand in a stack.

    Attributes:
        leaf: the position of the leaf.
        part: which of the leaf's parts they are.
        start: the row of the first.
        count: how many there are.
    """

    leaf: int
    part: int
    start: int
    count: int


@dataclasses.dataclass(frozen=True)
class Group:
    """The matrices of one size and dtype.

    Attributes:
        name: what its stacks are called in the state, as in `"256x768"`; with the dtype where that is not
            float32.
        size: the rows and columns of each.
        dtype: the dtype of its leaves that is computed in.
        count: how many matrices there are.
        places: where those of each leaf stand.
        home: the axes of a mesh along which the batch of each leaf is sharded, if it stays so.
    """

    name: str
    size: tuple[int, int]
    dtype: np.dtype
    count: int
    places: tuple[Place, ...]
    home: tuple[str, ...] = ()

    def by_home(self, homes: Sequence[tuple[str, ...]]) -> list[Group]:
        """A group for each home that its leaves have; leaf by leaf `homes` says which."""
        found: dict[tuple[str, ...], list[Place]] = {}
        for place in self.places:
            found.setdefault(homes[place.leaf], []).append(place)
        return [
            dataclasses.replace(self, count=sum(p.count for p in places), places=tuple(places), home=home)
            for home, places in found.items()
        ]


def groups_of(cuts: Sequence[Cut | None], dtypes: Sequence[Any]) -> tuple[Group, ...]:
    """The groups of the leaves of a tree, of which each has some matrices, or None, and a dtype."""
    found: dict[tuple[int, int, np.dtype], list[Place]] = {}
    for i, (cut, dtype) in enumerate(zip(cuts, dtypes, strict=True)):
        for part, size in enumerate(() if cut is None else cut.sizes):
            assert cut is not None
            places = found.setdefault((*size, compute_dtype(dtype)), [])
            start = places[-1].start + places[-1].count if places else 0
            places.append(Place(i, part, start, cut.count(part)))
    return tuple(
        Group(
            f"{rows}x{columns}" if dtype == np.float32 else f"{rows}x{columns} {dtype.name}",
            (rows, columns),
            dtype,
            places[-1].start + places[-1].count,
            tuple(places),
        )
        for (rows, columns, dtype), places in found.items()
    )


def first_rows(groups: Iterable[Group], cuts: Sequence[Cut | None]) -> list[np.ndarray | None]:
    """For each leaf the row of its first matrix; of blocks of several sizes one for each."""
    rows = [None if cut is None else np.zeros(len(cut.sizes), np.int32) for cut in cuts]
    for group in groups:
        for place in group.places:
            own = rows[place.leaf]
            assert own is not None
            own[place.part] = place.start
    return [
        own[0] if own is not None and cut is not None and cut.is_even else own
        for own, cut in zip(rows, cuts, strict=True)
    ]


def by_leaf(stacks: Mapping[str, Any], groups: Iterable[Group], cuts: Sequence[Cut | None]) -> list[Any]:
    """What stacks hold of each leaf: its batch and its blocks come first; None where they hold nothing.

    Of blocks of several sizes it is a tuple, of an array for each block.
    """
    parts: list[list[Any]] = [[] if cut is None else [None] * len(cut.sizes) for cut in cuts]
    for group in groups:
        for place in group.places if group.name in stacks else ():
            own = stacks[group.name][place.start : place.start + place.count]
            parts[place.leaf][place.part] = own
    return [
        None if cut is None or all(x is None for x in own) else cut.arranged(own)
        for cut, own in zip(cuts, parts, strict=True)
    ]
