"""Bringing a state, and the parameters, into the formats of another transform."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.blocks import block_counts
from gradtx.core.engine.coded import Coded, coded, decoded, parts
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.formats import Format
from gradtx.core.engine.labels import said_of_each
from gradtx.core.engine.layout import active_leaves, check_state
from gradtx.core.engine.program import Program
from gradtx.core.engine.protocol import OptState
from gradtx.core.engine.steps import ROWS, Unit, is_declared
from gradtx.core.engine.transform import Transform
from gradtx.core.numbers.paths import Path, lookup, nest
from gradtx.core.numerics import compute_dtype, is_complex, is_trainable, like
from gradtx.core.spec.spec import is_key, show
from gradtx.core.splits import FORMS
from gradtx.interop.converted import Change, Converted
from gradtx.interop.fitting import own_transform, plain
from gradtx.wrappers.precise_params import PreciseParams, is_of_16_bits

PyTree = Any


def convert_state(
    old_tx: Transform, state: OptState, tx: Transform, params: PyTree, *, params_dtype: Any = None
) -> tuple[PyTree, Any, Converted]:
    """Brings a state into the formats of another transform, and the parameters with it.

    The two transforms are the same but for how things are kept: by `store`, `precision`, `mu_dtype` and the
    like, and by `precise_params`, which one of them may have and the other not. What a slot stands for is
    decoded and encoded again, to the nearest number also where the format rounds at random. Numbers, the step
    and everything else stay as they are in the state, whatever `tx` says; `gradtx.rebase(tx, state)` brings
    those of `tx`.

    Args:
        old_tx: the transform that made the state.
        state: an optimizer state, or what holds one: a `TrainState` or an `nnx.Optimizer`.
        tx: the transform that gets the state.
        params: the parameters; those that belong to the state. Of parameters of 16 bits under
            `precise_params` what is beside them counts too.
        params_dtype: the dtype of the parameters from now on, or path patterns with one for each leaf, or
            what else says something of each leaf; by default that of each. It is for leaves of real floats.

    Returns:
        The parameters, the state, and what changed, which prints as a table. Both are sharded as
        `tx.init(params)` shards them, and share no array with what was given. What keeps its form is the
        same bit for bit.

    Raises:
        ValueError: the transforms differ in more than formats: which of them, and how; or the state is not
            one of `old_tx`.
        TypeError: a transform is another library's; something is traced or abstract; the state is a batch.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params, tx = {"w": jnp.full((64, 128), 1.2345678)}, gradtx.adamw(1e-3)
        >>> state, small_tx = tx.init(params), gradtx.precision(tx, "7-bytes")
        >>> small, small_state, report = gradtx.convert_state(
        ...     tx, state, small_tx, params, params_dtype=jnp.bfloat16
        ... )
        >>> print(report)
                          before             after                         error
        params            float32  32.0 KiB  bfloat16 + int8   24.0 KiB  7.8e-06
        scale_by_adam.mu  float32  32.0 KiB  int8               8.2 KiB        0
        scale_by_adam.nu  float32  32.0 KiB  uint8_stochastic   8.2 KiB        0
        in all                     96.0 KiB                    40.5 KiB
        >>> back, state, _ = gradtx.convert_state(small_tx, small_state, tx, small, params_dtype="float32")
        >>> float(back["w"][0, 0])
        1.23455810546875
    """
    old, new = own_transform("convert_state", old_tx), own_transform("convert_state", tx)
    leaves, structure = lv.flatten(params)
    state = plain(state)
    if any(isinstance(x, Tracer | jax.ShapeDtypeStruct) for x in (*leaves, *jax.tree.leaves(state))):
        raise TypeError("convert_state takes arrays: call it outside of jit, and with a state that has them.")
    if isinstance(state, Mapping) and np.ndim(state.get("step", 0)):
        raise TypeError("convert_state takes one state, and this is a batch of states. Convert each of them.")
    check_state(old.program, state)
    made = [_Param(x) for x in leaves]
    for how, beside, on in _precise_units(old.program, state, params):
        for i in (i for i, works in enumerate(on) if works and is_of_16_bits(leaves[i])):
            made[i].how, made[i].beside = how, beside[i]
    dtypes = _dtypes(params_dtype, params)
    shapes = [
        x if d is None else jax.ShapeDtypeStruct(np.shape(x), d) for x, d in zip(leaves, dtypes, strict=True)
    ]
    hows: dict[int, str] = {}
    for how, _, on in _precise_units(new.program, None, structure.unflatten(shapes)):
        hows |= {i: how for i, works in enumerate(on) if works and is_of_16_bits(shapes[i])}
    for i, x in enumerate(made):
        x.convert(dtypes[i], hows.get(i))
    new_params = structure.unflatten([x.new for x in made])
    fresh = new.init(new_params)
    conversion, olds = _Conversion(made), _places(old.program, state, params)
    result = conversion.state(new.program, plain(fresh), new_params, olds, state["step"], "")
    if (left := next(olds, None)) is not None:
        raise ValueError(_differ(f"{left.unit.where} of old_tx has no counterpart in tx"))
    changes = {name: tally.change() for name, tally in conversion.tallies.items()}
    return (
        new_params,
        jax.tree.structure(fresh).unflatten(jax.tree.leaves(result)),
        Converted(_param_change(made), changes),
    )


def _dtypes(said: Any, params: PyTree) -> list[Any]:
    """The dtype of each parameter from now on; of what is no real float the one it has."""
    leaves, _ = lv.flatten(params)
    own = [None if x is None else getattr(x, "dtype", None) or jnp.result_type(x) for x in leaves]
    if said is None:
        return own
    wanted: list[Any] = [said] * len(leaves)
    if not _is_dtype(said):
        asked = [lv.is_trainable_leaf(x) for x in leaves]
        where = "convert_state: params_dtype"
        found = said_of_each(said, params, asked, where, "dtypes", "a dtype", _is_dtype)
        wanted = [x[0] if x and x[0] is not None else None for x in found]
    for i, dtype in enumerate(wanted):
        if not lv.is_trainable_leaf(leaves[i]) or is_complex(own[i]) or dtype is None:
            continue
        if not _is_dtype(dtype) or not is_trainable(np.dtype(dtype)) or is_complex(np.dtype(dtype)):
            raise ValueError(f"convert_state: params_dtype must be real floating dtypes, got {show(dtype)}.")
        own[i] = np.dtype(dtype)
    return own


def _is_dtype(x: Any) -> bool:
    try:
        return x is not None and not isinstance(x, Mapping) and bool(np.dtype(x).name)
    except TypeError:
        return False


def _differ(how: str) -> str:
    return (
        f"convert_state: {how}. The two transforms must be the same but for the formats of slots and "
        f"precise_params."
    )


@dataclasses.dataclass(frozen=True)
class _Place:
    """A transform, and where a state has what it keeps.

    Attributes:
        unit: the transform.
        program: the program that it is of.
        state: the state of that program.
        params: the parameters as that program sees them.
    """

    unit: Unit
    program: Program
    state: Any
    params: PyTree

    def names(self) -> Any:
        """What it is called, and what it keeps."""
        tx = self.unit.transform
        if not is_declared(self.unit):
            return type(tx).__name__
        wrapped = () if not tx.whole else tx.wrapped()
        return tx.name, {*tx.leaf_slots}, {*tx.matrix_slots}, {*tx.scalars}, {*wrapped}

    def kept(self, name: str) -> Any:
        """What the state has under a name."""
        return lookup(self.state["slots"], (*self.unit.path, name))

    def arrays(self, name: str) -> tuple[dict[str, Any], Any]:
        """The arrays of a slot by leaf or stack, as a `Coded` where they are in a format; and its tree."""
        path = (*self.unit.path, name)
        tree, storage = self.kept(name), self.program.stored.get(path)
        beside = self.program.scale_paths.get(path)
        paths, (flat, structure) = lv.paths(tree), lv.flatten(tree)
        if storage is None:
            return dict(zip(paths, flat, strict=True)), structure
        if path in self.program.stack_paths:
            formats = [storage.of_stacks()] * len(flat)
        else:
            formats = storage.of_leaves(self.params, len(flat))
        scales = [None] * len(flat) if beside is None else lv.flatten(lookup(self.state["slots"], beside))[0]
        given = zip(flat, scales, formats, paths, strict=True)
        return {each[3]: coded(storage, *each, self.state["step"]) for each in given}, structure


def _seen(program: Program, params: PyTree) -> dict[Path, PyTree]:
    """The parameters that each transform of a program works on, by its path."""
    leaves, structure = lv.flatten(params)
    active = active_leaves(program, params, leaves)

    def kept(path: Path) -> PyTree:
        return structure.unflatten([x if on else None for x, on in zip(leaves, active[path], strict=True)])

    return {unit.path: kept(unit.path) for unit in program.units}


def _is_precise(unit: Unit) -> bool:
    # What is wrapped by it may be another library's, whose state has no places.
    return isinstance(unit.transform, PreciseParams) and isinstance(unit.transform.inner, Composed)


def _places(program: Program, state: Any, params: PyTree) -> Iterator[_Place]:
    """The transforms in order, those inside of `precise_params` in its place."""
    seen = _seen(program, params)
    for unit in program.units:
        if _is_precise(unit):
            inner = lookup(state["slots"], (*unit.path, "inner"))
            check_state(unit.transform.inner.program, inner)
            yield from _places(program.wrapped[*unit.path, "inner"].program, inner, seen[unit.path])
        else:
            yield _Place(unit, program, state, params)


def _precise_units(program: Program, state: Any, params: PyTree) -> Iterator[tuple[str, Any, list[bool]]]:
    """Each `precise_params`: how, what is beside each leaf (None without a state), and on which it works."""
    seen = _seen(program, params)
    for unit in program.units:
        if isinstance(unit.transform, PreciseParams):
            on = [lv.is_trainable_leaf(x) for x in lv.flatten(seen[unit.path])[0]]
            beside = None
            if state is not None:
                beside = lv.flatten(lookup(state["slots"], (*unit.path, "beside")))[0]
            yield unit.transform.how, beside, on
    for path, part in program.wrapped.items():
        transform = program.unit_at[path[:-1]].transform
        if isinstance(part, Composed) and transform.sees_leaves:
            inner = None if state is None else lookup(state["slots"], path)
            yield from _precise_units(part.program, inner, transform.view(seen[path[:-1]]))


@dataclasses.dataclass
class _Param:
    """A parameter: its form before and now. Of one that is no real float only the value."""

    old: Any
    how: str | None = None
    beside: Any = None
    new: Any = None
    new_how: str | None = None
    new_beside: Any = None
    error: float = 0.0

    @property
    def exact(self) -> Any:
        """What it stands for."""
        return self.old if self.how is None else FORMS[self.how].value(self.old, self.beside)

    def convert(self, dtype: Any, new_how: str | None) -> None:
        """Brings it into another dtype and form."""
        self.new_how = new_how
        if self.old is None or not lv.is_trainable_leaf(self.old):
            self.new = self.old if not isinstance(self.old, jax.Array) else jnp.array(self.old, copy=True)
        elif dtype == jnp.result_type(self.old) and new_how == self.how:
            self.new, self.new_beside = jax.tree.map(jnp.copy, (self.old, self.beside))
        else:
            made = _written(self.old, self.beside, self.how, new_how, dtype)
            self.new, self.new_beside, error = made
            self.error = float(error)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _written(old: Any, beside: Any, how: Any, new_how: Any, dtype: Any) -> tuple[Any, Any, Any]:
    exact = old if how is None else FORMS[how].value(old, beside)
    if new_how is None:
        new, rest = exact.astype(dtype), None
        stands_for = new
    else:
        form = FORMS[new_how]
        # At random only where an update would be lost: here the nearest is as good as it gets.
        narrowed = exact.astype(jnp.float32)
        new = narrowed.astype(dtype) if form.is_random else form.write(narrowed, dtype, None)
        rest = form.rest(narrowed, new)
        stands_for = form.value(new, rest)
    return new, rest, _apart(exact, stands_for)


def _apart(exact: jax.Array, kept: jax.Array) -> jax.Array:
    """The largest difference, as a part of the largest element; what is not finite aside."""
    wide = compute_dtype(exact.dtype, kept.dtype)
    exact, kept = exact.astype(like(exact.dtype, wide)), kept.astype(like(kept.dtype, wide))
    finite = jnp.isfinite(exact) & jnp.isfinite(kept)
    most = jnp.max(jnp.abs(jnp.where(finite, exact, 0)), initial=0)
    apart = jnp.max(jnp.abs(jnp.where(finite, exact - kept, 0)), initial=0)
    return jnp.where(most > 0, apart / jnp.where(most > 0, most, 1), 0)


def _nbytes(*arrays: Any) -> int:
    return sum(x.nbytes for x in arrays if x is not None)


@dataclasses.dataclass
class _Tally:
    """What is known of one slot so far."""

    before: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    after: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    error: float = 0.0

    def change(self) -> Change:
        """All of it."""
        before, after = (
            ", ".join(sorted(x, key=lambda k: -x[k])) or "nothing" for x in (self.before, self.after)
        )
        return Change(before, after, self.before.total(), self.after.total(), self.error)


def _form(x: Any) -> tuple[str, int]:
    """The name of the format of an array, and its bytes."""
    if isinstance(x, Coded):
        return x.format.name, _nbytes(x.values, x.scales)
    return jnp.result_type(x).name, x.nbytes


def _param_change(made: list[_Param]) -> Change:
    tally = _Tally()
    for x in made:
        if x.old is None or not lv.is_trainable_leaf(x.old):
            continue
        for counts, p, beside, how in (
            (tally.before, x.old, x.beside, x.how),
            (tally.after, x.new, x.new_beside, x.new_how),
        ):
            name = jnp.result_type(p).name
            name += f" + {beside.dtype.name}" if beside is not None else "_stochastic" if how else ""
            counts[name] += _nbytes(jnp.asarray(p), beside)
        tally.error = max(tally.error, x.error)
    return tally.change()


class _Conversion:
    """One call: what becomes of the state of a program, and of those inside of it."""

    def __init__(self, made: list[_Param]) -> None:
        self.made, self.tallies = made, dict[str, _Tally]()

    def state(
        self, program: Program, fresh: Any, params: PyTree, olds: Iterator[_Place], step: Any, around: str
    ) -> Any:
        """A state of a program from what the old one has, in the place and form of a fresh one."""
        slots: dict[Path, Any] = {}
        scopes: dict[Path, tuple[Any, Path]] = {}
        seen = _seen(program, params)
        for unit in program.units:
            if _is_precise(unit):
                inner, at = program.wrapped[*unit.path, "inner"], (*unit.path, "inner")
                own = lookup(fresh["slots"], at)
                slots[at] = self.state(inner.program, own, seen[unit.path], olds, step, around)
                slots[*unit.path, "beside"] = self._beside(lookup(fresh["slots"], (*unit.path, "beside")))
                continue
            new, old = _Place(unit, program, fresh, params), next(olds, None)
            if old is None:
                raise ValueError(_differ(f"{around}{unit.where} of tx has no counterpart in old_tx"))
            if old.names() != new.names():
                raise ValueError(
                    _differ(f"{around}{unit.where} of tx stands where old_tx has {old.unit.where}")
                )
            for key, (scope, _) in unit.sources.items():
                if key in old.unit.sources:
                    scopes[scope] = old.state, old.unit.sources[key][0]
            self._unit(new, old, slots, seen, around)
        return {
            "step": _in_place_of(fresh["step"], step),
            "numbers": self._numbers(fresh["numbers"], scopes, around),
            "slots": nest(slots),
        }

    def _numbers(self, fresh: Any, scopes: Mapping[Path, tuple[Any, Path]], around: str) -> Any:
        """The numbers of the old state, under the names that they have here."""
        found = {}
        for path, (state, old) in scopes.items():
            if path[0] not in fresh:
                continue
            mine, theirs = fresh[path[0]], state["numbers"].get(old[0])
            if jax.tree.structure(mine) != jax.tree.structure(theirs) or any(
                np.shape(a) != np.shape(b) for a, b in zip(*map(jax.tree.leaves, (mine, theirs)), strict=True)
            ):
                own, other = (", ".join(sorted(x or {})) or "none" for x in (mine, theirs))
                raise ValueError(
                    _differ(
                        f"{around}{path[0]} of tx has the numbers {own}, and {old[0]} of old_tx has {other}"
                    )
                    + " Give tx the same kinds of numbers, also schedules, and change them afterwards: "
                    "gradtx.rebase(tx, state)."
                )
            found[path[0]] = jax.tree.map(_in_place_of, mine, theirs)
        return {key: found.get(key, x) for key, x in fresh.items()}

    def _beside(self, fresh: Any) -> Any:
        leaves, structure = lv.flatten(fresh)
        return structure.unflatten(
            [
                None if x is None else _in_place_of(x, p.new_beside)
                for x, p in zip(leaves, self.made, strict=True)
            ]
        )

    def _unit(
        self, new: _Place, old: _Place, slots: dict[Path, Any], seen: dict[Path, PyTree], around: str
    ) -> None:
        """What one transform keeps."""
        unit, tx = new.unit, new.unit.transform
        where = f"{around}{unit.where}"
        if not is_declared(unit):
            own, theirs = (lookup(x.state["slots"], x.unit.path) for x in (new, old))
            slots[unit.path] = _copied(own, theirs, where)
            return
        for name in (*tx.leaf_slots, *tx.matrix_slots):
            path = (*unit.path, name)
            values, scales, structure = self._slot(new, old, name, where)
            slots[path] = structure.unflatten(values)
            if (beside := new.program.scale_paths.get(path)) is not None:
                slots[beside] = structure.unflatten(scales)
        if tx.matrix_slots:
            slots[*unit.path, ROWS] = _copied(new.kept(ROWS), old.kept(ROWS), f"{where}.{ROWS}")
        for name in tx.scalars:
            slots[*unit.path, name] = _copied(new.kept(name), old.kept(name), f"{where}.{name}")
        if not tx.whole:
            return
        for name in tx.wrapped():
            path = (*unit.path, name)
            mine, theirs = new.program.wrapped[path], old.program.wrapped[*old.unit.path, name]
            if not isinstance(mine, Composed) or not isinstance(theirs, Composed):
                slots[path] = _copied(new.kept(name), old.kept(name), f"{where}.{name}")
                continue
            check_state(theirs.program, old.kept(name))
            own = old.unit.transform.view(_seen(old.program, old.params)[old.unit.path])
            inside = _places(theirs.program, old.kept(name), own)
            view = tx.view(seen[unit.path])
            inner = f"{where}.{'' if name == 'inner' else f'{name}.'}"
            slots[path] = self.state(
                mine.program, new.kept(name), view, inside, old.kept(name)["step"], inner
            )
            if (left := next(inside, None)) is not None:
                raise ValueError(_differ(f"{inner}{left.unit.where} of old_tx has no counterpart in tx"))

    def _slot(self, new: _Place, old: _Place, name: str, where: str) -> tuple[list[Any], list[Any], Any]:
        """A slot: the values, the scales, and their tree."""
        mine, structure = new.arrays(name)
        theirs, _ = old.arrays(name)
        tally = self.tallies.setdefault(f"{where}.{name}", _Tally())
        if mine.keys() != theirs.keys():
            differ = sorted(mine.keys() ^ theirs.keys())
            raise ValueError(_differ(f"only one of the two has {name!r} of {differ[0]!r} in {where}"))
        made = []
        for path, like_it in mine.items():
            x = theirs[path]
            if like_it is None or x is None:
                if like_it is not x:
                    raise ValueError(_differ(f"only one of the two has {name!r} of {path!r} in {where}"))
                made.append(None)
                continue
            if np.shape(x) != np.shape(like_it):
                raise ValueError(
                    f"convert_state: {name!r} of {path!r} in {where} has shape {np.shape(x)}, and "
                    f"{np.shape(like_it)} for these params. Pass the parameters that the state belongs to."
                )
            converted, error = _recoded(x, like_it)
            for counts, array in ((tally.before, x), (tally.after, converted)):
                kind, nbytes = _form(array)
                counts[kind] += nbytes
            tally.error = max(tally.error, float(error))
            made.append(converted)
        return *parts(made), structure


def _encoding(x: Any) -> Any:
    """What two arrays have in common of which one can be taken for the other."""
    if isinstance(x, Coded):
        return x.format.name.removesuffix("_stochastic"), x.values.dtype
    return jnp.result_type(x)


def _recoded(x: Any, like_it: Any) -> tuple[Any, Any]:
    """A slot in the form and the place of another one, and by how much an element has changed."""
    if _encoding(x) == _encoding(like_it):
        if not isinstance(x, Coded):
            return _in_place_of(like_it, x), 0.0
        scales = x.scales if x.scales is None else _in_place_of(like_it.scales, x.scales)
        return Coded(_in_place_of(like_it.values, x.values), scales, None, like_it.format), 0.0
    kept = like_it.format if isinstance(like_it, Coded) else None
    beside = None if kept is None or like_it.scales is None else like_it.scales
    dtype = jnp.result_type(like_it if kept is None else like_it.values if beside is None else beside)
    x = Coded(x.values, x.scales, None, x.format) if isinstance(x, Coded) else x
    values, scales, error = _encoded(x, kept, dtype)
    values = _in_place_of(like_it if kept is None else like_it.values, values)
    if kept is None:
        return values, error
    return Coded(values, None if scales is None else _in_place_of(beside, scales), None, kept), error


@functools.partial(jax.jit, static_argnums=(1, 2))
def _encoded(x: Any, kept: Format | None, dtype: Any) -> tuple[Any, Any, Any]:
    """A slot in another form: the values, the scales, and how far it is apart. To the nearest, always."""
    value = decoded(x)
    if kept is None:
        made = value if is_complex(value.dtype) == is_complex(dtype) else value.real
        made = made.astype(dtype)
        return made, None, _apart(value, made)
    wide = value.astype(dtype if kept.scaled else compute_dtype(value.dtype))
    values, scales = kept.encode(wide, block_counts(wide.shape), None)
    scales = None if scales is None else scales.astype(dtype)
    return values, scales, _apart(wide, kept.decode(values, scales))


def _copied(fresh: Any, old: Any, where: str) -> Any:
    """A tree of the old state as it is, in the place of the fresh one."""
    if jax.tree.structure(fresh) != jax.tree.structure(old):
        raise ValueError(_differ(f"{where} is another tree in the two"))
    return jax.tree.map(_in_place_of, fresh, old)


def _in_place_of(fresh: Any, x: Any) -> Any:
    """A copy of an array, where a fresh one is."""
    if is_key(x):
        return jnp.copy(x)
    made = jnp.array(x, copy=True)
    return jax.device_put(made, fresh.sharding) if isinstance(fresh, jax.Array) and fresh.committed else made
