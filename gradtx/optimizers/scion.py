"""Scion: each kind of layer steps to the edge of a ball of its own norm."""

from __future__ import annotations

from gradtx.core.compose.combine import chain
from gradtx.core.compose.recipe import recipe
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.transform import Transform
from gradtx.core.polar import STANDARD
from gradtx.core.spec.fields import DType, ScalarOrSchedule
from gradtx.optimizers.descent import Coupling, descent
from gradtx.transforms.average import ema
from gradtx.transforms.block_rms import normalize_by_block_rms
from gradtx.transforms.elementary import sign
from gradtx.transforms.matrix_size import scale_by_matrix_size
from gradtx.transforms.orthogonalize import NsCoeffs, orthogonalize
from gradtx.transforms.scale import scale
from gradtx.wrappers.groups import partition
from gradtx.wrappers.routes import EMBEDDINGS, HEADS, MATRICES, REST, Routes


@recipe
def scion(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    radius: ScalarOrSchedule = 50.0,
    head_radius: ScalarOrSchedule = 3000.0,
    embedding_radius: ScalarOrSchedule = 1.0,
    rest_radius: ScalarOrSchedule = 1.0,
    weight_decay: ScalarOrSchedule = 1.0,
    mask: Mask = None,
    *,
    ns_coeffs: NsCoeffs = STANDARD,
    ns_steps: int = 5,
    eps: ScalarOrSchedule = 1e-7,
    rest_eps: ScalarOrSchedule = 1e-8,
    mu_dtype: DType | None = None,
    matmul_dtype: DType | None = None,
    decay_coupling: Coupling = "rate",
    views: Views = None,
) -> Transform:
    """Scion: steps to the point of a ball that is farthest along the momentum, by the norm of each layer.

        theta <- theta - eta (rho u + lambda theta)        M = b1 M + (1 - b1) g
        u = sqrt(n / m) pol(M)    hidden matrices of m inputs and n outputs; rho = radius
        u = sign(M) / m           heads; rho = head_radius
        u = sign(M)               embeddings; rho = embedding_radius
        u = M / rms(M)            vectors and numbers; rho = rest_radius

    With lambda = 1, as in the paper, the parameters stay in balls of radius rho; 0 is its unconstrained form.
    M is not corrected for its start, which has no part in u; the authors say 1 - b1 for `momentum`. A table
    that is embedding and head in one has a radius of 3000 over its width. Which leaf goes where, and why,
    `gradtx.routing(tx, params)` prints; see `muon`.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above. 2^-12 is usual.
        b1: decay of the average of the gradients, in [0, 1).
        radius: rho of the hidden matrices, the radius in the spectral norm over sqrt(n / m).
        head_radius: rho of the heads, the largest row sum.
        embedding_radius: rho of the embeddings, the largest element.
        rest_radius: rho of the rest, the root mean square.
        weight_decay: lambda, the strength of the weight decay, >= 0.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        eps: added to the norm, >= 0; of the hidden matrices.
        rest_eps: added to the root mean square of the rest, >= 0.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        matmul_dtype: dtype of the products, such as `"bfloat16"`; by default that of the computation.
        decay_coupling: where the decay enters: `"gradient"`, `"rate"`, `"cautious"`, `"schedule"` or
            `"none"`; see `docs/conventions.md`.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`. None for a leaf sends it to the rest.

    Returns:
        An optimizer with the groups `matrices`, `heads`, `embeddings` and `rest`; `update` needs the
        parameters.

    Raises:
        ValueError: another name; at init, a leaf of which it is not clear what it is.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> params = {"embed": jnp.ones((9, 4)), "dense": jnp.ones((4, 8)), "lm_head": jnp.ones((4, 9))}
        >>> gradtx.routing(gradtx.scion(2**-12), params)
        leaf     shape   view  optimizer  why
        dense    (4, 8)  rc    scion      inputs and outputs
        embed    (9, 4)  rc    sign       named 'embed'
        lm_head  (4, 9)  rc    sign       named 'lm_head'

    References:
        Pethick et al., Training Deep Learning Models with Norm-Constrained LMOs, 2025,
        https://arxiv.org/abs/2502.07529.
    """

    def steps(rho: ScalarOrSchedule, *norm: Transform) -> Transform:
        direction = chain(ema(b1, debias=False, accumulator_dtype=mu_dtype), *norm, scale(rho))
        return descent("scion", direction, learning_rate, weight_decay, mask, decay_coupling)

    polar = orthogonalize(ns_coeffs, ns_steps, eps, scaling="dion", matmul_dtype=matmul_dtype, views=views)
    return partition(
        {
            MATRICES: steps(radius, polar),
            HEADS: steps(head_radius, sign(), scale_by_matrix_size("fan_in", views=views)),
            EMBEDDINGS: steps(embedding_radius, sign()),
            REST: steps(rest_radius, normalize_by_block_rms(rest_eps)),
        },
        Routes("scion", views, names={REST: "rms", HEADS: "sign", EMBEDDINGS: "sign"}),
    )
