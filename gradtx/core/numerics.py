"""The numerics policy: which dtype arithmetic runs in, and the few operations that need care.

Arithmetic runs in the wider of the leaf's dtype and float32. A decay is carried as its complement, so that
`1 - b` never loses the digits that matter; no denominator underflows; nothing is selected by multiplication.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def number_dtype() -> np.dtype:
    """The dtype of hyperparameters: float32, or float64 when x64 is enabled."""
    return jax.dtypes.canonicalize_dtype(np.float64)


@functools.cache
def is_complex(dtype: Any) -> bool:
    """Whether values of `dtype` are complex."""
    return bool(jnp.issubdtype(dtype, jnp.complexfloating))


@functools.cache
def is_trainable(dtype: Any) -> bool:
    """Whether gradients of values of `dtype` exist: floating or complex."""
    return bool(jnp.issubdtype(dtype, jnp.inexact))


@functools.cache
def real_dtype(dtype: Any) -> np.dtype:
    """The dtype of the real part."""
    dtype = np.dtype(dtype)
    return np.dtype(f"float{dtype.itemsize * 4}") if is_complex(dtype) else dtype


@functools.cache
def widest(*dtypes: Any) -> np.dtype:
    """The promotion table: the dtype that holds values of every given one.

    Equal dtypes stay; of two widths the larger wins; two different formats of one width (bfloat16 and
    float16) meet in float32; complex wins over real, at the wider width. It does not depend on JAX's
    promotion settings.
    """
    reals = {real_dtype(d) for d in dtypes}
    width = max(d.itemsize for d in reals)
    top = [d for d in reals if d.itemsize == width]
    real = top[0] if len(top) == 1 else np.dtype(np.float32)
    if any(is_complex(d) for d in dtypes):
        return np.dtype(np.complex128 if real.itemsize == 8 else np.complex64)
    return real


@functools.cache
def compute_dtype(*dtypes: Any) -> np.dtype:
    """The dtype arithmetic runs in for values of the given dtypes: at least float32."""
    return widest(*dtypes, np.dtype(np.float32))


def like(dtype: Any, compute: Any) -> np.dtype:
    """`compute` for a complex `dtype`, its real counterpart for a real one."""
    return np.dtype(compute) if is_complex(dtype) else real_dtype(compute)


def cast(x: jax.Array, dtype: Any) -> jax.Array:
    """`x` in `dtype`, itself where it has it: a cast that does nothing still takes time to trace."""
    return x if x.dtype == dtype else x.astype(dtype)


def abs_sq(x: jax.Array) -> jax.Array:
    """`|x|²`, real for complex `x`, with a gradient at 0."""
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else x * x


def agree(a: jax.Array, b: jax.Array) -> jax.Array:
    """Positive where two numbers have one sign, 0 where one is 0; of complex ones by the angle between them.

    By their signs, since a product of small numbers may underflow.
    """
    return jnp.real(jnp.conj(sign(a)) * sign(b))


def inner_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """`Re <a, b>`, the sum of the products of the elements; of complex ones the real part of `conj(a) b`."""
    return jnp.sum(jnp.real(jnp.conj(a) * b))


@jax.jit
def usually(condition: jax.Array) -> jax.Array:
    """The condition itself, false for numbers of unusual size alone; formulas show what follows."""
    return condition


@jax.custom_batching.custom_vmap
def anywhere(condition: jax.Array) -> jax.Array:
    """The condition itself; in a sweep by `vmap`, whether it holds for one of all.

    So one branch is taken for a whole sweep, which would else take both. What follows must be the same where
    the condition does not hold.
    """
    return condition


@anywhere.def_vmap
def _anywhere_in_a_sweep(size: int, batched: Any, condition: jax.Array) -> Any:
    return anywhere(jnp.any(condition, axis=0)), False


def bounded(x: jax.Array) -> jax.Array:
    """`x`, or what is large beyond use but has an inverse and can be summed; NaN stays."""
    bound = np.array(np.ldexp(1.0, jnp.finfo(x.dtype).maxexp * 7 // 8), x.dtype)
    return jnp.where(usually(~(x > bound)), x, bound)


def divide(x: jax.Array, denominator: jax.Array) -> jax.Array:
    """`x / denominator` for a denominator >= 0 that may have underflowed: 0 / 0 is 0, never NaN.

    Where `x` may be a quotient itself, as a gradient that another rule has divided is, use `divide_again`.
    """
    tiny = np.array(jnp.finfo(denominator.dtype).tiny, denominator.dtype)
    return x / jnp.maximum(denominator, tiny)


def divide_again(x: jax.Array, denominator: jax.Array) -> jax.Array:
    """`divide` of what may be a quotient itself.

    Of (x / a) / b XLA makes x / (a b), and of the least a and b the product is 0. What is selected between
    the two is in its way. It asks the denominator: a quotient that is used twice would be written to memory.
    XLA knows that a square is not negative, and does not ask where the answer is known.
    """
    return divide(jnp.where(usually(denominator > -1), x, jnp.zeros_like(x)), denominator)


def sign(x: jax.Array) -> jax.Array:
    """`x / |x|`, 0 at 0; for complex `x` with the derivative along the circle, which JAX's own lacks."""
    return divide_again(x, jnp.abs(x)) if jnp.iscomplexobj(x) else jnp.sign(x)


