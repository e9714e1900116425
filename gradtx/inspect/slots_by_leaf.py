"""What a state remembers of each leaf, where it keeps that of many leaves as one array, or in a format."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.coded import Coded, coded_slot, decoded
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.layout import active_leaves, check_slots, matrices_at_init
from gradtx.core.engine.matrix_groups import by_leaf
from gradtx.core.engine.program import Program
from gradtx.core.engine.protocol import AnyTransform, OptState
from gradtx.core.engine.transform import PyTree
from gradtx.core.numbers.paths import Path, lookup, nest
from gradtx.core.numbers.states import held


def slots_by_leaf(tx: AnyTransform, params: PyTree, state: OptState) -> dict[str, Any]:
    """What a state remembers of each leaf, as trees like the parameters.

    The state keeps what is remembered of matrices as one array for all of a size. Here it is by the leaves,
    in the shape (batch..., blocks..., of a matrix...); of blocks of several sizes it is a tuple, of an array
    for each block. What is kept in a format of `gradtx.store` is what it stands for, without the scales. All
    else is as it is.

    Args:
        tx: a transform of gradtx's.
        params: the parameters, arrays or `jax.ShapeDtypeStruct`s; those that `init` was called on.
        state: an optimizer state, or what holds one.

    Returns:
        By the name of each transform its slots by name, as in the state's `slots`; under the name of what a
        wrapper wraps it is the same of that.

    Raises:
        TypeError: `tx` is another library's transform.
        ValueError: the state is another transform's.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> params = {"up": {"kernel": jnp.ones((4, 3))}, "down": {"kernel": jnp.ones((3, 4))}}
        >>> tx = gradtx.scale_by_soap()
        >>> state = tx.init(params)
        >>> {size: stack.shape for size, stack in state["slots"]["scale_by_soap"]["left"].items()}
        {'3x4': (1, 3, 3), '4x3': (1, 4, 4)}
        >>> gradtx.slots_by_leaf(tx, params, state)["scale_by_soap"]["left"]["up"]["kernel"].shape
        (4, 4)
    """
    if not isinstance(tx, Composed):
        raise TypeError(f"slots_by_leaf takes a transform of gradtx, got {type(tx).__name__}.")
    return _by_leaf(tx.program, params, held(state))


def _by_leaf(program: Program, params: PyTree, state: Any) -> dict[str, Any]:
    check_slots(program, state)
    leaves, structure = lv.flatten(params)
    active, found = active_leaves(program, params, leaves), {}
    for path in program.slot_paths:
        old, unit = lookup(state["slots"], path), program.unit_at.get(path[:-1])
        if path in program.stored:
            old = _decoded(program, path, params, state)
        if path in program.stack_paths:
            assert unit is not None
            cuts, groups = matrices_at_init(program, unit, unit.transform, params, active)
            found[path] = structure.unflatten(by_leaf(old, groups, cuts))
        elif path in program.wrapped and unit is not None and unit.transform.sees_leaves:
            inside: Program | None = getattr(program.wrapped[path], "program", None)
            on = active[unit.path]
            kept = structure.unflatten([x if a else None for x, a in zip(leaves, on, strict=True)])
            found[path] = old if inside is None else _by_leaf(inside, unit.transform.view(kept), old)
        elif path not in (*program.row_paths, *program.scale_paths.values()):
            found[path] = old
    return nest(found)


def _decoded(program: Program, path: Path, params: PyTree, state: Any) -> Any:
    """A slot that has a format, as what it stands for."""
    slots, beside = state["slots"], program.scale_paths.get(path)
    found = coded_slot(
        program.stored[path],
        lookup(slots, path),
        None if beside is None else lookup(slots, beside),
        params,
        0,
        is_stacked=path in program.stack_paths,
    )
    return jax.tree.map(_loaded, found, is_leaf=lambda x: isinstance(x, Coded))


def _loaded(x: Any) -> Any:
    is_abstract = any(isinstance(part, jax.ShapeDtypeStruct) for part in jax.tree.leaves(x))
    return jax.eval_shape(decoded, x) if is_abstract else decoded(x)
