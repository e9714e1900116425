"""Scaling by leaf: a factor that a function of the leaf's path and of the leaf gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.compose.rule import Rule, Slot
from gradtx.core.engine.scope import Leaf, Slots
from gradtx.core.engine.transform import Transform
from gradtx.core.spec.arguments import builds
from gradtx.core.spec.fields import Scalar
from gradtx.core.spec.spec import show


class ScaleByLeaf(Rule, name="scale_by_leaf"):
    """u = c g, with a factor c for each leaf."""

    factor: Any

    def _given(self, param: Any, path: str) -> Any:
        value = self.factor(path, param)
        if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.number):
            raise TypeError(
                f"{self.name}: factor must give a number for each leaf; for {path!r} it gives {show(value)}."
            )
        return value

    value = Slot(real=True, shape=lambda rule, shape: (), init=_given)

    def check(self) -> None:
        if not callable(self.factor):
            raise TypeError(
                f"{self.name}: factor must be a function of a leaf's path and of the leaf, got "
                f"{show(self.factor)}."
            )

    def apply(self, g: jax.Array, slots: Slots, leaf: Leaf) -> tuple[jax.Array, Any]:
        return slots.value * g, slots


@builds(ScaleByLeaf)
def scale_by_leaf(factor: Callable[[str, Any], Scalar]) -> Transform:
    """Multiplies the update of each leaf by a number that a function of the leaf gives: u = c(path, leaf) g.

    After an optimizer it gives each leaf a learning rate of its own, such as those of maximal update
    parametrization (muP), where a matrix has one that is inverse to the number of its inputs. For a few
    groups of leaves take `scale_by_group`, whose factors are hyperparameters and may follow a schedule.

    Args:
        factor: a function of (path, leaf) that gives a number. `init` calls it, and the state keeps what it
            gave: a state that was made before keeps its factors, whatever the function says now.

    Returns:
        A transform with the slot `value`, a number for each leaf.

    Raises:
        TypeError: `factor` is no function; at init, it gives something else than a number.

    Examples:
        >>> import gradtx, jax.numpy as jnp
        >>> tx = gradtx.chain(
        ...     gradtx.sgd(1.0), gradtx.scale_by_leaf(lambda path, x: 1 / x.shape[0] if x.ndim == 2 else 1.0)
        ... )
        >>> params = {"kernel": jnp.ones((4, 1)), "bias": jnp.ones(1)}
        >>> {name: u.ravel().tolist() for name, u in tx.update(params, tx.init(params))[0].items()}
        {'bias': [-1.0], 'kernel': [-0.25, -0.25, -0.25, -0.25]}

    References:
        Yang et al., Tensor Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter Transfer,
        2022, https://arxiv.org/abs/2203.03466.
    """
    ...
