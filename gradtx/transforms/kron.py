"""PSGD Kron: gradients between two factors that are fitted to whiten them."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.matrix_rule import MatrixRule, MatrixSlot
from gradtx.core.compose.rule import Key, Slot, WholeScalar
from gradtx.core.decompositions import triangular_quotient
from gradtx.core.engine.matrix_views import Views
from gradtx.core.engine.protocol import Seed
from gradtx.core.engine.scope import Leaf, Now, Slots, Stack
from gradtx.core.engine.transform import Transform
from gradtx.core.norms import norms_along
from gradtx.core.numbers.steps import next_count
from gradtx.core.numerics import Decay, abs_sq, divide, real_dtype, sqrt
from gradtx.core.products import conjugate, conjugate_times, diagonal, identity_like, times_conjugate
from gradtx.core.roots import MATRIX, norm_bound
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import (
    DType,
    DTypeName,
    NonNegative,
    Positive,
    PositiveFraction,
    ScalarOrSchedule,
    check_count,
)
from gradtx.core.spec.spec import show
from gradtx.transforms.eigenbases import is_unset, present
from gradtx.transforms.noise import normal_of_each, typed_key
from gradtx.transforms.refreshes import is_turn

MemorySaveMode = Literal["one_diag", "all_diag"]

DAMPING = math.sqrt(2**-23)
"""How much noise is added to what the factors are fitted to, in units of its mean absolute value."""

LONGEST = 2.0**30
"""The longest period, in updates, that is told from no update at all."""

MOST = 1.1
"""The largest root mean square of an update."""


def _of_side(side: int, *, is_product: bool = False) -> Any:
    """The shape of the factor of a side, or of its product; None for a product that is not remembered."""

    def of(rule: Any, rows: int, columns: int) -> tuple[int, ...] | None:
        sizes = (rows, columns) if side == 0 else (columns, rows)
        return None if is_product and not rule.cached else _factor(rule, *sizes, side == 1)

    return of


def _factor(rule: Any, size: int, other: int, is_last: bool) -> tuple[int, ...]:
    """The shape of the factor of a side."""
    is_longest = size > other or (size == other and is_last)
    is_diagonal = (
        size == 1
        or size > rule.max_size_triangular
        or rule.memory_save_mode == "all_diag"
        or (rule.memory_save_mode == "one_diag" and is_longest)
    )
    return (size,) if is_diagonal else (size, size)


class ScaleByKron(MatrixRule, name="scale_by_kron"):
    """u = P* P m (Q* Q)^T, with P and Q such that P g Q^T is white; P and Q are triangular."""

    b1: Decay
    preconditioner_update_probability: PositiveFraction
    preconditioner_lr: NonNegative
    preconditioner_init_scale: Positive
    max_size_triangular: int
    memory_save_mode: str | None
    mu_dtype: DTypeName
    key: Any
    stagger: bool
    cached: bool
    views: Any

    mu = Slot(dtype="mu_dtype", mean=True)
    left, product_left = MatrixSlot(of=_of_side(0)), MatrixSlot(of=_of_side(0, is_product=True))
    right, product_right = MatrixSlot(of=_of_side(1)), MatrixSlot(of=_of_side(1, is_product=True))
    age = WholeScalar(dtype="int32")
    rng_key = Key(lambda rule: typed_key(rule.key))

    sees_index = True

    def check(self) -> None:
        if self.memory_save_mode not in (None, *get_args(MemorySaveMode)):
            listed = ", ".join(map(show, (None, *get_args(MemorySaveMode))))
            raise ValueError(
                f"{self.name}: memory_save_mode must be one of {listed}, got {show(self.memory_save_mode)}."
            )
        check_count(f"{self.name}: max_size_triangular", self.max_size_triangular, 0)

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        # A probability of 1 / k, rounded, is every k-th update.
        rounding = 4 * np.array(jnp.finfo(now.t.dtype).eps, now.t.dtype)
        period = jnp.minimum(jnp.ceil((1 - rounding) / self.preconditioner_update_probability), LONGEST)
        period = period.astype(jnp.int32)
        age = next_count(now.age)
        age = jnp.where(age >= period, 0, age)
        return {"age": age, "phase": age, "period": period, "of_mu": 1 / self.b1.correction(now.t)}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        mu = self.b1.mix(slots.mu, g)
        return leaf.of_mu * mu, {"mu": mu}

    def is_due(self, slots: Slots, stack: Stack) -> jax.Array:
        return is_turn(stack, self.stagger)[:, 0, 0]

    def renew(self, x: jax.Array, slots: Slots, stack: Stack) -> Any:
        if not x.size:
            return {}
        drawn = normal_of_each(stack.keys, x.shape[1:], x.dtype)
        left, right = _fitted(self._factors(slots), x, drawn, self.preconditioner_lr)
        new = {"left": left, "right": right}
        return new | {f"product_{side}": _square(q) for side, q in new.items() if self.cached}

    def solve(self, x: jax.Array, slots: Slots, stack: Stack) -> tuple[jax.Array, Any]:
        if not x.size:
            return x, present(**vars(slots))
        u, pairs = x, ((slots.left, slots.product_left), (slots.right, slots.product_right))
        for side, (q, product) in enumerate(pairs):
            # Where a factor has not moved it is a multiple of what changes nothing.
            unmoved = self.preconditioner_init_scale * u
            moved = (
                _times(_times(u, q, side), _starred(q), side) if product is None else _times(u, product, side)
            )
            u = jnp.where(_is_unmoved(q), unmoved, moved)
        size = norms_along(u, MATRIX) / math.sqrt(u.shape[-2] * u.shape[-1])
        return u / jnp.maximum(size / np.array(MOST, size.dtype), 1), present(**vars(slots))

    def _factors(self, slots: Slots) -> Any:
        """The factors, which at first are a multiple of what changes nothing."""
        scale = sqrt(self.preconditioner_init_scale)
        pairs = [(q, _per_matrix(_is_unmoved(q), q)) for q in (slots.left, slots.right)]
        return tuple(jnp.where(unmoved, scale * _one(q), q) for q, unmoved in pairs)


def _is_unmoved(q: jax.Array) -> jax.Array:
    """Of which matrices a factor is the zeros of the start, as (number, 1, 1): its diagonal is zero."""
    return is_unset((q if q.ndim == 2 else diagonal(q))[..., None])


def _one(q: jax.Array) -> jax.Array:
    """The factor that changes nothing, as full or as diagonal as another one."""
    return jnp.ones_like(q) if q.ndim == 2 else identity_like(q)


def _starred(q: jax.Array) -> jax.Array:
    """Its conjugate transpose."""
    return jnp.conj(q) if q.ndim == 2 else conjugate(q)


def _square(q: jax.Array) -> jax.Array:
    """The product q* q."""
    return jnp.conj(q) * q if q.ndim == 2 else conjugate_times(q, q)


def _times(x: jax.Array, q: jax.Array, side: int) -> jax.Array:
    """The product q x on the side of the rows, or x q^T on that of the columns."""
    if q.ndim == 2:
        return x * jnp.expand_dims(q, -1 if side == 0 else -2)
    return q @ x if side == 0 else jnp.einsum("...ik,...jk->...ij", x, q)


def _over(x: jax.Array, q: jax.Array, side: int) -> jax.Array:
    """The quotient q^-T x on the side of the rows, or x q^-1 on that of the columns."""
    if q.ndim == 2:
        return x / jnp.expand_dims(q, -1 if side == 0 else -2)
    return triangular_quotient(q, x, side)


def _fitted(factors: Any, x: jax.Array, v: jax.Array, rate: jax.Array) -> Any:
    """The factors after one step towards the noise v, from factors whose largest elements are equal."""
    left, right = _balanced(*factors)
    mean = jnp.mean(jnp.abs(x), axis=(-2, -1), keepdims=True)
    x = x + np.array(DAMPING, mean.dtype) * mean * v
    a = _times(_times(x, left, 0), right, 1)
    b = _over(_over(jnp.conj(v), left, 0), right, 1)
    # Nothing is learned of zeros, by which the factors would only grow.
    is_something = jnp.any(x != 0, axis=(-2, -1))
    moved = [_moved(q, a, b, rate, side) for side, q in enumerate((left, right))]
    return tuple(
        jnp.where(_per_matrix(is_something, q), new, q) for new, q in zip(moved, (left, right), strict=True)
    )


def _balanced(left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same product of factors, whose largest elements are equal."""
    a, b = (jnp.max(jnp.abs(q).reshape(len(q), -1), axis=-1) for q in (left, right))
    is_there = (a > 0) & (b > 0)
    ratio = sqrt(jnp.where(is_there, b, 1) / jnp.where(is_there, a, 1))
    return _per_matrix(ratio, left) * left, _per_matrix(1 / ratio, right) * right


