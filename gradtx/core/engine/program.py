"""Programs: a composition flattened into the list of steps that the engine runs.

A spec is a tree, as it was written; its program is a list of units in order, with unique names, the masks
that apply to each, and where in the state each hyperparameter lives. Parallel branches become stack
operations (`Fork`, `Swap`, `Join`), so that a program stays one list that can be cut anywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from gradtx.core.engine.leaves import Mask, Selection
from gradtx.core.engine.transform import Transform, needed
from gradtx.core.numbers.domains import DOMAINS
from gradtx.core.numbers.paths import Path, lookup, nest
from gradtx.core.numbers.schedule import (
    CALLABLE,
    bind_numbers,
    form,
    numbers_of,
    pack_schedules,
    split_schedules,
)
from gradtx.core.spec.fields import DECAY, Declared, Domain, GivenAsArray
from gradtx.core.spec.spec import is_array


@dataclasses.dataclass(frozen=True)
class Unit:
    """One step of a program that transforms updates: a rule, or a transform of whole trees."""

    path: Path
    transform: Any
    masks: tuple[Mask, ...]
    sources: dict[str, tuple[Path, str]]
    """For each hyperparameter of a rule, the scope and the argument that the state keeps it under."""

    @property
    def where(self) -> str:
        """The name for errors."""
        return ".".join(self.path)


@dataclasses.dataclass(frozen=True)
class Fork:
    """Starts parallel branches: keeps the input beside the value the first branch works on."""

    def __call__(self, stack: list[Any]) -> list[Any]:
        return [*stack, stack[-1]]


@dataclasses.dataclass(frozen=True)
class Swap:
    """Ends a branch and starts the next one on the input."""

    def __call__(self, stack: list[Any]) -> list[Any]:
        *rest, original, result = stack
        return [*rest, result, original, original]


@dataclasses.dataclass(frozen=True)
class Join:
    """Ends the last branch: joins the results of all; where masked out, the input passes."""

    branches: int
    how: Callable[..., Any]
    path: Path
    masks: tuple[Mask, ...] = dataclasses.field(compare=False)

    def __call__(self, stack: list[Any], inside: bool = True) -> list[Any]:
        *below, original, last = stack
        cut = len(below) - self.branches + 1
        return [*below[:cut], self.how(*below[cut:], last) if inside else original]

    @property
    def where(self) -> str:
        """The name for errors."""
        return ".".join(self.path)


class Builder:
    """Collects the units of a composition while its spec is visited."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.scopes: dict[Path, dict[str, tuple[Any, Domain, bool]]] = {}
        self._prefix: Path = ()
        self._masks: tuple[Mask, ...] = ()
        self._owners: dict[int, tuple[Path, str]] = {}
        self._claimed: set[Path] = set()

    @contextmanager
    def inside(self, name: str = "", mask: Any = None, owners: Any = None) -> Iterator[None]:
        """Visits a part under a name, a mask, or the arguments of a recipe."""
        before = self._prefix, self._masks, self._owners
        if name:
            self._prefix = (*self._prefix, name)
        if mask is not None:
            self._masks = (*self._masks, mask)
        if owners is not None:
            self._owners = {**owners, **self._owners}
        yield
        self._prefix, self._masks, self._owners = before

    def claim(self, name: str) -> Path:
        """A unique path for a unit or scope: a second `scale` is `scale_1`."""
        path, count = (*self._prefix, name), 0
        while path in self._claimed:
            count += 1
            path = (*self._prefix, f"{name}_{count}")
        self._claimed.add(path)
        return path

    def add_declared(self, rule: Any, name: str = "") -> None:
        """Adds a rule or a wrapper; each number belongs to the recipe argument that it is, or to it."""
        path = self.claim(name or rule.name)
        sources: dict[str, tuple[Path, str]] = {}
        for key, field in rule.fields().items():
            value = rule.__dict__[key]
            if not field.is_number or value is None:
                continue
            scope, argument = self._owners.get(id(value), (path, key))
            domain, decay = field.domain, field.decay
            known = self.scopes.setdefault(scope, {})
            if argument in known:
                decay = decay or known[argument][2]
                domain = DECAY if decay else known[argument][1]
            known[argument] = (value, domain, decay)
            sources[key] = (scope, argument)
        mask = rule.__dict__.get("mask")
        masks = self._masks if mask is None else (*self._masks, mask)
        self.steps.append(Unit(path, rule, masks, sources))

    def add_join(self, name: str, branches: int, how: Callable[..., Any]) -> None:
        """Ends parallel branches."""
        self.steps.append(Join(branches, how, self.claim(name), self._masks))

    def add_tree(self, name: str, transform: Any) -> None:
        """Adds a transform that works on whole trees."""
        self.steps.append(Unit(self.claim(name), transform, self._masks, {}))


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
        return (x.shape, str(x.dtype), id(x) if isinstance(x, Tracer) else x.tobytes())
    try:
        hash(x)
    except TypeError:
        return id(x)
    return (type(x), x)


