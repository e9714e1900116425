"""Laws for transforms of this library: numbers in the state, absent gradients, masks, reprs."""

from __future__ import annotations

import functools
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx.core.engine.leaves import flatten, is_trainable_leaf, paths
from gradtx.core.numbers.domains import domain_of
from gradtx.core.numbers.paths import Path, lookup
from gradtx.core.numbers.schedule import COMPLEMENT, split_schedules, with_number
from gradtx.core.numbers.steps import REST
from gradtx.core.numerics import abs_sq
from gradtx.core.spec.spec import FACTORIES, Spec
from gradtx.testing.case import Case, changed, copied, law_of_ours, like_params, stacked_leaves
from gradtx.testing.compare import (
    PyTree,
    close,
    identical,
    layout,
    leaf_paths,
    wide,
    x64,
)


@law_of_ours
def one_compilation_serves_all_settings(case: Case) -> None:
    """Init, steps, 100 settings and steps again: one program."""
    step = case.jitted
    params, state, _ = step(copied(case.params), copied(case.start), case.grads[0])
    # Other laws may have called it with numpy arrays, for which JAX has an entry of its own.
    before = step._cache_size()
    for i in range(100):
        state = changed(case, state, 1 - i / 200)
        params, state, _ = step(copied(params), state, case.grads[i % len(case.grads)])
    # Where an argument is float0, JAX does not use the cache whose size this is.
    programs = max(1 + step._cache_size() - before, case.traces)
    assert programs == 1, f"{programs} programs for 100 settings"


@law_of_ours
def numbers_live_in_the_state(case: Case) -> None:
    """The state of a transform of other numbers continues as that transform would."""
    other = case.alternative
    if other is None:
        return
    step = functools.partial(case.update, other)
    expected = case.run(other.init(case.params), step=jax.jit(step) if case.compiled else step)
    old = case.params
    for (one, _, u), (two, _, _) in zip(case.run(other.init(case.params)), expected, strict=True):
        close(one, two, "params", old, like_params(u, old), **case.rounding)
        old = two


@law_of_ours
def absent_gradients_change_nothing(case: Case) -> None:
    """`None` or float0 for a gradient: the update is `None`, and the slots keep every bit."""
    params, state, _ = case.trajectory[0]
    # Each kind on one leaf of two: it is the tree that is looked at, before any arithmetic.
    for turn, i in enumerate(case.trainable):
        absent = np.zeros(flatten(params)[0][i].shape, jax.dtypes.float0) if turn % 2 else None
        grads = case.with_leaf(case.grads[1], i, lambda g, absent=absent: absent)
        new, after, updates = case.update(case.tx, params, state, grads)
        where = f"leaf {paths(params)[i]} without a gradient:"
        assert flatten(updates)[0][i] is None, f"{where} its update is not None"
        identical(flatten(new)[0][i], flatten(params)[0][i], f"{where} params")
        identical(case.leaf_slots(after, i), case.leaf_slots(state, i), where)


@law_of_ours
def masked_leaves_cost_no_state(case: Case) -> None:
    """A leaf that is masked out has no slots, and the others move as they would without it."""
    last = case.trainable[-1]
    mask = case.with_leaf(jax.tree.map(is_trainable_leaf, case.params), last, lambda x: False)
    tx = gradtx.masked(case.tx, mask)
    state = tx.init(case.params)
    for path, slot in case.leaf_slots(state, last).items():
        assert slot is None, f"{path} of the masked leaf {paths(case.params)[last]} is {layout(slot)}"
    updates, _ = tx.update(case.grads[0], state, case.params, **case.extra)
    identical(
        np.asarray(flatten(updates)[0][last], flatten(case.grads[0])[0][last].dtype),
        np.asarray(flatten(case.grads[0])[0][last]),
        "the update of the masked leaf",
    )
    if len(case.trainable) == 1:
        return
    rest, grads = (case.with_leaf(tree, last, lambda x: None) for tree in (case.params, case.grads[0]))
    expected, _ = case.tx.update(grads, case.tx.init(rest), rest, **case.extra)
    identical(case.with_leaf(updates, last, lambda x: None), expected, "update beside a masked leaf,")


