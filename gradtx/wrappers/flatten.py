"""Flattening: all leaves as one vector, for many small ones."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine import leaves as lv
from gradtx.core.engine import transform
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.placement import Placement, replicated, sharded_like, whole
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform, cast_like
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.numbers.paths import lookup
from gradtx.core.numerics import compute_dtype, is_complex, widest
from gradtx.core.shards import varying
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.words import some
from gradtx.wrappers.views import seen_through

Leaves = list[Any]


class Flatten(Wrapper, name="flatten"):
    """u = inner(v),  v the elements of all leaves."""

    inner: Any

    in_place = False
    sees_leaves = False

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def view(self, params: Any) -> Any:
        leaves = [x for x in lv.flatten(params)[0] if x is not None]
        place, vectors = Placement(leaves), _Vectors(leaves)
        made = vectors.shapes() if place.abstract else vectors.join(leaves)
        return {name: place.scalar(v) for name, v in made.items()}

    def run(self, gs: Leaves, slots: Slots, call: WrappedUpdate) -> tuple[Leaves, dict[str, Any]]:
        if len({varying(g) for g in gs}) > 1:
            raise ValueError(
                f"{self.name}: inside shard_map some leaves vary over axes over which others do not, and one "
                f"vector of all would. Give shards of all leaves, or flatten outside of shard_map."
            )
        places = [place for _, place in call.every]
        if None in places:
            self._check_scales(slots.inner, call)
        # Without the parameters every leaf has a gradient.
        vectors = _Vectors(gs if call.params is None else [param for param, _ in call.every])
        present = [i for i, place in enumerate(places) if place is not None]
        is_part = len(present) < len(places)
        if call.params is None:
            self._check_whole(vectors, slots.inner, call.tree(gs))
        ps = None if call.params is None else vectors.join(call.params, present)
        given = vectors.join(gs, present)
        try:
            own = vectors.taken(slots.inner, present, self.inner) if is_part else slots.inner
            inner = transform.adapted(self.inner)
            extra = _of_vectors(call, vectors, present)
            result, state = inner.step(given, own, ps, extra, None, apply=False)
            # One element beside many is no error of jnp.
            if shapes(result) != shapes(given) or (
                shapes(state) != shapes(own) and not self._same(own, state, vectors)
            ):
                raise ValueError(
                    f"{self.name}: {self.inner!r} gave vectors of other shapes than it got. It must keep the "
                    f"shape of its updates, and of what its state has for each element."
                )
            if is_part:
                state = vectors.put(slots.inner, state, present, self.inner)
        except Exception as error:
            # What is inside knows the vectors alone, and no leaf of the user's.
            if words := self._other_leaves(vectors, slots.inner, call):
                raise ValueError(words) from error
            raise
        state = replicated(jax.tree.map(cast_like, state, slots.inner), gs)
        # The compiler would shard a vector as one of its parts, and then the other leaves as that.
        pieces = vectors.split(replicated(result, gs), present)
        return list(map(sharded_like, pieces, gs)), {"inner": state}

    def _same(self, own: Any, state: Any, vectors: _Vectors) -> bool:
        """Whether a state has vectors of the same shapes; what else is in it may grow."""
        old, new = jax.tree.leaves(own), jax.tree.leaves(state)
        axes = vectors.axes(self.inner)
        return len(old) == len(new) == len(axes) and all(
            at is None or jnp.shape(x) == jnp.shape(y) for x, y, at in zip(old, new, axes, strict=True)
        )

    def _other_leaves(self, vectors: _Vectors, state: Any, call: WrappedUpdate) -> str:
        """What is said where the state was made for other leaves; nothing where it was made for these."""
        try:
            made = jax.eval_shape(self.inner.init, vectors.shapes())
        except Exception:  # an `init` that needs values; the first error says more
            return ""
        gradients = lv.flatten(call.tree(call.gs))[0]
        paths = lv.paths(call.tree(call.gs))
        sizes = {path: g.size for path, g in zip(paths, gradients, strict=True) if g is not None}
        late, beside = "was None or masked out at init and has a gradient now", ""
        probably = f"one of the leaves {some([*sizes])} {late}, or had another dtype or shape then"
        if jax.tree.structure(made) == jax.tree.structure(state):
            pairs = zip(jax.tree.leaves(made), jax.tree.leaves(state), vectors.axes(self.inner), strict=True)
            changed = [(new, old, at) for new, old, at in pairs if at and new.shape != jnp.shape(old)]
            if not changed:
                return ""
            new, old, (name, axis) = changed[0]
            now, then = new.shape[axis], jnp.shape(old)[axis]
            beside = f": of {then:,} elements in {name} leaves, which have {now:,} now"
            alone = [repr(path) for path, size in sizes.items() if size == now - then]
            if now < then:
                probably = "a leaf that init saw is None or masked out now, or has another shape"
            elif alone:
                probably = f"the leaf {' or '.join(alone)} {late}, unless one has another shape"
        return (
            f"{self.name}: the state was made for other leaves{beside}. Probably {probably}. Call init "
            f"again on the parameters that are trained."
        )

    def _check_scales(self, state: Any, call: WrappedUpdate) -> None:
        """Raises where a leaf has no gradient, and its part of a vector cannot be told from the others."""
        if scaled := _scaled(self.inner, state):
            paths = lv.paths(call.described)
            lacking = [paths[i] for i in call.active if i not in call.positions]
            raise ValueError(
                f"{self.name}: the leaf {some(lacking)} has no gradient this time, and {scaled} is kept in "
                f"blocks with a scale, some of which have elements of several leaves. Give it a gradient of "
                f"zeros, leave it out by gradtx.masked, or keep the slot in 'bfloat16' or 'float32'."
            )

    def _check_whole(self, vectors: _Vectors, state: Any, gs: Any) -> None:
        """Raises where a leaf that has a part of the vectors has no gradient, and nothing says which part."""
        lacking = [path for path, g in zip(lv.paths(gs), lv.flatten(gs)[0], strict=True) if g is None]
        if not lacking:
            return
        made = jax.eval_shape(self.inner.init, vectors.shapes())
        if list(map(jnp.shape, jax.tree.leaves(made))) != list(map(jnp.shape, jax.tree.leaves(state))):
            raise ValueError(
                f"{self.name}: the leaf {some(lacking)} has no gradient this time, and only the parameters "
                f"say which part of the vector to leave as it is. Pass them: update(grads, state, params)."
            )


def _of_vectors(call: WrappedUpdate, vectors: _Vectors, present: list[int]) -> dict[str, Any]:
    """The keyword arguments, with the loss and its gradient of the vectors."""

    def back(joined: dict[str, jax.Array]) -> Any:
        pieces, params = vectors.split(joined, present), call.params or call.gs
        return call.tree([cast_like(x, p) for x, p in zip(pieces, params, strict=True)])

    return seen_through(call.extra, lambda tree: vectors.join(call.leaves(tree), present), back)


def shapes(tree: Any) -> list[tuple[int, ...]]:
    """The shapes of the arrays of a tree."""
    return [*map(jnp.shape, jax.tree.leaves(tree))]


def _scaled(tx: Any, state: Any) -> str:
    """A slot in a state that has scales beside it; empty without one."""
    if not isinstance(tx, Composed):
        return ""
    for path, beside in tx.program.scale_paths.items():
        if jax.tree.leaves(lookup(state["slots"], beside)):
            return ".".join(path)
    inside = (_scaled(part, lookup(state["slots"], path)) for path, part in tx.program.wrapped.items())
    return next(filter(None, inside), "")


class _Vectors:
    """How leaves lie in vectors: those of real leaves in one and those of complex ones in another."""

    def __init__(self, leaves: Leaves) -> None:
        self.form = [jnp.shape(x) for x in leaves]
        self.sizes = [math.prod(shape) for shape in self.form]
        self.dtypes = [compute_dtype(jnp.result_type(x)) for x in leaves]
        self.groups: dict[str, list[int]] = {}
        for i, dtype in enumerate(self.dtypes):
            self.groups.setdefault("complex" if is_complex(dtype) else "real", []).append(i)

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The vectors of all leaves, abstract."""
        return {
            name: jax.ShapeDtypeStruct(
                (sum(self.sizes[i] for i in group),), widest(*(self.dtypes[i] for i in group))
            )
            for name, group in self.groups.items()
        }

    def join(self, xs: Leaves, present: list[int] | None = None) -> dict[str, jax.Array]:
        """The vectors of some leaves."""
        given = dict(zip(range(len(xs)) if present is None else present, xs, strict=True))
        result = {}
        for name, group in self.groups.items():
            pieces = [whole(lv.as_array(given[i])).ravel() for i in group if i in given]
            dtype = widest(*(self.dtypes[i] for i in group), *(x.dtype for x in pieces))
            pieces = [x.astype(dtype) for x in pieces] or [jnp.zeros(0, dtype)]
            result[name] = jnp.concatenate(pieces)
        return result

    def split(self, vectors: dict[str, jax.Array], present: list[int]) -> Leaves:
        """Such vectors as leaves again."""
        found = {}
        for name, group in self.groups.items():
            here = [i for i in group if i in present]
            for i, piece in zip(here, self._cut(vectors[name], here, 0), strict=True):
                found[i] = piece.reshape(self.form[i])
        return [found[i] for i in present]

    def _cut(self, x: jax.Array, group: list[int], axis: int) -> list[jax.Array]:
        ends = np.cumsum([self.sizes[i] for i in group])
        return [
            jax.lax.slice_in_dim(x, int(end) - self.sizes[i], int(end), axis=axis)
            for i, end in zip(group, ends, strict=True)
        ]

    def axes(self, inner: Any) -> list[tuple[str, int] | None]:
        """For each array of a state of `inner`, the vector that it is like, and along which of its axes."""
        before = jax.tree.leaves(jax.eval_shape(inner.init, self.shapes()))
        result: list[tuple[str, int] | None] = [None] * len(before)
        for name, vector in self.shapes().items():
            longer = {**self.shapes(), name: jax.ShapeDtypeStruct((vector.size + 1,), vector.dtype)}
            after = jax.tree.leaves(jax.eval_shape(inner.init, longer))
            for i, (a, b) in enumerate(zip(before, after, strict=True)):
                for axis, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)):
                    if m != n:
                        result[i] = name, axis
        return result

    def taken(self, state: Any, present: list[int], inner: Any) -> Any:
        """A state of `inner` for the present leaves alone."""
        arrays, structure = jax.tree.flatten(state)
        result = []
        for x, at in zip(arrays, self.axes(inner), strict=True):
            if at is not None:
                group, axis = self.groups[at[0]], at[1]
                pieces = zip(group, self._cut(x, group, axis), strict=True)
                none = jax.lax.slice_in_dim(x, 0, 0, axis=axis)
                x = jnp.concatenate([none, *(p for i, p in pieces if i in present)], axis)
            result.append(x)
        return structure.unflatten(result)

    def put(self, old: Any, new: Any, present: list[int], inner: Any) -> Any:
        """Such a state in its places among the whole one."""
        arrays, structure = jax.tree.flatten(old)
        result = []
        for x, y, at in zip(arrays, jax.tree.leaves(new), self.axes(inner), strict=True):
            if at is not None:
                group, axis = self.groups[at[0]], at[1]
                here = [i for i in group if i in present]
                pieces = dict(zip(group, self._cut(x, group, axis), strict=True))
                pieces.update(zip(here, self._cut(cast_like(y, x), here, axis), strict=True))
                y = jnp.concatenate(list(pieces.values()), axis)
            result.append(y)
        return structure.unflatten(result)


