"""GaLore: an optimizer that sees gradients in a few directions, which are found anew now and then."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.rule import Slot
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.decompositions import svd
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.matrix_views import Views, is_view, told
from gradtx.core.engine.named_views import Reading
from gradtx.core.engine.on_shards import refuse_shards
from gradtx.core.engine.placement import Placement, Size, sharded_along, sharded_like, whole
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.update import GRAD, OF_PARAMS
from gradtx.core.engine.views import Cut, matrix_view
from gradtx.core.engine.wrapped_update import Leaves, WrappedUpdate
from gradtx.core.numbers.steps import Steps
from gradtx.core.numerics import anywhere, cast, like, real_dtype, sign
from gradtx.core.products import conjugate
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, Number, Period, ScalarOrSchedule, check_count
from gradtx.core.spec.spec import show
from gradtx.core.spec.words import some
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.eigenbases import back, into

ProjType = Literal["optax", "std", "reverse_std", "right", "left", "full"]

SIDES: dict[str, Callable[[int, int], tuple[bool, bool]]] = {
    "optax": lambda m, n: (m >= n, m < n),
    "std": lambda m, n: (m <= n, m > n),
    "reverse_std": lambda m, n: (m > n, m <= n),
    "right": lambda m, n: (True, False),
    "left": lambda m, n: (False, True),
    "full": lambda m, n: (True, True),
}
"""Whether the rows, and whether the columns, of m x n matrices are projected.

