"""AdEMAMix."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.ademamix import scale_by_ademamix


@recipe
def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """AdamW with a second, much slower average of the gradient.

    For each element, with learning rate eta and t from 1:

        m1 = b1 m1 + (1 - b1) g             m1^ = m1 / (1 - b1^t)
        m2 = b3 m2 + (1 - b3) g
        v  = b2 v + (1 - b2) |g|²           v^  = v / (1 - b2^t)
        theta = theta - eta ((m1^ + alpha m2) / (sqrt(v^ + eps_root) + eps) + lambda theta)

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, usually that of AdamW.
        b1: decay of the first moment, in [0, 1); this moment is the fast average.
        b2: decay of the second moment, in [0, 1).
        b3: decay of the slow average, in [0, 1); the paper raises it by a schedule from `b1` to 0.9999.
        alpha: weight of the slow average, >= 0; usually 4 to 10. The paper raises it linearly from 0.
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32. Both averages have it; in a 16-bit dtype a slow average with `b3` near 1 loses most of
            what each gradient adds.
        weight_decay: lambda, the strength of the weight decay, >= 0.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        A transform that gives the updates to be added to the parameters.

    Raises:
        ValueError: a decay outside [0, 1), or a negative `alpha` or eps.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.ademamix(1e-3, alpha=gradtx.linear_schedule(0.0, 5.0, 1000), weight_decay=0.1)
        >>> params = {"w": jnp.ones(3)}
        >>> updates, state = tx.update({"w": jnp.array([1.0, -2.0, 0.5])}, tx.init(params), params)
        >>> [round(float(u), 6) for u in updates["w"]]
        [-0.0011, 0.0009, -0.0011]

    References:
        Pagliardini, Ablin and Grangier, The AdEMAMix Optimizer: Better, Faster, Older, 2024,
        https://arxiv.org/abs/2409.03137.
    """
    direction = scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype)
    return descent("ademamix", direction, learning_rate, weight_decay, mask, decay_coupling)
