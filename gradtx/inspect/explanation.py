"""What an optimizer takes of the devices of a mesh, in fields and as a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

from gradtx._pages import Block, Page, Row, Sentences, Table
from gradtx.core.spec.words import count, some
from gradtx.inspect.table import size


@dataclasses.dataclass(frozen=True)
class Kept:
    """What is kept of something.

    Attributes:
        name: what it is: `"parameters"`, a slot as `"scale_by_adam.mu"`, or `"numbers"`.
        dtypes: the names of its dtypes, and of the formats of what is in one.
        nbytes: its size in bytes, scales included.
        on_one: the size of what one device keeps of it.
    """

    name: str
    dtypes: tuple[str, ...]
    nbytes: int
    on_one: int


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One kind of exchange between the devices in an update.

    Attributes:
        where: the transform that asks for it, or the wrapper around all.
        kind: `"all-reduce"`, a sum or the like of what each device has; `"all-gather"`, of shards;
            `"all-to-all"`, of shards for other shards; or `"collective-permute"`, of shards that change
            places.
        axes: the axes of the mesh along which it is.
        times: how many of them there are.
        nbytes: the size in bytes of what a device has of all of them afterwards.
        sometimes: whether they are in a branch, which an update need not take.
    """

    where: str
    kind: str
    axes: tuple[str, ...]
    times: int
    nbytes: int
    sometimes: bool


@dataclasses.dataclass(frozen=True)
class Replicated:
    """What several devices keep the same of.

    Attributes:
        what: `"parameters"` or the name of a slot.
        axes: the axes of the mesh along which the devices keep the same.
        reason: why.
        paths: the leaves, or of stacks of matrices the sizes of these.
        on_one: the size in bytes of what one device keeps of them.
    """

    what: str
    axes: tuple[str, ...]
    reason: str
    paths: tuple[str, ...]
    on_one: int


@dataclasses.dataclass(frozen=True, repr=False)
class Explanation(Page):
    """What an optimizer takes of the devices of a mesh; it prints as a table.

    Attributes:
        axes: the axes of the mesh and how many devices there are along each; empty for one device.
        leaves: the number of leaves.
        elements: the number of their elements.
        parameters: what is kept of the parameters.
        state: what is kept of the state.
        slots: the same of each of its slots, and of its numbers.
        exchanges: what the devices send each other in an update.
        least_flops: the operations of arithmetic of an update on one device, if every branch is the cheapest.
        most_flops: the same if every branch is the dearest, as where all matrices are decomposed.
        open_loops: the number of loops that take as many turns as there is need; they count as one turn.
        replicated: what several devices keep the same of, and why.
        unknown: the operations on sharded values of which it is not known what they exchange.
        remarks: what is to be said of the optimizer as a whole.
    """

    axes: dict[str, int]
    leaves: int
    elements: int
    parameters: Kept
    state: Kept
    slots: tuple[Kept, ...]
    exchanges: tuple[Exchange, ...]
    least_flops: int
    most_flops: int
    open_loops: int
    replicated: tuple[Replicated, ...]
    unknown: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def devices(self) -> int:
        """The number of devices."""
        return math.prod(self.axes.values())

    def __repr__(self) -> str:
        return str(self)

    def blocks(self) -> Iterator[Sequence[Block]]:
        """What it says, part by part."""
        head = f"{count(self.leaves, 'leaf', 'leaves')}, {count(self.elements, 'parameter')}, on "
        head += f"{count(self.devices, 'device')}"
        if self.axes:
            head += f": {' x '.join(f'{n:,} {name!r}' for name, n in self.axes.items())}"
        yield [Sentences([head])]
        yield [self._kept()]
        yield self._exchanged()
        yield [self._computed()]
        yield [self._replicated()]
        yield [Sentences(self.remarks)]

    def _kept(self) -> Block:
        rows = []
        for kept, depth in [(self.parameters, 0), (self.state, 0), *((slot, 1) for slot in self.slots)]:
            rows.append(Row([kept.name, " ".join(kept.dtypes), size(kept.nbytes), size(kept.on_one)], depth))
        return Table(["kept", "dtype", "in all", "by a device"], rows, "<>>>")

    def _exchanged(self) -> list[Block]:
        if not self.exchanges and not self.unknown:
            return [Sentences(["an update exchanges nothing"])]
        blocks: list[Block] = []
        if self.exchanges:
            rows = []
            for x in self.exchanges:
                times = f"{'up to ' if x.sometimes else ''}{x.times:,}"
                rows.append(Row([x.where, x.kind, _axes(x.axes), times, size(x.nbytes)]))
            head = ["exchanged in an update", "kind", "along", "times", "a device gets"]
            blocks.append(Table(head, rows, "<>>>>"))
        if self.unknown:
            blocks.append(Sentences([f"what is exchanged for {', '.join(self.unknown)} is not known"]))
        return blocks

    def _computed(self) -> Block:
        least, most = _rounded(self.least_flops), _rounded(self.most_flops)
        text = f"a device computes {least if least == most else f'{least} to {most}'} operations an update"
        if self.open_loops:
            text += f"; {count(self.open_loops, 'loop')} of as many turns as need be counted as one turn"
        return Sentences([text])

    def _replicated(self) -> Block:
        return Sentences(
            [
                f"replicated along {_axes(one.axes)}, since {one.reason}: {size(one.on_one)} of {one.what} "
                f"({some(one.paths)})"
                for one in self.replicated
            ]
        )


def _axes(names: Iterable[str]) -> str:
    return ", ".join(names)


def _rounded(number: int) -> str:
    """A number in three digits with a word, as in `1.23 million`."""
    for power, word in ((15, "quadrillion"), (12, "trillion"), (9, "billion"), (6, "million")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {word}"
    return f"{number:,}"
