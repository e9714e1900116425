"""The engine: runs a program over a tree, leaf by leaf.

Within a stage each leaf is loaded, taken through every rule, and stored; the tree is crossed again only where
a rule measures all of it, or where a transform works on whole trees.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.engine import leaves as lv
from gradtx.core.engine import stages
from gradtx.core.engine.call import Call
from gradtx.core.engine.layout import active_leaves, check_state, initial_state
from gradtx.core.engine.program import Builder, Join, Program, Unit, is_declared
from gradtx.core.engine.transform import PyTree, Shared, Transform, accepted, cast_like, missing
from gradtx.core.numbers.paths import Path, lookup, nest
from gradtx.core.numbers.schedule import with_number
from gradtx.core.numerics import compute_dtype, like, number_dtype, widest

State = dict[str, Any]


class Composed(Transform):
    """A transform that the engine runs: a rule, or a composition of transforms."""

    def _visit(self, builder: Builder) -> None:
        """Adds this transform's steps to a program."""
        raise NotImplementedError

    @property
    def program(self) -> Program:
        """The flattened form, built once."""
        if "_program" not in self.__dict__:
            self._set(_program=Program(self._visit))
        return self.__dict__["_program"]

    def init(self, params: PyTree) -> State:
        """The state: the step, every hyperparameter, and the slots of each leaf that is trained."""
        self._set(_initialised=True)
        return initial_state(self.program, params)

    def update(
        self, updates: PyTree, state: State, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, State]:
        """The updates in `promote_types(gradient, parameter)`, and the next state."""
        return self.step(updates, state, params, extra, None, apply=False)

    def apply_gradients(
        self, grads: PyTree, state: State, params: PyTree, **extra: Any
    ) -> tuple[PyTree, State]:
        """The new parameters and state; the update is not narrowed in between."""
        return self.step(grads, state, params, extra, None, apply=True)

    def step(
        self,
        grads: PyTree,
        state: State,
        params: PyTree,
        extra: dict[str, Any],
        shared: Shared | None,
        *,
        apply: bool,
    ) -> tuple[PyTree, State]:
        """`apply_gradients`, or `update`; `shared` is for a wrapper around it."""
        return _Update(self.program, grads, self._in_force(state), params, extra, shared).run(apply=apply)

    def structure(self) -> Any:
        """What programs are told apart by: all of it but the numbers that live in the state."""
        return self.program, self.program.masks

    def last_units(self) -> list[str]:
        """The names of the units, also in what is wrapped, that must see the final update."""
        return [name for names in self.program.last.values() for name in names]

    def _in_force(self, state: State) -> State:
        """The state with the numbers to use: its own, except those that this transform got for this call.

        Those are tracers, and concrete arrays in a transform that has initialised no state: it was built
        to make one update, as Optax's `inject_hyperparams` does.
        """
        check_state(self.program, state)
        live = {
            path: value
            for path, value in self.program.given.items()
            if isinstance(value, Tracer) or "_initialised" not in self.__dict__
        }
        dtype = number_dtype()
        return _with_numbers(state, {p: jnp.asarray(v).astype(dtype) for p, v in live.items()})


def _with_numbers(state: State, changed: dict[Path, jax.Array]) -> State:
    numbers = state["numbers"]
    for path, value in changed.items():
        numbers = with_number(numbers, path, value)
    return {**state, "numbers": numbers}


def _slots(unit: Unit | Join) -> Any:
    return unit.transform.slots if isinstance(unit, Unit) else ()


