"""Transforms and schedules as plain data: what JSON, TOML and YAML hold."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradtx.core.engine.composed import Composed
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.spec.spec import Spec, same, show
from gradtx.interop.forms import (
    CALL,
    NAME,
    Names,
    at,
    deeper,
    has_order,
    hints_of,
    is_form,
    is_sequence,
    parameters_of,
)
from gradtx.interop.from_config import from_config


def to_config(
    tx: AnyTransform | Callable[[Any], Any], names: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A transform or a schedule as plain dicts and lists, for JSON, TOML or YAML.

    A call is `{"call": "adamw", "learning_rate": 0.001}`: its arguments by name, defaults left out, and
    several transforms as a list, `{"call": "chain", "transforms": [...]}`. What the formats lack has a form
    of its own:

        {"value": "none"}, "inf", "-inf", "nan"    None and the floats that JSON has no word for
        {"tuple": [...]}, {"list": [...]}          the sequence that a plain list would not be
        {"dict": [[key, value], ...]}              a dict whose keys are no strings, or whose order a format
                                                   might change
        {"dtype": "bfloat16"}                      a numpy dtype
        {"name": "global_norm"}                    what gradtx measures or skips by, or one of `names`

    A plain list is a tuple if all its elements are strings (path patterns) or the argument is a sequence,
    such as the `betas` of Prodigy; else it is a list.

    Args:
        tx: a transform or a schedule of gradtx's.
        names: names for what is yours; functions (masks, conditions, measurements), classes of rules, and any
            other value, such as another library's transform. Recipes of your own need none.

    Returns:
        A dict of which `from_config` makes an object equal to `tx`.

    Raises:
        TypeError: `tx` holds something that has no name, such as a function; its place is named.
        ValueError: it is not what its own call builds, or is nested too deeply.

    Examples:
        >>> import gradtx
        >>> gradtx.to_config(gradtx.adamw(gradtx.linear_schedule(1e-3, 0.0, 100), mask=("!*bias",)))
        {'call': 'adamw',
         'learning_rate': {'call': 'linear_schedule', 'init_value': 0.001, 'end_value': 0.0,
                           'transition_steps': 100},
         'mask': ['!*bias']}
    """
    known = Names(names)
    if not isinstance(tx, Spec) and known.name_of(tx) is None:
        raise TypeError(f"to_config takes a transform or a schedule of gradtx's, got {show(tx)}.")
    config = _Writer(known).value(tx, "", 0)
    if not _equal(from_config(config, names), tx):
        raise ValueError(
            f"{show(tx)} is not what its own call builds, so that a config cannot hold it: another recipe of "
            f"the same name may have been defined since, or a recipe depends on more than its arguments."
        )
    return config


def _equal(a: Any, b: Any) -> bool:
    """Whether two values are equal and run the same, since a recipe equals all of its name and arguments."""
    if not (same(a, b) and isinstance(a, Composed)):
        return same(a, b)
    return a.program == b.program and same(a.program.numbers, b.program.numbers)


class _Writer:
    """Writes values as plain data. The place of a value in the document is for errors."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def value(self, x: Any, place: str, depth: int, hint: Any = Any) -> Any:
        """A value that stands at `place`, as an argument of the kind `hint`."""
        deeper(depth, place)
        if isinstance(x, bool | str):
            return x
        if isinstance(x, np.bool_):
            return bool(x)
        if x is None:
            return {"value": "none"}
        if isinstance(x, int):
            return int(x)
        if isinstance(x, float):
            return float(x) if np.isfinite(x) else {"value": str(float(x))}
        name = self.names.name_of(x)
        if name is not None:
            return {NAME: name}
        if isinstance(x, Spec):
            return self.call(x, place, depth)
        if type(x) is tuple or type(x) is list:
            return self.sequence(x, place, depth, hint)
        if type(x) is dict:
            return self.mapping(x, place, depth)
        if isinstance(x, np.dtype):
            return {"dtype": x.name}
        raise TypeError(f"{at(place)}: {_refusal(x)}")

    def sequence(self, x: Any, place: str, depth: int, hint: Any) -> Any:
        """A list or a tuple."""
        items = [self.value(item, f"{place}[{i}]", depth + 1) for i, item in enumerate(x)]
        is_patterns = bool(x) and all(isinstance(item, str) for item in x)
        plain = tuple if is_patterns or is_sequence(hint) else list
        return items if type(x) is plain else {type(x).__name__: items}

    def mapping(self, x: dict[Any, Any], place: str, depth: int) -> dict[str, Any]:
        """A dict, plain where every format gives the same one back."""
        items = {}
        for key, item in x.items():
            items[key] = self.value(item, f"{place}.{key}" if place else str(key), depth + 1)
        if all(isinstance(key, str) for key in x) and not is_form(x) and not has_order(items):
            return items
        return {"dict": [[self.value(key, place, depth + 1), item] for key, item in items.items()]}

    def call(self, x: Spec, place: str, depth: int) -> dict[str, Any]:
        """A call by its name and its arguments."""
        name, args, kwargs = x._call()
        fn = self.names.callable_of(name, type(x))
        if fn is None:
            raise TypeError(
                f"{at(place)}: {show(x)} is built by {name}, which is not gradtx's. Name the class, if it is "
                f"your own, or the object, the same here and in from_config: "
                f"names={{{_identifier(type(x))!r}: ...}}."
            )
        config: dict[str, Any] = {CALL: fn[0]}
        hints, parameters = hints_of(fn[1]), parameters_of(fn[1])
        for key, value in _by_name(fn[1], args, kwargs).items():
            inside = f"{place}.{key}" if place else key
            if key == CALL:
                raise ValueError(f"{at(inside)}: an argument called {key!r} cannot stand in a config.")
            hint = hints.get(key, Any)
            if key in parameters and parameters[key].kind is inspect.Parameter.VAR_POSITIONAL:
                config[key] = [self.value(v, f"{inside}[{i}]", depth + 1, hint) for i, v in enumerate(value)]
            else:
                config[key] = self.value(value, inside, depth + 1, hint)
        return config


def _by_name(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    signature = inspect.signature(fn)
    arguments = dict(signature.bind_partial(*args, **kwargs).arguments)
    for key, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(key, {})
    return arguments


def _identifier(x: Any) -> str:
    name = str(getattr(x, "__name__", type(x).__name__))
    return name if name.isidentifier() else "my_function"


def _refusal(x: Any) -> str:
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        return f"{show(x)} is an array, which a config does not hold. Give a number or a list."
    name = _identifier(x)
    return (
        f"{show(x)} has no name that a config could hold. Give it one, the same here and in from_config: "
        f"names={{{name!r}: ...}}."
    )
