"""The polar factor of a matrix by products alone: iterations of Newton-Schulz and their coefficients."""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.numerics import abs_sq, divide, sqrt
from gradtx.core.products import conjugate_times, on_diagonal, times_conjugate

Coefficients = tuple[float, float, float]
Normalization = Literal["frobenius", "spectral", "aol", "schatten"]

STANDARD: Coefficients = (3.4445, -4.7750, 2.0315)

COEFFICIENTS: dict[str, tuple[Coefficients, ...]] = {
    "standard": (STANDARD,),
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "polar_express": (
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
    "polar_express_8": (
        (8.2051, -22.9019, 16.4607),
        (4.0664, -2.8612, 0.5184),
        (3.9096, -2.8234, 0.5250),
        (3.2856, -2.4153, 0.4853),
        (2.2779, -1.6198, 0.3985),
        (1.8726, -1.2307, 0.3585),
        (1.8564, -1.2132, 0.3568),
        (1.8750, -1.2500, 0.3750),
    ),
    "cans": (
        (8.4703, -25.1081, 18.6293),
        (4.1828, -3.1087, 0.5806),
        (3.9619, -2.9541, 0.5630),
        (3.2866, -2.4647, 0.5074),
        (2.2737, -1.6447, 0.4162),
    ),
    "turbo": (
        (4.0098, -7.0585, 2.4635),
        (3.4585, -5.5479, 2.5959),
        (2.7573, -3.2939, 1.4254),
        (2.7215, -3.0494, 1.3169),
    ),
    "deepseek": ((STANDARD,) * 8 + ((2.0, -1.5, 0.5),) * 2),
    "cubic": (
        (3.3656576, -3.3420992, 0.0),
        (2.5744352, -1.4957376, 0.0),
        (2.5368962, -1.4312570, 0.0),
        (2.4418906, -1.2764040, 0.0),
        (2.2230472, -0.9630650, 0.0),
    ),
    "newton_schulz": ((2.0, -1.5, 0.5),),
}
"""Sets of a, b and c by name, one for each step; a single one is for every step.

`standard` is Muon's. `dion` is Dion's, also called quintic. `polar_express` is of 5 steps, with a margin of
1.02, `polar_express_8` of 8. `turbo` goes with the normalization `aol`. `newton_schulz` converges to the
factor itself; the others stop near it.
"""

MARGINS = {"polar_express": 1.02}
"""By what more than its norm a matrix is divided, where a set is made for that."""

RESTART = 2
"""After how many steps the Gram form begins anew, since what it accumulates loses digits."""

LONG = 2
"""How many times the shorter side the longer one is for two steps on X to be faster than two on x."""


def coefficients_of(where: str, ns_coeffs: Any, ns_steps: int) -> tuple[tuple[Coefficients, ...], float]:
    """The coefficients of each step, and the margin of the norm.

    Args:
        where: the rule that asks, for errors.
        ns_coeffs: the name of a set, one triple for all steps, or one for each.
        ns_steps: how many steps, where there is one triple.
    """
    if not isinstance(ns_steps, int) or isinstance(ns_steps, bool) or ns_steps < 1:
        raise ValueError(f"{where}: ns_steps must be an int >= 1, got {ns_steps!r}.")
    known: Any = ns_coeffs
    margin = 1.0
    if isinstance(ns_coeffs, str):
        if ns_coeffs not in COEFFICIENTS:
            raise ValueError(
                f"{where}: ns_coeffs must be one of {', '.join(COEFFICIENTS)}, or numbers; got {ns_coeffs!r}."
            )
        known, margin = COEFFICIENTS[ns_coeffs], MARGINS.get(ns_coeffs, 1.0)
    try:
        rows = (
            (tuple(map(float, known)),)
            if _is_number(known[0])
            else tuple(tuple(map(float, row)) for row in known)
        )
    except (TypeError, ValueError, IndexError, KeyError):
        rows = ()
    if not rows or any(len(row) != 3 for row in rows):
        raise ValueError(
            f"{where}: ns_coeffs is the name of a set ({', '.join(COEFFICIENTS)}), three numbers, or three "
            f"for each step; got {ns_coeffs!r}."
        )
    return (rows * ns_steps if len(rows) == 1 else rows), margin  # pyright: ignore[reportReturnType]


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) or getattr(x, "shape", None) == ()


