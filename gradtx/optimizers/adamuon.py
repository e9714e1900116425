"""AdaMuon for the matrices, AdamW for the rest."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.transform import Transform
from gradtx.core.polar import STANDARD
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.beside_adam import beside_adam
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.adamuon import scale_by_adamuon
from gradtx.transforms.orthogonalize import NsCoeffs


@recipe
def adamuon(
    learning_rate: ScalarOrSchedule,
    beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-7,
    nu_eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: Mask = None,
    mu_dtype: DType | None = None,
    *,
    ns_coeffs: NsCoeffs = STANDARD,
    ns_steps: int = 5,
    nesterov: bool = True,
    matmul_dtype: DType | None = None,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    decay_coupling: Coupling = "rate",
    views: Views = None,
) -> Transform:
    """AdaMuon: the orthogonalized sign of the momentum over its size, for matrices; AdamW for the rest.

        theta <- theta - eta (u + lambda theta), u as in `scale_by_adamuon`

    An update has a root mean square of 0.2, so that AdamW's rates are usual. Which leaf goes where, and why,
    `gradtx.routing(tx, params)` prints; see `muon`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        beta: decay of both averages, in [0, 1).
        eps: added to the norm, >= 0.
        nu_eps: added to the denominators, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; of the matrices.
        mask: which leaves to decay, as `gradtx.masked` takes it; of the matrices, by default all.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        nesterov: use Nesterov momentum.
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
        ValueError: another name; at init, a leaf of which it is not clear what it is.

    Examples:
        >>> import gradtx
        >>> gradtx.adamuon(1e-3, weight_decay=0.1)
        adamuon(0.001, weight_decay=0.1)

    References:
        Si et al., AdaMuon: Adaptive Muon Optimizer, 2025, https://arxiv.org/abs/2507.11005.
    """
    direction = scale_by_adamuon(
        ns_coeffs,
        ns_steps,
        beta,
        eps,
        nu_eps,
        mu_dtype,
        nesterov=nesterov,
        matmul_dtype=matmul_dtype,
        views=views,
    )
    return beside_adam(
        "adamuon",
        descent("adamuon", direction, learning_rate, weight_decay, mask, decay_coupling),
        scale_by_adam(adam_b1, adam_b2, adam_eps),
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_weight_decay,
        views,
    )
