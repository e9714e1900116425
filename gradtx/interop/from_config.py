"""Building what a config says: calls of registered names alone, with errors that name their place."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gradtx.core.compose.combine import checked
from gradtx.core.numbers.schedule import Schedule
from gradtx.core.spec.arguments import suggestion
from gradtx.interop.forms import (
    CALL,
    LONGEST,
    MOST_VALUES,
    NAME,
    VALUES,
    Names,
    at,
    cut,
    deeper,
    hints_of,
    is_form,
    is_sequence,
    misfit,
    parameters_of,
    shown,
)


def from_config(config: Mapping[str, Any], names: Mapping[str, Any] | None = None) -> Any:
    """Builds the transform or schedule that a config describes.

    Only gradtx's constructors and functions, recipes defined in this process, and what `names` holds are
    called or looked up: nothing is evaluated or imported, so that a config may come from anywhere.

    Args:
        config: dicts, lists, strings and numbers, as `to_config` gives them or as JSON, TOML or YAML
            were read. A `None` (JSON's null) is None.
        names: names for what is yours; as for `to_config`.

    Returns:
        The transform or schedule, equal to the one that the config was made of.

    Raises:
        ValueError: the config is wrong: an unknown name or key, a missing argument, a value of a wrong type
            or one that the constructor refuses. The error begins with the place, such as
            `transforms[1].learning_rate.peak_value`.

    Examples:
        >>> import gradtx, tomllib
        >>> text = '''
        ... call = "chain"
        ... transforms = [
        ...     {call = "clip_by_global_norm", max_norm = 1.0},
        ...     {call = "adamw", learning_rate = 1e-3, mask = ["!*bias", "!*norm*"]},
        ... ]
        ... '''
        >>> gradtx.from_config(tomllib.loads(text))
        chain(clip_by_global_norm(1.0), adamw(0.001, mask=('!*bias', '!*norm*')))
        >>> gradtx.from_config({"call": "adamw", "lr": 1e-3})
        Traceback (most recent call last):
        ValueError: lr: adamw has no argument 'lr'. It is called 'learning_rate' here.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"the config: it must be a table with the key {CALL!r}, got {shown(config)}.")
    if CALL not in config and NAME not in config:
        hint = next(filter(None, (suggestion(str(k), None, [CALL]) for k in list(config)[:20])), "")
        raise ValueError(
            f"the config: it has no key {CALL!r}, which names what to build, as in {{'call': 'adamw', ...}}. "
            f"It has {cut(', '.join(map(str, config)) or 'nothing')}. {hint}".rstrip()
        )
    built = _Reader(Names(names)).value(config, "", 0)
    if not isinstance(built, Schedule):
        try:
            checked("the config", built)
        except TypeError:
            raise ValueError(
                f"the config: it builds {shown(built)}, which is no transform and no schedule."
            ) from None
    return built