def polar(
    x: jax.Array,
    eps: jax.Array,
    *,
    coefficients: tuple[Coefficients, ...],
    margin: float = 1.0,
    normalization: Normalization = "frobenius",
    gram: bool = False,
) -> jax.Array:
    """About U V* for x = U S V*, of matrices along the last two axes.

    From x over its norm, each step is x <- a x + (b X + c X²) x with X = x x*; where columns are the shorter
    side, x <- a x + x (b X + c X²) with X = x* x.

    Args:
        x: matrices, of shape (..., rows, columns).
        eps: added to the norm; of `"aol"` and `"schatten"` the least sum that a root is taken of.
        coefficients: a, b and c of each step.
        margin: by what more than its norm x is divided.
        normalization: by which norm: `"frobenius"`, `"spectral"`, `"schatten"` (the 4-norm), or `"aol"`,
            which divides each row by the root of the sum of |X| along it.
        gram: whether the steps are taken on X, of which x is multiplied in the end: fewer operations where
            one side is much longer than the other.
    """
    return _polar(x, eps, coefficients, margin, normalization, gram)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _polar(x: Any, eps: Any, coefficients: Any, margin: float, normalization: str, gram: bool) -> jax.Array:
    if not x.size:
        return x
    # The squares of a matrix over its largest element are in range.
    largest = jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True)
    largest = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    x = x / largest
    square = _square(x)
    by = _over_norm(x, square, eps / largest, largest, margin, normalization)
    is_narrow = jnp.finfo(x.dtype).bits < 32
    if normalization == "aol" or is_narrow:
        x, square, by = x * (by.mT if _is_tall(x) else by), square * by * by.mT, jnp.ones_like(largest)
    if gram:
        rows = coefficients[:RESTART], *filter(None, [coefficients[RESTART:]])
        return _by_steps(x, square, by, rows=rows)
    one_by_one = functools.partial(_by_steps, rows=tuple((row,) for row in coefficients))
    if min(x.shape[-2:]) * LONG > max(x.shape[-2:]) or is_narrow:
        return one_by_one(x, square, by)
    # Two steps together lose a digit, which does not matter where a product is not of rounded factors.
    pairs = tuple(coefficients[i : i + 2] for i in range(0, len(coefficients), 2))
    in_pairs = functools.partial(_by_steps, rows=pairs)
    return jax.lax.platform_dependent(x, square, by, cpu=in_pairs, default=one_by_one)


def _is_tall(x: jax.Array) -> bool:
    return x.shape[-2] > x.shape[-1]


def _square(x: jax.Array) -> jax.Array:
    """X, of the shorter side."""
    return conjugate_times(x, x) if _is_tall(x) else times_conjugate(x, x)


def _times(q: jax.Array, x: jax.Array) -> jax.Array:
    """What a polynomial of X makes of x, on the side of X."""
    return x @ q if _is_tall(x) else q @ x


def _over_norm(
    x: jax.Array, square: jax.Array, eps: jax.Array, largest: jax.Array, margin: float, normalization: str
) -> jax.Array:
    """What x is multiplied with at first: a number of at most 1; for `aol` a column of the shorter side."""
    if normalization in ("aol", "schatten"):
        # Of squares eps is a bound of its own, of which the largest element is taken out twice.
        least = jnp.maximum(eps / largest, np.array(jnp.finfo(eps.dtype).tiny, eps.dtype))
        if normalization == "aol":
            sums = jnp.sum(jnp.abs(square), axis=-1, keepdims=True)
            return jax.lax.rsqrt(jnp.maximum(sums, least))
        norm = sqrt(jnp.sum(abs_sq(square), axis=(-2, -1), keepdims=True))
        by = jax.lax.rsqrt(jnp.maximum(norm, least))
    else:
        norm = (
            jnp.linalg.norm(x, ord=2, axis=(-2, -1), keepdims=True)
            if normalization == "spectral"
            else sqrt(jnp.sum(abs_sq(x), axis=(-2, -1), keepdims=True))
        )
        by = divide(jnp.ones_like(norm), margin * norm + eps)
    # It is only more where all is zero, since the largest element is 1; its powers are to be finite there.
    return jnp.minimum(by, 1)


def _by_steps(
    x: jax.Array, square: jax.Array, by: jax.Array, *, rows: tuple[tuple[Coefficients, ...], ...]
) -> jax.Array:
    """Steps from x times a number: those of a row are taken on X, and x is multiplied with what they make."""
    for i, ((a, b, c), *others) in enumerate(rows):
        if i:
            square = _square(x)
            q = product = _factor(square, a, b, c)
        else:
            q = product = _factor(square, a * by, b * by**3, c * by**5 if c else 0.0)
        for row in others:
            square = q @ square @ q
            q = _factor(square, *row)
            product = q @ product
        x = _times(product, x)
    return x


def _factor(square: jax.Array, a: Any, b: Any, c: Any) -> jax.Array:
    """What a step multiplies x with, a I + b X + c X²: with a on the diagonal no sum is as large as x."""
    q = b * square if isinstance(c, float) and c == 0 else b * square + c * (square @ square)
    return on_diagonal(a + q, q)
