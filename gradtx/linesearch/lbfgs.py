"""L-BFGS: gradients times an estimate of the inverse Hessian, from the last steps."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.rule import Slot, Whole
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine.on_shards import refuse_unnamed
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.wrapped_update import WrappedUpdate
from gradtx.core.norms import norm
from gradtx.core.numerics import cast, divide, inner_product, number_dtype, real_dtype, sqrt, total
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.spec import show

Leaves = list[Any]


def _memory(rule: ScaleByLbfgs, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (rule.memory_size, *shape)


class ScaleByLbfgs(Wrapper, name="scale_by_lbfgs"):
    """u = H g,  from H = gamma for each pair s, y: H = (1 - rho s y') H (1 - rho y s') + rho s s'."""

    memory_size: int
    scale_init_precond: bool

    in_place = False
    needs = ("params",)

    params, updates = Slot(), Slot()
    diff_params_memory, diff_updates_memory = Slot(shape=_memory), Slot(shape=_memory)
    weights_memory = Whole(lambda rule, params: jnp.zeros(rule.memory_size, number_dtype()))

    def check(self) -> None:
        if not isinstance(self.memory_size, int) or self.memory_size < 1:
            raise ValueError(f"{self.name}: memory_size must be an int >= 1, got {show(self.memory_size)}.")

    def run(self, gs: Leaves, slots: Slots, call: WrappedUpdate) -> tuple[Leaves, dict[str, Any]]:
        assert call.params is not None
        params = [cast(p, g.dtype) for p, g in zip(call.params, gs, strict=True)]
        refuse_unnamed(self.name, self, gs)
        # A gradient that is not finite must not reach the other leaves, and stays to be found.
        finite = list(call.finite())
        usable = [jnp.where(f, g, jnp.zeros_like(g)) for f, g in zip(finite, gs, strict=True)]
        memory = slots.diff_params_memory, slots.diff_updates_memory, slots.weights_memory
        with jax.named_scope("remember"):
            steps = [x - old for x, old in zip(params, slots.params, strict=True)]
            changes = [g - old for g, old in zip(gs, slots.updates, strict=True)]
            whole = all(place is not None for _, place in call.every)
            memory = _remembered(*memory, steps, changes, call.step, whole)
        # Without the part of a leaf that has no gradient a pair has another curvature.
        weights = memory[2] if whole else _weights_of_parts(*memory)
        result = _times_inverse(usable, *memory[:2], weights, call.step, self.scale_init_precond)
        result = [jnp.where(f, u, g) for f, u, g in zip(finite, result, gs, strict=True)]
        names = ("diff_params_memory", "diff_updates_memory", "weights_memory")
        return result, {"params": params, "updates": gs, **dict(zip(names, memory, strict=True))}


def _inner(a: Leaves, b: Leaves) -> jax.Array:
    """The inner product of two trees."""
    return cast(total(list(map(inner_product, a, b))), number_dtype())


def _added(x: Leaves, factor: jax.Array, y: Leaves) -> Leaves:
    """`x + factor y`."""
    return [a + cast(factor, real_dtype(b.dtype)) * b for a, b in zip(x, y, strict=True)]


def _places(count: jax.Array, size: int) -> jax.Array:
    """Where the pairs lie in the memory, the oldest first, after so many updates before this one."""
    first = jax.lax.rem(count, np.int32(size)).astype(np.uint32)
    return jax.lax.rem(first + np.arange(size, dtype=np.uint32), np.uint32(size))


def _weight(curvature: jax.Array, size: jax.Array, rounding: float) -> jax.Array:
    """`1 / <s, y>` of a pair with `<s, y> > 0` beyond what rounding may make of it, and 0 of any other."""
    counts = (size > 0) & (curvature > rounding * size) & (curvature >= jnp.finfo(curvature.dtype).tiny)
    # What does not count may be 0, and has no derivative.
    return jnp.where(counts, 1 / jnp.where(counts, curvature, 1), 0)


def _rounding(leaves: Leaves) -> float:
    return max((float(jnp.finfo(x.dtype).eps) for x in leaves), default=0.0)


@jax.jit
def _weights_of_parts(steps: Leaves, changes: Leaves, weights: jax.Array) -> jax.Array:
    """The weights of pairs of which only some leaves are looked at."""
    if not steps:
        return jnp.zeros_like(weights)
    along = jax.vmap(_inner)
    size = sqrt(along(steps, steps)) * sqrt(along(changes, changes))
    return jnp.where(weights > 0, _weight(along(steps, changes), size, _rounding(steps)), 0)


