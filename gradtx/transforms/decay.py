"""Weight decay."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule
from gradtx.core.engine.leaves import Mask
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.numerics import agree
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import NonNegative, ScalarOrSchedule


class AddDecayedWeights(Rule, name="add_decayed_weights"):
    """u = g + weight_decay theta."""

    weight_decay: NonNegative
    mask: Mask

    needs = ("params",)

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return g + self.weight_decay * leaf.param, slots


class AddCautiousDecayedWeights(AddDecayedWeights, name="add_cautious_decayed_weights"):
    """u = g + weight_decay theta where g theta >= 0, and g elsewhere."""

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        shrinks = agree(g, leaf.param) >= 0
        return g + jnp.where(shrinks, self.weight_decay * leaf.param, jnp.zeros_like(leaf.param)), slots


@builds(AddDecayedWeights)
def add_decayed_weights(weight_decay: ScalarOrSchedule = 0.0, mask: Mask = None) -> Transform:
    """Adds the parameters, times a weight decay, to the updates: u = g + lambda theta.

    Its place in the chain decides what it means: before the moments it is L2 regularization (the gradient
    of 1/2 lambda theta²); after them, before the learning rate, it is AdamW's decay times the rate; after
    the rate, before the sign, it is independent of the rate.

    Args:
        weight_decay: lambda, the strength of the weight decay, >= 0.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.

    Returns:
        A transform without slots; `update` needs the parameters.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.add_decayed_weights(0.1), jnp.array([1.0, -2.0])
        >>> tx.update(jnp.zeros(2), tx.init(params), params)[0].round(3).tolist()
        [0.10000000149011612, -0.20000000298023224]

    References:
        Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2017, https://arxiv.org/abs/1711.05101.
    """
    ...


@builds(AddCautiousDecayedWeights)
def add_cautious_decayed_weights(weight_decay: ScalarOrSchedule = 0.0, mask: Mask = None) -> Transform:
    """Decays the weights that the step makes smaller anyway: u = g + lambda theta where g theta >= 0.

    It stands before the learning rate, behind a direction g, against which the step goes. Of a complex
    element the product is the real part of conj(g) theta.

    Args:
        weight_decay: lambda, the strength of the weight decay, >= 0.
        mask: which leaves to decay, as `gradtx.masked` takes it; by default all.

    Returns:
        A transform without slots; `update` needs the parameters.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx, params = gradtx.add_cautious_decayed_weights(0.5), jnp.array([1.0, -2.0])
        >>> tx.update(jnp.ones(2), tx.init(params), params)[0].tolist()
        [1.5, 1.0]

    References:
        Chen et al., Cautious Weight Decay, 2025, https://arxiv.org/abs/2510.12402.
    """
    ...
