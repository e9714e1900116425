"""Which leaves go to a method on matrices, and which to AdamW beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.kernels import hashable
from gradtx.core.engine.matrix_views import Views, told
from gradtx.core.engine.named_views import Reading

MATRICES, REST = "matrices", "rest"
"""The labels of the two groups."""


class Routes:
    """The labels of a partition in two: a method for the matrices, and AdamW for the rest.

    A leaf goes to the method if it is a hidden matrix. Embeddings, heads, vectors and numbers go to AdamW. A
    leaf of which that is not known is an error.
    """

    def __init__(self, recipe: str, views: Views, argument: str = "views") -> None:
        self.recipe, self.views, self.argument = recipe, views, argument

    def _parts(self) -> Any:
        return self.recipe, hashable(self.views)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Routes) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def readings(self, tree: Any) -> list[Reading | None]:
        """What is known of each leaf."""
        return told(self.views, tree, self.recipe)

    def label(self, reading: Reading | None) -> str | None:
        """Where a leaf goes."""
        if reading is None:
            return REST
        if reading.kind == "unclear":
            return None
        return MATRICES if reading.kind == "matrix" else REST

    def __call__(self, params: Any) -> Any:
        """The label of each leaf, as a tree."""
        leaves, structure = lv.flatten(params)
        found = self.readings(params)
        labels = [self.label(reading) for reading in found]
        if None in labels:
            self._refuse(params, leaves, found, labels)
        return structure.unflatten(labels)

    def _refuse(self, params: Any, leaves: list[Any], found: list[Any], labels: list[Any]) -> None:
        unclear = [i for i, label in enumerate(labels) if label is None]
        paths = lv.paths(params)
        lines = [f"    {paths[i]!r}, {tuple(np.shape(leaves[i]))}: {found[i].why}" for i in unclear]
        first = unclear[0]
        axes = found[first].view.axes if found[first].view else "b" * (np.ndim(leaves[first]) - 2) + "rc"
        raise ValueError(
            f"{self.recipe}: it is not clear what these leaves are:\n" + "\n".join(lines) + f"\nSay it by "
            f"{self.argument}={{{paths[first]!r}: gradtx.matrix_view({axes!r})}} for a matrix that goes to "
            f"{self.recipe}, with the letter of each axis (r for inputs, c for outputs, b for a batch), or "
            f"{{{paths[first]!r}: None}} for one that goes to adamw."
        )
