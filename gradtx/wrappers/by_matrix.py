"""Each matrix of a leaf as a leaf of its own, for what works leaf by leaf."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine import leaves as lv
from gradtx.core.engine import transform
from gradtx.core.engine.matrix_views import Views, refuse_unclear, told
from gradtx.core.engine.on_shards import refuse_shards
from gradtx.core.engine.placement import Placement, resharded, sharded_along, sharded_like, typed_sharding
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform, cast_like
from gradtx.core.engine.views import Cut
from gradtx.core.engine.wrapped_update import Leaves, WrappedUpdate
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.words import count
from gradtx.wrappers.flatten import shapes
from gradtx.wrappers.views import seen_through


def _can_be_cut(x: jax.Array, cut: Cut, axes: Sequence[int | None], leaf: jax.Array) -> jax.Array:
    """An array of which types say that no axis is sharded but the sides of whole matrices.

    `axes` are those of the leaf that its own axes are; XLA reshapes no others.
    """
    typed = typed_sharding(leaf)
    kept = (
        [i for i in cut.matrix_axes if i is not None]
        if len(cut.row_sizes) == len(cut.column_sizes) == 1
        else []
    )
    return resharded(x, typed, [typed.spec[i] if i in kept else None for i in axes] if typed else [])


@functools.partial(jax.jit, static_argnums=0)
def _matrices(cut: Cut, x: jax.Array) -> tuple[jax.Array, ...]:
    """The matrices of a leaf."""
    found = cut.split_each(_can_be_cut(x, cut, range(x.ndim), x))
    return tuple(sharded_along(m, sides, x) for m, sides in zip(found, cut.of_each, strict=True))


@functools.partial(jax.jit, static_argnums=0)
def _leaf(cut: Cut, matrices: Sequence[jax.Array], like: jax.Array) -> jax.Array:
    """The leaf that consists of matrices."""
    return sharded_like(cut.join_each([_can_be_cut(m, cut, cut.matrix_axes, like) for m in matrices]), like)


class ByMatrix(Wrapper, name="by_matrix"):
    """(u_1, u_2, ...) = inner(g_1, g_2, ...),  g_i the matrices of each leaf."""

    inner: Any
    views: Any

    in_place = False
    sees_leaves = False
    is_of_matrices = True

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def cuts(self, tree: Any) -> list[Cut | None]:
        """How each leaf of a tree is cut, None for one that is shown as it is.

        Raises:
            ValueError: it is not clear what a leaf is, or what was said of it does not fit it.
        """
        found = told(self.views, tree, self.name)
        refuse_unclear(self.name, tree, found, "views", "", "that is shown as it is")
        return [
            reading.view.of(tuple(np.shape(x)))
            if reading and reading.view and reading.kind == "matrix" and math.prod(np.shape(x))
            else None
            for x, reading in zip(lv.flatten(tree)[0], found, strict=True)
        ]

    def view(self, params: Any) -> Any:
        leaves, structure = lv.flatten(params)
        place, shown = Placement([x for x in leaves if x is not None]), []
        for x, cut in zip(leaves, self.cuts(params), strict=True):
            if cut is not None:
                leaf = x if place.abstract else lv.as_array(x)
                own = [leaf] * len(cut.of_each) if place.abstract else _matrices(cut, leaf)
                x = tuple(place.part(sides, m, leaf) for m, sides in zip(own, cut.of_each, strict=True))
            shown.append(x)
        return structure.unflatten(shown)

    def run(self, gs: Leaves, slots: Slots, call: WrappedUpdate) -> tuple[Leaves, dict[str, Any]]:
        cuts = self.cuts(call.described)
        own = [cuts[i] for i in call.positions]
        refuse_shards(self.name, [g for g, cut in zip(gs, own, strict=True) if cut is not None])

        def seen(tree: Any) -> Any:
            """Gradients or parameters by their matrices; for a leaf that has none each of them is None."""
            leaves, structure = lv.flatten(tree)
            return structure.unflatten(
                [
                    x if cut is None else (None,) * len(cut.of_each) if x is None else _matrices(cut, x)
                    for x, cut in zip(leaves, cuts, strict=True)
                ]
            )

        def leaves(tree: Any, like: Leaves) -> Leaves:
            """The leaves that a tree of matrices consists of."""
            found = call.structure.flatten_up_to(tree)
            return [
                found[i] if cut is None else _leaf(cut, found[i], x)
                for i, cut, x in zip(call.positions, own, like, strict=True)
            ]

        def back(tree: Any) -> Any:
            params = call.params or gs
            return call.tree([cast_like(x, p) for x, p in zip(leaves(tree, params), params, strict=True)])

        given, params = seen(call.tree(gs)), None if call.params is None else seen(call.tree(call.params))
        extra = seen_through(call.extra, lambda tree: seen(call.tree(call.leaves(tree))), back)
        try:
            inner = transform.adapted(self.inner)
            result, state = inner.step(given, slots.inner, params, extra, None, apply=False)
            if shapes(result) != shapes(given):
                raise ValueError(
                    f"{self.name}: {self.inner!r} gave updates of other shapes than it got. It must keep the "
                    f"shape of each matrix."
                )
            state = jax.tree.map(cast_like, state, slots.inner)
        except Exception as error:
            # What is inside knows the matrices alone, and no leaf of the user's.
            if words := self._other_matrices(cuts, slots.inner, call):
                raise ValueError(words) from error
            raise
        if shapes(state) != shapes(slots.inner) and (words := self._other_matrices(cuts, slots.inner, call)):
            raise ValueError(words)
        return leaves(result, gs), {"inner": state}

    def _other_matrices(self, cuts: list[Cut | None], state: Any, call: WrappedUpdate) -> str:
        """What is said where the state was made for other matrices; nothing where it was made for these."""
        tree = call.described
        try:
            made = jax.eval_shape(self.inner.init, jax.eval_shape(self.view, tree))
        except Exception:  # an `init` that needs values; the first error says more
            return ""
        wanted, found = _shapes(made), _shapes(state)
        wrong = next((keys for keys in wanted if found.get(keys) != wanted[keys]), None)
        if wrong is None and call.params is not None:  # without them a leaf may be there that is not seen
            wrong = next((keys for keys in found if keys not in wanted), None)
        if wrong is None:
            return ""
        name = repr(jax.tree_util.keystr(wrong, simple=True, separator="/"))
        has = f"it has {name} of shape {found[wrong]}" if wrong in found else f"it has no {name}"
        needs = f"which is of shape {wanted[wrong]} now" if wrong in wanted else "for which there is no leaf"
        return (
            f"{self.name}: the state was made for other leaves or other views: {has}, {needs}"
            f"{_seen_as(wrong, tree, cuts)}. Pass the state that init made for these parameters and views; "
            f"call init again for a leaf that was None or masked out then."
        )


def _shapes(tree: Any) -> dict[Any, tuple[int, ...]]:
    """The shape of each array of a tree, by its keys."""
    return {keys: tuple(np.shape(x)) for keys, x in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _seen_as(keys: Any, tree: Any, cuts: list[Cut | None]) -> str:
    """Which leaf an array of a state is of, and how it is shown, in words; none where that is not known."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is None)[0]
    for path, (own, x), cut in zip(lv.paths(tree), leaves, cuts, strict=True):
        end = len(keys) - (cut is not None)
        if x is not None and own and keys[end - len(own) : end] == own:
            how = "as it is" if cut is None else f"as {count(len(cut.of_each), 'matrix', 'matrices')}"
            return f"; the leaf {path!r} of shape {tuple(np.shape(x))} is seen {how}"
    return ""


