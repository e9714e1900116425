"""AMSGrad."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.amsgrad import scale_by_amsgrad


@recipe
def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: DType | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "gradient",
) -> Transform:
    """AMSGrad: Adam with the largest second moment so far, v_max = max(v_max, v^); see `scale_by_amsgrad`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        bias_correction_mu: divide the first moment by 1 - b1^t.
        bias_correction_nu: divide the second moment by 1 - b2^t.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu`, `nu` and `nu_max`.

    Examples:
        >>> import gradtx
        >>> gradtx.amsgrad(0.001)
        amsgrad(0.001)

    References:
        Reddi, Kale and Kumar, On the Convergence of Adam and Beyond, 2018, https://arxiv.org/abs/1904.09237.
    """
    direction = scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu)
    return descent("amsgrad", direction, learning_rate, weight_decay, mask, decay_coupling)
