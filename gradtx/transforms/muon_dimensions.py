"""Optax's name for which axes of a leaf Muon multiplies by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class MuonDimensionNumbers(NamedTuple):
    """Optax's way to say which axes of a leaf are summed over, and which come out; the others are a batch.

    Attributes:
        reduction_axis: the axis of the inputs, or several; rows in `gradtx.matrix_view`.
        output_axis: the axis of the outputs, or several; columns there.

    Examples:
        >>> import gradtx
        >>> gradtx.contrib.MuonDimensionNumbers((1, 2), 3)
        MuonDimensionNumbers(reduction_axis=(1, 2), output_axis=3)
    """

    reduction_axis: int | Sequence[int] = 0
    output_axis: int | Sequence[int] = 1
