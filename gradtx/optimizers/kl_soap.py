"""KL-SOAP for the matrices, AdamW for the rest."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.beside_adam import beside_adam
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.kl_soap import scale_by_kl_soap


@recipe
def kl_soap(
    learning_rate: ScalarOrSchedule = 3e-3,
    b1: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    shampoo_beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: Mask = None,
    precondition_frequency: ScalarOrSchedule = 10,
    *,
    init_factor: ScalarOrSchedule = 0.1,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.95,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    decay_coupling: Coupling = "rate",
    stagger: bool = True,
    views: Views = None,
) -> Transform:
    """KL-SOAP: Adam in bases that are learned from whitened gradients, for matrices; AdamW for the rest.

        theta <- theta - eta (u + lambda theta), u as in `scale_by_kl_soap`

    The first gradient makes the bases, and moves no matrix. Which leaf goes where, and why,
    `gradtx.routing(tx, params)` prints; see `muon`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        shampoo_beta: decay of L and R, in [0, 1); and of their eigenvalues.
        eps: added to the denominator, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; of the matrices.
        mask: which leaves to decay, as `gradtx.masked` takes it; of the matrices, by default all.
        precondition_frequency: the number of updates from one basis to the next, >= 1.
        init_factor: the first eigenvalues, > 0.
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
        >>> gradtx.kl_soap(3e-3, weight_decay=0.1)
        kl_soap(weight_decay=0.1)

    References:
        Lin et al., Understanding and Improving Shampoo and SOAP via Kullback-Leibler Minimization, 2025,
        https://arxiv.org/abs/2509.03378.
    """
    direction = scale_by_kl_soap(
        b1,
        b2,
        shampoo_beta,
        eps,
        precondition_frequency,
        init_factor=init_factor,
        stagger=stagger,
        views=views,
    )
    return beside_adam(
        "kl_soap",
        descent("kl_soap", direction, learning_rate, weight_decay, mask, decay_coupling),
        scale_by_adam(adam_b1, adam_b2, adam_eps),
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_weight_decay,
        views,
    )
