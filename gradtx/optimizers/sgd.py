"""Stochastic gradient descent, with momentum or noise."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.protocol import Seed
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.elementary import identity
from gradtx.transforms.momentum import trace
from gradtx.transforms.noise import add_noise
from gradtx.transforms.scale import scale_by_learning_rate


def coupled(weight_decay: ScalarOrSchedule | None, mask: Mask) -> Transform:
    """L2 regularization in the gradient, where it is asked for."""
    return identity() if weight_decay is None else add_decayed_weights(weight_decay, mask)


@recipe
def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    accumulator_dtype: DType | None = None,
    *,
    dampening: ScalarOrSchedule = 0.0,
    dampen_first: bool = True,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "gradient",
) -> Transform:
    """Gradient descent: theta <- theta - eta g; with momentum, theta <- theta - eta v.

        g = gradient + lambda theta        v = mu v + (1 - tau) g; with Nesterov the step is along g + mu v

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        momentum: mu, the decay of the velocity, in [0, 1]; None for none, which keeps no slot.
        nesterov: use Nesterov momentum; the step looks ahead along the velocity.
        accumulator_dtype: dtype to store what is accumulated in; that is the velocity. By default the
            parameter's, at least float32.
        dampening: tau, the part of the gradient that is left out of the velocity.
        dampen_first: whether the first step is dampened too; False for v = g there, as in PyTorch.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none. Coupled, as it is by
            default, it is the gradient of 1/2 lambda theta².
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer, with the slot `trace` if there is momentum.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, theta = gradtx.sgd(0.1, momentum=0.9), jnp.float32(1.0)
        >>> theta, state = gradtx.apply_gradients(tx, jnp.float32(2.0), tx.init(theta), theta)
        >>> round(float(theta), 6)
        0.8

    References:
        Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.
    """
    velocity = identity()
    if momentum is not None:
        velocity = trace(
            momentum, nesterov, accumulator_dtype, dampening=dampening, dampen_first=dampen_first
        )
    return descent("sgd", velocity, learning_rate, weight_decay, mask, decay_coupling)


@recipe
def noisy_sgd(
    learning_rate: ScalarOrSchedule,
    eta: ScalarOrSchedule = 0.01,
    gamma: ScalarOrSchedule = 0.55,
    key: Seed | None = None,
    *,
    seed: int | None = None,
) -> Transform:
    """Gradient descent with noise: theta <- theta - learning_rate (g + n), n ~ N(0, eta / t^gamma).

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        eta: the variance of the noise at the first step, >= 0.
        gamma: the exponent of the variance's decay, >= 0.
        key: an int, a `jax.random.key`, or a key's raw data; by default 0.
        seed: another name of `key`, as an int.

    Returns:
        An optimizer whose state holds the key's raw data.

    Examples:
        >>> import gradtx
        >>> gradtx.noisy_sgd(0.1, key=1)
        noisy_sgd(0.1, key=1)

    References:
        Neelakantan et al., Adding Gradient Noise Improves Learning for Very Deep Networks, 2015,
        https://arxiv.org/abs/1511.06807.
    """
    return chain(add_noise(eta, gamma, key, seed=seed), scale_by_learning_rate(learning_rate))