@builds(Flatten)
def flatten(inner: AnyTransform) -> Transform:
    """Runs a transform on all leaves as one vector, and cuts its result into leaves again.

    Many small leaves then cost a few large operations, and a state of few arrays. What works elementwise or
    by the norm of the whole tree gives the same; what works leaf by leaf sees one leaf, the vector.

    The vector of the real leaves is called `real` and that of the complex ones `complex`, in the widest dtype
    that arithmetic on one of the leaves runs in: bfloat16 leaves beside float32 ones are widened, and each
    update goes back to the dtype of its leaf. A leaf that is masked out has no part in a vector. One without
    a gradient keeps its part of the state bit for bit, and the transform runs on what is left; `update` then
    needs the parameters. Slots whose formats have scales (`gradtx.store`) ask for a gradient of each leaf,
    since their blocks have elements of several.

    Args:
        inner: the wrapped transform, of any library.

    Returns:
        The transform. Its state holds vectors, which are replicated where the parameters are sharded: it is
        not for large sharded leaves.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> tx, params = gradtx.flatten(gradtx.adam(0.1)), {"w": jnp.ones((2, 3)), "bias": jnp.ones(3)}
        >>> updates, state = tx.update(params, tx.init(params), params)
        >>> jax.tree.map(jnp.shape, updates)
        {'bias': (3,), 'w': (2, 3)}
        >>> state["slots"]["flatten"]["inner"]["slots"]["scale_by_adam"]["mu"]["real"].shape
        (9,)
    """
    ...
