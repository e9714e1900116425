"""Aurora for the matrices, AdamW for the rest."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.beside_adam import beside_adam
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.aurora import scale_by_aurora
from gradtx.transforms.orthogonalize import NsCoeffs


@recipe
def aurora(
    learning_rate: ScalarOrSchedule = 0.05,
    beta: ScalarOrSchedule = 0.95,
    balancing_steps: int = 2,
    balancing_power: ScalarOrSchedule = 0.5,
    eps: ScalarOrSchedule = 1e-7,
    weight_decay: ScalarOrSchedule = 0.025,
    mask: Mask = None,
    *,
    ns_coeffs: NsCoeffs = "newton_schulz",
    ns_steps: int = 12,
    nesterov: bool = True,
    consistent_rms: ScalarOrSchedule | None = None,
    matmul_dtype: DType | None = None,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    decay_coupling: Coupling = "rate",
    views: Views = None,
) -> Transform:
    """Aurora: Muon with balanced slices along the longer side, for hidden matrices; AdamW for the rest.

        theta <- theta - eta (u + lambda theta), u as in `scale_by_aurora`

    Which leaf goes where, and why, `gradtx.routing(tx, params)` prints; see `muon`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        beta: decay of the average of the gradients, in [0, 1).
        balancing_steps: how many polar factors are taken, >= 1.
        balancing_power: the power of a difference in length that one of them evens out, >= 0; 0.5 is all.
        eps: added to the norm, >= 0; and the least length of a slice.
        weight_decay: lambda, the strength of the weight decay, >= 0; of the matrices.
        mask: which leaves to decay, as `gradtx.masked` takes it; of the matrices, by default all.
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        nesterov: use Nesterov momentum.
        consistent_rms: c of sigma = c sqrt(max(m, n)), >= 0; in the place of sqrt(max(1, n / m)), for m
            inputs and n outputs. With 0.2 the rate is AdamW's.
        matmul_dtype: dtype of the products, such as `"bfloat16"`; by default that of the computation.
        adam_learning_rate: AdamW's rate, >= 0 or a schedule; by default `learning_rate`.
        adam_b1: AdamW's decay of the first moment, in [0, 1).
        adam_b2: AdamW's decay of the second moment, in [0, 1).
        adam_eps: added to AdamW's denominator, >= 0.
        adam_weight_decay: the strength of AdamW's weight decay, >= 0.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; that of the matrices; see `docs/conventions.md`.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`. None for a leaf sends it to AdamW.

    Returns:
        An optimizer with the groups `matrices` and `rest`; `update` needs the parameters.

    Raises:
        ValueError: a number of steps < 1; at init, a leaf of which it is not clear what it is.

    Examples:
        >>> import gradtx
        >>> gradtx.aurora(0.03)
        aurora(0.03)

    References:
        Dewulf et al., Aurora, 2026, https://arxiv.org/abs/2606.27715.
    """
    direction = scale_by_aurora(
        ns_coeffs,
        ns_steps,
        beta,
        balancing_steps,
        balancing_power,
        eps,
        nesterov=nesterov,
        scaling="jordan" if consistent_rms is None else "none",
        consistent_rms=consistent_rms,
        matmul_dtype=matmul_dtype,
        views=views,
    )
    return beside_adam(
        "aurora",
        descent("aurora", direction, learning_rate, weight_decay, mask, decay_coupling),
        scale_by_adam(adam_b1, adam_b2, adam_eps),
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_weight_decay,
        views,
    )
