"""The arrays and hyperparameters of linked states, taken from Optax and given to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.steps import is_declared
from gradtx.core.numbers.hyperparams import entries_of, placed, tidy
from gradtx.core.numbers.paths import Path, lookup
from gradtx.core.numbers.states import EVAL
from gradtx.core.spec.spec import show
from gradtx.interop.fitting import fitted
from gradtx.interop.optax.match import Clock, Copy, Link
from gradtx.interop.optax.table import PARAMS

SOURCE = "Optax state"


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The parameters, and the slow ones of `lookahead`, which Optax has beside them."""

    params: Any
    slow: Any


def taken(link: Link, arrays: Any, fresh: Any, parameters: Parameters, step: Any) -> dict[Path, Any]:
    """The slots of one unit from Optax's arrays, by their paths in the state."""
    target, rule = link.target, link.target.unit.transform
    old = {name: lookup(fresh, (*target.path, name)) for name in (*rule.slots, *rule.scalars)}
    values: dict[str, Any] = {}
    for name in link.row.slots:
        pairs = link.positions(name, old[name])
        values[name] = [None if x is None else arrays[i] for x, i in pairs]
    for name, tree in link.whole().items():
        values[name] = jax.tree.map(arrays.__getitem__, tree)
        if jax.tree.structure(values[name]) != jax.tree.structure(old[name]):
            raise ValueError(
                f"{link.item.where}: {link.row.scalars[name]} is another tree than {name!r} of "
                f"{target.where}: {jax.tree.structure(values[name])} and {jax.tree.structure(old[name])}. "
                f"Give tx the same function."
            )
    if link.row.state == "LookaheadState":
        values[EVAL] = _slow_weights(parameters.slow, old[EVAL], target.where)
    if link.row.takes_params:
        if target.is_vector:
            raise ValueError(
                f"{target.where}: Optax's {link.item.kind} says what it does together with the parameters, "
                f"and here with one vector of them. Move the state of an optimizer that is not flattened."
            )
        values[PARAMS] = lv.flatten(parameters.params)[0]
    result = {}
    for name, value in link.row.taken(rule, values, step).items():
        if name not in old:
            continue
        slots, structure = lv.flatten(old[name])
        given = value if name in rule.slots else jax.tree.leaves(value)
        made = [
            None
            if x is None
            else fitted(v, x, f"{name!r} of {target.where}{path and f', leaf {path!r},'}", SOURCE)
            for v, x, path in zip(given, slots, lv.paths(old[name]), strict=True)
        ]
        result[*target.path, name] = structure.unflatten(made)
    return result


def _slow_weights(slow: Any, slots: Any, where: str) -> list[Any]:
    if slow is None:
        raise ValueError(
            f"{where} keeps the slow weights, which Optax has among the parameters: pass "
            f"params=optax.LookaheadParams(fast, slow), as the Optax optimizer got them."
        )
    _, structure = lv.flatten(slots)
    return lv.align(structure, slow, slots, "slow parameters", "fast parameters")


def given(link: Link, state: Any, step: Any) -> dict[int, Any]:
    """The arrays of one unit for Optax, by their positions there."""
    rule, path = link.target.unit.transform, link.target.path
    pairs = {name: link.positions(name, lookup(state, (*path, name))) for name in link.row.slots}
    values: dict[str, Any] = {name: [x for x, _ in found] for name, found in pairs.items()}
    values |= {name: lookup(state, (*path, name)) for name in link.row.scalars}
    values = link.row.given(rule, values, step)
    result: dict[int, Any] = {}
    for name, found in pairs.items():
        if name in values:
            result |= {
                i: x for x, (_, i) in zip(values[name], found, strict=True) if x is not None and i is not None
            }
    for name, tree in link.whole().items():
        if name in values:
            result |= zip(jax.tree.leaves(tree), jax.tree.leaves(values[name]), strict=True)
    if link.row.is_first:
        result[getattr(link.item.state, link.row.is_first)] = np.asarray(step) == 0
    return result


