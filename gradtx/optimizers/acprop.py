"""ACProp."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.acprop import scale_by_acprop


@recipe
def acprop(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-16,
    eps_root: ScalarOrSchedule = 1e-16,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """ACProp: AdaBelief with the denominator of the step before; see `scale_by_acprop`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added to s at every step, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu` and `nu`; `update` needs the parameters.

    Examples:
        >>> import gradtx
        >>> gradtx.acprop(0.001, weight_decay=0.1)
        acprop(0.001, weight_decay=0.1)

    References:
        Zhuang et al., Momentum Centering and Asynchronous Update for Adaptive Gradient Methods, 2021,
        https://arxiv.org/abs/2110.05454.
    """
    direction = scale_by_acprop(b1, b2, eps, eps_root)
    return descent("acprop", direction, learning_rate, weight_decay, mask, decay_coupling)
