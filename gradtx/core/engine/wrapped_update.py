"""What a wrapper sees of one update: the parameters, the keyword arguments, and how to run what it wraps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.engine import transform
from gradtx.core.engine.leaves import Inclusion, align
from gradtx.core.engine.placement import typed_sharding, zeros
from gradtx.core.engine.transform import Shared, cast_like
from gradtx.core.norms import finite_leaves
from gradtx.core.norms import norm as norm_of
from gradtx.core.numbers.schedule import asked_a_tracer
from gradtx.core.numerics import cast, number_dtype, stacked, widest
from gradtx.core.shards import Axes, barrier, cond, key_of_shard, on_some_shard, repeat
from gradtx.core.summing import sum_of_squares, sums_of_squares

State = Any
Leaves = list[Any]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, eq=False)
class WrappedUpdate:
    """One update of the leaves that a wrapper works on, as lists in one order.

    Attributes:
        structure: the structure of the tree that the caller knows.
        positions: where each leaf stands among all leaves of the tree, `None` included.
        path_number: of such a place, a number made of the leaf's path, for what is drawn at random.
        gs: the gradients, in the dtype to compute in; what the transforms before the wrapper made of them.
        given: the gradients that the chain was given.
        params: the parameters, in their own dtypes; None where the caller gave none.
        all_params: the parameter of each leaf of the tree, also of those that the wrapper does not work on.
        active: where each leaf stands that the wrapper has state for, also without a gradient this time.
        step: the number of updates before this one.
        extra: the keyword arguments of the call.
        known: the sum of |g|² of each leaf's gradient where it has been measured already, None elsewhere.
        apply: whether a result is the new parameters, in place of the updates.
    """

    structure: Any
    positions: list[int]
    path_number: Callable[[int], np.uint32]
    gs: Leaves
    given: Leaves
    params: Leaves | None
    all_params: Leaves
    active: list[int]
    step: Any
    extra: dict[str, Any]
    known: Leaves
    apply: bool

    def tree(self, leaves: Leaves) -> Any:
        """Leaves as the tree that the caller knows, `None` for the others."""
        return self.structure.unflatten(self._among_all(leaves))

    @property
    def every(self) -> list[tuple[Any, int | None]]:
        """For each leaf that the wrapper has state for, its parameter (None where the caller gave none).

        Beside it is its place in the lists, None where it has no gradient this time.
        """
        place = {i: n for n, i in enumerate(self.positions)}
        return [(self.all_params[i], place.get(i)) for i in self.active]

    @property
    def described(self) -> Any:
        """The tree that `init` has shown the wrapper; without the parameters the gradients."""
        return self.tree(self.gs) if self.params is None else self._as_described(self.params)

    def leaves(self, tree: Any) -> Leaves:
        """The leaves of such a tree."""
        found = align(self.structure, tree, self.tree([0] * len(self.positions)), "updates", "gradients")
        return [found[i] for i in self.positions]

    def chosen(self, mask: Any, where: str) -> list[bool]:
        """For each leaf, whether a mask of the parameters includes it."""
        leaves = self.gs if self.params is None else self.params
        found = Inclusion(self.tree(leaves), self._among_all(leaves)).of((mask,), where)
        return [found[i] for i in self.positions]

    def squares(self) -> Leaves:
        """The sum of |g|² of each leaf's gradient, in at least float32.

        It is measured once: a wrapped transform that clips by the global norm gets it from here.
        """
        return self._squares

    @functools.cached_property
    def _squares(self) -> Leaves:
        return sums_of_squares(self.gs, self.known)

    def _measured(self) -> Leaves:
        """What is known of the squares by now."""
        return vars(self).get("_squares", self.known)

    def finite(self, axis_name: Axes = None) -> jax.Array:
        """For each leaf, whether its gradient has no Inf and no NaN, on any shard along some mesh axes."""
        if not self.gs:
            return jnp.ones(0, bool)
        found = finite_leaves(stacked([cast(s, number_dtype()) for s in self.squares()]), self.gs)
        return ~on_some_shard(~found, axis_name, self.gs) if axis_name else found

    def keys(self, data: jax.Array) -> list[jax.Array]:
        """A random key for each leaf, and each of its shards, of this step, from the raw data of a key."""
        key = jax.random.fold_in(jax.random.wrap_key_data(data), self.step)
        return [
            key_of_shard(jax.random.fold_in(key, self.path_number(i)), g)
            for i, g in zip(self.positions, self.gs, strict=True)
        ]

    def norm(self, axis_name: Axes = None) -> jax.Array:
        """The norm of the gradients of all leaves, over mesh axes if there are some."""
        return norm_of(self.gs, self.squares(), axis_name)

    def run(
        self,
        tx: Any,
        gs: Leaves,
        state: State,
        when: Any = True,
        otherwise: Leaves | None = None,
    ) -> tuple[Leaves, State]:
        """A wrapped transform on gradients: its result and its state.

        With `when`, a traced bool, it runs where that is true, and costs nothing where it is false: then the
        result changes nothing (or is `otherwise`, in a wrapper that is not `in_place`) and the state is kept
        bit for bit. Updates come from a `cond`, through which reverse mode works. Parameters are moved inside
        a loop of one trip or none, where XLA passes them through without copying them; that is for forward
        mode alone.
        """
        squares = self._measured() if gs is self.gs else None

        def step(params: Leaves | None, old: State, gs: Leaves) -> Any:
            return self._step(tx, gs, old, params, self._shared(gs, squares), apply=self.apply)

        if when is True:
            return step(self.params, state, gs)
        if self.apply and isinstance(when, Tracer):

            def trip(i: jax.Array, carry: Any) -> Any:
                # XLA would otherwise move what depends on the gradients alone out of the loop, and compute it
                # also where there is no trip.
                params, old = carry
                return step(params, old, barrier(gs, i))

            return repeat(when.astype(jnp.int32), trip, (self.params, state))
        if self.apply:
            return _cond(when, lambda: step(self.params, state, gs), lambda: (self.params, state))

        def skip(gs: Leaves) -> Any:
            passed = [jnp.zeros_like(g) for g in gs] if otherwise is None else otherwise
            shapes = self._results(lambda *args: step(*args)[0], gs, state, gs)
            return [cast(x, s.dtype) for x, s in zip(passed, shapes, strict=True)], state

        return _cond(when, lambda gs: step(self.params, state, gs), skip, gs)

    def spend(
        self,
        tx: Any,
        sums: Leaves,
        state: State,
        when: jax.Array,
        change: Callable[[Leaves], Leaves],
        *,
        checked: bool,
        axis_name: Axes = None,
    ) -> tuple[Leaves, State, Leaves, jax.Array]:
        """Runs a wrapped transform on what is made of sums, where `when` is true, and sets the sums to zero.

        Args:
            tx: the transform.
            sums: what has been gathered for each leaf.
            state: the state of `tx`.
            when: a bool: whether the sums are complete. Where it is false nothing runs and nothing changes.
            change: makes the gradients from the sums.
            checked: whether `tx` rests where a gradient is not finite; the sums are set to zero all the same.
            axis_name: the mesh axes along whose shards it must be finite.

        Returns:
            The result and the state, as `run` gives them, the sums, and whether `tx` ran.
        """

        def step(params: Leaves | None, old: State, sums: Leaves, _: Any) -> Any:
            unknown: Leaves = [None] * len(sums)
            inside = dataclasses.replace(self, gs=change(sums), params=params, known=unknown)
            sound = inside.finite(axis_name).all() if checked else jnp.array(True)
            result, after = inside.run(tx, inside.gs, old, when=sound if checked else True)
            return result, after, [jnp.zeros_like(s) for s in sums], sound

        start = (self.params, state, sums, jnp.array(False))
        if self.apply and isinstance(when, Tracer):
            return repeat(when.astype(jnp.int32), lambda _, carry: step(*carry), start)
        if self.apply:
            return _cond(when, lambda: step(*start), lambda: start)

        def skip(sums: Leaves) -> Any:
            shapes = self._results(lambda *args: step(*args)[0], sums, *start[1:])
            return zeros(shapes, sums), state, sums, jnp.array(False)

        return _cond(when, lambda sums: step(self.params, state, sums, None), skip, sums)

    def look(
        self, when: Any, found: Callable[[Leaves | None, State], T], otherwise: T, state: State
    ) -> tuple[T, WrappedUpdate, State]:
        """Measures the parameters and the state where `when`, a traced bool, is true; elsewhere it is free.

        Returns `found(params, state)`, or `otherwise`, then this update and the state again. Use these two
        from here on: the measurement then comes before the step that changes the arrays in place, and XLA
        need not copy them.
        """

        def looked(params: Leaves | None, state: State) -> Any:
            return found(params, state), *barrier((params, state))

        def passed(params: Leaves | None, state: State) -> Any:
            return otherwise, *barrier((params, state))

        result, params, state = _cond(when, looked, passed, self.params, state)
        return result, dataclasses.replace(self, params=params), state

    def preview(
        self,
        tx: Any,
        gs: Leaves,
        state: State,
        params: Leaves | None,
        always: Any,
        seen: Callable[[State], Any] = lambda state: None,
    ) -> tuple[Leaves, list[tuple[Any, dict[str, Any]]], Any]:
        """The updates that a wrapped transform would give, and what its rules concluded; nothing moves.

        Last is what `seen` takes of the state that it would have. All come out of a conditional on `always`,
        a traced bool that is true: XLA on a CPU would otherwise compute them inside each reduction over them,
        several times as slowly.
        """
        rules: list[Any] = []

        def step(gs: Leaves) -> Any:
            shared = self._shared(gs, self._measured())
            updates, after = self._step(tx, gs, state, params, shared, apply=False)
            rules[:] = [rule for rule, _ in shared.concluded]
            return updates, [scalars for _, scalars in shared.concluded], seen(after)

        def nothing(gs: Leaves) -> Any:
            return zeros(jax.eval_shape(step, gs), gs)

        updates, concluded, of_state = _cond(always, step, nothing, gs)
        return updates, list(zip(rules, concluded, strict=True)), of_state

    def _results(self, step: Callable[..., Leaves], gs: Leaves, *args: Any) -> Leaves:
        """The shapes and dtypes of what a step would give that is not made, from the parameters and `args`.

        Outside of `jit` there may be Python code in it that asks for the number of the step, which an
        abstract step has not got. They are then those that a transform of gradtx gives.
        """
        try:
            return jax.eval_shape(step, self.params, *args)
        except Exception as error:
            if not asked_a_tracer(error) or any(isinstance(x, Tracer) for x in jax.tree.leaves(args)):
                raise
        params = self.params or gs
        return [
            jax.ShapeDtypeStruct(g.shape, widest(g.dtype, p.dtype), sharding=typed_sharding(g))
            for g, p in zip(gs, params, strict=True)
        ]

    def _step(
        self, tx: Any, gs: Leaves, state: State, params: Leaves | None, shared: Shared, *, apply: bool
    ) -> tuple[Leaves, State]:
        tree = None if params is None else self._as_described(params)
        result, after = transform.adapted(tx).step(
            self.tree(gs), state, tree, self.extra, shared, apply=apply
        )
        return self.leaves(result), jax.tree.map(cast_like, after, state)

    def _shared(self, gs: Leaves, squares: Leaves | None) -> Shared:
        known = [None] * len(gs) if squares is None else list(map(_known, gs, squares))
        return Shared(self._among_all(known))

    def _as_described(self, params: Leaves) -> Any:
        """Parameters as the tree that `init` has shown the wrapper: with those that have no gradient too."""
        full: Leaves = [None] * self.structure.num_leaves
        for i in self.active:
            full[i] = self.all_params[i]
        for i, x in zip(self.positions, params, strict=True):
            full[i] = x
        return self.structure.unflatten(full)

    def _among_all(self, leaves: Leaves) -> Leaves:
        full: Leaves = [None] * self.structure.num_leaves
        for i, x in zip(self.positions, leaves, strict=True):
            full[i] = x
        return full

    def added(self, updates: Leaves) -> Leaves:
        """The parameters after some updates, in at least float32."""
        assert self.params is not None
        return [transform.added(p, u) for p, u in zip(self.params, updates, strict=True)]

    def number(self, x: Any) -> jax.Array:
        """A scalar in the dtype of hyperparameters."""
        return cast(jnp.asarray(x), number_dtype())


def _cond(condition: jax.Array, true: Callable[..., Any], false: Callable[..., Any], *args: Any) -> Any:
    """A `cond`; outside of `jit`, where the condition is known, a plain `if`, which compiles nothing."""
    if isinstance(condition, Tracer):
        return cond(condition, true, false, *args)
    return (true if condition else false)(*args)


@jax.custom_jvp
def _measured(g: jax.Array, squares: jax.Array) -> jax.Array:
    return squares


@_measured.defjvp
def _measured_jvp(primals: Any, tangents: Any) -> Any:
    (g, squares), (dg, _) = primals, tangents
    return squares, jax.jvp(sum_of_squares, (g,), (dg,))[1]


def _known(g: jax.Array, squares: jax.Array | None) -> jax.Array | None:
    """The sum of |g|² that was taken outside, whose derivative is taken where it is used.

    Where a step is skipped, none is: 2 g times a cotangent of 0 would be NaN for an Inf in g.
    """
    return None if squares is None else _measured(g, jax.lax.stop_gradient(squares))
