"""Adafactor."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.sgd import coupled
from gradtx.transforms.average import ema
from gradtx.transforms.clip import clip_by_block_rms
from gradtx.transforms.elementary import identity, negate
from gradtx.transforms.factored import scale_by_factored_rms, scale_by_param_block_rms
from gradtx.transforms.scale import scale_by_learning_rate


@recipe
def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: ScalarOrSchedule = 0.8,
    decay_offset: ScalarOrSchedule = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: ScalarOrSchedule | None = 1.0,
    momentum: ScalarOrSchedule | None = None,
    dtype_momentum: DType = "float32",
    weight_decay_rate: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-30,
    factored: bool = True,
    weight_decay_mask: Mask = None,
) -> Transform:
    """Adafactor: a factored second moment, clipped per leaf, in steps relative to the parameter's size.

        u = g / sqrt(V), V = R C / mean(R)            u = u / max(1, rms(u) / threshold)
        u = eta max(rms(theta), 1e-3) u               u = average of u, decay `momentum`
        theta <- theta - (u + lambda theta)

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, a factor of the relative step.
            None for 1.
        min_dim_size_to_factor: the smallest axis that is worth factoring.
        decay_rate: the exponent of the second moment's decay, >= 0; the decay is 1 - t^-decay_rate.
        decay_offset: the step from which the second moment's decay counts; for a run that is continued with
            new moments.
        multiply_by_parameter_scale: whether steps are relative to the size of each leaf.
        clipping_threshold: the bound of the root mean square of each leaf's update, > 0; None for no
            clipping.
        momentum: decay of the average of the updates, in [0, 1); it is not corrected for its start at zero.
            None for none.
        dtype_momentum: dtype to store the average of the updates in.
        weight_decay_rate: lambda, the strength of the weight decay, >= 0; the learning rate does not multiply
            it. None for none.
        eps: added to the squared gradients, >= 0.
        factored: whether to factor second moments; False keeps them full.
        weight_decay_mask: which leaves to decay, as `gradtx.masked` takes it; by default all.

    Returns:
        An optimizer with the slots `v_row` and `v_col` or `v`, and `ema` if there is momentum; `update` needs
        the parameters.

    Examples:
        >>> import gradtx
        >>> gradtx.adafactor(1e-2, momentum=0.9)
        adafactor(0.01, momentum=0.9)

    References:
        Shazeer and Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, 2018,
        https://arxiv.org/abs/1804.04235.
    """
    return chain(
        scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps),
        identity() if clipping_threshold is None else clip_by_block_rms(clipping_threshold),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_param_block_rms() if multiply_by_parameter_scale else identity(),
        identity() if momentum is None else ema(momentum, False, dtype_momentum),
        coupled(weight_decay_rate, weight_decay_mask),
        negate(),
    )
