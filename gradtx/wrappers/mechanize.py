"""Mechanic: how far to follow the path of an optimizer, learned on the way."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.rule import Slot, Whole
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine.protocol import AnyTransform
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.wrapped_update import Leaves, WrappedUpdate
from gradtx.core.norms import norm
from gradtx.core.numerics import cast, divide, inner_product, number_dtype, real_dtype, sqrt, total
from gradtx.core.shards import over_shards
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, Positive, ScalarOrSchedule
from gradtx.core.spec.spec import show


def _tuners() -> Whole:
    return Whole(lambda rule, params: jnp.zeros(rule.num_betas, number_dtype()))


class Mechanize(Wrapper, name="mechanize"):
    """Delta += base(g);  theta = theta0 + S Delta,  S grown as long as it would have paid."""

    base_optimizer: Any
    weight_decay: NonNegative
    eps: NonNegative
    s_init: Positive
    num_betas: int
    axis_name: str | tuple[str, ...] | None

    in_place = False
    needs = ("params",)

    x0, delta = Slot(init=lambda rule, param: param), Slot()
    r, m, v, s = (_tuners() for _ in range(4))

    def check(self) -> None:
        if not isinstance(self.num_betas, int) or self.num_betas < 1:
            raise ValueError(f"{self.name}: num_betas must be an int >= 1, got {show(self.num_betas)}.")

    def wrapped(self) -> dict[str, Any]:
        return {"inner": self.base_optimizer}

    def run(self, gs: Leaves, slots: Slots, call: WrappedUpdate) -> tuple[Leaves, dict[str, Any]]:
        assert call.params is not None
        params = [cast(p, x.dtype) for p, x in zip(call.params, slots.x0, strict=True)]
        # Parameters may be loaded between init and the first update.
        starts = [jnp.where(call.step == 0, p, x) for p, x in zip(params, slots.x0, strict=True)]
        moves, inner = call.run(self.base_optimizer, gs, slots.inner)
        s = jnp.where(call.step == 0, self.s_init, slots.s)
        sizes = [cast(norm(x, axis_name=self.axis_name), number_dtype()) for x in (gs, params)]
        pull = divide(self.weight_decay * s.sum() * sizes[0], sizes[1] + self.eps)
        slope = self._along(slots.delta, gs) + pull * self._along(slots.delta, params)
        kept = self._tuned(slope, slots, s)
        delta = [d + cast(u, d.dtype) for d, u in zip(slots.delta, moves, strict=True)]
        far = kept["s"].sum()
        result = [
            (x - p) + cast(far, real_dtype(d.dtype)) * d
            for x, p, d in zip(starts, params, delta, strict=True)
        ]
        return result, {"x0": starts, "delta": delta, **kept, "inner": inner}

    def _along(self, delta: Leaves, xs: Leaves) -> jax.Array:
        """The inner product with a path; a leaf that is not finite has no part in it."""
        parts = [
            over_shards(inner_product(d, cast(x, d.dtype)), self.axis_name, d, x)
            for d, x in zip(delta, xs, strict=True)
        ]
        return cast(total([jnp.where(jnp.isfinite(x), x, 0) for x in parts]), number_dtype())

    def _tuned(self, h: jax.Array, slots: Slots, s: jax.Array) -> dict[str, jax.Array]:
        """What each tuner knows after a step whose slope along the path is `h`."""
        c = 10.0 ** -np.arange(1, self.num_betas + 1, dtype=number_dtype())
        r = slots.r - c * slots.r - s * jnp.clip(h, -slots.m, slots.m)
        m = jnp.maximum(slots.m - c * slots.m, jnp.abs(h) + self.eps)
        v = slots.v - c * (2 - c) * slots.v + h * h
        new = divide(self.s_init / self.num_betas * m + jnp.maximum(r, 0), sqrt(v) + self.eps)
        # A slope whose square is out of range says nothing of how far to go.
        sound = jnp.isfinite(h * h)
        found, old = {"r": r, "m": m, "v": v, "s": new}, {**vars(slots), "s": s}
        return {name: jnp.where(sound, x, old[name]) for name, x in found.items()}


@builds(Mechanize)
def mechanize(
    base_optimizer: AnyTransform,
    weight_decay: ScalarOrSchedule = 1e-2,
    eps: ScalarOrSchedule = 1e-8,
    s_init: ScalarOrSchedule = 1e-6,
    num_betas: int = 6,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> Transform:
    """Mechanic: learns the factor of a learning rate, for an optimizer whose rate is only a schedule's shape.

    With u the update of the optimizer from the gradient g, b_i = 1 - 10^-i for i = 1 ... num_betas, and S the
    sum of all s_i, of which each is tuned by itself:

        h     = <Delta, g + weight_decay S ||g|| theta / (||theta|| + eps)>      Delta <- Delta + u
        r     = b r - s clip(h, -m, m)           m = max(b m, |h| + eps)         v = b² v + h²
        s     = (s_init m / num_betas + max(r, 0)) / (sqrt(v) + eps)             theta <- theta0 + S Delta

    Args:
        base_optimizer: the optimizer, of any library; its learning rate is 1 times a schedule.
        weight_decay: the strength of the regularization, >= 0.
        eps: added to the denominator, >= 0; here to each.
        s_init: the first s, > 0.
        num_betas: the number of tuners, >= 1.
        axis_name: inside `jax.shard_map`, the axes over which the leaves are shards of one tree. Where the
            leaves vary over a manual axis it is required: without it each shard would be measured by itself.

    Returns:
        An optimizer whose `update` needs the parameters, with the slots `x0`, the first parameters, and
        `delta`; the state has `r`, `m`, `v` and `s`, each a vector of the tuners.

    Raises:
        ValueError: `num_betas` is no int >= 1; while tracing, the leaves are shards inside `shard_map`.
        ValueError: while tracing, leaves vary over a manual axis and `axis_name` does not name it.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> tx, theta = gradtx.mechanize(gradtx.sgd(1.0)), jnp.array([1.0])
        >>> state = tx.init(theta)
        >>> step = jax.jit(lambda theta, state: gradtx.apply_gradients(tx, 2 * theta, state, theta))
        >>> for _ in range(100):
        ...     theta, state = step(theta, state)
        >>> bool(abs(theta[0]) < 0.1)
        True

    References:
        Cutkosky, Defazio and Mehta, Mechanic: A Learning Rate Tuner, 2023, https://arxiv.org/abs/2306.00144.
    """
    ...