@functools.partial(jax.jit, static_argnames="whole")
def _remembered(
    steps: Leaves,
    changes: Leaves,
    weights: jax.Array,
    step: Leaves,
    change: Leaves,
    count: jax.Array,
    whole: bool,
) -> tuple[Leaves, Leaves, jax.Array]:
    """The memory with one more pair, in the place of the oldest one.

    A pair counts if the curvature along it is positive, beyond what rounding may make of it; any other would
    turn the direction uphill. Its weight is 0, and so is that of the first update, which has no pair, and of
    one that is not `whole`, where a leaf has no gradient.
    """
    size = sqrt(_inner(step, step)) * sqrt(_inner(change, change))
    weight = _weight(_inner(step, change), size, _rounding(step))
    weight = jnp.where(count > 0, weight, 0) if whole else jnp.zeros_like(weight)
    counts = weight > 0

    def put(memory: jax.Array, new: jax.Array) -> jax.Array:
        new = jnp.where(counts, new, jnp.zeros_like(new))
        return jax.lax.dynamic_update_index_in_dim(memory, new, _places(count, len(weights))[-1], 0)

    return list(map(put, steps, step)), list(map(put, changes, change)), put(weights, weight)


@functools.partial(jax.jit, static_argnames="scaled")
def _times_inverse(
    gs: Leaves, steps: Leaves, changes: Leaves, weights: jax.Array, count: jax.Array, scaled: bool
) -> Leaves:
    """The gradients times the inverse Hessian, by two loops over the pairs."""
    places = _places(count, len(weights))

    def pair(place: jax.Array) -> tuple[Leaves, Leaves]:
        at = functools.partial(jax.lax.dynamic_index_in_dim, index=place, keepdims=False)
        return list(map(at, steps)), list(map(at, changes))

    def backwards(v: Leaves, place: jax.Array) -> tuple[Leaves, jax.Array]:
        step, change = pair(place)
        share = weights[place] * _inner(step, v)
        return _added(v, -share, change), share

    def forwards(v: Leaves, at: tuple[jax.Array, jax.Array]) -> tuple[Leaves, None]:
        place, share = at
        step, change = pair(place)
        return _added(v, share - weights[place] * _inner(change, v), step), None

    v, shares = jax.lax.scan(backwards, gs, places, reverse=True)
    if scaled:
        newest = places[jnp.argmax(jnp.where(weights[places] > 0, np.arange(1, len(weights) + 1), 0))]
        has_pair, (_, change) = weights[newest] > 0, pair(newest)
        inverse = jnp.where(has_pair, weights[newest] * _inner(change, change), jnp.maximum(norm(gs), 1))
        v = [divide(x, cast(inverse, real_dtype(x.dtype))) for x in v]
    return jax.lax.scan(forwards, v, (places, shares))[0]


@builds(ScaleByLbfgs)
def scale_by_lbfgs(memory_size: int = 10, scale_init_precond: bool = True) -> Transform:
    """Multiplies gradients by L-BFGS's estimate of the inverse Hessian.

    With theta_k and g_k of update k, the pairs s = theta_k - theta_(k-1), y = g_k - g_(k-1) of the last
    `memory_size` updates, the oldest first, and rho = 1 / <s, y>:

        H = gamma I, then H <- (I - rho s y') H (I - rho y s') + rho s s' for each pair;        u = H g

    gamma = <s, y> / <y, y> of the newest pair, and min(1, 1 / ||g||) as long as there is none. A pair with
    <s, y> <= 0, up to rounding, is left out, so that H stays positive definite and -u a direction of
    descent. If a leaf has no gradient there is no new pair, and the others count by what is left of them.

    Args:
        memory_size: the number of pairs, >= 1. The state holds 2 memory_size + 2 copies of the parameters.
        scale_init_precond: whether H begins with the multiple of the identity that fits the last pair; gamma
            is 1 otherwise.

    Returns:
        A transform whose `update` needs the parameters, with the slots `params` and `updates` (those of the
        last update), `diff_params_memory` and `diff_updates_memory` (the pairs, along a first axis) and
        `weights_memory` (rho).

    Raises:
        ValueError: `memory_size` is no int >= 1; while tracing, the leaves are shards inside `shard_map`.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> grad = jax.grad(lambda x: x @ jnp.diag(jnp.array([1.0, 9.0])) @ x / 2)
        >>> tx, x = gradtx.chain(gradtx.scale_by_lbfgs(), gradtx.scale(-1.0)), jnp.array([1.0, 1.0])
        >>> state = tx.init(x)
        >>> for _ in range(12):
        ...     x, state = gradtx.apply_gradients(tx, grad(x), state, x)
        >>> bool(jnp.abs(x).max() < 1e-4)
        True

    References:
        Nocedal, Wright, Numerical Optimization, 2006, algorithms 7.4 and 7.5.
        Liu, Nocedal, On the Limited Memory BFGS Method for Large Scale Optimization, 1989,
        https://doi.org/10.1007/BF01589116.
    """
    ...
