"""Lion."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.lion import scale_by_lion


@recipe
def lion(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    mu_dtype: DType | None = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: Mask = None,
    *,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """Lion: theta <- theta - eta (sign(b1 m + (1 - b1) g) + lambda theta), m = b2 m + (1 - b2) g.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, usually 3 to 10 times smaller
            than AdamW's.
        b1: the share of the momentum in the step, in [0, 1); the rest is the gradient's.
        b2: decay of the momentum, in [0, 1).
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        weight_decay: lambda, the strength of the weight decay, >= 0; usually 3 to 10 times larger
            than AdamW's.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slot `mu`; `update` needs the parameters.

    Examples:
        >>> import gradtx
        >>> gradtx.lion(1e-4, weight_decay=0.1)
        lion(0.0001, weight_decay=0.1)

    References:
        Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, https://arxiv.org/abs/2302.06675.
    """
    direction = scale_by_lion(b1, b2, mu_dtype)
    return descent("lion", direction, learning_rate, weight_decay, mask, decay_coupling)
