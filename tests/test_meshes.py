"""Meshes with explicit axes, where types say how arrays are sharded: what runs there, beside the laws."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from catalogue import ENTRIES
from gradtx import testing
from rotation import one_of

AXES = {"axis_types": (AxisType.Explicit,) * 2}
MESH = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("x", "y"), **AXES)
ALONE = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("x", "y"), **AXES)


def put(x, *spec, mesh=MESH):
    return jax.device_put(jnp.array(x, copy=True), NamedSharding(mesh, PartitionSpec(*spec)))


def sharded(tree, mesh=MESH):
    return jax.tree.map(lambda x: put(x, *("x", "y")[: x.ndim], mesh=mesh), tree)


def inside(mesh):
    """The context of a mesh, where this JAX has one."""
    return jax.set_mesh(mesh) if mesh and hasattr(jax, "set_mesh") else contextlib.nullcontext()


PARAMS = {"w": jnp.arange(32.0).reshape(8, 4) + 1, "b": jnp.ones(())}
# Each makes arrays from shapes, or is a brother of what does.
MAKING = {
    "accumulate": gradtx.accumulate(gradtx.adam(0.1), 2),
    "MultiSteps": gradtx.MultiSteps(gradtx.adam(0.1), 2, should_skip_update_fn=gradtx.skip_not_finite),
    "track": gradtx.track(gradtx.adam(0.1), every=2),
    "guard": gradtx.guard(gradtx.adafactor(0.1), updates=True),
    "snapshot": gradtx.snapshot("all", lambda u: u),
    "monitor": gradtx.monitor({"all": gradtx.measure_with_ema(lambda u: u, 0.5), "same": gradtx.identity()}),
    "flatten": gradtx.flatten(gradtx.adam(gradtx.linear_schedule(0.1, 0.0, 9))),
    "set_to_zero": gradtx.masked(gradtx.set_to_zero(), "b"),
}


@pytest.mark.wide
@pytest.mark.parametrize("context", [None, MESH], ids=["free", "in the context"])
@pytest.mark.parametrize("name", one_of(2, MAKING))
def test_steps_on_an_explicit_mesh(name, context):
    tx = MAKING[name]
    grads = jax.tree.map(lambda p: 0.1 * p, PARAMS)

    def step(carry, g):
        updates, state = tx.update(g, carry[1], carry[0])
        return (gradtx.apply_updates(carry[0], updates), state), None

    def loop(params, state, grads):
        return jax.lax.scan(lambda carry, _: step(carry, grads), (params, state), length=3)[0]

    expected, _ = loop(PARAMS, tx.init(PARAMS), grads)
    with inside(context):
        params, state = sharded(PARAMS), tx.init(sharded(PARAMS))
        compiled = jax.jit(loop)
        result, after = compiled(params, state, sharded(grads))
        compiled(result, after, sharded(grads))
        assert compiled._cache_size() == 1
        (eager, _), _ = step((params, state), sharded(grads))
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), result, expected)
    assert result["w"].sharding.spec == eager["w"].sharding.spec == PartitionSpec("x", "y")


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("name", ["MultiSteps", "snapshot", "flatten", "guard"])
def test_abstract_state_has_the_shardings(name):
    params = sharded(PARAMS)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params)
    made, abstract = MAKING[name].init(params), MAKING[name].init(shapes)
    assert jax.tree.map(lambda x: x.sharding, made) == jax.tree.map(lambda x: x.sharding, abstract)


def test_other_numbers_lie_where_init_puts_them():
    """In the same form too: for another one a step would be compiled again."""

    def transform(rate):
        return gradtx.guard(gradtx.adamw(gradtx.linear_schedule(rate, 0.0, 10), weight_decay=rate))

    state = transform(0.1).init(sharded(PARAMS))
    new, _ = gradtx.rebase(transform(0.2), state)
    reset = gradtx.set_hyperparams(new, **{"learning_rate.init_value": 0.3})
    restored, _ = gradtx.from_state_dict(transform(0.2), sharded(PARAMS), gradtx.to_state_dict(new))
    for other in (new, reset, restored):
        assert jax.tree.map(lambda x: str(x.sharding), other) == jax.tree.map(
            lambda x: str(x.sharding), state
        )


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("rows, spec", [(16, ()), (16, ("x",)), (8, ("x",))])
def test_micro_batches_on_an_explicit_mesh(rows, spec, compiled):
    def loss(params, x):
        return jnp.mean((jnp.sum(params["w"]) * x - params["b"]) ** 2)

    x = jnp.linspace(-1.0, 1.0, rows)
    expected = jax.value_and_grad(loss)(PARAMS, x)
    both = gradtx.accumulate_gradients(jax.value_and_grad(loss), 4)
    result = (jax.jit(both) if compiled else both)(sharded(PARAMS), put(x, *spec))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), result, expected)
    assert result[1]["w"].sharding.spec == PartitionSpec("x", "y")


@pytest.mark.full
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_computes_the_same_there(entry):
    """The law looks at types alone; here the numbers are compared."""
    entry = ENTRIES[entry]
    params = testing.example_params()
    case = testing.Case(entry.transform(), params, testing.example_grads(params, positive=entry.positive))
    # One leaf is (4, 2), the other a scalar.
    step = jax.jit(lambda p, s, g: case.update(case.tx, p, s, g))
    place = sharded(params), case.tx.init(sharded(params))
    for g, (expected, _, _) in zip(case.grads, case.trajectory, strict=True):
        *place, _ = step(*place, sharded(g))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-7), place[0], expected)
    assert step._cache_size() == 1


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("entry", ["scale_by_muon", "scale_by_dion", "scale_by_dion2", "scale_by_soap"])
def test_matrices_on_a_mesh_of_one_device(entry):
    """Where a run is tried before it gets more: types say there too how a leaf is sharded."""
    params = testing.example_params()
    case = testing.Case(ENTRIES[entry].transform(), params, testing.example_grads(params))
    step = jax.jit(lambda p, s, g: case.update(case.tx, p, s, g))
    place = sharded(params, ALONE), case.tx.init(sharded(params, ALONE))
    before = jax.tree.map(jax.typeof, place[1])
    for g, (expected, _, _) in zip(case.grads, case.trajectory, strict=True):
        *place, _ = step(*place, sharded(g, ALONE))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-7), place[0], expected)
    assert jax.tree.map(jax.typeof, place[1]) == before
