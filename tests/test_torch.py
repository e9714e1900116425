"""Every recorded trajectory of torch, 100 steps in float64: golden/make_torch.py says how they were made."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from golden import TORCH_CASES, load_torch
from gradtx.core.engine.structure import Structure
from trajectories import x64

TORCH = load_torch()


@functools.partial(jax.jit, static_argnums=0)
def step(tx, grads, state, params):
    return gradtx.apply_gradients(tx, grads, state, params)


def trajectory(tx):
    params = [jnp.asarray(p) for p in TORCH.params]
    state, history = tx.init(params), []
    for grads_at in TORCH.grads_by_step:
        grads = [jnp.asarray(g) for g in grads_at([np.asarray(p) for p in params])]
        params, state = step(Structure.of(tx), grads, state, params)
        history.append([np.asarray(p) for p in params])
    return history


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("case", TORCH_CASES)
def test_follows_torch(case):
    name, kwargs = TORCH_CASES[case]
    with x64():
        history = trajectory(getattr(gradtx, name)(**kwargs))
    for number, expected in zip(TORCH.steps, TORCH.trajectories[case], strict=True):
        for actual, leaf in zip(history[number - 1], expected, strict=True):
            np.testing.assert_allclose(actual, leaf, rtol=1e-11, atol=1e-13, err_msg=f"step {number}")


def test_every_optimizer_of_the_founding_documents_has_a_recording():
    names = {name for name, _ in TORCH_CASES.values()}
    assert names >= {"sgd", "adagrad", "rmsprop", "adadelta", "adam", "adamw"}
