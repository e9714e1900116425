"""Recipes: ready-made compositions, whose arguments are read and set under the recipe's own names."""

from __future__ import annotations

import functools
import inspect
import math
import typing
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any, ParamSpec

import jax
import numpy as np
from jax.core import Tracer

from gradtx.core.engine.composed import Composed
from gradtx.core.engine.program import Builder
from gradtx.core.engine.transform import Transform
from gradtx.core.numbers.schedule import Schedule
from gradtx.core.spec.argument import Argument, NoArithmetic, argument, no_arithmetic, plain
from gradtx.core.spec.arguments import bind_call
from gradtx.core.spec.fields import NotANumber, Scalar, ScalarOrSchedule, as_number, dtype_name
from gradtx.core.spec.spec import Spec, call_arguments, is_key, register

P = ParamSpec("P")


class Recipe(Composed):
    """The result of a recipe: its name and arguments, and the composition that they make."""

    name: str
    arguments: dict[str, Any]
    inner: Composed

    def __init__(self, name: str, arguments: dict[str, Any], inner: Composed) -> None:
        self._set(name=name, arguments={k: plain(v) for k, v in arguments.items()}, inner=inner)
        self._set(handed_on=arguments)

    def _identity(self) -> Any:
        return self.name, self.arguments

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return call_arguments(self.name, self.arguments, self.__dict__.get("_made_by"))

    def _visit(self, builder: Builder) -> None:
        scope = builder.claim(self.name)
        owners = {id(v): (scope, k) for k, v in self.__dict__["handed_on"].items() if _is_hyperparameter(v)}
        with builder.inside(owners=owners):
            self.inner._visit(builder)


def _is_hyperparameter(value: Any) -> bool:
    return value is not None and not isinstance(value, bool | str | int | tuple | list | dict)


def _distinct(where: str, value: Any, seen: set[int]) -> Any:
    """The same hyperparameter as an object of its own, by which the rule that gets it is found."""
    if isinstance(value, int | float):
        value = argument(where, value)
    elif isinstance(value, Schedule) and id(value) in seen:
        value = value._with()
    seen.add(id(value))
    return value


EMPTY = inspect.Parameter.empty
EMPTY_CELL = CellType()
"""A variable of a closure that has no value yet, which cannot be read."""


def _check_traced(name: str, arguments: dict[str, Any], inner: Composed) -> None:
    """Raises where a number is computed from traced arguments, which no class of ours can forbid."""
    traced = {key: value for key, value in arguments.items() if isinstance(value, Tracer)}
    if traced:
        known = set(map(id, traced.values()))
        for value in inner.program.given.values():
            if isinstance(value, Tracer) and id(value) not in known:
                raise TypeError(no_arithmetic(f"{name}: {', '.join(traced)}"))


def _check_functions(inner: Composed) -> None:
    """Raises where a function in a recipe's result holds an argument, which is no number to it."""
    seen: set[int] = set()
    left: list[Any] = [inner]
    while left:
        x = left.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, FunctionType):
            held = [c.cell_contents for c in x.__closure__ or () if c != EMPTY_CELL]
            held += [*(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values()]
            for value in held:
                if isinstance(value, Argument):
                    raise NoArithmetic(no_arithmetic(value.where))
            left += [value for value in held if isinstance(value, FunctionType | tuple | list | dict)]
        elif isinstance(x, Spec):
            left += [value for key, value in vars(x).items() if key not in ("handed_on", "_program")]
        elif isinstance(x, dict):
            left += x.values()
        elif isinstance(x, tuple | list):
            left += x


def _arithmetic_behind(name: str, arguments: dict[str, Any], error: Exception) -> str:
    """What is said of arithmetic on an argument that ended in another error; nothing of any other error."""
    if isinstance(error.__cause__, NoArithmetic):  # JAX was given an argument, and has its own words
        return str(error.__cause__)
    numbers = {key: plain(x) for key, x in arguments.items() if isinstance(x, Argument)}
    if isinstance(error, NotANumber) and not any(map(math.isnan, numbers.values())):
        # A function of `math` makes NaN of an argument; it may come from elsewhere, too.
        words = no_arithmetic(f"{name}: {' or '.join(numbers)}")
        return f"{error} If it was computed from an argument: {words}" if numbers else ""
    return ""


def recipe(fn: Callable[P, Transform]) -> Callable[P, Transform]:
    """Makes a recipe of a function that composes transforms from its arguments.

    An argument annotated `Scalar`, `ScalarOrSchedule` or `float` (or one of them `| None`) is a
    hyperparameter, and so is one without an annotation that is given as a float. Wherever the function passes
    it, the state keeps one number for it, under the recipe's name and the argument's. The function does no
    arithmetic on it, which is an error, and its structure does not depend on its value: a factor is a
    transform of its own, `gradtx.scale(0.5)` in the chain.

    Examples:
        >>> import gradtx
        >>> @gradtx.recipe
        ... def clipped_sgd(learning_rate: gradtx.ScalarOrSchedule, max_norm: gradtx.ScalarOrSchedule = 1.0):
        ...     return gradtx.chain(gradtx.clip_by_global_norm(max_norm), gradtx.sgd(learning_rate))
        >>> clipped_sgd(0.1)
        clipped_sgd(0.1)
    """

    @functools.cache
    def hyperparameters() -> tuple[str, ...]:
        kinds = (Scalar, ScalarOrSchedule, Scalar | None, ScalarOrSchedule | None, float, float | None)
        hints = typing.get_type_hints(fn)
        return tuple(k for k in inspect.signature(fn).parameters if hints.get(k) in kinds)

    @functools.wraps(fn)
    def construct(*args: P.args, **kwargs: P.kwargs) -> Transform:
        arguments = bind_call(fn, args, kwargs)
        seen: set[int] = set()
        parameters = inspect.signature(fn).parameters
        bare = [k for k, v in arguments.items() if isinstance(v, float) and parameters[k].annotation is EMPTY]
        for key in (*hyperparameters(), *bare):
            if arguments[key] is not None:
                number = as_number(f"{fn.__name__}: {key}", arguments[key], None)
                arguments[key] = _distinct(f"{fn.__name__}: {key}", number, seen)
        for key, value in arguments.items():
            if is_key(value):
                arguments[key] = tuple(np.asarray(jax.random.key_data(value)).tolist())
            elif isinstance(value, np.dtype) or (isinstance(value, type) and hasattr(value, "dtype")):
                arguments[key] = dtype_name(value)
        try:
            inner = fn(**arguments)  # type: ignore[call-arg]
        except (TypeError, ValueError) as error:
            error.add_note(f"This was raised while {fn.__name__} was built.")
            words = _arithmetic_behind(fn.__name__, arguments, error)
            if words:
                raise NoArithmetic(words) from error
            raise
        assert isinstance(inner, Composed)
        _check_traced(fn.__name__, arguments, inner)
        _check_functions(inner)
        result = Recipe(fn.__name__, arguments, inner)
        # The table of constructors holds none alive: one that made an optimizer is there as long as this.
        result._set(_made_by=construct)
        return result

    register(construct)
    return construct
