"""Flax: its own TrainState and NNX Optimizer unmodified, and gradtx's, train models to the same numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training import train_state

import gradtx
import gradtx.flax
from needy import Needy

X = jnp.array([[1.0, 2.0], [-1.0, 0.5], [0.5, -2.0]])
Y = jnp.array([[1.0], [-1.0], [0.5]])
TX = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-2, weight_decay=0.1))
OPTIMIZERS = {"nnx.Optimizer": nnx.Optimizer, "gradtx.flax.Optimizer": gradtx.flax.Optimizer}
TRAIN_STATES = {"Flax's": train_state.TrainState, "gradtx's": gradtx.flax.TrainState}


@pytest.fixture(autouse=True)
def promotion():
    """Flax's layers and Optax do not run under strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class Model(nnx.Module):
    """Two layers."""

    def __init__(self, rngs):
        self.first = nnx.Linear(2, 3, rngs=rngs)
        self.last = nnx.Linear(3, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(jnp.tanh(self.first(x)))


def loss(model):
    return jnp.mean((model(X) - Y) ** 2)


@nnx.jit
def train_step(model, optimizer):
    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value


def trained(cls, tx, steps=5):
    model = Model(nnx.Rngs(0))
    optimizer = cls(model, tx, wrt=nnx.Param)
    return [float(train_step(model, optimizer)) for _ in range(steps)], model, optimizer


def by_hand(tx, steps=5):
    """The same training through the functional interface."""
    graph, params = nnx.split(Model(nnx.Rngs(0)))

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(lambda p: loss(nnx.merge(graph, p)))(params)
        return *gradtx.apply_gradients(tx, grads, state, params), value

    state, values = tx.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state)
        values.append(float(value))
    return values


@pytest.mark.wide
@pytest.mark.brief
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_nnx_training_equals_the_functional_interface(cls):
    values, _, optimizer = trained(OPTIMIZERS[cls], TX)
    np.testing.assert_allclose(values, by_hand(TX), rtol=1e-6)
    assert values[-1] < values[0]
    assert int(optimizer.step[...]) == gradtx.step_count(optimizer) == 5


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_nnx_training_equals_optax(cls):
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=0.1))
    values, model, _ = trained(OPTIMIZERS[cls], TX)
    expected, other, _ = trained(nnx.Optimizer, theirs)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(model.last.kernel[...], other.last.kernel[...], rtol=1e-5)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_nnx_trains_the_selected_variables_alone(cls):
    model = Model(nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.state(model))
    bias = nnx.All(nnx.Param, nnx.PathContains("bias"))
    optimizer = OPTIMIZERS[cls](model, gradtx.sgd(0.1), wrt=bias)
    grads = nnx.grad(loss, argnums=nnx.DiffState(0, bias))(model)
    optimizer.update(model, grads)
    assert not jnp.array_equal(model.last.bias[...], before["last"]["bias"][...])
    assert jnp.array_equal(model.last.kernel[...], before["last"]["kernel"][...])


@pytest.mark.wide
def test_an_nnx_optimizer_keeps_bfloat16_moments():
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    tx = gradtx.adam(1e-2, mu_dtype=jnp.bfloat16)
    optimizer = gradtx.flax.Optimizer(model, tx, wrt=nnx.Param)
    kinds = jax.tree.map(lambda x: x.dtype, nnx.state(optimizer))
    optimizer.update(model, nnx.grad(lambda m: m(X.astype(jnp.bfloat16)).sum())(model))
    assert jax.tree.map(lambda x: x.dtype, nnx.state(optimizer)) == kinds
    assert model.kernel.dtype == jnp.bfloat16


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_keyword_arguments_reach_the_transform_through_an_nnx_optimizer(cls):
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    before = model.bias[...]
    optimizer = OPTIMIZERS[cls](model, gradtx.chain(Needy(), gradtx.scale(-1.0)), wrt=nnx.Param)
    grads = nnx.grad(lambda m: m(X).sum())(model)
    optimizer.update(model, grads, value=jnp.float32(0.5))
    assert (before - model.bias[...]).tolist() == [1.5]


