"""Adam-mini."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adam_mini import Blocks, scale_by_adam_mini


@recipe
def adam_mini(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    blocks: Blocks | None = None,
    mu_dtype: DType | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """Adam-mini: AdamW with one second moment for each block of a leaf; see `scale_by_adam_mini`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; the same as for AdamW.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        blocks: path patterns, and for each the axes along which the blocks of a leaf lie one beside the
            other; by default tokens, heads and outputs, by the names that Flax gives.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        weight_decay: lambda, the strength of the weight decay, >= 0.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu` and `nu`; `update` needs the parameters.

    Examples:
        >>> import gradtx
        >>> gradtx.adam_mini(3e-4, weight_decay=0.1)
        adam_mini(0.0003, weight_decay=0.1)

    References:
        Zhang et al., Adam-mini: Use Fewer Learning Rates To Gain More, 2024, https://arxiv.org/abs/2406.16793.
    """
    direction = scale_by_adam_mini(b1, b2, eps, blocks, mu_dtype)
    return descent("adam_mini", direction, learning_rate, weight_decay, mask, decay_coupling)
