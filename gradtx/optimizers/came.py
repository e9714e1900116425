"""CAME."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.came import scale_by_came


@recipe
def came(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    eps1: ScalarOrSchedule = 1e-30,
    eps2: ScalarOrSchedule = 1e-16,
    clip_threshold: ScalarOrSchedule = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    mu_dtype: DType | None = None,
    *,
    min_dim_size_to_factor: int = 1,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """CAME: Adafactor with momentum, weighed by how far it can be trusted; see `scale_by_came`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        b1: decay of the first moment, in [0, 1); here of rescaled gradients.
        b2: decay of the second moment, in [0, 1).
        b3: decay of the average of squared distances, in [0, 1).
        eps1: added to the squared gradients, >= 0.
        eps2: added to the squared distances, >= 0.
        clip_threshold: the largest root mean square of a direction, > 0; infinity for none.
        weight_decay: lambda, the strength of the weight decay, >= 0.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        min_dim_size_to_factor: the smallest axis that is worth factoring.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu`, and `v_row`, `v_col`, `s_row` and `s_col`, or `v`, for each leaf;
        `update` needs the parameters.

    Examples:
        >>> import gradtx
        >>> gradtx.came(2e-4, weight_decay=0.01)
        came(0.0002, weight_decay=0.01)

    References:
        Luo et al., CAME: Confidence-guided Adaptive Memory Efficient Optimization, 2023,
        https://arxiv.org/abs/2307.02047.
    """
    direction = scale_by_came(b1, b2, b3, eps1, eps2, clip_threshold, min_dim_size_to_factor, mu_dtype)
    return descent("came", direction, learning_rate, weight_decay, mask, decay_coupling)
