"""Public constructors: how their arguments are bound, with errors that name the right one."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from gradtx.core.spec.fields import Declared
from gradtx.core.spec.spec import register, show

P = ParamSpec("P")
R = TypeVar("R")

_FOREIGN_NAMES = {
    "lr": ("learning_rate", "max_learning_rate"),
    "learning_rates": ("learning_rate",),
    "beta1": ("b1",),
    "beta2": ("b2",),
    "beta": ("b1", "decay", "rho"),
    "alpha": ("decay",),
    "momentum": ("decay",),
    "decay_rate": ("decay",),
    "epsilon": ("eps",),
    "wd": ("weight_decay", "weight_decay_rate"),
    "l2": ("weight_decay",),
    "lambd": ("weight_decay",),
    "weight_decay_rate": ("weight_decay",),
    "weight_decay": ("weight_decay_rate",),
    "weight_decay_mask": ("mask",),
    "mask": ("weight_decay_mask",),
    "max_grad_norm": ("max_norm",),
    "total_steps": ("decay_steps", "transition_steps"),
    "num_steps": ("transition_steps", "decay_steps"),
    "steps": ("transition_steps", "decay_steps"),
    "dtype": ("mu_dtype", "accumulator_dtype"),
}
"""Names that other libraries give to what is asked for here, and the names it may have here."""


def suggestion(name: str, value: Any, known: list[str]) -> str:
    """Which of the known names an unknown one may mean, as a sentence; empty if there is none."""
    if name == "betas" and {"b1", "b2"} <= set(known):
        pair = tuple(value) if isinstance(value, tuple | list) else ()
        given = f": b1={show(pair[0])}, b2={show(pair[1])}" if len(pair) == 2 else ""
        return f"Give the two decays by name{given}."
    for candidate in _FOREIGN_NAMES.get(name, ()):
        if candidate in known:
            return f"It is called {candidate!r} here."
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


def bind_call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, defaults included, or a `TypeError` that suggests the right name."""
    return _bound(getattr(fn, "__name__", show(fn)), inspect.signature(fn), args, kwargs)


def _bound(
    name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    has_keywords = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    known = [k for k, p in signature.parameters.items() if p.kind is not p.VAR_POSITIONAL]
    for key, value in kwargs.items():
        if key not in signature.parameters and not has_keywords:
            hint = suggestion(key, value, known) or f"It takes {', '.join(known) or 'no arguments'}."
            raise TypeError(f"{name} has no argument {key!r}. {hint}")
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        raise TypeError(f"{name}: {error}. Call it as {name}{inspect.Signature(bare)}.") from None
    bound.apply_defaults()
    return bound.arguments


def factory(fn: Callable[P, R]) -> Callable[P, R]:
    """Marks a public constructor that has a body: its name builds reprs, its errors suggest arguments."""

    @functools.wraps(fn)
    def construct(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return fn(*args, **kwargs)
        except TypeError:
            bind_call(fn, args, kwargs)
            raise

    register(construct)
    return construct


def builds(cls: type[Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a public constructor that builds `cls` from its arguments, by name.

    The function that it decorates is a signature and a docstring, and its body is `...`: it says what the
    arguments are called, what they mean and what they are by default. The class says what they may be.

    Raises:
        TypeError: the class takes other arguments than the function, or has a default of its own.
    """

    def constructor(fn: Callable[P, R]) -> Callable[P, R]:
        name, code = fn.__name__, getattr(fn, "__code__")  # noqa: B009
        _check_agreement(name, code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], cls)
        # A signature takes a quarter of a millisecond, and there are many constructors to import.
        signature = functools.cache(lambda: inspect.signature(fn))

        @functools.wraps(fn)
        def construct(*args: P.args, **kwargs: P.kwargs) -> R:
            return cls(**_bound(name, signature(), args, kwargs))

        register(construct)
        return construct

    return constructor


def _check_agreement(name: str, arguments: Sequence[str], cls: type[Any]) -> None:
    """Raises unless a class takes the arguments of its constructor, and leaves their defaults to it."""
    taken = cls.fields() if issubclass(cls, Declared) else inspect.signature(cls).parameters
    lone = {name: set(arguments).difference(taken), cls.__name__: set(taken).difference(arguments)}
    only = [f"only {owner} has {', '.join(sorted(keys))}" for owner, keys in lone.items() if keys]
    if only:
        raise TypeError(f"{name} builds {cls.__name__}, and their arguments differ: {'; '.join(only)}.")
    for key, argument in taken.items():
        if argument.default is not inspect.Parameter.empty:
            raise TypeError(
                f"{cls.__name__}: the default of {key!r} is for {name} to give; take it out of the class."
            )
