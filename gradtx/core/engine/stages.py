"""The pure functions that the engine runs, each traced once for a structure and shared by all settings.

Their static arguments are a program, which compares by structure, and positions in it. Hyperparameters, the
step and slots are arguments, so that changing one compiles nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine.program import Join, Program, Unit
from gradtx.core.engine.transform import added
from gradtx.core.norms import Squares, sum_of_squares
from gradtx.core.numbers.paths import Path
from gradtx.core.numerics import (
    Decay,
    compute_dtype,
    is_trainable,
    like,
    number_dtype,
    real_dtype,
    total,
)

Values = dict[str, Any]


class Scope(SimpleNamespace):
    """Named values that a rule sees: `now` in `prepare` and `conclude`, `leaf` in `measure` and `apply`."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"There is no {name!r} here, only {', '.join(sorted(vars(self)))}.")


class _Nothing:
    """The sums over no leaves: each is 0."""

    def __getattr__(self, name: str) -> jax.Array:
        return jnp.zeros((), jnp.float32)


def argument_values(program: Program, numbers: Any, step: Any, record: Any = None) -> dict[Any, Any]:
    """The value of each argument at a step: an array or a `Decay`."""
    arguments = program.arguments(numbers, record)
    return {k: v(step) if callable(v) else v for k, v in arguments.items()}


def with_values(unit: Unit, arguments: dict[Any, Any]) -> Any:
    """The rule of a unit with arrays for its hyperparameters."""
    return unit.transform._with(**_fields(unit, arguments))


def _fields(unit: Unit, arguments: dict[Any, Any]) -> Values:
    result = {}
    for key, source in unit.sources.items():
        value, decay = arguments[source], unit.transform.fields()[key].decay
        if decay and not isinstance(value, Decay):
            value = Decay(1 - value)
        elif isinstance(value, Decay) and not decay:
            value = value.value
        result[key] = value
    return result


def _now(unit: Unit, step: jax.Array, kept: Values, extra: Values) -> Scope:
    dtype = number_dtype()
    scalars = {k: v for k, v in kept.items() if not unit.transform.scalars[k].is_key}
    wanted = {k: extra[k] for k in unit.transform.needs if k in extra}
    t = step.astype(dtype)
    return Scope(step=t, t=t + 1, extra=wanted, **scalars)


@functools.partial(jax.jit, static_argnums=0)
def prepare(
    program: Program, numbers: Any, step: jax.Array, kept: dict[Path, Values], extra: Values
) -> tuple[dict[Path, Values], dict[Path, Values], jax.Array, dict[Path, jax.Array]]:
    """What is computed once: each rule's fields and scalars, the next step, and what callables give then."""
    arguments = argument_values(program, numbers, step)
    fields = {unit.path: _fields(unit, arguments) for unit in program.rules}
    scalars = {}
    for unit in program.rules:
        rule = unit.transform._with(**fields[unit.path])
        made = dict(rule.prepare(_now(unit, step, kept[unit.path], extra)))
        for name, scalar in rule.scalars.items():
            if scalar.is_key:
                made["key"] = jax.random.fold_in(jax.random.wrap_key_data(kept[unit.path][name]), step)
        scalars[unit.path] = made
    last = np.int32(np.iinfo(np.int32).max)
    following = jnp.where(step < last, step + np.int32(1), last)
    coded: dict[Path, jax.Array] = {}
    if program.has_callables:
        argument_values(program, numbers, following, coded.__setitem__)
    return fields, scalars, following, coded


@functools.partial(jax.jit, static_argnums=(0, 1))
def conclude(
    program: Program,
    position: int,
    step: jax.Array,
    parts: list[Values],
    values: tuple[Values, Values],
    kept: Values,
    extra: Values,
    measured: list[jax.Array],
) -> Values:
    """The scalars that follow from the sums of a rule's measures; for a norm also from what was measured."""
    unit = program.steps[position]
    rule = unit.transform._with(**values[0])
    totals = Scope(**{k: total([part[k] for part in parts]) for k in parts[0]}) if parts else _Nothing()
    if type(unit.transform).measure is measure_squares:
        totals = Scope(squares=Squares(measured, [part["squares"] for part in parts]))
    now = _now(unit, step, kept, extra)
    vars(now).update(values[1])
    return rule.conclude(totals, now)


def _load(stack: list[jax.Array], param: Any) -> tuple[list[jax.Array], Any, Any]:
    compute = compute_dtype(*(x.dtype for x in (*stack, param) if x is not None))
    loaded = None if param is None else param.astype(like(param.dtype, compute))
    return [u.astype(like(u.dtype, compute)) for u in stack], loaded, compute


