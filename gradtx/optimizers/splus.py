"""SPlus for the matrices, the sign of the momentum for the rest."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.average import ema
from gradtx.transforms.elementary import sign
from gradtx.transforms.matrix_size import scale_by_matrix_size
from gradtx.transforms.scale import scale
from gradtx.transforms.splus import scale_by_splus
from gradtx.wrappers.groups import partition
from gradtx.wrappers.routes import MATRICES, REST, Routes


@recipe
def splus(
    learning_rate: ScalarOrSchedule = 0.1,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-30,
    weight_decay: ScalarOrSchedule = 1e-2,
    mask: Mask = None,
    inverse_every: ScalarOrSchedule = 100,
    max_precond_dim: int = 10_000,
    *,
    nonstandard_constant: ScalarOrSchedule = 0.001,
    decay_coupling: Coupling = "rate",
    stagger: bool = True,
    views: Views = None,
) -> Transform:
    """SPlus: the sign of the momentum in Shampoo's eigenbases for matrices, and as it is for the rest.

        theta <- theta - eta 2 / (m + n) (u + lambda theta)     for a matrix of m inputs and n outputs
        theta <- theta - eta c (sign(m) + lambda theta)         for the rest, c = nonstandard_constant

    with u as in `scale_by_splus` and m the momentum; 2 / (m + n) and c multiply a decay of any coupling. Its
    authors evaluate an average of the parameters:
    `gradtx.ema_params(gradtx.splus(0.1), 0.999)`, and `gradtx.eval_params(state)`. Which leaf goes where, and
    why, `gradtx.routing(tx, params)` prints; see `muon`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above. 0.1 to 0.2 is usual.
        b1: decay of the average of the gradients, in [0, 1).
        b2: decay of L and R, in [0, 1).
        eps: added to the diagonals of L and R, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        inverse_every: the number of updates from one basis to the next, >= 1.
        max_precond_dim: a side that is longer has no basis.
        nonstandard_constant: c above, >= 0.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.
        stagger: whether what costs much is computed matrix after matrix, so that no step has all of it; else
            for all at once, as the authors have it.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`. None for a leaf sends it to the rest.

    Returns:
        An optimizer with the groups `matrices` and `rest`; `update` needs the parameters.

    Raises:
        ValueError: at init, a leaf of which it is not clear what it is.

    Examples:
        >>> import gradtx
        >>> gradtx.splus(0.2)
        splus(0.2)

    References:
        Frans et al., A Stable Whitening Optimizer for Efficient Neural Network Training, 2025,
        https://arxiv.org/abs/2506.07254.
    """
    direction = scale_by_splus(b1, b2, eps, inverse_every, max_precond_dim, stagger=stagger, views=views)
    of_matrices = descent("splus", direction, learning_rate, weight_decay, mask, decay_coupling)
    of_rest = descent(
        "splus", chain(ema(b1, debias=False), sign()), learning_rate, weight_decay, mask, decay_coupling
    )
    return partition(
        {
            MATRICES: chain(of_matrices, scale_by_matrix_size("mean_side", views=views)),
            REST: chain(of_rest, scale(nonstandard_constant)),
        },
        Routes("splus", views, names={REST: "sign"}),
    )
