"""A state dict of torch: its parameters by name, and which leaf each of them is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gradtx.core import leaves as lv
from gradtx.core.arguments import suggestion
from gradtx.core.spec import show

Names = Mapping[str, Any]
"""For a leaf path torch's name or index, or a pair of it and the permutation of axes."""


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
    fine = isinstance(groups, list | tuple) and all(isinstance(g, Mapping) and "params" in g for g in groups)
    if not groups or not fine or not isinstance(state, Mapping):
        raise TypeError(
            "This state dict is damaged: 'param_groups' must be a list of mappings with 'params', 'state' a "
            "mapping. Save optimizer.state_dict() anew."
        )
    keys = [key for group in groups for key in group["params"]]
    unknown = [key for key in state if key not in keys]
    if unknown or len(set(keys)) < len(keys):
        what = (
            f"'state' has {unknown[0]!r}, which no group has" if unknown else "a parameter is in two groups"
        )
        raise ValueError(f"This state dict is damaged: {what}. Save optimizer.state_dict() anew.")
    for key, entries in state.items():
        if not isinstance(entries, Mapping):
            raise TypeError(f"This state dict is damaged: 'state' of {key!r} is {show(entries)}, no mapping.")
    return state_dict


def parameters(state_dict: Any, names: Names, params: Any, order: Any) -> list[Parameter | None]:
    """For each leaf of `params` the parameter of torch that it is, None for a leaf that is None."""
    if not isinstance(names, Mapping):
        raise TypeError(
            f"names must be a mapping from leaf paths to torch's names, such as {{'dense/kernel': "
            f"('fc.weight', (1, 0))}}; got {show(names)}. It is {{}} where all names are the same."
        )
    known = _known(state_dict["param_groups"], order)
    paths, leaves = lv.paths(params), lv.flatten(params)[0]
    for path in names:
        if path not in paths:
            hint = suggestion(path, None, paths)
            raise ValueError(
                f"names has {path!r}, which is no leaf of the parameters. {hint or ''}".rstrip()
                + f" There are {', '.join(paths)}."
            )
    found = [
        None if x is None else _parameter(path, names.get(path, path.replace("/", ".")), known)
        for path, x in zip(paths, leaves, strict=True)
    ]
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


def _known(groups: Any, order: Any) -> _Known:
    given = [group.get("param_names") or [] for group in groups]
    if order is not None:
        given = [list(order)] if len(groups) == 1 else list(order)
        if len(given) != len(groups) or any(_is_name(names) for names in given):
            raise ValueError(
                f"order must have a list of names for each of torch's {len(groups)} parameter groups, as the "
                f"optimizer got them: one list of all could be in another order."
            )
    by_key: dict[Any, tuple[str, int]] = {}
    by_name: dict[str, Any] = {}
    for g, (group, names) in enumerate(zip(groups, given, strict=True)):
        keys = list(group["params"])
        named = [n if isinstance(n, str) else n[0] for n in names]
        if named and len(named) != len(keys):
            raise ValueError(
                f"There are {len(named)} names for the {len(keys)} parameters of torch's parameter group {g}."
            )
        for i, key in enumerate(keys):
            name = named[i] if named else (key if isinstance(key, str) else "")
            by_key[key] = (f"parameter {name!r} (index {key})" if name else f"parameter {key}", g)
            if name:
                by_name[name] = key
    return _Known(by_key, by_name)


def _is_name(x: Any) -> bool:
    """Whether it is a name, or one with its tensor, as `named_parameters` gives them."""
    return isinstance(x, str) or (isinstance(x, tuple) and len(x) == 2 and not isinstance(x[1], str | tuple))


def _parameter(path: str, given: Any, known: _Known) -> Parameter:
    axes = None
    if isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[1], Iterable):
        given, axes = given[0], tuple(int(a) for a in given[1])
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
            f"{hint} There are {there}.".replace("  ", " ")
        )
    label, group = known.by_key[key]
    return Parameter(path, key, label, group, axes)
