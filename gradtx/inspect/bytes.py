"""How many bytes a state takes, and each of its slots and of the leaves, in fields and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from gradtx._pages import Block, Page, Row, Sentences, Table
from gradtx.core.spec.words import count, named
from gradtx.inspect.explanation import Kept
from gradtx.inspect.table import size

MOST = 8
"""The leaves that are shown, those of the most bytes first."""


@dataclasses.dataclass(frozen=True)
class LeafBytes:
    """What is kept for one leaf.

    Attributes:
        path: its path.
        elements: the number of its elements.
        parameters: its size in bytes.
        state: the size of what the state keeps of it.
        state_on_one: the size of what one device keeps of that.
    """

    path: str
    elements: int
    parameters: int
    state: int
    state_on_one: int

    @property
    def state_per_element(self) -> float:
        """The bytes of state of an element."""
        return _each(self.state, self.elements)

    @property
    def per_element(self) -> float:
        """The bytes of an element, its gradient and its state."""
        return _each(2 * self.parameters + self.state, self.elements)


@dataclasses.dataclass(frozen=True, repr=False)
class StateBytes(Page):
    """How many bytes a state takes; it prints as a table.

    A gradient is taken to be in the dtype of its parameter.

    Attributes:
        elements: the number of elements of the parameters.
        parameters: what is kept of the parameters.
        state: what is kept of the state, in all and by a device.
        slots: the same of each of its slots with its scales, and last of its numbers.
        leaves: what is kept for each leaf.
    """

    elements: int
    parameters: Kept
    state: Kept
    slots: tuple[Kept, ...]
    leaves: tuple[LeafBytes, ...]

    def __repr__(self) -> str:
        return str(self)

    @property
    def nbytes(self) -> int:
        """The size of the state in bytes."""
        return self.state.nbytes

    @property
    def on_one(self) -> int:
        """The size of what one device keeps of it."""
        return self.state.on_one

    @property
    def of_no_leaf(self) -> int:
        """The size of what in the state is of no single leaf, as its numbers."""
        return self.nbytes - sum(leaf.state for leaf in self.leaves)

    @property
    def state_per_element(self) -> float:
        """The bytes of state of an element of the parameters."""
        return _each(self.nbytes, self.elements)

    @property
    def per_element(self) -> float:
        """The bytes of an element of the parameters, its gradient and its state."""
        return _each(2 * self.parameters.nbytes + self.nbytes, self.elements)

    def blocks(self) -> Iterator[Sequence[Block]]:
        """What it says, part by part."""
        yield [
            Sentences(
                [
                    f"{count(len(self.leaves), 'leaf', 'leaves')}, {count(self.elements, 'parameter')}; the "
                    f"state takes {size(self.nbytes)}, {self.state_per_element:.4g} bytes for each parameter",
                    f"a parameter, its gradient and its state take {self.per_element:.4g} bytes",
                ]
            )
        ]
        yield [self._kept()]
        yield [self._leaves()]

    def _kept(self) -> Block:
        whole = (self.parameters, dataclasses.replace(self.parameters, name="gradients"), self.state)
        is_sharded = any(kept.on_one != kept.nbytes for kept in whole)
        rows = []
        for kept, depth in [*((kept, 0) for kept in whole), *((slot, 1) for slot in self.slots)]:
            sizes = [size(kept.nbytes), *([size(kept.on_one)] if is_sharded else [])]
            each = _shown(_each(kept.nbytes, self.elements))
            rows.append(Row([kept.name, " ".join(kept.dtypes), *sizes, each], depth))
        head = ["kept", "as", "in all", *(["by a device"] if is_sharded else []), "bytes each"]
        return Table(head, rows, "<<" + ">" * (len(head) - 2))

    def _leaves(self) -> Block:
        ordered = sorted(self.leaves, key=lambda leaf: (-leaf.state, leaf.path))
        rows = [_row(named(leaf.path), [leaf]) for leaf in ordered[:MOST]]
        if rest := ordered[MOST:]:
            rows.append(_row(f"the other {count(len(rest), 'leaf', 'leaves')}", rest))
        if self.of_no_leaf:
            rows.append(Row(["of no single leaf", "", "", size(self.of_no_leaf), ""]))
        head = ["leaf", "elements", "parameters", "state", "bytes each"]
        return Table(head, rows, "<>>>>")


def _row(name: str, leaves: Sequence[LeafBytes]) -> Row:
    elements = sum(leaf.elements for leaf in leaves)
    parameters, state = sum(leaf.parameters for leaf in leaves), sum(leaf.state for leaf in leaves)
    return Row([name, f"{elements:,}", size(parameters), size(state), _shown(_each(state, elements))])


def _each(nbytes: int, elements: int) -> float:
    return nbytes / elements if elements else 0.0


def _shown(each: float) -> str:
    """A number of bytes for each element; a dash where it is as good as nothing."""
    return f"{each:.4g}" if each >= 0.0005 else "-"