@jax.custom_jvp
def sqrt(x: jax.Array) -> jax.Array:
    """The square root of `x >= 0`, with derivative 0 at 0, so that reverse mode through it stays finite."""
    return jnp.sqrt(x)


@sqrt.defjvp
def _sqrt_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    root = jnp.sqrt(x)
    zero = root == 0
    return root, jnp.where(zero, jnp.zeros_like(root), dx / (2 * jnp.where(zero, jnp.ones_like(root), root)))


@jax.custom_jvp
def one_minus_power(complement: jax.Array, exponent: jax.Array) -> jax.Array:
    """`1 - (1 - c)^n`, exact for small `c`: the bias correction `1 - b^t` from `c = 1 - b`."""
    return -jnp.expm1(exponent * jnp.log1p(-complement))


@one_minus_power.defjvp
def _one_minus_power_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (c, n), (dc, _) = primals, tangents
    return one_minus_power(c, n), dc * n * jnp.power(1 - c, n - 1)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["complement", "shares"], meta_fields=[])
class Decay:
    """A decay `b` in [0, 1), carried as its complement `1 - b`.

    In a rule's class body `b1: Decay` declares such a hyperparameter; inside `prepare` and `apply` the field
    is an instance, with the operations that a decay has.
    """

    def __init__(self, complement: Any, shares: tuple[jax.Array, jax.Array] | None = None) -> None:
        self.complement, self.shares = complement, shares

    @property
    def value(self) -> jax.Array:
        """The decay `b` itself."""
        return 1 - self.complement

    def split(self) -> Decay:
        """The same decay, whose digits are split for `mix`: once for all arrays that are mixed."""
        return Decay(self.complement, self._split())

    def _split(self) -> tuple[jax.Array, jax.Array]:
        """The decay as a sum of two numbers: in floating point `1 - c` loses the last digits of a small `c`.

        Both are positive for b > 0, if need be with `1 - c` rounded down: times 0 or a negative number, an
        average of squares that has overflowed would become NaN.
        """
        if self.shares is not None:
            return self.shares
        high = jnp.asarray(1 - self.complement)
        low = (1 - high) - self.complement
        about = jnp.finfo(high.dtype)
        down = jnp.where(low < 0, high - high * np.array(about.eps, high.dtype), high)
        # Nothing is left of the old value for a decay of 0.
        least = jnp.where(high > 0, np.array(about.tiny, high.dtype), np.zeros((), high.dtype))
        rest = jnp.maximum((high - down) + low, least)
        is_below = usually(low > 0)
        return jnp.where(is_below, high, down), jnp.where(is_below, low, rest)

    def mix(self, old: jax.Array, new: jax.Array) -> jax.Array:
        """The exponential moving average `b old + (1 - b) new`, without rounding `b`."""
        high, low = self._split()
        return high * old + (low * old + self.complement * new)

    def root(self) -> Decay:
        """The decay whose square this is, `sqrt(b)`."""
        return Decay(self.complement / (1 + sqrt(self.value)))

    def correction(self, t: jax.Array) -> jax.Array:
        """`1 - b^t`, by which an average that started at zero is divided after `t` updates."""
        return one_minus_power(self.complement, t)

    def astype(self, dtype: Any) -> Decay:
        """The same decay in another dtype."""
        return self if self.complement.dtype == dtype else Decay(self.complement.astype(dtype))


def stacked(arrays: list[jax.Array]) -> jax.Array:
    """Arrays of one shape and dtype on a new first axis; `jnp.stack` takes several times as long to trace."""
    return jax.lax.concatenate([jax.lax.expand_dims(x, (0,)) for x in arrays], 0)


def total(parts: list[jax.Array]) -> jax.Array:
    """The sum of real scalars, in at least float32."""
    dtype = compute_dtype(*(p.dtype for p in parts)) if parts else np.dtype(np.float32)
    parts = [cast(part, dtype) for part in parts]
    if len(parts) > 16:
        # XLA compiles one kernel of a thousand scalars for longer than a thousand kernels that make them. The
        # barrier keeps what makes them apart from what adds them.
        return jnp.sum(jax.lax.optimization_barrier(stacked(parts)), axis=0)
    result = jnp.zeros((), dtype)
    for part in parts:
        result = jax.lax.add(result, part)
    return result
