"""explain(tx, params, mesh): what it says is what is compiled, on any number of devices; it makes nothing."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from benchmarks.trees import experts
from compiled_exchanges import MODES, compared

NAMES = ("adamw", "adafactor", "muon", "soap")
EVERY = [(name, mode, kind) for name in NAMES for mode in MODES for kind in ("Auto", "Explicit")]
IN_CI = [("adamw", "zero1", "Auto"), ("adafactor", "two axes", "Explicit"), ("muon", "two axes", "Auto")]
shape = jax.ShapeDtypeStruct


@pytest.mark.parametrize(
    ("name", "mode", "kind"),
    [pytest.param(*case, marks=() if case in IN_CI else pytest.mark.full) for case in EVERY],
)
def test_it_says_what_is_compiled(name, mode, kind):
    found = compared(name, mode, kind, 8)
    assert found["said"] == found["compiled"] and not found["unknown"]
    assert found["said bytes"] == found["compiled bytes"]


@pytest.mark.parametrize(
    ("devices", "names"),
    [(64, ["adamw"]), *(pytest.param(n, NAMES, marks=pytest.mark.full) for n in (64, 512))],
)
def test_it_says_what_is_compiled_for_many_devices(devices, names):
    script = pathlib.Path(__file__).parent / "compiled_exchanges.py"
    cases = [f"{name}-{mode}" for name in names for mode in ("fsdp", "zero1")]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, str(script), str(devices), *cases]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    results = json.loads(done.stdout)
    assert [*results] == cases
    for found in results.values():
        assert found["said"] == found["compiled"] and not found["unknown"]
        assert found["said bytes"] == found["compiled bytes"]


def test_a_trillion_parameters_on_thousands_of_devices_and_nothing_is_made():
    params, specs = experts()
    mesh = AbstractMesh((64, 64), ("data", "expert"))
    before = len(jax.live_arrays())
    found = gradtx.explain(
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)), params, mesh, specs=specs
    )
    assert len(jax.live_arrays()) <= before + 20
    assert found.devices == 4096 and found.elements > 1e12
    sharded, rest = (
        sum(np.prod(x.shape) for x in params.values() if (x.ndim > 1) == many) for many in (1, 0)
    )
    assert found.parameters.on_one == 2 * (sharded // 4096 + rest)
    assert found.state.on_one - 8 * (sharded // 4096 + rest) == found.slots[-1].on_one < 100
    assert all(x.kind == "all-reduce" and x.nbytes == 4 * x.times for x in found.exchanges)
    assert not found.unknown and found.least_flops < found.most_flops < 40 * found.elements / 4096 + 1e9


def test_the_operations_are_about_those_that_are_compiled():
    params = {"w": shape((512, 512), "float32"), "b": shape((512,), "float32")}
    for tx, most in [(gradtx.adamw(1e-3), 1.5), (gradtx.muon(1e-3), 1.2)]:
        state = tx.init(params)
        step = jax.jit(lambda g, s, p, tx=tx: gradtx.apply_gradients(tx, g, s, p))
        found = gradtx.explain(tx, params)
        flops = step.lower(params, state, params).compile().cost_analysis()["flops"]
        assert 1 / most < found.least_flops / flops < most
        assert found.devices == 1 and found.exchanges == () and found.replicated == ()
        assert "on 1 device" in str(found)


def test_what_is_replicated_is_said_with_the_reason():
    mesh = AbstractMesh((8, 2), ("data", "model"))
    params = {"w": shape((256, 128), "float32"), "b": shape((128,), "float32")}
    specs = {"w": PartitionSpec("data", "model"), "b": None}
    found = gradtx.explain(
        gradtx.adafactor(1e-3, min_dim_size_to_factor=64, momentum=0.9), params, mesh, specs=specs
    )
    said = {(x.what.rpartition(".")[2], x.paths): (x.axes, x.reason) for x in found.replicated}
    assert said == {
        ("parameters", ("b",)): (("data", "model"), "they are sharded so"),
        ("v_row", ("w",)): (("data",), "no axis that they shard is kept"),
        ("v_col", ("w",)): (("model",), "no axis that they shard is kept"),
    }
    kept = {k.name.rpartition(".")[2]: (k.nbytes, k.on_one) for k in found.slots}
    assert kept["v_row"] in [(512, 256), (1024, 128)] and kept["v_col"] in [(512, 256), (1024, 128)]
    specs = {"w": PartitionSpec(None, "model"), "b": PartitionSpec()}
    tx = gradtx.shard_state(gradtx.adam(1e-3), mesh, "data", specs=specs)
    found = gradtx.explain(tx, params, mesh, specs=specs)
    (gathered,) = found.exchanges
    assert (gathered.where, gathered.kind, gathered.axes) == ("shard_state", "all-gather", ("data",))
    assert gathered.times == 1
    assert gathered.nbytes == 256 * 128 * 4 // 2
    assert any("fewer than 1,024 elements: b" in remark for remark in found.remarks)


def test_the_mesh_of_the_parameters_is_the_default_and_another_has_the_axes_of_the_same_names():
    devices = np.array(jax.devices()[:8])
    mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    params = {"w": jax.device_put(jnp.ones((64, 4)), NamedSharding(mesh, PartitionSpec("data")))}
    assert gradtx.explain(gradtx.adam(1e-3), params).parameters.on_one == 64 * 4 * 4 // 8
    larger = AbstractMesh((32,), ("data",))
    assert gradtx.explain(gradtx.adam(1e-3), params, larger).parameters.on_one == 64 * 4 * 4 // 32


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_mesh_that_is_set_says_nothing_of_another_one(kind):
    params, tx = {"w": jnp.ones((64, 4))}, gradtx.adam(1e-3)
    mesh = jax.make_mesh((4, 2), ("data", "model"), (kind,) * 2)
    larger, specs = AbstractMesh((32,), ("data",)), {"w": PartitionSpec("data")}
    alone = str(gradtx.explain(tx, params)), str(gradtx.explain(tx, params, larger, specs=specs))
    with jax.set_mesh(mesh):
        assert (
            str(gradtx.explain(tx, params)),
            str(gradtx.explain(tx, params, larger, specs=specs)),
        ) == alone
        placed = jax.device_put(params, NamedSharding(mesh, PartitionSpec("data")))
        assert gradtx.explain(tx, placed).parameters.on_one == 64 * 4 * 4 // 4


def test_further_arguments_of_the_update():
    params = {"w": jnp.ones((8, 4))}
    tx = gradtx.polyak_sgd()
    assert gradtx.explain(tx, params, value=jnp.float32(1.0)).least_flops > 0
    with pytest.raises((TypeError, ValueError), match="value"):
        gradtx.explain(tx, params)


def test_bad_input():
    params = {"w": shape((64, 4), "float32")}
    with pytest.raises(TypeError, match=r"explain: mesh must be a jax.sharding.Mesh"):
        gradtx.explain(gradtx.adam(1e-3), params, 8)
    with pytest.raises(TypeError, match="explain"):
        gradtx.explain(params, gradtx.adam(1e-3))
    mesh = AbstractMesh((8,), ("data",))
    with pytest.raises(ValueError, match=r"explain: the leaf 'w' of shape .* has no axis 'model'"):
        gradtx.explain(gradtx.adam(1e-3), params, mesh, specs={"w": PartitionSpec("model")})
    with pytest.raises(ValueError, match="do not divide its axis 1, of 4 elements"):
        gradtx.explain(gradtx.adam(1e-3), params, mesh, specs={"w": PartitionSpec(None, "data")})


def test_a_slot_in_a_format_is_kept_with_its_scales():
    mesh = AbstractMesh((8, 2), ("data", "model"))
    params = {"w": shape((256, 1024), "float32"), "b": shape((128,), "float32")}
    specs = {"w": PartitionSpec("data", "model"), "b": None}
    tx = gradtx.store(gradtx.adam(1e-3), mu="int8", nu="uint4")
    found = gradtx.explain(tx, params, mesh, specs=specs)
    assert [k.name for k in found.slots] == ["scale_by_adam.mu", "scale_by_adam.nu", "numbers"]
    mu, nu, _ = found.slots
    assert mu.dtypes == ("float32", "int8") and nu.dtypes == ("float32", "uint4")
    blocks, small = 256 * 1024 // 128, 128 * 4
    assert (mu.nbytes, nu.nbytes) == tuple(n + 4 * blocks + small for n in (256 * 1024, 256 * 512))
    assert mu.on_one - small == (mu.nbytes - small) // 16 and nu.on_one - small == (nu.nbytes - small) // 16
    # What is kept in blocks is sharded as its leaf is, and so nothing is said of it.
    assert {x.paths for x in found.replicated} == {("b",)} and not found.unknown


def test_another_library_s_state_is_not_made():
    params = {"w": shape((1 << 20, 1 << 20), "float32")}
    found = gradtx.explain(optax.sgd(0.1, momentum=0.9), params)
    assert found.state.nbytes == 4 * 2**40
