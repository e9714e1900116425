"""One update of one tree: what runs from stage to stage."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.core import Tracer

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.coded import SlotStorage, coded_slot, is_as_wide, parts
from gradtx.core.engine.kernels import is_decay, made_once, with_values
from gradtx.core.engine.layout import active_leaves, stack_shapes
from gradtx.core.engine.matrix_groups import Group, groups_of
from gradtx.core.engine.matrix_views import cuts_of
from gradtx.core.engine.meshes import check_meshes
from gradtx.core.engine.on_shards import of_users
from gradtx.core.engine.program import Program
from gradtx.core.engine.slots import store
from gradtx.core.engine.steps import ROWS, Join, Unit
from gradtx.core.engine.transform import Call, PyTree, Shared, missing
from gradtx.core.engine.views import Cut
from gradtx.core.numbers.paths import Path, lookup, nest
from gradtx.core.numbers.schedule import CALLABLE, with_number
from gradtx.core.numerics import is_complex, number_dtype, real_dtype, widest
from gradtx.core.spec.words import some

State = dict[str, Any]

VALUE_FN = "value_fn"
"""The keyword argument that is the loss, a function of the parameters."""

GRAD_FN = "grad_fn"
"""The keyword argument that is the gradient of the loss, a function of the parameters and of a number."""

OBJ_FN = "obj_fn"
"""The keyword argument that is the loss to take second derivatives of, a function of the parameters."""

OF_PARAMS = (VALUE_FN, GRAD_FN, OBJ_FN)
"""The keyword arguments that are functions of the parameters."""

GRAD = "grad"
"""The keyword argument that is the gradient of the loss, where that is not what the chain is given."""


class Update:
    """One update of one tree, which the stages of a program move on.

    Attributes:
        us: the gradient of each leaf, None where it has none.
        ps: the parameter of each leaf, None where the caller gave none.
        live: the positions of the leaves that have a gradient.
        stacks: for each of them the updates by now; the last is the one worked on, those before it are what
            open branches keep.
        results: the finished ones: updates, or with `apply` the new parameters.
        slots: what is remembered, by its path in the state; of leaves, as a list.
        stored: the slots that are kept in formats.
        fields: the hyperparameters of each rule by now, by the rule's path.
        scalars: what each rule has prepared and concluded.
    """

    def __init__(self, program: Program, call: Call) -> None:
        grads, state, params, self.extra, shared, self.apply = call
        self.program, self.state, self.grads, self.params = program, state, grads, params
        self.us, self.structure = lv.flatten(grads)
        # A leaf without a gradient is left as it is, in every slot and in the result.
        self.live = [i for i, u in enumerate(self.us) if lv.is_trainable_leaf(u)]
        self._check_needs()
        self.ps: list[Any] = [None] * len(self.us)
        if params is not None:
            self.ps = lv.align(self.structure, params, grads, "params", "gradients")
        self._check_shapes()
        check_meshes(grads, params, state)
        described = (grads, self.us) if params is None else (params, self.ps)
        self.active, self._described = active_leaves(program, *described), described
        for i in self.live:
            self.us[i] = lv.as_array(self.us[i])
            self.ps[i] = None if self.ps[i] is None else lv.as_array(self.ps[i])
        self.stacks: dict[int, Any] = {i: [self.us[i]] for i in self.live}
        self.results: dict[int, Any] = {}
        self.shared = shared or Shared([None] * len(self.us))
        self.slots = {path: lookup(state["slots"], path) for path in program.slot_paths}
        self.stored = {} if is_as_wide() else program.stored
        for path, storage in self.stored.items():
            self.slots[path] = self._coded(path, storage)
        for path in program.leaf_slot_paths:
            self.slots[path] = self._leaf_slots(path)
        for path in program.row_paths:
            self.slots[path] = self._leaf_slots(path)

    def run(self) -> tuple[PyTree, State]:
        """The updates, or with `apply` the new parameters, and the new state."""
        program, state = self.program, self.state
        numbers, step = state["numbers"], state["step"]
        self.kept = {
            unit.path: {k: self.slots[*unit.path, k] for k in unit.transform.scalars}
            for unit in program.rules
        }
        self.wanted = {k: v for k, v in self.extra.items() if k in program.wanted}
        fields, scalars, following = program.preparation.compiled(
            numbers, program.called(numbers, step), step, self.kept, self.wanted
        )
        self.given_fields = fields
        # What works on no leaf is not asked for, and not computed.
        busy = [path for path in scalars if any(self.active[path][i] for i in self.live)]
        once = made_once([{path: values[path] for path in busy} for values in (fields, scalars)])
        self.fields, self.scalars = {**fields, **once[0]}, {**scalars, **once[1]}
        for stage in program.stages:
            stage.run(self)
        for unit in program.rules:
            for name, scalar in unit.transform.scalars.items():
                if not scalar.is_key and name in self.scalars[unit.path]:
                    old = self.slots[*unit.path, name]
                    self.slots[*unit.path, name] = store(self.scalars[unit.path][name], old)
        for path in self.stored:
            self._keep_coded(path)
        for path in (*program.leaf_slot_paths, *program.row_paths):
            self.slots[path] = self.structure.unflatten(self.slots[path])
        made = list(self.ps if self.apply else self.us)
        for i, result in self.results.items():
            made[i] = result
        next_called = self._next_called(following)
        return self.structure.unflatten(made), {
            "step": following,
            "numbers": with_numbers(numbers, next_called),
            "slots": nest(self.slots),
        }

    def _next_called(self, following: Any) -> dict[Path, Any]:
        """What the user's functions of the step will give next, by the path of each number."""
        found: dict[Path, Any] = {}
        try:
            self.program.called(self.state["numbers"], following, found.__setitem__)
        except Exception:
            if isinstance(following, Tracer):
                raise
            # A list of values may end with this update: that is an error of the next one, if there is one.
            paths = (path for path in self.program.numbers if path[-1] == CALLABLE)
            return {path: np.asarray(np.nan, number_dtype()) for path in paths}
        return found

    def values(self, unit: Unit | Join) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields and the scalars of a rule."""
        return self.fields.get(unit.path, {}), self.scalars.get(unit.path, {})

    def measured_values(self, unit: Unit) -> tuple[dict[str, Any], dict[str, Any]]:
        """The same for what a rule measures, with plain numbers as they were given.

        A sum over an array takes a number that is computed as an array of its size; a decay is a part of what
        is measured and applied alike, and must be the same in both.
        """
        fields, scalars = self.values(unit)
        given = self.given_fields.get(unit.path, {})
        return {k: v if is_decay(v) else given[k] for k, v in fields.items()}, scalars

    def with_values(self, unit: Unit) -> Any:
        """A wrapper with arrays for its hyperparameters; its schedules may run by a clock of its own."""
        clock = self.slots.get((*unit.path, "clock"), self.state["step"])
        arguments = self.program.argument_values(
            self.state["numbers"], clock, of=dict.fromkeys(unit.sources.values())
        )
        return with_values(unit, arguments)

    def columns(self, unit: Unit | Join) -> dict[str, list[Any]]:
        """The slots of a unit, each with one entry a leaf, in which the new ones are put."""
        names = unit.transform.leaf_slots if isinstance(unit, Unit) else ()
        return {name: self.slots[*unit.path, name] for name in names}

    def matrices(self, unit: Unit) -> tuple[list[Cut], tuple[Group, ...]]:
        """The matrices of each leaf that a rule of matrices works on now, and all of one size."""
        tree, leaves = self._described
        on = self.working(unit)
        wanted = [i in on for i in range(len(leaves))]
        cuts = [cut for cut in cuts_of(unit.transform, tree, wanted, unit.where) if cut is not None]
        dtypes = [_with_form_of(self.stacks[i][-1].dtype, lv.as_array(leaves[i]).dtype) for i in on]
        groups = groups_of(cuts, dtypes)
        for name in unit.transform.matrix_slots:
            self._check_stacks(unit, name, groups)
        return cuts, groups

    def _check_stacks(self, unit: Unit, name: str, groups: tuple[Group, ...]) -> None:
        """Raises where a state has no room in its stacks for the matrices of the leaves."""
        stacks = self.slots[*unit.path, name]
        found = {k: np.shape(x) for k, x in stacks.items()} if isinstance(stacks, Mapping) else {}
        rows, on = self.slots[*unit.path, ROWS], self.working(unit)
        are_all = sum(row is not None for row in rows) == len(on)
        shapes = stack_shapes(unit.transform, name, groups)
        for group in groups:
            wanted, own = shapes.get(group.name), found.get(group.name, ())
            if wanted is None:
                continue
            if own[1:] != wanted[1:] or own[0] < wanted[0] or (are_all and own[0] != wanted[0]):
                paths = lv.paths(self.grads)
                leaves = dict.fromkeys(paths[on[place.leaf]] for place in group.places)
                raise ValueError(
                    f"{unit.where}: the matrices of {group.name} in the leaves {some([*leaves])} make a "
                    f"stack {name!r} of shape {wanted}, and the state has {own or 'none'}. Pass the state "
                    f"that init made for these parameters, and the parameters themselves."
                )

    def working(self, unit: Unit) -> list[int]:
        """The leaves with a gradient that a unit works on."""
        return [i for i in self.live if self.active[unit.path][i]]

    def extra_for(self, unit: Unit, on: list[int]) -> dict[str, Any]:
        """The keyword arguments as a unit gets them.

        A function of the parameters takes those that the unit works on. Some masks
        ask that an argument that is a tree like the gradients has the unit's own leaves alone.
        """
        functions = {name: of_users(self.extra[name]) for name in OF_PARAMS if name in self.extra}
        extra = {**self.extra, **functions}
        if len(on) < len(self.us):
            extra |= {name: self._beside_others(f, on) for name, f in functions.items()}
        if not any(isinstance(mask, lv.Selection) and mask.cuts_extra_args for mask in unit.masks):
            return extra

        def cut(tree: PyTree) -> PyTree:
            leaves, structure = lv.flatten(tree)
            if structure != self.structure:
                return tree
            return structure.unflatten([x if i in on else None for i, x in enumerate(leaves)])

        return {name: cut(value) for name, value in extra.items()}

    def _beside_others(self, value_fn: Any, on: list[int]) -> Any:
        """A function of all parameters, as one of some: the others keep their values."""
        own = set(on)
        others = {i: p for i, p in enumerate(self.ps) if i not in own}

        @functools.wraps(value_fn)
        def value(params: PyTree, *args: Any, **kwargs: Any) -> Any:
            given = lv.align(self.structure, params, self.grads, "params", "gradients")
            everything = [others.get(i, p) for i, p in enumerate(given)]
            return value_fn(self.structure.unflatten(everything), *args, **kwargs)

        return value

    def squares(self, i: int) -> Any:
        """The sum of |u|² of a leaf's update, if it is known: as long as nothing has changed it."""
        return self.shared.squares[i] if self.stacks[i][-1] is self.us[i] else None

    def outer_dtype(self, i: int) -> np.dtype:
        """The dtype of a leaf's update as the caller sees it."""
        u, p = self.us[i], self.ps[i]
        return u.dtype if p is None else widest(u.dtype, p.dtype)

    def number(self, i: int) -> np.uint32:
        """A number for a leaf, made of its path, so that what is drawn for it depends on no other leaf."""
        return self._numbers[i]

    @functools.cached_property
    def _numbers(self) -> list[np.uint32]:
        return [np.uint32(zlib.crc32(path.encode())) for path in lv.paths(self.grads)]

    def _coded(self, path: Path, storage: SlotStorage) -> Any:
        """A slot that is kept in a format, with the scales beside the values."""
        beside, is_stacked = self.program.scale_paths.get(path), path in self.program.stack_paths
        scales, tree = None if beside is None else self.slots[beside], self._described[0]
        return coded_slot(storage, self.slots[path], scales, tree, self.state["step"], is_stacked=is_stacked)

    def _keep_coded(self, path: Path) -> None:
        """Puts the values and the scales of a slot apart again, as the state has them."""
        beside, slot = self.program.scale_paths.get(path), self.slots[path]
        if path in self.program.stack_paths:
            values, scales = parts([*slot.values()])
            self.slots[path] = dict(zip(slot, values, strict=True))
            if beside is not None:
                self.slots[beside] = dict(zip(slot, scales, strict=True))
            return
        self.slots[path], scales = parts(slot)
        if beside is not None:
            self.slots[beside] = self.structure.unflatten(scales)

    def _leaf_slots(self, path: Path) -> list[Any]:
        tree = self.slots[path]
        try:
            leaves = self.structure.flatten_up_to(tree)
        except ValueError:
            lv.align(self.structure, tree, self.grads, f"state's {'/'.join(path)}", "gradients")
            raise
        unit = self.program.unit_at[path[:-1]]
        slot = unit.transform.slots.get(path[-1])  # none for the rows of a leaf in the stacks
        for i in self.live:
            is_anywhere = slot is None or slot.is_like_leaf
            if not is_anywhere or (leaves[i] is None and not self.active[unit.path][i]):
                continue
            if leaves[i] is None:
                raise ValueError(
                    f"{unit.where}: the state has no {path[-1]!r} for the leaf {lv.paths(self.grads)[i]!r}, "
                    f"which was None or masked out at init and has a gradient now. Call init again on the "
                    f"parameters that are trained."
                )
            wanted = None if slot is None else self._shape(self.us[i])
            if wanted is not None and np.shape(leaves[i]) != wanted:
                raise ValueError(
                    f"{unit.where}: {path[-1]!r} of the leaf {lv.paths(self.grads)[i]!r} has shape "
                    f"{np.shape(leaves[i])} in the state, and the gradient has shape {wanted}. Pass the "
                    f"state that init made for these parameters."
                )
        return leaves

    def _shape(self, u: Any) -> tuple[int, ...] | None:
        """The shape of a gradient, of one example; None where that has no axis of examples."""
        shape = np.shape(u)
        return shape if not self.program.per_example else shape[1:] if shape else None

    def _check_needs(self) -> None:
        for where, needs in self.program.needs.items():
            for name in needs:
                if name == "params":
                    if self.params is None and self.live:
                        raise ValueError(f"{where} needs the parameters: call update(grads, state, params).")
                elif name not in self.extra:
                    raise TypeError(missing(where, name))

    def _check_shapes(self) -> None:
        for i, (u, p) in enumerate(zip(self.us, self.ps, strict=True)):
            if u is not None and p is not None and self._shape(u) != np.shape(p):
                given = (
                    f"the gradient of the leaf {lv.paths(self.grads)[i]!r} has shape {np.shape(u)}, and the "
                    f"parameter has shape {np.shape(p)}."
                )
                if self.program.per_example:
                    raise ValueError(
                        f"{self.program.per_example}: {given} Give the gradients of each example, stacked "
                        f"along axis 0, as jax.vmap(jax.grad(loss), in_axes=(None, 0)) does."
                    )
                if self.program.take_examples:
                    raise ValueError(
                        f"{self.program.take_examples[0]} takes the gradients of each example, so that it "
                        f"must be the first of a chain and work on all leaves; here it is not: {given}"
                    )
                raise ValueError(f"{given[0].upper()}{given[1:]} Pass the gradients of these parameters.")


def with_numbers(numbers: dict[str, Any], changed: dict[Path, Any]) -> dict[str, Any]:
    """The numbers of a state with some replaced."""
    for path, value in changed.items():
        numbers = with_number(numbers, path, value)
    return numbers


def _with_form_of(x: Any, dtype: Any) -> np.dtype:
    """A dtype, complex if `x` is and real if it is not."""
    real = real_dtype(dtype)
    return widest(real, np.dtype(np.complex64)) if is_complex(x) else real
