"""Moving one tree towards another, as for a target network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.kernels import mixing
from gradtx.core.numerics import (
    Decay,
    cast,
    compute_dtype,
    like,
    real_dtype,
)
from gradtx.core.spec.fields import PERIOD, Scalar

T = TypeVar("T")


def incremental_update(new_tensors: T, old_tensors: T, step_size: Scalar) -> T:
    """Moves a tree a part of the way to another: old + step_size (new - old).

    Of parameters after each step this is their exponential moving average, as for a target network;
    `gradtx.ema_params` computes the same inside the update.

    Args:
        new_tensors: a tree of arrays.
        old_tensors: a tree like it; a leaf that is `None` in the new one stays.
        step_size: the part, in [0, 1].

    Returns:
        A tree in the dtypes of the old one, computed in at least float32. An integer or boolean leaf, which
        there is no part of the way for, is the new one.

    Raises:
        ValueError: the trees differ; the first path that differs is named.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> gradtx.incremental_update({"w": jnp.ones(2)}, {"w": jnp.zeros(2)}, 0.25)["w"].tolist()
        [0.25, 0.25]
    """

    def moved(old: jax.Array, new: jax.Array) -> jax.Array:
        if not lv.is_trainable_leaf(old):
            return cast(new, old.dtype)
        compute = compute_dtype(old.dtype, new.dtype)
        share = Decay(jnp.asarray(step_size).astype(real_dtype(compute)))
        with mixing():
            return cast(share.mix(cast(old, like(old.dtype, compute)), new), old.dtype)

    return _moved(new_tensors, old_tensors, moved)


def periodic_update(new_tensors: T, old_tensors: T, steps: Scalar, update_period: Scalar) -> T:
    """Replaces a tree on every update_period-th step: new where steps mod update_period is 0, old elsewhere.

    Args:
        new_tensors: a tree of arrays.
        old_tensors: a tree like it; a leaf that is `None` in the new one stays.
        steps: the number of steps so far.
        update_period: the period, a whole number from 1 to 2^31 - 1.

    Returns:
        One of the trees, in the dtypes of the old one.

    Raises:
        ValueError: the trees differ; the first path that differs is named. The period is out of its domain.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> [float(gradtx.periodic_update(jnp.ones(()), jnp.zeros(()), steps, 2)) for steps in range(4)]
        [1.0, 0.0, 1.0, 0.0]
    """
    if not isinstance(update_period, Tracer):
        PERIOD.check("periodic_update: update_period", np.asarray(update_period).item())
    now = jnp.asarray(steps) % jnp.asarray(update_period) == 0
    return _moved(new_tensors, old_tensors, lambda old, new: jnp.where(now, cast(new, old.dtype), old))


def _moved(new: Any, old: Any, move: Callable[[jax.Array, jax.Array], jax.Array]) -> Any:
    before, structure = lv.flatten(old)
    after = lv.align(structure, new, old, "new tensors", "old tensors")
    pairs = zip(before, after, strict=True)
    return structure.unflatten(
        [a if a is None or b is None else move(lv.as_array(a), lv.as_array(b)) for a, b in pairs]
    )
