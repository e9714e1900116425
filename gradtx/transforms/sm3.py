"""SM3's second moments, one vector for each axis of a leaf."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import divide_again, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Fraction, NonNegative, ScalarOrSchedule

Shape = tuple[int, ...]

MOST_AXES = 8
"""The most axes that a leaf may have."""


def _along(axis: int, rule: Any, shape: Shape) -> Shape | None:
    if len(shape) > MOST_AXES:
        raise ValueError(
            f"scale_by_sm3: a leaf may have {MOST_AXES} axes, got shape {shape}. Reshape it, or leave it to "
            f"another optimizer with gradtx.partition."
        )
    if not shape:
        return () if axis == 0 else None
    return (shape[axis],) if axis < len(shape) else None


class ScaleBySm3(Rule, name="scale_by_sm3"):
    """v = min over axes of their accumulators, and |g|²;  u = b1 u + (1 - b1) g / sqrt(v + eps)."""

    b1: Fraction
    b2: Fraction
    eps: NonNegative

    supports_complex = False

    nu = Slot()
    axis_0, axis_1, axis_2, axis_3, axis_4, axis_5, axis_6, axis_7 = (
        Slot(real=True, shape=functools.partial(_along, axis), nonnegative=True) for axis in range(MOST_AXES)
    )

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        names = [f"axis_{axis}" for axis in range(max(g.ndim, 1))]
        kept = [getattr(slots, name) for name in names]
        others = [tuple(a for a in range(g.ndim) if a != axis) for axis in range(len(names))]
        least = functools.reduce(
            jnp.minimum, [jnp.expand_dims(v, rest) for v, rest in zip(kept, others, strict=True)]
        )
        share = jnp.where(self.b2 == 1, jnp.ones_like(self.b2), 1 - self.b2)
        v = share * (g * g) + self.b2 * least
        u = self.b1 * slots.nu + (1 - self.b1) * divide_again(g, sqrt(v + self.eps))
        new = [jnp.max(v, axis=rest) for rest in others] if v.size else kept
        absent = {f"axis_{axis}": None for axis in range(len(names), MOST_AXES)}
        return u, {"nu": u, **dict(zip(names, new, strict=True)), **absent}


@builds(ScaleBySm3)
def scale_by_sm3(
    b1: ScalarOrSchedule = 0.9, b2: ScalarOrSchedule = 1.0, eps: ScalarOrSchedule = 1e-8
) -> Transform:
    """Rescales gradients by second moments of which each axis of a leaf keeps one vector.

    With a_i the accumulator of axis i, and max_i the maximum over all axes but i:

        v = b2 min_i a_i + (1 - b2) g²; for b2 = 1 the sum min_i a_i + g², as in the paper
        a_i = max_i v                              u = b1 u + (1 - b1) g / sqrt(v + eps)

    A leaf of shape (m, n) keeps m + n numbers beside the momentum; a vector or a scalar one for each element.

    Args:
        b1: the decay of the velocity, in [0, 1]; of the rescaled gradients.
        b2: decay of the second moment, in [0, 1]; at 1 it is a sum.
        eps: added inside the root, >= 0.

    Returns:
        A transform with the slot `nu`, the velocity, and `axis_0`, `axis_1` ... for the axes of a leaf.

    Raises:
        TypeError: at `init`, a complex leaf, for which it has no meaning.
        ValueError: at `init`, a leaf of more than 8 axes.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> state = gradtx.scale_by_sm3().init(jnp.zeros((4, 3)))
        >>> [x.shape for x in jax.tree.leaves(state["slots"])]
        [(4,), (3,), (4, 3)]

    References:
        Anil et al., Memory-Efficient Adaptive Optimization, 2019, https://arxiv.org/abs/1901.11150.
    """
    ...