class Program:
    """A composition ready to run. It compares by structure, so that one trace serves all settings."""

    def __init__(self, visit: Callable[[Builder], None]) -> None:
        builder = Builder()
        visit(builder)
        self.steps = builder.steps
        self.scopes = builder.scopes
        self.units = [step for step in self.steps if isinstance(step, Unit)]
        self.joins = [step for step in self.steps if isinstance(step, Join)]
        self.numbers: dict[Path, Any] = {}
        for scope, arguments in self.scopes.items():
            for key, (value, domain, decay) in arguments.items():
                for path, number, number_domain in numbers_of(key, value, domain, decay):
                    self.numbers[scope + path] = number
                    DOMAINS[scope + path] = number_domain
        self.given = {
            path: value for path, value in self.numbers.items() if isinstance(value, Tracer | GivenAsArray)
        }
        kept = pack_schedules(nest(dict.fromkeys(self.numbers, np.float32(0))))
        self.number_structure = jax.tree.structure(kept)
        self.number_shapes = [
            (jax.tree_util.keystr(path, simple=True, separator="/"), np.shape(x))
            for path, x in jax.tree_util.tree_flatten_with_path(kept)[0]
        ]
        self.has_callables = any(path[-1] == CALLABLE for path in self.numbers)
        self.rules = [unit for unit in self.units if is_rule(unit)]
        declared = [unit for unit in self.units if is_declared(unit)]
        self.unit_at = {unit.path: unit for unit in self.units}
        self.wrapped = {
            (*u.path, k): part
            for u in declared
            if not is_rule(u)
            for k, part in u.transform.wrapped().items()
        }
        self.leaf_slot_paths = [(*u.path, k) for u in declared for k in u.transform.slots]
        self.slot_paths = [
            *self.leaf_slot_paths,
            *((*u.path, k) for u in declared for k in u.transform.scalars),
            *self.wrapped,
            *(u.path for u in self.units if not is_declared(u)),
        ]
        self.slot_depths = {path[:i] for path in self.slot_paths for i in range(len(path))}
        self.needs = {unit.where: _needs(unit) for unit in self.units}
        self.last = {i: names for i, step in enumerate(self.steps) if (names := _last_units(step))}
        self.wanted = {name for unit in self.rules for name in unit.transform.needs}
        self.stages = list(_stages(self.steps))
        self.key = tuple(_step_key(step) for step in self.steps)
        self.masks = tuple(hashable(unit.masks) for unit in self.units)
        self._hash = hash(self.key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Program) and self.key == other.key)

    def complex_units(self, working: Callable[[Path], bool]) -> set[Path]:
        """The units whose input is complex for a complex leaf that the units at some paths work on."""
        stack, found = [True], set()
        for step in self.steps:
            if isinstance(step, Join):
                joined = dataclasses.replace(step, how=lambda *branches: any(branches))
                stack = joined(stack, working(step.path))
            elif not isinstance(step, Unit):
                stack = step(stack)
            elif stack[-1] and working(step.path):
                found.add(step.path)
                stack[-1] = not (is_rule(step) and step.transform.gives_real)
        return found

    def changes_after(self, position: int) -> Iterator[Unit | Join]:
        """The steps that may change what a step gave: a parallel branch does not, and its join does."""
        depth = 0
        for step in self.steps[position + 1 :]:
            if isinstance(step, Fork) or (isinstance(step, Swap) and not depth):
                depth += 1
            elif isinstance(step, Join):
                depth = max(depth - 1, 0)
            remembers = isinstance(step, Unit) and is_rule(step) and step.transform.last
            if isinstance(step, Unit | Join) and not depth and not remembers:
                yield step

    def arguments(self, numbers: Any, record: Any = None) -> dict[tuple[Path, str], Any]:
        """Each argument over the state's arrays: an array, a `Decay`, or a function of the step."""
        result, numbers = {}, split_schedules(numbers)
        for scope, arguments in self.scopes.items():
            node = lookup(numbers, scope)
            for key, (value, _, _) in arguments.items():

                def at(path: Path, v: Any, scope: Path = scope) -> None:
                    if record is not None:
                        record(scope + path, v)

                result[scope, key] = bind_numbers(value, node, key, at)
        return result


