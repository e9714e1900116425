"""What a transform does to one leaf, traced without arrays and read as expressions.

The tree keeps its structure and loses all leaves but the one in question and, so that a sum over the tree can
be told from one over the leaf, a second one. Its symbols have the prefix `other.`.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import leaves as lv
from gradtx.core.combine import chain
from gradtx.core.engine import Composed
from gradtx.core.layout import active_leaves
from gradtx.core.program import Program
from gradtx.inspect.expression import Expression, intern, rewrite, symbol, within
from gradtx.inspect.interpret import NOISE, interpret
from gradtx.inspect.naming import OTHER, Cell, Layout
from gradtx.inspect.runs import one


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


def composed(tx: Any) -> Composed:
    """A transform of any library as one that the engine runs.

    A copy of it, since a transform remembers whether it has made a state, and tracing is not that.
    """
    return copy.copy(tx) if isinstance(tx, Composed) else chain(tx)  # type: ignore[return-value]


def programs(tx: Composed) -> Iterator[Program]:
    """The program of a transform and those of what its wrappers run."""
    yield tx.program
    for part in tx.program.parts.values():
        if isinstance(part, Composed):
            yield from programs(part)


def signatures(tx: Composed, params: Any) -> list[tuple[bool, ...] | None]:
    """For each leaf, which transforms work on it; None for a leaf that has no gradient."""
    leaves, structure = lv.flatten(params)
    columns: list[list[bool]] = []

    def visit(program: Program, tree: Any) -> None:
        active = active_leaves(program, tree, lv.flatten(tree)[0])
        columns.extend(active[unit.path] for unit in [*program.units, *program.joins])
        for path, part in program.parts.items():
            unit = program.unit_at[path[:-1]]
            if isinstance(part, Composed) and unit.transform.sees_leaves:
                on = active[unit.path]
                visit(
                    part.program,
                    structure.unflatten([x if a else None for x, a in zip(leaves, on, strict=True)]),
                )

    visit(tx.program, params)
    rows = zip(*columns, strict=True) if columns else [()] * len(leaves)
    return [row if lv.is_trainable_leaf(x) else None for row, x in zip(rows, leaves, strict=True)]


def companion(found: list[tuple[bool, ...] | None], i: int) -> int | None:
    """The leaf that is most like leaf `i` in what works on it."""

    def likeness(j: int) -> int:
        return sum(a == b for a, b in zip(found[i] or (), found[j] or (), strict=True))

    return max((j for j, row in enumerate(found) if row is not None and j != i), key=likeness, default=None)


def trace(tx: Composed, params: Any, leaf: int, other: int | None = None) -> Traced:
    """Traces `init` and `update` on one leaf of a tree, or two."""
    leaves, structure = lv.flatten(params)
    kept = [
        jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) if i in (leaf, other) else None
        for i, x in enumerate(leaves)
    ]
    tree = structure.unflatten(kept)
    (own,) = [n for n, i in enumerate(i for i, x in enumerate(kept) if x is not None) if i == leaf]
    prefixes = [""] if other is None else ["", OTHER] if own == 0 else [OTHER, ""]
    first, state = jax.make_jaxpr(tx.init, return_shape=True)(tree)
    layout = Layout(tx, state, tree, prefixes)
    wanted = sorted({name for p in programs(tx) for needs in p.needs.values() for name in needs} - {"params"})
    scalars = {name: jax.ShapeDtypeStruct((), np.float32) for name in wanted}
    traced = jax.make_jaxpr(lambda g, s, p, extra: tx.update(g, s, p, **extra))(tree, state, tree, scalars)
    gs, thetas = ([symbol(prefix + name) for prefix in prefixes] for name in ("g", "theta"))
    results = interpret(traced, [*gs, *layout.values, *thetas, *map(symbol, wanted)])
    starts = interpret(first, thetas)
    update = one(results[own], 0, math.prod(jnp.shape(leaves[leaf])))
    cells = list(layout.cells(starts, results[len(gs) :]))
    return _with_noise_named(Traced(update, cells, layout.definitions()))


def _with_noise_named(traced: Traced) -> Traced:
    """The noise of the leaf is `noise`, whatever other leaves had before it."""
    bodies = [traced.update, *(cell.new for cell in traced.cells)]
    drawn = {x: x.args[0] for x in within(bodies) if x.op == "symbol" and x.args[0].startswith(NOISE)}
    own = [x for x in drawn if x in within([traced.update])]
    named = {x: symbol(f"{OTHER}{name}") for x, name in drawn.items() if x not in own}
    named |= {x: symbol(f"noise_{i}" if i else "noise") for i, x in enumerate(own)}
    update, *news = rewrite(bodies, named, intern) if named else bodies
    cells = [dataclasses.replace(c, new=new) for c, new in zip(traced.cells, news, strict=True)]
    return dataclasses.replace(traced, update=update, cells=cells)
