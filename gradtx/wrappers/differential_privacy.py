"""Differentially private gradients: each example clipped, and noise."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.compose.rule import Key
from gradtx.core.compose.wrapper import Wrapper
from gradtx.core.engine.on_shards import refuse_unnamed
from gradtx.core.engine.protocol import Seed
from gradtx.core.engine.scope import Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.engine.wrapped_update import Leaves, WrappedUpdate
from gradtx.core.numerics import cast, real_dtype
from gradtx.core.spec.arguments import factory
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule
from gradtx.transforms.noise import given_key, typed_key
from gradtx.transforms.per_example import per_example_global_norm_clip


class DifferentiallyPrivateAggregate(Wrapper, name="differentially_private_aggregate"):
    """u = (sum over examples of g min(1, C / ||g||) + n) / B,  n ~ N(0, (sigma C)²)."""

    l2_norm_clip: NonNegative
    noise_multiplier: NonNegative
    key: Any

    in_place = False
    per_example: ClassVar[bool] = True

    rng_key = Key(lambda wrapper: typed_key(wrapper.key))

    def run(self, gs: Leaves, slots: Slots, call: WrappedUpdate) -> tuple[Leaves, dict[str, Any]]:
        if not gs:
            return [], {}
        refuse_unnamed(self.name, self, gs)
        sums = call.leaves(per_example_global_norm_clip(call.tree(gs), self.l2_norm_clip)[0])
        deviation, size = self.l2_norm_clip * self.noise_multiplier, gs[0].shape[0]
        noisy = [
            x + cast(deviation, real_dtype(x.dtype)) * _normal(k, x)
            for x, k in zip(sums, call.keys(slots.rng_key), strict=True)
        ]
        return [x / max(size, 1) for x in noisy], {}


def _normal(key: jax.Array, x: jax.Array) -> jax.Array:
    """Standard normal numbers like an array; of a complex one both parts are."""
    noise = jax.random.normal(key, x.shape, x.dtype)
    return noise * np.sqrt(2).astype(real_dtype(x.dtype)) if jnp.iscomplexobj(x) else noise


@factory
def differentially_private_aggregate(
    l2_norm_clip: ScalarOrSchedule,
    noise_multiplier: ScalarOrSchedule,
    key: Seed | None = None,
    *,
    seed: int | None = None,
) -> Transform:
    """Makes a private mean of the gradients of a batch's examples: each is clipped, and noise is added.

        u = (sum over examples of g min(1, C / ||g||) + n) / B          n ~ N(0, (sigma C)²), elementwise

    with ||g|| over all leaves of an example, C = l2_norm_clip, sigma = noise_multiplier and B the number of
    examples. Gradients have the examples along axis 0, as `jax.vmap(jax.grad(loss), in_axes=(None, 0))` gives
    them, so that it must be the first of a chain. Without parameters `update` takes axis 0 as that of the
    examples, if all leaves have it alike. An example with an Inf or NaN adds nothing to the finite
    elements of the sum. The noise of a step and leaf depends on the key, the step and the leaf's path alone.

    Args:
        l2_norm_clip: C, the bound of the norm of each example, >= 0.
        noise_multiplier: the standard deviation of the noise as a part of C, >= 0.
        key: an int, a `jax.random.key`, or a key's raw data. It must be secret, and new for each run.
        seed: another name of `key`, as an int.

    Returns:
        A transform whose state holds the key's raw data.

    Raises:
        ValueError: there is no key, or both `key` and `seed`; while tracing, the gradients have no axis of
            examples.

    Examples:
        >>> import gradtx, jax, jax.numpy as jnp
        >>> tx, w = gradtx.differentially_private_aggregate(1.0, 0.0, key=1), jnp.zeros(2)
        >>> print(tx.update(jnp.array([[0.0, 4.0], [0.5, 0.0]]), tx.init(w), w)[0])
        [0.25 0.5 ]

    References:
        Abadi et al., Deep Learning with Differential Privacy, 2016, https://arxiv.org/abs/1607.00133.
    """
    given = given_key("differentially_private_aggregate", key, seed)
    if given is None:
        raise ValueError(
            "differentially_private_aggregate: give a key. With one that everybody knows the noise can be "
            "taken away again."
        )
    return DifferentiallyPrivateAggregate(
        l2_norm_clip=l2_norm_clip, noise_multiplier=noise_multiplier, key=given
    )
