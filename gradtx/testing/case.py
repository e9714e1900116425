"""A case: a transform on some parameters and gradients, with what the laws share of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx.core.engine.leaves import flatten, is_trainable_leaf
from gradtx.core.engine.program import Program
from gradtx.core.engine.raised import instead
from gradtx.core.engine.structure import is_ours
from gradtx.core.engine.transform import accepted
from gradtx.core.numbers.domains import domain_of
from gradtx.core.numbers.hyperparams import by_name, entries_of
from gradtx.core.numbers.paths import Path, lookup
from gradtx.testing.compare import PyTree

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
        self.ours = is_ours(tx)

    @functools.cached_property
    def parts(self) -> list[Any]:
        """The rules and wrappers in it, those in wrappers too."""

        def of(program: Program) -> list[Any]:
            inner = [part for tx in program.wrapped.values() for part in of(tx.program)]
            return [*(unit.transform for unit in program.units), *inner]

        return of(self.tx.program) if self.ours else []

    @property
    def rules(self) -> list[Any]:
        """The rules among these."""
        return [part for part in self.parts if not part.whole]

    @property
    def rounding(self) -> dict[str, Any]:
        """By how much two ways to compute a step may differ, as `close` takes it.

        A product of matrices is summed in another order elsewhere, with a rounding of its largest element, of
        which an iteration makes more.
        """
        of_matrices = any(part.is_of_matrices for part in self.parts)
        return {"ulp": 32, "of_leaf": True} if of_matrices else {}

    def concerns(self, name: str) -> bool:
        """Whether a law applies to this transform."""
        return self.ours or name not in OURS

    def obeys(self, name: str) -> None:
        """Runs one law; an error of any kind is a failure that names the law."""
        try:
            LAWS[name](self)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        except Exception as error:
            raise AssertionError(f"{name}: {_in_words(error)}") from error

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
    def settable(self) -> dict[str, float]:
        """The numbers that can be set in a state of this library, by name."""
        return {name: e.read() for name, e in by_name(entries_of(self.start)).items() if e.is_settable}

    @functools.cached_property
    def eager(self) -> list[tuple[PyTree, PyTree, PyTree]]:
        """The trajectory of the step that is not compiled."""
        return self.run(self.start, step=functools.partial(self.update, self.tx))

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
        slots = _leaf_slots(self.tx.program, state, gradtx.slots_by_leaf(self.tx, self.params, state), ())
        return {"/".join(path): flatten(slot)[0][position] for path, slot in slots.items()}


def _in_words(error: Exception) -> str:
    """An error and its notes; of one about a traced value the notes, since JAX speaks of what it compiles."""
    notes = [n for n in getattr(error, "__notes__", ()) if "removed its internal" not in n]
    words = instead(error)
    if not words:
        return " ".join([f"{type(error).__name__}: {error}", *notes])
    return " ".join([*notes, *([] if words in notes else [words]), f"({type(error).__name__})"])


def _leaf_slots(program: Program, state: PyTree, by_leaf: PyTree, prefix: Path) -> dict[Path, PyTree]:
    """The slots of leaves in a state, and in the states of what it wraps, if that sees the same leaves."""
    paths = (*program.leaf_slot_paths, *program.stack_paths)
    found = {(*prefix, "slots", *path): lookup(by_leaf, path) for path in paths}
    for path, part in program.wrapped.items():
        if not program.unit_at[path[:-1]].transform.sees_leaves:
            continue
        inside: Program | None = getattr(part, "program", None)
        if inside is not None:
            own = lookup(state["slots"], path), lookup(by_leaf, path)
            found.update(_leaf_slots(inside, *own, (*prefix, "slots", *path)))
    return found


def copied(tree: PyTree) -> PyTree:
    """A copy of a tree, which may be given away."""
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def as_numpy(tree: PyTree) -> PyTree:
    """A tree of numpy arrays, as checkpoints and `jax.device_get` give it."""
    return jax.tree.map(lambda x: np.array(x), tree)


def like_params(updates: PyTree, params: PyTree) -> PyTree:
    """Updates as a scale for `close`: 0 where a leaf has none."""
    us, ps = flatten(updates)[0], flatten(params)[0]
    return [jnp.zeros_like(p) if u is None else u for u, p in zip(us, ps, strict=True) if p is not None]


def stacked_leaves(*xs: Any) -> Any:
    """The leaves of several trees on a new axis; float0 is a dtype of numpy alone."""
    return np.stack(xs) if xs[0].dtype == jax.dtypes.float0 else jnp.stack(xs)


def changed(case: Case, state: PyTree, factor: float) -> PyTree:
    """The state with every hyperparameter multiplied by a factor; as it is for another library's.

    What must be a whole number is the next one.
    """
    if not case.ours:
        return state
    domains = {name: domain_of(e.path) for name, e in by_name(entries_of(case.start)).items()}
    new = {name: value * factor for name, value in case.settable.items()}
    new = {name: x if domains[name].contains(x) else math.ceil(x) for name, x in new.items()}
    return gradtx.set_hyperparams(state, **new)
