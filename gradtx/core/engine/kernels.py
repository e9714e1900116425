"""Kernels: the pure functions of arrays that the engine compiles, each once for all settings.

The static part of a kernel is code: rules without their numbers, and where they stand. Hyperparameters, the
step and slots are arguments, so that changing one compiles nothing. Equal kernels share one compiled
function, through a table that holds no code of a user alive: where all static parts are gradtx's own and
plain values it keeps the kernel, so that an optimizer that is built again and again is compiled once;
otherwise the kernel lives as long as some optimizer that uses it.
"""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.engine.leaves import Selection
from gradtx.core.engine.on_shards import axis_name_of, on_shards, refuse_axes, refuse_numbers
from gradtx.core.engine.raised import raised
from gradtx.core.engine.results import checked_measures, checked_scalars, checked_update
from gradtx.core.engine.scope import Leaf, Now, Scope, Slots
from gradtx.core.engine.slots import load, load_update, store
from gradtx.core.engine.steps import Join, Step, Unit, through
from gradtx.core.engine.transform import Transform, added
from gradtx.core.norms import Squares
from gradtx.core.numbers.paths import Path
from gradtx.core.numbers.schedule import bind_numbers, form, split_schedules, without_numbers
from gradtx.core.numbers.steps import Steps, next_count
from gradtx.core.numerics import (
    Decay,
    cast,
    is_trainable,
    like,
    number_dtype,
    real_dtype,
    total,
)
from gradtx.core.shards import key_of_shard, summed
from gradtx.core.spec.spec import is_array

Values = dict[str, Any]
K = TypeVar("K", bound="Kernel")


class Kernel:
    """A pure function of arrays with static parts; kernels are equal where these are."""

    def __init__(self, *static: Any) -> None:
        self._static = static
        self._hash = hash((type(self), static))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (type(self) is type(other) and self._static == vars(other)["_static"])


_LIVING: weakref.WeakKeyDictionary[Kernel, weakref.ref[Kernel]] = weakref.WeakKeyDictionary()
_PLAIN: set[Kernel] = set()


def shared(kernel: K) -> K:
    """The kernel that stands for all that are equal to this one."""
    reference = _LIVING.get(kernel)
    found: Any = reference and reference()
    if found is None:
        _LIVING[kernel] = weakref.ref(kernel)
        found = kernel
        if is_plain(kernel._static):
            _PLAIN.add(kernel)
    return found


def is_plain(x: Any) -> bool:
    """Whether `x` consists of numbers, words, dtypes and what gradtx itself defines."""
    if isinstance(x, tuple | list | frozenset):
        return all(map(is_plain, x))
    if hasattr(x, "static_parts"):
        return is_plain(x.static_parts)
    if isinstance(x, type | FunctionType):
        ours = x.__module__.partition(".")[0] in ("gradtx", "builtins", "numpy", "jax")
        # A function that was made inside another one may hold what a user gave to that.
        return ours and getattr(x, "__closure__", None) is None
    if dataclasses.is_dataclass(x):
        return is_plain(type(x)) and is_plain(tuple(vars(x).values()))
    return x is None or isinstance(x, bool | int | float | str | bytes | np.dtype)


def hashable(x: Any) -> Any:
    """A hashable stand-in for an argument that is code: equal exactly for equal arguments."""
    if isinstance(x, Mapping):
        return (type(x), *((k, hashable(v)) for k, v in x.items()))
    if isinstance(x, tuple | list):
        return (type(x), *map(hashable, x))
    if isinstance(x, Selection):
        return (type(x), *map(hashable, vars(x).values()))
    if isinstance(x, Transform):
        return (type(x), x.structure())
    if is_array(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) and not isinstance(x, Tracer):
            return (jax.random.key_impl(x), hashable(jax.random.key_data(x)))
        return (x.shape, str(x.dtype), id(x) if isinstance(x, Tracer) else x.tobytes())
    try:
        hash(x)
    except TypeError:
        return id(x)
    return (type(x), x)


OF_TREES = ("mask", "views", "weight_dimension_numbers")
"""Fields of a rule that say something of each leaf of a tree, and are read outside of the kernels."""


def code_of(rule: Any, of_number: Callable[[Any], Any] = lambda value: value is None) -> tuple[Any, ...]:
    """What of a rule or a wrapper is code: its class, its options, and of a number whether it was given."""
    options = tuple(
        (of_number if field.is_number else hashable)(rule.__dict__[key])
        for key, field in rule.fields().items()
        if key not in OF_TREES
    )
    return type(rule), options