The authors' matrices have the outputs first, so that their right is the side of the rows.
"""

ADAM = scale_by_adam()
"""What is run unless another optimizer is given."""

NO_PARAMETERS = {"params", GRAD, *OF_PARAMS}
"""What a transform may ask for that small matrices do not have."""

Shape = tuple[int, ...]
Bases = tuple[Any, Any]
"""The directions of the rows and of the columns, as columns; None for a side that stays as it is."""


@dataclasses.dataclass(frozen=True)
class Projection:
    """How the matrices of one leaf become small ones.

    Attributes:
        cut: the matrices.
        rank: in how many directions.
        rows: whether rows are taken in these directions.
        columns: whether columns are.
    """

    cut: Cut
    rank: int
    rows: bool
    columns: bool

    @functools.cached_property
    def leading(self) -> Shape:
        """What stands before the rows: the batch, and the number of blocks."""
        shape, cut = Size.of(self.cut.shape), self.cut
        cuts = ((cut.rows, cut.row_sizes), (cut.columns, cut.column_sizes))
        blocks = (Size.along(len(sizes), axes[0]) for axes, sizes in cuts if len(sizes) > 1)
        return (*(shape[i] for i in cut.batch), *blocks)

    @functools.cached_property
    def sides(self) -> tuple[int, int]:
        """The rows and the columns."""
        return self.cut.sides(*self.cut.sizes[0])

    @property
    def small(self) -> Shape:
        """The shape of the small matrices."""
        (m, n), r = self.sides, self.rank
        return (*self.leading, r if self.rows else m, r if self.columns else n)

    @property
    def slots(self) -> tuple[Shape, Shape | None]:
        """The shapes of what is remembered: of the one side that is projected, or of both."""
        rows, columns = ((*self.leading, side, self.rank) for side in self.sides)
        return (rows if self.rows else columns), (columns if self.rows and self.columns else None)

    def bases(self, slots: tuple[Any, Any]) -> Bases:
        """What is remembered, by the side it is of."""
        first, second = slots
        return (first, second) if self.rows else (None, first)

    def kept(self, bases: Bases) -> tuple[Any, Any]:
        """Directions as they are remembered."""
        rows, columns = bases
        return (rows, columns) if self.rows else (columns, None)


def upright(x: jax.Array) -> jax.Array:
    """Vectors, as columns, turned so that of each the largest entry, the first among equals, is positive.

    A decomposition leaves the sign of a singular vector open, and what is remembered depends on it.
    """
    at = jnp.argmax(jnp.abs(x), axis=-2, keepdims=True)
    return x * jnp.conj(sign(jnp.take_along_axis(x, at, axis=-2)))


def _renewed(how: Projection, due: jax.Array, x: jax.Array, old: Bases) -> Bases:
    """The first singular vectors of matrices that say some, for all or for those that have none yet."""
    u, _, vh = svd(x)
    finite = [_over(jnp.all, jnp.isfinite(y)) for y in (x, u, vh)]
    taken = (due | _unset(old)) & _over(jnp.any, x != 0) & functools.reduce(jnp.logical_and, finite)

    def new(q: Any, vectors: jax.Array) -> Any:
        if q is None:
            return None
        first = upright(vectors[..., : how.rank]).astype(q.dtype)
        return sharded_like(jnp.where(taken, first, whole(q)), q)

    rows, columns = old
    return new(rows, u), new(columns, conjugate(vh))


def _over(fold: Any, x: jax.Array) -> jax.Array:
    """Some or all elements of each matrix."""
    return fold(x, axis=(-2, -1), keepdims=True)


def _unset(bases: Bases) -> jax.Array:
    """Of which matrices no directions are known yet: they are the zeros of the start."""
    known = next(q for q in bases if q is not None)
    return _over(jnp.all, whole(known) == 0)


@functools.partial(jax.jit, static_argnums=0)
def _projected(how: Projection, g: jax.Array, old: Bases, due: jax.Array) -> tuple[jax.Array, Bases]:
    """The small matrices of a leaf, and the directions by which they were made."""
    x = how.cut.arranged(how.cut.split(whole(g)))
    bases = jax.lax.cond(
        anywhere(jax.lax.stop_gradient(due | jnp.any(_unset(old)))),
        lambda x, old: _renewed(how, due, x, old),
        lambda x, old: old,
        x,
        old,
    )
    return sharded_along(into(x, _whole(bases)), how.small, g), bases


@functools.partial(jax.jit, static_argnums=0)
def _in_full(how: Projection, u: jax.Array, bases: Bases, scale: jax.Array, g: jax.Array) -> jax.Array:
    """A leaf made of small matrices."""
    u = whole(u).astype(like(u.dtype, g.dtype))
    x = cast(scale, real_dtype(u.dtype)) * back(u, _whole(bases))
    m, n = how.cut.sizes[0]
    return sharded_like(how.cut.join([x.reshape(how.cut.count(0), m, n)]), g)


def _whole(bases: Bases) -> Bases:
    rows, columns = (None if q is None else whole(q) for q in bases)
    return rows, columns


def _of_two_axes(tree: Any) -> list[Reading | None]:
    """What is known of leaves by their number of axes alone, as Optax knows it."""
    view, (leaves, _) = matrix_view("rc"), lv.flatten(tree)
    matrix, other = Reading("matrix", view, "two axes"), Reading("vector", None, "not of two axes")
    return [None if not lv.is_trainable_leaf(x) else matrix if np.ndim(x) == 2 else other for x in leaves]


def _needing(tx: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What each transform in a transform must be given."""
    if isinstance(tx, Composed):
        yield from tx.program.needs.items()
        for part in tx.program.wrapped.values():
            yield from _needing(part)


