"""What is written differently in two transforms, as changes that can be made one by one.

Both are taken apart along their calls. Where the same thing is called, its arguments are compared; where
one has a wrapper more, what it wraps is; elsewhere recipes are opened and their members aligned: equal ones,
then those of one name. Each difference becomes a `Change`, and `Comparison.render` builds the second
transform with any of the changes made, so that it can be tried which of them matter.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeGuard

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import Recipe
from gradtx.core.spec.spec import Spec, same, show
from gradtx.inspect.calls import (
    arguments_of,
    code_of,
    inner_of,
    is_open,
    members_of,
    name_of,
    opened,
    rebuilt,
    wrapped,
    wrappers_of,
)
from gradtx.inspect.docstrings import meaning

Render = Callable[[Collection[int]], Any]


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference in what is written.

    Attributes:
        place: the call that it is in, such as `accumulate.adamw`; empty for the outermost chain.
        name: the argument, or the transforms that are others, in another order, or of other code.
        a: what the first has, as code; empty where it has nothing.
        b: what the second has.
        meaning: what the argument is, in the words of its documentation; empty where there are none.
    """

    place: str
    name: str
    a: str
    b: str
    meaning: str = ""

    @property
    def where(self) -> str:
        """The name with its place."""
        return f"{self.place}.{self.name}".lstrip(".")

    def __str__(self) -> str:
        if not self.a or not self.b:
            return f"{self.where}: {self.a or self.b}, only in {'a' if self.a else 'b'}"
        words = f" ({self.meaning})" if self.meaning else ""
        return f"{self.where}: {self.a} in a, {self.b} in b{words}"


