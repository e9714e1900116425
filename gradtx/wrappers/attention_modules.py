"""The attention modules of a tree: their queries and keys, and the largest logits that are given for each."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.labels import check_patterns, patterns_of, said_of_each
from gradtx.core.spec.spec import is_array, show
from gradtx.wrappers.attention_heads import ROLES, Heads, HeadsOf

Parts = tuple[str, ...]

QUERIES, KEYS = ("query", "rotary_query"), ("key",)

COLLECTIONS = ("params", "intermediates")
"""Names that Flax gives to collections, by which parameters and what is sown differ."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A leaf with queries or keys.

    Attributes:
        position: where it stands among the leaves of the tree.
        path: its path.
        roles: what is in it.
        heads: its heads; None where the tree has no array there.
    """

    position: int
    path: str
    roles: tuple[str, ...]
    heads: HeadsOf | None

    def has(self, roles: tuple[str, ...]) -> bool:
        """Whether one of some roles is in it."""
        return bool({*roles} & {*self.roles})


@dataclasses.dataclass(frozen=True)
class Module:
    """One attention, or several that are scanned.

    Attributes:
        parts: the path of the module, the innermost with both its queries and its keys.
        scope: the path of what its largest logits may stand anywhere inside.
        members: its leaves.
    """

    parts: Parts
    scope: Parts
    members: tuple[Member, ...]

    @property
    def path(self) -> str:
        """The path in one word."""
        return "/".join(self.parts)

    def count(self, roles: tuple[str, ...]) -> int | None:
        """How many heads of some roles there are; None where that is not known."""
        known = [m.heads.number(role) for m in self.members if m.heads is not None for role in roles]
        return next((n for n in known if n is not None), None)

    @property
    def batch(self) -> tuple[int, ...]:
        """The numbers of the layers that are scanned."""
        return next((m.heads.batch for m in self.members if m.heads is not None), ())


def modules_of(said: Any, tree: Any, where: str) -> list[Module]:
    """The attention modules of a tree.

    Args:
        said: the `heads` of leaves, in any form that labels have.
        tree: the parameters, or what has their shapes; what is None there has no shape, and a function of
            (path, leaf) is not asked about it.
        where: who asks, for errors.

    Raises:
        ValueError: a pattern matches no leaf, `heads` do not fit their leaf, or queries and keys not each
            other.
        TypeError: what stands for `heads` is none.
    """
    paths, (leaves, _) = lv.paths(tree), lv.flatten(tree)
    present = [lv.is_trainable_leaf(x) for x in leaves]
    given = said_of_each(said, tree, present, where, "heads", "gradtx.heads(...)")
    members = []
    for i, (path, x, some) in enumerate(zip(paths, leaves, given, strict=True)):
        heads = _heads(where, path, some[0]) if some else None
        if heads is None or not {*QUERIES, *KEYS} & {*heads.roles}:
            continue
        members.append(Member(i, path, heads.roles, _fitted(where, path, heads, x) if present[i] else None))
    found = _grouped(members, where, complete=all(present))
    for module in found:
        _check(module, where, complete=all(present))
    return found


def _heads(where: str, path: str, said: Any) -> Heads | None:
    """What was said of one leaf; a role alone is a leaf with the axes of a kernel of Flax."""
    if said is None or isinstance(said, Heads):
        return said
    if isinstance(said, str) and said in ROLES:
        return Heads(role=said, axes="ihd", number=None)
    raise TypeError(
        f"{where}: of the leaf {path!r} it was said {show(said)}. Give gradtx.heads('query'), "
        f"gradtx.heads('key'), or None for what is neither."
    )


def _fitted(where: str, path: str, heads: Heads, leaf: Any) -> HeadsOf:
    try:
        return heads.of(tuple(np.shape(leaf)))
    except ValueError as error:
        raise ValueError(f"{where}: the heads of the leaf {path!r} do not fit: {error}.") from error


def _split(path: str) -> Parts:
    return tuple(path.split("/")) if path else ()


def _grouped(members: list[Member], where: str, *, complete: bool) -> list[Module]:
    """Each leaf in the innermost module that has both queries and keys."""
    inside: dict[str, set[Parts]] = {"query": set(), "key": set()}
    for member in members:
        parts = _split(member.path)
        prefixes = {parts[:k] for k in range(len(parts) + 1)}
        for name, roles in (("query", QUERIES), ("key", KEYS)):
            if member.has(roles):
                inside[name] |= prefixes
    both = inside["query"] & inside["key"]
    grouped: dict[tuple[Parts, Parts], list[Member]] = collections.defaultdict(list)
    for member in members:
        parts = _split(member.path)
        around = next((parts[:k] for k in range(len(parts), -1, -1) if parts[:k] in both), None)
        if around is None and complete:
            is_query = member.has(QUERIES)
            have, lack, role = ("queries", "keys", "key") if is_query else ("keys", "queries", "query")
            raise ValueError(
                f"{where}: the leaf {member.path!r} has {have}, and no leaf has {lack}. Say which, as in "
                f"{{'*/{role}/kernel': gradtx.heads({role!r})}}."
            )
        if around is None or around == parts:
            # A leaf with both, as a kernel of queries, keys and values: its projection and the bias of that
            # are one module, and what is sown stands in the module around it.
            grouped[parts[:-1], parts[:-2]].append(member)
        else:
            grouped[around, around].append(member)
    return [Module(parts, scope, tuple(own)) for (parts, scope), own in grouped.items()]


def _check(module: Module, where: str, *, complete: bool) -> None:
    """Raises where the leaves of a module are not those of one attention."""
    of = f"of the attention module {module.path!r}"
    for have, roles, role in (("queries", QUERIES, "query"), ("keys", KEYS, "key")):
        own = [m for m in module.members if m.has(roles)]
        if not own and complete:
            others = ", ".join(repr(m.path) for m in module.members)
            raise ValueError(
                f"{where}: no leaf {of} has {have}; there is only {others}. Say which has, as in "
                f"{{'*/{role}/kernel': gradtx.heads({role!r})}}, or leave the others out."
            )
        found = [(m, m.heads.number(name)) for m in own if m.heads for name in roles]
        numbers = [(m, n) for m, n in found if n is not None]
        for (one, n), (other, k) in itertools.pairwise(numbers):
            if n != k:
                raise ValueError(
                    f"{where}: {of} the leaf {one.path!r} has {n} heads of {have}, and {other.path!r} {k}."
                )
    batches = [(m, m.heads.batch) for m in module.members if m.heads is not None]
    for (one, a), (other, b) in itertools.pairwise(batches):
        if a != b:
            raise ValueError(
                f"{where}: {of} the leaf {one.path!r} has a batch of layers {a}, and {other.path!r} has {b}. "
                f"Say of both which axes are layers, as in gradtx.heads('query', 'bihd')."
            )
    queries, keys = module.count(QUERIES), module.count(KEYS)
    if queries is not None and keys is not None and queries % keys:
        raise ValueError(
            f"{where}: {of} the {queries} query heads cannot share {keys} key heads: {queries} is no "
            f"multiple of {keys}. Say how many there are, as in gradtx.heads('key', 'ih', number=8)."
        )


@dataclasses.dataclass(frozen=True)
class _Entry:
    """The largest logits of one attention as they were given."""

    parts: Parts
    value: Any

    @property
    def name(self) -> str:
        return "/".join(self.parts)


def logits_of(given: Any, modules: list[Module], where: str) -> list[jax.Array]:
    """The largest logits of each module, as (*layers, query heads), or as a number for all of its heads.

    Args:
        given: a number for all heads of all modules; a dict from path patterns of modules to an array for
            each; or a tree of arrays, of which that is a module's which stands in it, or at its path.
        modules: the modules.
        where: who asks, for errors.

    Raises:
        ValueError: a module has no entry or several, an entry is two modules' or has another shape, a pattern
            matches no module.
        TypeError: an entry is no array of real numbers.
    """
    if jax.tree_util.all_leaves([given]) and np.ndim(given) == 0:
        return [_real(where, "", given)] * len(modules)
    patterns = patterns_of(given) if isinstance(given, Mapping) else None
    if patterns is not None:
        check_patterns(where, "the max_logits'", patterns, [m.path for m in modules], "attention module")
        entries = [_matching(patterns, module, where) for module in modules]
    else:
        flat = jax.tree_util.tree_flatten_with_path(given)[0]
        known = [_Entry(_split("/".join(lv.path_parts(path))), x) for path, x in flat]
        entries = [_own(known, module, where) for module in modules]
        taken: dict[int, Module] = {}
        for entry, module in zip(entries, modules, strict=True):
            if (before := taken.setdefault(id(entry), module)) is not module:
                named = f", {entry.name!r}," if entry.parts else ""
                raise ValueError(
                    f"{where}: max_logits has one entry{named} for both of the attention modules "
                    f"{before.path!r} and {module.path!r}. Give a tree or a dict with an array for each."
                )
    return [_checked(entry, module, where) for entry, module in zip(entries, modules, strict=True)]


def _matching(patterns: list[tuple[str, Any]], module: Module, where: str) -> _Entry:
    """The entry of the one pattern that matches a module: `jit` does not keep the order of a dict."""
    found = [(pattern, x) for pattern, x in patterns if lv.matches((pattern,), module.path)]
    if len(found) == 1:
        ((pattern, x),) = found
        return _Entry((pattern,), x)
    shown = ", ".join(repr(pattern) for pattern, _ in found or patterns)
    how_many = "several patterns of max_logits match" if found else "no pattern of max_logits matches"
    raise ValueError(
        f"{where}: {how_many} the attention module {module.path!r}: {shown}. Give one for each module."
    )


def _own(known: list[_Entry], module: Module, where: str) -> _Entry:
    """The entry of a module: in it, or at its path or at that of a module around it; the nearest."""
    path, scope = (_bare(parts) for parts in (module.parts, module.scope))
    nearest: dict[int, list[_Entry]] = collections.defaultdict(list)
    for entry in known:
        own = _bare(entry.parts)
        if path[: len(own)] == own or own[: len(scope)] == scope:
            shared = next((k for k, (a, b) in enumerate(zip(own, path, strict=False)) if a != b), None)
            nearest[min(len(own), len(path)) if shared is None else shared].append(entry)
    found = nearest[max(nearest)] if nearest else []
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{where}: max_logits has several entries for the attention module {module.path!r}: "
            f"{', '.join(repr(entry.name) for entry in found)}. Give the largest over all of them, and "
            f"nothing else that was sown."
        )
    shown = ", ".join(repr(entry.name) for entry in known) or "no array"
    raise ValueError(
        f"{where}: max_logits has nothing for the attention module {module.path!r}: it has {shown}. Give a "
        f"tree in which the array stands in the module or at its path, or path patterns of modules."
    )


def _bare(parts: Parts) -> Parts:
    return parts[1:] if parts[:1] and parts[0] in COLLECTIONS else parts


def _real(where: str, name: str, x: Any) -> jax.Array:
    if not (is_array(x) or isinstance(x, int | float | np.number)) or jnp.iscomplexobj(x):
        of = f" of {name!r}" if name else ""
        raise TypeError(f"{where}: max_logits{of} must be real numbers, got {show(x)}.")
    return jnp.asarray(x)


def _checked(entry: _Entry, module: Module, where: str) -> jax.Array:
    x = _real(where, module.path, entry.value)
    queries, keys = module.count(QUERIES), module.count(KEYS)
    if queries is None:
        fits = x.ndim > 0 and (keys is None or x.shape[-1] % keys == 0) and x.shape[:-1] == module.batch
    else:
        fits = x.shape == (*module.batch, queries)
    if not fits:
        wanted = (*module.batch, queries or f"a multiple of {keys or 1}")
        shown = f"({', '.join(map(str, wanted))}{',' * (len(wanted) == 1)})"
        layers = "layers and " if module.batch else ""
        raise ValueError(
            f"{where}: max_logits of the attention module {module.path!r} has the shape {x.shape}, and its "
            f"{layers}query heads make it {shown}. Give one number for each head, the largest logit over the "
            f"batch and over all pairs of positions that see each other."
        )
    return x