class ScaleByGalore(Wrapper, name="scale_by_galore"):
    """R = P* g Q,  u = scale P base(R) Q*,  P and Q of the singular vectors of g, found now and then."""

    rank: int
    update_proj_gap: Period
    scale: Number
    base_optimizer: Any
    weight_dimension_numbers: Any
    proj_type: str
    projector_dtype: DTypeName

    in_place = False
    is_of_matrices = True

    projector = Slot(dtype="projector_dtype", shapes=lambda rule, params: rule.slot_shapes(params)[0])
    column_projector = Slot(dtype="projector_dtype", shapes=lambda rule, params: rule.slot_shapes(params)[1])

    def check(self) -> None:
        check_count(f"{self.name}: rank", self.rank)
        if self.proj_type not in get_args(ProjType):
            known = ", ".join(map(repr, get_args(ProjType)))
            raise ValueError(f"{self.name}: proj_type must be one of {known}, got {show(self.proj_type)}.")
        for where, needs in _needing(self.base):
            if lacks := NO_PARAMETERS & {*needs}:
                raise ValueError(
                    f"{self.name}: the base_optimizer sees small matrices, of which there are no parameters, "
                    f"and {where} in it needs {some(sorted(lacks))}. Give a transform of gradients alone, "
                    f"such as gradtx.scale_by_adam(), and weight decay to gradtx.galore(weight_decay=...)."
                )

    @property
    def base(self) -> Any:
        """What sees the small matrices."""
        return ADAM if self.base_optimizer is None else self.base_optimizer

    @property
    def views(self) -> Any:
        """Optax's name for what is said of the leaves."""
        return self.weight_dimension_numbers

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.base}

    def projections(self, tree: Any) -> list[Projection | None]:
        """For each leaf of a tree how it is projected, None for what goes to the base as it is.

        Raises:
            ValueError: what was said of a leaf does not fit it.
        """
        views: Any = self.views
        if is_view(views):
            views = functools.partial(_of_axes, views)
        (leaves, _), paths = lv.flatten(tree), lv.paths(tree)
        readings = told(views, tree, self.name, _of_two_axes, every_axis=True)
        found: list[Projection | None] = []
        for path, x, reading in zip(paths, leaves, readings, strict=True):
            shape = tuple(np.shape(x))
            if reading is None or reading.view is None or not math.prod(shape):
                found.append(None)
                continue
            cut = reading.view.of(shape)
            if not cut.is_even:
                raise ValueError(
                    f"{self.name}: {reading.view!r} cuts the leaf {path!r} into blocks of several sizes, "
                    f"whose small matrices are no one array. Leave the blocks out, or give ones of one size."
                )
            m, n = cut.sizes[0]
            found.append(Projection(cut, min(self.rank, m, n), *SIDES[self.proj_type](m, n)))
        return found

    def slot_shapes(self, params: Any) -> tuple[list[Shape | None], list[Shape | None]]:
        """The shapes of both slots for each leaf."""
        shapes = [(None, None) if how is None else how.slots for how in self.projections(params)]
        return [first for first, _ in shapes], [second for _, second in shapes]

    def view(self, params: Any) -> Any:
        leaves, structure = lv.flatten(params)
        place = Placement([x for x in leaves if x is not None])
        return structure.unflatten(
            [
                x if how is None else place.slot(how.small, jnp.result_type(x), 0.0, x)
                for x, how in zip(leaves, self.projections(params), strict=True)
            ]
        )

    def run(self, gs: Leaves, slots: Slots, call: WrappedUpdate) -> tuple[Leaves, dict[str, Any]]:
        tree = call.tree(gs if call.params is None else call.params)
        every = self.projections(tree)
        hows = [every[i] for i in call.positions]
        refuse_shards(self.name, [g for g, how in zip(gs, hows, strict=True) if how is not None])
        remembered = list(zip(slots.projector, slots.column_projector, strict=True))
        self._check_slots(hows, remembered, tree, call.positions)
        due = Steps.of(call.step).is_multiple(self.update_proj_gap)
        small, bases = [], []
        for g, how, own in zip(gs, hows, remembered, strict=True):
            x, found = (g, (None, None)) if how is None else _projected(how, g, how.bases(own), due)
            small.append(x)
            bases.append(found)
        moved, inner = self._moved(small, slots.inner, call)
        updates = [
            u if how is None else _in_full(how, u, own, self.scale, g)
            for u, how, own, g in zip(moved, hows, bases, gs, strict=True)
        ]
        kept = [own if how is None else how.kept(own) for how, own in zip(hows, bases, strict=True)]
        return updates, {
            "projector": [first for first, _ in kept],
            "column_projector": [second for _, second in kept],
            "inner": inner,
        }

    def _moved(self, small: Leaves, state: Any, call: WrappedUpdate) -> tuple[Leaves, Any]:
        """What the base makes of the small matrices, whose parameters nobody knows."""
        extra = {name: x for name, x in call.extra.items() if name not in NO_PARAMETERS}
        unknown: Leaves = [None] * len(small)
        inside = dataclasses.replace(call, gs=small, given=small, params=None, extra=extra, known=unknown)
        moved, after = inside.run(self.base, small, state)
        if [jnp.shape(u) for u in moved] != [x.shape for x in small]:
            raise ValueError(
                f"{self.name}: {self.base!r} gave updates of other shapes than it got. It must keep the "
                f"shape of each leaf."
            )
        return moved, after

    def _check_slots(self, hows: list[Any], slots: list[Any], tree: Any, positions: list[int]) -> None:
        """Raises where a state was made for leaves that are projected otherwise."""
        for how, own, i in zip(hows, slots, positions, strict=True):
            wanted = (None, None) if how is None else how.slots
            found = tuple(None if x is None else x.shape for x in own)
            if found != wanted:
                raise ValueError(
                    f"{self.name}: the leaf {lv.paths(tree)[i]!r} is projected by matrices of the shapes "
                    f"{_shown(wanted)}, and the state has {_shown(found)}. Pass the state that init made for "
                    f"these parameters; call init again for a leaf that was None or masked out then."
                )


