"""state_bytes(tx, params): from shapes alone what `init` makes, of each slot, each leaf and each device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

import gradtx
from catalogue import forms

shape = jax.ShapeDtypeStruct
MODEL = {
    "kernel": shape((64, 128), "bfloat16"),
    "bias": shape((128,), "bfloat16"),
    "temperature": shape((), "bfloat16"),
}
ELEMENTS = 64 * 128 + 128 + 1


def nbytes(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def slots(found):
    return {slot.name: slot.nbytes for slot in found.slots}


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("entry, variant", forms(layouts=True, brief=True))
def test_it_is_the_size_of_what_init_makes(entry, variant):
    tx = entry.transform(variant)
    params = {"embed": shape((6, 4), "float32"), "layer": {"kernel": shape((4, 3), "float32")}}
    found = gradtx.state_bytes(tx, params)
    assert found.nbytes == found.on_one == nbytes(jax.eval_shape(tx.init, params))
    assert sum(slot.nbytes for slot in found.slots) == found.nbytes
    assert found.nbytes - sum(leaf.state for leaf in found.leaves) == found.of_no_leaf >= 0
    assert max(map(len, str(found).splitlines())) <= 100


@pytest.mark.parametrize(
    ("tx", "each"),
    [
        (gradtx.adamw(1e-3), 12),
        (gradtx.precision(gradtx.adamw(1e-3), "f32"), 12),
        (gradtx.precision(gradtx.adamw(1e-3), "bf16"), 8),
        (gradtx.precision(gradtx.adamw(1e-3), "8bit"), 6.0625),
        (gradtx.precision(gradtx.adamw(1e-3), "7-bytes"), 7.0625),
        (gradtx.adamw(1e-3, mu_dtype="int4", nu_dtype="uint4"), 5.0625),
        (gradtx.precise_params(gradtx.sgd(0.1), "master"), 8),
        (gradtx.precise_params(gradtx.sgd(0.1), "stochastic"), 4),
    ],
    ids=["adamw", "f32", "bf16", "8bit", "7-bytes", "4 bits", "master", "stochastic"],
)
def test_the_bytes_of_an_element_with_its_gradient_and_its_state(tx, each):
    params = {"w": shape((4096, 4096), "bfloat16")}
    found = gradtx.state_bytes(tx, params)
    assert found.leaves[0].per_element == each
    assert found.per_element == pytest.approx(each, abs=1e-4)
    assert found.leaves[0].state_per_element == each - 4


def test_a_slot_has_its_scales_and_the_leaves_in_full_width():
    tx = gradtx.store(gradtx.adam(1e-3), mu="int8", nu="uint4")
    found = gradtx.state_bytes(tx, MODEL)
    wide, blocks = 4 * (128 + 1), 64
    assert slots(found) == {
        "scale_by_adam.mu": 64 * 128 + 4 * blocks + wide,
        "scale_by_adam.nu": 64 * 128 // 2 + 4 * blocks + wide,
        "numbers": nbytes(tx.init(MODEL)["numbers"]) + 4,
    }
    mu, nu, _ = found.slots
    assert (mu.dtypes, nu.dtypes) == (("float32", "int8"), ("float32", "uint4"))
    assert {leaf.path: leaf.state for leaf in found.leaves} == {
        "kernel": 64 * 128 + 64 * 128 // 2 + 8 * blocks,
        "bias": 8 * 128,
        "temperature": 8,
    }
    assert (found.elements, found.parameters.nbytes) == (ELEMENTS, 2 * ELEMENTS)


def test_what_is_wrapped_is_of_the_same_leaves():
    inner = gradtx.precision(gradtx.adam(1e-3), min_size=128)
    found = gradtx.state_bytes(gradtx.accumulate(inner, 4), MODEL)
    assert "accumulate.inner.precise_params.inner.scale_by_adam.mu" in slots(found)
    state = {leaf.path: leaf.state for leaf in found.leaves}
    assert state["bias"] == 4 * 128 + 128 * (1 + 1 + 1) + 8
    assert state["temperature"] == 4 + 1 + 4 + 4
    # Two real leaves in the place of a complex one, and one vector in the place of all.
    split = gradtx.split_real_and_imaginary(gradtx.adam(1e-3))
    found = gradtx.state_bytes(split, {"a": shape((3,), "complex64"), "b": shape((4,), "float32")})
    assert [leaf.state for leaf in found.leaves] == [2 * 2 * 3 * 4, 2 * 4 * 4]
    found = gradtx.state_bytes(gradtx.flatten(gradtx.adam(1e-3)), MODEL)
    assert [leaf.state for leaf in found.leaves] == [0, 0, 0]
    assert found.of_no_leaf == found.nbytes > 8 * ELEMENTS


def test_a_stack_of_matrices_is_shared_out_to_its_leaves():
    params = {
        "a": shape((3, 64, 64), "float32"),
        "b": shape((64, 64), "float32"),
        "c": shape((64,), "float32"),
    }
    views = {"a": gradtx.matrix_view("brc"), "b": gradtx.matrix_view("rc"), "c": None}
    tx = gradtx.store(gradtx.soap(1e-3, views=views), left="int4", right="int8")
    found = gradtx.state_bytes(tx, params)
    a, b, c = (leaf.state for leaf in found.leaves)
    rows = 4 + 4
    assert (a - rows // 2) == 3 * (b - rows // 2) and c == 8 * 64
    left = next(slot for slot in found.slots if slot.name.endswith("soap.left"))
    assert left.nbytes == 4 * (64 * 64 // 2 + 4 * 64 * 64 // 128) and left.dtypes == ("int4",)
    assert a + b + c + found.of_no_leaf == found.nbytes == nbytes(jax.eval_shape(tx.init, params))


def test_another_library_s_slots_are_of_the_leaves_that_they_are_like():
    found = gradtx.state_bytes(gradtx.chain(optax.adam(1e-3), gradtx.trace(0.9)), MODEL)
    assert [leaf.state // leaf.elements for leaf in found.leaves] == [8] * 3
    alone = gradtx.state_bytes(optax.adam(1e-3), MODEL)
    assert alone.nbytes == nbytes(jax.eval_shape(optax.adam(1e-3).init, MODEL)) == 4 * ELEMENTS + 4
    assert (alone.of_no_leaf, slots(alone)) == (4, {"foreign": 4 * ELEMENTS + 4, "numbers": 0})


def test_what_one_device_keeps():
    mesh, specs = (
        AbstractMesh((8, 2), ("data", "model")),
        {"kernel": PartitionSpec("data", "model"), "bias": None},
    )
    params = {"kernel": shape((1024, 512), "bfloat16"), "bias": shape((512,), "bfloat16")}
    tx = gradtx.precision(gradtx.adam(1e-3))
    found = gradtx.state_bytes(tx, params, mesh, specs=specs)
    kernel, bias = (leaf.state_on_one for leaf in found.leaves[::-1])
    assert kernel == found.leaves[1].state // 16 and bias == found.leaves[0].state
    assert found.on_one == kernel + bias + found.of_no_leaf
    assert "by a device" in str(found) and "by a device" not in str(gradtx.state_bytes(tx, params))


def test_parameters_that_are_sharded_are_taken_as_they_are():
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    params = {
        "w": jax.device_put(jnp.ones((64, 128), jnp.bfloat16), NamedSharding(mesh, PartitionSpec("data")))
    }
    tx = gradtx.precision(gradtx.adam(1e-3))
    found, state = gradtx.state_bytes(tx, params), tx.init(params)
    placed = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    assert found.on_one == placed and found.nbytes == nbytes(state)


def test_nothing_is_made_for_a_large_model():
    params = {f"layer {i}": shape((16384, 16384), "bfloat16") for i in range(100)}
    before = len(jax.live_arrays())
    found = gradtx.state_bytes(gradtx.precision(gradtx.adamw(1e-3)), params)
    assert len(jax.live_arrays()) <= before + 20
    assert found.per_element == pytest.approx(7.0625, abs=1e-6)
    assert "the other 92 leaves" in str(found)


def test_leaves_without_gradients_and_empty_trees():
    params = {"w": shape((4,), "float32"), "ids": shape((3,), "int32"), "none": None}
    found = gradtx.state_bytes(
        gradtx.masked(gradtx.adam(1e-3), {"w": True, "ids": False, "none": False}), params
    )
    assert [leaf.path for leaf in found.leaves] == ["w"] and found.leaves[0].state == 32
    nothing = gradtx.state_bytes(gradtx.sgd(0.1), {})
    assert (nothing.elements, nothing.per_element, nothing.leaves) == (0, 0, ())
    whole = gradtx.state_bytes(gradtx.adam(1e-3), np.ones(3, np.float32))
    assert (whole.leaves[0].path, whole.leaves[0].state) == ("", 24) and "the whole tree" in str(whole)


def test_what_it_does_not_take():
    with pytest.raises(TypeError, match="state_bytes: mesh must be"):
        gradtx.state_bytes(gradtx.adam(1e-3), MODEL, 8)
    with pytest.raises(TypeError, match="state_bytes: params is None"):
        gradtx.state_bytes(gradtx.adam(1e-3), None)
    with pytest.raises(TypeError, match="state_bytes"):
        gradtx.state_bytes(MODEL, gradtx.adam(1e-3))


@pytest.mark.wide
def test_slots_by_leaf_has_what_a_format_stands_for():
    params = {"a": jnp.ones((64, 64)), "b": jnp.ones((2, 64, 64))}
    views = {"a": gradtx.matrix_view("rc"), "b": gradtx.matrix_view("brc")}
    formats = {"left": "int4", "right": "bfloat16_stochastic"}
    exact = gradtx.scale_by_soap(views=views)
    coded = gradtx.chain(gradtx.store(gradtx.trace(0.9), trace="int8"), gradtx.store(exact, **formats))
    grads = {k: jax.random.normal(jax.random.key(i), params[k].shape) for i, k in enumerate("ab")}
    both = []
    for tx in (gradtx.chain(gradtx.trace(0.9), exact), coded):
        state = jax.jit(tx.update)(grads, tx.init(params), params)[1]
        both.append(gradtx.slots_by_leaf(tx, params, state))
    assert jax.tree.structure(both[0]) == jax.tree.structure(both[1])
    for place, most in {"scale_by_soap.left": 0.2, "scale_by_soap.right": 0.01, "trace.trace": 0.02}.items():
        transform, name = place.split(".")
        for leaf, kept in both[1][transform][name].items():
            right = both[0][transform][name][leaf]
            missed = jnp.linalg.norm((kept - right).ravel()) / jnp.linalg.norm(right.ravel())
            assert kept.shape == right.shape and 0 < missed < most
