"""Leaves, their paths and masks: what a tree is to the engine.

`None` is a leaf (one that is not trained), and so is the float0 gradient of an integer.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.numerics import is_trainable
from gradtx.core.spec.spec import is_array

PyTree = Any
Mask = Any
"""Which leaves: a tree of bools, a predicate of (path, leaf), a function of the parameters, or patterns."""


def _is_none(x: Any) -> bool:
    return x is None


def flatten(tree: PyTree) -> tuple[list[Any], Any]:
    """The leaves, `None` and float0 as `None`, and the structure."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_none)
    return [None if getattr(x, "dtype", None) == jax.dtypes.float0 else x for x in leaves], structure


def _to_leaf(path: Sequence[Any]) -> tuple[Any, ...]:
    while path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]  # the array inside a variable of the model, or a box: that is the leaf
    return tuple(path)


def _name(path: Sequence[Any]) -> str:
    return jax.tree_util.keystr(_to_leaf(path), simple=True, separator="/")


def path_parts(path: Sequence[Any]) -> list[str]:
    """The parts of the path of a leaf, as JAX gives it."""
    return [jax.tree_util.keystr((key,), simple=True) for key in _to_leaf(path)]


def paths(tree: PyTree) -> list[str]:
    """The path of each leaf, such as `layers/0/kernel`."""
    return [_name(p) for p, _ in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_none)[0]]


def is_trainable_leaf(x: Any) -> bool:
    """Whether a leaf is an array (or a number) that gradients exist for."""
    if x is None:
        return False
    if isinstance(x, bool | int):
        return False
    dtype = np.dtype(type(x)) if isinstance(x, float | complex) else getattr(x, "dtype", None)
    return dtype is not None and is_trainable(dtype)


def as_array(x: Any) -> jax.Array:
    """A leaf as a JAX array."""
    return x if isinstance(x, jax.Array) else jnp.asarray(x)


def as_arrays(tree: PyTree) -> PyTree:
    """A tree with JAX arrays for the numpy arrays in it, as a checkpoint may give them."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray | np.generic) else x, tree)


def shape_of(x: Any) -> jax.ShapeDtypeStruct:
    """An array or a number without its values."""
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))


def align(structure: Any, tree: PyTree, of: PyTree, what: str, reference: str) -> list[Any]:
    """The leaves of `tree`, which must be built like `of`; an error names the first path that differs."""
    leaves, own = flatten(tree)
    if own == structure:
        return leaves
    mine, theirs = paths(tree), paths(of)
    for a, b in zip(mine, theirs, strict=False):
        if a != b and (a in theirs) != (b in mine):
            only, where = (b, reference) if a in theirs else (a, what)
            raise ValueError(
                f"The {what} and the {reference} are different trees: leaf {only!r} is only in the {where}. "
                f"Pass trees of one structure."
            )
        if a != b:
            raise ValueError(
                f"The {what} and the {reference} are different trees: the first that differs is {a!r} in "
                f"the {what} and {b!r} in the {reference}. Pass trees of one structure."
            )
    if len(mine) != len(theirs):
        longer, where = (mine, what) if len(mine) > len(theirs) else (theirs, reference)
        extra = longer[min(len(mine), len(theirs))]
        raise ValueError(
            f"The {what} and the {reference} are different trees: leaf {extra!r} is only in the {where}. "
            f"Pass trees of one structure."
        )
    try:
        return [x for x, _ in zip(structure.flatten_up_to(tree), mine, strict=True)]
    except ValueError:
        raise ValueError(
            f"The {what} and the {reference} have the same leaves but other containers: {own} and "
            f"{structure}. Pass trees of one structure."
        ) from None


def matches(patterns: tuple[str, ...], path: str) -> bool:
    """Whether some pattern matches a path, or there are only `!` patterns, and no `!` pattern does."""
    wanted = [p for p in patterns if not p.startswith("!")]
    unwanted = [p[1:] for p in patterns if p.startswith("!")]
    if any(fnmatch.fnmatchcase(path, p) for p in unwanted):
        return False
    return not wanted or any(fnmatch.fnmatchcase(path, p) for p in wanted)


def positional(fn: Callable[..., Any]) -> int:
    """The number of positional arguments that a function cannot do without; 1 where that is unknown."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(p.kind in kinds and p.default is p.empty for p in parameters)


def note_leaf(error: Exception, tree: PyTree, i: int) -> None:
    """An error says of which leaf it is. A `with` in its place would cost each leaf of an eager update."""
    error.add_note(f"This was raised for the leaf {paths(tree)[i]!r}.")


def is_function(mask: Any) -> bool:
    """Whether it is a function, where a model (a callable pytree of bools or labels) is a tree."""
    return callable(mask) and jax.tree.leaves(mask) == [mask]


