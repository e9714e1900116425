"""Descent along the sign of the gradient, or of its average."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.average import ema
from gradtx.transforms.elementary import sign


@recipe
def sign_sgd(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """SignSGD: theta <- theta - eta sign(g).

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, how far each element moves.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer without slots.

    Examples:
        >>> import gradtx
        >>> gradtx.sign_sgd(1e-4)
        sign_sgd(0.0001)

    References:
        Bernstein et al., signSGD: Compressed Optimisation for Non-Convex Problems, 2018,
        https://arxiv.org/abs/1802.04434.
    """
    return descent("sign_sgd", sign(), learning_rate, weight_decay, mask, decay_coupling)


@recipe
def signum(
    learning_rate: ScalarOrSchedule,
    beta: ScalarOrSchedule = 0.9,
    accumulator_dtype: DType | None = None,
    *,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """Signum: theta <- theta - eta sign(m), m = beta m + (1 - beta) g.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, how far each element moves.
        beta: decay of the average of the gradients, in [0, 1).
        accumulator_dtype: dtype to store what is accumulated in; that is the average. By default the
            parameter's, at least float32.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slot `ema`.

    Examples:
        >>> import gradtx
        >>> gradtx.signum(1e-4)
        signum(0.0001)

    References:
        Bernstein et al., signSGD: Compressed Optimisation for Non-Convex Problems, 2018,
        https://arxiv.org/abs/1802.04434.
    """
    direction = chain(ema(beta, debias=False, accumulator_dtype=accumulator_dtype), sign())
    return descent("signum", direction, learning_rate, weight_decay, mask, decay_coupling)
