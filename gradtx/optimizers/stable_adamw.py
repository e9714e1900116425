"""StableAdamW."""

from __future__ import annotations

from gradtx.core.compose.combine import chain, masked
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Excluding, Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.stable_adam import scale_by_stable_adam


@recipe
def stable_adamw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-6,
    threshold: ScalarOrSchedule = 1.0,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
    weight_decay: ScalarOrSchedule = 1e-2,
    mask: Mask = None,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """AdamW whose step shrinks where the second moment lags behind; see `scale_by_stable_adam`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        threshold: the bound of the root mean square of each leaf, > 0; here of rescaled gradients.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nu_dtype: dtype to store the second moment in; by default the parameter's, at least float32.
        weight_decay: lambda, the strength of the weight decay, >= 0; it shrinks with the step.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer with the slots `mu` and `nu`.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx
        >>> gradtx.stable_adamw(0.001)
        stable_adamw(0.001)

    References:
        Wortsman et al., Stable and low-precision training for large-scale vision-language models, 2023,
        https://arxiv.org/abs/2304.13013.
    """

    def step(decay: ScalarOrSchedule) -> Transform:
        options = mu_dtype, nu_dtype
        return scale_by_stable_adam(b1, b2, eps, threshold, *options, weight_decay=decay, axis_name=axis_name)

    rate = scale_by_learning_rate(learning_rate)
    if mask is None:
        return chain(step(weight_decay), rate)
    return chain(masked(step(weight_decay), mask), masked(step(0.0), Excluding(mask)), rate)
