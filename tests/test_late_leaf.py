"""A leaf that gets its first gradient late: the chain's step, or torch's count of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

LATE = 3_000
RULES = {
    "adam": lambda: gradtx.adam(0.1),
    "adamw": lambda: gradtx.adamw(0.1),
    "nadam": lambda: gradtx.nadam(0.1),
    "ademamix": lambda: gradtx.ademamix(0.1),
    "rmsprop": lambda: gradtx.rmsprop(0.1, bias_correction=True),
    "ema": lambda: gradtx.ema(0.9),
}


def first_update(tx, late=LATE, **now):
    """The update of b when its first gradient comes."""
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}

    @jax.jit
    def step(_, state):
        kept = {name: False for name in now}
        return tx.update({"a": jnp.ones(1), "b": None}, state, params, **kept)[1]

    state = jax.lax.fori_loop(0, late, step, tx.init(params))
    update, _ = tx.update({"a": jnp.ones(1), "b": jnp.ones(1)}, state, params, **now)
    return float(update["b"][0])


def recipes(make):
    """Those of docs/from-torch.md: by the step, or told in the call."""
    by_step = gradtx.conditionally_mask(make(), lambda step: step >= LATE)
    told = gradtx.conditionally_mask(make(), lambda step, *, train_b: train_b, forward_extra_args=True)
    for late in (by_step, told):
        yield gradtx.partition({"early": make(), "late": late}, {"a": "early", "b": "late"})


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", RULES)
def test_a_clock_of_its_own_gives_a_late_leaf_the_first_step_of_a_new_optimizer(name):
    make = RULES[name]
    wanted = first_update(make(), late=0)
    by_step, told = recipes(make)
    np.testing.assert_allclose(first_update(by_step), wanted, rtol=1e-6)
    np.testing.assert_allclose(first_update(told, train_b=True), wanted, rtol=1e-6)


def test_adams_first_update_of_a_late_leaf_is_torchs():
    """torch, which counts the steps of each parameter, moves it by -0.1."""
    np.testing.assert_allclose(first_update(gradtx.adam(0.1)), -0.308, atol=5e-4)
    for tx, now in zip(recipes(RULES["adam"]), ({}, {"train_b": True}), strict=True):
        np.testing.assert_allclose(first_update(tx, **now), -0.1, rtol=1e-6)
