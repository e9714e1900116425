"""What of the engine an entry of the catalogue uses, read from its program."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import gradtx
from catalogue import ENTRIES
from gradtx.core.compose.rule import Rule, Slotted
from gradtx.core.compose.wrapper import Wrapper


@functools.cache
def features_of(name: str) -> frozenset[str]:
    """The kind of an entry, and what of the engine its program uses."""
    entry = ENTRIES[name]
    return frozenset({f"kind: {entry.kind}", *of_program(entry.transform().program)})


def of_program(program: Any) -> Iterator[str]:
    """What a program uses, and the programs that its wrappers run."""
    if program.joins:
        yield "branches"
    if program.coded:
        yield "a callable"
    for unit in program.units:
        yield from of_transform(unit.transform)
        if unit.masks:
            yield "a mask"
        if len(unit.path) > 1:
            yield "a named part"
    for part in program.wrapped.values():
        yield "a wrapped program"
        yield from of_program(part.program)


def of_transform(transform: Any) -> Iterator[str]:
    """What one rule or wrapper declares and defines; a method of the contract is a feature by its name."""
    if not isinstance(transform, Slotted):
        yield "another library's transform"
        return
    base = Wrapper if isinstance(transform, Wrapper) else Rule
    for cls in type(transform).__mro__[: type(transform).__mro__.index(base)]:
        yield from (
            f"{base.__name__}.{name}" for name, value in vars(cls).items() if differs(base, name, value)
        )
    for slot in transform.slots.values():
        other = [f.name for f in dataclasses.fields(slot) if getattr(slot, f.name) != f.default]
        yield from (f"a slot with {name}" for name in other or ["defaults"])
    for scalar in transform.scalars.values():
        yield f"a {type(scalar).__name__}"
    for need in transform.needs:
        yield "needs params" if need == "params" else "needs a keyword argument"
    for key, field in transform.fields().items():
        if field.decay:
            yield "a decay"
        if isinstance(transform.__dict__[key], gradtx.Schedule):
            yield "a schedule"


def differs(base: type, name: str, value: Any) -> bool:
    """Whether a class answers a question of the engine otherwise than its base."""
    declared = name.startswith("_") or name in ("name", "slots", "scalars", "needs")
    return not declared and hasattr(base, name) and getattr(base, name) is not value