class _Reader:
    """Builds values from plain data. The place of a value in the document is for errors."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.count = 0

    def value(self, x: Any, place: str, depth: int, hint: Any = Any) -> Any:
        """The value that stands at `place`, as an argument of the kind `hint`."""
        deeper(depth, place)
        self.count += 1
        if self.count > MOST_VALUES:
            raise ValueError(f"{cut(place)}: the config has more than {MOST_VALUES:,} values.")
        if isinstance(x, bool | str | int | float | None):
            return x
        if isinstance(x, list | tuple):
            items = self.items(x, place, depth)
            is_patterns = bool(items) and all(isinstance(item, str) for item in items)
            return tuple(items) if is_patterns or is_sequence(hint) else items
        if not isinstance(x, Mapping):
            kind = type(x).__name__
            raise ValueError(
                f"{at(place)}: {shown(x)} is a {kind}; a config holds tables, lists, strings and numbers."
            )
        if CALL in x:
            return self.call(x, place, depth)
        if is_form(x):
            ((form, content),) = x.items()
            return self.form(form, content, place, depth)
        inside = f"{place}." if place else ""
        return {key: self.value(item, f"{inside}{cut(str(key))}", depth + 1) for key, item in x.items()}

    def items(self, x: Any, place: str, depth: int) -> list[Any]:
        """The elements of a list."""
        return [self.value(item, f"{place}[{i}]", depth + 1) for i, item in enumerate(x)]

    def form(self, form: str, content: Any, place: str, depth: int) -> Any:
        """A value of a kind that the formats lack."""
        if form == NAME:
            return self.names.find(content, place)
        if form in ("value", "dtype"):
            if not isinstance(content, str):
                raise ValueError(f"{at(place)}: {form!r} must be a string, got {shown(content)}.")
            return _constant(content, place) if form == "value" else _dtype(content, place)
        if not isinstance(content, list | tuple):
            raise ValueError(f"{at(place)}: {form!r} must be a list, got {shown(content)}.")
        if form == "dict":
            return self.pairs(content, place, depth)
        items = self.items(content, place, depth)
        return tuple(items) if form == "tuple" else items

    def pairs(self, content: Any, place: str, depth: int) -> dict[Any, Any]:
        """A dict from its pairs."""
        found: dict[Any, Any] = {}
        for i, item in enumerate(content):
            key, value = self.pair(item, f"{place}.dict[{i}]", depth)
            if key in found:
                raise ValueError(f"{place}.dict[{i}]: the key {shown(key)} is there already.")
            found[key] = value
        return found

    def pair(self, pair: Any, place: str, depth: int) -> tuple[Any, Any]:
        """A key and a value."""
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"{at(place)}: it must be a pair [key, value], got {shown(pair)}.")
        key, value = self.items(pair, place, depth + 1)
        try:
            hash(key)
        except TypeError:
            raise ValueError(f"{at(place)}: {shown(key)} cannot be a key.") from None
        return key, value

    def call(self, x: Mapping[Any, Any], place: str, depth: int) -> Any:
        """What a call builds."""
        inside = f"{place}." if place else ""
        fn = self.names.constructor(x[CALL], f"{inside}{CALL}")
        name, parameters, hints = x[CALL], parameters_of(fn), hints_of(fn)
        known = [k for k, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
        arguments: dict[str, Any] = {}
        others: dict[str, Any] = {}
        for key, item in x.items():
            where = f"{inside}{cut(str(key))}"
            if key == CALL:
                continue
            if not isinstance(key, str) or (key not in known and len(known) == len(parameters)):
                takes = f"It takes {', '.join(known) or 'no arguments'}."
                hint = suggestion(key, item, known) if isinstance(key, str) and len(key) <= LONGEST else ""
                raise ValueError(f"{where}: {name} has no argument {shown(key)}. {hint or takes}")
            hint = hints.get(key, Any)
            if key not in known:
                others[key] = self.value(item, where, depth + 1)
            elif parameters[key].kind is inspect.Parameter.VAR_POSITIONAL:
                arguments[key] = self.several(item, where, depth, hint)
            else:
                arguments[key] = self.argument(item, where, depth, hint)
        for key in known:
            parameter = parameters[key]
            required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
            if required and key not in arguments:
                raise ValueError(f"{at(place)}: {name} needs the argument {key!r}.")
        given = inspect.BoundArguments(inspect.signature(fn), arguments)  # type: ignore[arg-type]
        try:
            return fn(*given.args, **given.kwargs, **others)
        except (TypeError, ValueError, ArithmeticError) as error:
            # An error of a constructor says which argument it is about, if it is about one.
            named = [key for key in arguments if re.search(rf"\b{key}\b( of \S+)? must\b", str(error))]
            raise ValueError(f"{inside + named[0] if len(named) == 1 else at(place)}: {error}") from error

    def argument(self, item: Any, place: str, depth: int, hint: Any) -> Any:
        """An argument, checked against the kind that the constructor declares."""
        value = self.value(item, place, depth + 1, hint)
        wanted = misfit(value, hint)
        if wanted:
            raise ValueError(f"{place}: it must be {wanted}, got {shown(value)}.")
        return value

    def several(self, item: Any, place: str, depth: int, hint: Any) -> tuple[Any, ...]:
        """The arguments of a constructor that takes any number of them."""
        if not isinstance(item, list | tuple):
            raise ValueError(f"{place}: it must be a list, got {shown(item)}.")
        return tuple(self.argument(x, f"{place}[{i}]", depth, hint) for i, x in enumerate(item))


def _constant(name: str, place: str) -> Any:
    if name not in VALUES:
        raise ValueError(f"{at(place)}: 'value' must be one of {', '.join(VALUES)}, got {shown(name)}.")
    return VALUES[name]


def _dtype(name: str, place: str) -> Any:
    try:
        return np.dtype(name)
    except (TypeError, ValueError, SyntaxError):
        raise ValueError(f"{at(place)}: there is no dtype {shown(name)}.") from None