class Comparison:
    """The differences of two transforms."""

    def __init__(self, a: Any, b: Any) -> None:
        self.changes: list[Change] = []
        self.render: Render = self._merged(a, b, "")

    def _choice(self, change: Change, a: Any, b: Any) -> Render:
        number = len(self.changes)
        self.changes.append(change)
        return lambda chosen: a if number in chosen else b

    def _merged(self, a: Any, b: Any, place: str, name: str = "", call: str = "") -> Render:
        """Two values at a place: transforms, or what the argument `name` of `call` is."""
        if isinstance(a, Spec) and isinstance(b, Spec):
            return self._specs(a, b, place, name)
        if same(a, b):
            return lambda chosen: b
        if isinstance(a, Mapping) and isinstance(b, Mapping) and list(a) == list(b):
            parts = {k: self._merged(a[k], b[k], f"{place}[{show(k)}]", name, call) for k in a}
            return lambda chosen: {key: part(chosen) for key, part in parts.items()}
        if _are_alike(a, b):
            items = [self._item(x, y, place, i, name) for i, (x, y) in enumerate(zip(a, b, strict=True))]
            kind = tuple if isinstance(b, tuple) else list
            return lambda chosen: kind(item(chosen) for item in items)
        words = name or " or ".join(dict.fromkeys(map(name_of, (a, b))))
        return self._choice(Change(place, words, code_of(a), code_of(b), meaning(call, name)), a, b)

    def _item(self, a: Any, b: Any, place: str, i: int, name: str) -> Render:
        """Two elements of a sequence, which may be named transforms."""
        if _is_named(a) and _is_named(b) and a[0] == b[0]:
            part = self._merged(a[1], b[1], f"{place}[{show(a[0])}]")
            return lambda chosen: (b[0], part(chosen))
        return self._merged(a, b, place, f"{name}[{i}]")

    def _specs(self, a: Spec, b: Spec, place: str, name: str = "", label: str = "") -> Render:
        ours, theirs = name_of(a), name_of(b)
        if ours == theirs != "chain":
            return self._call(a, b, f"{place}.{label or ours}".lstrip("."), place)
        around_a, around_b = wrappers_of(a), wrappers_of(b)
        if around_a and around_a[0] not in around_b:
            return self._around(a, self._merged(inner_of(a), b, place), place, in_a=True)
        if around_b and around_b[0] not in around_a:
            return self._around(b, self._merged(a, inner_of(b), place), place, in_a=False)
        left, right = members_of(a), members_of(b)
        alone = len(left) == len(right) == 1 and ours != theirs
        if alone and not around_a and (is_open(a) or is_open(b)):
            left, right = opened(left), opened(right)
        elif alone:
            return self._choice(Change(place, name or f"{ours} or {theirs}", show(a), show(b)), a, b)
        members = self._members(left, right, place)
        return lambda chosen: chain(*members(chosen))

    def _call(self, a: Spec, b: Spec, here: str, place: str) -> Render:
        """Two calls of the same, argument by argument."""
        name, before = name_of(a), len(self.changes)
        if type(a) is not type(b):
            kinds = [f"{type(x).__module__}.{type(x).__qualname__}" for x in (a, b)]
            return self._choice(Change(place, f"the code of {name}", *kinds), a, b)
        mine, their = arguments_of(a), arguments_of(b)
        parts = {key: self._merged(mine[key], their[key], here, key, name) for key in their}
        if len(self.changes) > before:
            return lambda chosen: rebuilt(b, {key: part(chosen) for key, part in parts.items()})
        if isinstance(a, Recipe) and isinstance(b, Recipe) and a.program != b.program:
            return self._merged(a.inner, b.inner, here)
        return lambda chosen: b

    def _around(self, wrapper: Any, inner: Render, place: str, *, in_a: bool) -> Render:
        """A wrapper that one of two transforms has around what both have."""
        alone = show(wrapper).replace(show(inner_of(wrapper)), "...", 1)
        change = Change(place, name_of(wrapper), *((alone, "") if in_a else ("", alone)))
        is_there = self._choice(change, in_a, not in_a)

        def render(chosen: Collection[int]) -> Any:
            made = inner(chosen)
            if not is_there(chosen):
                return made
            return rebuilt(wrapper, {**arguments_of(wrapper), wrapped(wrapper): made})

        return render

    def _members(self, a: list[Any], b: list[Any], place: str) -> Render:
        """The members of two chains: what is equal first, then what has the same name."""
        ours, theirs = list(map(name_of, a)), list(map(name_of, b))
        if ours != theirs and Counter(ours) == Counter(theirs):
            return self._reordered(a, b, place)
        pieces: list[Render] = []
        for tag, i, i_end, j, j_end in _opcodes(list(map(show, a)), list(map(show, b))):
            left, right = a[i:i_end], b[j:j_end]
            labels = [_label(theirs, n) for n in range(j, j_end)]
            by_name = "equal" if tag == "equal" else ""
            for kind, k, k_end, m, m_end in _opcodes(ours[i:i_end], theirs[j:j_end], by_name):
                pieces += self._block(kind, left[k:k_end], right[m:m_end], labels[m:m_end], place)
        return lambda chosen: [x for piece in pieces for x in piece(chosen)]

    def _block(self, kind: str, a: list[Any], b: list[Any], labels: list[str], place: str) -> list[Render]:
        """Members of two chains that stand at the same place of both."""
        if kind == "replace" and len(a) == len(b) == 1:
            return [_listing(self._merged(a[0], b[0], place))]
        if kind == "replace" and any(is_open(x) for x in (*a, *b)):
            return [self._members(opened(a), opened(b), place)]
        both = min(len(a), len(b))
        if kind == "equal":
            merged = [self._labelled(*each, place) for each in zip(a, b, labels, strict=True)]
        else:
            merged = [self._merged(x, y, place) for x, y in zip(a, b, strict=False)]
        alone = [self._choice(Change(place, name_of(x), show(x), ""), [x], []) for x in a[both:]]
        alone += [self._choice(Change(place, name_of(y), "", show(y)), [], [y]) for y in b[both:]]
        return [*map(_listing, merged), *alone]

    def _labelled(self, a: Any, b: Any, label: str, place: str) -> Render:
        both = isinstance(a, Spec) and isinstance(b, Spec)
        return self._specs(a, b, place, label=label) if both else self._merged(a, b, place)

    def _reordered(self, a: list[Any], b: list[Any], place: str) -> Render:
        ours, theirs = list(map(name_of, a)), list(map(name_of, b))
        change = Change(place, "the order", " then ".join(ours), " then ".join(theirs))
        labels_a, labels_b = ([_label(names, i) for i in range(len(names))] for names in (ours, theirs))
        order = self._choice(change, labels_a, labels_b)
        left = dict(zip(labels_a, a, strict=True))
        merged = {n: self._labelled(left[n], y, n, place) for n, y in zip(labels_b, b, strict=True)}
        return lambda chosen: [merged[label](chosen) for label in order(chosen)]


def _listing(render: Render) -> Render:
    return lambda chosen: [render(chosen)]


def _opcodes(a: list[str], b: list[str], known: str = "") -> Sequence[tuple[str, int, int, int, int]]:
    """The edits that turn one list into the other; a single edit of the kind `known`, if that is given."""
    if known:
        return [(known, 0, len(a), 0, len(b))]
    return difflib.SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes()


def _label(names: list[str], i: int) -> str:
    """The name of a member of a chain, with a number where it is not the first of that name."""
    before = names[:i].count(names[i])
    return f"{names[i]}_{before}" if before else names[i]


def _are_alike(a: Any, b: Any) -> TypeGuard[Any]:
    """Whether two sequences are to be compared item by item."""
    if type(a) is not type(b) or type(a) not in (tuple, list) or len(a) != len(b):
        return False
    return any(isinstance(item, Spec | tuple) for item in a)


def _is_named(x: Any) -> bool:
    return type(x) is tuple and len(x) == 2 and isinstance(x[0], str)
