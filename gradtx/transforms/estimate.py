"""What Prodigy and D-Adaptation have in common: an estimate that only grows."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradtx.core.engine.scope import Now


def grown(now: Now, r: jax.Array, estimate: jax.Array) -> dict[str, jax.Array]:
    """The next `d` and `r`: one gradient that is not finite must not spoil the estimate of all leaves."""
    grows = jnp.isfinite(estimate) & (estimate > now.d)
    return {"d": jnp.where(grows, estimate, now.d), "r": jnp.where(jnp.isfinite(r), r, now.r)}
