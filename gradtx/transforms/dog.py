"""DoG: a rate made of the distance from the start and of the norms of gradients."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import WholeScalar
from gradtx.core.engine.scope import Leaf, Now, Scope, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import abs_sq, divide, real_dtype, sqrt
from gradtx.core.shards import cond
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule
from gradtx.core.spec.spec import show
from gradtx.transforms.from_start import FromTheStart, larger, only_if_finite

First = Literal["distance", "heuristic", "learning_rate"]


class ScaleByDog(FromTheStart, name="scale_by_dog"):
    """u = r / sqrt(G + eps) g,  r the largest distance from the start,  G the sum of all ||g||²."""

    init_step: str
    init_value: NonNegative
    eps: NonNegative

    max_dist, sum_sq_norm_grads = WholeScalar(), WholeScalar()

    def check(self) -> None:
        if self.init_step not in get_args(First):
            raise ValueError(
                f"{self.name}: the first step is given by 'distance', 'heuristic' or 'learning_rate', got "
                f"{show(self.init_step)}."
            )

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"is_first": now.step == 0}

    def measure(self, g: jax.Array, slots: Slots, leaf: Leaf) -> dict[str, jax.Array]:
        measured = super().measure(g, slots, leaf)
        if self.init_step != "heuristic":
            return measured
        # Nobody asks for it later, and to read the first parameters once more takes time.
        size = cond(leaf.is_first, _squares, _nothing, slots.params0)
        return {**measured, "start": size}

    def conclude(self, totals: Scope, now: Now) -> dict[str, jax.Array]:
        is_first = now.is_first
        start = jnp.zeros_like(now.max_dist) + self.init_value
        if self.init_step == "heuristic":
            start = start * (1 + sqrt(totals.start))
        known = (
            now.max_dist if self.init_step == "learning_rate" else jnp.where(is_first, start, now.max_dist)
        )
        max_dist = larger(sqrt(totals.way), known)
        grads = now.sum_sq_norm_grads + totals.squares
        rate = divide(max_dist, sqrt(grads + self.eps))
        if self.init_step == "learning_rate":
            rate = jnp.where(is_first, start, rate)
        kept = larger(grads, now.sum_sq_norm_grads)
        return {"max_dist": max_dist, "sum_sq_norm_grads": kept, "rate": only_if_finite(grads, rate)}


def _squares(x: jax.Array) -> jax.Array:
    return jnp.sum(abs_sq(x))


def _nothing(x: jax.Array) -> jax.Array:
    return jnp.zeros((), real_dtype(x.dtype))


@builds(ScaleByDog)
def scale_by_dog(
    init_step: First = "heuristic",
    init_value: ScalarOrSchedule = 1e-6,
    eps: ScalarOrSchedule = 1e-8,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Scales gradients by DoG's rate: the distance from the start over the root of all squared norms.

        r = max(r, ||theta - theta0||)        G = G + ||g||²        u = r / sqrt(G + eps) g

    The norms are over all leaves. The first r follows from the first step. A step with an Inf or NaN, or with
    gradients so large that G overflows, moves no other leaf and leaves G as it was.

    Args:
        init_step: what `init_value` is: `"distance"`, the first r; `"heuristic"`, the first r over
            1 + ||theta0||; `"learning_rate"`, the first rate.
        init_value: the number that `init_step` speaks of, >= 0.
        eps: added inside the root, >= 0.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        A transform with the slot `params0` and the scalars `max_dist` (r) and `sum_sq_norm_grads` (G);
        `update` needs the parameters.

    Raises:
        ValueError: another `init_step`.
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.scale_by_dog("distance", 0.1, eps=0.0), jnp.zeros(2)
        >>> tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0].round(6).tolist()
        [0.05999999865889549, 0.07999999821186066]

    References:
        Ivgi et al., DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule, 2023,
        https://arxiv.org/abs/2302.12022.
    """
    ...
