"""Sophia."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.wrappers.hessian import HUTCHINSON
from gradtx.wrappers.sophia import scale_by_sophia


@recipe
def sophia(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.965,
    b2: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: Mask = None,
    gamma: ScalarOrSchedule = 0.01,
    clip_threshold: ScalarOrSchedule | None = 1.0,
    update_interval: ScalarOrSchedule = 10,
    hessian_diagonal_fn: AnyTransform = HUTCHINSON,
    mu_dtype: DType | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
    *,
    bias_correction: bool = True,
    estimate_first: bool = False,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """Sophia: momentum divided by the diagonal of the Hessian, clipped; see `scale_by_sophia`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the average of estimates, in [0, 1).
        eps: the least denominator, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0.
        weight_decay_mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        gamma: the factor of the curvature, >= 0; the larger, the less is clipped.
        clip_threshold: the largest element of an update, > 0; infinity or None for no clipping.
        update_interval: the number of updates from one estimate to the next, a whole number from 1 to
            2^31 - 1.
        hessian_diagonal_fn: a transform, of any library, that gives the estimate in the place of a gradient.
            It gets the gradients, the parameters and the keyword arguments of the call.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        verbose: whether to print the win rate, the part of the elements that are not clipped.
        print_win_rate_every_n_steps: how often, in updates; 0 for never.
        bias_correction: correct averages for their start at zero; here that of the gradients alone.
        estimate_first: whether a new h counts in the update that it is made in.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer whose `update` needs the parameters and what `hessian_diagonal_fn` needs, by default
        `obj_fn=`, the loss as a function of the parameters.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> def loss(x):
        ...     return jnp.sum((x - 1) ** 4)
        >>> tx, x = gradtx.sophia(0.1, b1=0.9), jnp.array([3.0, -1.0])
        >>> state = tx.init(x)
        >>> @jax.jit
        ... def step(x, state):
        ...     updates, state = tx.update(jax.grad(loss)(x), state, x, obj_fn=loss)
        ...     return gradtx.apply_updates(x, updates), state
        >>> for _ in range(100):
        ...     x, state = step(x, state)
        >>> bool(jnp.abs(x - 1).max() < 0.2)
        True

    References:
        Liu et al., Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training,
        2023, https://arxiv.org/abs/2305.14342.
    """
    direction = scale_by_sophia(
        b1,
        b2,
        eps,
        gamma,
        clip_threshold,
        update_interval,
        hessian_diagonal_fn,
        mu_dtype,
        verbose,
        print_win_rate_every_n_steps,
        bias_correction=bias_correction,
        estimate_first=estimate_first,
    )
    return descent("sophia", direction, learning_rate, weight_decay, weight_decay_mask, decay_coupling)
