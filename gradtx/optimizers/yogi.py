"""Yogi."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.yogi import scale_by_yogi


@recipe
def yogi(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-3,
    *,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "gradient",
) -> Transform:
    """Yogi: Adam with v = v - (1 - b2) sign(v - |g|²) |g|²; see `scale_by_yogi`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; usually 10 times larger than
            Adam's.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu` and `nu`.

    Examples:
        >>> import gradtx
        >>> gradtx.yogi(0.01)
        yogi(0.01)

    References:
        Zaheer et al., Adaptive Methods for Nonconvex Optimization, 2018,
        https://papers.nips.cc/paper/2018/hash/90365351ccc7437a1309dc64e4db32a3-Abstract.html.
    """
    direction = scale_by_yogi(b1, b2, eps)
    return descent("yogi", direction, learning_rate, weight_decay, mask, decay_coupling)
