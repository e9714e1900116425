"""Transforms as the calls that build them: their names, arguments and members, and what they wrap."""

from __future__ import annotations

import inspect
import pathlib
from collections.abc import Mapping
from typing import Any

from gradtx.core.compose.combine import Chain
from gradtx.core.compose.recipe import Recipe
from gradtx.core.engine.composed import Composed
from gradtx.core.spec.spec import FACTORIES, Spec, show


def name_of(tx: Any) -> str:
    """What a transform is called by."""
    return tx._call()[0] if isinstance(tx, Spec) else code_of(tx)


def code_of(x: Any) -> str:
    """A value as code, or what tells it from others: whose it is, or the line that a function stands in."""
    shown, code, update = show(x), getattr(x, "__code__", None), getattr(x, "update", None)
    if not shown.startswith("<"):
        return shown
    if inspect.isfunction(update):
        library, name = update.__module__.partition(".")[0], update.__qualname__.partition(".")[0]
        return f"<{name} of {library}>"
    if code is None:
        return shown
    return f"{shown} of {pathlib.PurePath(code.co_filename).name}:{code.co_firstlineno}"


def is_open(tx: Any) -> bool:
    """Whether it consists of members."""
    return isinstance(tx, Chain | Recipe)


def members_of(tx: Any) -> list[Any]:
    """The members of a chain; anything else is one by itself."""
    return list(tx.members) if isinstance(tx, Chain) else [tx]


def opened(members: list[Any]) -> list[Any]:
    """The same with every recipe replaced by what it is made of."""
    return [m for tx in members for m in members_of(tx.inner if isinstance(tx, Recipe) else tx)]


def wrapped(tx: Any) -> str:
    """The argument that holds the one transform that a wrapper is around; empty for anything else."""
    if not isinstance(tx, Composed) or is_open(tx):
        return ""
    held = [key for key, value in arguments_of(tx).items() if isinstance(value, Composed)]
    return held[0] if len(held) == 1 else ""


def inner_of(tx: Any) -> Any:
    """What a wrapper is around."""
    return arguments_of(tx)[wrapped(tx)]


def wrappers_of(tx: Any) -> list[str]:
    """The names of the wrappers around a transform, the outermost first."""
    return [name_of(tx), *wrappers_of(inner_of(tx))] if wrapped(tx) else []


def arguments_of(spec: Spec) -> dict[str, Any]:
    """All arguments of the call that builds a value, by name, defaults included."""
    name, args, kwargs = spec._call()
    if name not in FACTORIES:
        return dict(kwargs)
    bound = inspect.signature(FACTORIES[name]).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def rebuilt(spec: Spec, arguments: Mapping[str, Any]) -> Any:
    """The value that the same call builds of other arguments."""
    name = spec._call()[0]
    if name not in FACTORIES:
        return type(spec)(**arguments)
    bound = inspect.signature(FACTORIES[name]).bind_partial()
    bound.arguments.update(arguments)
    return FACTORIES[name](*bound.args, **bound.kwargs)
