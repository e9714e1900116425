"""Reading and setting the state of any library by name, as `optax.tree.get` and `set` do."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax

from gradtx.core.numbers.hyperparams import array_of, hyperparams, placed, set_hyperparams
from gradtx.core.numbers.states import held, holds_state, is_foreign, is_state, outermost_states

PyTree = Any
KeyPath = tuple[Any, ...]
Filtering = Callable[[KeyPath, Any], bool]


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """A step of a path into a named tuple.

    Attributes:
        tuple_name: the name of the tuple's class.
        name: the name of the field.
    """

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


@dataclasses.dataclass(frozen=True)
class Required:
    """Stands for a default that was not given."""

    def __repr__(self) -> str:
        return "<an error>"


def get_all_with_path(
    tree: PyTree, key: Any, filtering: Filtering | None = None
) -> list[tuple[KeyPath, Any]]:
    """Everything of a name in a tree: an entry of a dict, a named tuple's field, or such a tuple itself.

    Of a gradtx state `"count"` is the step.

    Args:
        tree: the state of any library, or any tree.
        key: the name.
        filtering: `filtering(path, value)`, whether to take it.

    Returns:
        Pairs of a path, in JAX's keys and `NamedTupleKey`s, and a value.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> state = gradtx.chain(gradtx.scale_by_adam(), gradtx.scale_by_lion()).init(jnp.zeros(2))
        >>> for path, value in gradtx.tree.get_all_with_path(state, "mu"):
        ...     print(*(k.key for k in path))
        slots scale_by_adam mu
        slots scale_by_lion mu
    """
    found = _found((), held(tree), key)
    return [(path, value) for path, value in found if filtering is None or filtering(path, value)]


def get(tree: PyTree, key: Any, default: Any = Required(), filtering: Filtering | None = None) -> Any:
    """What has a name in a tree; there must be one such thing, and nothing is `None` in silence.

    Of a gradtx state, or of what holds one, `"count"` is the step, `"hyperparams"` the dict of all
    hyperparameters, the name of one its value for the next update, and the name of what `monitor` or
    `snapshot` measures what was measured last. The names of the parameters, which
    stand below its slots, are not looked at.

    Args:
        tree: the state of any library, or any tree.
        key: the name.
        default: what to give where there is nothing; without it that is an error.
        filtering: `filtering(path, value)`, whether something of that name counts.

    Returns:
        The value.

    Raises:
        KeyError: there are several such things, or none and no default.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> state = gradtx.adam(1e-3).init(jnp.zeros(2))
        >>> [gradtx.tree.get(state, name) for name in ("learning_rate", "b1")]
        [0.001, 0.9]
        >>> int(gradtx.tree.get(state, "count")), gradtx.tree.get(state, "nu").tolist()
        (0, [0.0, 0.0])
    """
    numbers = _numbers(tree) if filtering is None else {}
    if key in numbers:
        return numbers[key]
    if numbers and key == "hyperparams":
        return numbers
    found = get_all_with_path(tree, key, filtering)
    if len(found) > 1 and numbers and all(isinstance(path[-1], jax.tree_util.DictKey) for path, _ in found):
        # A slot may have the name of its transform, of which the slot is what has the values.
        inner = [(path, x) for path, x in found if not any(p[: len(path)] == path != p for p, _ in found)]
        found = inner if len(inner) == 1 else found
    if len(found) > 1:
        raise KeyError(_several(key, [path for path, _ in found]))
    if not found and isinstance(default, Required):
        raise KeyError(
            f"There is no {key!r} in this {type(tree).__name__}.{_known(numbers)} For a value in its place "
            f"give default=."
        )
    return found[0][1] if found else default


def set(tree: PyTree, filtering: Filtering | None = None, /, **kwargs: Any) -> PyTree:
    """A tree with everything of some names replaced.

    Of a gradtx state, `count=` sets the step, and a hyperparameter is set as by `gradtx.set_hyperparams`.

    Args:
        tree: the state of any library, or any tree.
        filtering: `filtering(path, value)`, whether to replace it.
        **kwargs: new values by name.

    Returns:
        The new tree.

    Raises:
        KeyError: there is nothing of a name.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> state = gradtx.adam(1e-3).init(jnp.zeros(2))
        >>> state = gradtx.tree.set(state, learning_rate=3e-4, count=7)
        >>> gradtx.hyperparams(state)["learning_rate"], gradtx.step_count(state)
        (0.0003, 7)
    """
    numbers = _numbers(tree) if filtering is None else {}
    others = {name: value for name, value in kwargs.items() if name not in numbers}
    for name in others:
        if not get_all_with_path(tree, name, filtering):
            raise KeyError(f"There is no {name!r} to set in this {type(tree).__name__}.{_known(numbers)}")
    if len(others) < len(kwargs):
        tree = set_hyperparams(tree, **{name: kwargs[name] for name in kwargs if name not in others})
    return _replaced((), tree, others, filtering) if others else tree


def _known(numbers: dict[str, Any]) -> str:
    return f" Its hyperparameters are {', '.join(numbers)}." if numbers else ""


def _several(key: Any, paths: list[KeyPath]) -> str:
    """The error for a name that stands in several places, with the code for each of them."""
    clocks = key == "count" and any(map(_is_step, paths))
    why = ", since what a wrapper runs counts its own updates" if clocks else ""
    steps = [{str(getattr(step, "key", step)) for step in path} for path in paths]
    # A word that one of the paths has alone.
    words = [word for i, own in enumerate(steps) for word in own.difference(*steps[:i], *steps[i + 1 :])]
    choice = f", as in lambda path, value: {min(words)!r} in jax.tree_util.keystr(path)" if words else ""
    return (
        f"There are several {key!r} in this state{why}. Read the one that you mean: "
        f"{'; '.join(map(_reading, sorted(paths, key=len)))}. Or choose it by filtering={choice}."
    )


def _is_step(path: KeyPath) -> bool:
    return getattr(path[-1], "key", None) == "step"


def _reading(path: KeyPath) -> str:
    """The code that reads what is at a path of a state."""
    if not _is_step(path):
        return f"state{_code(path)}"
    keys = [str(getattr(step, "key", step)) for step in path]
    of = f"the updates of what {keys[-3]} wraps" if len(keys) > 2 and holds_state(keys[-2]) else "all updates"
    return f"gradtx.step_count(state{_code(path[:-1])}) for {of}"


def _code(path: KeyPath) -> str:
    return "".join(f".{x.name}" if isinstance(x, NamedTupleKey) else str(x) for x in path)


def _numbers(tree: PyTree) -> dict[str, Any]:
    return hyperparams(tree) if outermost_states(tree) else {}


def _is_named_tuple(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields")


def _children(node: Any) -> tuple[list[tuple[Any, Any]], Any]:
    """The parts of a container with their keys, and its structure; no parts if it is a leaf."""
    pairs, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    if _is_named_tuple(node):
        names = [NamedTupleKey(type(node).__name__, field) for field in node._fields]
        return [(name, child) for name, (_, child) in zip(names, pairs, strict=True)], structure
    return [(path[0], child) for path, child in pairs if path], structure


def _matches(node: Any, step: Any, child: Any, key: Any) -> bool:
    """Whether a part of a container is what has a name."""
    if is_state(node) and key == "count":
        return step.key == "step"
    named = getattr(step, "key", getattr(step, "name", None)) == key
    return (named and not isinstance(step, jax.tree_util.SequenceKey)) or _is_called(child, key)


def _is_called(node: Any, key: Any) -> bool:
    return _is_named_tuple(node) and type(node).__name__ == key


class _Place(enum.Enum):
    """What a node is, as far as the layout of a gradtx state says it."""

    ANYTHING = enum.auto()
    SLOTS = enum.auto()
    TRANSFORM = enum.auto()
    THE_USERS = enum.auto()
    """What stands below a slot: a tree of the user's, whose names mean nothing here."""

    def of(self, node: Any, step: Any) -> _Place:
        """What a part of a node at this place is."""
        if is_state(node):
            return _Place.SLOTS if step.key == "slots" else _Place.ANYTHING
        if self is _Place.SLOTS:
            return _Place.ANYTHING if is_foreign(step.key) else _Place.TRANSFORM
        if self is _Place.TRANSFORM:
            return _Place.ANYTHING if holds_state(step.key) else _Place.THE_USERS
        return _Place.ANYTHING


