"""Muown's step: the direction of each output by Muon, its length by Adam."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.matrix_rule import MatrixSlot
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Now, Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norms_along
from gradtx.core.numerics import Decay, abs_sq, divide, sqrt
from gradtx.core.polar import STANDARD, Normalization
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, NonNegative, Rate, ScalarOrSchedule
from gradtx.transforms.orthogonalize import NsCoeffs, Scaled, Scaling

FIRST_GAIN = 0.33**0.5
"""The length that an output of zeros is taken to have, as in the record with this rule."""


def _of_outputs(rule: Any, rows: int, columns: int) -> tuple[int]:
    return (columns,)


class ScaleByMuown(Scaled, name="scale_by_muown"):
    """theta = gain v / |v| by outputs: v by Muon, gain by Adam;  u = theta' - theta."""

    learning_rate: Rate
    beta: Decay
    gain_b1: Decay
    gain_b2: Decay
    gain_eps: NonNegative
    weight_decay: NonNegative
    nesterov: bool
    views: Any

    needs = ("params",)
    sees_param = True

    mu = MatrixSlot(mean=True)
    gain, length = MatrixSlot(real=True, of=_of_outputs), MatrixSlot(real=True, of=_of_outputs)
    gain_mu = MatrixSlot(real=True, of=_of_outputs, mean=True)
    gain_nu = MatrixSlot(real=True, of=_of_outputs, mean=True, nonnegative=True)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"of_mu": 1 / self.gain_b1.correction(now.t), "of_nu": 1 / self.gain_b2.correction(now.t)}

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        if not x.size:
            return x, slots
        theta = stack.param
        begins = jnp.all(slots.length == 0, axis=-1, keepdims=True)
        size = _of_each(theta)
        size = jnp.where(size > 0, size, np.array(FIRST_GAIN, size.dtype))
        gain, length = (jnp.where(begins, size, old) for old in (slots.gain, slots.length))
        # A gain may have become negative.
        inverse = jnp.where(gain == 0, 0, 1 / jnp.where(gain == 0, 1, gain))
        unit = inverse[:, None] * theta
        along = jnp.sum(jnp.real(jnp.conj(unit) * x), axis=-2)
        across = divide(gain, length)[:, None] * (x - along[:, None] * unit)
        mu = self.beta.value * slots.mu + across
        u = self.polar(across + self.beta.value * mu if self.nesterov else mu)
        v = length[:, None] * unit - self.learning_rate * self.scaled(u)
        gain_mu = self.gain_b1.mix(slots.gain_mu, along)
        gain_nu = self.gain_b2.mix(slots.gain_nu, abs_sq(along))
        step = divide(stack.of_mu * gain_mu, sqrt(stack.of_nu * gain_nu) + self.gain_eps)
        gain, after = gain - self.learning_rate * step, _of_each(v)
        new = gain[:, None] * divide(v, after[:, None])
        new = new - self.learning_rate * self.weight_decay * theta
        kept = jnp.where(self.weight_decay > 0, _of_each(new), gain)
        return new - theta, {
            "mu": mu,
            "gain": kept,
            "length": jnp.where(after > 0, after, length),
            "gain_mu": gain_mu,
            "gain_nu": gain_nu,
        }


def _of_each(x: jax.Array) -> jax.Array:
    """The norm of each output."""
    return norms_along(x, (-2,))[:, 0]


@builds(ScaleByMuown)
def scale_by_muown(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: NsCoeffs = STANDARD,
    ns_steps: int = 5,
    beta: ScalarOrSchedule = 0.95,
    gain_b1: ScalarOrSchedule = 0.9,
    gain_b2: ScalarOrSchedule = 0.95,
    gain_eps: ScalarOrSchedule = 1e-8,
    eps: ScalarOrSchedule = 1e-7,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    nesterov: bool = True,
    preconditioning: Normalization = "frobenius",
    scaling: Scaling = "moonlight",
    consistent_rms: ScalarOrSchedule | None = None,
    gram: bool = False,
    matmul_dtype: DType | None = None,
    views: Views = None,
) -> Transform:
    """Makes a step that moves the direction of each output of a matrix by Muon, and its length by Adam.

    A column of theta, which is all that leads to one output, is a v / |v|, with a gain a:

        d_a = <g, theta / a>                    d_v = a / |v| (g - d_a theta / a)
        m = beta m + d_v                        v <- v - eta sigma pol(d_v + beta m), or of m without Nesterov
        a <- a - eta adam(d_a)                  theta <- a v / |v| - eta lambda theta

    with pol and sigma as in `orthogonalize`. Of v only the length is kept, since the rest is in theta. At
    first a and |v| are the norm of the column, or sqrt(0.33) for one of zeros; with a weight decay a is the
    new norm. It stands at the end, in the place of a learning rate and of weight decay.

    Args:
        learning_rate: the size of the steps, >= 0 or a schedule; eta above.
        ns_coeffs: the coefficients a, b and c of the steps; see `orthogonalize`.
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        beta: decay of the momentum, in [0, 1); m above, which is a sum.
        gain_b1: Adam's decay of the first moment, in [0, 1); of the gains.
        gain_b2: Adam's decay of the second moment, in [0, 1); of the gains.
        gain_eps: added to Adam's denominator, >= 0.
        eps: added to the norm, >= 0.
        weight_decay: lambda, the strength of the weight decay, >= 0.
        nesterov: use Nesterov momentum.
        preconditioning: the norm that a matrix is divided by at first; see `orthogonalize`.
        scaling: sigma by a name; see `orthogonalize`.
        consistent_rms: c of sigma = c sqrt(max(m, n)), >= 0; give scaling="none" with it.
        gram: take the steps on X alone; see `orthogonalize`.
        matmul_dtype: dtype of the products, such as `"bfloat16"`; by default that of the computation.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform with the slots `mu`, of each matrix, and `gain`, `length`, `gain_mu` and `gain_nu`, of
        each output; `update` needs the parameters.

    Raises:
        ValueError: another name; at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, w = gradtx.scale_by_muown(0.1), {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]])}
        >>> g = {"kernel": jnp.array([[-3.0, 1.0], [-4.0, 0.0]])}
        >>> new, _ = gradtx.apply_gradients(tx, g, tx.init(w), w)
        >>> [f"{x:.2f}" for x in jnp.linalg.norm(new["kernel"], axis=0)]
        ['5.10', '2.00']

    References:
        Muown, 2026, https://arxiv.org/abs/2605.10797; the rule is that of the authors' code,
        https://github.com/kcc-lion/muown.
    """
    ...
