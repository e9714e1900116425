"""Optimistic gradient descent, and Adam with an optimistic direction."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.optimistic import scale_by_optimistic_gradient


@recipe
def optimistic_gradient_descent(
    learning_rate: ScalarOrSchedule,
    alpha: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 1.0,
    *,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "gradient",
) -> Transform:
    """Optimistic gradient descent: theta <- theta - eta (alpha g + beta (g - g_before)).

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        alpha: the factor of the gradient.
        beta: the factor of its change.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slot `previous_gradient`.

    Examples:
        >>> import gradtx
        >>> gradtx.optimistic_gradient_descent(0.1)
        optimistic_gradient_descent(0.1)

    References:
        Mokhtari, Ozdaglar and Pattathil, A Unified Analysis of Extra-gradient and Optimistic Gradient Methods
        for Saddle Point Problems, 2019, https://arxiv.org/abs/1901.08511.
    """
    direction = scale_by_optimistic_gradient(alpha, beta)
    return descent(
        "optimistic_gradient_descent", direction, learning_rate, weight_decay, mask, decay_coupling
    )


@recipe
def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 1.0,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: DType | None = None,
    nesterov: bool = True,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """Optimistic Adam: theta <- theta - eta (alpha u + beta (u - u_before)), u Adam's direction.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        alpha: the factor of the direction.
        beta: the factor of its change.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nesterov: use Nesterov momentum; see `scale_by_adam`.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu`, `nu` and `previous_gradient`.

    Examples:
        >>> import gradtx
        >>> gradtx.optimistic_adam_v2(1e-3)
        optimistic_adam_v2(0.001)

    References:
        Daskalakis et al., Training GANs with Optimism, 2017, https://arxiv.org/abs/1711.00141.
    """
    moments = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    direction = chain(moments, scale_by_optimistic_gradient(alpha, beta))
    return descent("optimistic_adam_v2", direction, learning_rate, weight_decay, mask, decay_coupling)