def bare(step: Step) -> Step:
    """A step without numbers, masks and views, which are no code of a kernel."""
    if not isinstance(step, Unit):
        return step if not isinstance(step, Join) else dataclasses.replace(step, masks=())
    rule = step.transform
    left_out = {key: None for key, field in rule.fields().items() if field.is_number or key in OF_TREES}
    return dataclasses.replace(step, transform=rule._with(**left_out), masks=(), stores=())


def key_of(step: Step) -> Any:
    """What of a step is code."""
    return (step.path, *code_of(step.transform)) if isinstance(step, Unit) else step


def mixing() -> Any:
    """A context in which dtypes may meet whatever promotion the user has set: complex and real, int and bool.

    The engine has cast all that a rule or a wrapper sees to one precision, and casts what comes back.
    """
    return jax.numpy_dtype_promotion("standard")


def is_decay(x: Any) -> bool:
    """Whether a value is a decay, whose digits are not those of an array."""
    return isinstance(x, Decay)


def field_values(unit: Unit, arguments: dict[Any, Any]) -> Values:
    """The values of a unit's hyperparameters, from those of the arguments that they were given as."""
    result = {}
    for key, source in unit.sources.items():
        value, field = arguments[source], unit.transform.fields()[key]
        decay = field.decay
        if field.domain.counts_steps:
            value = Steps.of(value)
        elif isinstance(value, Steps):
            value = value.value
        if decay and not isinstance(value, Decay):
            value = Decay(1 - value)
        elif isinstance(value, Decay) and not decay:
            value = value.value
        result[key] = value
    return result


def _now(unit: Unit, step: jax.Array, kept: Values, extra: Values) -> Now:
    scalars = {k: v for k, v in kept.items() if not unit.transform.scalars[k].is_key}
    wanted = {k: extra[k] for k in unit.transform.needs if k in extra}
    refuse_numbers(unit.where, wanted)
    t = step.astype(number_dtype())
    return Now(step=t, t=t + 1, exact_t=Steps.of(next_count(step)), extra=wanted, **scalars)


def with_values(unit: Unit, arguments: dict[Any, Any]) -> Any:
    """The rule or wrapper of a unit with arrays for its hyperparameters."""
    return unit.transform._with(**field_values(unit, arguments))


class PrepareKernel(Kernel):
    """What is the same for all leaves: the hyperparameters and scalars of each rule, and the next step."""

    def __init__(self, rules: list[Unit], arguments: dict[tuple[Path, str], Any]) -> None:
        self.rules: list[Any] = [bare(unit) for unit in rules]
        self.arguments = {source: without_numbers(value) for source, value in arguments.items()}
        forms = tuple((source, form(value)) for source, value in arguments.items())
        super().__init__(tuple((key_of(u), tuple(u.sources.items())) for u in rules), forms)
        self.compiled = jax.jit(detached(self, "prepare"))

    def prepare(
        self,
        numbers: Any,
        called: dict[tuple[Path, str], Any],
        step: jax.Array,
        kept: dict[Path, Values],
        extra: Values,
    ) -> tuple[dict[Path, Values], dict[Path, Values], jax.Array]:
        """The hyperparameters and the scalars of each rule, by its path, and the next step.

        `called` has the values of the arguments that are a user's functions, which were called outside.
        """
        bound = bound_arguments(self.arguments, numbers)
        arguments = {**{k: v(step) if callable(v) else v for k, v in bound.items()}, **called}
        fields = {unit.path: field_values(unit, arguments) for unit in self.rules}
        scalars = {}
        for unit in self.rules:
            rule = unit.transform._with(**fields[unit.path])
            with mixing(), raised(f"by prepare of {unit.where}"):
                found = rule.prepare(_now(unit, step, kept[unit.path], extra))
            made = checked_scalars(unit.where, "prepare", found, kept[unit.path])
            for name, scalar in rule.scalars.items():
                if scalar.is_key:
                    made["key"] = jax.random.fold_in(jax.random.wrap_key_data(kept[unit.path][name]), step)
            scalars[unit.path] = made
            fields[unit.path] = {k: v.split() if is_decay(v) else v for k, v in fields[unit.path].items()}
        return fields, scalars, next_count(step)


def bound_arguments(arguments: dict[tuple[Path, str], Any], numbers: Any, record: Any = None) -> Any:
    """Each argument over the state's arrays: an array, a `Decay`, or a function of the step."""
    numbers = split_schedules(numbers)
    result = {}
    for (scope, key), value in arguments.items():
        node = numbers
        for name in scope:
            node = node.get(name, {})

        def at(path: Path, v: Any, scope: Path = scope) -> None:
            if record is not None:
                record(scope + path, v)

        result[scope, key] = bind_numbers(value, node, key, at, where=".".join((*scope, key)))
    return result


