"""Adam-atan2."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adam_atan2 import scale_by_adam_atan2


@recipe
def adam_atan2(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    a: ScalarOrSchedule = 1.27,
    b: ScalarOrSchedule = 1.0,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """Adam with an arctangent, which needs no eps; see `scale_by_adam_atan2`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        a: the factor of the arctangent, > 0.
        b: the factor of the root, > 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nu_dtype: dtype to store the second moment in; by default the parameter's, at least float32.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu` and `nu`.

    Examples:
        >>> import gradtx
        >>> gradtx.adam_atan2(0.001)
        adam_atan2(0.001)

    References:
        Everett et al., Scaling Exponents Across Parameterizations and Optimizers, 2024,
        https://arxiv.org/abs/2407.05872.
    """
    direction = scale_by_adam_atan2(b1, b2, a, b, mu_dtype, nu_dtype)
    return descent("adam_atan2", direction, learning_rate, weight_decay, mask, decay_coupling)
