"""Reading and setting hyperparameters, in a state or in what holds one.

`x` is an optimizer state, anything that contains one (an `optax.chain`'s state), a `TrainState`, or an
`nnx.Optimizer`. A name is the end of a number's dotted path that nothing else has: `learning_rate`,
`learning_rate.peak_value`, `guard.decay`. The path is that of groups and transforms around it, from the
outermost: `head.accumulate.adamw.b1`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx.core.numbers.domains import domain_of
from gradtx.core.numbers.paths import Path
from gradtx.core.numbers.schedule import (
    CALLABLE,
    COMPLEMENT,
    check_schedules,
    read_schedule,
    split_schedules,
    with_number,
)
from gradtx.core.numbers.states import CLOCK, held, mapped_states, needs_its_name, nested_states
from gradtx.core.numbers.steps import REST, given
from gradtx.core.numbers.tidy import tidy
from gradtx.core.spec.arguments import suggestion
from gradtx.core.spec.fields import as_number

T = TypeVar("T")
Kind = Literal["number", "decay", "schedule", "code"]


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One readable name of a state: its parts, where its own part starts, and what it stands for.

    `shown` is where a name starts that says what it is, if nothing else ends with it.
    """

    parts: Path
    own: int
    shown: int
    kind: Kind
    state: Any
    path: Path
    value: Any

    def ends_with(self, query: Path) -> bool:
        return self.parts[-len(query) :] == query

    @property
    def is_settable(self) -> bool:
        return self.kind in ("number", "decay")

    def read(self) -> Any:
        if self.kind == "schedule":
            # A wrapper that counts something else than calls has a clock of its own beside its slots.
            clock = self.state["slots"].get(self.path[0], {}).get(CLOCK, self.state["step"])
            return tidy(read_schedule(self.value)(array_of(clock)))
        return tidy(self.value, self.kind == "decay")


def array_of(x: Any) -> Any:
    """The array of a state's leaf, which may stand in a model framework's variable."""
    return x if isinstance(x, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct) else x[...]


def states_of(x: Any) -> list[tuple[Path, Any]]:
    """Every gradtx state in `x` and where it stands, the outermost first; an error where it holds none."""
    states = nested_states(x)
    if not states:
        raise TypeError(f"There is no gradtx state in this {type(x).__name__}.{_what_else(x)}")
    return states


def _what_else(x: Any) -> str:
    """What is there in place of a state, and what to do."""
    if callable(getattr(x, "init", None)) and callable(getattr(x, "update", None)):
        return " It is a transform: pass the state that its init(params) makes."
    found = jax.tree.leaves(held(x), is_leaf=_has_fields)
    if not any(type(part).__module__.startswith("optax.") for part in found if _has_fields(part)):
        return " Pass the state that tx.init(params) makes, or what holds it."
    what = (
        " It is a state of Optax: gradtx.from_optax_state(tx, state, params) makes a gradtx state of it, for "
        "the transform tx of gradtx that does the same."
    )
    if isinstance(getattr(held(x), "hyperparams", None), Mapping):
        what += " What was injected is in its field hyperparams."
    return what


def _has_fields(x: Any) -> bool:
    return hasattr(x, "_fields")


def entries_of(x: Any) -> list[_Entry]:
    """What can be read in each state that `x` holds; an error where it holds none."""
    result: list[_Entry] = []
    for place, state in states_of(x):
        # The keys are the transforms, and below are their arguments.
        for key, numbers in sorted(split_schedules(_arrays(state["numbers"])).items()):
            parts = (*place, *key.split("."))
            shown = len(parts) - needs_its_name(state, key)
            result.extend(_walk(state, numbers, parts, (key,), (len(parts), shown)))
    return result


def _arrays(numbers: Any) -> Any:
    """The numbers of a state on the host, unless they are traced or abstract."""
    if isinstance(numbers, Mapping):
        return {key: _arrays(node) for key, node in numbers.items()}
    x = array_of(numbers)
    return x if isinstance(x, Tracer | jax.ShapeDtypeStruct) else np.asarray(x)