class _Nothing:
    """The sums over no leaves: each is 0."""

    def __getattr__(self, name: str) -> jax.Array:
        return jnp.zeros((), number_dtype())


class MeasureKernel(Kernel):
    """What a rule measures on each leaf, and what it concludes from the sums."""

    def __init__(self, unit: Unit) -> None:
        self.unit: Any = bare(unit)
        super().__init__(key_of(unit))
        self.measured = jax.jit(detached(self, "measure"))
        self.concluded = jax.jit(detached(self, "conclude"))

    def measure(self, stack: Any, param: Any, slots: Any, values: Any, number: Any) -> Values:
        """The real scalars of one leaf, in at least float32."""
        with jax.named_scope(self.unit.where), mixing():
            stack, param, compute = load_update(stack, param)
            rule, loaded, leaf = _seen(self.unit, values, slots, stack, param, number, compute)
            with raised(f"by measure of {self.unit.where}"):
                made = rule.measure(stack[-1], loaded, leaf)
            return checked_measures(self.unit.where, made)

    def conclude(
        self,
        step: jax.Array,
        parts: Any,
        values: tuple[Values, Values],
        kept: Values,
        extra: Values,
        measured: list[jax.Array],
    ) -> Values:
        """The scalars that follow from the sums.

        Of a norm these are of each leaf, and `measured` has the leaves. Others come by the mesh axes over
        which the leaves are shards.
        """
        rule = self.unit.transform._with(**values[0])
        if self.unit.transform.measures_norm:
            totals: Any = Scope(squares=Squares(measured, parts, axis_name=axis_name_of(rule)))
        else:
            totals = Scope(**_sums(parts)) if parts else _Nothing()
        now = _now(self.unit, step, kept, extra)
        vars(now).update(values[1])
        with jax.named_scope(self.unit.where), mixing(), raised(f"by conclude of {self.unit.where}"):
            made = rule.conclude(totals, now)
        return checked_scalars(self.unit.where, "conclude", made, kept)


def _sums(parts: dict[tuple[str, ...], list[Values]]) -> Values:
    """The sums over all leaves and their shards, in the dtype of hyperparameters."""
    each = [summed({k: total([p[k] for p in own]) for k in own[0]}, axes) for axes, own in parts.items()]
    return {
        k: cast(functools.reduce(jax.lax.add, [sums[k] for sums in each]), number_dtype()) for k in each[0]
    }


APPLY = "apply"
"""In place of a dtype: the result is added to the parameter."""


@dataclasses.dataclass(frozen=True)
class Packing:
    """How a leaf kernel is called: the result's form, and how the rules' numbers are passed.

    Outside of `jit` scalars come in one vector, so that a call has one array in place of many.
    """

    finish: str | None
    """The name of the result's dtype in the last stage, or `APPLY`; None in other stages.

    A name, since numpy says of the dtype float64 that it equals None.
    """
    structure: Any
    """The structure of the values, whose leaves alone are passed."""
    packed: tuple[bool, ...]
    """Which of the values come in one vector."""

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.finish, self.structure, self.packed))

    def __hash__(self) -> int:  # outside of jit each leaf looks it up
        return self._hash


def pack(values: Any) -> tuple[Packing, Any, list[jax.Array]]:
    """Values for a leaf kernel that is not the last, the vector of the scalars, and the others."""
    leaves, structure = jax.tree.flatten(values)
    packed = tuple(v.dtype == number_dtype() and v.shape == () for v in leaves)
    scalars = [v for v, p in zip(leaves, packed, strict=True) if p]
    if any(isinstance(v, Tracer) for v in scalars):
        # One program for all leaves: to unpack in each of them would only be more to compile.
        return Packing(None, structure, (False,) * len(leaves)), None, leaves
    vector = _stack(scalars) if scalars else None
    others = [v for v, p in zip(leaves, packed, strict=True) if not p]
    return Packing(None, structure, packed), vector, others


_stack = jax.jit(jnp.stack)


def made_once(values: Any) -> Any:
    """The same values, of which XLA would otherwise compute traced scalars again in each kernel of each leaf.

    All stages get the same: what two of them compute of a leaf in one way is then computed once.
    """
    leaves, structure = jax.tree.flatten(values)
    at = [i for i, v in enumerate(leaves) if v.dtype == number_dtype() and v.shape == ()]
    if not any(isinstance(leaves[i], Tracer) for i in at):
        return values
    vector = jax.lax.optimization_barrier(_stack([leaves[i] for i in at]))
    for i, x in zip(at, jax.lax.split(vector, (1,) * len(at)), strict=True):
        leaves[i] = jax.lax.squeeze(x, (0,))
    return structure.unflatten(leaves)


