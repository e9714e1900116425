"""Gradient noise: its distribution, what it depends on, and the step that it is part of."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from trajectories import x64

SIZE = 20_000
ETA, GAMMA = 0.04, 0.55
STEPS = 20


def draws(tx, params, steps=STEPS):
    """The noise of each step: what becomes of gradients of zero."""
    update = jax.jit(tx.update)
    zeros, state, history = jax.tree.map(jnp.zeros_like, params), tx.init(params), []
    for _ in range(steps):
        u, state = update(zeros, state)
        history.append(u)
    return jax.tree.map(lambda *x: np.stack(x), *history)


@pytest.fixture(scope="module")
def noise():
    params = {"a": jnp.zeros(SIZE), "b": jnp.zeros(SIZE), "z": jnp.zeros(SIZE, jnp.complex64)}
    return draws(gradtx.add_noise(ETA, GAMMA, key=1), params)


def sigmas(estimate, expected, deviation):
    """How many standard deviations of the estimate lie between it and what is expected."""
    return np.max(np.abs(estimate - expected) / deviation)


@pytest.mark.wide
def test_the_noise_is_normal_with_the_variance_of_its_formula(noise):
    """Mean, variance and fourth moment of 20,000 elements at each of 20 steps, within 5 sigma."""
    variance = ETA / np.arange(1, STEPS + 1) ** GAMMA
    for leaf in ("a", "b"):
        x = noise[leaf].astype(np.float64)
        assert sigmas(x.mean(1), 0.0, np.sqrt(variance / SIZE)) < 5
        assert sigmas((x**2).mean(1), variance, variance * np.sqrt(2 / SIZE)) < 5
        assert sigmas((x**4).mean(1), 3 * variance**2, variance**2 * np.sqrt(96 / SIZE)) < 5


@pytest.mark.wide
def test_complex_noise_has_that_variance_in_all(noise):
    z = noise["z"]
    variance = ETA / np.arange(1, STEPS + 1) ** GAMMA
    for part in (z.real, z.imag):
        half = (part.astype(np.float64) ** 2).mean(1)
        assert sigmas(half, variance / 2, variance / 2 * np.sqrt(2 / SIZE)) < 5


def test_steps_and_leaves_are_independent(noise):
    """No correlation above 5 sigma between any two of: the steps of a leaf, the leaves at a step."""
    rows = np.concatenate([noise["a"], noise["b"], noise["z"].real, noise["z"].imag]).astype(np.float64)
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    assert np.max(np.abs(correlation)) < 5 / np.sqrt(SIZE)


@pytest.mark.wide
def test_a_key_decides_all_of_it():
    params = jnp.zeros(5)
    same = [draws(gradtx.add_noise(ETA, GAMMA, key=1), params, 3) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    other = draws(gradtx.add_noise(ETA, GAMMA, key=2), params, 3)
    assert np.all(same[0] != other)


@pytest.mark.wide
def test_a_key_may_be_given_in_each_form():
    params = jnp.zeros(5)
    typed = jax.random.key(7)
    forms = [{"key": 7}, {"seed": 7}, {"key": typed}, {"key": jax.random.key_data(typed)}]
    first, *rest = (draws(gradtx.add_noise(ETA, GAMMA, **form), params, 2) for form in forms)
    for other in rest:
        np.testing.assert_array_equal(other, first)


def test_without_noise_it_is_gradient_descent():
    grads, params = jnp.array([1.0, -2.0]), jnp.zeros(2)
    for tx in (gradtx.noisy_sgd(0.1, eta=0.0), gradtx.sgd(0.1)):
        u, _ = tx.update(grads, tx.init(params))
        np.testing.assert_array_equal(u, -jnp.float32(0.1) * grads)


@pytest.mark.wide
def test_follows_its_reference_on_the_noise_that_it_drew():
    """theta <- theta - eta (g + sqrt(0.01 / t^0.55) n), n from the key of the step and the leaf's path."""
    rng = np.random.default_rng(0)
    grads = {"a": rng.normal(size=(100, 3)), "b": rng.normal(size=(100, 2, 2))}
    with x64():
        tx = gradtx.noisy_sgd(0.1, key=5)
        params = {k: jnp.asarray(g[0]) for k, g in grads.items()}
        expected = {k: np.asarray(p) for k, p in params.items()}
        state, step = tx.init(params), jax.jit(lambda g, s, p: gradtx.apply_gradients(tx, g, s, p))
        for t in range(100):
            params, state = step({k: jnp.asarray(g[t]) for k, g in grads.items()}, state, params)
            key = jax.random.fold_in(jax.random.key(5), t)
            for name in expected:
                own = jax.random.fold_in(key, zlib.crc32(name.encode()))
                n = jax.random.normal(own, expected[name].shape)
                noisy = grads[name][t] + np.sqrt(0.01 / (t + 1) ** 0.55) * np.asarray(n)
                expected[name] = expected[name] - 0.1 * noisy
                np.testing.assert_allclose(params[name], expected[name], rtol=1e-12, atol=1e-14)
