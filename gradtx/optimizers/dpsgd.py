"""Differentially private gradient descent."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.transforms.elementary import identity
from gradtx.transforms.momentum import trace
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.wrappers.differential_privacy import differentially_private_aggregate


@recipe
def dpsgd(
    learning_rate: ScalarOrSchedule,
    l2_norm_clip: ScalarOrSchedule,
    noise_multiplier: ScalarOrSchedule,
    seed: int,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
) -> Transform:
    """Differentially private gradient descent; see `differentially_private_aggregate`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        l2_norm_clip: C, the bound of the norm of each example, >= 0.
        noise_multiplier: the standard deviation of the noise as a part of C, >= 0.
        seed: an int, a `jax.random.key`, or a key's raw data. It must be secret, and new for each run.
        momentum: mu, the decay of the velocity, in [0, 1]; None for none, which keeps no slot.
        nesterov: use Nesterov momentum; see `trace`.

    Returns:
        An optimizer of the gradients of each example, along axis 0.

    Examples:
        >>> import gradtx
        >>> gradtx.dpsgd(0.1, 1.0, 1.1, seed=7)
        dpsgd(0.1, 1.0, 1.1, 7)

    References:
        Abadi et al., Deep Learning with Differential Privacy, 2016, https://arxiv.org/abs/1607.00133.
    """
    private = differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed)
    moved = identity() if momentum is None else trace(momentum, nesterov)
    return chain(private, moved, scale_by_learning_rate(learning_rate))
