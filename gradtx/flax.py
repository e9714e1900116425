"""Flax: a `TrainState` and an NNX `Optimizer` that update and apply in one.

Flax's own classes take gradtx's transforms as they are. These differ in three ways: they call
`gradtx.apply_gradients`; transforms that differ in numbers alone share one compiled step; and a new `tx`
brings its numbers along (`TrainState.replace(tx=...)`). The numbers in force are those of the state: read
them with `gradtx.hyperparams(train_state)`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.training import train_state

from gradtx.core.engine.composed import Composed
from gradtx.core.engine.rebase import rebase
from gradtx.core.engine.structure import Structure
from gradtx.core.engine.transform import apply_gradients
from gradtx.core.numbers.states import is_state
from gradtx.micro_batches import check_count, combined

_pure: Any = getattr(nnx, "as_pure", None) or getattr(nnx, "pure")  # noqa: B009 - by Flax's version


class TrainState(train_state.TrainState):
    """Flax's `TrainState`, for gradtx.

    Examples:
        >>> import gradtx, gradtx.flax, jax.numpy as jnp
        >>> state = gradtx.flax.TrainState.create(
        ...     apply_fn=None, params={"w": jnp.ones(2)}, tx=gradtx.sgd(0.5)
        ... )
        >>> state = state.apply_gradients(grads={"w": jnp.ones(2)})
        >>> state.params["w"].tolist()
        [0.5, 0.5]
        >>> gradtx.hyperparams(state.replace(tx=gradtx.sgd(0.1)))
        {'learning_rate': 0.1}
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.replace = _replace

    @classmethod
    def create(cls, *, apply_fn: Any, params: Any, tx: Any, **kwargs: Any) -> Any:
        """A new instance at step 0, with the state of `tx` for `params`."""
        structure: Any = Structure.of(tx)
        opt_state = structure.init(_trained(params))
        # Placed as the optimizer's own step is, so that the first call compiles for all later ones.
        step = jnp.copy(opt_state["step"]) if is_state(opt_state) else jnp.zeros((), jnp.int32)
        return cls(step=step, apply_fn=apply_fn, params=params, tx=structure, opt_state=opt_state, **kwargs)

    def apply_gradients(self, *, grads: Any, **kwargs: Any) -> Any:
        """The next state.

        Args:
            grads: gradients, a tree like `params`.
            **kwargs: fields to replace, as in Flax; other names go to the transform, such as `value=loss`.

        Returns:
            A new instance, with step, params and opt_state updated.
        """
        names = {f.name for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        fields = {k: v for k, v in kwargs.items() if k in names}
        extra = {k: v for k, v in kwargs.items() if k not in names}
        params, opt_state = apply_gradients(
            self.tx, _trained(grads), self.opt_state, _trained(self.params), **extra
        )
        if isinstance(grads, Mapping) and OVERWRITE_WITH_GRADIENT in grads:
            overwritten = grads[OVERWRITE_WITH_GRADIENT]
            params = {"params": params, OVERWRITE_WITH_GRADIENT: overwritten}
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **fields)


def _trained(tree: Any) -> Any:
    """The part that the optimizer trains: fp8 scales are overwritten with their gradients instead."""
    return tree["params"] if isinstance(tree, Mapping) and OVERWRITE_WITH_GRADIENT in tree else tree


def _replace(self: Any, **updates: Any) -> Any:
    """A copy with fields replaced. A new `tx` keeps the slots and the step, and brings its numbers."""
    tx = Structure.of(updates.get("tx"))
    if tx is not None:
        updates["tx"] = tx
        if "opt_state" not in updates and isinstance(tx, Composed):
            updates["opt_state"], _ = rebase(tx, self.opt_state)
    return dataclasses.replace(self, **updates)


TrainState.replace = _replace  # type: ignore[method-assign]  # after Flax's decorator has set its own


class Optimizer(nnx.Optimizer):
    """Flax NNX's `Optimizer`, for gradtx.

    Examples:
        >>> import gradtx, gradtx.flax, jax.numpy as jnp
        >>> from flax import nnx
        >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> optimizer = gradtx.flax.Optimizer(model, gradtx.adam(1e-3), wrt=nnx.Param)
        >>> grads = nnx.grad(lambda m: m(jnp.ones((1, 2))).sum())(model)
        >>> optimizer.update(model, grads)
        >>> gradtx.step_count(optimizer)
        1
    """

    def __init__(self, model: Any, tx: Any, *, wrt: Any) -> None:
        structure: Any = Structure.of(tx)  # Flax's annotation names Optax's class
        super().__init__(model, structure, wrt=wrt)

    def update(self, model: Any, grads: Any, /, **extra: Any) -> None:  # type: ignore[override]
        """Moves the model's parameters and the optimizer's state, in place.

        Args:
            model: the model.
            grads: gradients with respect to the variables that `wrt` selects.
            **extra: what the transform needs, such as `value=loss`.
        """
        params, opt_state = apply_gradients(
            self.tx,
            _pure(nnx.state(grads, self.wrt)),
            _pure(self.opt_state),
            _pure(nnx.state(model, self.wrt)),
            **_pure(extra),
        )
        nnx.update(model, params)
        nnx.update(self.opt_state, nnx.state(opt_state))
        self.step[...] += 1


def accumulate_gradients(grad_fn: Callable[..., Any], n: int) -> Callable[..., Any]:
    """`gradtx.accumulate_gradients` for a function of an NNX model, such as `nnx.value_and_grad(loss)`.

    What the model keeps (batch statistics, counts of random streams) goes from each micro-batch to the next.

    Args:
        grad_fn: a function of (model, *batches, **others).
        n: the number of micro-batches, which divides the leading axis of every array in `batches`.

    Returns:
        A function of the same arguments and results; it updates the model's state in place.

    Examples:
        >>> import gradtx.flax, jax.numpy as jnp
        >>> from flax import nnx
        >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> grad_fn = nnx.value_and_grad(lambda m, x: jnp.mean(m(x) ** 2))
        >>> loss, grads = gradtx.flax.accumulate_gradients(grad_fn, 4)(model, jnp.ones((8, 2)))
        >>> grads["kernel"].shape
        (2, 1)
    """
    check_count(n)

    @functools.wraps(grad_fn)
    def over_micro_batches(model: Any, *batches: Any, **others: Any) -> Any:
        graph, state = nnx.split(model)

        def one(kept: Any, micro: Any) -> Any:
            local = nnx.merge(graph, kept)
            result = grad_fn(local, *micro, **others)
            return nnx.state(local), result

        state, result = combined(one, state, batches, n)
        nnx.update(model, state)
        return result

    return over_micro_batches
