"""Summed updates: nothing moves until the k-th, which is the sum of all k."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot, WholeScalar
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numbers.steps import Steps, next_count
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Period, ScalarOrSchedule


class ApplyEvery(Rule, name="apply_every"):
    """s = s + g;  on each k-th call u = s and s = 0, on the others u = 0."""

    k: Period

    sum = Slot()
    count = WholeScalar(dtype="int32")

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        count = next_count(now.count)
        full = Steps.of(count) >= self.k
        return {"full": full, "count": jnp.where(full, 0, count)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        total, nothing = slots.sum + g, jnp.zeros_like(g)
        return jnp.where(leaf.full, total, nothing), {"sum": jnp.where(leaf.full, nothing, total)}


@builds(ApplyEvery)
def apply_every(k: ScalarOrSchedule = 1) -> Transform:
    """Holds updates back and lets their sum through on each k-th call; on the others the update is zero.

    The transforms before it run on every call: after `adam` it sums k of Adam's updates, each from a
    small batch. Most want Adam on a batch k times as large, and that is `gradtx.accumulate`: it runs a
    transform once, on the mean of k gradients, where this one sums what the transform made of each.

    Args:
        k: the number of calls for an update, a whole number from 1 to 2^31 - 1.

    Returns:
        A transform with the slot `sum`. A leaf without a gradient on the k-th call keeps its sum until the
        next k-th.

    Raises:
        ValueError: `k` is out of its domain.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.apply_every(2)
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in (1.0, 2.0, 5.0, 7.0):
        ...     u, state = tx.update(jnp.array([g]), state)
        ...     print(u)
        [0.]
        [3.]
        [0.]
        [12.]
    """
    ...
