"""Mistakes that a type checker finds: where it does not find one any more, the comment is an error."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import gradtx
import gradtx.flax
import gradtx.testing
import gradtx.typing


def a_name_that_is_not_there() -> None:
    gradtx.adamm(0.1)  # type: ignore[attr-defined]
    gradtx.contrib.muonn(0.1)  # type: ignore[attr-defined]
    gradtx.flax.TrainedState()  # type: ignore[attr-defined]
    gradtx.schedules.no_such_name(0.1)  # type: ignore[attr-defined]
    gradtx.testing.checks(gradtx.sgd(0.1))  # type: ignore[attr-defined]
    gradtx.transforms.scale_by_adamm()  # type: ignore[attr-defined]
    gradtx.tree.normm({})  # type: ignore[attr-defined]
    gradtx.tree_utils.tree_normm({})  # type: ignore[attr-defined]
    gradtx.typing.Slot()  # type: ignore[attr-defined]


def an_argument_that_is_not_there() -> None:
    gradtx.sgd(0.1, nestrov=True)  # type: ignore[call-arg]


def an_argument_of_another_kind() -> None:
    gradtx.adamw("0.1")  # type: ignore[arg-type]
    gradtx.adamw(0.1, decay_coupling="rates")  # type: ignore[arg-type]
    gradtx.accumulate_gradients(1, 2)  # type: ignore[arg-type]


def what_makes_a_transform_in_its_place() -> None:
    gradtx.chain(gradtx.clip, gradtx.sgd(0.1))  # type: ignore[arg-type]
    gradtx.guard(0.1)  # type: ignore[arg-type]
    gradtx.partition({"a": gradtx.sgd}, "*")  # type: ignore[dict-item]


def loss(params: dict[str, jax.Array]) -> jax.Array:
    return jnp.sum(params["w"])


def parameters_of_another_type() -> None:
    params = {"w": jnp.ones(2)}
    tx = gradtx.sgd(0.1)
    new: str = gradtx.apply_updates(params, params)  # type: ignore[assignment]
    new = gradtx.minimize(loss, params, tx, 2)[0]  # type: ignore[assignment]
    new = gradtx.eval_params(tx.init(params), params)  # type: ignore[assignment]
    print(new)
