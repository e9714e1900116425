"""Muon for the matrices, AdamW for the rest."""

from __future__ import annotations

from typing import Literal

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.transform import Transform
from gradtx.core.polar import STANDARD, Normalization
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.core.spec.spec import show
from gradtx.optimizers.beside_adam import beside_adam
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.muon import scale_by_muon
from gradtx.transforms.orthogonalize import NsCoeffs, Scaling

Convention = Literal["optax", "jordan", "torch", "moonlight", "dion"]

CONVENTIONS: dict[str, tuple[bool, Scaling]] = {
    "optax": (True, "jordan"),
    "jordan": (False, "jordan"),
    "torch": (False, "jordan"),
    "moonlight": (False, "moonlight"),
    "dion": (False, "dion"),
}
"""Whether the momentum is corrected for its start, and the size of an update."""


@recipe
def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: NsCoeffs = STANDARD,
    ns_steps: int = 5,
    beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Normalization = "frobenius",
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.999,
    adam_eps_root: ScalarOrSchedule = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: Views = None,
    consistent_rms: ScalarOrSchedule | None = None,
    convention: Convention = "optax",
    decay_coupling: Coupling = "rate",
    gram: bool = False,
    matmul_dtype: DType | None = None,
) -> Transform:
    """Muon: momentum whose singular values are made 1, for hidden matrices; AdamW for the rest.

        theta <- theta - eta (sigma pol(m) + lambda theta), m the momentum

    with pol and sigma as in `orthogonalize`. Embeddings, heads, vectors and numbers, as their names and
    shapes say, go to AdamW; `gradtx.routing(tx, params)` prints which leaf goes where and why. Of a leaf that
    may be either, `init` asks. By `convention` the momentum is corrected for its start or not, and sigma is,
    for m inputs and n outputs:

        "optax"             corrected    sqrt(max(1, n / m))
        "jordan", "torch"   as it is     sqrt(max(1, n / m))
        "moonlight"         as it is     0.2 sqrt(max(m, n))
        "dion"              as it is     sqrt(n / m)

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above. 0.02 is usual for sqrt(max(1, n /
            m)), AdamW's own rate for 0.2 sqrt(max(m, n)).
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        beta: decay of the average of the gradients, in [0, 1).
        eps: added to the norm, >= 0; and to AdamW's denominator.
        weight_decay: lambda, the strength of the weight decay, >= 0; of the matrices.
        weight_decay_mask: which leaves to decay, as `gradtx.masked` takes it; of the matrices, by default
            all.
        mu_dtype: dtype to store the average of the gradients in; AdamW's too; by default the parameter's, at
            least float32.
        nesterov: use Nesterov momentum; in both.
        adaptive: multiply by the nuclear norm; see `scale_by_muon`.
        preconditioning: the norm that a matrix is divided by at first; see `orthogonalize`.
        adam_b1: AdamW's decay of the first moment, in [0, 1).
        adam_b2: AdamW's decay of the second moment, in [0, 1).
        adam_eps_root: added inside of AdamW's root, >= 0.
        adam_weight_decay: the strength of AdamW's weight decay, >= 0.
        adam_learning_rate: AdamW's rate, >= 0 or a schedule; by default `learning_rate`.
        muon_weight_dimension_numbers: which leaves are matrices, and how, where names and shapes do not say
            it: a view by pattern, `{"*qkv/kernel": gradtx.matrix_view("rc", column_blocks=3), "out/kernel":
            None}`, with None for what goes to AdamW; or for all leaves a tree or a function, as in Optax,
            also of `gradtx.contrib.MuonDimensionNumbers`.
        consistent_rms: c of sigma = c sqrt(max(m, n)), >= 0; in the place of the convention's.
        convention: whose momentum and sigma; as above.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; that of the matrices; see `docs/conventions.md`.
        gram: take the steps on X alone; see `orthogonalize`.
        matmul_dtype: dtype of the products, such as `"bfloat16"`; by default that of the computation.

    Returns:
        An optimizer with the groups `matrices` and `rest`; `update` needs the parameters.

    Raises:
        ValueError: an unknown `convention`; at init, a leaf of which it is not clear what it is.

    Examples:
        >>> import gradtx
        >>> gradtx.muon(0.02, adam_learning_rate=3e-4)
        muon(0.02, adam_learning_rate=0.0003)

    References:
        Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024,
        https://kellerjordan.github.io/posts/muon/; Liu et al., Muon is Scalable for LLM Training, 2025,
        https://arxiv.org/abs/2502.16982.
    """
    if convention not in CONVENTIONS:
        raise ValueError(
            f"muon: convention must be one of {', '.join(map(repr, CONVENTIONS))}, got {show(convention)}."
        )
    bias_correction, scaling = CONVENTIONS[convention]
    direction = scale_by_muon(
        ns_coeffs,
        ns_steps,
        beta,
        eps,
        mu_dtype,
        nesterov=nesterov,
        adaptive=adaptive,
        preconditioning=preconditioning,
        weight_dimension_numbers=muon_weight_dimension_numbers,
        bias_correction=bias_correction,
        scaling=scaling if consistent_rms is None else "none",
        consistent_rms=consistent_rms,
        gram=gram,
        matmul_dtype=matmul_dtype,
    )
    return beside_adam(
        "muon",
        descent("muon", direction, learning_rate, weight_decay, weight_decay_mask, decay_coupling),
        scale_by_adam(adam_b1, adam_b2, eps, adam_eps_root, mu_dtype, nesterov=nesterov),
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_weight_decay,
        muon_weight_dimension_numbers,
        "muon_weight_dimension_numbers",
    )
