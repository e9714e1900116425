"""Adam, AdamW and their Nesterov forms."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adam import scale_by_adam


@recipe
def adam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType | None = None,
    bias_correction: bool = True,
    eps_scaled: bool = False,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "gradient",
) -> Transform:
    """Adam: theta <- theta - eta m^ / (sqrt(v^ + eps_root) + eps).

        g  = gradient + lambda theta
        m  = b1 m + (1 - b1) g              v  = b2 v + (1 - b2) |g|²
        m^ = m / (1 - b1^t)                 v^ = v / (1 - b2^t)

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above, usually 1e-3.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0; for eps inside the root use `eps=0.0, eps_root=1e-8`.
        eps_root: added inside the root, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nesterov: use Nesterov momentum; see `scale_by_adam`.
        nu_dtype: dtype to store the second moment in; by default the parameter's, at least float32.
        bias_correction: correct averages for their start at zero; divide the moments by 1 - b^t.
        eps_scaled: divide eps by sqrt(1 - b2^t), and eps_root by 1 - b2^t; see `scale_by_adam`.
        weight_decay: lambda, the strength of the weight decay, >= 0; coupled, lambda theta is added to the
            gradient. None for none. For decay that does not pass through the moments use `adamw`.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu` and `nu`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, theta = gradtx.adam(0.1), jnp.float32(1.0)
        >>> theta, state = gradtx.apply_gradients(tx, jnp.float32(2.0), tx.init(theta), theta)
        >>> round(float(theta), 6)
        0.9

    References:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, 2014, https://arxiv.org/abs/1412.6980.
    """
    direction = scale_by_adam(
        b1,
        b2,
        eps,
        eps_root,
        mu_dtype,
        nu_dtype=nu_dtype,
        nesterov=nesterov,
        bias_correction=bias_correction,
        eps_scaled=eps_scaled,
    )
    return descent("adam", direction, learning_rate, weight_decay, mask, decay_coupling)


@recipe
def adamw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType | None = None,
    bias_correction: bool = True,
    eps_scaled: bool = False,
    decay_coupling: Coupling = "rate",
    schedule: ScalarOrSchedule | None = None,
) -> Transform:
    """AdamW: Adam's direction u, and weight decay that does not pass through the moments.

    With eta the learning rate and s the schedule's multiplier (1 without one), by `decay_coupling`:

        "gradient"  theta <- theta - s eta u, u of g + lambda theta    Adam with L2
        "rate"      theta <- theta - s eta (u + lambda theta)          PyTorch, BERT, Optax
        "cautious"  the same, with lambda 0 where u theta < 0          Cautious Weight Decay
        "schedule"  theta <- theta - s (eta u + lambda theta)          the paper
        "none"      theta <- theta - s eta u - lambda theta            independent of both

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above. 2e-5 is usual for fine-tuning.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0; BERT has 1e-6.
        eps_root: added inside the root, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        weight_decay: lambda, the strength of the weight decay, >= 0; Optax's default is 1e-4, PyTorch's and
            BERT's 0.01.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all. A usual choice is
            `("!*bias", "!*norm*")`.
        nesterov: use Nesterov momentum; see `scale_by_adam`.
        nu_dtype: dtype to store the second moment in; by default the parameter's, at least float32.
        bias_correction: correct averages for their start at zero; divide the moments by 1 - b^t. BERT does
            not.
        eps_scaled: divide eps by sqrt(1 - b2^t), and eps_root by 1 - b2^t; see `scale_by_adam`.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; as above.
        schedule: the multiplier s, a schedule around 1, kept apart from the rate.

    Returns:
        An optimizer with the slots `mu` and `nu`; `update` needs the parameters.

    Raises:
        ValueError: an unknown `decay_coupling`.

    Examples:
        >>> import gradtx
        >>> gradtx.adamw(3e-4, weight_decay=0.1)
        adamw(0.0003, weight_decay=0.1)

    References:
        Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2017, https://arxiv.org/abs/1711.05101.
    """
    direction = scale_by_adam(
        b1,
        b2,
        eps,
        eps_root,
        mu_dtype,
        nu_dtype=nu_dtype,
        nesterov=nesterov,
        bias_correction=bias_correction,
        eps_scaled=eps_scaled,
    )
    return descent("adamw", direction, learning_rate, weight_decay, mask, decay_coupling, schedule)


@recipe
def nadam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    decay_coupling: Coupling = "gradient",
) -> Transform:
    """Adam with Nesterov momentum: m^ = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t).

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        nesterov: use Nesterov momentum; False makes it plain Adam.
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu` and `nu`.

    Examples:
        >>> import gradtx
        >>> gradtx.nadam(1e-3)
        nadam(0.001)

    References:
        Dozat, Incorporating Nesterov Momentum into Adam, 2016.
    """
    return adam(
        learning_rate,
        b1,
        b2,
        eps,
        eps_root,
        mu_dtype,
        nesterov=nesterov,
        weight_decay=weight_decay,
        mask=mask,
        decay_coupling=decay_coupling,
    )


@recipe
def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = True,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """AdamW with Nesterov momentum.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        eps_root: added inside the root, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        weight_decay: lambda, the strength of the weight decay, >= 0; decoupled, the learning rate multiplies
            it.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        nesterov: use Nesterov momentum; False makes it plain AdamW.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `mu` and `nu`; `update` needs the parameters.

    Examples:
        >>> import gradtx
        >>> gradtx.nadamw(1e-3, weight_decay=0.1)
        nadamw(0.001, weight_decay=0.1)

    References:
        Dozat, Incorporating Nesterov Momentum into Adam, 2016; Loshchilov and Hutter, Decoupled Weight Decay
        Regularization, 2017, https://arxiv.org/abs/1711.05101.
    """
    return adamw(
        learning_rate,
        b1,
        b2,
        eps,
        eps_root,
        mu_dtype,
        weight_decay,
        mask,
        nesterov=nesterov,
        decay_coupling=decay_coupling,
    )