def test_keyword_arguments_reach_the_transform_through_a_train_state():
    tx = gradtx.chain(Needy(), gradtx.scale(-1.0))
    state = gradtx.flax.TrainState.create(apply_fn=None, params=jnp.ones(2), tx=tx)
    assert state.apply_gradients(grads=jnp.ones(2), value=jnp.float32(0.25)).params.tolist() == [0.75, 0.75]


DENSE = linen.Dense(1)


@pytest.mark.by_turns(1)
@pytest.mark.brief
@pytest.mark.parametrize("cls", TRAIN_STATES)
def test_linen_training_equals_optax(cls):
    def losses(cls, tx):
        params = DENSE.init(jax.random.key(0), X)
        state = cls.create(apply_fn=DENSE.apply, params=params, tx=tx)

        @jax.jit
        def step(state):
            def objective(params):
                return jnp.mean((state.apply_fn(params, X) - Y) ** 2)

            value, grads = jax.value_and_grad(objective)(state.params)
            return state.apply_gradients(grads=grads), value

        values = []
        for _ in range(5):
            state, value = step(state)
            values.append(float(value))
        assert state.step == 5
        return values

    values = losses(TRAIN_STATES[cls], gradtx.adamw(1e-2))
    np.testing.assert_allclose(values, losses(train_state.TrainState, optax.adamw(1e-2)), rtol=1e-5)
    assert values[-1] < values[0]


def test_a_train_state_of_gradtx_takes_optaxs_transforms():
    state = gradtx.flax.TrainState.create(apply_fn=None, params=jnp.ones(2), tx=optax.sgd(0.5))
    assert state.apply_gradients(grads=jnp.ones(2)).params.tolist() == [0.5, 0.5]


def test_a_train_state_of_gradtx_rounds_a_bfloat16_parameter_once():
    params, grads = jnp.full(1, 1.0, jnp.bfloat16), jnp.full(1, -(2.0**-8 + 2.0**-18), jnp.float32)
    state = gradtx.flax.TrainState.create(apply_fn=None, params=params, tx=gradtx.sgd(1.0))
    # The update is just over half of the spacing at 1; narrowed first it would be half, which rounds to even.
    assert float(state.apply_gradients(grads=grads).params[0]) == 1.0 + 2.0**-7


def test_overwrite_with_gradient_is_taken_as_flax_takes_it():
    overwrite = train_state.OVERWRITE_WITH_GRADIENT
    params = {"params": jnp.ones(2), overwrite: jnp.zeros(1)}
    grads = {"params": jnp.ones(2), overwrite: jnp.full(1, 7.0)}
    ours = gradtx.flax.TrainState.create(apply_fn=None, params=params, tx=gradtx.sgd(0.5))
    theirs = train_state.TrainState.create(apply_fn=None, params=params, tx=optax.sgd(0.5))
    moved = [s.apply_gradients(grads=grads).params for s in (ours, theirs)]
    assert jax.tree.map(lambda x: x.tolist(), moved[0]) == jax.tree.map(lambda x: x.tolist(), moved[1])


def test_states_that_differ_in_numbers_alone_are_one_static_structure():
    tree = {"a": jnp.ones(2), "b": jnp.ones(2)}

    def structure(tx):
        return jax.tree.structure(gradtx.flax.TrainState.create(apply_fn=None, params=tree, tx=tx))

    assert structure(gradtx.adam(1e-3)) == structure(gradtx.adam(3e-4, b1=0.5))
    assert structure(gradtx.adam(1e-3)) != structure(gradtx.adam(1e-3, nesterov=True))
    assert structure(gradtx.adamw(1e-3, mask="*a")) != structure(gradtx.adamw(1e-3, mask="*b"))


def test_the_held_transform_prints_as_its_code():
    state = gradtx.flax.TrainState.create(apply_fn=None, params=jnp.ones(2), tx=TX)
    assert repr(state.tx) == "chain(clip_by_global_norm(1.0), adamw(0.01, weight_decay=0.1))"
