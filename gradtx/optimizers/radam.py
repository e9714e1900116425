"""RAdam."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.radam import scale_by_radam


@recipe
def radam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    threshold: ScalarOrSchedule = 5.0,
    *,
    nesterov: bool = False,
    eps_scaled: bool = False,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "gradient",
) -> Transform:
    """RAdam: momentum in the first steps, and Adam rectified by r once its second moment is reliable.

    See `scale_by_radam`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        threshold: from which rho on to rescale; the paper has 4, up to which r has no meaning.
        nesterov: use Nesterov momentum; see `scale_by_radam`.
        eps_scaled: divide eps by sqrt(1 - b2^t), and eps_root by 1 - b2^t; so does torch.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu` and `nu`.

    Examples:
        >>> import gradtx
        >>> gradtx.radam(0.001)
        radam(0.001)

    References:
        Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, 2019,
        https://arxiv.org/abs/1908.03265.
    """
    direction = scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov, eps_scaled=eps_scaled)
    return descent("radam", direction, learning_rate, weight_decay, mask, decay_coupling)
