"""A table of which leaf goes to which optimizer."""

from __future__ import annotations

import dataclasses

import numpy as np

from gradtx._pages import Block, Page, Row, Table
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.labels import Labelled
from gradtx.core.engine.named_views import Reading
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.spec import show
from gradtx.wrappers.routes import Routes


@dataclasses.dataclass(frozen=True)
class Route:
    """Where one leaf goes.

    Attributes:
        path: its path.
        shape: its shape.
        view: its axes and blocks as a matrix; empty if it has none.
        optimizer: the name of the one that it goes to; empty if that is not clear.
        why: what its name and shape say.
    """

    path: str
    shape: tuple[int, ...]
    view: str
    optimizer: str
    why: str


class Routing(tuple[Route, ...], Page):
    """The routes of all leaves, in order; as text, and in a notebook, a table."""

    __slots__ = ()

    def blocks(self) -> list[list[Block]]:
        """The table."""
        rows = [Row([r.path, str(r.shape), r.view, r.optimizer or "?", r.why]) for r in self]
        return [[Table(["leaf", "shape", "view", "optimizer", "why"], rows, "<<<<<")]]

    def __repr__(self) -> str:
        return str(self)

    # A tuple has a way of its own to print, which comes first.
    __str__ = Page.__str__


def routing(tx: Transform, params: object) -> Routing:
    """The table of which leaf goes where: to the method on matrices, or to what is beside it.

    Args:
        tx: a transform of gradtx's; one that treats matrices by a method and the rest by another, such as
            `gradtx.muon`, or a chain with one.
        params: the parameters, arrays or `jax.ShapeDtypeStruct`s.

    Returns:
        A tuple of routes, each with `path`, `shape`, `view`, `optimizer` and `why`, which prints as a table.
        Where it is not clear what a leaf is, its optimizer is empty, shown as `?`; `init` refuses such a
        leaf.

    Raises:
        ValueError: `tx` has no such optimizer, or several.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params = {"embed": jnp.ones((9, 4)), "dense": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}}
        >>> gradtx.routing(gradtx.muon(0.02), params)
        leaf          shape   view  optimizer  why
        dense/bias    (8,)          adamw      a vector
        dense/kernel  (4, 8)  rc    muon       inputs and outputs
        embed         (9, 4)  rc    adamw      named 'embed'
    """
    units = getattr(getattr(tx, "program", None), "units", ())
    masks = [mask for unit in units for mask in unit.masks if isinstance(mask, Labelled)]
    found = list(dict.fromkeys(mask.labels for mask in masks if isinstance(mask.labels, Routes)))
    if len(found) != 1:
        raise ValueError(
            f"routing takes an optimizer with one method on matrices, such as gradtx.muon(0.02); "
            f"{show(tx)} has {len(found)}."
        )
    routes, (leaves, _) = found[0], lv.flatten(params)
    return Routing(
        Route(path, tuple(np.shape(x)), _view(reading), routes.optimizer(reading), reading.why)
        for path, x, reading in zip(lv.paths(params), leaves, routes.readings(params), strict=True)
        if reading is not None
    )


def _view(reading: Reading) -> str:
    if reading.view is None:
        return ""
    view = reading.view
    blocks = [
        f"{k} {show(v)}" for k, v in (("rows", view.row_blocks), ("columns", view.column_blocks)) if v != 1
    ]
    return ", ".join([view.axes, *blocks])
