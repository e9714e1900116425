"""Optimizers whose steps are as large as each leaf's own norm: LARS, LAMB, Fromage and NovoGrad."""

from __future__ import annotations

from gradtx.core.compose.combine import chain, masked
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.fromage import scale_by_fromage
from gradtx.transforms.momentum import trace
from gradtx.transforms.novograd import scale_by_novograd
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.trust_ratio import scale_by_trust_ratio


@recipe
def lars(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = True,
    trust_coefficient: ScalarOrSchedule = 0.001,
    eps: ScalarOrSchedule = 0.0,
    trust_ratio_mask: Mask = True,
    momentum: ScalarOrSchedule = 0.9,
    nesterov: bool = False,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """LARS: v = mu v + eta c ||theta|| / ||d|| d for each leaf, d = g + lambda theta; theta <- theta - v.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        weight_decay: lambda, the strength of the weight decay, >= 0; coupled, lambda theta is added to the
            gradient.
        weight_decay_mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        trust_coefficient: c, the part of its norm by which a leaf moves, >= 0.
        eps: added to the norm of the update, >= 0.
        trust_ratio_mask: which leaves have a trust ratio, as `gradtx.masked` takes it; by default all. A
            usual choice is `("!*bias", "!*norm*")`, here and for the decay.
        momentum: mu, the decay of the velocity, in [0, 1].
        nesterov: use Nesterov momentum; the step looks ahead along the velocity.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer with the slot `trace`; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx
        >>> gradtx.lars(0.1, weight_decay=1e-4)
        lars(0.1, weight_decay=0.0001)

    References:
        You, Gitman and Ginsburg, Large Batch Training of Convolutional Networks, 2017,
        https://arxiv.org/abs/1708.03888.
    """
    ratio = scale_by_trust_ratio(None, trust_coefficient, eps, axis_name=axis_name)
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(ratio, trust_ratio_mask),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )


@recipe
def lamb(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-6,
    eps_root: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """LAMB: theta <- theta - eta ||theta|| / ||d|| d for each leaf, d Adam's direction + lambda theta.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, a part of the leaf's own norm.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; it is a part of the direction whose norm
            is taken.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer with the slots `mu` and `nu`; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx
        >>> gradtx.lamb(2e-3, weight_decay=0.01)
        lamb(0.002, weight_decay=0.01)

    References:
        You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes, 2019,
        https://arxiv.org/abs/1904.00962.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(None, None, None, axis_name=axis_name),
        scale_by_learning_rate(learning_rate),
    )


@recipe
def fromage(
    learning_rate: ScalarOrSchedule,
    min_norm: ScalarOrSchedule = 1e-6,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Fromage: theta <- (theta - eta ||theta|| / ||g|| g) / sqrt(1 + eta²) for each leaf.

    The division is its own decay: it keeps the norm of a leaf.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, a part of the leaf's own norm.
        min_norm: norms below it count as this, >= 0.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer without slots; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx
        >>> gradtx.fromage(0.01)
        fromage(0.01)

    References:
        Bernstein et al., On the distance between two neural networks and the stability of learning, 2020,
        https://arxiv.org/abs/2002.03432.
    """
    return scale_by_fromage(learning_rate, min_norm, axis_name=axis_name)


@recipe
def novograd(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.25,
    eps: ScalarOrSchedule = 1e-6,
    eps_root: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """NovoGrad: theta <- theta - eta m, m = b1 m + g / (sqrt(v) + eps) + lambda theta, v one number a leaf.

    See `scale_by_novograd`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        b1: the decay of the velocity, in [0, 1].
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; it passes through the velocity.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer with the slots `mu` and `nu`; `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx
        >>> gradtx.novograd(0.01, weight_decay=1e-3)
        novograd(0.01, weight_decay=0.001)

    References:
        Ginsburg et al., Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep
        Networks, 2019, https://arxiv.org/abs/1905.11286.
    """
    direction = scale_by_novograd(b1, b2, eps, eps_root, weight_decay, axis_name=axis_name)
    return chain(direction, scale_by_learning_rate(learning_rate))
