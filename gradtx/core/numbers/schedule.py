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
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.numbers.steps import REST, Steps, given, missing, nearest
from gradtx.core.numerics import Decay, number_dtype
from gradtx.core.spec.argument import complement, plain
from gradtx.core.spec.fields import ANY, Declared, Domain, as_number
from gradtx.core.spec.spec import show

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
        known = SCHEDULES.get(cls.name, cls)
        # A cell of a notebook that is run again defines the same class again.
        if cls.name == CALLABLE or known.__module__ + known.__qualname__ != cls.__module__ + cls.__qualname__:
            raise TypeError(
                f"{cls.__qualname__}: a state tells a schedule by its name, and {cls.name!r} means something "
                f"else there. Choose another: class {cls.__name__}(..., name=...)."
            )
        SCHEDULES[cls.name] = cls

    def _keep(self, field: Any, value: Any) -> Any:
        if isinstance(value, tuple | list):
            where, domain = f"{self.name}: {field.name}", field.elements or field.domain or ANY
            return tuple(plain(as_number(where, v, domain)) for v in value)
        return plain(super()._keep(field, value))

    def at(self, step: Steps) -> jax.Array:
        """The value at a step from 0, whose differences and comparisons are exact; else it is a float."""
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
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each number under an argument: its path in the state and its given value.

    A constant decay stands as its complement under `one_minus_<name>`; a number of steps as the nearest
    float under its name and what is missing under `<name>_rest`; a schedule as
    `<name>/<schedule>/<its numbers>`; a plain callable as `<name>/callable`.
    """
    if value is None:
        return
    if isinstance(value, Schedule):
        for inner, part, part_domain in _contents(value):
            for path, number in numbers_of(inner, part, part_domain):
                yield (key, value.name, *path), number
    elif isinstance(value, tuple):
        for i, part in enumerate(value):
            for path, number in numbers_of(str(i), part, domain):
                yield (key, *path), number
    elif callable(value):
        yield (key, CALLABLE), value
    elif decay:
        yield (COMPLEMENT + key,), complement(value)
    elif domain.counts_steps:
        yield (key,), nearest(value)
        yield (key + REST,), missing(value)
    else:
        yield (key,), value


def order_in(schedule: str) -> list[str]:
    """The names of a schedule's numbers in the order in which a vector in the state has them."""
    fields = SCHEDULES[schedule].fields()
    return [*fields, *(key + REST for key, f in fields.items() if f.domain and f.domain.counts_steps)]


