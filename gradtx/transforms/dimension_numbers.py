"""Optax's names for which axes of a leaf are the rows of matrices, and which the columns."""

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


class GaLoreDimensionNumbers(NamedTuple):
    """Optax's way to say which axes of a leaf are the rows of one matrix, and which its columns.

    Each axis is one of the two. Of a batch of matrices `gradtx.matrix_view` speaks, in whose place it stands.

    Attributes:
        reduction_axis: the axis of the inputs, or several; rows in `gradtx.matrix_view`.
        output_axis: the axis of the outputs, or several; columns there.

    Examples:
        >>> import gradtx
        >>> gradtx.contrib.GaLoreDimensionNumbers(0, (1, 2))
        GaLoreDimensionNumbers(reduction_axis=0, output_axis=(1, 2))
    """

    reduction_axis: int | Sequence[int] = 0
    output_axis: int | Sequence[int] = 1