def _of_axes(view: Any, path: str, leaf: Any) -> Any:
    """One view for all leaves that can have one."""
    return view if np.ndim(leaf) >= 2 else None


def _shown(shapes: tuple[Any, ...]) -> str:
    return some([str(tuple(map(int, shape))) for shape in shapes if shape is not None]) or "none"


@builds(ScaleByGalore)
def scale_by_galore(
    rank: int = 128,
    update_proj_gap: ScalarOrSchedule = 200,
    scale: ScalarOrSchedule = 1.0,
    base_optimizer: AnyTransform | None = None,
    weight_dimension_numbers: Views = None,
    *,
    proj_type: ProjType = "optax",
    projector_dtype: DType | None = None,
) -> Transform:
    """Runs an optimizer on gradients of matrices in a few directions, those of their largest singular values.

        at t = 1, 1 + k, 1 + 2 k, ...   g = U S V*,   P and Q the first r columns of U and V, or 1
        R = P* g Q        u = scale P base(R) Q*        k = update_proj_gap, r = min(rank, m, n)

    for m inputs and n outputs. What the optimizer remembers has the size of R, and stays as it is when the
    directions change. `proj_type` says which side has them; the other's are 1:

        "optax"          the rows (inputs) if m >= n, else the columns: the longer side
        "std"            the rows if m <= n, else the columns: the shorter side, as in the paper
        "reverse_std"    the rows if m > n, else the columns
        "right", "left"  the rows, the columns, whatever the shape
        "full"           both

    with the authors' words but for the first, whose weights have the outputs first. Of each singular vector
    the largest entry is made positive. A gradient that is 0, or not finite, says no directions, and the old
    ones stay. What is no matrix goes to the optimizer as it is, and is not scaled.

    Args:
        rank: the number r of directions, >= 1; at most the shorter side.
        update_proj_gap: the number k of updates from one decomposition to the next, a whole number from 1 to
            2^31 - 1; between these it costs nothing.
        scale: the factor of what was projected; the authors begin with 0.25.
        base_optimizer: the optimizer, of any library; one that makes a direction of gradients alone, since
            there are no parameters of the shape of R; by default `scale_by_adam()`.
        weight_dimension_numbers: which leaves are matrices, and how; by default those of two axes. A view by
            pattern, `{"layers/*kernel": gradtx.matrix_view("brc")}`, with None for what is no matrix, leaves
            the others at that. A tree, or a function of (path, leaf) or of the parameters, says it of all
            leaves, and one view alone is that of all with two axes or more. A view may be Optax's
            `gradtx.contrib.GaLoreDimensionNumbers`.
        proj_type: which side is projected; as above.
        projector_dtype: dtype to store the directions in; by default the parameter's, at least float32.

    Returns:
        A transform with the slot `projector`, of each matrix that of the rows or that of the columns, and
        with `"full"` also `column_projector`; the state of `base_optimizer` has small matrices in the place
        of the leaves.

    Raises:
        ValueError: `rank` is no int >= 1, or there is no such `proj_type`; `base_optimizer` needs the
            parameters, or a function of them; at init, what was said of a leaf does not fit it.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> params = {"kernel": jnp.ones((64, 16)), "bias": jnp.ones(16)}
        >>> state = gradtx.scale_by_galore(rank=4, scale=0.25).init(params)["slots"]["scale_by_galore"]
        >>> jax.tree.map(jnp.shape, state["projector"])
        {'bias': None, 'kernel': (64, 4)}
        >>> jax.tree.map(jnp.shape, state["inner"]["slots"]["scale_by_adam"]["mu"])
        {'bias': (16,), 'kernel': (4, 16)}

    References:
        Zhao et al., GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection, 2024,
        https://arxiv.org/abs/2403.03507.
    """
    ...
