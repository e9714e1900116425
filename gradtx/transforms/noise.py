"""Gradient noise."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.compose.rule import Key, Rule
from gradtx.core.engine.protocol import Seed
from gradtx.core.engine.scope import Leaf, Now, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import sqrt
from gradtx.core.spec.arguments import factory
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


def typed_key(key: Any) -> jax.Array:
    """The random key that an int or the raw data of a key stands for."""
    if isinstance(key, int):
        return jax.random.key(key)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    data = key if isinstance(key, jax.Array) else np.array(key, np.uint32)
    wanted = jax.random.key_data(jax.random.key(0)).shape
    if data.shape != wanted:
        raise ValueError(
            f"a key is kept as raw data of JAX's default implementation, of shape {wanted}; this one has "
            f"{data.shape}. Give a key of that implementation, as jax.random.key makes it, or an int."
        )
    return jax.random.wrap_key_data(jnp.asarray(data))


def normal_of_each(keys: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Normal numbers for each of many matrices, by its key, as (number, *shape)."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)


class AddNoise(Rule, name="add_noise"):
    """u = g + n,  n ~ N(0, eta / t^gamma)."""

    eta: NonNegative
    gamma: NonNegative
    key: Any

    rng_key = Key(lambda rule: typed_key(rule.key))

    def prepare(self, now: Now) -> dict[str, jax.Array]:
        return {"deviation": sqrt(self.eta / jnp.power(now.t, self.gamma))}

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return g + leaf.deviation * jax.random.normal(leaf.key, g.shape, g.dtype), slots


@factory
def add_noise(
    eta: ScalarOrSchedule, gamma: ScalarOrSchedule, key: Seed | None = None, *, seed: int | None = None
) -> Transform:
    """Adds Gaussian noise of decaying variance: u = g + n, n ~ N(0, eta / t^gamma), with t from 1.

    The noise of a step and leaf depends on the key, the step and the leaf's path alone.

    Args:
        eta: the variance of the noise at the first step, >= 0.
        gamma: the exponent of the variance's decay, >= 0.
        key: an int, a `jax.random.key`, or a key's raw data; by default 0.
        seed: another name of `key`, as an int.

    Returns:
        A transform whose state holds the key's raw data.

    Raises:
        ValueError: both `key` and `seed`.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.add_noise(eta=0.01, gamma=0.55, key=1)
        >>> u, _ = tx.update(jnp.zeros(3), tx.init(jnp.zeros(3)))
        >>> bool((abs(u) < 1).all() and (u != 0).all())
        True

    References:
        Neelakantan et al., Adding Gradient Noise Improves Learning for Very Deep Networks, 2015,
        https://arxiv.org/abs/1511.06807.
    """
    given = given_key("add_noise", key, seed)
    return AddNoise(eta=eta, gamma=gamma, key=0 if given is None else given)


def given_key(name: str, key: Any, seed: int | None) -> Any:
    """A key as a rule keeps it: an int, or the raw data of a key; None where none is given."""
    if key is not None and seed is not None:
        raise ValueError(f"{name}: give key or seed, not both.")
    key = seed if key is None else key
    if isinstance(key, jax.Array):
        data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
        return data if isinstance(data, Tracer) else tuple(np.asarray(data).tolist())
    return key
