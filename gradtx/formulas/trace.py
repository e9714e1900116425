"""What a transform does to a leaf, traced without arrays and read as expressions."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.combine import chain
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.coded import as_wide
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.layout import active_leaves
from gradtx.core.engine.on_shards import axis_name_of
from gradtx.core.engine.program import Program
from gradtx.core.engine.update import GRAD_FN, OBJ_FN, VALUE_FN
from gradtx.core.loops.choice import by_xla
from gradtx.core.numerics import abs_sq, total
from gradtx.core.shards import names_of
from gradtx.formulas.expression import Expression, digest, intern, rewrite, symbol, symbols, within
from gradtx.formulas.interpret import interpret
from gradtx.formulas.naming import OTHER, Cell, NamedState
from gradtx.formulas.runs import STAND_IN, Value, one

UNNAMED = "#"
"""What the names of a leaf begin with that a formula has no name for."""


@dataclasses.dataclass(frozen=True)
class Traced:
    """The update of one leaf, and all that it depends on.

    Attributes:
        update: the update.
        cells: what the state remembers, the hyperparameters among it.
        definitions: the value of each schedule.
    """

    update: Expression
    cells: list[Cell]
    definitions: dict[str, Expression]

    @property
    def others(self) -> list[str]:
        """What the names of other leaves begin with."""
        names = symbols(self.update, *(cell.new for cell in self.cells if cell.kind != "other"))
        prefixed = (n.partition(".")[0] + "." for n in names if n.startswith((UNNAMED, OTHER)))
        return sorted(set(prefixed))


def composed(tx: Any) -> Composed:
    """A transform of any library as one that the engine runs.

    A copy of it, since a transform remembers whether it has made a state, and tracing is not that.
    """
    return copy.copy(tx) if isinstance(tx, Composed) else chain(tx)  # type: ignore[return-value]


def programs(tx: Composed) -> Iterator[Program]:
    """The program of a transform and those of what its wrappers run."""
    yield tx.program
    for part in tx.program.wrapped.values():
        if isinstance(part, Composed):
            yield from programs(part)


def axes_of_shards(tx: Composed) -> list[tuple[str, int]]:
    """The axes that some `axis_name` in a transform names, with one shard along each, to trace it with."""
    named = (names_of(axis_name_of(unit.transform)) for p in programs(tx) for unit in p.units)
    return [(name, 1) for name in sorted({name for names in named for name in names})]


def signatures(tx: Composed, params: Any) -> list[tuple[bool, ...] | None]:
    """For each leaf, which transforms work on it; None for a leaf that has no gradient."""
    leaves, structure = lv.flatten(params)
    columns: list[list[bool]] = []

    def visit(program: Program, tree: Any) -> None:
        active = active_leaves(program, tree, lv.flatten(tree)[0])
        columns.extend(active[unit.path] for unit in [*program.units, *program.joins])
        for path, part in program.wrapped.items():
            unit = program.unit_at[path[:-1]]
            if isinstance(part, Composed) and unit.transform.sees_leaves:
                on = zip(lv.flatten(tree)[0], active[unit.path], strict=True)
                kept = structure.unflatten([x if a else None for x, a in on])
                visit(part.program, unit.transform.view(kept))

    visit(tx.program, params)
    rows = zip(*columns, strict=True) if columns else [()] * len(leaves)
    return [row if lv.is_trainable_leaf(x) else None for row, x in zip(rows, leaves, strict=True)]


def companion(found: list[tuple[bool, ...] | None], i: int) -> int | None:
    """The leaf that is most like leaf `i` in what works on it."""

    def likeness(j: int) -> int:
        return sum(a == b for a, b in zip(found[i] or (), found[j] or (), strict=True))

    return max((j for j, row in enumerate(found) if row is not None and j != i), key=likeness, default=None)


def abstract_update(tx: Composed, tree: Any) -> tuple[Callable[..., Any], Any, dict[str, Any]]:
    """An update to be traced: `update(grads, state, params, extra)`, with shapes for `grads` and `extra`."""
    asked = {n for p in programs(tx) for needs in p.needs.values() for n in needs}
    functions = {name: f for name, f in _FUNCTIONS.items() if name in asked}
    wanted = asked - {"params", *_FUNCTIONS}
    scalars = {name: jax.ShapeDtypeStruct((), np.float32) for name in wanted}
    # Of a transform that takes the gradients of examples, one of them.
    examples = (1,) if tx.program.per_example else ()
    grads = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*examples, *x.shape), x.dtype), tree)

    def update(g: Any, state: Any, params: Any, extra: Any) -> Any:
        return tx.update(g, state, params, **extra, **functions)

    return update, grads, scalars


class Tracing:
    """One traced update of a tree in which all leaves but the chosen ones are replaced by None.

    Everything is traced once, whatever the number of leaves; `view` gives it from where one of them stands.
    Making it runs the transform's own code, and `view` reads what was traced. In how many bits slots and
    parameters are kept changes no formula, and is left out, unless `in_formats`.
    """

    def __init__(
        self, tx: Composed, params: Any, chosen: Collection[int], *, in_formats: bool = False
    ) -> None:
        leaves, structure = lv.flatten(params)
        kept = [lv.shape_of(x) if i in chosen else None for i, x in enumerate(leaves)]
        tree = structure.unflatten(kept)
        self.sizes = {i: math.prod(x.shape) for i, x in enumerate(kept) if x is not None}
        update, grads, scalars = abstract_update(tx, tree)
        wanted, axes = sorted(scalars), axes_of_shards(tx)
        with contextlib.nullcontext() if in_formats else as_wide(), by_xla():
            init, state = jax.make_jaxpr(tx.init, axis_env=axes, return_shape=True)(tree)
            self._traced = init, jax.make_jaxpr(update, axis_env=axes)(grads, state, tree, scalars)
        self._given = tx, state, tree, wanted

    @functools.cached_property
    def _read(self) -> tuple[dict[int, Value], list[Cell], dict[str, Expression]]:
        """The update of each leaf, what is remembered, and the schedules."""
        (init, update), (tx, state, tree, wanted) = self._traced, self._given
        prefixes = [_prefix(i) for i in self.sizes]
        named = NamedState(tx, state, tree, prefixes, wanted)
        gs, thetas = ([symbol(prefix + name) for prefix in prefixes] for name in ("g", "theta"))
        results = interpret(update, [*gs, *named.values, *thetas, *map(symbol, wanted)])
        updates = dict(zip(self.sizes, results[: len(gs)], strict=True))
        cells = list(named.cells(interpret(init, thetas), results[len(gs) :]))
        return updates, cells, named.definitions()

    def view(self, leaf: int, other: int | None = None) -> Traced:
        """The update of one leaf; the names of another one have the prefix `other.`."""
        updates, remembered, definitions = self._read
        update = one(updates[leaf], 0, self.sizes[leaf])
        prefixes = {_prefix(leaf): ""} | ({} if other is None else {_prefix(other): OTHER})

        def renamed(name: str) -> str:
            own = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
            return prefixes.get(own, own) + name.removeprefix(own)

        roots = [update, *(x for cell in remembered for x in (cell.start, cell.new))]
        named = {
            x: symbol(name)
            for x in within(roots)
            if x.op == "symbol" and (name := renamed(x.args[0])) != x.args[0]
        }
        update, *values = rewrite(roots, named, intern)
        cells: list[Cell] = []
        for cell, start, new in zip(remembered, values[::2], values[1::2], strict=True):
            others = cell.kind == "slot" and not cell.name.startswith(_prefix(leaf))
            kind, name = "other" if others else cell.kind, renamed(cell.name)
            cells.append(dataclasses.replace(cell, name=name, kind=kind, start=start, new=new))
        return _with_noise_named(Traced(update, cells, definitions))


def _any_loss(params: Any, **_: Any) -> jax.Array:
    """In the place of the loss; what depends on its values has no formula."""
    return total([abs_sq(x).sum() for x in jax.tree.leaves(params)])


def _any_gradient(params: Any, *_: Any, **__: Any) -> Any:
    """In the place of its gradient."""
    return jax.tree.map(lambda x: 2 * jnp.conj(x), params)


_FUNCTIONS = {VALUE_FN: _any_loss, OBJ_FN: _any_loss, GRAD_FN: _any_gradient}
"""What stands for the functions among the keyword arguments."""


def _prefix(leaf: int) -> str:
    """The prefix of all names of a leaf in a tracing, which no other name has."""
    return f"{UNNAMED}{leaf}."


def trace(tx: Composed, params: Any, leaf: int, other: int | None = None) -> Traced:
    """The update of one leaf in a tree of it and, so that a sum over the tree can be told, of another one."""
    return Tracing(tx, params, {leaf} if other is None else {leaf, other}).view(leaf, other)


def _with_noise_named(traced: Traced) -> Traced:
    """The random noise of a leaf is named `noise`, with a mark for its key and for where it is drawn."""
    bodies = [traced.update, *(cell.new for cell in traced.cells)]
    drawn = [x for root in bodies for x in within([root]) if x.op == "noise"]
    # Two optimizers that draw from the same key have the same noise, whatever each calls its clock.
    held = {symbol(c.name, c.kind == "step"): STEP if c.kind == "step" else c.start for c in traced.cells}
    named = {}
    for i, x in enumerate(dict.fromkeys(drawn)):
        which = digest(intern("key", *rewrite(x.parts, held, intern)))
        named[x] = symbol(f"noise{f'_{i}' if i else ''}{STAND_IN}{which}")
    update, *news = rewrite(bodies, named, intern) if named else bodies
    cells = [dataclasses.replace(c, new=new) for c, new in zip(traced.cells, news, strict=True)]
    return dataclasses.replace(traced, update=update, cells=cells)


STEP = symbol("t", counts=True)
