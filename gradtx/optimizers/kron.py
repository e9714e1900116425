"""PSGD Kron for the matrices, AdamW for the rest."""

from __future__ import annotations

import math

from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.protocol import Seed
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.beside_adam import beside_adam
from gradtx.optimizers.descent import Coupling, descent
from gradtx.schedules.exponential import exponential_decay
from gradtx.transforms.adam import scale_by_adam
from gradtx.transforms.kron import MemorySaveMode, scale_by_kron

RARER = exponential_decay(1.0, 1, math.exp(-0.001), transition_begin=499, end_value=0.03)
"""The authors' probability: each of the first 500 updates, and down to 3 in 100 after 4,000."""


@recipe
def kron(
    learning_rate: ScalarOrSchedule = 0.001,
    b1: ScalarOrSchedule = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    preconditioner_update_probability: ScalarOrSchedule = RARER,
    preconditioner_lr: ScalarOrSchedule = 0.1,
    preconditioner_init_scale: ScalarOrSchedule = 1.0,
    *,
    max_size_triangular: int = 8192,
    memory_save_mode: MemorySaveMode | None = None,
    mu_dtype: DType | None = None,
    key: Seed = 0,
    stagger: bool = True,
    cached: bool = False,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.999,
    adam_eps: ScalarOrSchedule = 1e-8,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    decay_coupling: Coupling = "rate",
    views: Views = None,
) -> Transform:
    """PSGD Kron: momentum that two fitted factors whiten, for hidden matrices; AdamW for the rest.

        theta <- theta - eta (u + lambda theta), u as in `scale_by_kron`

    A rate of a third of Adam's is usual. Which leaf goes where, and why, `gradtx.routing(tx, params)` prints;
    see `muon`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        b1: decay of the average of the gradients, in [0, 1).
        weight_decay: lambda, the strength of the weight decay, >= 0; of the matrices.
        weight_decay_mask: which leaves to decay, as `gradtx.masked` takes it; of the matrices, by default
            all.
        preconditioner_update_probability: how often the factors move, in (0, 1]; or a schedule. By default
            the authors': at each of the first 500 updates, and then ever less, down to 3 of 100.
        preconditioner_lr: the rate of the factors, >= 0.
        preconditioner_init_scale: the size of P* P at the start times that of Q* Q, > 0.
        max_size_triangular: a side that is longer has a diagonal factor.
        memory_save_mode: `"one_diag"` for a diagonal factor of the longer side, `"all_diag"` for both.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        key: an int, a `jax.random.key`, or a key's raw data; for the noise.
        stagger: whether what costs much is computed matrix after matrix, so that no step has all of it; else
            for all at once, as the authors have it.
        cached: remember P* P and Q* Q beside P and Q: fewer products, and more memory.
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
        >>> gradtx.kron(3e-4, weight_decay=0.1)
        kron(0.0003, weight_decay=0.1)

    References:
        Li, Preconditioned Stochastic Gradient Descent, 2018, https://arxiv.org/abs/1512.04202; Pooladzandi
        and Li, Curvature-Informed SGD via General Purpose Lie-Group Preconditioners, 2024,
        https://arxiv.org/abs/2402.04553.
    """
    direction = scale_by_kron(
        b1,
        preconditioner_update_probability,
        preconditioner_lr,
        preconditioner_init_scale,
        max_size_triangular=max_size_triangular,
        memory_save_mode=memory_save_mode,
        mu_dtype=mu_dtype,
        key=key,
        stagger=stagger,
        cached=cached,
        views=views,
    )
    return beside_adam(
        "kron",
        descent("kron", direction, learning_rate, weight_decay, weight_decay_mask, decay_coupling),
        scale_by_adam(adam_b1, adam_b2, adam_eps, mu_dtype=mu_dtype),
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        adam_weight_decay,
        views,
    )
