"""Dion for the matrices, AdamW for the rest."""

from __future__ import annotations

import jax

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.beside_adam import beside_adam
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.dion import scale_by_dion


@recipe
def dion(
    learning_rate: ScalarOrSchedule = 0.01,
    rank_fraction: float = 1.0,
    beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: Mask = None,
    *,
    rank_multiple_of: int = 1,
    power_iters: int = 1,
    key: int | jax.Array = 0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    decay_coupling: Coupling = "rate",
    views: Views = None,
) -> Transform:
    """Dion: an orthogonalized momentum of low rank, for hidden matrices; AdamW for the rest.

        theta <- theta - eta (u + lambda theta), u as in `scale_by_dion`

    A step costs products with as many columns as the rank, and one QR.
    Which leaf goes where, and why, `gradtx.routing(tx, params)` prints; see `muon`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        rank_fraction: the rank, as a part of the shorter side, in (0, 1]; rounded up.
        beta: decay of the momentum, in [0, 1); of what was used of it.
        eps: added to the norm, >= 0; of each column of Q.
        weight_decay: lambda, the strength of the weight decay, >= 0; of the matrices.
        mask: which leaves to decay, as `gradtx.masked` takes it; of the matrices, by default all.
        rank_multiple_of: the rank is rounded up to a multiple of it, >= 1, if the side is as long.
        power_iters: how often P and R are computed, each from the one before, >= 1.
        key: an int, a `jax.random.key`, or a key's raw data; for the first Q.
        adam_learning_rate: AdamW's rate, >= 0 or a schedule; by default `learning_rate`.
        adam_b1: AdamW's decay of the first moment, in [0, 1).
        adam_b2: AdamW's decay of the second moment, in [0, 1).
        adam_eps: added to AdamW's denominator, >= 0.
        adam_weight_decay: the strength of AdamW's weight decay, >= 0.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; that of the matrices; see `docs/conventions.md`.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`. None for a leaf sends it to AdamW.

    Returns:
        An optimizer with the groups `matrices` and `rest`; `update` needs the parameters.

    Raises:
        ValueError: a `rank_fraction` that is none; at init, a leaf of which it is not clear what it is.

    Examples:
        >>> import gradtx
        >>> gradtx.dion(0.02, rank_fraction=0.25)
        dion(0.02, rank_fraction=0.25)

    References:
        Ahn et al., Dion: Distributed Orthonormalized Updates, 2025, https://arxiv.org/abs/2504.05295.
    """
    direction = scale_by_dion(
        rank_fraction,
        beta,
        eps,
        rank_multiple_of=rank_multiple_of,
        power_iters=power_iters,
        key=key,
        views=views,
    )
    return beside_adam(
        "dion",
        descent("dion", direction, learning_rate, weight_decay, mask, decay_coupling),
        scale_by_adam(adam_b1, adam_b2, adam_eps),
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_weight_decay,
        views,
    )
