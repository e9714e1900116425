"""ADOPT."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adopt import fourth_root, scale_by_adopt


@recipe
def adopt(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.9999,
    eps: ScalarOrSchedule = 1e-6,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: ScalarOrSchedule = fourth_root,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """ADOPT: Adam that converges with every b2; see `scale_by_adopt`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: the least denominator, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nesterov: use Nesterov momentum; see `scale_by_adopt`.
        use_clipping: whether to bound the elements of what is averaged.
        clip_value_fn: the bound, >= 0; a function of the step, from 0, by default its fourth root.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu` and `nu`. Its first update moves nothing.

    Examples:
        >>> import gradtx
        >>> gradtx.adopt(0.001)
        adopt(0.001)

    References:
        Taniguchi et al., ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate, 2024,
        https://arxiv.org/abs/2411.02853.
    """
    direction = scale_by_adopt(
        b1, b2, eps, mu_dtype, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn
    )
    return descent("adopt", direction, learning_rate, weight_decay, mask, decay_coupling)
