"""What the founding documents claim, where it can be tested: the rows of docs/conventions.md by name."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from why import adagrad, decay, momentum
from why.experiment import false_statements

PAGE = Path(__file__).parent.parent / "docs" / "conventions.md"


def trajectory(tx, params, gradient, steps):
    """The parameters after each step; `gradient` maps (params, step from 0) to a gradient."""
    params, history = jnp.asarray(params, jnp.float32), []
    state, step = tx.init(params), jax.jit(lambda g, s, p: gradtx.apply_gradients(tx, g, s, p))
    for t in range(steps):
        params, state = step(jnp.asarray(gradient(params, t), jnp.float32), state, params)
        history.append(np.asarray(params))
    return np.stack(history)


def steps_of(tx, gradients):
    """The updates for a sequence of gradients, at parameters 0."""
    start = np.zeros_like(gradients[0])
    path = trajectory(tx, start, lambda p, t: gradients[t], len(gradients))
    return np.diff(np.concatenate([start[None], path]), axis=0)


def assert_claim(experiment):
    """Of docs/why.md; tests/test_why.py asserts it for more seeds, and with the methods exchanged."""
    assert false_statements(experiment, experiment.measured(seed=0)) == []


def test_rows_and_tests_correspond():
    claims = re.findall(r"^\| `(\w+)` \|", PAGE.read_text().partition("claim\n")[2], flags=re.M)
    tests = [name for name in globals() if name.startswith("test_")]
    assert ["test_rows_and_tests_correspond", *(f"test_{claim}" for claim in claims)] == tests


def test_bias_correction_removes_the_zero_start():
    gradients = np.full((20, 1), 3.0)
    corrected = steps_of(gradtx.ema(0.9), gradients)[:, 0]
    plain = steps_of(gradtx.ema(0.9, debias=False), gradients)[:, 0]
    np.testing.assert_allclose(corrected, 3.0, rtol=1e-5)
    np.testing.assert_allclose(plain, 3.0 * (1 - 0.9 ** np.arange(1, 21)), rtol=1e-5)


def test_momentum_damps_and_speeds_up():
    assert_claim(momentum.EXPERIMENT)


def test_adagrad_suits_sparse_gradients():
    gradients = np.stack([np.ones(101), np.arange(101) % 20 == 0], axis=1)
    steps = steps_of(gradtx.adagrad(0.1, initial_accumulator_value=0.0), gradients)
    frequent, rare = np.abs(steps[100])
    np.testing.assert_allclose(rare / frequent, np.sqrt(101 / 6), rtol=1e-4)


@pytest.mark.wide
def test_adagrad_starves_and_rmsprop_forgets():
    assert_claim(adagrad.EXPERIMENT)


@pytest.mark.wide
def test_a_large_v_cancels_l2_under_adam():
    assert_claim(decay.EXPERIMENT)


@pytest.mark.wide
def test_the_rate_inside_the_buffer_matters_under_a_schedule():
    gradients = np.random.default_rng(0).normal(size=(30, 3))

    def difference(rate):
        inside = gradtx.chain(gradtx.scale_by_learning_rate(rate), gradtx.trace(0.9))
        outside = gradtx.chain(gradtx.trace(0.9), gradtx.scale_by_learning_rate(rate))
        return np.max(np.abs(steps_of(inside, gradients) - steps_of(outside, gradients)))

    assert difference(0.1) < 1e-6
    assert difference(gradtx.linear_schedule(0.1, 0.0, 20)) > 0.05


@pytest.mark.wide
def test_coupled_decay_is_the_gradient_of_l2():
    def loss(theta):
        return jnp.sum(jnp.sin(theta) * theta)

    def regularized(theta):
        return loss(theta) + 0.5 * 0.1 * jnp.sum(theta**2)

    start = [0.5, -2.0, 3.0]
    for make in (gradtx.sgd, gradtx.adam, gradtx.rmsprop, gradtx.adagrad):
        coupled = trajectory(make(0.05, weight_decay=0.1), start, lambda p, t: jax.grad(loss)(p), 30)
        in_the_loss = trajectory(make(0.05), start, lambda p, t: jax.grad(regularized)(p), 30)
        np.testing.assert_allclose(coupled, in_the_loss, rtol=1e-4, atol=1e-5)


def test_adadelta_and_adam_keep_two_slots():
    params = jnp.zeros(7)
    for tx in (gradtx.adadelta(1.0), gradtx.adam(1e-3), gradtx.adamw(1e-3)):
        assert [x.shape for x in jax.tree.leaves(tx.init(params)["slots"])] == [(7,), (7,)]
    # Rescaling all gradients rescales no step: there is nothing for a learning rate to fit.
    gradients = np.random.default_rng(0).normal(size=(30, 3))
    small, large = (steps_of(gradtx.adadelta(1.0, eps=1e-12), c * gradients) for c in (1.0, 1e3))
    np.testing.assert_allclose(small, large, rtol=1e-4)