def unpack(packing: Packing, vector: Any, others: list[jax.Array]) -> Any:
    """The values that were packed."""
    scalars, rest = iter(vector if vector is not None else ()), iter(others)
    return packing.structure.unflatten([next(scalars if p else rest) for p in packing.packed])


class LeafCall(NamedTuple):
    """What is a leaf's own in a call of its kernel."""

    packing: Packing
    stack: list[jax.Array]
    param: Any
    slots: list[Values | None]


class LeafKernel(Kernel):
    """Consecutive rules, forks and joins on one leaf: it is loaded, taken through all, and stored."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = [bare(step) for step in steps]
        super().__init__(tuple(map(key_of, steps)))
        self.loops: dict[Any, Any] = {}  # what has been found out about them by types, see `leaf_loops.py`
        self.traced = jax.jit(detached(self, "of_arrays"), static_argnums=(0, 1), keep_unused=True)
        # A rule may use no argument, as `set_to_zero` does; they say which devices a result is on.
        self.compiled = jax.jit(detached(self, "leaf"), static_argnums=0, keep_unused=True)

    def leaf(
        self,
        packing: Packing,
        stack: list[jax.Array],
        param: Any,
        slots: list[Values | None],
        vector: Any,
        others: list[jax.Array],
        number: Any,
    ) -> tuple[Any, list[Values | None]]:
        """The new stack, or in the last stage the result, and the new slots; None among them masks out."""
        given = zip(slots, unpack(packing, vector, others), strict=True)
        original = param
        stack, param, compute = load_update(stack, param)
        stored: list[Values | None] = []

        def unit(step: Unit, u: jax.Array) -> jax.Array:
            own, values = next(given)
            if own is None:
                stored.append(None)
                return u
            with jax.named_scope(step.where), mixing():
                rule, loaded, leaf = _seen(step, values, own, [u], param, number, compute)
                if any(x is not None and x.shape not in ((), u.shape) for x in own.values()):
                    refuse_axes(step.where, rule, u, param)

                def applied() -> tuple[jax.Array, Values]:
                    with raised(f"by apply of {step.where}"):
                        result = rule.apply(u, loaded, leaf)
                    update, kept = checked_update(step.where, u, own, result)
                    return update, dict(kept)

                update, kept = on_shards(applied, (u, param), step.where, rule)
            stored.append({k: None if v is None else store(kept[k], v) for k, v in own.items()})
            return update.astype(like(update.dtype, compute))

        def join(step: Join, original: jax.Array, results: list[jax.Array]) -> jax.Array:
            own, _ = next(given)
            stored.append(own)
            if own is None:
                return original
            with mixing():
                return on_shards(lambda: step.how(*results), results, step.where, step.how)

        stack = through(self.steps, stack, unit, join)
        if packing.finish is None:
            return stack, stored
        if packing.finish == APPLY:
            return added(original, stack[-1]), stored
        return stack[-1].astype(packing.finish), stored

    def of_arrays(
        self, packing: Packing, form: Any, numbers: list[Any], shared: list[Any], arrays: list[Any]
    ) -> tuple[Any, list[Values | None]]:
        """The same, of a list of arrays that has a form, and of the numbers one by one."""
        stack, param, slots = form.unflatten(arrays)
        return self.leaf(packing, stack, param, slots, numbers, shared, None)


def cast_values(values: Any, dtype: Any) -> Any:
    """Numbers and decays in a dtype, what else there is as it is."""

    def in_dtype(x: Any) -> Any:
        return x.astype(dtype) if is_decay(x) or is_trainable(x.dtype) else x

    return jax.tree.map(in_dtype, values, is_leaf=is_decay)


def _seen(
    unit: Unit,
    values: tuple[Values, Values],
    slots: Values,
    stack: list[jax.Array],
    param: Any,
    number: Any,
    compute: Any,
) -> tuple[Any, Slots, Leaf]:
    """What a rule sees of one leaf: itself with arrays for its fields, the slots, and `leaf`."""
    fields, scalars = cast_values(values[0], real_dtype(compute)), dict(values[1])
    key = scalars.pop("key", None)
    leaf = Leaf(param=param, **cast_values(scalars, real_dtype(compute)))
    if key is not None:
        leaf.key = key_of_shard(jax.random.fold_in(key, number), stack, param)
    loaded = Slots(**{name: load(x, compute) for name, x in slots.items()})
    return unit.transform._with(**fields), loaded, leaf


def detached(kernel: Kernel, name: str) -> Any:
    """A method as a function that does not hold its kernel, which the compiled function would keep alive."""
    reference, function = weakref.ref(kernel), getattr(type(kernel), name)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(reference(), *args)

    return call