def _walk(state: Any, node: Any, parts: Path, path: Path, starts: tuple[int, int]) -> Iterator[_Entry]:
    rests = {key + REST for key in node} & set(node)
    for key in sorted(set(node) - rests, key=lambda k: k.removeprefix(COMPLEMENT)):
        child, here = node[key], (*path, key)
        name = (*parts, key.removeprefix(COMPLEMENT))
        if not isinstance(child, Mapping):
            kind: Kind = "decay" if key.startswith(COMPLEMENT) else "number"
            value = given(child, node[key + REST]) if key + REST in rests else child
            yield _Entry(name, *starts, kind, state, here, value)
        elif set(child) == {CALLABLE}:
            yield _Entry(name, *starts, "code", state, (*here, CALLABLE), child[CALLABLE])
        elif read_schedule(child) is not None:
            yield _Entry(name, *starts, "schedule", state, here, child)
            ((schedule, inner),) = child.items()
            yield from _walk(state, inner, name, (*here, schedule), starts)
        else:
            yield from _walk(state, child, name, here, starts)


def by_name(entries: list[_Entry], *, bare: bool = False) -> dict[str, _Entry]:
    """Each entry under a name that nothing else ends with: a short one if that is one, else the whole path.

    With `bare` also that of a wrapper's number is its own part alone, as in a formula.
    """
    result = {}
    for entry in entries:
        short = entry.parts[entry.own if bare else entry.shown :]
        alone = sum(other.ends_with(short) for other in entries) == 1
        name = ".".join(short if alone else entry.parts)
        # Labels may have dots, and two paths then read alike.
        result[name if name not in result else f"{len(result)}.{name}"] = entry
    return result


def hyperparams(x: Any) -> dict[str, Any]:
    """The hyperparameters in force, by name: the values that the next update will use.

    Args:
        x: an optimizer state, or what holds one: a `TrainState`, an `nnx.Optimizer`, another library's state.

    Returns:
        A dict of Python floats that print as they were given. Where a value is a schedule, its name has the
        value for the next update, and `<name>.<number>` each number of the schedule. A batch of states gives
        numpy arrays; inside a traced function the values are tracers.

    Raises:
        TypeError: there is no gradtx state in `x`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.hyperparams(gradtx.lion(3e-4).init(jnp.zeros(3)))
        {'b1': 0.9, 'b2': 0.99, 'learning_rate': 0.0003, 'weight_decay': 0.001}
    """
    return {name: entry.read() for name, entry in by_name(entries_of(x)).items()}


def set_hyperparams(x: T, **values: Any) -> T:
    """`x` with some hyperparameters set. Nothing is compiled again.

    Args:
        x: an optimizer state, or what holds one; an `nnx.Optimizer` is changed in place and returned.
        **values: numbers by name, as `hyperparams` lists them. A dotted name goes in a dict:
            `set_hyperparams(state, **{"learning_rate.peak_value": 1e-3})`.

    Returns:
        The same kind of object; the arrays keep dtype, shape, sharding and placement.

    Raises:
        KeyError: a name is unknown or ambiguous; the names to use are listed.
        ValueError: the name's value is a schedule (what can be set is listed), or the number is out of its
            domain, by itself or together with the other numbers of its schedule.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> state = gradtx.adamw(3e-4).init(jnp.zeros(3))
        >>> gradtx.hyperparams(gradtx.set_hyperparams(state, weight_decay=0.2))["weight_decay"]
        0.2
    """
    entries = entries_of(x)
    changes: list[tuple[_Entry, Any]] = []
    for name, value in values.items():
        entry = _find(entries, name)
        domain = domain_of(entry.path)
        shape = np.shape(entry.value)
        if np.shape(value) == shape != ():
            given = np.vectorize(lambda v, d=domain, n=name: as_number(n, float(v), d))(np.asarray(value))
        else:
            given = as_number(name, value, domain)
            if callable(given):
                raise TypeError(f"{name} must be a number here: {REBUILD}")
        changes.append((entry, 1 - given if entry.kind == "decay" else given))
    return _changed(x, changes)


