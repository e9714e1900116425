"""A state dict of torch: its parameters by name, and which leaf each of them is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.spec.arguments import suggestion
from gradtx.core.spec.spec import show

Name = str | int
"""Torch's name of a parameter, or its index."""

Names = Mapping[str, Name | tuple[Name, Sequence[int]] | None]
"""For a leaf path torch's name, or a pair of it and the permutation of axes; None where torch has none."""

Order = Iterable[str | tuple[str, Any] | Iterable[str | tuple[str, Any]]]
"""Names, or pairs of a name and its tensor; or some of them for each parameter group."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One leaf and the parameter of torch that it is.

    Attributes:
        path: the path of the leaf.
        key: torch's key for the parameter, an index.
        label: its name and index, for errors.
        group: the position of its parameter group.
        axes: the axes of torch's array in the order that the leaf has them; None if it is the same.
    """

    path: str
    key: Any
    label: str
    group: int
    axes: tuple[int, ...] | None

    def ours(self, array: np.ndarray) -> np.ndarray:
        """An array of torch's in the layout of the leaf."""
        if self.axes is None or not array.ndim:
            return array
        if sorted(self.axes) != list(range(array.ndim)):
            raise ValueError(
                f"names: {self.axes} for the leaf {self.path!r} is no permutation of the {array.ndim} axes "
                f"that torch's {self.label} has."
            )
        return array.transpose(self.axes)

    def theirs(self, array: np.ndarray) -> np.ndarray:
        """An array of the leaf in torch's layout."""
        return array if self.axes is None else array.transpose(np.argsort(self.axes))


def as_numpy(x: Any) -> np.ndarray:
    """A tensor, of torch or not, as an array of numpy; torch's bfloat16, which numpy lacks, as float32."""
    for method in ("detach", "cpu"):
        x = getattr(x, method, lambda x=x: x)()
    return np.asarray(x.float() if str(getattr(x, "dtype", "")) == "torch.bfloat16" else x)


