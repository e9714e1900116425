"""SM3."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.sm3 import scale_by_sm3


@recipe
def sm3(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.9,
    *,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "gradient",
) -> Transform:
    """SM3: Adagrad whose sums of squares are a vector for each axis of a leaf; see `scale_by_sm3`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        momentum: mu, the decay of the velocity, in [0, 1]; of the rescaled gradients.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots of `scale_by_sm3`.

    Examples:
        >>> import gradtx
        >>> gradtx.sm3(0.1)
        sm3(0.1)

    References:
        Anil et al., Memory-Efficient Adaptive Optimization, 2019, https://arxiv.org/abs/1901.11150.
    """
    direction = scale_by_sm3(momentum)
    return descent("sm3", direction, learning_rate, weight_decay, mask, decay_coupling)
