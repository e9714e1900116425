"""Updates whose singular values are about 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.core.compose.matrix_rule import MatrixRule
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.scope import Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import cast, like
from gradtx.core.polar import STANDARD, Normalization, coefficients_of, polar
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import DType, DTypeName, NonNegative, ScalarOrSchedule
from gradtx.core.spec.spec import show

NsCoeffs = str | Sequence[Any]
"""The name of a set, one triple for all steps, or one for each."""

Scaling = Literal["none", "jordan", "moonlight", "dion"]


class Orthogonalizing(MatrixRule):
    """What rules that orthogonalize have in common."""

    ns_coeffs: Any
    ns_steps: int
    eps: NonNegative
    preconditioning: str
    gram: bool
    matmul_dtype: DTypeName

    def check(self) -> None:
        self._check_word("preconditioning", get_args(Normalization))
        coefficients_of(self.name, self.ns_coeffs, self.ns_steps)

    def _check_word(self, key: str, known: tuple[str, ...]) -> None:
        if getattr(self, key) not in known:
            listed, given = ", ".join(map(repr, known)), show(getattr(self, key))
            raise ValueError(f"{self.name}: {key} must be one of {listed}, got {given}.")

    def polar(self, x: jax.Array) -> jax.Array:
        """The polar factor of each matrix, about."""
        coefficients, margin = coefficients_of(self.name, self.ns_coeffs, self.ns_steps)
        given = x if self.matmul_dtype is None else cast(x, like(x.dtype, jnp.dtype(self.matmul_dtype)))
        result = polar(
            given,
            self.eps.astype(given.real.dtype),
            coefficients=coefficients,
            margin=margin,
            normalization=self.preconditioning,  # pyright: ignore[reportArgumentType]
            gram=self.gram,
        )
        return cast(result, x.dtype)


class Scaled(Orthogonalizing):
    """What those have in common of which an update has a size by its shape."""

    scaling: str
    consistent_rms: NonNegative | None

    def check(self) -> None:
        super().check()
        self._check_word("scaling", get_args(Scaling))
        if self.consistent_rms is not None and self.scaling != "none":
            raise ValueError(
                f"{self.name}: consistent_rms is a scaling of its own; give scaling='none' with it."
            )

    def scaled(self, u: jax.Array) -> jax.Array:
        """Updates of the size that belongs to their shape."""
        rows, columns = u.shape[-2:]
        if self.consistent_rms is not None:
            return self.consistent_rms * math.sqrt(max(rows, columns)) * u
        scale = {
            "none": 1.0,
            "jordan": math.sqrt(max(1.0, columns / max(rows, 1))),
            "moonlight": 0.2 * math.sqrt(max(rows, columns)),
            "dion": math.sqrt(columns / max(rows, 1)),
        }[self.scaling]
        return u if scale == 1.0 else scale * u


class Orthogonalize(Scaled, name="orthogonalize"):
    """u = sigma pol(g)."""

    views: Any

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        return self.scaled(self.polar(x)), slots


@builds(Orthogonalize)
def orthogonalize(
    ns_coeffs: NsCoeffs = STANDARD,
    ns_steps: int = 5,
    eps: ScalarOrSchedule = 1e-8,
    *,
    preconditioning: Normalization = "frobenius",
    scaling: Scaling = "none",
    consistent_rms: ScalarOrSchedule | None = None,
    gram: bool = False,
    matmul_dtype: DType | None = None,
    views: Views = None,
) -> Transform:
    """Replaces the update of each matrix by its polar factor: all singular values become about 1.

        u = sigma pol(g),  pol(U S V*) = U V*, about        by steps x <- a x + (b X + c X²) x,  X = x x*

    The steps begin with g over its norm. A matrix of zeros stays zero. All matrices of one size are solved as
    one stack, whatever leaves they are of.

    Args:
        ns_coeffs: the coefficients a, b and c of the steps: three numbers for all steps, three for each step,
            or the name of a set: `standard`, `dion`, `polar_express` (of 5 steps), `polar_express_8`, `cans`,
            `turbo` (for `aol`), `deepseek`, `cubic` (c = 0, which spares a product), `newton_schulz` (which
            converges).
        ns_steps: the number of steps, >= 1, where `ns_coeffs` does not say it.
        eps: added to the norm, >= 0.
        preconditioning: the norm that a matrix is divided by at first: `"frobenius"`; `"spectral"`, which
            needs singular values; `"schatten"`, the 4-norm; or `"aol"`, by which each row is divided by a
            number of its own.
        scaling: sigma by a name: for m rows (inputs) and n columns (outputs) `"none"` for 1; `"jordan"` for
            sqrt(max(1, n / m)); `"moonlight"` for 0.2 sqrt(max(m, n)); `"dion"` for sqrt(n / m).
        consistent_rms: c of sigma = c sqrt(max(m, n)), >= 0; the root of the mean square of an update is then
            about c.
        gram: take the steps on X alone: faster where one side is some times the other.
        matmul_dtype: dtype of the products, such as `"bfloat16"`; by default that of the computation.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform without slots.

    Raises:
        ValueError: another name; at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, w = gradtx.orthogonalize("newton_schulz", 12), {"kernel": jnp.array([[3.0, 0.0], [4.0, 5.0]])}
        >>> u = tx.update(w, tx.init(w))[0]["kernel"]
        >>> [[f"{x:.3f}" for x in row] for row in u.tolist()]
        [['0.894', '-0.447'], ['0.447', '0.894']]

    References:
        Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024,
        https://kellerjordan.github.io/posts/muon/; Amsel et al., The Polar Express, 2025,
        https://arxiv.org/abs/2505.16932; Grishina et al., Accelerating Newton-Schulz Iteration, 2025,
        https://arxiv.org/abs/2506.10935; Boissin et al., Turbo-Muon, 2025, https://arxiv.org/abs/2512.04632.
        The numbers of `cubic` are those of https://arxiv.org/abs/2606.00371, and of all sets those of
        https://github.com/NVIDIA-NeMo/Emerging-Optimizers, but for `polar_express`, of
        https://github.com/microsoft/dion.
    """
    ...
