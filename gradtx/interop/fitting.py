"""What a state from elsewhere must be to become one of gradtx: arrays that fit its slots, and a step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.kernels import with_values
from gradtx.core.engine.layout import initial_numbers
from gradtx.core.engine.program import Program
from gradtx.core.engine.scope import Scope
from gradtx.core.engine.steps import is_declared
from gradtx.core.numbers.paths import lookup
from gradtx.core.numbers.states import held
from gradtx.core.numbers.steps import Steps
from gradtx.core.numerics import is_complex, is_trainable, number_dtype, real_dtype, widest
from gradtx.core.spec.spec import show


def plain(tree: Any) -> Any:
    """A tree with arrays in the place of a model framework's variables."""
    return jax.tree.map(lambda x: x[...] if _is_variable(x) else x, held(tree), is_leaf=_is_variable)


def _is_variable(x: Any) -> bool:
    return any(c.__name__ == "Variable" and c.__module__.startswith("flax.") for c in type(x).__mro__)


def own_transform(where: str, tx: Any) -> Composed:
    """`tx`, or an error if it is another library's."""
    if not isinstance(tx, Composed):
        raise TypeError(
            f"{where} takes a gradtx transform, such as gradtx.adamw(1e-3), first; got {show(tx)}."
        )
    return tx


def refuse_formats(tx: Any, state: Any, name: str, *, into: bool) -> None:
    """Raises where a state has what another library has no place for: slots with scales, parts of parameters.

    Args:
        tx: the transform of the state.
        state: the state.
        name: the other library.
        into: whether the state is to come from there.
    """
    if not isinstance(tx, Composed):
        return
    program = tx.program
    for path, beside in program.scale_paths.items():
        if any(x is not None for x in lv.flatten(lookup(state["slots"], beside))[0]):
            _refuse(f"the slot {path[-1]!r} of {'.'.join(path[:-1])} in a format with scales", name, into)
    for path, part in program.wrapped.items():
        unit = program.unit_at[path[:-1]]
        if getattr(unit.transform, "shows_wide", False):
            _refuse(f"parameters in the form of {unit.where}", name, into)
        refuse_formats(part, lookup(state["slots"], path), name, into=into)


def _refuse(what: str, name: str, into: bool) -> None:
    remedy = (
        "Move into a plain_tx that is tx without it, and then call params, state, report = "
        "gradtx.convert_state(plain_tx, state, tx, params)"
        if into
        else "First call params, state, report = gradtx.convert_state(tx, state, plain_tx, params), where "
        "plain_tx is tx without it, and move from that"
    )
    raise ValueError(f"tx keeps {what}, which {name} has no place for. {remedy}.")


def fitted(value: Any, slot: Any, what: str, source: str) -> jax.Array:
    """A copy of `value` in the dtype and with the sharding of a slot, whose shape it must have.

    It is widened where the slot is wider. Where it is narrower, digits would be lost: that is an error.
    """
    shape, dtype = np.shape(value), np.dtype(getattr(value, "dtype", np.asarray(value).dtype))
    if shape != slot.shape:
        raise ValueError(
            f"{what} has shape {shape} in the {source}, and {slot.shape} in a state of tx for these params. "
            f"Pass the parameters that the {source} belongs to, and a tx with the same settings."
        )
    if is_complex(dtype) and not is_complex(slot.dtype) and not np.any(np.imag(value)):
        value, dtype = value.real, real_dtype(dtype)
    if not _holds(slot.dtype, dtype):
        raise TypeError(
            f"{what} is {dtype.name} in the {source}, and tx keeps it in {slot.dtype.name}, which would lose "
            f"digits. Give tx a wider dtype for it (for 64 bits enable jax_enable_x64), or cast the {source} "
            f"yourself."
        )
    if isinstance(slot, jax.Array) and slot.committed:
        own = jnp.array(value, copy=True) if isinstance(value, jax.Array) else np.asarray(value)
        return jax.device_put(own.astype(slot.dtype), slot.sharding)
    return jnp.array(np.asarray(value).astype(slot.dtype))


def _holds(kept: np.dtype, given: np.dtype) -> bool:
    if is_trainable(kept) and is_trainable(given):
        return widest(kept, given) == kept
    return kept.kind == given.kind or (kept.kind in "iu" and given.kind in "iu")


def count(value: Any, what: str) -> int:
    """A counter as a Python int."""
    if isinstance(value, jax.ShapeDtypeStruct):
        raise ValueError(f"{what} is abstract. Pass a state with arrays.")
    number = np.asarray(value)
    if number.shape != () or number.dtype.kind not in "iuf" or number != np.floor(number) or number < 0:
        raise ValueError(
            f"{what} must be a number of steps, got {show(number.item() if number.shape == () else value)}."
        )
    return int(number)


def depends_on_step(program: Program) -> str:
    """What in a program depends on the step it is at: a name, empty if nothing does."""
    # A wrapper with a clock of its own reads its schedules by that.
    clocked = [u for u in program.units if is_declared(u) and "clock" in u.transform.scalars]
    own = {source for unit in clocked for source in unit.sources.values()}
    for scope, arguments in program.scopes.items():
        for key, (value, _, _) in arguments.items():
            if callable(value) and (scope, key) not in own:
                return ".".join((*scope, key))
    _, arguments = initial_numbers(program)
    for unit in program.rules:
        if unit.transform.scalars or not set(unit.transform.needs) <= {"params"}:
            continue
        rule, seen = with_values(unit, arguments), []
        for step in jnp.arange(3, dtype=number_dtype()):
            made = rule.prepare(Scope(step=step, t=step + 1, exact_t=Steps.of(step + 1), extra={}))
            seen.append([np.asarray(x) for x in jax.tree.leaves(made)])
        if any(not np.array_equal(a, b) for later in seen[1:] for a, b in zip(seen[0], later, strict=True)):
            return unit.where
    return ""
