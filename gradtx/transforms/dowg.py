"""DoWG: a rate in which each squared norm is weighted by the distance so far."""

from __future__ import annotations

import jax

from gradtx.core.compose.rule import WholeScalar
from gradtx.core.engine.scope import Now, Scope
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import divide, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Positive, ScalarOrSchedule
from gradtx.transforms.from_start import FromTheStart, larger, only_if_finite


class ScaleByDowg(FromTheStart, name="scale_by_dowg"):
    """u = D / (sqrt(V) + eps) g,  D the largest squared distance so far,  V the sum of all D ||g||²."""

    init_estim_sq_dist: Positive | None
    eps: Positive

    estim_sq_dist = WholeScalar(
        init=lambda rule: rule.eps if rule.init_estim_sq_dist is None else rule.init_estim_sq_dist
    )
    weighted_sq_norm_grads = WholeScalar()

    def conclude(self, totals: Scope, now: Now) -> dict[str, jax.Array]:
        known = now.weighted_sq_norm_grads
        way = larger(totals.way, now.estim_sq_dist)
        grads = known + way * totals.squares
        rate = only_if_finite(grads, divide(way, sqrt(grads) + self.eps))
        return {"estim_sq_dist": way, "weighted_sq_norm_grads": larger(grads, known), "rate": rate}


@builds(ScaleByDowg)
def scale_by_dowg(
    init_estim_sq_dist: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-4,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Scales gradients by DoWG's rate, in which each squared norm is weighted by the distance so far.

        D = max(D, ||theta - theta0||²)        V = V + D ||g||²        u = D / (sqrt(V) + eps) g

    The norms are over all leaves. A step with an Inf or NaN, or with gradients so large that V overflows,
    moves no other leaf and leaves V as it was.

    Args:
        init_estim_sq_dist: the first squared distance, > 0; D above, `eps` by default.
        eps: added to the root, > 0.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform with the slot `params0` and the scalars `estim_sq_dist` (D) and `weighted_sq_norm_grads`
        (V); `update` needs the parameters.

    Raises:
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.scale_by_dowg(0.01, eps=1e-12), jnp.zeros(2)
        >>> tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0].round(6).tolist()
        [0.05999999865889549, 0.07999999821186066]

    References:
        Khaled et al., DoWG Unleashed: An Efficient Universal Parameter-Free Gradient Descent Method, 2023,
        https://arxiv.org/abs/2305.16284.
    """
    ...
