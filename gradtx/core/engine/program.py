"""Programs: a composition flattened into the list of steps that the engine runs.

A spec is a tree, as it was written; its program is a list of units in order, with unique names, the masks
that apply to each, and where in the state each hyperparameter lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from gradtx.core.engine.coded import SCALES, SlotStorage, Storage, storage_of
from gradtx.core.engine.kernels import PrepareKernel, bound_arguments, code_of, hashable, shared
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.stages import stages_of
from gradtx.core.engine.steps import ROWS, Join, Unit, is_declared, is_rule, through
from gradtx.core.engine.transform import adapted
from gradtx.core.numbers.paths import Path, nest
from gradtx.core.numbers.schedule import contains_code, form, numbers_of, pack_schedules
from gradtx.core.spec.argument import GivenAsArray
from gradtx.core.spec.fields import Domain


class Builder:
    """Collects the units of a composition while its spec is visited."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.scopes: dict[Path, dict[str, tuple[Any, Domain, bool]]] = {}
        self._prefix = ""
        self._masks: tuple[Mask, ...] = ()
        self._stores: tuple[Storage, ...] = ()
        self._owners: dict[int, tuple[Path, str]] = {}
        self._claimed: set[Path] = set()

    @contextmanager
    def inside(
        self, name: str = "", mask: Any = None, owners: Any = None, store: Storage | None = None
    ) -> Iterator[None]:
        """Visits a part under a name, a mask, the arguments of a recipe, or formats of slots.

        A name is a part of one key, `fast.trace`: the state has a transform's slots always at one depth, so
        that it is known where the parameters' own names begin.
        """
        before = self._prefix, self._masks, self._owners, self._stores
        if name:
            self._prefix = f"{self._prefix}{name}."
        if mask is not None:
            self._masks = (*self._masks, mask)
        if owners is not None:
            self._owners = {**owners, **self._owners}
        if store is not None:
            self._stores = (*self._stores, store)
        yield
        self._prefix, self._masks, self._owners, self._stores = before

    def claim(self, name: str) -> Path:
        """A unique path for a unit or scope: a second `scale` is `scale_1`."""
        path, count = (f"{self._prefix}{name}",), 0
        while path in self._claimed:
            count += 1
            path = (f"{self._prefix}{name}_{count}",)
        self._claimed.add(path)
        return path

    def name_of(self, path: Path) -> str:
        """The name that a claimed path has where it was claimed, by which a group is entered."""
        return path[0].removeprefix(self._prefix)

    def add_declared(self, rule: Any, name: str = "") -> None:
        """Adds a rule or a wrapper; each number belongs to the recipe argument that it is, or to it."""
        path = self.claim(name or rule.name)
        sources: dict[str, tuple[Path, str]] = {}
        for key, field in rule.fields().items():
            value = rule.__dict__[key]
            if not field.is_number or value is None:
                continue
            scope, argument = self._owners.get(id(rule.handed_on.get(key, value)), (path, key))
            known = self.scopes.setdefault(scope, {})
            domain, decay = field.domain, field.decay
            if argument in known:
                # What is a decay, or counts steps, for one of several rules is kept as that for all.
                decay = decay or known[argument][2]
                domain = max(known[argument][1], domain, key=lambda d: d.counts_steps)
            known[argument] = value, domain, decay
            sources[key] = (scope, argument)
        mask = rule.__dict__.get("mask")
        masks = self._masks if mask is None else (*self._masks, mask)
        if self._stores and rule.whole:
            rule = rule.storing(self._stores)
        self.steps.append(Unit(path, rule, masks, sources, self._stores))

    def add_join(self, name: str, branches: int, how: Callable[..., Any]) -> None:
        """Ends parallel branches."""
        self.steps.append(Join(branches, how, self.claim(name), self._masks))

    def add_tree(self, name: str, transform: Any) -> None:
        """Adds a transform that works on whole trees."""
        self.steps.append(Unit(self.claim(name), transform, self._masks, {}))


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
                for path, number in numbers_of(key, value, domain, decay):
                    self.numbers[scope + path] = number
        self.arrays = {
            path: value for path, value in self.numbers.items() if isinstance(value, Tracer | GivenAsArray)
        }
        self.given = {
            (scope, key): value
            for scope, arguments in self.scopes.items()
            for key, (value, _, _) in arguments.items()
        }
        self.coded = {source: value for source, value in self.given.items() if contains_code(value)}
        kept = pack_schedules(nest(dict.fromkeys(self.numbers, np.float32(0))))
        self.number_structure = jax.tree.structure(kept)
        self.number_shapes = [
            (jax.tree_util.keystr(path, simple=True, separator="/"), np.shape(x))
            for path, x in jax.tree_util.tree_flatten_with_path(kept)[0]
        ]
        self.rules = [unit for unit in self.units if is_rule(unit)]
        declared = [unit for unit in self.units if is_declared(unit)]
        self.unit_at = {unit.path: unit for unit in self.units}
        self.wrapped = {
            (*u.path, k): part
            for u in declared
            if not is_rule(u)
            for k, part in u.transform.wrapped().items()
        }
        self.leaf_slot_paths = [(*u.path, k) for u in declared for k in u.transform.leaf_slots]
        self.stack_paths = [(*u.path, k) for u in declared for k in u.transform.matrix_slots]
        self.row_paths = [(*u.path, ROWS) for u in declared if u.transform.matrix_slots]
        self.stored: dict[Path, SlotStorage] = {
            (*u.path, k): storage
            for u in declared
            for k in u.transform.slots
            if (storage := storage_of(u, k))
        }
        self.scale_paths: dict[Path, Path] = {
            p: (*p[:-1], p[-1] + SCALES) for p, s in self.stored.items() if s.is_scaled
        }
        self.slot_paths = [
            *self.leaf_slot_paths,
            *self.stack_paths,
            *self.scale_paths.values(),
            *self.row_paths,
            *((*u.path, k) for u in declared for k in u.transform.scalars),
            *self.wrapped,
            *(u.path for u in self.units if not is_declared(u)),
        ]
        self.slot_depths = {path[:i] for path in self.slot_paths for i in range(len(path))}
        self.needs = {unit.where: unit.transform.needs for unit in self.units}
        first = self.steps[0] if self.steps else None
        self.take_examples = [u.where for u in self.units if getattr(u.transform, "per_example", False)]
        takes = isinstance(first, Unit) and first.where in self.take_examples and not first.masks
        self.per_example = self.take_examples[0] if takes else ""
        self.last = {i: names for i, step in enumerate(self.steps) if (names := _last_units(step))}
        self.wanted = {name for unit in self.rules for name in unit.transform.needs}
        self.stages = list(stages_of(self.steps))
        self.preparation = shared(PrepareKernel(self.rules, self._uncoded()))
        self.key = tuple(_step_key(step) for step in self.steps)
        self.masks = tuple((hashable(u.masks), hashable(_views(u)), hashable(_stores(u))) for u in self.units)
        self._hash = hash(self.key)

    def _uncoded(self) -> dict[tuple[Path, str], Any]:
        """The arguments of rules that hold no user's function."""
        used = {source for unit in self.rules for source in unit.sources.values()}
        return {s: value for s, value in self.given.items() if s in used and s not in self.coded}

    @property
    def static_parts(self) -> Any:
        """What of it is code or an option."""
        return self.key, self.masks

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Program) and self.key == other.key)

    def complex_units(self, working: Callable[[Path], bool]) -> set[Path]:
        """The units whose input is complex for a complex leaf that the units at some paths work on."""
        found = set()

        def unit(step: Unit, is_complex: bool) -> bool:
            if not (is_complex and working(step.path)):
                return is_complex
            found.add(step.path)
            return not (is_rule(step) and step.transform.gives_real)

        def join(step: Join, original: bool, results: list[bool]) -> bool:
            return any(results) if working(step.path) else original

        through(self.steps, [True], unit, join)
        return found

    def changes_after(self, position: int) -> list[Unit | Join]:
        """The steps that may change what a step gave: a parallel branch does not, and its join does."""
        found: list[Unit | Join] = []

        def unit(step: Unit, value: str) -> str:
            remembers = is_rule(step) and step.transform.last
            if value == "given" and not remembers:
                found.append(step)
            return value

        def join(step: Join, original: str, results: list[str]) -> str:
            if not {original, *results} & {"given", "copied"}:
                return "other"
            found.append(step)
            return "given"

        stack = through(self.steps[:position], ["other"], lambda s, v: v, lambda s, o, r: "other")
        through(
            self.steps[position + 1 :],
            [*stack[:-1], "given"],
            unit,
            join,
            copy=lambda value: "copied" if value == "given" else value,
        )
        return found

    def called(self, numbers: Any, step: Any, record: Any = None) -> dict[tuple[Path, str], Any]:
        """The value of each argument that is a user's function, or has one inside, at a step.

        They are called here, outside of what gradtx compiles: with a concrete step where there is one.
        """
        if not self.coded:
            return {}
        return {k: v(step) for k, v in bound_arguments(self.coded, numbers, record).items()}

    def argument_values(
        self, numbers: Any, step: Any, record: Any = None, of: Iterable[tuple[Path, str]] | None = None
    ) -> dict[tuple[Path, str], Any]:
        """The value of each argument at a step, or of some: an array or a `Decay`."""
        chosen = self.given if of is None else {source: self.given[source] for source in of}
        return {k: v(step) if callable(v) else v for k, v in bound_arguments(chosen, numbers, record).items()}