def _per_matrix(x: jax.Array, q: jax.Array) -> jax.Array:
    return x.reshape(-1, *[1] * (q.ndim - 1))


def _moved(q: jax.Array, a: jax.Array, b: jax.Array, rate: jax.Array, side: int) -> jax.Array:
    """A factor after one step, which is 0 where a and b are alike in their second moments."""
    tiny = np.array(jnp.finfo(real_dtype(q.dtype)).tiny, real_dtype(q.dtype))
    if q.ndim == 2:
        of_a, of_b = (jnp.sum(abs_sq(y), axis=-1 if side == 0 else -2) for y in (a, b))
        largest = jnp.max(of_a + of_b, axis=-1, keepdims=True)
        return q - divide(rate * (of_a - of_b), largest + tiny) * q
    if side == 0:
        of_a, of_b = times_conjugate(a, a), jnp.conj(times_conjugate(b, b))
    else:
        of_a, of_b = jnp.conj(conjugate_times(a, a)), conjugate_times(b, b)
    step = jnp.triu(rate * (of_a - of_b))
    return q - divide(step, norm_bound(of_a + of_b) + tiny) @ q


@builds(ScaleByKron)
def scale_by_kron(
    b1: ScalarOrSchedule = 0.9,
    preconditioner_update_probability: ScalarOrSchedule = 1.0,
    preconditioner_lr: ScalarOrSchedule = 0.1,
    preconditioner_init_scale: ScalarOrSchedule = 1.0,
    *,
    max_size_triangular: int = 8192,
    memory_save_mode: MemorySaveMode | None = None,
    mu_dtype: DType | None = None,
    key: Seed = 0,
    stagger: bool = True,
    cached: bool = False,
    views: Views = None,
) -> Transform:
    """Whitens the momentum of matrices by two triangular factors, which are fitted to it (PSGD Kron).

        m = b1 m + (1 - b1) g           m^ = m / (1 - b1^t)          u = P* P m^ (Q* Q)^T
        A = P (m^ + d V) Q^T            B = P^-T conj(V) Q^-1        V normal, d = sqrt(2^-23) mean |m^|
        P <- P - lr triu(A A* - conj(B) B^T) P / ||A A* + conj(B) B^T||        Q alike, by A^T and B^T

    with a lower bound for the norm. P and Q begin as `sqrt(preconditioner_init_scale)` I, and move once in as
    many updates as one over the probability says; between these an update costs four products, or two if
    P* P and Q* Q are remembered, `cached`. An update whose root mean square is above 1.1 is brought to that.

    Args:
        b1: decay of the average of the gradients, in [0, 1).
        preconditioner_update_probability: how often the factors move, in (0, 1]: 0.1 for every tenth update.
            A schedule lets it fall as the factors settle, such as `kron`'s.
        preconditioner_lr: the rate of the factors, >= 0; lr above.
        preconditioner_init_scale: the size of P* P at the start times that of Q* Q, > 0.
        max_size_triangular: a side that is longer has a diagonal factor; as has a side of 1.
        memory_save_mode: `"one_diag"` for a diagonal factor of the longer side, `"all_diag"` for both.
        mu_dtype: dtype to store the average of the gradients in; by default the parameter's, at least
            float32.
        key: an int, a `jax.random.key`, or a key's raw data; for the noise V. What is drawn for a matrix
            depends on the key, the step, the leaf's path, and where in the leaf it is.
        stagger: whether what costs much is computed matrix after matrix, so that no step has all of it; else
            for all at once, as the authors have it.
        cached: remember P* P and Q* Q beside P and Q: fewer products, and more memory.
        views: which leaves are matrices, and how, where names and shapes do not say it; see
            `gradtx.matrix_view`.

    Returns:
        A transform with the slots `mu`, of each element, and of each matrix `left` and `right`, P and Q; if
        cached `product_left` and `product_right`, too.

    Raises:
        ValueError: another name, or a size that is none; at init, a leaf that has no view as a matrix.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, w = gradtx.scale_by_kron(memory_save_mode="one_diag"), {"kernel": jnp.ones((8, 3))}
        >>> slots = tx.init(w)["slots"]["scale_by_kron"]
        >>> slots["left"]["8x3"].shape, slots["right"]["8x3"].shape
        ((1, 8), (1, 3, 3))

    References:
        Li, Preconditioned Stochastic Gradient Descent, 2018, https://arxiv.org/abs/1512.04202; Pooladzandi
        and Li, Curvature-Informed SGD via General Purpose Lie-Group Preconditioners, 2024,
        https://arxiv.org/abs/2402.04553.
    """
    ...
