"""Which leaves go to a method on matrices, and which to AdamW beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.kernels import hashable
from gradtx.core.engine.matrix_views import Views, refuse_unclear, told
from gradtx.core.engine.named_views import Reading

MATRICES, REST = "matrices", "rest"
"""The labels of the hidden matrices, and of what has no group of its own."""

EMBEDDINGS, HEADS = "embeddings", "heads"
"""The labels of embeddings and heads, where they have a group."""


class Routes:
    """The labels of a partition by what a leaf is: hidden matrices, for which there is a method, and others.

    Embeddings, heads, vectors and numbers are the rest, unless embeddings or heads have a group of their own.
    A leaf of which it is not known what it is is an error.

    Args:
        recipe: the optimizer, which is also what its method is called.
        views: what was said of the leaves.
        argument: what the optimizer calls the views, for errors.
        names: what each other group goes to, by its label.
    """

    def __init__(
        self, recipe: str, views: Views, argument: str = "views", names: Mapping[str, str] | None = None
    ) -> None:
        self.recipe, self.views, self.argument = recipe, views, argument
        self.names = {REST: "adamw"} if names is None else dict(names)

    def _parts(self) -> Any:
        return self.recipe, hashable(self.views), tuple(self.names.items())

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
        label = {"matrix": MATRICES, "embedding": EMBEDDINGS, "head": HEADS}.get(reading.kind, REST)
        return label if label == MATRICES or label in self.names else REST

    def optimizer(self, reading: Reading | None) -> str:
        """What a leaf goes to; nothing where that is not known."""
        label = self.label(reading)
        return "" if label is None else self.names.get(label, self.recipe)

    def __call__(self, params: Any) -> Any:
        """The label of each leaf, as a tree."""
        _, structure = lv.flatten(params)
        found = self.readings(params)
        matrix, other = f" that goes to {self.recipe}", f"that goes to {self.names[REST]}"
        refuse_unclear(self.recipe, params, found, self.argument, matrix, other)
        return structure.unflatten([self.label(reading) for reading in found])