@law_of_ours
def slots_are_what_they_are_declared(case: Case) -> None:
    """A slot that is declared never negative is never; of one that is a mean, another value is forgotten."""
    params, last, _ = case.trajectory[-1]
    for state in (case.start, *(state for _, state, _ in case.trajectory)):
        for path, slot in declared_slots(case.tx.program):
            for where, x in _floats(path, state) if slot.nonnegative else ():
                assert not (wide(x) < 0).any(), f"{where} is declared nonnegative, and is {np.asarray(x)}"
    for path, slot in declared_slots(case.tx.program):
        if not slot.mean:
            continue
        doubled = _with(last, path, jax.tree.map(lambda x: x + x, lookup(last, path)))
        one, other = last, doubled
        for g in (*case.grads, *case.grads):
            # At the same parameters, so that gradients with a decay of weights are the same too.
            one, other = (case.step(params, state, g)[1] for state in (one, other))
        before, after = (
            [np.abs(wide(x) - wide(y)).sum() for (_, x), (_, y) in zip(a, b, strict=True)]
            for a, b in (
                (_floats(path, last), _floats(path, doubled)),
                (_floats(path, one), _floats(path, other)),
            )
        )
        for was, remains, (where, x) in zip(before, after, _floats(path, last), strict=True):
            # To round to 16 bits may move a number by more than is forgotten in some steps.
            is_rounded = x.dtype.itemsize < 4
            assert is_rounded or remains < was or was == 0, (
                f"{where} is declared a mean, and a difference of {was} in it is {remains} after some steps"
            )


