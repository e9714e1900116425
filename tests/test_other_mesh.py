"""A state, or gradients, on another mesh than the parameters: an error by name, whose remedy works."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from rotation import one_of

DEVICES = np.array(jax.devices()[:8])


def mesh_of(*sizes, kind=AxisType.Auto, devices=DEVICES):
    names = ("data", "model")[: len(sizes)]
    return Mesh(devices[: np.prod(sizes)].reshape(sizes), names, axis_types=(kind,) * len(sizes))


def placed(mesh):
    tree = {"a": {"w": jnp.ones((16, 8))}, "b": jnp.ones(16)}
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec("data")))


EIGHT, FOUR = mesh_of(8), mesh_of(4)
MESHES = {
    "fewer devices": (FOUR, "a mesh of 4 'data'"),
    "another form": (mesh_of(4, 2), "a mesh of 4 'data' x 2 'model'"),
    "another order": (mesh_of(8, devices=DEVICES[::-1]), "a mesh of 8 'data' of the devices 7, 6, 5, 4"),
    "other types": (mesh_of(8, kind=AxisType.Explicit), "a mesh of 8 'data' with the axis types Explicit"),
}
TRANSFORMS = {
    "adamw": (gradtx.adamw(1e-3), "scale_by_adam/mu/a/w is on a mesh of 8 'data'"),
    "sgd": (gradtx.sgd(0.1), "numbers/sgd/learning_rate is on a mesh of 8 'data'"),
    "guard": (gradtx.guard(gradtx.adam(0.1)), "guard/faults/a/w is on a mesh of 8 'data'"),
    "clip": (
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1, momentum=0.9)),
        "trace/trace/a/w is on a mesh of 8 'data'",
    ),
    "zero": (
        lambda mesh: gradtx.shard_state(gradtx.adam(0.1), mesh, "data", specs={"*": PartitionSpec("data")}),
        "scale_by_adam/mu/a/w is on a mesh of 8 'data'",
    ),
}


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("case", one_of(3, itertools.product(MESHES, TRANSFORMS)), ids=" on ".join)
def test_a_state_on_another_mesh_is_named_and_can_be_moved(case):
    other, name = case
    (mesh, words), (tx, begins) = MESHES[other], TRANSFORMS[name]
    old, tx = (tx(EIGHT), tx(mesh)) if name == "zero" else (tx, tx)
    params = placed(mesh)
    state = old.init(placed(EIGHT))
    said = f"^{re.escape(begins)}.* in the state, and the parameters are on {re.escape(words)}"
    with pytest.raises(ValueError, match=said + r".*jax\.device_put\(state, gradtx\.state_sharding\(tx, p"):
        tx.update(params, state, params)
    moved = jax.device_put(state, gradtx.state_sharding(tx, params))
    updates, after = tx.update(params, moved, params)
    expected, wanted = old.update(placed(EIGHT), state, placed(EIGHT))
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, moved)
    if name not in ("clip", "guard"):  # whose norms are sums in another order
        jax.tree.map(np.testing.assert_array_equal, after, wanted)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_where_types_say_so_a_compiled_step_names_it_too(compiled):
    tx, few = gradtx.adam(0.1), placed(mesh_of(4, kind=AxisType.Explicit))
    state = tx.init(placed(mesh_of(4, 2, kind=AxisType.Explicit)))
    update = jax.jit(tx.update) if compiled else tx.update
    with pytest.raises(ValueError, match="mu/a/w is on a mesh of 4 'data' x 2 'model' in the state"):
        update(few, state, few)


def test_gradients_on_other_devices_are_named():
    tx, params = gradtx.adam(0.1), placed(FOUR)
    words = (
        "The parameter of the leaf 'a/w' is on a mesh of 4 'data', and the gradient of the leaf 'a/w' on a"
    )
    with pytest.raises(ValueError, match=words):
        tx.update(placed(EIGHT), tx.init(params), params)


def test_a_state_on_one_device_beside_a_mesh_is_named():
    tx = gradtx.adam(0.1)
    state = tx.init(jax.device_put(placed(EIGHT), jax.devices()[1]))
    with pytest.raises(ValueError, match="scale_by_adam/mu/a/w is on one device in the state, and"):
        tx.update(placed(EIGHT), state, placed(EIGHT))


def test_what_jax_may_move_is_no_error():
    """Numpy arrays, as a checkpoint may give them, parameters on no mesh, and a mesh of one device."""
    tx, params = gradtx.adam(0.1), placed(EIGHT)
    free = jax.tree.map(np.asarray, tx.init(params))
    tx.update(params, free, params)
    tx.update(params, free, jax.tree.map(np.asarray, params))
    one, state = placed(mesh_of(1)), tx.init(jax.device_put(placed(EIGHT), jax.devices()[0]))
    tx.update(one, state, one)