@builds(ByMatrix)
def by_matrix(inner: AnyTransform, views: Views = None) -> Transform:
    """Shows a transform each matrix that a leaf consists of as a leaf of its own.

        (u_1, ..., u_k) = inner(g_1, ..., g_k)        g_1, ..., g_k the matrices of g

    for each leaf: the layers of a scanned stack, the heads of an attention, queries, keys and values that are
    one kernel. What works leaf by leaf then works on each of them: the rows and columns of `adafactor`, the
    norms of `scale_by_hyperball`, `lamb` and `lars`, `clip_by_block_rms`. What works elementwise, or by the
    norm of the whole tree, gives the same.

    A leaf that is a matrix, or several, is seen as a tuple of arrays of shape (rows, columns): all blocks of
    the first of the batch, then those of the next. Blocks may have several sizes. What is no matrix is seen
    as it is, and so are embeddings and heads, unless `views` says how they are cut. Inside, the path of a
    matrix is that of its leaf and its number, as in `layers/kernel/0`, which masks and labels there see.

    Each matrix costs what a leaf costs, in time to compile and in an eager update. The optimizers that take
    `views` themselves, such as `muon`, work on all matrices of a size at once and need no wrapper.

    Args:
        inner: the wrapped transform, of any library.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        The transform; its state holds a tuple in the place of each such leaf.

    Raises:
        ValueError: at init, it is not clear what a leaf is, or what was said of it does not fit it.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> params = {"layers": {"qkv": jnp.ones((2, 4, 12)), "bias": jnp.ones((2, 12))}}
        >>> view = gradtx.matrix_view("brc", column_blocks=(6, 3, 3))
        >>> tx = gradtx.by_matrix(gradtx.scale_by_adam(), {"layers/qkv": view})
        >>> state = tx.init(params)["slots"]["by_matrix"]["inner"]
        >>> shapes = jax.tree.map(jnp.shape, state["slots"]["scale_by_adam"]["mu"]["layers"])
        >>> shapes["qkv"]
        ((4, 6), (4, 3), (4, 3), (4, 6), (4, 3), (4, 3))
        >>> shapes["bias"]
        (2, 12)
    """
    ...
