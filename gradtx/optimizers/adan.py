"""Adan."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adan import scale_by_adan


@recipe
def adan(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.98,
    b2: ScalarOrSchedule = 0.92,
    b3: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """Adan: Adam with a third moment, of the differences of gradients; see `scale_by_adan`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the average of their differences, in [0, 1).
        b3: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `m`, `v`, `n` and `g`; `update` needs the parameters.

    Examples:
        >>> import gradtx
        >>> gradtx.adan(0.001, weight_decay=0.02)
        adan(0.001, weight_decay=0.02)

    References:
        Xie et al., Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models, 2022,
        https://arxiv.org/abs/2208.06677.
    """
    direction = scale_by_adan(b1, b2, b3, eps, eps_root)
    return descent("adan", direction, learning_rate, weight_decay, mask, decay_coupling)
