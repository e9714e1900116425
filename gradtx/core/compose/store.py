"""`store`: in which formats the slots of a transform are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradtx.core.compose.combine import as_part, visit
from gradtx.core.engine.coded import MEAN_SQUARES, MEANS, MIN_SIZE, Storage
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.program import Builder, Program
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import factory, suggestion
from gradtx.core.spec.fields import check_count


class Stored(Composed):
    """A transform whose slots are kept in some formats."""

    inner: Any
    storage: Storage

    def __init__(self, inner: Any, storage: Storage) -> None:
        self._set(inner=inner, storage=storage)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        defaults = {"min_size": MIN_SIZE, "seed": 0}
        said = {k: v for k, v in ((k, getattr(self.storage, k)) for k in defaults) if v != defaults[k]}
        return "store", (self.inner,), {**said, **dict(self.storage.formats)}

    def _visit(self, builder: Builder) -> None:
        with builder.inside(store=self.storage):
            visit(self.inner, builder)


def _slots(program: Program) -> Iterator[tuple[str, str]]:
    """The slots of all transforms, also of those that are wrapped, as names of a transform and a slot."""
    for unit in program.units:
        for name in getattr(unit.transform, "slots", ()):
            yield unit.where, name
    for part in program.wrapped.values():
        if isinstance(part, Composed):
            yield from _slots(part.program)


@factory
def store(inner: AnyTransform, *, min_size: int = MIN_SIZE, seed: int = 0, **formats: Any) -> Transform:
    """Keeps the slots of a transform in fewer bits.

    A rule does not change and does not know: before it runs what is kept is decoded to the dtype to compute
    in, and what it gives is encoded again. The formats are

    | name | bytes | what is kept |
    |---|---|---|
    | `"bfloat16"` | 2 | the nearest number |
    | `"float16"` | 2 | the nearest number; not for what is never negative: less than 3e-8 becomes 0 |
    | `"int8"` | 1 | numbers with a sign: 2 x / (1 + abs(x)) of a part x of its block's largest, in 127ths |
    | `"uint8"` | 1 | what is never negative, as means of squares: the square root, in 255ths of it |
    | `"float8_e4m3"`, `"float8_e5m2"` | 1 | a part of the largest of its block |
    | `"int4"` | 0.5 | numbers with a sign: one of 16 levels, closer together near 0 |
    | `"uint4"` | 0.5 | what is never negative: the square root, in 16ths of it |
    | `"float32"` | 4 | itself: the leaf stays as wide as arithmetic is |

    Those of a byte or half of one have a scale for each block of about 128 elements, in the dtype to compute
    in, so that they take 0.03 bytes more. `"bfloat16_stochastic"`, `"float16_stochastic"`,
    `"int8_stochastic"`, `"uint8_stochastic"` and `"uint4_stochastic"` round up or down at random, so that
    what is kept is right on average: a mean of squares that moves by less than half a step each time then
    moves all the same. What is drawn depends on the path of the leaf, the slot and the step alone, so that a
    run that is resumed, on any mesh, goes on bit for bit.

    Where a block lies depends on the shape of the leaf, and blocks are cut so that up to 16 devices along an
    axis have whole ones where 16 divides it: then no device needs to know another's scales. A block with a
    NaN or an infinity becomes NaN. What is not 0 is never kept as 0 in a format for what is never negative,
    since updates are divided by it.

    In the state the values stand under the name of the slot, and the scales beside under that name and
    `_scales`. A derivative does not pass through what was rounded to whole numbers.

    Args:
        inner: the wrapped transform, of any library; what another library keeps stays as it is.
        min_size: the fewest elements of what is kept in a format; a smaller leaf is kept as it is. So is one
            without axes, and in 4 bits one whose last axis is odd.
        seed: another one rounds at random in another way.
        **formats: by the name of a slot, such as `mu`, the name of a format; or what says one of each leaf:
            path patterns, a tree, or a function of (path, leaf). `**{"scale_by_adam.mu": ...}` is the slot of
            one transform. `means` and `mean_squares` are for all slots that are declared as averages, with a
            sign and without one, unless their transform was told a dtype; they leave complex leaves as they
            are.

    Returns:
        The transform with the same numbers and other slots.

    Raises:
        ValueError: there is no such format; no slot has such a name; a slot may have a sign, and the format
            none, or the other way around; a format is for the average that `eval_params` returns; at init, a
            complex leaf cannot be kept so.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.store(gradtx.adamw(1e-3), mu="int8", nu="uint8")
        >>> state = tx.init({"w": jnp.zeros((64, 128)), "b": jnp.zeros(128)})
        >>> slots = state["slots"]["scale_by_adam"]
        >>> slots["mu"]["w"].dtype.name, slots["mu_scales"]["w"].shape, slots["mu"]["b"].dtype.name
        ('int8', (8, 8), 'float32')

    References:
        Dettmers et al., 8-bit Optimizers via Block-wise Quantization, 2021, https://arxiv.org/abs/2110.02861;
        Li et al., Memory Efficient Optimizers with 4-bit States, 2023, https://arxiv.org/abs/2309.01507.
    """
    as_part("store", inner)
    check_count("store: min_size", min_size, 0)
    storage = Storage(tuple(formats.items()), min_size, seed)
    made = Stored(inner, storage)
    there = [*_slots(made.program)]
    known = {MEANS, MEAN_SQUARES, *(n for _, n in there), *(f"{where}.{n}" for where, n in there)}
    for name in formats:
        if name not in known:
            hint = suggestion(name, None, sorted(known))
            raise ValueError(
                f"store: no transform here has a slot {name!r}. There are "
                f"{', '.join(dict.fromkeys(n for _, n in there)) or 'none'}. {hint}".rstrip()
            )
    return made
