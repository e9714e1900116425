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

from gradtx.core.numerics import is_trainable

PyTree = Any
Mask = Any
"""Which leaves: a tree of bools, a predicate of (path, leaf), a function of the parameters, or patterns."""


def _is_none(x: Any) -> bool:
    return x is None


def flatten(tree: PyTree) -> tuple[list[Any], Any]:
    """The leaves, `None` and float0 as `None`, and the structure."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_none)
    return [None if getattr(x, "dtype", None) == jax.dtypes.float0 else x for x in leaves], structure


def _name(path: Sequence[Any]) -> str:
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]  # the array inside a variable of the model: the variable is the leaf
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


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


def _matches(patterns: tuple[str, ...], path: str) -> bool:
    wanted = [p for p in patterns if not p.startswith("!")]
    unwanted = [p[1:] for p in patterns if p.startswith("!")]
    if any(fnmatch.fnmatchcase(path, p) for p in unwanted):
        return False
    return not wanted or any(fnmatch.fnmatchcase(path, p) for p in wanted)


def _positional(fn: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(p.kind in kinds and p.default is p.empty for p in parameters)


def _is_function(mask: Mask) -> bool:
    # A model (a callable pytree of bools) is a tree, not a function of the parameters.
    return callable(mask) and jax.tree.leaves(mask) == [mask]


def resolve(mask: Any, tree: PyTree, where: str) -> list[bool]:
    """For each leaf of `tree`, whether `mask` includes it."""
    patterns = (mask,) if isinstance(mask, str) else mask
    if isinstance(patterns, tuple) and patterns and all(isinstance(p, str) for p in patterns):
        known = paths(tree)
        for pattern in patterns:
            if not pattern.startswith("!") and not fnmatch.filter(known, pattern):
                raise ValueError(
                    f"{where}: the mask's pattern {pattern!r} matches no leaf. There are {', '.join(known)}."
                )
        return [_matches(patterns, path) for path in known]
    chosen: Any = mask
    if _is_function(mask):
        function: Any = mask
        if _positional(function) == 2:
            leaves, _ = flatten(tree)
            return [
                x is not None and bool(function(path, x)) for path, x in zip(paths(tree), leaves, strict=True)
            ]
        chosen = function(tree)
    try:
        spread = jax.tree.broadcast(chosen, tree, is_leaf=_is_none)
        included = jax.tree.flatten(spread, is_leaf=_is_none)[0]
    except ValueError as error:
        raise ValueError(
            f"{where}: the mask's tree does not fit the parameters: {_misfit(chosen, tree)}. A mask is a "
            f"tree of bools of the parameters' structure or a prefix of it, a predicate of (path, leaf), or "
            f"path patterns."
        ) from error
    for path, choice in zip(paths(tree), included, strict=True):
        if choice is not None and not isinstance(choice, bool | np.bool_):
            raise TypeError(f"{where}: the mask at {path!r} must be True or False, got {choice!r}.")
    return [bool(choice) for choice in included]


def _misfit(mask: Mask, tree: PyTree) -> str:
    known = paths(tree)
    for path in paths(mask):
        if not any(k == path or k.startswith(path + "/") for k in known):
            return f"the mask has {path!r}, which the parameters do not have"
    chosen = paths(mask)
    for path in known:
        if not any(k == path or path.startswith(k + "/") for k in chosen):
            return f"the mask has nothing for {path!r}"
    return "the containers differ"


@dataclasses.dataclass(frozen=True)
class Excluding:
    """The leaves that a mask leaves out."""

    mask: Mask


def included(masks: Sequence[Mask], tree: PyTree, where: str, count: int) -> list[bool]:
    """For each leaf, whether every one of `masks` includes it."""
    result = [True] * count
    for mask in masks:
        if isinstance(mask, Excluding):
            chosen = [not c for c in resolve(mask.mask, tree, where)]
        else:
            chosen = resolve(mask, tree, where)
        result = [a and b for a, b in zip(result, chosen, strict=True)]
    return result


def over_axes(x: jax.Array, axis_name: str | tuple[str, ...] | None, where: str) -> jax.Array:
    """The sum of a measure over mesh axes; an error where it varies over a manual axis that is not named."""
    named = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())
    aval = jax.typeof(x)
    manual = getattr(aval, "manual_axis_type", None)
    varying = getattr(aval, "vma", frozenset()) if manual is None else manual.varying
    missing = sorted(set(varying) - set(named))
    if missing:
        raise ValueError(
            f"{where}: inside shard_map the leaves vary over the axis {', '.join(missing)}: each shard would "
            f"see a sum of its own. If they are shards of one tree, give axis_name={missing[0]!r}; otherwise "
            f"average the gradients over that axis first."
        )
    return jax.lax.psum(x, named) if named else x
