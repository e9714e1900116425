"""Hyperparameters are data: one compiled step serves every setting, wherever and however the state lives.

The first steps and the first setting compile what they need; then every program that XLA compiles counts,
those of single operations outside of the step too.
"""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training import train_state
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
import gradtx.flax
from catalogue import ENTRIES
from counting import compilations

PARAMS = {"w": jnp.ones((8, 2)), "b": jnp.zeros(8)}
GRADS = jax.tree.map(lambda p: p + 0.5, PARAMS)


def setting(i):
    return {
        "learning_rate": 1e-3 * (i + 1),
        "b1": 0.9 - 0.005 * i,
        "b2": 0.999 - 0.005 * i,
        "eps": 1e-8 * (i + 1),
        "weight_decay": 0.01 * i,
    }


TX = gradtx.adamw(**setting(0))


@jax.jit
def train_step(params, state):
    return gradtx.apply_gradients(TX, GRADS, state, params)


@jax.jit
def train_state_step(state):
    return state.apply_gradients(grads=GRADS)


@nnx.jit
def nnx_step(model, optimizer):
    optimizer.update(model, nnx.grad(lambda m: m(jnp.ones((1, 2))).sum())(model))


def plain():
    params, state = PARAMS, TX.init(PARAMS)
    for _ in range(2):
        params, state = train_step(params, gradtx.set_hyperparams(state, **setting(0)))
    yield
    for i in range(1, 100):
        state = gradtx.set_hyperparams(state, **setting(i))
        params, state = train_step(params, state)
    assert gradtx.hyperparams(state)["weight_decay"] == 0.99


def with_train_state(cls):
    state = cls.create(apply_fn=None, params=PARAMS, tx=TX)
    for _ in range(2):
        state = train_state_step(gradtx.set_hyperparams(state, **setting(0)))
    yield
    for i in range(1, 100):
        state = train_state_step(gradtx.set_hyperparams(state, **setting(i)))
    assert gradtx.hyperparams(state)["weight_decay"] == 0.99


def with_nnx(cls):
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = cls(model, TX, wrt=nnx.Param)
    for _ in range(2):
        gradtx.set_hyperparams(optimizer, **setting(0))
        nnx_step(model, optimizer)
    yield
    for i in range(1, 100):
        gradtx.set_hyperparams(optimizer, **setting(i))
        nnx_step(model, optimizer)
    assert gradtx.hyperparams(optimizer)["weight_decay"] == 0.99


def many_train_states():
    """100 states created with 100 settings; Flax's own class compares `tx` by its numbers too."""

    def one(i):
        tx = gradtx.adamw(**setting(i))
        return train_state_step(gradtx.flax.TrainState.create(apply_fn=None, params=PARAMS, tx=tx))

    train_state_step(one(0))
    yield
    last = [train_state_step(one(i)) for i in range(1, 100)][-1]
    assert gradtx.hyperparams(last)["weight_decay"] == 0.99


def many_nnx_optimizers():
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))

    def one(i):
        optimizer = gradtx.flax.Optimizer(model, gradtx.adamw(**setting(i)), wrt=nnx.Param)
        for _ in range(2):
            nnx_step(model, optimizer)
        return optimizer

    one(0)
    yield
    assert gradtx.hyperparams([one(i) for i in range(1, 50)][-1])["weight_decay"] == 0.49


def minimizations():
    def loss(x):
        return jnp.sum((x - 3.0) ** 2)

    gradtx.minimize(loss, jnp.zeros(2), gradtx.adamw(**setting(0)), 3)
    yield
    for i in range(1, 20):
        gradtx.minimize(loss, jnp.zeros(2), gradtx.adamw(**setting(i)), 3)


LOOPS = {
    "plain loop": plain,
    "Flax TrainState": functools.partial(with_train_state, train_state.TrainState),
    "gradtx TrainState": functools.partial(with_train_state, gradtx.flax.TrainState),
    "nnx.Optimizer": functools.partial(with_nnx, nnx.Optimizer),
    "gradtx Optimizer": functools.partial(with_nnx, gradtx.flax.Optimizer),
    "100 gradtx TrainStates": many_train_states,
    "gradtx Optimizers": many_nnx_optimizers,
    "minimize": minimizations,
}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_hundred_settings_compile_nothing_more(loop):
    running = LOOPS[loop]()
    next(running)
    with compilations() as count:
        list(running)
        assert count() == 0


def test_the_count_sees_what_it_should():
    with compilations() as count:
        for rate in (1.0, 2.0, 3.0):
            jax.jit(lambda g, rate=rate: g * rate)(GRADS["w"])
        assert count() == 3


