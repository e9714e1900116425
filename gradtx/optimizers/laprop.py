"""LaProp."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.laprop import scale_by_laprop


@recipe
def laprop(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-15,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """LaProp: momentum of rescaled gradients; see `scale_by_laprop`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        b1: decay of the first moment, in [0, 1); here of rescaled gradients.
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
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
        >>> gradtx.laprop(0.001)
        laprop(0.001)

    References:
        Ziyin, Wang and Ueda, LaProp: Separating Momentum and Adaptivity in Adam, 2020,
        https://arxiv.org/abs/2002.04839.
    """
    direction = scale_by_laprop(b1, b2, eps, mu_dtype, nu_dtype)
    return descent("laprop", direction, learning_rate, weight_decay, mask, decay_coupling)