def pack_schedules(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested numbers as the state keeps them: those of a schedule that has no other inside as one vector."""

    def kept(name: str, inner: Any) -> Any:
        order = order_in(name)
        if set(inner) != set(order) or any(isinstance(part, Mapping) for part in inner.values()):
            return _of_arguments(inner, kept)
        parts = [inner[key] for key in order]
        traced = any(isinstance(part, Tracer) for part in parts)
        return jnp.stack(parts, -1) if traced else np.stack([np.asarray(part) for part in parts], -1)

    return {key: _of_arguments(arguments, kept) for key, arguments in numbers.items()}


def split_schedules(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The nested numbers that the state keeps, each by itself."""

    def parts(name: str, inner: Any) -> Any:
        if isinstance(inner, Mapping):
            return _of_arguments(inner, parts)
        return {key: _part(inner, i) for i, key in enumerate(order_in(name))}

    return {key: _of_arguments(arguments, parts) for key, arguments in numbers.items()}


def schedule_in(node: Any) -> str:
    """The name of the schedule that stands under an argument; empty if there is a number, a tuple or code.

    A transform or an argument may be called as some schedule is: the place says which of them a name is.
    """
    name = next(iter(node)) if isinstance(node, Mapping) and len(node) == 1 else ""
    return name if name in SCHEDULES else ""


def _of_arguments(arguments: Mapping[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """Arguments in which each schedule is what `change` makes of its name and numbers."""

    def changed(node: Any) -> Any:
        if name := schedule_in(node):
            return {name: change(name, node[name])}
        return _of_arguments(node, change) if isinstance(node, Mapping) else node

    return {key: changed(node) for key, node in arguments.items()}


def _part(vector: Any, i: int) -> Any:
    if isinstance(vector, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(vector.shape[:-1], vector.dtype)
    return vector[..., i]


def with_number(numbers: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The numbers that the state keeps with one of them replaced; a number of steps in both of its parts."""
    name, *rest = path
    node = numbers[name]
    if not rest:
        if name + REST not in numbers:
            return {**numbers, name: value}
        return {**numbers, name: nearest(value), name + REST: missing(value)}
    if isinstance(node, Mapping):
        new = with_number(dict(node), tuple(rest), value)
    else:
        order, key = order_in(name), rest[0]
        counts_steps = key + REST in order
        parts = {key: nearest(value), key + REST: missing(value)} if counts_steps else {key: value}
        traced = isinstance(node, Tracer) or isinstance(value, Tracer)
        new: Any = jnp.asarray(node) if traced else np.array(node)
        for part, x in parts.items():
            if traced:
                new = new.at[..., order.index(part)].set(jnp.asarray(x).astype(new.dtype))
            else:
                new[..., order.index(part)] = x
    return {**numbers, name: new}


def number_at(numbers: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """One of the numbers that the state keeps."""
    node = split_schedules(numbers)
    for name in path:
        node = node[name]
    return node


def without_numbers(value: Any) -> Any:
    """An argument with 0 for each number: what is left is its form."""
    if isinstance(value, Schedule):
        return value._with(**{key: without_numbers(part) for key, part, _ in _contents(value)})
    if isinstance(value, tuple):
        return tuple(map(without_numbers, value))
    return value if value is None or callable(value) else 0.0


def check_schedules(numbers: Mapping[str, Any]) -> None:
    """Raises for schedules among a state's nested numbers whose numbers have no meaning together."""

    def value(parts: Any, key: str) -> Any:
        node = parts[key]
        if isinstance(node, Mapping):
            members = [k for k in node if not k.endswith(REST)]
            return tuple(value(node, k) for k in members) if all(k.isdigit() for k in members) else node
        if not isinstance(node, np.ndarray) or node.ndim:
            return node
        return float(given(node, parts[key + REST]) if key + REST in parts else node)

    def checked(name: str, node: Any) -> Any:
        schedule = object.__new__(SCHEDULES[name])
        schedule._set(**{key: value(node, key) if key in node else () for key in schedule.fields()})
        schedule.check()
        return _of_arguments(node, checked)

    for arguments in numbers.values():
        _of_arguments(arguments, checked)


def form(value: Any) -> Any:
    """The structure of an argument: all that the compiled program depends on, and none of its numbers."""
    if isinstance(value, Schedule):
        return (type(value), *(form(part) for _, part, _ in _contents(value)))
    if isinstance(value, tuple):
        return tuple(form(part) for part in value)
    if value is None or callable(value):
        return value
    return "number"


def contains_code(value: Any) -> bool:
    """Whether an argument is a plain function of the step, or a schedule with one inside."""
    if isinstance(value, Schedule):
        return any(contains_code(part) for _, part, _ in _contents(value))
    if isinstance(value, tuple):
        return any(map(contains_code, value))
    return callable(value)


def bind_numbers(
    value: Any, numbers: Any = None, key: str = "", record: Any = None, domain: Domain = ANY, where: str = ""
) -> Any:
    """An argument over the state's arrays for it: an array, a `Decay`, `Steps`, or a function of the step.

    `numbers` is the dict that has the argument under `key`; without it the value's own numbers are used, of
    which `domain` says whether they are numbers of steps. `where` is the argument's name for errors.
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

        name, parts = where or value.name, _contents(value)
        bound = value._with(
            **{k: bind_numbers(part, inner, k, sub, dom, f"{name}.{k}") for k, part, dom in parts}
        )
        return lambda step: bound.at(Steps.of(step))
    if isinstance(value, tuple):
        inner = None if numbers is None else numbers.get(key, {})

        def nth(i: int) -> Any:
            def sub(path: tuple[str, ...], v: Any) -> None:
                if record is not None:
                    record((key, *path), v)

            return bind_numbers(value[i], inner, str(i), sub, domain, f"{where}.{i}")

        return tuple(nth(i) for i in range(len(value)))
    if callable(value):

        def call(step: Any) -> jax.Array:
            result = _called(value, Steps.of(step).floor(), where).astype(dtype)
            if record is not None:
                record((key, CALLABLE), result)
            return result

        return call
    if numbers is None:
        return Steps.of(value) if domain.counts_steps else jnp.asarray(value, dtype)
    return _number(numbers, key)


_ON_A_TRACER = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What is raised where Python code asks a traced value for a number; a bool is asked for by the first."""


def asked_a_tracer(error: Exception) -> bool:
    """Whether an error says that Python code, such as a function of the step, asked for a traced value."""
    return isinstance(error, _ON_A_TRACER) or isinstance(error.__cause__, _ON_A_TRACER)


def _called(fn: Any, step: jax.Array, where: str) -> jax.Array:
    """What a plain function gives at a step, or at each of several."""
    if step.ndim:
        steps = step.ravel()
        try:
            values = jax.vmap(lambda t: _called(fn, t, where))(steps)
        except TypeError as error:
            if isinstance(step, Tracer) or not asked_a_tracer(error):
                raise
            values = jnp.stack([_called(fn, t, where) for t in steps])
        return values.reshape(step.shape)
    try:
        result = jnp.asarray(fn(step))
    except _ON_A_TRACER as error:
        raise TypeError(
            f"{where or 'This schedule'} is a Python function of the step, {show(fn)}, which asked for the "
            f"value of a step that is traced: under jax.jit it has none yet. Decide with jnp.where in place "
            f"of `if`, compute with jnp in place of np and math, and look up in a jnp array in place of a "
            f"list; or use a schedule of gradtx, such as piecewise_constant_schedule or join_schedules."
        ) from error
    if result.shape != ():
        raise ValueError(f"A schedule must give a scalar, got shape {result.shape} from {show(fn)}.")
    return result


def _number(numbers: Mapping[str, Any], key: str) -> Any:
    """A number of the state as what its names there say that it is."""
    if COMPLEMENT + key in numbers:
        return Decay(numbers[COMPLEMENT + key])
    if key + REST in numbers:
        return Steps.of(numbers[key], numbers[key + REST])
    return numbers[key]


def read_schedule(node: Any) -> Any:
    """The function of the step that a state's numbers describe, from the state alone; None for a number."""
    if isinstance(node, Mapping) and set(node) == {CALLABLE}:
        return lambda step: node[CALLABLE]
    if not (name := schedule_in(node)):
        return None
    cls, inner = SCHEDULES[name], node[name]

    def read(numbers: Any, key: str) -> Any:
        part = numbers[key]
        if not isinstance(part, Mapping):
            return _number(numbers, key)
        members = [k for k in part if not k.endswith(REST)]
        if all(k.isdigit() for k in members):
            return tuple(read(part, str(i)) for i in range(len(members)))
        return read_schedule(part)

    def at(step: Any) -> jax.Array:
        bound = object.__new__(cls)
        bound._set(**{key: read(inner, key) if key in inner else None for key in cls.fields()})
        return bound.at(Steps.of(step))

    return at
