"""Schedules: values over steps that are specs, with numbers of their own.

A schedule consists of its name and its numbers alone, so that the state holds all of it: it can be read,
set and evaluated from the state without the code that built it. A plain callable is a schedule too, but is
code: the state keeps only the value that it will give next.

A number has a path, `learning_rate/linear_schedule/init_value`. The state keeps a schedule whose arguments
are all numbers as one vector of them, in order: each array that a compiled step takes and returns costs it
about a microsecond, whatever its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.numerics import Decay, number_dtype
from gradtx.core.spec.fields import ANY, Declared, Domain, as_number

SCHEDULES: dict[str, type[Schedule]] = {}
"""The schedule classes by name, by which a state's schedules are evaluated."""

CALLABLE = "callable"
COMPLEMENT = "one_minus_"


class Schedule(Declared):
    """A value over steps.

    A subclass declares its numbers as fields and its formula as `at`; `corners` tells its course beforehand.

    Examples:
        >>> import gradtx
        >>> schedule = gradtx.linear_schedule(0.0, 1.0, transition_steps=4)
        >>> schedule
        linear_schedule(0.0, 1.0, 4)
        >>> float(schedule(1))
        0.25
    """

    def __init_subclass__(cls, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(name=name, **kwargs)
        SCHEDULES[cls.name] = cls

    def _keep(self, field: Any, value: Any) -> Any:
        if isinstance(value, tuple | list) and not field.is_number:
            return tuple(as_number(f"{self.name}: {field.name}", v, field.elements or ANY) for v in value)
        return super()._keep(field, value)

    def at(self, step: jax.Array) -> jax.Array:
        """The value at a step, a float scalar from 0."""
        raise NotImplementedError

    def __call__(self, step: Any) -> jax.Array:
        """The value that update number `step`, from 0, uses."""
        return bind_numbers(self)(step)

    def corners(self) -> tuple[float, ...]:
        """The steps between which it rises, falls or rests; infinity is among them if it never settles."""
        return (math.inf,)

    @property
    def settles(self) -> float | None:
        """The step from which its value no longer changes; None where it never settles, or nobody knows."""
        last = max(self.corners(), default=0.0)
        return None if math.isinf(last) else last


def _contents(schedule: Schedule) -> Iterator[tuple[str, Any, Domain]]:
    for key, value in schedule._values().items():
        field = schedule.fields()[key]
        yield key, value, field.domain or field.elements or ANY


def numbers_of(
    key: str, value: Any, domain: Domain, decay: bool = False
) -> Iterator[tuple[tuple[str, ...], Any, Domain]]:
    """Each number under an argument: its path in the state, its given value and its domain.

    A constant decay stands as its complement under `one_minus_<name>`; a schedule as
    `<name>/<schedule>/<its numbers>`; a plain callable as `<name>/callable`.
    """
    if value is None:
        return
    if isinstance(value, Schedule):
        for inner, part, part_domain in _contents(value):
            for path, number, dom in numbers_of(inner, part, part_domain):
                yield (key, value.name, *path), number, dom
    elif isinstance(value, tuple):
        for i, part in enumerate(value):
            for path, number, dom in numbers_of(str(i), part, domain):
                yield (key, *path), number, dom
    elif callable(value):
        yield (key, CALLABLE), value, ANY
    elif decay:
        yield (COMPLEMENT + key,), 1 - value, domain
    else:
        yield (key,), value, domain


def pack_schedules(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested numbers as the state keeps them: those of a schedule that has no other inside as one vector."""

    def kept(name: str, node: Any) -> Any:
        if not isinstance(node, Mapping):
            return node
        order = SCHEDULES[name].fields() if name in SCHEDULES else {}
        if set(node) != set(order) or any(isinstance(part, Mapping) for part in node.values()):
            return pack_schedules(node)
        parts = [node[key] for key in order]
        traced = any(isinstance(part, Tracer) for part in parts)
        return jnp.stack(parts, -1) if traced else np.stack([np.asarray(part) for part in parts], -1)

    return {name: kept(name, node) for name, node in numbers.items()}


def split_schedules(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The nested numbers that the state keeps, each by itself."""

    def parts(name: str, node: Any) -> Any:
        if isinstance(node, Mapping):
            return split_schedules(node)
        if name not in SCHEDULES:
            return node
        return {key: _part(node, i) for i, key in enumerate(SCHEDULES[name].fields())}

    return {name: parts(name, node) for name, node in numbers.items()}


def _part(vector: Any, i: int) -> Any:
    if isinstance(vector, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(vector.shape[:-1], vector.dtype)
    return vector[..., i]


def with_number(numbers: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The numbers that the state keeps with one of them replaced."""
    name, *rest = path
    node = numbers[name]
    if not rest:
        new = value
    elif isinstance(node, Mapping):
        new = with_number(dict(node), tuple(rest), value)
    else:
        i = list(SCHEDULES[name].fields()).index(rest[0])
        if isinstance(node, Tracer) or isinstance(value, Tracer):
            new = jnp.asarray(node).at[..., i].set(value)
        else:
            new = np.array(node)
            new[..., i] = value
    return {**numbers, name: new}


def check_schedules(numbers: Mapping[str, Any]) -> None:
    """Raises for schedules among a state's nested numbers whose numbers have no meaning together."""

    def value(node: Any) -> Any:
        if not isinstance(node, Mapping):
            return float(node) if isinstance(node, np.ndarray) and node.ndim == 0 else node
        return tuple(node.values()) if all(key.isdigit() for key in node) else node

    for name, node in numbers.items():
        if not isinstance(node, Mapping):
            continue
        if name in SCHEDULES:
            schedule = object.__new__(SCHEDULES[name])
            parts = {key: value(node[key]) if key in node else () for key in schedule.fields()}
            schedule._set(
                **{k: tuple(map(value, v)) if isinstance(v, tuple) else v for k, v in parts.items()}
            )
            schedule.check()
        check_schedules(node)


def form(value: Any) -> Any:
    """The structure of an argument: all that the compiled program depends on, and none of its numbers."""
    if isinstance(value, Schedule):
        return (type(value), *(form(part) for _, part, _ in _contents(value)))
    if isinstance(value, tuple):
        return tuple(form(part) for part in value)
    if value is None or callable(value):
        return value
    return "number"


def bind_numbers(value: Any, numbers: Any = None, key: str = "", record: Any = None) -> Any:
    """An argument over the state's arrays for it: an array, a `Decay`, or a function of the step.

    `numbers` is the dict that has the argument under `key`; without it the value's own numbers are used.
    `record` is called with the path and the value of every plain callable that is evaluated.
    """
    dtype = number_dtype()
    if value is None:
        return None
    if isinstance(value, Schedule):
        inner = None if numbers is None else numbers[key][value.name]

        def sub(path: tuple[str, ...], v: Any) -> None:
            if record is not None:
                record((key, value.name, *path), v)

        bound = value._with(**{k: bind_numbers(part, inner, k, sub) for k, part, _ in _contents(value)})
        return lambda step: bound.at(jnp.asarray(step).astype(dtype))
    if isinstance(value, tuple):
        inner = None if numbers is None else numbers.get(key, {})

        def nth(i: int) -> Any:
            def sub(path: tuple[str, ...], v: Any) -> None:
                if record is not None:
                    record((key, *path), v)

            return bind_numbers(value[i], inner, str(i), sub)

        return tuple(nth(i) for i in range(len(value)))
    if callable(value):

        def call(step: Any) -> jax.Array:
            result = jnp.asarray(value(jnp.asarray(step).astype(jnp.int32)))
            if result.shape != ():
                raise ValueError(f"A schedule must give a scalar, got shape {result.shape} from {value}.")
            result = result.astype(dtype)
            if record is not None:
                record((key, CALLABLE), result)
            return result

        return call
    if numbers is None:
        return jnp.asarray(value, dtype)
    if COMPLEMENT + key in numbers:
        return Decay(numbers[COMPLEMENT + key])
    return numbers[key]


def read_schedule(node: Any) -> Any:
    """The function of the step that a state's numbers describe, from the state alone; None for a number."""
    if not isinstance(node, Mapping) or len(node) != 1:
        return None
    ((name, inner),) = node.items()
    if name == CALLABLE:
        return lambda step: inner
    if name not in SCHEDULES:
        return None
    cls = SCHEDULES[name]

    def read(part: Any) -> Any:
        if isinstance(part, Mapping) and all(k.isdigit() for k in part):
            return tuple(read(part[str(i)]) for i in range(len(part)))
        return read_schedule(part) or part

    bound = object.__new__(cls)
    bound._set(**{key: read(inner[key]) if key in inner else None for key in cls.fields()})
    dtype = number_dtype()
    return lambda step: bound.at(jnp.asarray(step).astype(dtype))
