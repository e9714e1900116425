"""What is written differently in two transforms, as changes that can be made one by one.

Both are taken apart along their calls. Where the same thing is called, its arguments are compared; where it
is not, recipes are opened and their members aligned by name. Each difference becomes a `Change`, and
`Comparison.render` builds the second transform with any of the changes made, so that it can be tried which of
them matter.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeGuard

from gradtx.core.combine import Chain, chain
from gradtx.core.recipe import Recipe
from gradtx.core.spec import FACTORIES, Spec, same, show
from gradtx.inspect.words import meaning

Render = Callable[[Collection[int]], Any]


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference in what is written.

    Attributes:
        place: the call that it is in, such as `accumulate.adamw`; empty for the outermost chain.
        name: the argument, or the transforms that are others, in another order, or of other code.
        a: what the first has, as code; empty where it has nothing.
        b: what the second has.
    """

    place: str
    name: str
    a: str
    b: str

    @property
    def where(self) -> str:
        """The name with its place."""
        return f"{self.place}.{self.name}".lstrip(".")

    def __str__(self) -> str:
        if not self.a or not self.b:
            return f"{self.where}: {self.a or self.b}, only in {'a' if self.a else 'b'}"
        words = f" ({self.meaning})" if self.meaning else ""
        return f"{self.where}: {self.a} in a, {self.b} in b{words}"

    @property
    def meaning(self) -> str:
        """What the argument is, in the words of its documentation; empty where there are none."""
        return meaning(self.place.rpartition(".")[2], self.name)


class Comparison:
    """The differences of two transforms."""

    def __init__(self, a: Any, b: Any) -> None:
        self.changes: list[Change] = []
        self.render: Render = self._merged(a, b, "")

    def _choice(self, change: Change, a: Any, b: Any) -> Render:
        number = len(self.changes)
        self.changes.append(change)
        return lambda chosen: a if number in chosen else b

    def _merged(self, a: Any, b: Any, place: str, name: str = "") -> Render:
        if isinstance(a, Spec) and isinstance(b, Spec):
            return self._specs(a, b, place, name)
        if same(a, b):
            return lambda chosen: b
        if isinstance(a, Mapping) and isinstance(b, Mapping) and list(a) == list(b):
            parts = {key: self._merged(a[key], b[key], place, f"{name}[{show(key)}]") for key in a}
            return lambda chosen: {key: part(chosen) for key, part in parts.items()}
        if _are_alike(a, b):
            items = [
                self._merged(x, y, place, f"{name}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True))
            ]
            kind = tuple if isinstance(b, tuple) else list
            return lambda chosen: kind(item(chosen) for item in items)
        words = name or f"{_name(a)} or {_name(b)}"
        return self._choice(Change(place, words, show(a), show(b)), a, b)

    def _specs(self, a: Spec, b: Spec, place: str, name: str) -> Render:
        ours, theirs = _name(a), _name(b)
        if ours != theirs and not (_is_open(a) or _is_open(b)):
            return self._choice(Change(place, name or f"{ours} or {theirs}", show(a), show(b)), a, b)
        if ours != theirs or ours == "chain":
            members = self._members(_listed(a), _listed(b), place)
            return lambda chosen: chain(*members(chosen))
        if type(a) is not type(b):
            kinds = [f"{type(x).__module__}.{type(x).__qualname__}" for x in (a, b)]
            return self._choice(Change(place, f"the code of {ours}", *kinds), a, b)
        here = f"{place}.{ours}".lstrip(".")
        before, (mine, their) = len(self.changes), (arguments_of(a), arguments_of(b))
        parts = {key: self._merged(mine[key], their[key], here, key) for key in their}
        if len(self.changes) > before:
            return lambda chosen: rebuilt(b, {key: part(chosen) for key, part in parts.items()})
        if isinstance(a, Recipe) and isinstance(b, Recipe) and a.program != b.program:
            return self._merged(a.inner, b.inner, here)
        return lambda chosen: b

    def _members(self, a: list[Any], b: list[Any], place: str) -> Render:
        """Aligns the members of two chains by name."""
        ours, theirs = [_name(x) for x in a], [_name(x) for x in b]
        if ours != theirs and Counter(ours) == Counter(theirs):
            return self._reordered(a, b, place)
        pieces: list[Render] = []
        for tag, i, i_end, j, j_end in _opcodes(ours, theirs):
            left, right = a[i:i_end], b[j:j_end]
            if tag == "equal":
                pieces.append(self._each(left, right, place))
            elif left and right and any(_is_open(x) for x in (*left, *right)):
                pieces.append(self._members(_opened(left), _opened(right), place))
            else:
                name = ", ".join(dict.fromkeys(map(_name, [*left, *right])))
                change = Change(place, name, ", ".join(map(show, left)), ", ".join(map(show, right)))
                pieces.append(self._choice(change, left, right))
        return lambda chosen: [x for piece in pieces for x in piece(chosen)]

    def _each(self, a: list[Any], b: list[Any], place: str) -> Render:
        merged = [self._merged(x, y, place) for x, y in zip(a, b, strict=True)]
        return lambda chosen: [render(chosen) for render in merged]

    def _reordered(self, a: list[Any], b: list[Any], place: str) -> Render:
        ours, theirs = [_name(x) for x in a], [_name(x) for x in b]
        change = Change(place, "the order", " then ".join(ours), " then ".join(theirs))
        order = self._choice(change, ours, theirs)
        left = {(n, ours[:i].count(n)): a[i] for i, n in enumerate(ours)}
        merged = {
            (n, theirs[:i].count(n)): self._merged(left[n, theirs[:i].count(n)], b[i], place)
            for i, n in enumerate(theirs)
        }

        def render(chosen: Collection[int]) -> list[Any]:
            names = order(chosen)
            return [merged[n, names[:i].count(n)](chosen) for i, n in enumerate(names)]

        return render


def _name(tx: Any) -> str:
    return tx._call()[0] if isinstance(tx, Spec) else show(tx)


def _opcodes(ours: list[str], theirs: list[str]) -> Sequence[tuple[str, int, int, int, int]]:
    return difflib.SequenceMatcher(a=ours, b=theirs, autojunk=False).get_opcodes()


def _are_alike(a: Any, b: Any) -> TypeGuard[Any]:
    """Whether two sequences are to be compared item by item."""
    if type(a) is not type(b) or type(a) not in (tuple, list) or len(a) != len(b):
        return False
    return any(isinstance(item, Spec | tuple) for item in a)


def _is_open(tx: Any) -> bool:
    """Whether it consists of members."""
    return isinstance(tx, Chain | Recipe)


def _listed(tx: Any) -> list[Any]:
    return list(tx.members) if isinstance(tx, Chain) else [tx]


def _opened(members: list[Any]) -> list[Any]:
    """The same with every recipe replaced by what it is made of."""
    return [m for tx in members for m in _listed(tx.inner if isinstance(tx, Recipe) else tx)]


def arguments_of(spec: Spec) -> dict[str, Any]:
    """All arguments of the call that builds a value, by name, defaults included."""
    name, args, kwargs = spec._call()
    if name not in FACTORIES:
        return dict(kwargs)
    bound = inspect.signature(FACTORIES[name]).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def rebuilt(spec: Spec, arguments: Mapping[str, Any]) -> Any:
    """The value that the same call builds of other arguments."""
    name = spec._call()[0]
    if name not in FACTORIES:
        return type(spec)(**arguments)
    bound = inspect.signature(FACTORIES[name]).bind_partial()
    bound.arguments.update(arguments)
    return FACTORIES[name](*bound.args, **bound.kwargs)
