"""Prodigy under Optax's signature."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.transforms.prodigy import scale_by_prodigy


@recipe
def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[ScalarOrSchedule, ScalarOrSchedule] = (0.9, 0.999),
    beta3: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-8,
    estim_lr0: ScalarOrSchedule = 1e-6,
    estim_lr_coef: ScalarOrSchedule = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    safeguard_warmup: bool = False,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Prodigy: Adam with a step size estimated from the distance travelled; see `scale_by_prodigy`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; a factor of the estimated rate, usually 1 or
            a schedule that ends at 0.
        betas: decays of the first and the second moment, in [0, 1); they are read and set as `b1` and `b2`.
        beta3: decay of the sums that the estimate is made from, in [0, 1); sqrt(b2) by default.
        eps: added to the denominator, >= 0.
        estim_lr0: the first estimate of the rate, > 0.
        estim_lr_coef: how eagerly the estimate grows, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; decoupled, the learning rate multiplies
            it.
        safeguard_warmup: leave the learning rate out of the estimate's denominator; for schedules with a
            warmup.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx
        >>> gradtx.prodigy(weight_decay=0.1)
        prodigy(weight_decay=0.1)

    References:
        Mishchenko and Defazio, Prodigy: An Expeditiously Adaptive Parameter-Free Learner, 2023,
        https://arxiv.org/abs/2306.06101.
    """
    b1, b2 = betas
    return scale_by_prodigy(
        learning_rate,
        b1,
        b2,
        beta3,
        eps,
        estim_lr0,
        estim_lr_coef,
        weight_decay,
        safeguard_warmup,
        axis_name=axis_name,
    )
