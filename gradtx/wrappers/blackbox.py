"""The black box of a guard: what it saw in the last steps, as two small arrays in the state."""

from __future__ import annotations

import enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROWS = 32
"""How many steps it keeps."""

METRICS = ("loss", "gradient_norm", "limit")
"""The columns of `metrics`, float32."""

MARKS = ("step", "verdict", "leaf", "known")
"""The columns of `marks`, int32: -1 for a step that was not made and for no leaf."""

LOSS_IS_KNOWN, LIMIT_IS_KNOWN = 1, 2
"""The bits of `known`: what is not known is 0 among the metrics, so that a healthy state is finite."""


class Verdict(enum.IntEnum):
    """What a guard decided about a step."""

    APPLIED = 0
    GRADIENT = 1
    LOSS = 2
    UPDATE = 3
    SPIKE = 4
    NEW_LEVEL = 5

    @property
    def words(self) -> str:
        """For the report."""
        return _WORDS[self]


_WORDS = {
    Verdict.APPLIED: "",
    Verdict.GRADIENT: "skipped: gradient not finite",
    Verdict.LOSS: "skipped: loss not finite",
    Verdict.UPDATE: "skipped: update not finite",
    Verdict.SPIKE: "skipped: spike",
    Verdict.NEW_LEVEL: "applied: the new level",
}


def empty_metrics(guard: Any, params: Any) -> np.ndarray:
    """The metrics of no steps."""
    return np.zeros((ROWS, len(METRICS)), np.float32)


def empty_marks(guard: Any, params: Any) -> np.ndarray:
    """The marks of no steps."""
    return np.full((ROWS, len(MARKS)), -1, np.int32)


def record(
    box: Any,
    step: jax.Array,
    verdict: jax.Array,
    leaf: jax.Array,
    loss: Any,
    norm: jax.Array,
    limit: Any,
    warm: jax.Array,
) -> dict[str, jax.Array]:
    """The box with one more step, in place of the oldest; None for a loss or a limit that there is not.

    A limit holds once it is `warm`.
    """
    known = LOSS_IS_KNOWN * (loss is not None)
    has_limit = warm if limit is None else warm & jnp.isfinite(limit)
    in_force = 0.0 if limit is None else jnp.where(has_limit, limit, 0.0)
    metrics = [0.0 if loss is None else loss, norm, in_force]
    marks = [step, verdict, leaf, known + LIMIT_IS_KNOWN * has_limit]
    row = step % ROWS
    return {
        "metrics": box.metrics.at[row].set(jnp.stack([jnp.asarray(x, jnp.float32) for x in metrics])),
        "marks": box.marks.at[row].set(jnp.stack([jnp.asarray(x, jnp.int32) for x in marks])),
    }
