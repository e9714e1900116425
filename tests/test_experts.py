"""Batches of matrices that are sharded, as experts are: solved where they are, with nothing gathered."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx
from benchmarks.trees import experts
from compiled_exchanges import compared_of, exchanges
from rotation import one_of

VIEW = gradtx.matrix_view("brc")
SCANNED = gradtx.matrix_view("bbrc")
FUSED = gradtx.matrix_view("brc", column_blocks=3)
UNEVEN = gradtx.matrix_view("brc", column_blocks=(16, 8, 8))
SIZES = {"data": 2, "expert": 4}
# 10 matrices are 5 in each half of the devices, which are filled up to 8.
TREES = {
    "experts": ({"up": (8, 16, 32), "down": (8, 16, 32)}, ("expert", "data", None), VIEW),
    "on all devices": ({"up": (8, 16, 32), "down": (8, 16, 32)}, (("data", "expert"), None, None), VIEW),
    "scanned experts": ({"up": (4, 4, 16, 32)}, (None, "expert", None, "data"), SCANNED),
    "two batches": ({"up": (2, 4, 16, 32)}, ("data", "expert", None, None), SCANNED),
    "blocks": ({"up": (8, 16, 24)}, ("expert", None, "data"), FUSED),
    "uneven blocks": ({"up": (8, 16, 32)}, ("expert", None, "data"), UNEVEN),
    "an odd number": ({"up": (6, 16, 32), "down": (4, 16, 32)}, ("data", "expert", None), VIEW),
    "rows over both": ({"up": (5, 16, 32), "down": (5, 16, 32)}, (None, ("data", "expert"), None), VIEW),
    "one with, one without": ({"up": (8, 16, 32), "down": (2, 16, 32)}, ("data", "expert", None), VIEW),
}
METHODS = {
    "muon": lambda views: gradtx.scale_by_muon(weight_dimension_numbers=views),
    "aurora": lambda views: gradtx.scale_by_aurora(views=views),
    "normuon": lambda views: gradtx.scale_by_normuon(views=views),
    "soap": lambda views: gradtx.scale_by_soap(precondition_frequency=2, views=views),
    "kron": lambda views: gradtx.scale_by_kron(0.9, views=views),
}
AT_HOME = {"experts": 2, "on all devices": 0, "scanned experts": 2}
"""How often what a device has is exchanged in an update, where all matrices are at home."""

CASES = [(name, tree, kind) for name in METHODS for tree in TREES for kind in ("Auto", "Explicit")]
STEPS = 4
ENDS = ("/up", "/gate", "/down")
"""The ends of the paths of experts."""


def drawn(shapes, seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def stepping(tx):
    return jax.jit(lambda grads, state, params: gradtx.apply_gradients(tx, grads, state, params))


@functools.lru_cache(maxsize=2)
def alone(name, tree):
    """The parameters after some steps on one device, and the state."""
    shapes, _, view = TREES[tree]
    tx = gradtx.chain(METHODS[name](dict.fromkeys(shapes, view)), gradtx.scale_by_learning_rate(0.1))
    params, step = jax.tree.map(jnp.asarray, drawn(shapes, 0)), stepping(tx)
    state = tx.init(params)
    for i in range(STEPS):
        params, state = step(drawn(shapes, 1 + i), state, params)
    return tx, params, state


def on_mesh(tree, kind):
    """The parameters on a mesh."""
    shapes, spec, _ = TREES[tree]
    mesh = jax.make_mesh(tuple(SIZES.values()), tuple(SIZES), (AxisType[kind],) * len(SIZES))
    return jax.device_put(drawn(shapes, 0), NamedSharding(mesh, PartitionSpec(*spec)))


@pytest.mark.wide
@pytest.mark.parametrize("case", one_of(12, CASES), ids="-".join)
def test_the_numbers_are_those_of_one_device(case):
    name, tree, kind = case
    tx, expected, expected_state = alone(name, tree)
    params = on_mesh(tree, kind)
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    with jax.set_mesh(mesh):
        step, state = stepping(tx), tx.init(params)
        shapes, before = TREES[tree][0], jax.tree.map(lambda x: x.sharding, (params, state))
        for i in range(STEPS):
            grads = jax.device_put(drawn(shapes, 1 + i), before[0])
            params, state = step(grads, state, params)
        after = jax.tree.map(lambda x: x.sharding, (params, state))
    same = jax.tree.map(lambda a, b, x: a.is_equivalent_to(b, x.ndim), before, after, (params, state))
    assert all(jax.tree.leaves(same)) and step._cache_size() == 1
    for x, y in zip(
        jax.tree.leaves((params, state)), jax.tree.leaves((expected, expected_state)), strict=True
    ):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("name", ["muon", pytest.param("soap", marks=pytest.mark.full)])
def test_nothing_is_gathered_and_explain_says_what_is_exchanged(name, tree):
    params = on_mesh(tree, "Explicit")
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    abstract = {k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for k, x in params.items()}
    found = compared_of(METHODS[name](dict.fromkeys(params, TREES[tree][2])), abstract, mesh)
    assert found["said"] == found["compiled"] and not found["unknown"]
    assert found["compiled"].keys() <= {"all-to-all"}
    whole = sum(x.nbytes for x in params.values()) / mesh.size
    if name == "muon" and tree in AT_HOME:
        # There and back, of the devices that share a home.
        assert sum(nbytes for _, nbytes in found["compiled"].values()) <= AT_HOME[tree] * whole


def test_on_automatic_axes_the_update_alone_may_be_explicit():
    params, view = on_mesh("experts", "Auto"), TREES["experts"][2]
    tx = METHODS["muon"](dict.fromkeys(params, view))
    shardings = jax.tree.map(lambda x: x.sharding, params)
    specs = jax.tree.map(lambda x: x.spec, (shardings, gradtx.state_sharding(tx, params), shardings))

    def update(grads, state, params):
        return gradtx.apply_gradients(tx, grads, state, params)

    with jax.set_mesh(jax.tree.leaves(params)[0].sharding.mesh):
        step = jax.jit(jax.sharding.explicit_axes(update, in_sharding=specs))
        state = tx.init(params)
        program = step.lower(params, state, params).compile()
        after, _ = step(params, state, params)
    assert [kind for kind, _ in exchanges(program.as_text())] == ["all-to-all"] * 2
    assert jax.tree.map(lambda x: x.sharding, after) == shardings


def test_experts_of_a_trillion_parameters_stay_where_they_are():
    params, specs = ({k: v for k, v in of.items() if k.endswith(ENDS)} for of in experts())
    mesh = jax.sharding.AbstractMesh((64, 64), ("data", "expert"))
    views = {f"*{end}": VIEW for end in ENDS}
    found = gradtx.explain(gradtx.muon(1e-3, muon_weight_dimension_numbers=views), params, mesh, specs=specs)
    assert {(x.kind, x.axes) for x in found.exchanges} == {("all-to-all", ("data",))}
    # What a device has of the momenta in float32, filled up to whole matrices, there and back.
    sharded = sum(4 * np.prod(x.shape) for x in params.values()) // mesh.size
    assert 2 * sharded <= sum(x.nbytes for x in found.exchanges) <= 2.2 * sharded
