"""Every ready-made optimizer as it comes, with one number that is tuned.

What is in the catalogue takes part by itself. A line in `SPECIAL` says what is not plain about one of them,
and a line in `MORE` adds one that is no optimizer of the catalogue.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import gradtx
from catalogue import ENTRIES

BASE = "adamw"
"""Whom all are compared with."""


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One optimizer.

    Attributes:
        make: builds it from keyword arguments.
        tuned: which argument is swept; a learning rate, or what plays its part.
        given: arguments that have no default, or another value than that.
        key: the argument that takes a key, of an optimizer that draws random numbers.
        per_example: whether it takes the gradient of each example.
    """

    make: Callable[..., Any]
    tuned: str = "learning_rate"
    given: tuple[tuple[str, Any], ...] = ()
    key: str | None = None
    per_example: bool = False

    def build(self, number: Any, key: Any) -> Any:
        keys = {} if self.key is None else {self.key: key}
        return self.make(**{self.tuned: number}, **dict(self.given), **keys)


SPECIAL: dict[str, dict[str, Any]] = {
    "dpsgd": {
        "given": (("l2_norm_clip", 1.0), ("noise_multiplier", 1.0)),
        "key": "seed",
        "per_example": True,
    },
    "noisy_sgd": {"key": "key"},
    "polyak_sgd": {"tuned": "max_learning_rate"},
}
MORE = {
    "sgd, momentum 0.9": Contestant(functools.partial(gradtx.sgd, momentum=0.9)),
}
CONTESTANTS = {
    name: Contestant(getattr(gradtx, name), **SPECIAL.get(name, {}))
    for name, entry in ENTRIES.items()
    if entry.kind == "optimizer"
} | MORE
