"""The view of each leaf as matrices: as the user said it, or as names and shapes say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.labels import said_of_each
from gradtx.core.engine.named_views import Reading, readings
from gradtx.core.engine.views import Cut, MatrixView
from gradtx.core.spec.spec import show

Views = Any
"""What is said of the leaves of a tree: see `told`."""


def told(
    views: Views,
    tree: Any,
    where: str,
    unsaid: Callable[[Any], list[Reading | None]] = readings,
    *,
    every_axis: bool = False,
) -> list[Reading | None]:
    """What is known of each leaf of a tree, where the user has said something of some.

    Args:
        views: what was said: patterns of paths with a view for each, or None for what is no matrix, where
            names and shapes say the rest; or for all leaves a tree of these, or a prefix of it, or a function
            of (path, leaf), or of the parameters. None leaves all to the names. A view may be Optax's
            `MuonDimensionNumbers`.
        tree: the parameters, or what has their shapes.
        where: the rule or the recipe that asks, for errors.
        unsaid: what is known of each leaf of a tree of which nothing was said; by default what names and
            shapes say.
        every_axis: whether numbers of axes must name them all; otherwise the others are a batch.

    Returns:
        A reading for each leaf, None for one that has no gradient.

    Raises:
        ValueError: a view does not fit its leaf, a pattern matches none, or a tree is another one.
        TypeError: what stands for a view is none.
    """
    found = unsaid(tree)
    if views is None:
        return found
    paths, (leaves, _) = lv.paths(tree), lv.flatten(tree)
    asked = [reading is not None for reading in found]
    first = said_of_each(views, tree, asked, where, "views", "a view", is_view)
    result: list[Reading | None] = []
    for path, x, said, reading in zip(paths, leaves, first, found, strict=True):
        if reading is not None and said:
            reading = _said(where, path, x, said[0], every_axis)
        result.append(reading)
    return result


def refuse_unclear(
    where: str, tree: Any, found: list[Reading | None], argument: str, matrix: str, other: str
) -> None:
    """Raises where it is not clear what some leaves are.

    Args:
        where: the wrapper or the recipe that asks.
        tree: the parameters, or what has their shapes.
        found: what is known of each.
        argument: what it calls the views.
        matrix: what becomes of a matrix, behind "for a matrix", as " that goes to muon"; it may be empty.
        other: what becomes of another leaf, behind "for one", as "that goes to adamw".
    """
    known = [(i, reading) for i, reading in enumerate(found) if reading and reading.kind == "unclear"]
    if not known:
        return
    paths, (leaves, _) = lv.paths(tree), lv.flatten(tree)
    lines = [f"    {paths[i]!r}, {tuple(np.shape(leaves[i]))}: {reading.why}" for i, reading in known]
    first, reading = known[0]
    axes = reading.view.axes if reading.view else "b" * (np.ndim(leaves[first]) - 2) + "rc"
    raise ValueError(
        f"{where}: it is not clear what these leaves are:\n" + "\n".join(lines) + f"\nSay it by "
        f"{argument}={{{paths[first]!r}: gradtx.matrix_view({axes!r})}} for a matrix{matrix}, with the "
        f"letter of each axis (r for inputs, c for outputs, b for a batch), or "
        f"{{{paths[first]!r}: None}} for one {other}."
    )


def is_view(x: Any) -> bool:
    """Whether it says of one leaf how it is a matrix: a view, or Optax's numbers of axes."""
    return isinstance(x, MatrixView) or (hasattr(x, "reduction_axis") and hasattr(x, "output_axis"))


def _said(where: str, path: str, leaf: Any, view: Any, every_axis: bool) -> Reading:
    """What the user said of one leaf."""
    if view is None:
        return Reading("vector", None, "as was said")
    if not is_view(view):
        raise TypeError(
            f"{where}: of the leaf {path!r} it was said {show(view)}, which is no view. Give "
            f"gradtx.matrix_view('rc'), or None for what is no matrix."
        )
    shape = tuple(np.shape(leaf))
    try:
        own = view if isinstance(view, MatrixView) else _of_dimensions(view, len(shape), every_axis)
        own.of(shape)
    except ValueError as error:
        raise ValueError(f"{where}: the view of the leaf {path!r} does not fit: {error}.") from error
    return Reading("matrix", own, "as was said")


def _of_dimensions(view: Any, ndim: int, every_axis: bool) -> MatrixView:
    """Optax's numbers of axes as a view."""
    letters = ["b"] * ndim
    for axes, letter in ((view.reduction_axis, "r"), (view.output_axis, "c")):
        for axis in (axes,) if isinstance(axes, int) else axes:
            if not -ndim <= axis < ndim or letters[axis] != "b":
                raise ValueError(f"{view} is not of {ndim} axes, each of which is one thing")
            letters[axis] = letter
    if every_axis and "b" in letters:
        raise ValueError(
            f"{view} does not name the axis {letters.index('b')} of {ndim}. Where that is a batch, say so: "
            f"gradtx.matrix_view({''.join(letters)!r})"
        )
    return MatrixView(axes="".join(letters), row_blocks=1, column_blocks=1)


def cuts_of(rule: Any, tree: Any, on: list[bool], where: str) -> list[Cut | None]:
    """The matrices of each leaf that a rule works on.

    Raises:
        ValueError: a leaf that it works on is no matrix, or it is not known which of its axes do what.
    """
    found: list[Cut | None] = []
    paths, (leaves, _) = lv.paths(tree), lv.flatten(tree)
    for path, x, wanted, reading in zip(paths, leaves, on, told(rule.views, tree, where), strict=True):
        if not wanted:
            found.append(None)
            continue
        assert reading is not None
        if reading.view is None:
            axes = "r" * (np.ndim(x) - 1) + "c"
            say = (
                f"Say which axes are what, as in {rule.says_views}={{{path!r}: gradtx.matrix_view({axes!r})}}"
            )
            remedy = "Give it another optimizer" if np.ndim(x) < 2 else f"{say}, or give it another optimizer"
            raise ValueError(
                f"{where} works on matrices, and the leaf {path!r} of shape {tuple(np.shape(x))} has no view "
                f"as one: {reading.why}. {remedy}, as gradtx.muon and gradtx.partition do."
            )
        found.append(rule.cut(reading.view.of(tuple(np.shape(x)))))
    return found