REBUILD = "another schedule is another program: build a new transform and use gradtx.rebase(tx, state)."


def _find(entries: list[_Entry], name: str) -> _Entry:
    names = by_name(entries)
    found = [e for e in entries if e.ends_with(tuple(name.split(".")))]
    if name in names:
        found = [names[name]]
    settable = [n for n, e in names.items() if e.is_settable]
    if not found:
        # A wrapper's number is meant by its last part too.
        known = dict.fromkeys([*settable, *(n.rpartition(".")[2] for n in settable)])
        hint = " ".join(["", suggestion(name, None, [*known])]).rstrip()
        raise KeyError(f"There is no hyperparameter {name!r}.{hint} There are {', '.join(settable)}.")
    if len(found) > 1:
        which = [n for n, e in names.items() if e in found]
        raise KeyError(f"{name!r} is ambiguous: it may be {', '.join(which)}.")
    (entry,) = found
    if entry.kind == "code":
        raise ValueError(f"{name} is a function of the step, which is code: {REBUILD}")
    if entry.kind == "schedule":
        inner = [n for n in settable if names[n].path[: len(entry.path)] == entry.path]
        raise ValueError(
            f"{name} is a schedule, which sets it each step. What can be set is "
            f"{', '.join(inner) or 'nothing'}; {REBUILD}"
        )
    return entry


def placed(value: Any, dtype: Any, shape: tuple[int, ...], beside: Any) -> Any:
    """`value` as an array of a dtype and shape, placed as `beside` is."""
    if isinstance(value, Tracer) or isinstance(beside, Tracer):
        return jnp.broadcast_to(jnp.asarray(value).astype(dtype), shape)
    host = np.broadcast_to(np.asarray(value, dtype), shape)
    if isinstance(beside, jax.Array) and beside.committed:
        return jax.device_put(host, _along(beside.sharding, len(shape)))
    return jnp.array(host)


def _along(sharding: Any, ndim: int) -> Any:
    """A sharding for an array with more axes, in the form in which `init` gives it."""
    if not isinstance(sharding, NamedSharding) or AxisType.Explicit not in sharding.mesh.axis_types:
        return sharding
    spec = PartitionSpec(*sharding.spec, *[None] * (ndim - len(sharding.spec)))
    return NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)


def _changed(x: T, changes: list[tuple[_Entry, Any]]) -> T:
    in_place = False

    def merged(old: Any, before: Any, after: Any) -> Any:
        nonlocal in_place
        if after is before:
            return old
        if isinstance(old, Mapping):
            return {key: merged(old[key], before[key], after[key]) for key in old}
        array = array_of(old)
        new = placed(after, array.dtype, array.shape, array)
        if array is old:
            return new
        in_place, old[...] = True, new
        return old

    def numbers(state: Any) -> Any:
        before = after = _arrays(state["numbers"])
        for entry, value in changes:
            if entry.state is state:
                after = with_number(after, entry.path, value)
        check_schedules(split_schedules(after))
        return merged(state["numbers"], before, after)

    states = {id(entry.state): entry.state for entry, _ in changes}
    new = {key: numbers(state) for key, state in states.items()}
    if in_place:
        return x

    return mapped_states(lambda s: {**s, "numbers": new.get(id(s), s["numbers"])}, x)


def step_count(x: Any) -> Any:
    """The number of updates made so far: a Python int, or an array for a batch of states.

    Args:
        x: an optimizer state, or what holds one; of nested states the outermost counts.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.step_count(gradtx.adam(1e-3).init(jnp.zeros(3)))
        0
    """
    (_, outermost), *_ = states_of(x)
    step = array_of(outermost["step"])
    return step if isinstance(step, Tracer) or step.ndim else int(step)
