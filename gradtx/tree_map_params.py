"""Mapping over the parts of a state that are trees like the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from gradtx.core.engine.composed import Composed
from gradtx.core.engine.layout import check_slots
from gradtx.core.engine.leaves import align
from gradtx.core.engine.program import Program
from gradtx.core.engine.steps import is_declared
from gradtx.core.numbers.paths import Path, lookup, nest
from gradtx.core.spec.spec import show

PyTree = Any


def tree_map_params(
    initable: Any,
    f: Callable[..., Any],
    state: PyTree,
    /,
    *rest: PyTree,
    transform_non_params: Callable[[Any], Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> PyTree:
    """A state with a function applied to each slot of each leaf, such as one that gives it a sharding.

    In a state of gradtx these are the slots of leaves, also in the states inside wrappers: `mu` and `nu`, and
    Adafactor's rows and columns, which have other shapes than their leaf. A leaf without a slot, because
    it is masked out, stays `None`. Steps, numbers and keys, and the vectors of `flatten`, are the others.

    Args:
        initable: the transform that made the state, of any library, or its `init`.
        f: `f(slot, *others)` gives the new value.
        state: the state.
        *rest: trees like the parameters; `f` gets their leaves too.
        transform_non_params: a function for everything else; by default it stays as it is.
        is_leaf: which nodes of a tree like the parameters count as leaves, as in `jax.tree.map`.

    Returns:
        The state with the new values.

    Raises:
        ValueError: the state is another transform's, or one of `rest` is another tree than the parameters.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params, names = gradtx.sgd(0.1, momentum=0.9), {"w": jnp.ones(2)}, {"w": "data"}
        >>> slots = gradtx.tree_map_params(tx, lambda slot, name: name, tx.init(params), names)["slots"]
        >>> slots
        {'trace': {'trace': {'w': 'data'}}}
    """
    return _Map(f, rest, transform_non_params or (lambda x: x), is_leaf).state(initable, state)


class _Placeholder:
    """Parameters without a leaf: a function that maps over the leaves gives it back where they would be."""


jax.tree_util.register_pytree_node(_Placeholder, lambda _: ((), None), lambda *_: _Placeholder())


class _Map:
    """One call: what becomes of the trees like the parameters, and of everything else."""

    def __init__(
        self,
        f: Callable[..., Any],
        rest: tuple[PyTree, ...],
        others: Callable[[Any], Any],
        is_leaf: Callable[[Any], bool] | None,
    ) -> None:
        self.f, self.rest, self.others, self.is_leaf = f, rest, others, is_leaf

    def state(self, initable: Any, state: PyTree) -> PyTree:
        """A state of any transform."""
        tx = getattr(initable, "__self__", initable)
        return self.ours(tx.program, state) if isinstance(tx, Composed) else self.foreign(initable, state)

    def ours(self, program: Program, state: PyTree) -> PyTree:
        """A state of this library: the program says which slots are those of leaves."""
        check_slots(program, state)
        slots: dict[Path, Any] = {}
        for path in program.slot_paths:
            old = lookup(state["slots"], path)
            if path in program.leaf_slot_paths:
                slots[path] = self.like_params(old)
            elif path in program.wrapped and program.unit_at[path[:-1]].transform.sees_leaves:
                slots[path] = self.state(program.wrapped[path], old)
            elif path in program.unit_at and not is_declared(program.unit_at[path]):
                slots[path] = self.state(program.unit_at[path].transform, old)
            else:
                slots[path] = jax.tree.map(self.others, old)
        return {
            "step": self.others(state["step"]),
            "numbers": jax.tree.map(self.others, state["numbers"]),
            "slots": nest(slots),
        }

    def foreign(self, initable: Any, state: PyTree) -> PyTree:
        """A state of another library: its `init` shows where it puts the parameters' tree."""
        init = initable.init if hasattr(initable, "init") else initable
        try:
            marked = init(_Placeholder())
        except Exception as error:
            error.add_note(
                f"tree_map_params: the init of {show(initable)} does more than map over the leaves, so that "
                f"its state cannot be told apart. For Optax's masks use optax.tree_map_params on its state."
            )
            raise
        return jax.tree.map(
            lambda mark, part: self.like_params(part) if _is_placeholder(mark) else self.others(part),
            marked,
            state,
            is_leaf=_is_placeholder,
        )

    def like_params(self, tree: PyTree) -> PyTree:
        """A tree like the parameters, with `None` for a leaf that has no slot."""

        def stops(x: Any) -> bool:
            return x is None or (self.is_leaf is not None and self.is_leaf(x))

        slots, structure = jax.tree.flatten(tree, is_leaf=stops)
        columns = [slots]
        for other in self.rest:
            try:
                columns.append(structure.flatten_up_to(other))
            except ValueError:
                align(structure, other, tree, "tree given", "state's slots")
                raise
        return structure.unflatten(
            [None if slot is None else self.f(slot, *more) for slot, *more in zip(*columns, strict=True)]
        )


def _is_placeholder(x: Any) -> bool:
    return isinstance(x, _Placeholder)
