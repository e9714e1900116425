"""The laws that every optimizer should obey, and `check`, which tests one against all of them.

It needs jax and numpy alone. A law is one function of a `Case`: a transform, parameters and a few gradients,
with what the laws share (the compiled step and its trajectory) computed once.
"""

from __future__ import annotations

import functools
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx.core.engine import Composed
from gradtx.core.leaves import flatten, is_trainable_leaf, paths
from gradtx.core.numerics import abs_sq, real_dtype, widest
from gradtx.core.spec import FACTORIES
from gradtx.core.transform import accepted

PyTree = Any

LAWS: dict[str, Callable[[Case], None]] = {}
"""Every law by name."""

OURS: set[str] = set()
"""The laws that only transforms of this library are asked to obey."""


def law(fn: Callable[[Case], None]) -> Callable[[Case], None]:
    """Adds a law."""
    LAWS[fn.__name__] = fn
    return fn


def law_of_ours(fn: Callable[[Case], None]) -> Callable[[Case], None]:
    """Adds a law for transforms of this library: about numbers in the state, reprs, or absent gradients."""
    OURS.add(fn.__name__)
    return law(fn)


def check(
    tx: Any,
    params: PyTree | None = None,
    grads: Sequence[PyTree] | None = None,
    *,
    alternative: Any = None,
    skip: Sequence[str] = (),
    **extra: Any,
) -> None:
    """Checks an optimizer, of this library or any other, against every law that applies to it.

    Args:
        tx: an object with `init` and `update`.
        params: parameters to try it on; by default two small float32 leaves.
        grads: a few gradients, one tree for each step; by default random ones.
        alternative: the same transform with other numbers, for the law that numbers live in the state.
        skip: names of laws to leave out, from `gradtx.testing.LAWS`.
        **extra: what its `update` needs, such as `value=`.

    Raises:
        AssertionError: a law does not hold; the law and the path of the leaf are named.

    Examples:
        >>> import gradtx
        >>> from gradtx import testing
        >>> testing.check(gradtx.sgd(0.1, momentum=0.9), skip=["sharded_equals_unsharded"])
    """
    unknown = set(skip) - set(LAWS)
    if unknown:
        raise ValueError(f"There is no law {sorted(unknown)[0]!r}. There are {', '.join(LAWS)}.")
    case = Case(tx, params, grads, alternative=alternative, **extra)
    for name in LAWS:
        if name not in skip and case.concerns(name):
            case.obeys(name)


def example_params(dtype: Any = "float32") -> PyTree:
    """Two small leaves, a scalar and a matrix, with no element near 0."""
    rng = np.random.default_rng(0)
    return {k: _random(rng, shape, dtype, 0.5) for k, shape in (("bias", ()), ("kernel", (4, 2)))}


def example_grads(params: PyTree, steps: int = 3, dtype: Any = None, positive: bool = False) -> list[PyTree]:
    """Random gradients for parameters, in their dtype or another; no element is near 0."""
    rng = np.random.default_rng(1)

    def one(p: Any) -> Any:
        if not is_trainable_leaf(p):
            return np.zeros(np.shape(p), jax.dtypes.float0)
        g = _random(rng, p.shape, p.dtype if dtype is None else dtype, 0.2)
        return g if positive else g * _signs(rng, p.shape, g.dtype)

    return [jax.tree.map(one, params) for _ in range(steps)]


