"""Labels: which group each leaf belongs to, a group as a mask, and what else is said of each leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import jax

from gradtx.core.engine import leaves as lv
from gradtx.core.numbers.schedule import CALLABLE, COMPLEMENT
from gradtx.core.spec.arguments import suggestion
from gradtx.core.spec.spec import is_array, show

Labels = Any
"""Which group: a tree of labels, a function of (path, leaf), a function of the parameters, or patterns."""


def check_labels(where: str, labels: Iterable[Hashable]) -> None:
    """Raises for labels that cannot name parts of a state."""
    by_name: dict[str, Hashable] = {}
    for label in labels:
        name = str(label)
        reserved = name == CALLABLE or name.startswith(COMPLEMENT)
        if label is None or not name or reserved:
            why = f"{name!r} has a meaning of its own in the state" if reserved else "it is no name"
            raise ValueError(f"{where}: {show(label)} cannot be a label: {why}. Choose another.")
        if name in by_name:
            raise ValueError(
                f"{where}: the labels {show(by_name[name])} and {show(label)} would both be {name!r} in the "
                f"state. Choose labels that differ as strings."
            )
        by_name[name] = label


@dataclasses.dataclass(frozen=True)
class Labelled(lv.Selection):
    """The leaves of one group.

    Attributes:
        owner: the combinator that has the groups, for errors.
        what: what it has for each label, for errors.
        labels: the groups of all leaves, in any form.
        known: every label that there is.
        label: the label of this group.
    """

    owner: str
    what: str
    labels: Labels
    known: tuple[Hashable, ...]
    label: Hashable

    def choose(self, inclusion: lv.Inclusion, within: list[bool], where: str) -> list[bool]:
        key = (self.owner, self.known, id(self.labels), tuple(within))
        labels = inclusion.once(key, lambda: self._resolve(inclusion.tree, within))
        return [label == self.label for label in labels]

    def _resolve(self, tree: lv.PyTree, within: list[bool]) -> list[Any]:
        """The label of each leaf `within`, which every such leaf has; None for the others."""
        known_paths = lv.paths(tree)
        labels, reason = _labels_of(self.labels, tree, known_paths, within, self.owner)
        labels = [label if wanted else None for label, wanted in zip(labels, within, strict=True)]
        for path, label, wanted in zip(known_paths, labels, within, strict=True):
            if wanted and (label is None or is_array(label) or label not in self.known):
                self._refuse(path, label, reason)
        return labels

    def _refuse(self, path: str, label: Any, reason: str) -> None:
        there_are = f"There are {', '.join(map(show, self.known))}."
        if label is None:
            raise ValueError(f"{self.owner}: the leaf {path!r} has no label: {reason}. {there_are}")
        if is_array(label):
            raise TypeError(
                f"{self.owner}: the label of the leaf {path!r} is an array. A label is a string, an int or "
                f"another value that can be hashed. {there_are}"
            )
        hint = suggestion(str(label), None, [k for k in self.known if isinstance(k, str)])
        raise ValueError(
            f"{self.owner}: the leaf {path!r} has the label {show(label)}, which has no {self.what}. "
            f"{there_are} {hint or 'Add it there, or label the leaf otherwise.'}"
        )


def _labels_of(
    labels: Labels, tree: lv.PyTree, known_paths: list[str], within: list[bool], where: str
) -> tuple[list[Any], str]:
    """The label of each leaf, None where there is none, and why there may be none."""
    pairs = patterns_of(labels)
    if pairs is not None:
        check_patterns(where, "the labels'", pairs, known_paths)

        def first(path: str) -> Any:
            return next((label for pattern, label in pairs if lv.matches((pattern,), path)), None)

        found = [first(p) if wanted else None for p, wanted in zip(known_paths, within, strict=True)]
        shown = ", ".join(repr(pattern) for pattern, _ in pairs)
        return found, f"no pattern of {shown} matches it; a last pattern '*' is for all the others"
    if lv.is_function(labels):
        if lv.positional(labels) == 2:
            leaves, _ = lv.flatten(tree)
            given = zip(known_paths, leaves, within, strict=True)
            found = [labels(path, x) if wanted else None for path, x, wanted in given]
            return found, "the function of (path, leaf) gives None"
        labels = labels(tree)
    try:
        return lv.broadcast_prefix(labels, tree), "the tree of labels has None there"
    except ValueError as error:
        raise ValueError(
            f"{where}: the tree of labels does not fit the parameters: "
            f"{lv.misfit('the labels have', labels, tree)}. Labels are a tree of the parameters' structure, "
            f"or a prefix of it, a function of (path, leaf), a function of the parameters, or path patterns, "
            f"one of them with a '*', and a label for each."
        ) from error


def check_patterns(
    where: str, whose: str, pairs: list[tuple[str, Any]], known_paths: list[str], what: str = "leaf"
) -> None:
    """Raises for a pattern that matches no leaf, or nothing else that has a path."""
    for pattern, _ in pairs:
        if known_paths and not any(lv.matches((pattern,), path) for path in known_paths):
            raise ValueError(
                f"{where}: {whose} pattern {pattern!r} matches no {what}. There are {', '.join(known_paths)}."
            )


def patterns_of(labels: Labels) -> list[tuple[str, Any]] | None:
    """The pairs of a pattern and a label, if labels are that; where no key has a wildcard they are a tree."""
    pairs = list(labels.items()) if isinstance(labels, Mapping) else labels
    if not isinstance(pairs, list | tuple):
        return None
    if not all(isinstance(p, list | tuple) and len(p) == 2 and isinstance(p[0], str) for p in pairs):
        return None
    has_wildcard = any(c in pattern for pattern, _ in pairs for c in "*?[!")
    return list(pairs) if has_wildcard else None


@dataclasses.dataclass(frozen=True)
class _Kept:
    """What stands for one value in a tree, whose parts are no leaves of it."""

    value: Any


def said_of_each(
    said: Any,
    tree: lv.PyTree,
    asked: list[bool],
    where: str,
    what: str,
    one: str,
    is_one: Callable[[Any], bool] = lambda x: False,
) -> list[tuple[Any, ...]]:
    """What was said of each leaf of a tree: a tuple of it, or an empty one where no pattern matches.

    Args:
        said: path patterns or paths with a value for each, a tree of values or a prefix of it, or a function
            of (path, leaf) or of the parameters.
        tree: the parameters, or what has their shapes.
        asked: for each leaf, whether a function of (path, leaf) is asked; of the others it says None.
        where: who asks, for errors.
        what: what the values are together, for errors.
        one: how one is written, for errors.
        is_one: whether something is a value and no part of the tree, though JAX would look into it.

    Raises:
        ValueError: a pattern matches no leaf, or a tree is another one.
    """
    paths, (leaves, _) = lv.paths(tree), lv.flatten(tree)
    pairs = patterns_of(said)
    function: Any = said if lv.is_function(said) else None
    if pairs is None and isinstance(said, Mapping) and {*said} <= {*paths}:
        pairs = list(said.items())  # paths themselves
    if pairs is not None:
        check_patterns(where, f"the {what}'", pairs, paths)
        return [next(((v,) for pattern, v in pairs if lv.matches((pattern,), path)), ()) for path in paths]
    if function is not None and lv.positional(function) == 2:
        given = zip(paths, leaves, asked, strict=True)
        return [(function(path, x) if wanted else None,) for path, x, wanted in given]
    chosen = said if function is None else function(tree)
    kept = jax.tree.map(_Kept, chosen, is_leaf=lambda x: x is None or is_one(x))
    try:
        return [(x.value if isinstance(x, _Kept) else x,) for x in lv.broadcast_prefix(kept, tree)]
    except ValueError as error:
        raise ValueError(
            f"{where}: the tree of {what} does not fit the parameters: "
            f"{lv.misfit(f'the {what} have', kept, tree)}. {what.capitalize()} are a tree of the "
            f"parameters' structure, or a prefix of it, a function of (path, leaf), a function of the "
            f"parameters, or path patterns, and {one} for each."
        ) from error