RECIPES = [
    name
    for name in gradtx.__all__
    if "gradtx.optimizers" in str(getattr(getattr(gradtx, name), "__module__", ""))
    and name != "dpsgd"  # its gradients have examples
]
OPTIONS = {
    "adopt": {"clip_value_fn": 0.5},
    "adafactor": {"min_dim_size_to_factor": 2},
    "kron": {"preconditioner_update_probability": 0.5},
    "rmsprop": {"momentum": 0.5, "centered": True},
    "sgd": {"momentum": 0.5, "weight_decay": 0.1},
}


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("name", RECIPES)
def test_one_step_serves_new_numbers_of_every_optimizer(name):
    rate = {} if name == "polyak_sgd" else {"learning_rate": 0.1}
    tx, extra = getattr(gradtx, name)(**rate, **OPTIONS.get(name, {})), ENTRIES[name].extra
    step = jax.jit(tx.update)
    state = tx.init(PARAMS)
    # Numbers of calls.
    calls = ("precondition_frequency", "update_interval", "inverse_every", "update_proj_gap")
    names = [k for k in gradtx.hyperparams(state) if k not in calls]
    for i in range(4):
        state = gradtx.set_hyperparams(state, **{k: 0.125 + 0.25 * i for k in names})
        _, state = step(GRADS, state, PARAMS, **extra)
    assert step._cache_size() == 1
    assert {gradtx.hyperparams(state)[k] for k in names} == {0.875}


MESH = Mesh(np.array(jax.devices()), ("fsdp",))


def fsdp(x):
    return jax.device_put(x, NamedSharding(MESH, PartitionSpec("fsdp")))


PLACES = {
    "uncommitted": lambda x: x,
    "committed": lambda x: jax.device_put(x, jax.devices()[-1]),
    "FSDP": fsdp,
}


def run(step, params, state, grads):
    """Steps, a setting, steps."""
    for i in range(3):
        params, state = step(params, state, grads)
        state = gradtx.set_hyperparams(state, **setting(i))
    return step(params, state, grads)


@pytest.mark.by_turns(2)
@pytest.mark.brief
@pytest.mark.parametrize("place", PLACES)
def test_one_compilation_from_init_on(place):
    params, grads = jax.tree.map(PLACES[place], (PARAMS, GRADS))
    step = jax.jit(lambda p, s, g: gradtx.apply_gradients(TX, g, s, p))
    params, state = run(step, params, TX.init(params), grads)
    assert step._cache_size() == 1
    assert gradtx.step_count(state) == 4
    moved = jax.tree.map(
        lambda new, old: new.sharding.is_equivalent_to(old.sharding, new.ndim), params, grads
    )
    assert jax.tree.all(moved)


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("place", PLACES)
def test_one_compilation_with_donation(place):
    params, grads = jax.tree.map(PLACES[place], (jax.tree.map(jnp.copy, PARAMS), GRADS))
    step = jax.jit(lambda p, s, g: gradtx.apply_gradients(TX, g, s, p), donate_argnums=(0, 1))
    state = TX.init(params)
    run(step, params, state, grads)
    assert step._cache_size() == 1
    assert all(x.is_deleted() for x in jax.tree.leaves(params))


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("place", PLACES)
def test_one_compilation_across_an_orbax_restore(place, tmp_path):
    params, grads = jax.tree.map(PLACES[place], (PARAMS, GRADS))
    step = jax.jit(lambda p, s, g: gradtx.apply_gradients(TX, g, s, p))
    state = TX.init(params)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", (params, state))
        checkpointer.wait_until_finished()
        params, state = checkpointer.restore(tmp_path / "state", (params, state))
    run(step, params, state, grads)
    assert step._cache_size() == 1


def compiled_text(tx, leaves):
    params = {str(i): jnp.zeros((8, 8 + i)) for i in range(leaves)}
    step = jax.jit(functools.partial(gradtx.apply_gradients, tx), donate_argnums=(1, 2))
    return step.lower(params, tx.init(params), params).compile().as_text()


@pytest.mark.parametrize("tx", [gradtx.adamw(gradtx.cosine_decay_schedule(0.1, 10)), gradtx.radam(0.1)])
def test_the_scalars_of_a_rule_are_computed_once_for_all_leaves(tx):
    """Not again in each kernel of each leaf, which takes long to compile."""
    few, many = (len(re.findall(r"= f32\[\] (subtract|divide|add)\(", compiled_text(tx, n))) for n in (2, 9))
    assert few == many > 0


@pytest.mark.parametrize("sizes", [20, 40])
def test_the_squares_of_many_leaves_are_added_as_a_vector(sizes):
    """A kernel of so many scalars takes longer to compile than all the others."""
    text = compiled_text(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1)), sizes)
    arguments = [line.count(": f32[") for line in text.splitlines() if line.startswith("%fused")]
    assert max(arguments) < 20
