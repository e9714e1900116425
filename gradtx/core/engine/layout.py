"""The layout of the state: what `init` makes for a program and a tree, and what `update` must be given.

The state is `{"step", "numbers", "slots"}`: nested dicts of arrays, never code. Its order means nothing; the
order of a chain comes from the transform.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.coded import SCALES, SlotStorage, first_coded, first_stack, is_as_wide
from gradtx.core.engine.formats import Format
from gradtx.core.engine.kernels import with_values
from gradtx.core.engine.matrix_groups import Group, first_rows, groups_of
from gradtx.core.engine.matrix_views import cuts_of
from gradtx.core.engine.on_shards import on_shards, refuse_axes
from gradtx.core.engine.placement import Placement
from gradtx.core.engine.program import Program, changed_after
from gradtx.core.engine.steps import ROWS, Unit, is_declared, is_rule
from gradtx.core.engine.transform import adapted
from gradtx.core.engine.views import Cut
from gradtx.core.numbers.paths import Path, nest
from gradtx.core.numbers.schedule import CALLABLE, pack_schedules
from gradtx.core.numerics import compute_dtype, is_complex, number_dtype, real_dtype, widest
from gradtx.core.shards import varying

PyTree = Any
State = dict[str, Any]

IN_OTHER_FORMATS = (
    " If it is only kept in other formats: params, state, report = gradtx.convert_state(old_tx, state, tx, "
    "params), where old_tx is the transform that made it."
)

REMEDY = (
    "Pass the state that this transform's init made, or a checkpoint of it; for an old state and new "
    "settings use gradtx.rebase(tx, state)."
)


def initial_state(program: Program, params: PyTree) -> State:
    """The state of step 0, with the shardings of the parameters and no alias of their buffers."""
    leaves, structure = lv.flatten(params)
    place, paths = Placement(leaves), lv.paths(params)
    numbers, arguments = initial_numbers(program)
    active = active_leaves(program, params, leaves)
    _check_order(program, params, active)
    complex_at = _complex_at(program, leaves, active)
    slots: dict[Path, Any] = {}
    for unit in program.units:
        on = active[unit.path]
        kept = structure.unflatten([x if a else None for x, a in zip(leaves, on, strict=True)])
        if not is_declared(unit):
            begun = functools.partial(unit.transform.init, kept)
            slots[unit.path] = on_shards(begun, kept, unit.where, unit.transform, of_trees=True)
            continue
        if not is_rule(unit):
            unit.transform.check_leaves(params, on, unit.where)
            for name, part in unit.transform.wrapped().items():
                slots[*unit.path, name] = adapted(part).init(unit.transform.view(kept))
        rule = with_values(unit, arguments)
        for name in rule.leaf_slots:
            make = _slot_maker(program, unit, rule, name, place, kept)
            made: list[Any] = [None] * len(leaves)
            scales: list[Any] = [None] * len(leaves)
            storage = program.stored.get((*unit.path, name))
            formats = [None] * len(leaves)
            if storage is not None and not is_as_wide():
                formats = storage.of_leaves(params, len(leaves))
            for i, x in enumerate(leaves):
                if not on[i]:
                    continue
                try:
                    made[i], scales[i] = make(i, x, unit.path in complex_at[i], paths[i], formats[i])
                except Exception as error:
                    lv.note_leaf(error, params, i)
                    raise
            slots[*unit.path, name] = structure.unflatten(made)
            if (beside := program.scale_paths.get((*unit.path, name))) is not None:
                slots[beside] = structure.unflatten(scales)
        if is_rule(unit) and rule.is_of_matrices:
            cuts, groups = matrices_at_init(program, unit, rule, params, active)
            for name in rule.matrix_slots:
                storage = program.stored.get((*unit.path, name))
                stacks = _stacks(unit, rule, name, groups, place, leaves, storage)
                slots[*unit.path, name] = {k: values for k, (values, _) in stacks.items()}
                if (beside := program.scale_paths.get((*unit.path, name))) is not None:
                    slots[beside] = {k: scales for k, (_, scales) in stacks.items()}
            if rule.matrix_slots:
                rows = first_rows(groups, cuts)
                slots[*unit.path, ROWS] = structure.unflatten(
                    [None if row is None else place.scalar(jnp.asarray(row)) for row in rows]
                )
        for name, scalar in rule.scalars.items():
            first = on_shards(functools.partial(scalar.initial, rule, kept), kept, unit.where, rule)
            slots[*unit.path, name] = jax.tree.map(place.scalar, first)
    return {
        "step": place.scalar(jnp.zeros((), jnp.int32)),
        "numbers": jax.tree.map(place.scalar, pack_schedules(numbers)),
        "slots": nest(slots),
    }


def initial_numbers(program: Program) -> tuple[dict[str, Any], dict[Any, Any]]:
    """The state's numbers as the transform gives them, and the value of each argument at step 0."""
    dtype = number_dtype()
    flat = {
        path: jnp.zeros((), dtype) if path[-1] == CALLABLE else jnp.array(value, dtype)
        for path, value in program.numbers.items()
    }
    arguments = program.argument_values(nest(flat), jnp.zeros((), jnp.int32), flat.__setitem__)
    return nest(flat), arguments


