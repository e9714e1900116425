"""GaLore: Adam on gradients in a few directions."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.wrappers.galore import ProjType, scale_by_galore


@recipe
def galore(
    learning_rate: ScalarOrSchedule,
    rank: int = 128,
    update_proj_gap: ScalarOrSchedule = 200,
    scale: ScalarOrSchedule = 1.0,
    base_optimizer: AnyTransform | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    weight_dimension_numbers: Views = None,
    *,
    proj_type: ProjType = "optax",
    projector_dtype: DType | None = None,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """GaLore: Adam, or another optimizer, on gradients in a few directions; see `scale_by_galore`.

        theta <- theta - eta (u + lambda theta)

    Adam's two moments of an m x n matrix then have r min(m, n) elements each, and the directions r max(m, n);
    with `proj_type="std"` it is r max(m, n) for each moment and r min(m, n) for the directions. The authors'
    own optimizer is

        galore(learning_rate, 128, 200, 0.25, scale_by_adam(eps=1e-6, eps_scaled=True), proj_type="std")

    but for its decay, which multiplies what the step has left.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; the authors begin with 0.01.
        rank: the number r of directions, >= 1; at most the shorter side.
        update_proj_gap: the number k of updates from one decomposition to the next, a whole number from 1 to
            2^31 - 1.
        scale: the factor of what was projected; the authors begin with 0.25.
        base_optimizer: the optimizer, of any library; one that makes a direction of gradients alone, without
            a learning rate; by default `scale_by_adam()`.
        weight_decay: lambda, the strength of the weight decay, >= 0; of whole matrices.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        weight_dimension_numbers: which leaves are matrices, and how; by default those of two axes, as they
            are; see `scale_by_galore`.
        proj_type: which side is projected; see `scale_by_galore`.
        projector_dtype: dtype to store the directions in; by default the parameter's, at least float32.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slot `projector`; `update` needs the parameters.

    Raises:
        ValueError: as `scale_by_galore` does.

    Examples:
        >>> import gradtx
        >>> gradtx.galore(0.01, rank=128, scale=0.25, proj_type="std")
        galore(0.01, scale=0.25, proj_type='std')

    References:
        Zhao et al., GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection, 2024,
        https://arxiv.org/abs/2403.03507.
    """
    direction = scale_by_galore(
        rank,
        update_proj_gap,
        scale,
        base_optimizer,
        weight_dimension_numbers,
        proj_type=proj_type,
        projector_dtype=projector_dtype,
    )
    return descent("galore", direction, learning_rate, weight_decay, mask, decay_coupling)
