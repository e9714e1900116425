"""Orbax checkpoints: a run continues bit for bit, and a state that does not fit is refused by name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import gradtx
import gradtx.flax

PARAMS = {"layers": [{"w": jnp.array([[1.0, -2.0], [0.5, 3.0]])}, {"w": jnp.array([0.25])}], "frozen": None}


def optimizers():
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, 0.1, 2, 10)
    return {
        "adamw with a schedule": gradtx.chain(
            gradtx.clip_by_global_norm(1.0), gradtx.adamw(schedule, mu_dtype=jnp.bfloat16)
        ),
        "a plain callable": gradtx.sgd(lambda step: 0.1 / (1.0 + step.astype(jnp.float32)), momentum=0.9),
        "keys": gradtx.noisy_sgd(0.1, key=3),
        "scalars of the whole": gradtx.prodigy(1.0),
        "factored": gradtx.adafactor(0.1, min_dim_size_to_factor=2),
        "masked": gradtx.masked(gradtx.adam(0.1), "layers/0/*"),
        "named": gradtx.named_chain(("a", gradtx.trace(0.9)), ("b", gradtx.sgd(0.1))),
    }


OPTIMIZERS = optimizers()
_steps = {}


def step(name):
    """A compiled step of the optimizer, whose gradients depend on the parameters."""
    if name not in _steps:
        tx = OPTIMIZERS[name]

        @jax.jit
        def run(params, state):
            grads = jax.tree.map(lambda p: jnp.sin(3.0 * p), params)
            return gradtx.apply_gradients(tx, grads, state, params)

        _steps[name] = run
    return _steps[name]


def advanced(name, params, state, steps=2):
    for _ in range(steps):
        params, state = step(name)(params, state)
    return params, state


def round_trip(tree, path, abstract=None):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path, tree if abstract is None else abstract)


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_run_continues_bit_for_bit(name, tmp_path):
    params, state = advanced(name, PARAMS, OPTIMIZERS[name].init(PARAMS))
    restored = round_trip((params, state), tmp_path / "run")
    assert_same_bits(advanced(name, *restored), advanced(name, params, state))


def test_a_restore_into_the_abstract_state(tmp_path):
    name = "adamw with a schedule"
    _, state = advanced(name, PARAMS, OPTIMIZERS[name].init(PARAMS))
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), PARAMS)
    assert_same_bits(round_trip(state, tmp_path / "state", OPTIMIZERS[name].init(shapes)), state)


def test_a_restore_without_a_target_gives_the_same_nested_dicts(tmp_path):
    tx = gradtx.adam(0.1)
    params = {"w": jnp.ones(2)}
    _, state = tx.update(params, tx.init(params))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state")
    assert_same_bits(restored, state)
    tx.update(params, restored)


@pytest.mark.wide
def test_an_nnx_optimizer_continues_bit_for_bit(tmp_path):
    def fresh():
        model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        return model, gradtx.flax.Optimizer(model, gradtx.adamw(0.1), wrt=nnx.Param)

    def train(model, optimizer):
        for _ in range(2):
            optimizer.update(model, nnx.grad(lambda m: (m(jnp.ones((1, 2))) ** 2).sum())(model))
        return nnx.to_pure_dict(nnx.state((model, optimizer)))

    model, optimizer = fresh()
    saved = train(model, optimizer)
    other, resumed = fresh()
    restored = round_trip(saved, tmp_path / "run")
    target = nnx.state((other, resumed))
    nnx.replace_by_pure_dict(target, restored)
    nnx.update((other, resumed), target)
    assert gradtx.step_count(resumed) == 2
    assert_same_bits(train(other, resumed), train(model, optimizer))


GRADS = jax.tree.map(jnp.ones_like, PARAMS)


def without(state, *path):
    """A copy of a state without one of its nodes."""
    copy = jax.tree.map(lambda x: x, state)
    node = copy
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    return copy


@pytest.mark.brief
def test_a_slot_that_a_checkpoint_lacks_is_named():
    tx = gradtx.adam(0.1)
    state = without(tx.init(PARAMS), "slots", "scale_by_adam", "nu")
    for use in (lambda: tx.update(GRADS, state, PARAMS), lambda: gradtx.rebase(tx, state)):
        with pytest.raises(ValueError, match=r"it lacks the slots scale_by_adam/nu\. .*init made"):
            use()


def test_a_leaf_that_a_slot_lacks_is_named():
    tx = gradtx.adam(0.1)
    state = without(tx.init(PARAMS), "slots", "scale_by_adam", "nu", "layers", 1, "w")
    with pytest.raises(ValueError, match=r"scale_by_adam/nu .* leaf 'layers/1/w' is only in the gradients"):
        tx.update(GRADS, state, PARAMS)


def test_a_number_that_a_checkpoint_lacks_is_named():
    tx = gradtx.adam(0.1)
    state = without(tx.init(PARAMS), "numbers", "adam", "one_minus_b2")
    with pytest.raises(ValueError, match="it lacks the hyperparameters adam/one_minus_b2"):
        tx.update(GRADS, state, PARAMS)


def test_rebase_supplies_a_number_that_a_checkpoint_lacks():
    tx = gradtx.adam(0.1)
    state, changes = gradtx.rebase(tx, without(tx.init(PARAMS), "numbers", "adam", "eps"))
    assert changes == {"eps": (None, 1e-8)}
    tx.update(GRADS, state, PARAMS)


def test_another_list_of_names_is_refused():
    old = gradtx.chain(gradtx.trace(0.9), gradtx.scale(-0.1)).init(PARAMS)
    new = gradtx.chain(gradtx.ema(0.9), gradtx.scale(-0.1))
    with pytest.raises(ValueError, match=r"lacks the hyperparameters ema/.* and has trace/.* instead"):
        new.update(GRADS, old, PARAMS)
    with pytest.raises(ValueError, match=r"lacks the slots ema/ema and has trace instead"):
        gradtx.rebase(new, old)


def test_one_more_transform_is_refused():
    old = gradtx.scale(-0.1).init(PARAMS)
    tx = gradtx.chain(gradtx.scale(-0.1), gradtx.scale(2.0))
    with pytest.raises(ValueError, match="lacks the hyperparameters scale_1/step_size"):
        tx.update(GRADS, old, PARAMS)


def test_a_checkpoint_of_another_model_is_refused_by_leaf():
    tx = gradtx.adam(0.1)
    old = tx.init({**PARAMS, "layers": [{"w": jnp.ones((2, 2))}, {"w": jnp.ones(3)}]})
    words = r"scale_by_adam: 'mu' of the leaf 'layers/1/w' has shape \(3,\) in the state, and .* \(1,\)"
    with pytest.raises(ValueError, match=words):
        tx.update(GRADS, old, PARAMS)