def copied(copy: Copy, arrays: list[Any], fresh: Any, step: Any) -> Any:
    """Another library's state from Optax's arrays."""
    old, structure = jax.tree.flatten(lookup(fresh, copy.path))
    new = list(old)
    for mine, theirs in copy.pairs:
        new[mine] = fitted(arrays[theirs], jnp.asarray(old[mine]), ".".join(copy.path), SOURCE)
    for position in copy.counters:
        new[position] = placed(step, np.int32, (), old[position])
    return structure.unflatten(new)


def written(value: Any, old: Any, what: str) -> Any:
    """A copy of `value` in the dtype and the place of an array of Optax's, whose shape it must have."""
    if np.shape(value) != np.shape(old):
        raise ValueError(
            f"{what} has shape {np.shape(old)}, and in the state of gradtx it is {np.shape(value)}. Make "
            f"optax_state by the Optax optimizer's init, from the same parameters."
        )
    if jnp.issubdtype(jnp.result_type(old), jax.dtypes.prng_key):
        return value
    new = jnp.array(value, jnp.result_type(old), copy=True)
    return jax.device_put(new, old.sharding) if isinstance(old, jax.Array) and old.committed else new


@dataclasses.dataclass(frozen=True)
class InjectedNumber:
    """An injected hyperparameter of Optax: its position there, and what has its name in a state of gradtx."""

    name: str
    position: int
    where: str
    entries: list[Any]
    constants: list[Any]
    """Values of settings of that name, which are no numbers of the state."""


def injected_numbers(clock: Clock, state: Any) -> Iterator[InjectedNumber]:
    """Each injected hyperparameter of a clock."""
    if not clock.reading.injected or not clock.states:
        return
    entries = entries_of(lookup(state, clock.states[0]))
    settings = [u.transform.__dict__ for u in clock.tx.program.units if is_declared(u)]
    for injected in clock.reading.injected:
        for name, position in injected.positions.items():
            found = [
                entry
                for entry in entries
                if entry.parts[entry.own :] == (name,)
                and all(f".{group}." in f".{entry.path[0]}." for group in injected.groups)
            ]
            constants = [s[name] for s in settings if name in s and not isinstance(s[name], bool)]
            yield InjectedNumber(name, position, injected.where, found, constants)


def check_injected(clock: Clock, fresh: Any, arrays: list[Any]) -> None:
    """Raises where Optax's injected hyperparameters are not the numbers of tx; schedules are not compared."""
    different = []
    where = ""
    for number in injected_numbers(clock, fresh):
        theirs = np.asarray(arrays[number.position])
        mine = [e.read() for e in number.entries if e.is_settable]
        mine += number.constants if not number.entries else []
        if number.entries and not mine:
            continue
        if not mine or not all(_equal(theirs, x) for x in mine):
            own = " and ".join(show(x) for x in mine) or "not there"
            different.append(f"{number.name} is {show(tidy(theirs))} there and {own} in tx")
            where = number.where
    if different:
        raise ValueError(
            f"{where} has other hyperparameters than tx: {'; '.join(different)}. Numbers come from tx: build "
            f"it with those that were in force, and change them afterwards by gradtx.set_hyperparams; or "
            f"pass {where.removesuffix('hyperparams')}inner_state, to leave them out."
        )


def _equal(theirs: np.ndarray, mine: Any) -> bool:
    """Whether they are one number, in the dtype that Optax keeps it in."""
    if not isinstance(mine, int | float | np.number):
        return False
    rounding = 2 * float(jnp.finfo(theirs.dtype).eps) if jnp.issubdtype(theirs.dtype, jnp.floating) else 0.0
    return bool(
        np.isclose(float(theirs), float(np.asarray(mine).astype(theirs.dtype)), rtol=rounding, atol=0)
    )
