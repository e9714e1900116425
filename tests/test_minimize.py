"""`minimize`: one compiled loop with the same numbers as a loop by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

START = {"x": jnp.array([1.0, -2.0]), "y": jnp.float32(0.5)}


def loss(p):
    return jnp.sum((p["x"] - 3.0) ** 2) + jnp.sin(p["y"])


@pytest.mark.by_turns(1)
@pytest.mark.parametrize(
    "tx",
    [
        gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 10)),
        gradtx.chain(gradtx.clip(0.5), gradtx.sgd(0.1, 0.9)),
    ],
    ids=repr,
)
def test_it_equals_a_loop(tx):
    found, history = gradtx.minimize(loss, START, tx, 10)
    params, state, losses = START, tx.init(START), []
    step = jax.jit(lambda g, s, p: gradtx.apply_gradients(tx, g, s, p))
    for _ in range(10):
        value, grads = jax.value_and_grad(loss)(params)
        losses.append(value)
        params, state = step(grads, state, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, params)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-6)


@pytest.mark.brief
def test_it_finds_the_minimum():
    found, history = gradtx.minimize(lambda x: jnp.sum((x - 3.0) ** 2), jnp.zeros(2), gradtx.adam(0.1), 300)
    np.testing.assert_allclose(found, 3.0, atol=1e-3)
    assert history["loss"].shape == (300,)
    assert float(history["loss"][0]) == 18.0


def test_the_start_stays_usable():
    gradtx.minimize(loss, START, gradtx.sgd(0.1), 2)
    assert START["x"].tolist() == [1.0, -2.0]


def test_no_steps_give_the_start():
    found, history = gradtx.minimize(loss, START, gradtx.sgd(0.1), 0)
    assert found["x"].tolist() == [1.0, -2.0]
    assert history["loss"].shape == (0,)


class ByPolyak(gradtx.Rule, name="by_polyak"):
    """u = -value / |g|² g, for a loss whose minimum is 0."""

    needs = ("value",)

    def prepare(self, now):
        return {"value": now.extra["value"]}

    def measure(self, g, slots, leaf):
        return {"squares": jnp.sum(g * g)}

    def conclude(self, totals, now):
        return {"rate": now.value / totals.squares}

    def apply(self, g, slots, leaf):
        return -leaf.rate * g, slots


def test_the_transform_gets_the_value():
    _, history = gradtx.minimize(lambda x: (x - 3.0) ** 2, jnp.float32(0.0), ByPolyak(), 3)
    np.testing.assert_allclose(
        history["loss"], [9.0, 2.25, 0.5625], rtol=1e-6
    )  # each step halves the distance


def test_it_takes_optaxs_optimizers():
    found, _ = gradtx.minimize(lambda x: (x - 3.0) ** 2, jnp.float32(0.0), optax.sgd(0.5), 1)
    assert float(found) == 3.0


def test_it_runs_inside_vmap_over_learning_rates():
    def final(rate):
        return gradtx.minimize(lambda x: (x - 3.0) ** 2, jnp.float32(0.0), gradtx.sgd(rate), 1)[0]

    np.testing.assert_allclose(jax.vmap(final)(jnp.array([0.0, 0.25, 0.5])), [0.0, 1.5, 3.0])
