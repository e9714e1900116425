"""Combinators: in a row (`chain`), by name (`named_chain`), on some leaves (`masked`), side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.composed import Composed
from gradtx.core.engine.leaves import Excluding, Including, Mask
from gradtx.core.engine.program import Builder
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.steps import Fork, Swap
from gradtx.core.engine.transform import Transform, adapted
from gradtx.core.numerics import divide_again
from gradtx.core.spec.arguments import builds, factory
from gradtx.core.spec.fields import Declared
from gradtx.core.spec.spec import show


def checked(where: str, tx: Any) -> Any:
    """`tx`, or an error if it is no transform."""
    if isinstance(tx, type) or not (
        callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))
    ):
        called = f" Call it: {tx.__name__}(...)." if callable(tx) and hasattr(tx, "__name__") else ""
        raise TypeError(f"{where} takes transforms, with init and update; got {show(tx)}.{called}")
    return tx


def as_part(where: str, tx: Any) -> Any:
    """`tx`, or an error if it is no transform, or one that cannot be a part of another."""
    if isinstance(checked(where, tx), Transform) and tx.is_outermost:
        name, *_ = tx._call()
        raise ValueError(f"{where} was given {name}(...), which must be around the whole optimizer.")
    return tx


def visit(tx: Any, builder: Builder) -> None:
    """Adds a transform of any library to a program."""
    adapted(tx)._visit(builder)


class Chain(Composed):
    """Transforms applied one after another."""

    members: tuple[Any, ...]

    def __init__(self, members: tuple[Any, ...]) -> None:
        flat: list[Any] = []
        for tx in members:
            flat.extend(tx.members if type(tx) is Chain else [as_part("chain", tx)])
        self._set(members=tuple(flat))

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "chain", self.members, {}

    def _visit(self, builder: Builder) -> None:
        for tx in self.members:
            visit(tx, builder)


@factory
def chain(*transforms: AnyTransform) -> Transform:
    """Applies transforms one after another: each gets the updates of the one before.

    Nested chains flatten into one list with one step counter. A second transform of a name is called
    `<name>_1` in the state. A transform of another library works inside: any object with `init` and `update`.

    Args:
        *transforms: transforms, in order. None at all is the identity.

    Returns:
        The composition.

    Raises:
        TypeError: an argument is not a transform.

    Examples:
        >>> import gradtx
        >>> gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3))
        chain(clip_by_global_norm(1.0), adam(0.001))
    """
    return Chain(transforms)


class NamedChain(Composed):
    """A chain whose members have names of their own in the state."""

    members: tuple[tuple[str, Any], ...]

    def __init__(self, members: tuple[tuple[str, Any], ...]) -> None:
        names = []
        for member in members:
            if not (isinstance(member, tuple) and len(member) == 2 and isinstance(member[0], str)):
                raise TypeError(f"named_chain takes pairs (name, transform), got {show(member)}.")
            name = member[0]
            if name in names or not name:
                raise ValueError(f"named_chain: {name!r} is taken; give each transform a name of its own.")
            names.append(name)
            as_part("named_chain", member[1])
        self._set(members=tuple(members))

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "named_chain", self.members, {}

    def _visit(self, builder: Builder) -> None:
        for name, tx in self.members:
            with builder.inside(name=name):
                visit(tx, builder)


@factory
def named_chain(*transforms: tuple[str, AnyTransform]) -> Transform:
    """A chain whose members have names of your own in the state and among the hyperparameters.

    Args:
        *transforms: pairs `(name, transform)`.

    Returns:
        The composition; its state keeps each member under its name.

    Raises:
        TypeError: an argument is not a pair of a name and a transform.
        ValueError: a name stands twice.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.named_chain(("soft", gradtx.scale(0.1)), ("hard", gradtx.scale(-1.0)))
        >>> gradtx.hyperparams(tx.init(jnp.zeros(2)))
        {'hard.scale.step_size': -1.0, 'soft.scale.step_size': 0.1}
    """
    return NamedChain(transforms)


Outside = Literal["pass", "zero"]


class Masked(Declared, Composed, name="masked"):
    """A transform on some leaves."""

    inner: Any
    mask: Mask
    mask_compatible_extra_args: bool
    outside: Outside

    def check(self) -> None:
        as_part("masked", self.inner)
        if self.outside not in get_args(Outside):
            raise ValueError(f"masked: outside must be 'pass' or 'zero', got {show(self.outside)}.")

    def _visit(self, builder: Builder) -> None:
        cuts = self.mask_compatible_extra_args
        with builder.inside(mask=Including(self.mask, cuts_extra_args=True) if cuts else self.mask):
            visit(self.inner, builder)
        if self.outside == "zero":
            with builder.inside(mask=Excluding(self.mask)):
                visit(SetToZero(), builder)


class SetToZero(Rule, name="set_to_zero"):
    """u = 0."""

    takes_any_leaf = True

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return jnp.zeros_like(g), slots


@builds(Masked)
def masked(
    inner: AnyTransform, mask: Mask, *, mask_compatible_extra_args: bool = False, outside: Outside = "pass"
) -> Transform:
    """Applies a transform to some leaves; it keeps no state for the others.

    Args:
        inner: the wrapped transform, of any library.
        mask: which leaves, as one of

            - a tree of bools like the parameters, or a prefix of it;
            - a predicate of `(path, leaf)`, with paths such as `'layers/0/kernel'`;
            - a function of the parameters that gives such a tree;
            - a path pattern or a tuple of them, where `*` matches anything and a leading `!` excludes:
              `("!*bias", "!*norm*")`.
        mask_compatible_extra_args: whether keyword arguments of `update` that are trees like the gradients
            are cut down to a transform's own leaves.
        outside: what becomes of the other leaves: `"pass"` leaves their updates as they came (as Optax does:
            without a later transform these are raw gradients), `"zero"` makes them zero.

    Returns:
        The transform on the included leaves.

    Raises:
        ValueError: at init or update, the mask's tree does not fit; the first path is named.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params = {"w": jnp.ones(2), "bias": jnp.ones(1)}
        >>> tx = gradtx.masked(gradtx.scale(2.0), "!*bias", outside="zero")
        >>> tx.update(params, tx.init(params))[0]["w"].tolist()
        [2.0, 2.0]
        >>> tx.update(params, tx.init(params))[0]["bias"].tolist()
        [0.0]
    """
    ...


class Parallel(Composed):
    """Transforms side by side: each gets the same updates, and their results are joined leaf by leaf."""

    name: str
    how: Callable[..., jax.Array]
    members: tuple[Any, ...]

    def __init__(self, name: str, how: Callable[..., jax.Array], members: tuple[Any, ...]) -> None:
        for tx in members:
            as_part(name, tx)
        self._set(name=name, how=how, members=members)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return self.name, self.members, {}

    def _visit(self, builder: Builder) -> None:
        builder.steps.append(Fork())
        for i, tx in enumerate(self.members):
            if i:
                builder.steps.append(Swap())
            visit(tx, builder)
        builder.add_join(self.name, len(self.members), self.how)


def _add(*branches: jax.Array) -> jax.Array:
    return functools.reduce(jnp.add, branches)


@factory
def ratio(numerator: AnyTransform, denominator: AnyTransform) -> Transform:
    """The quotient of two transforms of the same updates: u = numerator(g) / denominator(g).

    Where both are 0 the quotient is 0. The denominator's results must not be negative.

    Args:
        numerator: a transform.
        denominator: a transform with results >= 0, such as a chain that ends with `sqrt()`.

    Returns:
        The quotient, elementwise.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.ratio(gradtx.identity(), gradtx.chain(gradtx.square(), gradtx.sqrt()))
        >>> tx.update(jnp.array([-3.0, 0.0, 2.0]), tx.init(jnp.zeros(3)))[0].tolist()
        [-1.0, 0.0, 1.0]
    """
    return Parallel("ratio", divide_again, (numerator, denominator))


@factory
def add(*transforms: AnyTransform) -> Transform:
    """The sum of transforms of the same updates: u = t1(g) + t2(g) + ...

    Args:
        *transforms: at least one transform.

    Returns:
        The sum, elementwise.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.add(gradtx.identity(), gradtx.scale(2.0))
        >>> float(tx.update(jnp.float32(1.0), tx.init(jnp.float32(0.0)))[0])
        3.0
    """
    if not transforms:
        raise TypeError("add takes at least one transform.")
    return Parallel("add", _add, transforms)