def _found(
    path: KeyPath, node: Any, key: Any, place: _Place = _Place.ANYTHING
) -> Iterator[tuple[KeyPath, Any]]:
    if not path and _is_called(node, key):
        yield path, node
    for step, child in () if place is _Place.THE_USERS else _children(node)[0]:
        here = (*path, step)
        if _matches(node, step, child, key):
            yield here, child
        if place is _Place.SLOTS and re.fullmatch(
            f"(.*[.])?(monitor|snapshot)[.]{re.escape(str(key))}", step.key
        ):
            yield (*here, jax.tree_util.DictKey("value")), child["value"]
        yield from _found(here, child, key, place.of(node, step))


def _replaced(
    path: KeyPath,
    node: Any,
    values: dict[str, Any],
    filtering: Filtering | None,
    place: _Place = _Place.ANYTHING,
) -> Any:
    children, structure = _children(node)
    if not children or place is _Place.THE_USERS:
        return node
    new = []
    for step, child in children:
        here = (*path, step)
        names = [name for name in values if _matches(node, step, child, name)]
        if names and (filtering is None or filtering(here, child)):
            value = values[names[0]]
            new.append(_as_step(value, child) if names[0] == "count" and is_state(node) else value)
        else:
            new.append(_replaced(here, child, values, filtering, place.of(node, step)))
    return structure.unflatten(new)


def _as_step(value: Any, old: Any) -> Any:
    old = array_of(old)
    return placed(value, old.dtype, old.shape, old)
