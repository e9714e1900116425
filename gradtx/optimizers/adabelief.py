"""AdaBelief."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.belief import scale_by_belief


@recipe
def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-16,
    eps_root: ScalarOrSchedule = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "gradient",
) -> Transform:
    """AdaBelief: Adam, divided by how far gradients are from their average; see `scale_by_belief`.

        theta <- theta - eta m^ / (sqrt(s^) + eps),    s an average of |g - m|² + eps_root

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added to s at every step, >= 0.
        nesterov: use Nesterov momentum; see `scale_by_belief`.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nu_dtype: dtype to store the second moment in; by default the parameter's, at least float32.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu` and `nu`.

    Examples:
        >>> import gradtx
        >>> gradtx.adabelief(0.001)
        adabelief(0.001)

    References:
        Zhuang et al., AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients, 2020,
        https://arxiv.org/abs/2010.07468.
    """
    direction = scale_by_belief(
        b1, b2, eps, eps_root, nesterov=nesterov, mu_dtype=mu_dtype, nu_dtype=nu_dtype
    )
    return descent("adabelief", direction, learning_rate, weight_decay, mask, decay_coupling)
