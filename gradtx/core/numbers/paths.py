"""Nested dicts of arrays by path: how the state names its numbers and slots."""

from __future__ import annotations

from typing import Any

Path = tuple[str, ...]


def nest(flat: dict[Path, Any]) -> dict[str, Any]:
    """A nested dict from paths."""
    result: dict[str, Any] = {}
    for path, value in flat.items():
        node = result
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return result


def replaced(node: Any, path: Path, value: Any) -> Any:
    """A nested dict with another value at a path."""
    if not path:
        return value
    return {**node, path[0]: replaced(node[path[0]], path[1:], value)}


def lookup(tree: Any, path: Path) -> Any:
    """The node of a nested dict at a path, an empty dict where there is none."""
    for key in path:
        tree = tree.get(key, {})
    return tree
