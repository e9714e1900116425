"""Muown for the matrices, AdamW for the rest."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.transform import Transform
from gradtx.core.polar import STANDARD
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.beside_adam import beside_adam
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.muown import scale_by_muown
from gradtx.transforms.orthogonalize import NsCoeffs


@recipe
def muown(
    learning_rate: ScalarOrSchedule = 3e-4,
    beta: ScalarOrSchedule = 0.95,
    gain_b1: ScalarOrSchedule = 0.9,
    gain_b2: ScalarOrSchedule = 0.95,
    gain_eps: ScalarOrSchedule = 1e-8,
    eps: ScalarOrSchedule = 1e-7,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    ns_coeffs: NsCoeffs = STANDARD,
    ns_steps: int = 5,
    nesterov: bool = True,
    consistent_rms: ScalarOrSchedule | None = 0.2,
    matmul_dtype: DType | None = None,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    views: Views = None,
) -> Transform:
    """Muown: of hidden matrices the direction of each output by Muon and its length by Adam; AdamW else.

        theta <- a v / |v| - eta lambda theta, a and v as in `scale_by_muown`

    Which leaf goes where, and why, `gradtx.routing(tx, params)` prints; see `muon`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        beta: decay of the momentum, in [0, 1); a sum.
        gain_b1: Adam's decay of the first moment, in [0, 1); of the gains.
        gain_b2: Adam's decay of the second moment, in [0, 1); of the gains.
        gain_eps: added to Adam's denominator, >= 0; of the gains.
        eps: added to the norm, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; of the matrices.
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        nesterov: use Nesterov momentum.
        consistent_rms: c of sigma = c sqrt(max(m, n)), >= 0; for m inputs and n outputs. None is for
            sqrt(max(1, n / m)). With 0.2 the rate is AdamW's.
        matmul_dtype: dtype of the products, such as `"bfloat16"`; by default that of the computation.
        adam_learning_rate: AdamW's rate, >= 0 or a schedule; by default `learning_rate`.
        adam_b1: AdamW's decay of the first moment, in [0, 1).
        adam_b2: AdamW's decay of the second moment, in [0, 1).
        adam_eps: added to AdamW's denominator, >= 0.
        adam_weight_decay: the strength of AdamW's weight decay, >= 0.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`. None for a leaf sends it to AdamW.

    Returns:
        An optimizer with the groups `matrices` and `rest`; `update` needs the parameters.

    Raises:
        ValueError: at init, a leaf of which it is not clear what it is.

    Examples:
        >>> import gradtx
        >>> gradtx.muown(1e-3)
        muown(0.001)

    References:
        Muown, 2026, https://arxiv.org/abs/2605.10797.
    """
    step = scale_by_muown(
        learning_rate,
        ns_coeffs,
        ns_steps,
        beta,
        gain_b1,
        gain_b2,
        gain_eps,
        eps,
        weight_decay,
        nesterov=nesterov,
        scaling="jordan" if consistent_rms is None else "none",
        consistent_rms=consistent_rms,
        matmul_dtype=matmul_dtype,
        views=views,
    )
    return beside_adam(
        "muown",
        step,
        scale_by_adam(adam_b1, adam_b2, adam_eps),
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_weight_decay,
        views,
    )
