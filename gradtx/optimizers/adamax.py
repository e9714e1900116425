"""Adamax, with weight decay in the gradient or apart from it."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adamax import scale_by_adamax


@recipe
def adamax(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    *,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "gradient",
) -> Transform:
    """Adamax: theta <- theta - eta m^ / n, n = max(b2 n, |g| + eps); see `scale_by_adamax`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the largest magnitude, in [0, 1).
        eps: added to the magnitude, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu` and `nu`.

    Examples:
        >>> import gradtx
        >>> gradtx.adamax(0.002)
        adamax(0.002)

    References:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, 2014, section 7.1,
        https://arxiv.org/abs/1412.6980.
    """
    direction = scale_by_adamax(b1, b2, eps)
    return descent("adamax", direction, learning_rate, weight_decay, mask, decay_coupling)


@recipe
def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """Adamax with decoupled weight decay: theta <- theta - eta (m^ / n + lambda theta).

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the largest magnitude, in [0, 1).
        eps: added to the magnitude, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu` and `nu`; `update` needs the parameters.

    Examples:
        >>> import gradtx
        >>> gradtx.adamaxw(0.002)
        adamaxw(0.002)

    References:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, 2014, section 7.1,
        https://arxiv.org/abs/1412.6980;
        Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2017, https://arxiv.org/abs/1711.05101.
    """
    direction = scale_by_adamax(b1, b2, eps)
    return descent("adamaxw", direction, learning_rate, weight_decay, mask, decay_coupling)