def _check_order(program: Program, tree: PyTree, active: dict[Path, list[bool]]) -> None:
    """Raises where an update is changed after what remembers the parameters that it makes."""
    for position, names in program.last.items():
        on = active[program.steps[position].path]
        for later in program.changes_after(position):
            both = [i for i, (a, b) in enumerate(zip(on, active[later.path], strict=True)) if a and b]
            if both:
                raise ValueError(changed_after(names[-1], later.where, lv.paths(tree)[both[0]]))


def _slot_maker(
    program: Program, unit: Unit, rule: Any, name: str, place: Placement, params: PyTree
) -> Callable[[int, Any, bool, str, Format | None], tuple[Any, Any]]:
    """What makes a slot of a leaf, as the values and the scales of a format."""
    slot, storage = rule.slots[name], program.stored.get((*unit.path, name))
    shape_for = slot.shapes_for(rule, params)

    def make(i: int, x: Any, complex_input: bool, path: str, format: Format | None) -> tuple[Any, Any]:
        shape = shape_for(i, x, path)
        if varying(x) and slot.shape is not None:
            large = shape_for(i, jax.ShapeDtypeStruct([n << 20 for n in x.shape], x.dtype), path)
            if shape not in (None, (), x.shape) or (shape is None) != (large is None):
                refuse_axes(unit.where, rule, x)
        if shape is None:
            return None, None
        dtype = jnp.result_type(x)
        # What remembers parameters is complex as they are, whatever the updates are.
        may_be_complex = complex_input or (unit.transform.last and is_complex(dtype))
        stored = _stored_dtype(unit, rule, name, dtype, may_be_complex, in_a_format=storage is not None)
        first = functools.partial(slot.first_value, rule, x, path)
        value = 0.0 if place.abstract else on_shards(first, x, unit.where, rule)
        whole = functools.partial(place.slot, shape, stored, value, x)
        if storage is not None:
            format = storage.chosen(format, shape, stored, path)
        if format is None:
            return whole(), None
        return first_coded(place, format, shape, value if isinstance(value, float) else None, x, whole)

    return make


def _stored_dtype(
    unit: Unit, rule: Any, name: str, dtype: Any, may_be_complex: bool, *, in_a_format: bool = False
) -> np.dtype:
    """The dtype of a slot of a leaf of some dtype; of one in a format that of what is too small for it."""
    slot = rule.slots[name]
    declared = None if in_a_format else slot.declared_dtype(rule, dtype)
    stored = np.dtype(declared) if declared else real_dtype(compute_dtype(dtype))
    if not may_be_complex or slot.real:
        return stored
    if stored.itemsize < 4:
        raise ValueError(
            f"{unit.where}: {slot.dtype}={declared!r} cannot store {name!r} of a complex leaf; give "
            f"'float32' or a wider dtype, of which it takes the complex form."
        )
    return widest(stored, np.dtype(np.complex64))


