"""Adagrad, RMSprop and Adadelta."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.optimizers.sgd import coupled
from gradtx.transforms.adadelta import scale_by_adadelta
from gradtx.transforms.adagrad import scale_by_rss
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.elementary import identity
from gradtx.transforms.momentum import trace
from gradtx.transforms.rms import scale_by_rms, scale_by_stddev
from gradtx.transforms.scale import scale_by_learning_rate


@recipe
def adagrad(
    learning_rate: ScalarOrSchedule,
    initial_accumulator_value: ScalarOrSchedule = 0.1,
    eps: ScalarOrSchedule = 1e-7,
    *,
    eps_in_sqrt: bool = True,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "gradient",
) -> Transform:
    """AdaGrad: theta <- theta - eta g / sqrt(G + eps), G the sum of squares.

        g = gradient + lambda theta        G = G + |g|²

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        initial_accumulator_value: the sum G before the first step, >= 0; the paper and PyTorch have 0. It is
            used by `init` only.
        eps: added to the denominator, >= 0; inside the root unless `eps_in_sqrt` is False. PyTorch has 1e-10.
        eps_in_sqrt: whether eps is inside the root; False for g / (sqrt(G) + eps), as in PyTorch.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slot `sum_of_squares`.

    Examples:
        >>> import gradtx
        >>> gradtx.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-10, eps_in_sqrt=False)
        adagrad(0.1, initial_accumulator_value=0.0, eps=1e-10, eps_in_sqrt=False)

    References:
        Duchi, Hazan and Singer, Adaptive Subgradient Methods for Online Learning and Stochastic
        Optimization, 2011.
    """
    direction = scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt)
    return descent("adagrad", direction, learning_rate, weight_decay, mask, decay_coupling)


@recipe
def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-8,
    initial_scale: ScalarOrSchedule = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    first_gradient: bool = False,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
) -> Transform:
    """RMSProp: theta <- theta - eta g / sqrt(E + eps), E a moving average of squares.

        g = gradient + lambda theta        E = decay E + (1 - decay) |g|²

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        decay: decay of the average, in [0, 1); PyTorch's alpha, 0.99 there.
        eps: added to the denominator, >= 0; inside the root unless `eps_in_sqrt` is False.
        initial_scale: the average of squares before the first step, >= 0; it is used by `init` only.
        eps_in_sqrt: whether eps is inside the root; False for g / (sqrt(E) + eps), as in PyTorch.
        centered: subtract the squared average of g from E; g is then rescaled by its standard deviation.
        momentum: mu, the decay of the velocity, in [0, 1]; None for none. The rate is inside, v = mu v - eta
            u.
        nesterov: use Nesterov momentum; the step looks ahead along the velocity.
        bias_correction: correct averages for their start at zero; divide them by 1 - decay^t.
        first_gradient: start averages at the first gradient; the first E is |g0|².
        weight_decay: lambda, the strength of the weight decay, >= 0; coupled, lambda theta is added to the
            gradient. None for none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.

    Returns:
        An optimizer with the slot `nu`, and `mu` and `trace` where asked for.

    Examples:
        >>> import gradtx
        >>> gradtx.rmsprop(1e-2, decay=0.99, eps_in_sqrt=False, momentum=0.9)
        rmsprop(0.01, decay=0.99, eps_in_sqrt=False, momentum=0.9)

    References:
        Tieleman and Hinton, Lecture 6.5: RMSProp, 2012; Graves, Generating Sequences With Recurrent Neural
        Networks, 2013, https://arxiv.org/abs/1308.0850.
    """
    rescale = scale_by_stddev if centered else scale_by_rms
    return chain(
        coupled(weight_decay, mask),
        rescale(decay, eps, initial_scale, eps_in_sqrt, bias_correction, first_gradient=first_gradient),
        scale_by_learning_rate(learning_rate),
        identity() if momentum is None else trace(momentum, nesterov),
    )


@recipe
def adadelta(
    learning_rate: ScalarOrSchedule | None = None,
    rho: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
) -> Transform:
    """Adadelta: theta <- theta - lr sqrt(E[u²] + eps) / sqrt(E[g²] + eps) g.

        g = gradient + lambda theta        E[g²] = rho E[g²] + (1 - rho) |g|², and E[u²] alike

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; a factor, usually 1.0. With None the result
            is u itself, not negated, as in Optax.
        rho: decay of both averages, in [0, 1).
        eps: added inside both roots, >= 0; with 0 nothing ever moves.
        weight_decay: lambda, the strength of the weight decay, >= 0; coupled, lambda theta is added to the
            gradient.
        weight_decay_mask: which leaves to decay, as `gradtx.masked` takes it; by default all.

    Returns:
        An optimizer with the slots `e_g` and `e_x`.

    Examples:
        >>> import gradtx
        >>> gradtx.adadelta(1.0)
        adadelta(1.0)

    References:
        Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012, https://arxiv.org/abs/1212.5701.
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(learning_rate),
    )