def _last_units(step: Any) -> list[str]:
    if not is_declared(step):
        return []
    found = [step.where] if step.transform.last else []
    parts = {} if is_rule(step) else step.transform.wrapped()
    for key, part in parts.items():
        inside = adapted(part).last_units()
        changes = step.transform.last and not step.transform.shows_wide
        if inside and (changes or not step.transform.in_place):
            raise ValueError(changed_after(f"{step.where}.{key}.{inside[-1]}", step.where))
        found += [f"{step.where}.{key}.{name}" for name in inside]
    return found


def changed_after(name: str, later: str, leaf: str = "") -> str:
    """The error for an update that `later` changes after `name` has seen the parameters that it makes."""
    of = f" of the leaf {leaf!r}" if leaf else ""
    return (
        f"{name} needs the new parameters, but {later} changes the update{of} after it. Put "
        f"{name.rpartition('.')[-1]} around, or behind, everything that changes the update."
    )


def _views(unit: Unit) -> Any:
    """What a rule or a wrapper of matrices was told of the leaves."""
    return unit.transform.views if is_declared(unit) and unit.transform.is_of_matrices else None


def _stores(unit: Unit) -> Any:
    """In which formats its slots are kept, as it was said."""
    return tuple(storage.static_parts for storage in unit.stores)


def _step_key(step: Any) -> Any:
    if not isinstance(step, Unit):
        return step
    if not is_declared(step):
        return (step.path, hashable(step.transform))
    return (step.path, *code_of(step.transform, form), tuple(step.sources.items()), hashable(_stores(step)))