def matrices_at_init(
    program: Program, unit: Unit, rule: Any, params: PyTree, active: dict[Path, list[bool]]
) -> tuple[list[Cut | None], tuple[Group, ...]]:
    """The matrices of each leaf that a rule of matrices has slots for, and all of one size."""
    leaves, _ = lv.flatten(params)
    cuts = cuts_of(rule, params, active[unit.path], unit.where)
    dtypes = [None if cut is None else jnp.result_type(x) for cut, x in zip(cuts, leaves, strict=True)]
    # Where what a rule gets of a complex leaf is real, so are its slots.
    is_real = [unit.path not in at for at in _complex_at(program, leaves, active)]
    dtypes = [real_dtype(d) if d and real else d for d, real in zip(dtypes, is_real, strict=True)]
    return cuts, groups_of(cuts, dtypes)


def _complex_at(program: Program, leaves: list[Any], active: dict[Path, list[bool]]) -> list[set[Path]]:
    """For each leaf, the units whose input is complex."""
    return [
        program.complex_units(lambda path, i=i: active[path][i])
        if lv.is_trainable_leaf(x) and is_complex(jnp.result_type(x))
        else set()
        for i, x in enumerate(leaves)
    ]


def stack_shapes(rule: Any, name: str, groups: tuple[Group, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of each stack of a slot of matrices, by the name of the group."""
    shapes = ((g, rule.slots[name].of(rule, *g.size)) for g in groups)
    return {g.name: (g.count, *shape) for g, shape in shapes if shape is not None}


def _stacks(
    unit: Unit,
    rule: Any,
    name: str,
    groups: tuple[Group, ...],
    place: Placement,
    leaves: list[Any],
    storage: SlotStorage | None,
) -> dict[str, tuple[Any, Any]]:
    """A slot of matrices: a stack for each group, as the values and the scales of a format."""
    slot, shapes, made = rule.slots[name], stack_shapes(rule, name, groups), {}
    for group in groups:
        if group.name in shapes:
            kept_so, dtype = storage is not None, group.dtype
            stored = _stored_dtype(unit, rule, name, dtype, is_complex(dtype), in_a_format=kept_so)
            value = 0.0 if place.abstract or slot.init is None else slot.init(rule, *group.size)
            leaf = leaves[group.places[0].leaf]
            shape = shapes[group.name]
            format = None
            if storage is not None and not is_as_wide():
                # Each matrix has as many elements as it must, however many there are.
                format = storage.chosen(storage.of_stacks(), shape[1:], stored, group.name)
            stack = functools.partial(place.stack, leaf=leaf)
            if format is None:
                made[group.name] = stack(shape, stored, value), None
            else:
                made[group.name] = first_stack(format, shape, stored, value, stack)
    return made


def active_leaves(program: Program, tree: PyTree, leaves: list[Any]) -> dict[Path, list[bool]]:
    """For each unit, the leaves it works on; an error for a leaf that it is asked to and cannot."""
    trainable = [lv.is_trainable_leaf(x) for x in leaves]
    inclusion = lv.Inclusion(tree, leaves)
    result: dict[Path, list[bool]] = {}
    for unit in [*program.units, *program.joins]:
        on = inclusion.of(unit.masks, unit.where)
        if is_rule(unit) and unit.transform.takes_any_leaf:
            on = [a and b for a, b in zip(on, trainable, strict=True)]
        elif on != trainable:
            for i, (wanted, possible) in enumerate(zip(on, trainable, strict=True)):
                if wanted and not possible:
                    raise TypeError(
                        f"{unit.where}: the leaf {lv.paths(tree)[i]!r} is {_describe(leaves[i])}, which has "
                        f"no gradient. Leave it out of the parameters, or mask it out, as in "
                        f"gradtx.masked(tx, lambda path, leaf: ...)."
                    )
        if isinstance(unit, Unit) and is_declared(unit) and not unit.transform.supports_complex:
            for i, x in enumerate(leaves):
                if on[i] and jnp.iscomplexobj(x):
                    raise TypeError(
                        f"{unit.where} has no meaning for the complex leaf {lv.paths(tree)[i]!r}. Mask it "
                        f"out, or train its real and imaginary parts as two real leaves."
                    )
        result[unit.path] = on
    return result


def _describe(x: Any) -> str:
    dtype = getattr(x, "dtype", None)
    return f"of type {type(x).__name__}" if dtype is None else f"{dtype.name}{list(x.shape)}"


def check_state(program: Program, state: Any) -> None:
    """Raises for a state that is not this program's, saying where it differs."""
    if not isinstance(state, Mapping) or set(state) != {"step", "numbers", "slots"}:
        shown = sorted(state) if isinstance(state, Mapping) else type(state).__name__
        raise TypeError(f"This is not a gradtx state (step, numbers, slots) but {shown}. {REMEDY}")
    if jax.tree.structure(state["numbers"]) != program.number_structure:
        _refuse("hyperparameters", _names(state["numbers"]), {name for name, _ in program.number_shapes})
    dtype = number_dtype()
    for (name, shape), number in zip(program.number_shapes, jax.tree.leaves(state["numbers"]), strict=True):
        _check_number(name, number, shape, dtype)
    _check_number("step", state["step"], (), np.dtype(np.int32))
    check_slots(program, state)


def check_slots(program: Program, state: Any) -> None:
    """Raises for a state that has other slots than this program."""
    found = set(_slot_paths(state["slots"], program.slot_depths))
    if found != set(program.slot_paths):
        _refuse("slots", {"/".join(p) for p in found}, {"/".join(p) for p in program.slot_paths})


def _slot_paths(slots: Any, depths: set[Path]) -> list[Path]:
    found: list[Path] = []

    def walk(node: Any, path: Path) -> None:
        if (path in depths or not path) and isinstance(node, Mapping):
            for key, child in node.items():
                walk(child, (*path, key))
        else:
            found.append(path)

    if slots:
        walk(slots, ())
    return found


def _names(tree: Any) -> set[str]:
    return {
        jax.tree_util.keystr(p, simple=True, separator="/")
        for p, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def _refuse(what: str, found: set[str], wanted: set[str]) -> None:
    lacks, other = sorted(wanted - found), sorted(found - wanted)
    parts = [f"lacks the {what} {', '.join(lacks)}"] if lacks else []
    parts += (
        [f"has {', '.join(other)} instead" if lacks else f"has other {what}: {', '.join(other)}"]
        if other
        else []
    )
    of_formats = any(name.endswith(SCALES) or "precise_params" in name for name in (*lacks, *other))
    raise ValueError(
        f"This state is not this transform's: it {' and '.join(parts)}. {REMEDY}"
        f"{IN_OTHER_FORMATS if of_formats else ''}"
    )


def _check_number(name: str, x: Any, shape: tuple[int, ...], dtype: Any) -> None:
    if jnp.shape(x) != shape:
        raise ValueError(
            f"{name} in the state has shape {jnp.shape(x)}, not {shape}: if this is a sweep, call update "
            f"under jax.vmap over the state."
        )
    if jnp.result_type(x) != dtype:
        raise TypeError(
            f"{name} in the state is {jnp.result_type(x)}, not {dtype.name}: the state was cast, or made "
            f"under another jax_enable_x64. Cast the slots only, or rebase(tx, state)."
        )
