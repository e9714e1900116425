"""A transform up to its numbers, for caches that compare what they hold."""

from __future__ import annotations

from typing import Any

from gradtx.core.engine.composed import Composed
from gradtx.core.engine.program import Builder
from gradtx.core.engine.steps import is_declared


class Structure(Composed):
    """A transform that equals every other one of its structure.

    Where a compiled function is cached by the transforms it was called with, this makes all settings share
    one entry: the numbers are in the state. It works and prints as the transform it holds.
    """

    tx: Composed

    def __init__(self, tx: Composed) -> None:
        self._set(tx=tx)

    @classmethod
    def of(cls, tx: Any) -> Any:
        """`tx` up to its numbers; a transform of another library as it is."""
        return cls(tx) if isinstance(tx, Composed) and not isinstance(tx, Structure) else tx

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return self.tx._call()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Structure):
            return False
        mine, theirs = self.program, other.program
        return mine is theirs or (mine == theirs and mine.masks == theirs.masks)

    def __hash__(self) -> int:
        return hash(self.program)

    def _visit(self, builder: Builder) -> None:
        self.tx._visit(builder)


def is_ours(tx: Any) -> bool:
    """Whether there is no other library's transform in it, nor a function in the place of one."""
    if not isinstance(tx, Composed):
        return False
    return all(map(is_declared, tx.program.units)) and all(map(is_ours, tx.program.wrapped.values()))
