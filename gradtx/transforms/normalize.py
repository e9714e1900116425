"""Updates of a given norm."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.scope import Leaf, Now, Scope, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import divide
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, Number, ScalarOrSchedule


class NormalizeByUpdateNorm(Rule, name="normalize_by_update_norm"):
    """u = scale_factor g / (||g|| + eps)."""

    scale_factor: Number
    eps: NonNegative

    measures_norm = True

    def conclude(self, totals: Scope, now: Now) -> dict[str, jax.Array]:
        norm = totals.squares.norm()
        finite = jnp.isfinite(norm)
        factor = divide(self.scale_factor, jnp.where(finite, norm, jnp.zeros_like(norm)) + self.eps)
        return {"factor": jnp.where(finite, factor, jnp.ones_like(norm))}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return leaf.factor * g, slots


@builds(NormalizeByUpdateNorm)
def normalize_by_update_norm(scale_factor: ScalarOrSchedule = 1.0, eps: ScalarOrSchedule = 1e-6) -> Transform:
    """Gives all updates together a norm: u = scale_factor g / (||g|| + eps), the norm over the whole tree.

    A tree with an Inf or NaN stays as it is, so that the bad leaf can be found.

    Args:
        scale_factor: the norm of what comes out.
        eps: added to the norm, >= 0.

    Returns:
        A transform without slots.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.normalize_by_update_norm(10.0, eps=0.0)
        >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0].tolist()
        [6.0, 8.0]
    """
    ...
