"""MADGRAD with weight decay."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.madgrad import scale_by_madgrad


@recipe
def madgrad(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 1e-6,
    *,
    mask: Mask = None,
) -> Transform:
    """MADGRAD: dual averaging with momentum and a cube root; see `scale_by_madgrad`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        momentum: share of the parameter that stays in each step, in [0, 1].
        weight_decay: lambda, the strength of the weight decay, >= 0; coupled, it is added to the gradient.
        eps: added to the denominator, and to a learning rate that is not 0, >= 0.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.

    Returns:
        An optimizer with the slots `grad_sum_sq`, `s` and `x0`; `update` needs the parameters.

    Examples:
        >>> import gradtx
        >>> gradtx.madgrad(0.01, momentum=0.9)
        madgrad(0.01)

    References:
        Defazio and Jelassi, Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient
        Method for Stochastic Optimization, 2021, https://arxiv.org/abs/2101.11075.
    """
    return chain(add_decayed_weights(weight_decay, mask), scale_by_madgrad(learning_rate, momentum, eps))
