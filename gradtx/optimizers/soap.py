"""SOAP for the matrices, AdamW for the rest."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.beside_adam import beside_adam
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.soap import scale_by_soap


@recipe
def soap(
    learning_rate: ScalarOrSchedule = 3e-3,
    b1: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    shampoo_beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: Mask = None,
    precondition_frequency: ScalarOrSchedule = 10,
    max_precond_dim: int = 10_000,
    *,
    bias_correction: bool = True,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.95,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    decay_coupling: Coupling = "rate",
    stagger: bool = True,
    views: Views = None,
) -> Transform:
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for hidden matrices; AdamW for the rest.

        theta <- theta - eta (u + lambda theta), u as in `scale_by_soap`

    The first gradient makes the bases, and moves no matrix. Which leaf goes where, and why,
    `gradtx.routing(tx, params)` prints; see `muon`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        shampoo_beta: decay of L and R, in [0, 1).
        eps: added to the denominator, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; of the matrices.
        mask: which leaves to decay, as `gradtx.masked` takes it; of the matrices, by default all.
        precondition_frequency: the number of updates from one basis to the next, >= 1.
        max_precond_dim: a side that is longer has no basis.
        bias_correction: correct averages for their start at zero; those of the matrices.
        adam_learning_rate: AdamW's rate, >= 0 or a schedule; by default `learning_rate`.
        adam_b1: AdamW's decay of the first moment, in [0, 1).
        adam_b2: AdamW's decay of the second moment, in [0, 1).
        adam_eps: added to AdamW's denominator, >= 0.
        adam_weight_decay: the strength of AdamW's weight decay, >= 0.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; that of the matrices; see `docs/conventions.md`.
        stagger: whether what costs much is computed matrix after matrix, so that no step has all of it; else
            for all at once, as the authors have it.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`. None for a leaf sends it to AdamW.

    Returns:
        An optimizer with the groups `matrices` and `rest`; `update` needs the parameters.

    Raises:
        ValueError: at init, a leaf of which it is not clear what it is.

    Examples:
        >>> import gradtx
        >>> gradtx.soap(3e-3, adam_learning_rate=3e-4)
        soap(adam_learning_rate=0.0003)

    References:
        Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, 2024,
        https://arxiv.org/abs/2409.11321.
    """
    direction = scale_by_soap(
        b1,
        b2,
        shampoo_beta,
        eps,
        precondition_frequency,
        max_precond_dim,
        bias_correction=bias_correction,
        stagger=stagger,
        views=views,
    )
    return beside_adam(
        "soap",
        descent("soap", direction, learning_rate, weight_decay, mask, decay_coupling),
        scale_by_adam(adam_b1, adam_b2, adam_eps),
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_weight_decay,
        views,
    )