def resolve_mask(mask: Any, tree: PyTree, within: list[bool], where: str) -> list[bool]:
    """For each leaf of `tree`, whether `mask` includes it; a predicate sees the leaves `within` alone."""
    patterns = (mask,) if isinstance(mask, str) else mask
    if isinstance(patterns, tuple) and patterns and all(isinstance(p, str) for p in patterns):
        known = paths(tree)
        for pattern in patterns:
            if not pattern.startswith("!") and not fnmatch.filter(known, pattern):
                raise ValueError(
                    f"{where}: the mask's pattern {pattern!r} matches no leaf. There are {', '.join(known)}."
                )
        return [matches(patterns, path) for path in known]
    chosen: Any = mask
    if is_function(mask):
        function: Any = mask
        if positional(function) == 2:
            leaves, _ = flatten(tree)
            given = zip(paths(tree), leaves, within, strict=True)
            return [wanted and bool(function(path, x)) for path, x, wanted in given]
        chosen = function(tree)
    try:
        included = broadcast_prefix(chosen, tree)
    except ValueError as error:
        raise ValueError(
            f"{where}: the mask's tree does not fit the parameters: {misfit('the mask has', chosen, tree)}. "
            f"A mask is a tree of bools of the parameters' structure or a prefix of it, a predicate of "
            f"(path, leaf), or path patterns."
        ) from error
    for path, choice in zip(paths(tree), included, strict=True):
        if choice is not None and not is_bool(choice):
            raise TypeError(f"{where}: the mask at {path!r} must be True or False, got {choice!r}.")
    return [bool(choice) for choice in included]


def is_bool(x: Any) -> bool:
    """Whether it is true or false, as a number or as an array whose value is known."""
    known = isinstance(x, bool | np.bool_) or (is_array(x) and not isinstance(x, Tracer))
    return known and np.shape(x) == () and np.asarray(x).dtype.kind == "b"


def broadcast_prefix(prefix: PyTree, tree: PyTree) -> list[Any]:
    """What a tree, or a prefix of it, says of each leaf of `tree`."""
    return jax.tree.flatten(jax.tree.broadcast(prefix, tree, is_leaf=_is_none), is_leaf=_is_none)[0]


def misfit(has: str, prefix: PyTree, tree: PyTree) -> str:
    """The first path at which `prefix` is no prefix of `tree`, in words that begin with `has`."""
    known = paths(tree)
    for path in paths(prefix):
        if not any(k == path or k.startswith(path + "/") for k in known):
            return f"{has} {path!r}, which the parameters do not have"
    chosen = paths(prefix)
    for path in known:
        if not any(k == path or path.startswith(k + "/") for k in chosen):
            return f"{has} nothing for {path!r}"
    mine, other = type(prefix).__name__, type(tree).__name__
    return "the containers differ" + (f": {mine} and {other}" if mine != other else "")


class Inclusion:
    """Which leaves of one tree some masks include; each mask is resolved once."""

    def __init__(self, tree: PyTree, leaves: list[Any]) -> None:
        self.tree = tree
        self.present = [x is not None for x in leaves]
        self._kept: dict[Any, Any] = {}

    def of(self, masks: Sequence[Mask], where: str) -> list[bool]:
        """For each leaf, whether it is there and every one of `masks` includes it."""
        result = self.present
        for mask in masks:
            result = [a and b for a, b in zip(result, self.chosen(mask, result, where), strict=True)]
        return result

    def chosen(self, mask: Mask, within: list[bool], where: str) -> list[bool]:
        """For each leaf, whether one mask includes it; what it says of leaves not `within` does not count."""
        if isinstance(mask, Selection):
            return mask.choose(self, within, where)
        return self.once((id(mask), tuple(within)), lambda: resolve_mask(mask, self.tree, within, where))

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for a key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@dataclasses.dataclass(frozen=True)
class Selection:
    """A mask that a combinator makes of what it was given."""

    cuts_extra_args: bool = dataclasses.field(default=False, kw_only=True)
    """Whether keyword arguments that are trees like the gradients have the included leaves alone."""

    def choose(self, inclusion: Inclusion, within: list[bool], where: str) -> list[bool]:
        """For each leaf, whether it includes it."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Including(Selection):
    """The leaves that a mask includes."""

    mask: Mask

    def choose(self, inclusion: Inclusion, within: list[bool], where: str) -> list[bool]:
        return inclusion.chosen(self.mask, within, where)


@dataclasses.dataclass(frozen=True)
class Excluding(Selection):
    """The leaves that a mask leaves out."""

    mask: Mask

    def choose(self, inclusion: Inclusion, within: list[bool], where: str) -> list[bool]:
        return [not chosen for chosen in inclusion.chosen(self.mask, within, where)]
