"""COCOB with weight decay."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.transforms.cocob import scale_by_cocob
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate


@recipe
def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    alpha: ScalarOrSchedule = 100.0,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> Transform:
    """COCOB: coin betting, which needs no learning rate; see `scale_by_cocob`.

    Args:
        learning_rate: a factor of the gradients, >= 0 or a schedule; the steps hardly depend on a constant.
        alpha: how small the first bets are, >= 0.
        eps: the first largest gradient, > 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; coupled, it is added to the gradient.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.

    Returns:
        An optimizer with five slots; `update` needs the parameters.

    Examples:
        >>> import gradtx
        >>> gradtx.cocob()
        cocob()

    References:
        Orabona and Tommasi, Training Deep Networks without Learning Rates Through Coin Betting, 2017,
        https://arxiv.org/abs/1705.07795.
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps),
    )