def _cast(values: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if is_trainable(x.dtype) else x, values)


def _leaf_view(
    unit: Unit, values: tuple[Values, Values], slots: Values, param: Any, index: Any, compute: Any
) -> tuple[Any, Scope, Scope]:
    fields, scalars = _cast(values[0], real_dtype(compute)), dict(values[1])
    key = scalars.pop("key", None)
    leaf = Scope(param=param, **_cast(scalars, real_dtype(compute)))
    if key is not None:
        leaf.key = jax.random.fold_in(key, index)
    loaded = Scope(
        **{
            k: v.astype(like(v.dtype, compute)) if v is not None and is_trainable(v.dtype) else v
            for k, v in slots.items()
        }
    )
    return unit.transform._with(**fields), loaded, leaf


def mixing() -> Any:
    """A context in which dtypes may meet whatever promotion the user has set: complex and real, int and bool.

    The engine has cast all that a rule or a wrapper sees to one precision, and casts what comes back.
    """
    return jax.numpy_dtype_promotion("standard")


def _measure(
    program: Program, position: int, stack: Any, param: Any, slots: Any, values: Any, index: Any
) -> Values:
    """The real scalars that a rule measures on one leaf, in at least float32."""
    unit = program.steps[position]
    with jax.named_scope(unit.where), mixing():
        stack, param, compute = _load(stack, param)
        rule, loaded, leaf = _leaf_view(unit, values, slots, param, index, compute)
        return rule.measure(stack[-1], loaded, leaf)


def measure_squares(self: Any, g: jax.Array, slots: Any, leaf: Any) -> dict[str, jax.Array]:
    """The measure of a global norm, whose total is a `Squares`.

    A wrapper that has taken it already hands it to the rules inside.
    """
    return {"squares": sum_of_squares(g)}


@dataclasses.dataclass(frozen=True)
class LeafStage:
    """What is static about a stage for one leaf; hashed once, since outside of jit each leaf looks it up."""

    program: Program
    start: int
    stop: int
    finish: Any
    """The dtype of the result in the last stage, "apply" to add it to the parameter, None in other stages."""
    form: Any
    """The structure of the values, whose leaves alone are passed."""
    packed: tuple[bool, ...]
    """Which of the values come in one vector."""

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.program, self.start, self.stop, self.finish, self.form, self.packed))

    def __hash__(self) -> int:
        return self._hash


def _run(
    stage: LeafStage,
    stack: list[jax.Array],
    param: Any,
    slots: list[Values | None],
    vector: Any,
    others: list[jax.Array],
    index: Any,
) -> tuple[Any, list[Values | None]]:
    """One leaf through one stage: the new stack and slots; None among `slots` masks a unit out."""
    scalars, rest = iter(vector if vector is not None else ()), iter(others)
    values = stage.form.unflatten([next(scalars if packed else rest) for packed in stage.packed])
    finish = stage.finish
    original = param
    stack, param, compute = _load(stack, param)
    given = zip(slots, values, strict=True)
    stored: list[Values | None] = []
    for step in stage.program.steps[stage.start : stage.stop]:
        if not isinstance(step, Unit | Join):
            stack = step(stack)
            continue
        own, numbers = next(given)
        if isinstance(step, Join):
            with mixing():
                stack = step(stack, inside=own is not None)
            stored.append(own)
            continue
        if own is None:
            stored.append(None)
            continue
        with jax.named_scope(step.where), mixing():
            rule, loaded, leaf = _leaf_view(step, numbers, own, param, index, compute)
            update, kept = rule.apply(stack[-1], loaded, leaf)
        kept = kept if isinstance(kept, dict) else vars(kept)
        stack = [*stack[:-1], update.astype(like(update.dtype, compute))]
        stored.append({k: None if v is None else kept[k].astype(v.dtype) for k, v in own.items()})
    if finish is None:
        return stack, stored
    if finish == "apply":
        return added(original, stack[-1]), stored
    return stack[-1].astype(finish), stored


@jax.jit
def pack(scalars: list[jax.Array]) -> jax.Array:
    """Scalars as one vector: each kernel of each leaf then takes one array in place of many."""
    return jnp.stack(scalars)


run_leaf: Callable[..., Any] = jax.jit(_run, static_argnums=0)
measure_leaf: Callable[..., Any] = jax.jit(_measure, static_argnums=(0, 1))
