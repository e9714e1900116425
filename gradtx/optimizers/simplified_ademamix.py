"""Simplified AdEMAMix."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.simplified_ademamix import scale_by_simplified_ademamix


@recipe
def simplified_ademamix(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.99,
    b2: ScalarOrSchedule = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """AdEMAMix with one sum in place of two averages; see `scale_by_simplified_ademamix`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; smaller than AdamW's by 1 - b1.
        b1: decay of the sum of the gradients, in [0, 1].
        b2: decay of the second moment, in [0, 1).
        alpha: weight of the gradient beside the sum, >= 0.
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `m` and `n`; `update` needs the parameters.

    Examples:
        >>> import gradtx
        >>> gradtx.simplified_ademamix(1e-5, alpha=100.0)
        simplified_ademamix(1e-05, alpha=100.0)

    References:
        Morwani et al., Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD Variants,
        2025, https://arxiv.org/abs/2502.02431.
    """
    direction = scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root)
    return descent("simplified_ademamix", direction, learning_rate, weight_decay, mask, decay_coupling)
