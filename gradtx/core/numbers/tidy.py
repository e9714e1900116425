"""Numbers of a state as they were given."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def tidy(x: Any, decay: bool = False) -> Any:
    """A host number that prints as it was given; an array for a batch of states, as it is when traced."""
    if isinstance(x, Tracer | jax.ShapeDtypeStruct):
        return 1 - x if decay and isinstance(x, Tracer) else x
    x = np.asarray(x)
    if x.dtype.kind in "biu":
        return x if x.ndim else x.item()
    if x.ndim:
        return np.array([tidy(v, decay) for v in x.ravel()]).reshape(x.shape)
    if x.dtype == np.float64:
        return 1 - float(x) if decay else float(x)
    digits = Decimal(str(x[()]))
    return float(1 - digits if decay else digits)
