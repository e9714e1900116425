"""The arrays of a state as named expressions."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import jax

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.layout import active_leaves, matrices_at_init
from gradtx.core.engine.program import Program
from gradtx.core.engine.steps import Unit
from gradtx.core.loops.choice import by_xla
from gradtx.core.numbers.hyperparams import by_name, entries_of
from gradtx.core.numbers.paths import Path, lookup
from gradtx.core.numbers.schedule import order_in
from gradtx.core.numbers.steps import REST
from gradtx.formulas.expression import ONE, ZERO, Expression, symbol
from gradtx.formulas.interpret import interpret
from gradtx.formulas.runs import Value, one, runs
from gradtx.formulas.simplify import make

OTHER = "other."
ITS_OWN = frozenset({"g", "theta", "t", "update", "noise"})
"""Names that a formula gives itself."""

Kind = Literal["slot", "other", "whole", "step", "number", "decay", "rest"]
Element = tuple[Path, Kind, str]
"""What an element of an array is: its path, its kind and the prefix of its leaf."""

FEW = 8
"""The elements of a vector that are told apart: the digits of a key, the counts of a wrapper."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One thing that the state remembers.

    Attributes:
        name: its name in the formula.
        kind: slot (of the leaf), other (a slot of another leaf), whole, step, number or decay.
        layout: the dtype and shape that it is stored in.
        start: its value after `init`.
        new: its value after the update.
        written: the number that the transform was given, before a state rounded it; None for what is none.
    """

    name: str
    kind: Kind
    layout: str
    start: Expression
    new: Expression
    written: float | None = None


class NamedState:
    """The arrays of a state, in order, as named expressions.

    Nothing in it has a name that the formula gives itself, nor that of one of `arguments`, the keyword
    arguments that `update` is called with.
    """

    def __init__(
        self, tx: Composed, state: Any, tree: Any, prefixes: list[str], arguments: Iterable[str]
    ) -> None:
        self.tx, self.state, self.prefixes = tx, state, prefixes
        flat = jax.tree_util.tree_flatten_with_path(tree)[0]
        self.keys = [keys for keys, _ in flat]
        self.sizes = [math.prod(x.shape) for _, x in flat]
        self.taken = ITS_OWN.union(arguments)
        self.entries = by_name(entries_of(state), bare=True)
        self.numbers: dict[Any, tuple[str, Kind]] = {
            (id(entry.state), entry.path): (
                self._apart(name, entry),
                "decay" if entry.kind == "decay" else "number",
            )
            for name, entry in self.entries.items()
        }
        self.given: dict[Any, list[Element]] = {}
        self.lengths: dict[Any, list[int]] = {}
        """Of an array whose elements are several things, how many each has."""
        self._walk(tx.program, state, tree, (), True)
        self.names = self._shortest()
        arrays = jax.tree_util.tree_flatten_with_path(state)[0]
        self.order = [(jax.tree_util.keystr(keys), x) for keys, x in arrays]
        self.values = [self._value(key) for key, _ in self.order]

    def _apart(self, name: str, entry: Any) -> str:
        """The name of a number, with the name of its transform in front if it is taken."""
        scoped = ".".join(entry.parts[max(entry.own - 1, 0) :])
        return name if name not in self.taken else scoped if scoped not in self.taken else f"{name}_"

    def _walk(
        self,
        program: Program,
        state: Any,
        tree: Any,
        outer: tuple[Any, ...],
        leafwise: bool,
        parts: Path = (),
    ) -> None:
        """Notes for each array what its elements are: their path, kind and the prefix of their leaf."""

        def note(keys: tuple[Any, ...], found: list[Element], lengths: list[int] | None = None) -> None:
            key = jax.tree_util.keystr((*outer, *keys))
            self.given[key], self.lengths[key] = found, [1] * len(found) if lengths is None else lengths

        def dict_keys(*names: str) -> tuple[Any, ...]:
            return tuple(map(jax.tree_util.DictKey, names))

        note(dict_keys("step"), [((*parts, "t"), "step", "")])
        for keys, x in jax.tree_util.tree_flatten_with_path(state["numbers"])[0]:
            path = tuple(k.key for k in keys)
            numbers = [(*path, key) for key in order_in(path[-1])] if x.ndim else [path]
            named = [self.numbers.get((id(state), number), ("", "rest")) for number in numbers]
            note((*dict_keys("numbers"), *keys), [((name,), kind, "") for name, kind in named])
        for path in program.slot_paths:
            slot, where = lookup(state["slots"], path), dict_keys("slots", *path)
            part = program.wrapped.get(path)
            if isinstance(part, Composed):
                wrapper = program.unit_at[path[:-1]].transform
                seen = leafwise and wrapper.sees_leaves
                of = wrapper.view(tree) if seen else tree
                self._walk(part.program, slot, of, (*outer, *where), seen, (*parts, *path))
                continue
            unit = program.unit_at.get(path[:-1])
            if path in program.stack_paths and leafwise:
                assert unit is not None
                for name, elements, lengths in self._of_stacks(program, unit, slot, tree, (*parts, *path)):
                    note((*where, *dict_keys(name)), elements, lengths)
                continue
            whole = unit is not None and path[-1] in unit.transform.scalars
            for keys, x in jax.tree_util.tree_flatten_with_path(slot)[0]:
                elements = self._elements((*parts, *path), keys, x, leafwise, whole)
                are_leaves = len(elements) > 1 and elements[0][1] == "slot"
                note((*where, *keys), elements, self.sizes if are_leaves else None)

    def _of_stacks(
        self, program: Program, unit: Unit, slot: Any, tree: Any, path: Path
    ) -> Iterator[tuple[str, list[Element], list[int]]]:
        """What the elements of each stack of a slot are; its name tells those of one leaf apart."""
        leaves, _ = lv.flatten(tree)
        prefixes = dict(zip((i for i, x in enumerate(leaves) if x is not None), self.prefixes, strict=True))
        active = active_leaves(program, tree, leaves)
        _, groups = matrices_at_init(program, unit, unit.transform, tree, active)
        at = {group.name: [place.leaf for place in group.places] for group in groups if group.name in slot}
        for group in groups:
            if group.name not in slot:
                continue
            row = slot[group.name].size // max(group.count, 1)
            named = [
                (path if sum(p.leaf in own for own in at.values()) == 1 else (*path, group.name), p)
                for p in group.places
            ]
            elements: list[Element] = [(own, "slot", prefixes[p.leaf]) for own, p in named]
            yield group.name, elements, [row * p.count for p in group.places]

    def _elements(self, path: Path, keys: Any, x: Any, leafwise: bool, whole: bool) -> list[Element]:
        """What the elements of an array are; one of the whole tree may have the name of a leaf."""
        if not leafwise and not whole and x.shape == (sum(self.sizes),):
            return [(path, "slot", prefix) for prefix in self.prefixes]
        for own, prefix in zip(self.keys, self.prefixes, strict=True):
            if not whole and keys[len(keys) - len(own) :] == own and (own or x.ndim or not keys):
                names = tuple(_key_name(k) for k in keys[: len(keys) - len(own)])
                return [((*path, *names), "slot", prefix)]
        names = (*path, *(_key_name(k) for k in keys))
        if x.ndim == 1 and x.size <= FEW:
            return [((*names[:-1], f"{names[-1]}[{i}]"), "whole", "") for i in range(x.size)]
        return [(names, "whole", "")]

    def _shortest(self) -> dict[Path, str]:
        """For each path the shortest end that no other path has and that is no hyperparameter's name."""
        paths = {
            path
            for found in self.given.values()
            for path, kind, _ in found
            if kind in ("slot", "whole", "step")
        }
        taken = {name for name, _ in self.numbers.values()} | self.taken
        names = {}
        for path in paths:
            start = len(path) - 1
            while start and (
                ".".join(path[start:]) in taken
                or sum(p[-(len(path) - start) :] == path[start:] for p in paths) > 1
            ):
                start -= 1
            names[path] = ".".join(path[start:])
        return names

    def _name(self, path: Path, prefix: str) -> str:
        return prefix + (self.names[path] if path in self.names else path[0])

    def _value(self, key: str) -> Value:
        found = self.given[key]
        parts = [_entered(self._name(path, prefix), kind) for path, kind, prefix in found]
        if len(parts) == 1:
            return parts[0]
        return runs(list(zip(parts, self.lengths[key], strict=True)))

    def cells(self, starts: list[Value], results: list[Value]) -> Iterator[Cell]:
        """What the state remembers, at first and after an update."""
        for (key, x), start, result in zip(self.order, starts, results, strict=True):
            elements, at = self.given[key], 0
            for (path, kind, prefix), size in zip(elements, self.lengths[key], strict=True):
                end = at + size if len(elements) > 1 else x.size
                before, after = (one(v, at, end) for v in (start, result))
                at = end
                if kind == "rest":
                    continue
                name = self._name(path, prefix)
                values = _left(before, kind), _left(after, kind)
                layout = f"{x.dtype.name}{list(x.shape)}"
                yield Cell(name, kind, layout, *values, self.written.get(name))

    @functools.cached_property
    def written(self) -> dict[str, float]:
        """The number that each hyperparameter was given as, by name."""
        found: dict[str, float] = {}
        for program, state, _ in _states(self.tx, self.state, self.state):
            for path, value in program.numbers.items():
                name, kind = self.numbers.get((id(state), path), ("", ""))
                if name and isinstance(value, int | float):
                    rest = program.numbers.get((*path[:-1], path[-1] + REST), 0)
                    found[name] = float(1 - value if kind == "decay" else value + rest)
        return found

    def definitions(self) -> dict[str, Expression]:
        """The value of each schedule, and of each function of the step."""

        def named(kind: str) -> dict[str, str]:
            """The names here, by those of `hyperparams`."""
            of_kind = {name: e for name, e in self.entries.items() if e.kind == kind}
            return {name: self.numbers[id(e.state), e.path][0] for name, e in of_kind.items()}

        schedules, functions = named("schedule"), named("code")

        def values(state: Any) -> dict[str, Any]:
            read = by_name(entries_of(state), bare=True)
            found = {ours: read[name].read() for name, ours in schedules.items()}
            for program, old, traced in _states(self.tx, self.state, state):
                if not program.coded:
                    continue

                def record(path: Path, value: Any, old: Any = old) -> None:
                    found[self.numbers[id(old), path][0]] = value

                program.argument_values(traced["numbers"], traced["step"], record)
            return found

        if not schedules and not functions:
            return {}
        with by_xla():
            traced, shapes = jax.make_jaxpr(values, return_shape=True)(self.state)
        results = interpret(traced, self.values)
        return dict(zip(shapes, results, strict=True))  # type: ignore[arg-type]


def _states(tx: Composed, state: Any, traced: Any) -> Iterator[tuple[Program, Any, Any]]:
    yield tx.program, state, traced
    for path, part in tx.program.wrapped.items():
        if isinstance(part, Composed):
            yield from _states(part, lookup(state["slots"], path), lookup(traced["slots"], path))


def _key_name(key: Any) -> str:
    return jax.tree_util.keystr((key,), simple=True)


def _entered(name: str, kind: str) -> Expression:
    """What the state holds, written with the name: a decay `b` is held as `1 - b`, a step `t` as `t - 1`."""
    if kind == "rest":
        return ZERO
    x = symbol(name, counts=kind == "step")
    return make("sub", x, ONE) if kind == "step" else make("sub", ONE, x) if kind == "decay" else x


def _left(x: Expression, kind: str) -> Expression:
    """The reverse: the named quantity, from an expression for what the state holds."""
    if kind == "step" and x.op == "where":
        condition, a, b = x.args
        return make("where", condition, _left(a, kind), _left(b, kind))
    return make("add", x, ONE) if kind == "step" else make("sub", ONE, x) if kind == "decay" else x
