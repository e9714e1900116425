"""Lion's sign of an interpolated momentum."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, sign
from gradtx.core.spec.arguments import factory
from gradtx.core.spec.fields import DType, DTypeName, Positive, ScalarOrSchedule
from gradtx.core.spec.spec import call_arguments, show

Mode = Literal["hard", "smooth", "refined"]


class ScaleByLion(Rule, name="scale_by_lion"):
    """u = sign(b1 m + (1 - b1) g), or a smoother function;  m = b2 m + (1 - b2) g."""

    b1: Decay
    b2: Decay
    mu_dtype: DTypeName
    mode: Mode
    smooth_beta: Positive | None

    mu = Slot(dtype="mu_dtype", mean=True)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        values = {k: v for k, v in self._values().items() if v is not None or k != "smooth_beta"}
        return call_arguments(self.name, values)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        x = self.b1.mix(slots.mu, g)
        u = sign(x)
        if self.smooth_beta is not None:
            u = u * jnp.tanh(self.smooth_beta * abs(x))
        elif self.mode == "refined":
            u = jnp.where(abs(x) < 1, x, u)
        return u, {"mu": self.b2.mix(slots.mu, g)}


@factory
def scale_by_lion(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    mu_dtype: DType | None = None,
    *,
    mode: Mode = "hard",
    smooth_beta: ScalarOrSchedule = 1.0,
) -> Transform:
    """The sign of a mix of momentum and gradient.

        u = sign(x),  x = b1 m + (1 - b1) g            m = b2 m + (1 - b2) g

    Args:
        b1: the share of the momentum in the step, in [0, 1); the rest is the gradient's.
        b2: decay of the momentum, in [0, 1).
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        mode: `"hard"` for the sign, `"smooth"` for tanh(smooth_beta x), `"refined"` for x where |x| < 1 and
            the sign elsewhere.
        smooth_beta: how steep `"smooth"` is at 0, > 0; the other modes have no use for it.

    Returns:
        A transform with the slot `mu`; for complex leaves the sign is z / |z|, and the function that of |z|.

    Raises:
        ValueError: an unknown `mode`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_lion()
        >>> tx.update(jnp.array([0.1, -5.0]), tx.init(jnp.zeros(2)))[0].tolist()
        [1.0, -1.0]

    References:
        Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, https://arxiv.org/abs/2302.06675.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"scale_by_lion: mode must be 'hard', 'smooth' or 'refined', got {show(mode)}.")
    steepness = smooth_beta if mode == "smooth" else None
    return ScaleByLion(b1=b1, b2=b2, mu_dtype=mu_dtype, mode=mode, smooth_beta=steepness)
