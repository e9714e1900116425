"""What a config is made of: its forms, its names, and what an argument of a call may be."""

from __future__ import annotations

import collections.abc
import inspect
import re
import reprlib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union

from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import suggestion
from gradtx.core.spec.spec import FACTORIES, is_of_gradtx, same, show
from gradtx.transforms.clip import global_norm
from gradtx.wrappers.skip import skip_large_updates, skip_not_finite

CALL = "call"
NAME = "name"
FORMS = ("value", "tuple", "list", "dict", "dtype", NAME)
"""Keys that make a dict of one entry a value of another kind."""

ARGUMENTS = (global_norm, skip_large_updates, skip_not_finite)
"""The functions of gradtx's that are arguments of its transforms: what they measure, and when they skip."""

VALUES = {"none": None, "inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}
LONGEST = 100
"""The letters of the longest name that is compared with the known ones."""

MOST_LEVELS = 100
"""Of nesting: a config that has more is no optimizer, but an attack on the reader or a mistake."""


MOST_VALUES = 100_000
"""Of a document: one of YAML that refers to its own parts may have as many as it likes in a few lines."""


def at(place: str) -> str:
    """A place in a document, for errors."""
    return place or "the config"


def deeper(depth: int, place: str) -> None:
    """Raises where a document is nested too deeply."""
    if depth > MOST_LEVELS:
        raise ValueError(f"{cut(place)}: nested more than {MOST_LEVELS} levels deep.")


def cut(text: str, most: int = 60) -> str:
    """A text for errors, which may be long."""
    return text if len(text) <= most else f"{text[:most]}..."


def shown(x: Any) -> str:
    """A value of a document for errors, which may be large and deep."""
    return cut(reprlib.repr(x) if isinstance(x, str | bytes | list | tuple | Mapping) else show(x))


def is_form(x: Mapping[Any, Any]) -> bool:
    """Whether a dict describes a call or a value of another kind, and is not just a dict."""
    return CALL in x or (len(x) == 1 and next(iter(x)) in FORMS)


def has_order(items: Mapping[str, Any]) -> bool:
    """Whether a format might give a dict back in another order, and that may matter.

    TOML has what is a table after what is none, and a writer of JSON or YAML may sort. Of path patterns the
    first that matches counts.
    """
    if len(items) < 2:
        return False
    tables = [
        isinstance(x, dict) or (isinstance(x, list) and bool(x) and isinstance(x[0], dict))
        for x in items.values()
    ]
    return any(c in key for key in items for c in "*?[!") or (any(tables) and not all(tables))


class Names:
    """The names that a config may hold: those of gradtx, and the caller's."""

    def __init__(self, names: Mapping[str, Any] | None) -> None:
        if names is not None and not isinstance(names, Mapping):
            raise TypeError(f"names is a mapping from names to what is yours, got {show(names)}.")
        self.functions = {function.__name__: function for function in ARGUMENTS}
        self.callables = {**FACTORIES, "GradientTransformation": _of_two_functions}
        own = {**self.callables, **self.functions}
        self.given = dict(names or {})
        for name, x in self.given.items():
            if not isinstance(name, str) or not name:
                raise TypeError(f"names: {show(name)} is no name; a name is a string.")
            if name in own and own[name] is not x and is_of_gradtx(own[name]):
                raise ValueError(f"names: {name!r} is gradtx's own; choose another name.")

    def name_of(self, x: Any) -> str | None:
        """The name of a value, if it has one; a constant of the formats has none."""
        if inspect.isfunction(x):
            for name, function in self.functions.items():
                if function is x:
                    return name
        return next((name for name, given in self.given.items() if same(given, x)), None)

    def callable_of(self, name: str, cls: type) -> tuple[str, Callable[..., Any]] | None:
        """The name and the function or class by which a config calls what builds an object of `cls`."""
        if name in self.callables:
            return name, self.callables[name]
        return next(((given, x) for given, x in self.given.items() if x is cls), None)

    def find(self, name: Any, place: str) -> Any:
        """The value of a name in a document."""
        return _known(name, {**self.functions, **self.given}, place, "")

    def constructor(self, name: Any, place: str) -> Callable[..., Any]:
        """What a call of a document builds with."""
        given = {k: x for k, x in self.given.items() if callable(x)}
        return _known(name, {**self.callables, **given}, place, "import the module of the recipe first, or ")


def _of_two_functions(init: Callable[..., Any], update: Callable[..., Any]) -> Transform:
    return Transform(init, update)


def _known(name: Any, known: Mapping[str, Any], place: str, remedy: str) -> Any:
    if not isinstance(name, str):
        raise ValueError(f"{at(place)}: a name is a string, got {shown(name)}.")
    if name not in known:
        hint = suggestion(name, None, list(known)) if len(name) <= LONGEST else ""
        raise ValueError(
            f"{at(place)}: there is no {shown(name)} in gradtx. {hint}{' ' if hint else ''}If it is your "
            f"own, {remedy}pass names={{{shown(name)}: ...}}."
        )
    return known[name]


def parameters_of(fn: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a constructor."""
    return inspect.signature(fn).parameters


def hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """The kinds of a function's arguments, as far as they can be told; none for a class."""
    if isinstance(fn, type):
        return {}
    try:
        return typing.get_type_hints(fn)
    except (NameError, TypeError):  # annotations that name what is local to where it was defined
        return {}


def options_of(hint: Any) -> tuple[Any, ...]:
    """The kinds that an argument may have."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def is_sequence(hint: Any) -> bool:
    """Whether an argument is a tuple or another sequence."""
    kinds = [typing.get_origin(option) or option for option in options_of(hint)]
    return tuple in kinds or collections.abc.Sequence in kinds


WORDS = {bool: "true or false", float: "a number", int: "a whole number", str: "a string"}


def misfit(value: Any, hint: Any) -> str:
    """The expected kind of an argument in words if `value` is not of it, and an empty text if it is."""
    words = []
    for option in options_of(hint):
        kind = typing.get_origin(option) or option
        if kind is Any:
            return ""
        if kind is Literal:
            choices = typing.get_args(option)
            fits, word = value in choices, " or ".join(map(show, choices))
        elif kind is float or kind is int:
            number = int | float if kind is float else int
            fits, word = isinstance(value, number) and not isinstance(value, bool), WORDS[kind]
        elif kind is collections.abc.Callable:
            fits, word = callable(value), "a schedule" if float in options_of(hint) else "a function"
        elif kind is type(None):
            fits, word = value is None, ""
        elif isinstance(kind, type):
            fits = isinstance(value, kind)
            word = WORDS.get(kind, "a list" if is_sequence(option) else "")
            word = "a table" if kind is collections.abc.Mapping else word
        else:
            return ""
        if fits:
            return ""
        words.append(word)
    remedy = _number_in_yaml(value) if WORDS[float] in words else ""
    return " or ".join(dict.fromkeys(w for w in words if w)) + remedy


def _number_in_yaml(value: Any) -> str:
    """What to write for a number that YAML takes for a string, as it does where there is no point."""
    if not isinstance(value, str) or not re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
        return ""
    mantissa, exponent = value.lower().split("e")
    sign = "" if exponent[0] in "-+" else "+"
    return f" (for YAML write {mantissa}.0e{sign}{exponent})"