def declared_slots(program: Any, prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The slots of a program and of what it wraps that are numbers in the state, by their paths in it."""
    for unit in program.units:
        for name, slot in getattr(unit.transform, "slots", {}).items():
            if (*unit.path, name) not in program.scale_paths:
                yield (*prefix, "slots", *unit.path, name), slot
    for path, part in program.wrapped.items():
        if hasattr(part, "program"):
            yield from declared_slots(part.program, (*prefix, "slots", *path))


def _floats(path: Path, state: PyTree) -> list[tuple[str, Any]]:
    tree = lookup(state, path)
    named = zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True)
    return [("/".join((*path, leaf)), x) for leaf, x in named if jnp.issubdtype(x.dtype, jnp.inexact)]


def _with(tree: PyTree, path: Path, value: PyTree) -> PyTree:
    """Nested dicts with another value at a path."""
    return {**tree, path[0]: _with(tree[path[0]], path[1:], value)} if path else value


@law_of_ours
def repr_rebuilds_it(case: Case) -> None:
    """The repr is code for an equal object; a pickle is one too; equal objects have equal hashes."""
    tx, code = case.tx, repr(case.tx)
    parts = list(_parts(tx))
    # Of what was defined in a function or a notebook Python makes no pickle.
    if all(_is_importable(x) for x in parts):
        unpickled = pickle.loads(pickle.dumps(tx))
        assert unpickled == tx and hash(unpickled) == hash(tx), f"{tx!r} came out of pickle as {unpickled!r}"
    if "<" not in code:
        # Whoever evaluates it has the classes of their own rules at hand.
        names = _Modules({**{x.__name__: x for x in parts if isinstance(x, type)}, **FACTORIES})
        rebuilt = eval(code, names)
        assert rebuilt == tx and hash(rebuilt) == hash(tx), f"{code} gave {rebuilt!r}"
        assert repr(rebuilt) == code, f"{code} gave {rebuilt!r}"
    if case.alternative is not None and gradtx.hyperparams(case.start):
        assert case.alternative != tx, f"{case.alternative!r} == {tx!r}"


def _parts(x: Any) -> Iterator[Any]:
    """The classes and the functions that a transform is made of."""
    if isinstance(x, Spec):
        yield type(x)
        _, args, kwargs = x._call()
        yield from _parts([*args, *kwargs.values()])
    elif isinstance(x, tuple | list):
        for part in x:
            yield from _parts(part)
    elif isinstance(x, dict):
        yield from _parts(list(x.values()))
    elif callable(x):
        yield x


def _is_importable(x: Any) -> bool:
    """Whether a class or a function, or the class of another callable, is found under its own name."""
    x = x if hasattr(x, "__qualname__") else type(x)
    found: Any = sys.modules.get(str(x.__module__))
    for name in x.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is x


class _Modules(dict[str, Any]):
    """Names for a repr: classes, every factory, and modules that are imported already."""

    def __missing__(self, name: str) -> Any:
        return sys.modules[name]


@law_of_ours
def hyperparameters_have_gradients(case: Case) -> None:
    """`jax.grad` of a final loss by every number in the state agrees with differences, in float64."""
    with x64():
        # One leaf is enough, and the compiler need not optimize much: it would take most of the time of all
        # laws. At level 0 it makes a NaN of a concatenation of sums, which is none at the other levels.
        params, *grads = (_last_widened(case, tree) for tree in (case.params, *case.grads))
        stacked = jax.tree.map(stacked_leaves, *grads)
        state = case.tx.init(params)

        def loss(numbers: PyTree) -> jax.Array:
            def step(carry: Any, g: PyTree) -> Any:
                p, s = carry
                return case.update(case.tx, p, s, g)[:2], None

            (p, _), _ = jax.lax.scan(step, (params, {**state, "numbers": numbers}), stacked)
            (x,) = jax.tree.leaves(p)
            return jnp.sum(abs_sq(x) + 0.3 * jnp.real(x))

        quickly = {"xla_backend_optimization_level": 1}
        both = jax.jit(jax.value_and_grad(loss), compiler_options=quickly)
        _, exact = both(state["numbers"])
        gradients = split_schedules(exact)
        for path, x in zip(
            leaf_paths(gradients), jax.tree.leaves(split_schedules(state["numbers"])), strict=True
        ):
            keys = tuple(path.split("/"))
            if keys[-1] in (*case.rough, "callable") or keys[-1].endswith(REST):
                continue
            slope, domain = float(lookup(gradients, keys)), domain_of(keys)
            is_decay = keys[-1].startswith(COMPLEMENT)

            def value(at: float, keys: tuple[str, ...] = keys) -> float:
                # A Python float would be another type, and compiled for itself.
                return float(both(with_number(state["numbers"], keys, jnp.asarray(at, float)))[0])

            def is_allowed(at: float, domain: Any = domain, is_decay: bool = is_decay) -> bool:
                return domain.contains(1 - at if is_decay else at)

            found = _denied(value, float(x), slope, is_allowed)
            assert found is None, f"the derivative by {path} is {slope}, and by differences {found}"


def _denied(
    value: Callable[[float], float], x: float, slope: float, is_allowed: Callable[[float], bool]
) -> float | None:
    """What differences say of the slope of a function, where they deny the one that is given.

    Nothing is asked of a number without neighbours, as a count is; and next to nothing where the function
    jumps, as it does where rounding decides, for instance on a basis of eigenvectors of one eigenvalue. At a
    kink every slope between those of its sides is one.
    """
    h = 1e-5 * max(abs(x), 1e-2)
    allowed = [is_allowed(x + sign * h) for sign in (-1, 1)]
    if not any(allowed):
        return None
    below, above = (value(x + sign * h) for sign in (-1, 1))
    difference, noise = (above - below) / (2 * h), 1e-15 * max(abs(below), abs(above)) / h
    if abs(difference - slope) <= 1e-5 * max(abs(difference), abs(slope)) + 10 * noise:
        return None
    # Beyond the end of what is allowed the function need not go on.
    ends = zip((-1, 1), allowed, (below, above), strict=True)
    sides = [sign for sign, has_meaning, end in ends if has_meaning or math.isfinite(end)]
    middle = value(x)
    # How much it changes within some rounding errors: by as many, or by a jump.
    ulp = 2.0**-52 * max(abs(x), 1e-2)
    near = [value(x + sign * n * ulp) for sign in sides for n in (1, 2, 4, 16)]
    noise = max(1e-15 * abs(middle), *(abs(y - middle) for y in near))

    def of_sides(h: float) -> np.ndarray:
        """The slope on each side; from two differences, so that a curve has little part in it."""
        return np.array([s * (4 * value(x + s * h / 2) - 3 * middle - value(x + s * h)) / h for s in sides])

    found, error = np.full(1, math.nan), math.inf
    for step in (h, h / 10, h / 100, h / 1000):
        slopes, finer = of_sides(step), of_sides(step / 2)
        # A step is good where half of it says the same, and rounding little.
        uncertain = float(np.max(np.abs(slopes - finer))) + 40 * noise / step
        if uncertain < error:
            found, error = finer, uncertain
    error += 1e-5 * max(abs(slope), float(np.max(np.abs(found))))
    is_between = found.min() - error <= slope <= found.max() + error
    return None if is_between else float(found.mean())


def _last_widened(case: Case, tree: PyTree) -> PyTree:
    """A tree in double precision, with its last trained leaf alone."""
    leaves, structure = flatten(tree)
    last = case.trainable[-1]
    return structure.unflatten([jnp.asarray(wide(x)) if i == last else None for i, x in enumerate(leaves)])
