"""Rprop."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.sgd import coupled
from gradtx.transforms.elementary import negate
from gradtx.transforms.rprop import scale_by_rprop


@recipe
def rprop(
    learning_rate: ScalarOrSchedule,
    eta_minus: ScalarOrSchedule = 0.5,
    eta_plus: ScalarOrSchedule = 1.2,
    min_step_size: ScalarOrSchedule = 1e-6,
    max_step_size: ScalarOrSchedule = 50.0,
    *,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
) -> Transform:
    """Rprop: a step size for each element, which grows while its gradient keeps its sign.

    It is for gradients of the whole data; see `scale_by_rprop`.

    Args:
        learning_rate: the first size of the steps, >= 0; it is no factor of the later ones.
        eta_minus: the factor of a size where the sign has changed, usually below 1.
        eta_plus: the factor of a size where the sign has stayed, usually above 1.
        min_step_size: the smallest size that a change may give, >= 0.
        max_step_size: the largest size that a change may give, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; coupled, lambda theta is added to the
            gradient. None for none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.

    Returns:
        An optimizer with the slots `step_sizes` and `prev_updates`.

    Examples:
        >>> import gradtx
        >>> gradtx.rprop(0.01)
        rprop(0.01)

    References:
        Riedmiller and Braun, A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP
        Algorithm, 1993.
    """
    sized = scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size)
    return chain(coupled(weight_decay, mask), sized, negate())