def is_declared(step: Any) -> bool:
    """Whether a step of a program declares its fields and slots: a rule or a wrapper."""
    return isinstance(step, Unit) and isinstance(step.transform, Declared)


def is_rule(step: Any) -> bool:
    """Whether a step of a program is a rule, which works leaf by leaf."""
    return is_declared(step) and not step.transform.whole


def _needs(unit: Unit) -> tuple[str, ...]:
    if is_declared(unit):
        return unit.transform.needs
    return needed(getattr(unit.transform, "update_fn", unit.transform.update))


def _last_units(step: Any) -> list[str]:
    if not is_declared(step):
        return []
    found = [step.where] if step.transform.last else []
    parts = {} if is_rule(step) else step.transform.wrapped()
    for key, part in parts.items():
        inside = part.last_units() if isinstance(part, Transform) else []
        if inside and (step.transform.last or not step.transform.in_place):
            raise ValueError(changed_after(f"{step.where}.{key}.{inside[-1]}", step.where))
        found += [f"{step.where}.{key}.{name}" for name in inside]
    return found


def changed_after(name: str, later: str, leaf: str = "") -> str:
    """The error for an update that `later` changes after `name` has remembered the parameters it makes."""
    of = f" of the leaf {leaf!r}" if leaf else ""
    return (
        f"{name} remembers the new parameters, but {later} changes the update{of} after it. Put "
        f"{name.rpartition('.')[-1]} around everything that changes the update."
    )


def _step_key(step: Any) -> Any:
    if not isinstance(step, Unit):
        return step
    if not is_declared(step):
        return (step.path, hashable(step.transform))
    rule = step.transform
    code = tuple(
        form(rule.__dict__[k]) if f.is_number else hashable(rule.__dict__[k])
        for k, f in rule.fields().items()
        if k != "mask"
    )
    return (type(rule), step.path, code, tuple(step.sources.items()))


def _stages(steps: list[Any]) -> Iterator[tuple[str, int, int]]:
    """Cuts a program where the whole tree is needed: `(kind, start, stop)`, ending with a leaf stage."""
    start = 0
    for i, step in enumerate(steps):
        tree = isinstance(step, Unit) and not is_rule(step)
        measure = is_rule(step) and step.transform.measures
        if not (tree or measure):
            continue
        if i > start:
            yield "leaf", start, i
        yield "tree" if tree else "measure", i, i + 1
        start = i + 1 if tree else i
    yield "leaf", start, len(steps)
