"""Adam-mini: Adam with one second moment for a block of a leaf."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine import leaves as lv
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, NonNegative, ScalarOrSchedule
from gradtx.core.spec.spec import show

Blocks = Mapping[str, int | tuple[int, ...] | None]


def _usual_axes(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of tokens, heads or outputs, as Flax names and shapes its layers."""
    layer, _, name = path.rpartition("/")
    if name == "embedding":
        return (0,)
    if name == "kernel" and len(shape) == 3:
        layer = layer.rpartition("/")[2]
        return (1,) if layer in ("query", "key") else (1, 2) if layer == "value" else (2,)
    return (len(shape) - 1,)


class ScaleByAdamMini(Rule, name="scale_by_adam_mini"):
    """m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) mean(|g|²), over a block;  u = m^ / (sqrt(v^) + eps)."""

    b1: Decay
    b2: Decay
    eps: NonNegative
    blocks: Any
    mu_dtype: DTypeName

    def _shape(self, shape: tuple[int, ...], path: str) -> tuple[int, ...]:
        """The shape of the leaf with size 1 along the axes that a block has whole."""
        if not shape:
            return ()
        axes = _usual_axes(path, shape) if self.blocks is None else self._given_axes(path)
        for a in axes:
            if not -len(shape) <= a < len(shape):
                raise ValueError(
                    f"{self.name}: the leaf {path!r} of shape {tuple(shape)} has no axis {a}, which blocks "
                    f"gives it."
                )
        kept = {a % len(shape) for a in axes}
        return tuple(n if a in kept else 1 for a, n in enumerate(shape))

    def _given_axes(self, path: str) -> tuple[int, ...]:
        found = (axes for pattern, axes in self.blocks.items() if lv.matches((pattern,), path))
        axes = next(found, None)
        return () if axes is None else (axes,) if isinstance(axes, int) else axes

    mu = Slot(dtype="mu_dtype", mean=True)
    nu = Slot(real=True, shape=_shape, mean=True, nonnegative=True)

    def check(self) -> None:
        if self.blocks is None:
            return
        if not isinstance(self.blocks, Mapping) or not all(map(_is_pair, self.blocks.items())):
            raise TypeError(
                f"{self.name}: blocks maps path patterns to axes, each an int, a tuple of ints or None, as "
                f"in {{'*embedding': 0, '*': -1}}; got {show(self.blocks)}."
            )

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"of_mu": 1 / self.b1.correction(now.t), "of_nu": 1 / self.b2.correction(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu = self.b1.mix(slots.mu, g)
        axes = tuple(a for a, (n, m) in enumerate(zip(g.shape, slots.nu.shape, strict=True)) if n != m)
        # A block may have no elements at all.
        size = max(math.prod(g.shape[a] for a in axes), 1)
        nu = self.b2.mix(slots.nu, jnp.sum(abs_sq(g), axis=axes, keepdims=True) / size)
        return divide(leaf.of_mu * mu, sqrt(leaf.of_nu * nu) + self.eps), {"mu": mu, "nu": nu}


def _is_pair(item: tuple[Any, Any]) -> bool:
    pattern, axes = item
    axes = axes if isinstance(axes, tuple) else (axes,)
    return isinstance(pattern, str) and all(a is None or isinstance(a, int) for a in axes)


@builds(ScaleByAdamMini)
def scale_by_adam_mini(
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    blocks: Blocks | None = None,
    mu_dtype: DType | None = None,
) -> Transform:
    """Rescales gradients as Adam does, by one second moment for each block of a leaf.

        m = b1 m + (1 - b1) g           v = b2 v + (1 - b2) mean(|g|²), over the block
        u = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

    The parameters of one token, of one attention head or of one output are a block, and
    v has one number for each.

    Args:
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the denominator, >= 0.
        blocks: path patterns, and for each the axes along which the blocks of a leaf lie one beside the
            other: an int, a tuple of ints, or None, which makes the whole leaf one block. The first that
            matches counts, and a leaf that none matches is one block. By default, with Flax's names and
            shapes: axis 0 of an `embedding`, the tokens; of kernels of three axes axis 1 of `query` and
            `key`, the heads, and 1 and 2 of `value`; and of all others the last axis, the outputs, so that
            each element of a bias is a block.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.

    Returns:
        A transform with the slots `mu` and `nu`, the latter of size 1 along the other axes.

    Raises:
        TypeError: `blocks` is no mapping from patterns to axes.
        ValueError: at init, a leaf has no such axis.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.scale_by_adam_mini(), {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}
        >>> {name: x.shape for name, x in tx.init(params)["slots"]["scale_by_adam_mini"]["nu"].items()}
        {'bias': (3,), 'kernel': (1, 3)}

    References:
        Zhang et al., Adam-mini: Use Fewer Learning Rates To Gain More, 2024, https://arxiv.org/abs/2406.16793.
    """
    ...
