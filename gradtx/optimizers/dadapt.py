"""D-Adapted AdamW under Optax's signature."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.transforms.dadapt import scale_by_dadapt_adam


@recipe
def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[ScalarOrSchedule, ScalarOrSchedule] = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    estim_lr0: ScalarOrSchedule = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """AdamW whose rate is estimated by D-Adaptation; see `scale_by_dadapt_adam`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; a factor of the estimated rate, usually 1 or
            a schedule that ends at 0.
        betas: decays of the first and the second moment, in [0, 1); they are read and set as `b1` and `b2`.
        eps: added to the denominator, >= 0.
        estim_lr0: the first estimate of the rate, > 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; decoupled, the learning rate multiplies
            it.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx
        >>> gradtx.dadapt_adamw(weight_decay=0.1)
        dadapt_adamw(weight_decay=0.1)

    References:
        Defazio and Mishchenko, Learning-Rate-Free Learning by D-Adaptation, 2023,
        https://arxiv.org/abs/2301.07733.
    """
    b1, b2 = betas
    return scale_by_dadapt_adam(learning_rate, b1, b2, eps, estim_lr0, weight_decay, axis_name=axis_name)