class _Update:
    """One update of one tree."""

    def __init__(
        self,
        program: Program,
        grads: PyTree,
        state: State,
        params: PyTree,
        extra: dict[str, Any],
        shared: Shared | None,
    ) -> None:
        self.program, self.state, self.extra = program, state, extra
        self.grads, self.params = grads, params
        self.us, self.structure = lv.flatten(grads)
        self.ps: list[Any] = [None] * len(self.us)
        if params is not None:
            self.ps = lv.align(self.structure, params, grads, "params", "gradients")
        self._check_call()
        described = (grads, self.us) if params is None else (params, self.ps)
        self.active = active_leaves(program, *described)
        # A leaf without a gradient is left as it is, in every slot and in the result.
        self.live = [i for i, u in enumerate(self.us) if lv.is_trainable_leaf(u)]
        for i in self.live:
            self.us[i] = lv.as_array(self.us[i])
            self.ps[i] = None if self.ps[i] is None else lv.as_array(self.ps[i])
        self.stacks: dict[int, Any] = {i: [self.us[i]] for i in self.live}
        self.shared = shared or Shared([None] * len(self.us))
        self.slots = {path: lookup(state["slots"], path) for path in program.slot_paths}
        for path in program.leaf_slot_paths:
            self.slots[path] = self._spread(path)

    def run(self, *, apply: bool) -> tuple[PyTree, State]:
        """The updates, or with `apply` the new parameters, and the new state."""
        program, state = self.program, self.state
        self.kept = {
            unit.path: {k: self.slots[*unit.path, k] for k in unit.transform.scalars}
            for unit in program.rules
        }
        self.wanted = {k: v for k, v in self.extra.items() if k in program.wanted}
        self.fields, self.scalars, step, coded = stages.prepare(
            program, state["numbers"], state["step"], self.kept, self.wanted
        )
        done = False
        for kind, start, stop in program.stages:
            if kind == "tree" and is_declared(program.steps[start]):
                done = self._wrapper_stage(program.steps[start], apply=apply and stop == len(program.steps))
            elif kind == "tree":
                self._tree_stage(program.steps[start])
            elif kind == "measure":
                self._measure_stage(start)
            elif not done:
                self._leaf_stage(start, stop, apply=apply)
        for unit in program.rules:
            for name, scalar in unit.transform.scalars.items():
                if not scalar.is_key and name in self.scalars[unit.path]:
                    old = self.slots[*unit.path, name]
                    self.slots[*unit.path, name] = self.scalars[unit.path][name].astype(old.dtype)
        for path in program.leaf_slot_paths:
            self.slots[path] = self.structure.unflatten(self.slots[path])
        result = list(self.ps if apply else self.us)
        for i, value in self.stacks.items():
            result[i] = value
        return self.structure.unflatten(result), {
            "step": step,
            "numbers": _with_numbers(state, coded)["numbers"],
            "slots": nest(self.slots),
        }

    def _leaf_stage(self, start: int, stop: int, *, apply: bool) -> None:
        units = [s for s in self.program.steps[start:stop] if isinstance(s, Unit | Join)]
        last = stop == len(self.program.steps)
        values, form = jax.tree.flatten(self._values(units))
        dtype = number_dtype()
        packed = tuple(v.dtype == dtype and v.shape == () for v in values)
        vector = stages.pack([v for v, p in zip(values, packed, strict=True) if p]) if any(packed) else None
        others = [v for v, p in zip(values, packed, strict=True) if not p]
        leaf_stage = functools.cache(
            lambda finish: stages.LeafStage(self.program, start, stop, finish, form, packed)
        )
        keyed = any(unit.transform.has_key for unit in units if isinstance(unit, Unit))
        rules_alone = not last and all(isinstance(s, Unit) for s in self.program.steps[start:stop])
        for i in self.live:
            own = self._own(units, i)
            if rules_alone and not any(slots is not None for slots in own):
                continue
            finish = None if not last else "apply" if apply else self._outer(i)
            index = np.uint32(i) if keyed else None
            self.stacks[i], stored = stages.run_leaf(
                leaf_stage(finish), self.stacks[i], self.ps[i], own, vector, others, index
            )
            for unit, slots in zip(units, stored, strict=True):
                for name in slots or ():
                    self.slots[*unit.path, name][i] = slots[name]

    def _measure_stage(self, position: int) -> None:
        unit = self.program.steps[position]
        values, index = self._values([unit]), np.uint32(0)
        of_norm = type(unit.transform).measure is stages.measure_squares
        parts, measured = [], []
        for i in self.live:
            (own,) = self._own([unit], i)
            if own is None:
                continue
            if of_norm:
                measured.append(self.stacks[i][-1])
            squares = self._known(i) if of_norm else None
            if squares is not None:
                parts.append({"squares": squares})
            else:
                parts.append(
                    stages.measure_leaf(
                        self.program, position, self.stacks[i], self.ps[i], own, values[0], index
                    )
                )
        more = stages.conclude(
            self.program,
            position,
            self.state["step"],
            parts,
            values[0],
            self.kept[unit.path],
            self.wanted,
            measured,
        )
        self.scalars[unit.path] = {**self.scalars[unit.path], **more}
        self.shared.concluded.append((unit.transform, more))

    def _tree_stage(self, unit: Unit) -> None:
        """A transform of whole trees: it gets and gives the outer dtypes, and its state keeps its own."""
        on = [i for i in self.live if self.active[unit.path][i]]
        ours = isinstance(unit.transform, Transform) and not unit.transform.foreign
        tree: list[Any] = [None] * len(self.us)
        params: list[Any] = [None] * len(self.us)
        for i in on:
            outer = self.stacks[i][-1].dtype if ours else self._outer(i)
            tree[i], params[i] = self.stacks[i][-1].astype(outer), self.ps[i]
        old = self.slots[unit.path]
        extra = accepted(unit.transform.update, self._extra(unit, on))
        updates, new = unit.transform.update(
            self.structure.unflatten(tree),
            old,
            None if self.params is None else self.structure.unflatten(params),
            **extra,
        )
        self.slots[unit.path] = jax.tree.map(cast_like, new, old)
        results = lv.align(self.structure, updates, self.grads, f"updates of {unit.where}", "gradients")
        for i in on:
            self.stacks[i] = [*self.stacks[i][:-1], results[i]]

    def _wrapper_stage(self, unit: Unit, *, apply: bool) -> bool:
        """A wrapper on the leaves that it works on; whether it made the new parameters."""
        on = [i for i in self.live if self.active[unit.path][i]]
        clock = (*unit.path, "clock")
        arguments = stages.argument_values(
            self.program, self.state["numbers"], self.slots.get(clock, self.state["step"])
        )
        wrapper = stages.with_values(unit, arguments)
        leaf_slots = [(*unit.path, name) for name in wrapper.slots]
        own = {
            name: [self.slots[path][i] for i in on] if path in leaf_slots else self.slots[path]
            for path in self.program.slot_paths
            for name in path[-1:]
            if path[:-1] == unit.path
        }
        compute = [
            compute_dtype(*(x.dtype for x in (*self.stacks[i], self.ps[i]) if x is not None)) for i in on
        ]
        gs = [
            u.astype(like(u.dtype, c)) for u, c in zip((self.stacks[i][-1] for i in on), compute, strict=True)
        ]
        call = Call(
            self.structure,
            on,
            self.active[unit.path],
            gs,
            None if self.params is None else self.ps,
            self.state["step"],
            self._extra(unit, on),
            [self._known(i) for i in on],
            apply=apply and wrapper.in_place and on == self.live,
        )
        with jax.named_scope(unit.where), stages.mixing():
            result, new = wrapper.run(gs, stages.Scope(**own), call)
        for name, value in new.items():
            path = (*unit.path, name)
            if path in leaf_slots:
                for i, x in zip(on, value, strict=True):
                    self.slots[path][i] = cast_like(x, self.slots[path][i])
            else:
                self.slots[path] = jax.tree.map(cast_like, value, self.slots[path])
        for i, x in zip(on, result, strict=True):
            self.stacks[i] = x if call.apply else [*self.stacks[i][:-1], x]
        return call.apply

    def _extra(self, unit: Unit, on: list[int]) -> dict[str, Any]:
        """The keyword arguments; where a mask asks for it, trees like the gradients lose the other leaves."""
        if not any(isinstance(mask, lv.Selection) and mask.cuts_extra_args for mask in unit.masks):
            return self.extra

        def cut(tree: PyTree) -> PyTree:
            leaves, structure = lv.flatten(tree)
            if structure != self.structure:
                return tree
            return structure.unflatten([x if i in on else None for i, x in enumerate(leaves)])

        return {name: cut(value) for name, value in self.extra.items()}

    def _known(self, i: int) -> Any:
        """The sum of |u|² of a leaf's update, if it is known: as long as nothing has changed it."""
        return self.shared.squares[i] if self.stacks[i][-1] is self.us[i] else None

    def _outer(self, i: int) -> np.dtype:
        """The dtype of a leaf's update as the caller sees it."""
        u, p = self.us[i], self.ps[i]
        return u.dtype if p is None else widest(u.dtype, p.dtype)

    def _values(self, units: list[Any]) -> list[Any]:
        return [(self.fields.get(unit.path, {}), self.scalars.get(unit.path, {})) for unit in units]

    def _own(self, units: list[Any], i: int) -> list[Any]:
        """The slots of one leaf for each unit, None for a unit that does not work on it."""
        return [
            {name: self.slots[*unit.path, name][i] for name in _slots(unit)}
            if self.active[unit.path][i]
            else None
            for unit in units
        ]

    def _spread(self, path: Path) -> list[Any]:
        tree = self.slots[path]
        try:
            spread = self.structure.flatten_up_to(tree)
        except ValueError:
            lv.align(self.structure, tree, self.grads, f"state's {'/'.join(path)}", "gradients")
            raise
        unit = self.program.unit_at[path[:-1]]
        slot = unit.transform.slots[path[-1]]
        for i in self.live:
            if spread[i] is None and slot.shape is None and self.active[unit.path][i]:
                raise ValueError(
                    f"{unit.where}: the state has no {path[-1]!r} for the leaf {lv.paths(self.grads)[i]!r}, "
                    f"which was None or masked out at init and has a gradient now. Call init again on the "
                    f"parameters that are trained."
                )
            if slot.shape is None and spread[i] is not None and np.shape(spread[i]) != self.us[i].shape:
                raise ValueError(
                    f"{unit.where}: {path[-1]!r} of the leaf {lv.paths(self.grads)[i]!r} has shape "
                    f"{np.shape(spread[i])} in the state, and the gradient has shape {self.us[i].shape}. "
                    f"Pass the state that init made for these parameters."
                )
        return spread

    def _check_call(self) -> None:
        for where, needs in self.program.needs.items():
            for name in needs:
                if name == "params":
                    if self.params is None:
                        raise ValueError(f"{where} needs the parameters: call update(grads, state, params).")
                elif name not in self.extra:
                    raise TypeError(missing(where, name))
        for i, (u, p) in enumerate(zip(self.us, self.ps, strict=True)):
            if u is not None and p is not None and np.shape(u) != np.shape(p):
                raise ValueError(
                    f"The gradient of the leaf {lv.paths(self.grads)[i]!r} has shape {np.shape(u)}, and the "
                    f"parameter has shape {np.shape(p)}. Pass the gradients of these parameters."
                )
