"""The end of most optimizers: a direction, weight decay in one of five ways, and the learning rate."""

from __future__ import annotations

from typing import Literal, get_args

from gradtx.core.compose.combine import chain
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.core.spec.spec import show
from gradtx.transforms.decay import add_cautious_decayed_weights, add_decayed_weights
from gradtx.transforms.elementary import identity, negate
from gradtx.transforms.scale import scale_by_learning_rate, scale_by_schedule

Coupling = Literal["gradient", "rate", "cautious", "schedule", "none"]


def descent(
    name: str,
    direction: Transform,
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "gradient",
    schedule: ScalarOrSchedule | None = None,
) -> Transform:
    """Steps along a direction u, with eta the rate, s the schedule (1 without one) and lambda the decay.

    "gradient"  u of the gradient + lambda theta, theta <- theta - s eta u
    "rate"      theta <- theta - s eta (u + lambda theta)
    "cautious"  theta <- theta - s eta (u + lambda theta), with lambda 0 where u theta < 0
    "schedule"  theta <- theta - s (eta u + lambda theta)
    "none"      theta <- theta - s eta u - lambda theta
    """
    if decay_coupling not in get_args(Coupling):
        raise ValueError(
            f"{name}: decay_coupling must be 'gradient', 'rate', 'cautious', 'schedule' or 'none', got "
            f"{show(decay_coupling)}."
        )
    decaying = add_cautious_decayed_weights if decay_coupling == "cautious" else add_decayed_weights
    decay = identity() if weight_decay is None else decaying(weight_decay, mask)
    multiplier = identity() if schedule is None else scale_by_schedule(schedule)
    step, rate = scale_by_learning_rate(learning_rate), scale_by_learning_rate(learning_rate, flip_sign=False)
    if decay_coupling == "gradient":
        return chain(decay, direction, multiplier, step)
    if decay_coupling in ("rate", "cautious"):
        return chain(direction, decay, multiplier, step)
    if decay_coupling == "schedule":
        return chain(direction, rate, decay, multiplier, negate())
    return chain(direction, rate, multiplier, decay, negate())
