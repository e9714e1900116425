"""Shampoo for the matrices, AdamW for the rest."""

from __future__ import annotations

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.transform import Transform
from gradtx.core.roots import RootMethod
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.beside_adam import beside_adam
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.shampoo import Grafting, scale_by_shampoo


@recipe
def shampoo(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule | None = 0.999,
    eps: ScalarOrSchedule = 1e-12,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    precondition_frequency: ScalarOrSchedule = 10,
    start_preconditioning_step: ScalarOrSchedule | None = None,
    *,
    block_size: int = 1024,
    grafting: Grafting | None = "adam",
    graft_beta: ScalarOrSchedule = 0.999,
    graft_eps: ScalarOrSchedule = 1e-8,
    exponent: float = 0.25,
    root: RootMethod = "eigen",
    bias_correction: bool = True,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.999,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    decay_coupling: Coupling = "rate",
    stagger: bool = True,
    views: Views = None,
) -> Transform:
    """Shampoo: momentum between roots of second moments, for hidden matrices; AdamW for the rest.

        theta <- theta - eta (u + lambda theta), u as in `scale_by_shampoo`

    With Adam grafted, as it is by default, the rate is Adam's own. Which leaf goes where, and why,
    `gradtx.routing(tx, params)` prints; see `muon`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        b1: decay of the average of the gradients, in [0, 1).
        b2: decay of L and R, in [0, 1); None for their sums.
        eps: added to the diagonals of L and R, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0; of the matrices.
        mask: which leaves to decay, as `gradtx.masked` takes it; of the matrices, by default all.
        precondition_frequency: the number of updates from one root to the next, >= 1.
        start_preconditioning_step: the first update with roots; by default `precondition_frequency`.
        block_size: the longest side of a block that a matrix is cut into.
        grafting: the method whose size an update has; `"adagrad"`, `"rmsprop"`, `"adam"`, `"sgd"` or None;
            see `scale_by_shampoo`.
        graft_beta: decay of that method's average of squares, in [0, 1).
        graft_eps: added to its root, >= 0.
        exponent: the exponent of the roots, > 0.
        root: how a root is computed: from eigenvalues, or `"newton"`, by products alone.
        bias_correction: correct averages for their start at zero; those of Shampoo itself.
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
        ValueError: another name; at init, a leaf of which it is not clear what it is.

    Examples:
        >>> import gradtx
        >>> gradtx.shampoo(1e-3, weight_decay=0.1)
        shampoo(0.001, weight_decay=0.1)

    References:
        Gupta et al., Shampoo: Preconditioned Stochastic Tensor Optimization, 2018,
        https://arxiv.org/abs/1802.09568; Shi et al., A Distributed Data-Parallel PyTorch Implementation of
        the Distributed Shampoo Optimizer, 2023, https://arxiv.org/abs/2309.06497.
    """
    direction = scale_by_shampoo(
        b1,
        b2,
        eps,
        precondition_frequency,
        start_preconditioning_step,
        block_size=block_size,
        grafting=grafting,
        graft_beta=graft_beta,
        graft_eps=graft_eps,
        exponent=exponent,
        root=root,
        bias_correction=bias_correction,
        stagger=stagger,
        views=views,
    )
    return beside_adam(
        "shampoo",
        descent("shampoo", direction, learning_rate, weight_decay, mask, decay_coupling),
        scale_by_adam(adam_b1, adam_b2, adam_eps),
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_weight_decay,
        views,
    )
