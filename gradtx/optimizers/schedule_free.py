"""Gradient descent and Adam without a schedule: averages of the iterates in its place."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.elementary import identity
from gradtx.transforms.rms import scale_by_rms
from gradtx.wrappers.schedule_free import schedule_free


@recipe
def schedule_free_sgd(
    learning_rate: ScalarOrSchedule = 1.0,
    warmup_steps: ScalarOrSchedule | None = None,
    b1: ScalarOrSchedule = 0.9,
    weight_decay: ScalarOrSchedule | None = None,
    weight_lr_power: ScalarOrSchedule = 2.0,
    state_dtype: DType | None = None,
    *,
    mask: Mask = None,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """Schedule-free gradient descent: z <- z - eta (g + lambda theta), and averages; see `schedule_free`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        warmup_steps: the length of the warmup in steps, >= 0; by default there is none.
        b1: the part of x in the parameters, which are b1 x + (1 - b1) z, in (0, 1].
        weight_decay: lambda, the strength of the weight decay, >= 0; by default none.
        weight_lr_power: with which power of the learning rate a step counts, >= 0.
        state_dtype: dtype to store z in; by default the parameter's, at least float32.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slot `z`. Evaluate with `gradtx.eval_params(state, params)`.

    Examples:
        >>> import gradtx
        >>> gradtx.schedule_free_sgd(0.5)
        schedule_free_sgd(0.5)

    References:
        Defazio et al., The Road Less Scheduled, 2024, https://arxiv.org/abs/2405.15682.
    """
    base = descent("schedule_free_sgd", identity(), learning_rate, weight_decay, mask, decay_coupling)
    return schedule_free(base, learning_rate, b1, weight_lr_power, state_dtype, warmup_steps=warmup_steps)


@recipe
def schedule_free_adamw(
    learning_rate: ScalarOrSchedule = 0.0025,
    warmup_steps: ScalarOrSchedule | None = None,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_lr_power: ScalarOrSchedule = 2.0,
    state_dtype: DType | None = None,
    *,
    mask: Mask = None,
    decay_coupling: Coupling = "rate",
) -> Transform:
    """Schedule-free AdamW: averages in the place of Adam's first moment; see `schedule_free`.

        v = b2 v + (1 - b2) |g|²        z <- z - eta (g / (sqrt(v / (1 - b2^t)) + eps) + lambda theta)

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        warmup_steps: the length of the warmup in steps, >= 0; by default there is none.
        b1: the part of x in the parameters, which are b1 x + (1 - b1) z, in (0, 1].
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0.
        weight_lr_power: with which power of the learning rate a step counts, >= 0.
        state_dtype: dtype to store z in; by default the parameter's, at least float32.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.

    Returns:
        An optimizer with the slots `nu` and `z`. Evaluate with `gradtx.eval_params(state, params)`.

    Examples:
        >>> import gradtx
        >>> gradtx.schedule_free_adamw(1e-3)
        schedule_free_adamw(0.001)

    References:
        Defazio et al., The Road Less Scheduled, 2024, https://arxiv.org/abs/2405.15682.
    """
    direction = scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
    base = descent("schedule_free_adamw", direction, learning_rate, weight_decay, mask, decay_coupling)
    return schedule_free(base, learning_rate, b1, weight_lr_power, state_dtype, warmup_steps=warmup_steps)
