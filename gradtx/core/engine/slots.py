"""How a slot is loaded and stored: in the state in its own dtype or format, in arithmetic in the leaf's.

This is the one place where what is remembered changes its form, for rules and for wrappers alike.
"""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.engine.coded import Coded
from gradtx.core.engine.transform import cast_like
from gradtx.core.numerics import compute_dtype, is_trainable, like


def load(stored: Any, compute: Any) -> Any:
    """A slot of one leaf as a rule or a wrapper sees it: floats in the dtype to compute in."""
    if isinstance(stored, Coded):
        stored = stored.load()
    if stored is None or not is_trainable(stored.dtype):
        return stored
    return stored.astype(like(stored.dtype, compute))


def store(new: Any, old: Any) -> Any:
    """The new value of a slot in the form of the old one, so that a state goes out as it came in."""
    return old.store(new) if isinstance(old, Coded) else cast_like(new, old)


def load_update(stack: list[jax.Array], param: Any) -> tuple[list[jax.Array], Any, Any]:
    """Updates of one leaf and its parameter in the dtype to compute in, and that dtype."""
    compute = compute_dtype(*(x.dtype for x in (*stack, param) if x is not None))
    loaded = None if param is None else param.astype(like(param.dtype, compute))
    return [u.astype(like(u.dtype, compute)) for u in stack], loaded, compute
