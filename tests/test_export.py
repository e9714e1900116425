"""`jax.export` and ahead-of-time compilation of a train step, also from a restored state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax import export

import gradtx

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.25, -1.0])}
TX = gradtx.chain(
    gradtx.clip_by_global_norm(1.0),
    gradtx.adamw(gradtx.warmup_linear_decay_schedule(0.0, 0.1, 2, 10), weight_decay=0.1),
)


@jax.jit
def step(params, state):
    grads = jax.grad(lambda p: sum(jnp.sum(jnp.sin(x) ** 2) for x in jax.tree.leaves(p)))(params)
    return gradtx.apply_gradients(TX, grads, state, params)


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def start(restored, tmp_path):
    """Parameters and state after one step; if `restored`, through a checkpoint."""
    tree = step(PARAMS, TX.init(PARAMS))
    if restored:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "run", tree)
            checkpointer.wait_until_finished()
            tree = checkpointer.restore(tmp_path / "run", tree)
    return tree


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("restored", [False, True], ids=["made", "restored"])
def test_ahead_of_time_compilation(restored, tmp_path):
    params, state = start(restored, tmp_path)
    compiled = step.lower(params, state).compile()
    assert_same_bits(compiled(params, state), step(params, state))
    changed = gradtx.set_hyperparams(state, **{"learning_rate.peak_value": 0.5})
    assert_same_bits(compiled(params, changed), step(params, changed))


@pytest.mark.by_turns(1)
@pytest.mark.brief
@pytest.mark.parametrize("restored", [False, True], ids=["made", "restored"])
def test_an_exported_step_runs_after_serialization(restored, tmp_path):
    params, state = start(restored, tmp_path)
    data = export.export(step)(params, state).serialize()
    loaded = export.deserialize(data)
    result = loaded.call(params, state)
    assert jax.tree.structure(result) == jax.tree.structure((params, state))
    assert_same_bits(result, step(params, state))


def test_an_exported_step_takes_other_settings(tmp_path):
    params, state = start(False, tmp_path)
    loaded = export.deserialize(export.export(step)(params, state).serialize())
    changed = gradtx.set_hyperparams(state, b1=0.5, weight_decay=0.0)
    assert_same_bits(loaded.call(params, changed), step(params, changed))


def test_export_and_lowering_from_shapes_alone():
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), PARAMS)
    abstract = TX.init(shapes)
    state = TX.init(PARAMS)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    expected = step(PARAMS, state)
    assert_same_bits(step.lower(shapes, abstract).compile()(PARAMS, state), expected)
    assert_same_bits(export.export(step)(shapes, abstract).call(PARAMS, state), expected)


def test_an_exported_init_makes_the_state():
    loaded = export.deserialize(export.export(jax.jit(TX.init))(PARAMS).serialize())
    assert_same_bits(loaded.call(PARAMS), TX.init(PARAMS))


def test_symbolic_shapes():
    """A step exported for any number of rows."""
    tx = gradtx.adam(0.1)
    rows = export.symbolic_shape("n, 2")
    params = jax.ShapeDtypeStruct(rows, jnp.float32)
    exported = export.export(jax.jit(tx.update))(params, tx.init(params), params)
    for n in (3, 5):
        x = jnp.ones((n, 2))
        assert_same_bits(exported.call(x, tx.init(x), x)[0], tx.update(x, tx.init(x), x)[0])