def _random(rng: Any, shape: tuple[int, ...], dtype: Any, least: float) -> jax.Array:
    x = least + rng.random(shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        x = x + 1j * (least + rng.random(shape))
    return jnp.asarray(x, dtype)


def _signs(rng: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jnp.asarray(rng.choice([-1.0, 1.0], shape), dtype)


class Case:
    """A transform on some parameters and gradients, and what the laws share of it."""

    def __init__(
        self,
        tx: Any,
        params: PyTree | None = None,
        grads: Sequence[PyTree] | None = None,
        *,
        alternative: Any = None,
        compiled: bool = True,
        rough: Sequence[str] = (),
        **extra: Any,
    ) -> None:
        self.tx, self.alternative, self.compiled, self.rough = tx, alternative, compiled, tuple(rough)
        self.params = example_params() if params is None else params
        self.grads = example_grads(self.params) if grads is None else list(grads)
        self.extra, self.traces = extra, 0
        # Of a composition with another library's transform no more can be asked than of that one.
        self.ours = isinstance(tx, Composed) and len(tx.program.rules) == len(tx.program.units)

    def concerns(self, name: str) -> bool:
        """Whether a law applies to this transform."""
        return self.ours or name not in OURS

    def obeys(self, name: str) -> None:
        """Runs one law; an error of any kind is a failure that names the law."""
        try:
            LAWS[name](self)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error

    def update(self, tx: Any, params: PyTree, state: PyTree, grads: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        """One step of a transform: the new parameters and state, and the updates."""
        updates, state = tx.update(grads, state, params, **accepted(tx.update, self.extra))
        return gradtx.apply_updates(params, updates), state, updates

    @functools.cached_property
    def jitted(self) -> Any:
        """The compiled step. Its parameters and state are given away to it, as in training loops."""

        def step(params: PyTree, state: PyTree, grads: PyTree) -> tuple[PyTree, PyTree, PyTree]:
            self.traces += 1
            return self.update(self.tx, params, state, grads)

        return jax.jit(step, donate_argnums=(0, 1))

    def step(self, params: PyTree, state: PyTree, grads: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        """One step from copies of what is given, compiled or not."""
        if not self.compiled:
            return self.update(self.tx, params, state, grads)
        return self.jitted(copied(params), copied(state), grads)

    @functools.cached_property
    def start(self) -> PyTree:
        """The initial state."""
        return self.tx.init(self.params)

    @functools.cached_property
    def trajectory(self) -> list[tuple[PyTree, PyTree, PyTree]]:
        """Parameters, state and updates after each step."""
        return self.run(self.start)

    def run(
        self, state: PyTree, grads: Sequence[PyTree] | None = None, step: Any = None, params: PyTree = None
    ) -> list[tuple[PyTree, PyTree, PyTree]]:
        """The same from another state, on other gradients, or with another function for a step."""
        params = self.params if params is None else params
        result = []
        for g in self.grads if grads is None else grads:
            params, state, updates = (step or self.step)(params, state, g)
            result.append((params, state, updates))
        return result

    @functools.cached_property
    def trainable(self) -> list[int]:
        """The positions of the leaves that are trained, `None` being a leaf."""
        leaves, _ = flatten(self.params)
        return [i for i, x in enumerate(leaves) if is_trainable_leaf(x)]

    def with_leaf(self, tree: PyTree, position: int, change: Callable[[Any], Any]) -> PyTree:
        """A tree like the parameters with one leaf changed."""
        leaves, structure = jax.tree.flatten(tree, is_leaf=lambda x: x is None)
        leaves[position] = change(leaves[position])
        return structure.unflatten(leaves)

    def leaf_slots(self, state: PyTree, position: int) -> dict[str, Any]:
        """The slots that a state of this library has for one leaf."""
        structure = flatten(self.params)[1]
        found: dict[str, Any] = {}

        def walk(node: Any, path: str) -> None:
            if flatten(node)[1] == structure:
                found[path] = flatten(node)[0][position]
            elif isinstance(node, Mapping):
                for key, child in node.items():
                    walk(child, f"{path}/{key}")

        walk(state["slots"], "slots")
        return found


def copied(tree: PyTree) -> PyTree:
    """A copy of a tree, which may be given away."""
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def _x64() -> AbstractContextManager[None]:
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # before JAX 0.8

    return enable_x64(True)


def same_layout(actual: PyTree, expected: PyTree, what: str) -> None:
    """Asserts the same tree, with the shape, dtype and weak type of every leaf."""
    a, b = jax.tree.structure(actual), jax.tree.structure(expected)
    assert a == b, f"{what}: the tree changed from {b} to {a}"
    for path, x, y in zip(_paths(actual), jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        one, other = _layout(x), _layout(y)
        assert one == other, f"{what} {path}: {other} became {one}"


def _layout(x: Any) -> str:
    weak = ", weakly typed" if getattr(x, "weak_type", False) else ""
    return f"{jnp.result_type(x)}{list(jnp.shape(x))}{weak}"


def identical(actual: PyTree, expected: PyTree, what: str) -> None:
    """Asserts that two trees are equal bit for bit."""
    same_layout(actual, expected, what)
    for path, x, y in zip(_paths(actual), jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.tobytes() == y.tobytes(), f"{what} {path}: {y} became {x}"


def close(actual: PyTree, expected: PyTree, what: str, *scale: PyTree, ulp: float = 4) -> None:
    """Asserts that two trees agree to some ulp of the largest of `expected` and `scale`, elementwise."""
    a, b = jax.tree.structure(actual), jax.tree.structure(expected)
    assert a == b, f"{what}: the trees are {a} and {b}"
    beside = [jax.tree.leaves(s) for s in scale]
    for i, (path, x) in enumerate(zip(_paths(actual), jax.tree.leaves(actual), strict=True)):
        y = jax.tree.leaves(expected)[i]
        unit = ulp * _spacing([y, *(s[i] for s in beside)], np.asarray(x).dtype)
        with np.errstate(invalid="ignore"):
            difference = np.abs(_wide(x) - _wide(y))
            bad = ~((difference <= unit) | (np.isnan(_wide(x)) & np.isnan(_wide(y))) | (_wide(x) == _wide(y)))
        assert not bad.any(), (
            f"{what} {path}: {np.asarray(x)} and {np.asarray(y)} differ by "
            f"{np.max(difference / unit) * ulp:.3g} ulp of {np.asarray(x).dtype}"
        )


def _wide(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _spacing(xs: list[Any], dtype: Any) -> np.ndarray:
    """One ulp of `dtype` at the largest magnitude."""
    dtype = real_dtype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else np.dtype(np.float32)
    size = np.max([np.abs(_wide(x)) for x in xs], axis=0)
    size = np.where(np.isfinite(size), size, 1.0)
    eps, tiny = float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
    return eps * np.exp2(np.floor(np.log2(np.maximum(size, tiny))))


def _paths(tree: PyTree) -> list[str]:
    return [
        jax.tree_util.keystr(p, simple=True, separator="/") or "(root)"
        for p, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


def finite(tree: PyTree, what: str) -> None:
    """Asserts that every number is finite."""
    for path, x in zip(_paths(tree), jax.tree.leaves(tree), strict=True):
        if jnp.issubdtype(jnp.result_type(x), jnp.inexact):
            assert np.isfinite(_wide(x)).all(), f"{what} {path}: {np.asarray(x)}"


@law
def state_in_is_state_out(case: Case) -> None:
    """The state keeps its tree, shapes, dtypes and weak types; the parameters keep theirs."""
    for params, state, _ in case.trajectory:
        same_layout(state, case.start, "state")
        same_layout(params, case.params, "params")


@law
def updates_have_the_promoted_dtype(case: Case) -> None:
    """An update has the shape of its parameter and the wider dtype of gradient and parameter."""
    _, _, updates = case.trajectory[0]
    us, structure = flatten(updates)
    assert structure == flatten(case.params)[1], "the updates and the params are different trees"
    for i in case.trainable:
        u, p, g = us[i], flatten(case.params)[0][i], flatten(case.grads[0])[0][i]
        wanted = (jnp.shape(p), widest(p.dtype, g.dtype))
        got = (u.shape, u.dtype)
        if got != wanted and not (_gives_real(case) and u.dtype == real_dtype(wanted[1])):
            raise AssertionError(f"updates {paths(updates)[i]}: {got} where {wanted} is wanted")


def _gives_real(case: Case) -> bool:
    program = case.tx.program if case.ours else None
    return program is not None and any(u.transform.gives_real for u in program.rules)


@law
def jit_equals_eager(case: Case) -> None:
    """The compiled step and the plain one agree to 4 ulp of the parameter."""
    eager = case.run(case.start, step=functools.partial(case.update, case.tx))
    compiled = case.run(case.start, step=lambda p, s, g: case.jitted(copied(p), copied(s), g))
    old = case.params
    for (one, _, u), (other, _, _) in zip(compiled, eager, strict=True):
        close(one, other, "params", old, _like_params(u, old))
        old = other


def _like_params(updates: PyTree, params: PyTree) -> PyTree:
    """Updates as a scale for `close`: 0 where a leaf has none."""
    us, ps = flatten(updates)[0], flatten(params)[0]
    return [jnp.zeros_like(p) if u is None else u for u, p in zip(us, ps, strict=True) if p is not None]


@law
def two_runs_are_identical(case: Case) -> None:
    """A program run twice gives the same bits."""
    identical(case.run(case.tx.init(case.params)), case.trajectory, "the second run's")


@law
def init_aliases_nothing(case: Case) -> None:
    """A new state shares no memory with the parameters or within itself, so that both can be donated."""
    fresh = jax.tree.map(lambda x: jnp.array(x, copy=True), case.params)
    state = case.tx.init(fresh)
    step = case.jitted if case.compiled else jax.jit(functools.partial(case.update, case.tx))
    seen: dict[int, str] = {}
    for path, x in [*_arrays(fresh, "params"), *_arrays(state, "state")]:
        where = x.unsafe_buffer_pointer()
        assert where not in seen, f"{path} shares its memory with {seen[where]}"
        seen[where] = path
    if case.compiled:
        params, _, _ = step(fresh, state, case.grads[0])
        identical(params, case.trajectory[0][0], "params of a donated step")


def _arrays(tree: PyTree, what: str) -> list[tuple[str, jax.Array]]:
    named = zip(_paths(tree), jax.tree.leaves(tree), strict=True)
    return [(f"{what} {path}", x) for path, x in named if isinstance(x, jax.Array) and x.size]


@law
def abstract_init_matches(case: Case) -> None:
    """`init` of shapes gives the layout that `init` of arrays gives, traced or called as it is."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), case.params)
    same_layout(jax.eval_shape(case.tx.init, shapes), case.start, "state of eval_shape")
    if case.ours:
        same_layout(case.tx.init(shapes), case.start, "state of ShapeDtypeStructs")


@law
def zero_gradients_are_finite(case: Case) -> None:
    """Gradients of 0 from the start leave everything finite."""
    zeros = jax.tree.map(lambda g: g if g.dtype == jax.dtypes.float0 else jnp.zeros_like(g), case.grads[0])
    for params, state, updates in case.run(case.start, [zeros, zeros]):
        finite((params, state, updates), "after zero gradients,")


@law
def nan_stays_in_its_leaf(case: Case) -> None:
    """A NaN in one leaf's gradient reaches no other leaf."""
    for bad in case.trainable:
        poisoned = case.with_leaf(case.grads[0], bad, lambda g: jnp.full_like(g, math.nan))
        for params, state, updates in case.run(case.start, [case.grads[0], poisoned, case.grads[0]]):
            for i in case.trainable:
                if i == bad:
                    continue
                where = f"leaf {paths(case.params)[i]} after a NaN in {paths(case.params)[bad]}:"
                finite((flatten(params)[0][i], flatten(updates)[0][i]), where)
                if case.ours:
                    finite(case.leaf_slots(state, i), f"{where} slots")


@law
def restored_state_continues(case: Case) -> None:
    """A state taken apart into numpy arrays and put together again continues bit for bit."""
    params, state, _ = case.trajectory[0]

    def restored(tree: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(tree)
        saved = [np.array(x) for x in leaves]
        return jax.tree.map(jnp.asarray, structure.unflatten(saved))

    again = case.run(restored(state), case.grads[1:], params=restored(params))
    identical(again, case.trajectory[1:], "a restored run's")


@law
def apply_gradients_is_update_then_apply(case: Case) -> None:
    """`apply_gradients` agrees with `update` and `apply_updates` to the rounding of the update."""
    apply = functools.partial(gradtx.apply_gradients, case.tx)
    extra = case.extra
    params, state = (jax.jit(apply) if case.compiled else apply)(
        case.grads[0], case.start, case.params, **extra
    )
    expected, expected_state, updates = case.trajectory[0]
    close(params, expected, "params", case.params, _like_params(updates, case.params))
    close(state, expected_state, "state", ulp=64)


@law
def scan_equals_loop(case: Case) -> None:
    """Steps inside `lax.scan` agree with a loop."""
    stacked = jax.tree.map(_stack, *case.grads)

    @jax.jit
    def scanned(params: PyTree, state: PyTree, grads: PyTree) -> PyTree:
        def body(carry: Any, g: PyTree) -> Any:
            params, state, _ = case.update(case.tx, *carry, g)
            return (params, state), params

        return jax.lax.scan(body, (params, state), grads)[1]

    result = scanned(case.params, case.start, stacked)
    old = case.params
    for i, (params, _, updates) in enumerate(case.trajectory):
        this = jax.tree.map(lambda x, i=i: x[i], result)
        close(this, params, f"params of step {i}", old, _like_params(updates, old))
        old = params


def _stack(*xs: Any) -> Any:
    return np.stack(xs) if xs[0].dtype == jax.dtypes.float0 else jnp.stack(xs)


@law
def vmap_equals_loop(case: Case) -> None:
    """A batch of states, each with its own numbers, steps as each does alone."""
    params, state, _ = case.trajectory[0]
    states, grads = [state, _changed(case, state, 0.9)], case.grads[1:3]
    batched = jax.jit(jax.vmap(functools.partial(case.update, case.tx), in_axes=(None, 0, 0)))
    result, _, _ = batched(params, jax.tree.map(_stack, *states), jax.tree.map(_stack, *grads))
    for i in range(2):
        alone, _, updates = case.step(params, states[i], grads[i])
        this = jax.tree.map(lambda x, i=i: x[i], result)
        close(this, alone, f"params of state {i}", params, _like_params(updates, params))


def _changed(case: Case, state: PyTree, factor: float) -> PyTree:
    """The state with every hyperparameter multiplied by a factor; as it is for another library's."""
    if not case.ours:
        return state
    return gradtx.set_hyperparams(state, **{k: v * factor for k, v in _settable(case).items()})


def _settable(case: Case) -> dict[str, float]:
    values = gradtx.hyperparams(case.start)
    schedules = {name for name in values for other in values if other.startswith(name + ".")}
    codes = {name for name in values if name + "/callable" in "".join(_paths(case.start["numbers"]))}
    return {k: v for k, v in values.items() if k not in schedules | codes}


@law_of_ours
def one_compilation_serves_all_settings(case: Case) -> None:
    """Init, steps, 100 settings and steps again: one program."""
    step = case.jitted
    params, state, _ = step(copied(case.params), copied(case.start), case.grads[0])
    for i in range(100):
        state = _changed(case, state, 1 - i / 200)
        params, state, _ = step(copied(params), state, case.grads[i % len(case.grads)])
    # Where an argument is float0, JAX does not use the cache whose size this is.
    programs = max(step._cache_size(), case.traces)
    assert programs == 1, f"{programs} programs for 100 settings"


@law_of_ours
def numbers_live_in_the_state(case: Case) -> None:
    """The state of a transform of other numbers continues as that transform would."""
    other = case.alternative
    if other is None:
        return
    expected = case.run(other.init(case.params), step=functools.partial(case.update, other))
    old = case.params
    for (one, _, u), (two, _, _) in zip(case.run(other.init(case.params)), expected, strict=True):
        close(one, two, "params", old, _like_params(u, old))
        old = two


@law_of_ours
def absent_gradients_change_nothing(case: Case) -> None:
    """`None` or float0 for a gradient: the update is `None`, and the slots keep every bit."""
    params, state, _ = case.trajectory[0]
    for i in case.trainable:
        for absent in (None, np.zeros(flatten(params)[0][i].shape, jax.dtypes.float0)):
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
        assert slot is None, f"{path} of the masked leaf {paths(case.params)[last]} is {_layout(slot)}"
    updates, _ = tx.update(case.grads[0], state, case.params, **case.extra)
    identical(
        np.asarray(flatten(updates)[0][last], flatten(case.grads[0])[0][last].dtype),
        np.asarray(flatten(case.grads[0])[0][last]),
        "the update of the masked leaf",
    )
    rest, grads = (case.with_leaf(tree, last, lambda x: None) for tree in (case.params, case.grads[0]))
    expected, _ = case.tx.update(grads, case.tx.init(rest), rest, **case.extra)
    identical(case.with_leaf(updates, last, lambda x: None), expected, "update beside a masked leaf,")


@law_of_ours
def repr_rebuilds_it(case: Case) -> None:
    """The repr is code for an equal object; a pickle is one too; equal objects have equal hashes."""
    tx = case.tx
    unpickled = pickle.loads(pickle.dumps(tx))
    assert unpickled == tx and hash(unpickled) == hash(tx), f"{tx!r} came out of pickle as {unpickled!r}"
    code = repr(tx)
    if "<" not in code:
        rebuilt = eval(code, _names())
        assert rebuilt == tx and hash(rebuilt) == hash(tx), f"{code} gave {rebuilt!r}"
        assert repr(rebuilt) == code, f"{code} gave {rebuilt!r}"
    if case.alternative is not None and gradtx.hyperparams(case.start):
        assert case.alternative != tx, f"{case.alternative!r} == {tx!r}"


class _Modules(dict[str, Any]):
    """Names for a repr: every factory, and modules that are imported already."""

    def __missing__(self, name: str) -> Any:
        import sys

        return sys.modules[name]


def _names() -> dict[str, Any]:
    return _Modules(FACTORIES)


@law_of_ours
def hyperparameters_have_gradients(case: Case) -> None:
    """`jax.grad` of a final loss by every number in the state agrees with differences, in float64."""
    with _x64():
        # One leaf is enough, and the compiler need not optimize: it would take most of the time of all laws.
        params, *grads = (_last_widened(case, tree) for tree in (case.params, *case.grads))
        state = case.tx.init(params)

        def loss(numbers: PyTree) -> jax.Array:
            p, s = params, {**state, "numbers": numbers}
            for g in grads:
                p, s, _ = case.update(case.tx, p, s, g)
            return sum(jnp.sum(abs_sq(x) + 0.3 * jnp.real(x)) for x in jax.tree.leaves(p))

        quickly = {"xla_backend_optimization_level": 0}
        value = jax.jit(loss, compiler_options=quickly)
        exact = jax.jit(jax.grad(loss), compiler_options=quickly)(state["numbers"])
        numbers, structure = jax.tree.flatten(state["numbers"])
        for i, (path, x) in enumerate(zip(_paths(state["numbers"]), numbers, strict=True)):
            if path.split("/")[-1] in (*case.rough, "callable"):
                continue
            h = 1e-5 * max(abs(float(x)), 1e-2)
            values = []
            for sign in (1, -1):
                moved = structure.unflatten([*numbers[:i], x + sign * h, *numbers[i + 1 :]])
                values.append(float(value(moved)))
            difference, gradient = (values[0] - values[1]) / (2 * h), float(jax.tree.leaves(exact)[i])
            noise = 1e-15 * max(map(abs, values)) / h
            bound = 1e-5 * max(abs(difference), abs(gradient)) + 10 * noise
            assert abs(difference - gradient) <= bound, f"{path}: {gradient}, by differences {difference}"


def _last_widened(case: Case, tree: PyTree) -> PyTree:
    """A tree in double precision, with its last trained leaf alone."""
    leaves, structure = flatten(tree)
    last = case.trainable[-1]
    return structure.unflatten([jnp.asarray(_wide(x)) if i == last else None for i, x in enumerate(leaves)])


@law
def sharded_equals_unsharded(case: Case) -> None:
    """Parameters sharded over all devices: the state is sharded as they are and stays so; the same result."""
    devices = jax.devices()
    mesh = jax.sharding.Mesh(np.array(devices), ("shards",))
    spec = jax.sharding.PartitionSpec

    def placed(x: Any) -> Any:
        if getattr(x, "dtype", None) == jax.dtypes.float0:
            return x
        divides = jnp.ndim(x) and x.shape[0] and x.shape[0] % len(devices) == 0
        return jax.device_put(
            jnp.array(x, copy=True), jax.sharding.NamedSharding(mesh, spec("shards") if divides else spec())
        )

    params = jax.tree.map(placed, case.params)
    state = case.tx.init(params)
    if case.ours:
        _sharded_like(case, state, params)
    before = jax.tree.map(lambda x: x.sharding, state)
    old, step = case.params, jax.jit(functools.partial(case.update, case.tx))
    for i, g in enumerate(case.grads[:2]):
        params, state, _ = step(params, state, jax.tree.map(placed, g))
        expected, _, updates = case.trajectory[i]
        close(params, expected, f"params of step {i}", old, _like_params(updates, old))
        old = expected
        if case.ours:
            for path, x, s in zip(
                _paths(state), jax.tree.leaves(state), jax.tree.leaves(before), strict=True
            ):
                assert x.sharding.is_equivalent_to(s, x.ndim), f"state {path}: {s} became {x.sharding}"
    if case.ours:
        assert step._cache_size() <= 1, f"{step._cache_size()} programs for two sharded steps"


def _sharded_like(case: Case, state: PyTree, params: PyTree) -> None:
    for i in case.trainable:
        p = flatten(params)[0][i]
        for path, slot in case.leaf_slots(state, i).items():
            if slot is not None and slot.shape == p.shape:
                assert slot.sharding == p.sharding, f"{path} is placed as {slot.sharding}, not {p.sharding}"