def checked(state_dict: Any) -> Any:
    """A state dict of an optimizer of torch, or an error for what is none."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        shown = (
            ", ".join(map(repr, list(state_dict)[:5]))
            if isinstance(state_dict, Mapping)
            else show(state_dict)
        )
        raise TypeError(
            f"A state dict of a torch optimizer is wanted, with 'state' and 'param_groups', as "
            f"optimizer.state_dict() gives it; got {shown or 'an empty mapping'}."
        )
    groups, state = state_dict["param_groups"], state_dict["state"]
    fine = isinstance(groups, list | tuple) and all(map(_is_group, groups))
    if not groups or not fine or not isinstance(state, Mapping):
        raise TypeError(
            "This state dict is damaged: 'param_groups' must be a list of mappings with 'params', a list of "
            "indices, and 'state' a mapping. Save optimizer.state_dict() anew."
        )
    keys = [key for group in groups for key in group["params"]]
    unknown = [key for key in state if key not in keys]
    if unknown and all(isinstance(key, str) and key.isdigit() and int(key) in keys for key in unknown):
        raise ValueError(
            "The keys of 'state' are strings, which JSON makes of indices. Make them numbers again: "
            "{int(key): entries for key, entries in state_dict['state'].items()}."
        )
    if unknown or len(set(keys)) < len(keys):
        what = (
            f"'state' has {unknown[0]!r}, which no group has" if unknown else "a parameter is in two groups"
        )
        raise ValueError(f"This state dict is damaged: {what}. Save optimizer.state_dict() anew.")
    for key, entries in state.items():
        if not isinstance(entries, Mapping):
            raise TypeError(f"This state dict is damaged: 'state' of {key!r} is {show(entries)}, no mapping.")
    return state_dict


def _is_group(x: Any) -> bool:
    keys = x.get("params") if isinstance(x, Mapping) else None
    return isinstance(keys, list | tuple) and all(isinstance(key, str | int) for key in keys)


def parameters(
    state_dict: Any, names: Names, params: Any, order: Order | None, frozen: list[bool]
) -> list[Parameter | None]:
    """For each leaf of `params` the parameter of torch that it is.

    It is None for a leaf that is None, for one that `names` says torch has none for, and for a frozen one
    whose name torch does not know.
    """
    if not isinstance(names, Mapping):
        raise TypeError(
            f"names must be a mapping from leaf paths to torch's names, such as {{'dense/kernel': "
            f"('fc.weight', (1, 0))}}; got {show(names)}. It is {{}} where all names are the same."
        )
    known = _known(state_dict["param_groups"], order)
    paths, leaves = lv.paths(params), lv.flatten(params)[0]
    for path in names:
        if path not in paths:
            hint = suggestion(str(path), None, paths)
            raise ValueError(
                f"names has {path!r}, which is no leaf of the parameters. {hint or ''}".rstrip()
                + f" There are {', '.join(paths)}."
            )
    found: list[Parameter | None] = []
    for path, x, is_frozen in zip(paths, leaves, frozen, strict=True):
        given = names.get(path, path.replace("/", "."))
        missing = is_frozen and path not in names and given not in known.by_name
        found.append(None if x is None or given is None or missing else _parameter(path, given, known))
    taken: dict[Any, str] = {}
    for p in found:
        if p is not None and taken.setdefault(p.key, p.path) != p.path:
            raise ValueError(f"The leaves {taken[p.key]!r} and {p.path!r} are both torch's {p.label}.")
    for key, (label, _) in known.by_key.items():
        if key not in taken:
            raise ValueError(
                f"torch's {label} is none of the leaves. Say which leaf it is in names; if it is not trained "
                f"any more, make a state dict without it."
            )
    return found


@dataclasses.dataclass(frozen=True)
class _Known:
    by_key: dict[Any, tuple[str, int]]
    by_name: dict[str, Any]


def _known(groups: Any, order: Order | None) -> _Known:
    if order is None:
        given = [_named(group.get("param_names") or []) for group in groups]
    elif len(groups) == 1:
        given = [_named(order)]
    else:
        lists = list(order) if isinstance(order, Iterable) else []
        if len(lists) != len(groups) or any(isinstance(x, str) or _is_pair(x) for x in lists):
            raise ValueError(
                f"order must have a list of names for each of torch's {len(groups)} parameter groups, as the "
                f"optimizer got them: one list of all could be in another order."
            )
        given = list(map(_named, lists))
    by_key: dict[Any, tuple[str, int]] = {}
    by_name: dict[str, Any] = {}
    for g, (group, names) in enumerate(zip(groups, given, strict=True)):
        keys = list(group["params"])
        if names and len(names) != len(keys):
            raise ValueError(
                f"torch's parameter group {g} has {len(keys)} parameters, and there are {len(names)} names. "
                f"Give those that the optimizer got, such as [(n, p) for n, p in model.named_parameters() if "
                f"p.requires_grad]."
            )
        for i, key in enumerate(keys):
            name = names[i] if names else (key if isinstance(key, str) else "")
            by_key[key] = (f"parameter {name!r} (index {key})" if name else f"parameter {key}", g)
            if name:
                by_name[name] = key
    return _Known(by_key, by_name)


def _named(order: Any) -> list[str]:
    """The names of one parameter group."""
    given = list(order) if isinstance(order, Iterable) and not isinstance(order, str) else [order]
    wrong = [x for x in given if not isinstance(x, str) and not _is_pair(x)]
    if wrong or isinstance(order, str):
        of = f", of {_kind(wrong[0])}" if wrong and wrong[0] is not order else ""
        raise TypeError(
            f"order must be torch's names, or pairs of a name and its tensor, such as "
            f"model.named_parameters(); got {_kind(order)}{of}."
        )
    return [x if isinstance(x, str) else x[0] for x in given]


def _kind(x: Any) -> str:
    return f"a {type(x).__name__}"


def _is_pair(x: Any) -> bool:
    """Whether it is a name with its tensor, as `named_parameters` gives them."""
    return (
        isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], str) and not isinstance(x[1], str | tuple)
    )


def _parameter(path: str, given: Any, known: _Known) -> Parameter:
    axes = None
    if isinstance(given, tuple | list) and len(given) == 2:
        given, axes = given
        if not isinstance(axes, tuple | list) or not all(isinstance(a, int | np.integer) for a in axes):
            raise TypeError(
                f"names: the axes of the leaf {path!r} must be a permutation such as (1, 0), got "
                f"{show(axes)}."
            )
        axes = tuple(map(int, axes))
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise TypeError(
            f"names: the leaf {path!r} must have torch's name, its index, or a pair of it and the axes; got "
            f"{show(given)}."
        )
    key = known.by_name.get(given, given) if isinstance(given, str) else given
    if key not in known.by_key:
        if isinstance(given, str) and not known.by_name:
            raise ValueError(
                f"The leaf {path!r} is to be torch's {given!r}, and this state dict has no names, only "
                f"indices. Pass order=model.named_parameters(), if the optimizer was made from "
                f"model.parameters(); or give indices in names."
            )
        hint = suggestion(str(given), None, list(known.by_name))
        there = ", ".join(known.by_name) or ", ".join(map(str, known.by_key))
        raise ValueError(
            f"The leaf {path!r} is to be torch's {given!r}, which the state dict does not have. "
            f"{hint} There are {there}. If torch did not train it, say so: names={{{path!r}: None}}.".replace(
                "  ", " "
            )
        )
    label, group = known.by_key[key]
    return Parameter(path, key, label, group, axes)
