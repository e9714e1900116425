"""RMSProp's rescaling by a moving average of squares, plain and centered."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import Decay, abs_sq, divide_again, sqrt, usually
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


class ScaleByRms(Rule, name="scale_by_rms"):
    """v = decay v + (1 - decay) |g|²;  u = g / sqrt(v + eps), or g / (sqrt(v) + eps)."""

    decay: Decay
    eps: NonNegative
    initial_scale: NonNegative
    eps_in_sqrt: bool
    bias_correction: bool
    first_gradient: bool

    nu = Slot(real=True, init=lambda rule, param: rule.initial_scale, mean=True, nonnegative=True)

    def check(self) -> None:
        if self.first_gradient and self.bias_correction:
            raise ValueError(
                f"{self.name}: an average that starts at the first gradient has no bias; choose "
                f"first_gradient or bias_correction."
            )

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        complement = self.decay.complement
        if self.first_gradient:
            complement = jnp.where(now.step == 0, jnp.ones_like(complement), complement)
        scale = 1 / self.decay.correction(now.t) if self.bias_correction else jnp.ones_like(now.t)
        return {"complement": complement, "scale": scale}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        nu = Decay(leaf.complement).mix(slots.nu, abs_sq(g))
        return divide_again(g, self._root(leaf.scale * nu)), {"nu": nu}

    def _root(self, variance: jax.Array) -> jax.Array:
        return sqrt(variance + self.eps) if self.eps_in_sqrt else sqrt(variance) + self.eps


class ScaleByStddev(ScaleByRms, name="scale_by_stddev"):
    """m = decay m + (1 - decay) g;  v as in RMSProp;  u = g / sqrt(v - |m|² + eps)."""

    mu = Slot(mean=True)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        decay = Decay(leaf.complement)
        mu, nu = decay.mix(slots.mu, g), decay.mix(slots.nu, abs_sq(g))
        squares = leaf.scale * nu
        # The square of an average may overflow with the average of squares, whose difference would be NaN.
        variance = jnp.where(usually(jnp.isfinite(squares)), squares - abs_sq(leaf.scale * mu), squares)
        return divide_again(g, self._root(jnp.maximum(variance, 0.0))), {"mu": mu, "nu": nu}


@builds(ScaleByRms)
def scale_by_rms(
    decay: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-8,
    initial_scale: ScalarOrSchedule = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    *,
    first_gradient: bool = False,
) -> Transform:
    """Rescales gradients by the root of a moving average of their squares.

        v = decay v + (1 - decay) |g|²
        u = g / sqrt(v + eps), or g / (sqrt(v) + eps) with eps_in_sqrt=False

    Args:
        decay: decay of the average, in [0, 1).
        eps: added to the denominator, >= 0; inside the root unless `eps_in_sqrt` is False.
        initial_scale: the average of squares before the first step, >= 0; it is used by `init` only.
        eps_in_sqrt: whether eps is inside the root; PyTorch has it outside.
        bias_correction: correct averages for their start at zero; divide v by 1 - decay^t.
        first_gradient: start averages at the first gradient; the first v is |g0|², so that nothing is left of
            another start.

    Returns:
        A transform with the slot `nu`.

    Raises:
        ValueError: both `bias_correction` and `first_gradient`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_rms(first_gradient=True)
        >>> round(float(tx.update(jnp.float32(-2.0), tx.init(jnp.float32(0.0)))[0]), 5)
        -1.0

    References:
        Tieleman and Hinton, Lecture 6.5: RMSProp, 2012.
    """
    ...


@builds(ScaleByStddev)
def scale_by_stddev(
    decay: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-8,
    initial_scale: ScalarOrSchedule = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    *,
    first_gradient: bool = False,
) -> Transform:
    """Rescales gradients by a moving estimate of their standard deviation (centered RMSProp).

        m = decay m + (1 - decay) g        v = decay v + (1 - decay) |g|²
        u = g / sqrt(v - |m|² + eps), or g / (sqrt(v - |m|²) + eps) with eps_in_sqrt=False

    A variance that rounding makes negative counts as 0.

    Args:
        decay: decay of the average, in [0, 1); m and v have the same.
        eps: added to the denominator, >= 0; inside the root unless `eps_in_sqrt` is False.
        initial_scale: the average of squares before the first step, >= 0; it is used by `init` only.
        eps_in_sqrt: whether eps is inside the root; PyTorch has it outside.
        bias_correction: correct averages for their start at zero; divide m and v by 1 - decay^t.
        first_gradient: start averages at the first gradient; the first m and v are g0 and |g0|².

    Returns:
        A transform with the slots `mu` and `nu`.

    Raises:
        ValueError: both `bias_correction` and `first_gradient`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.scale_by_stddev(decay=0.5, eps=0.0)
        >>> round(float(tx.update(jnp.float32(-2.0), tx.init(jnp.float32(0.0)))[0]), 5)
        -2.0

    References:
        Graves, Generating Sequences With Recurrent Neural Networks, 2013, https://arxiv.org/abs/1308.0850.
    """
    ...
