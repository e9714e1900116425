"""Schedules that are Python functions: with numbers outside of `jit`, and with a clear error inside."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.core.numbers.schedule import contains_code
from gradtx.inspect.schedules_over_run import sampled

TABLE = [0.5, 0.25, 0.125, 0.0625]

FUNCTIONS = {
    "if": lambda t: 0.1 if t < 2 else 0.01,
    "numpy": lambda t: np.cos(np.pi * t / 10),
    "numpy, strictly": lambda t: float(np.cos(np.pi * np.asarray(t) / 10)),
    "list": lambda t: TABLE[int(t)],
    "list by index": lambda t: TABLE[t],
    "float": lambda t: 0.5 ** float(t),
    "math": lambda t: math.cos(t / 10),
}
"""Functions that ask for the number of the step, as they are written for other libraries."""

WAYS = {
    "sgd": lambda rate: gradtx.sgd(rate),
    "adamw": lambda rate: gradtx.adamw(0.1, weight_decay=rate),
    "scale_by_schedule": lambda rate: gradtx.scale_by_schedule(rate),
    "joined": lambda rate: gradtx.sgd(gradtx.join_schedules([rate, 0.5], [4])),
    "joined later": lambda rate: gradtx.sgd(gradtx.join_schedules([0.5, rate], [1])),
    "track": lambda rate: gradtx.track(gradtx.sgd(rate), every=1),
    "accumulate": lambda rate: gradtx.accumulate(gradtx.sgd(0.5), lambda t: 2 if t < 1 else 1),
    "in accumulate": lambda rate: gradtx.accumulate(gradtx.guard(gradtx.sgd(rate)), 2),
    "in MultiSteps": lambda rate: gradtx.MultiSteps(optax.sgd(rate), 2),
    "in apply_if_finite": lambda rate: gradtx.apply_if_finite(gradtx.lookahead(gradtx.sgd(rate), 2, 0.5), 3),
    "in conditionally_transform": lambda rate: gradtx.conditionally_transform(
        gradtx.sgd(rate), lambda t: t != 1
    ),
    "named": lambda rate: gradtx.named_chain(("a", gradtx.sgd(rate)), ("b", gradtx.scale(1.0))),
}


@pytest.fixture(autouse=True)
def promotion():
    """A user's function may multiply a step by a float, which the strict setting of these tests refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def trajectory(tx, step, number=4):
    params, found = jnp.ones(1), []
    state = tx.init(params)
    for _ in range(number):
        params, state = step(tx, jnp.ones(1), state, params)
        found.append(float(params[0]))
    return found, state


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_python_function_works_outside_of_jit(name):
    rate = FUNCTIONS[name]
    tx, params = gradtx.sgd(rate), jnp.ones(())
    state = tx.init(params)
    for t in range(4):
        expected = float(rate(t))
        np.testing.assert_allclose(gradtx.hyperparams(state)["learning_rate"], expected, rtol=1e-6)
        u, state = tx.update(jnp.ones(()), state, params)
        np.testing.assert_allclose(-u, expected, rtol=1e-6)


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", ["update", "apply_gradients"])
def test_wherever_it_stands(way, step):
    """As a table of what it gives, which is traced."""
    rate = FUNCTIONS["if"]
    table = jnp.array([rate(t) for t in range(8)])

    def update(tx, grads, state, params):
        u, state = tx.update(grads, state, params)
        return params + u, state

    run = update if step == "update" else gradtx.apply_gradients
    found, _ = trajectory(WAYS[way](rate), run)
    expected, _ = trajectory(WAYS[way](lambda t: table[t]), run)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_inside_jit_the_error_names_the_argument(name):
    tx = gradtx.sgd(FUNCTIONS[name])
    state = tx.init(jnp.ones(()))
    with pytest.raises(
        TypeError, match=r"sgd\.learning_rate is a Python function.*traced.*jnp\.where"
    ) as info:
        jax.jit(tx.update)(jnp.ones(()), state)
    assert info.value.__cause__ is not None


def test_the_error_names_the_place_in_a_schedule_and_in_a_chain():
    joined = gradtx.join_schedules([0.5, FUNCTIONS["if"]], [4])
    tx = gradtx.named_chain(("a", gradtx.scale_by_adam()), ("b", gradtx.scale_by_learning_rate(joined)))
    with pytest.raises(
        TypeError, match=r"b\.scale_by_learning_rate\.learning_rate\.schedules\.1 is a Python"
    ):
        jax.jit(tx.update)(jnp.ones(()), tx.init(jnp.ones(())))
    with pytest.raises(TypeError, match=r"join_schedules\.schedules\.1 is a Python function"):
        jax.jit(joined)(0)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_joined_function_takes_an_array_of_steps(name):
    joined = gradtx.join_schedules([gradtx.linear_schedule(0.0, 1.0, 4), FUNCTIONS[name]], [6])
    steps = jnp.arange(10)
    expected = [float(joined(t)) for t in range(10)]
    np.testing.assert_allclose(joined(steps), expected, rtol=1e-6)
    np.testing.assert_allclose(joined(steps.reshape(2, 5)), np.reshape(expected, (2, 5)), rtol=1e-6)


@pytest.mark.wide
def test_a_traced_array_of_steps_too():
    joined = gradtx.join_schedules([gradtx.linear_schedule(0.0, 1.0, 4), lambda t: 0.5 * t], [6])
    expected = [min(t / 4, 1.0) for t in range(6)] + [0.0, 0.5, 1.0, 1.5]
    for way in (joined, jax.jit(joined), jax.vmap(joined)):
        np.testing.assert_allclose(way(jnp.arange(10)), expected, rtol=1e-6)


def test_a_function_must_still_give_one_number():
    with pytest.raises(ValueError, match=r"must give a scalar, got shape \(2,\)"):
        gradtx.join_schedules([0.5, lambda t: jnp.ones(2)], [4])(0)


def test_which_arguments_contain_code():
    line = gradtx.linear_schedule(0.0, 1.0, 4)
    assert not any(
        map(contains_code, (None, 0.1, 3, line, gradtx.join_schedules([line, 0.5], [4]), (1.0, line)))
    )
    joined = gradtx.join_schedules([line, lambda t: t], [4])
    nested = gradtx.join_schedules([joined, 0.1], [9])
    assert all(map(contains_code, (FUNCTIONS["if"], joined, nested, (1.0, joined), np.cos)))


def test_what_looks_at_a_run_takes_python_functions():
    at = np.arange(4)
    np.testing.assert_allclose(sampled(FUNCTIONS["if"], at), [0.1, 0.1, 0.01, 0.01], rtol=1e-6)
    np.testing.assert_allclose(sampled(FUNCTIONS["list"], at), TABLE, rtol=1e-6)
