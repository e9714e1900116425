"""Slots and parameters in formats on many devices: the numbers of one, and nothing is exchanged for them."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from compiled_exchanges import exchanges
from test_placements import DEVICES, PLACEMENTS, placing, shardings

SHAPES = {"bias": (4096,), "kernel": (128, 256), "layers": (2, 128, 128), "scale": ()}
"""Of sizes that 16 divides, and large enough that blocks of 128 elements can be cut for 16 devices."""
ODD = {"bias": (264,), "kernel": (16, 24), "odd": (33, 35), "layers": (16, 32, 64)}
PRESETS = {"8bit": jnp.float32, "7-bytes": jnp.bfloat16, "bf16": jnp.bfloat16}
KINDS = (AxisType.Auto, AxisType.Explicit)
CASES = [*itertools.product(PLACEMENTS, KINDS, ("8bit", "7-bytes"))]
# "replicated" is what all devices do alike.
IN_REST = [
    pytest.param(*case, marks=pytest.mark.full if case[0] == "replicated" or i % 2 else ())
    for i, case in enumerate(CASES)
]


def adamw():
    return gradtx.adamw(1e-2, weight_decay=0.1)


def filled(seed, dtype, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32).astype(dtype) for k, s in shapes.items()}


def stepping(tx) -> Any:
    return jax.jit(lambda g, s, p: gradtx.apply_gradients(tx, g, s, p))


def run(step, params, state, grads, put=lambda tree: tree):
    for g in grads:
        params, state = step(put(g), state, params)
    return params, state


def same(a, b):
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes(), path


@functools.cache
def alone(preset, odd=False):
    """Steps on one device: the transform, the parameters, the gradients, and what comes out."""
    shapes, dtype = ODD if odd else SHAPES, PRESETS[preset]
    tx = gradtx.precision(adamw(), preset, min_size=64)
    params, grads = filled(0, dtype, shapes), [filled(i + 1, dtype, shapes) for i in range(3)]
    return tx, params, grads, run(stepping(tx), params, tx.init(params), grads)


def sharded(tx, placement, mesh):
    return gradtx.shard_state(tx, mesh, "data", min_size=64) if placement == "ZeRO-1" else tx


@pytest.mark.by_turns(2)
@pytest.mark.parametrize(
    ("placement", "kind", "preset"), IN_REST, ids=lambda value: getattr(value, "name", value)
)
def test_the_numbers_are_those_of_one_device_and_nothing_moves(placement, kind, preset):
    inner, params, grads, (alone_params, alone_state) = alone(preset)
    mesh, put = placing(placement, kind)
    with jax.set_mesh(mesh):
        tx = sharded(inner, placement, mesh)
        step, params = stepping(tx), put(params)
        state = tx.init(params)
        before = shardings((params, state))
        made = run(step, params, state, grads, put)
    same(made[0], alone_params)
    same(jax.tree.leaves(made[1]), jax.tree.leaves(alone_state))
    assert shardings(made) == before
    assert step._cache_size() == 1
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params)
    assert gradtx.state_sharding(tx, abstract) == before[1]
    with jax.set_mesh(mesh):
        moved = exchanges(step.lower(put(grads[0]), *made[::-1]).compile().as_text())
        if placement != "ZeRO-1":
            assert moved == []
            return
        # The parameters come together again, as they do without formats.
        plain = sharded(adamw(), placement, mesh)
        compiled = stepping(plain).lower(put(grads[0]), plain.init(params), params).compile()
    assert sorted(moved) == sorted(exchanges(compiled.as_text() or ""))


@pytest.mark.by_turns(1)
@pytest.mark.parametrize(
    ("placement", "kind"),
    [
        ("FSDP", AxisType.Auto),
        ("FSDP", AxisType.Explicit),
        pytest.param("tensor", AxisType.Explicit, marks=pytest.mark.full),
        pytest.param("2-D", AxisType.Explicit, marks=pytest.mark.full),
        pytest.param("ZeRO-1", AxisType.Auto, marks=pytest.mark.full),
        pytest.param("ZeRO-1", AxisType.Explicit, marks=pytest.mark.full),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_where_blocks_are_on_several_devices_the_numbers_are_right_too(placement, kind):
    inner, params, grads, expected = alone("8bit", odd=True)
    mesh, put = placing(placement, kind)
    with jax.set_mesh(mesh):
        tx = sharded(inner, placement, mesh)
        step, params = stepping(tx), put(params)
        state = tx.init(params)
        made = run(step, params, state, grads, put)
    assert shardings(made) == shardings((params, state))
    assert step._cache_size() == 1
    for x, y in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        # A sum that is rounded otherwise may fall on the other side of a half.
        codes = x.dtype in (jnp.int8, jnp.uint8)
        wide = (np.asarray(a, np.float64) for a in (x, y))
        np.testing.assert_allclose(*wide, rtol=0 if codes else 1e-5, atol=1 if codes else 1e-6)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("preset", ["7-bytes", "8bit"])
def test_shards_of_a_state_go_in_and_out_of_shard_map(preset):
    _, params, grads, _ = alone(preset)
    # What is rounded at random draws other numbers in a shard.
    tx = gradtx.precision(adamw(), preset, slots={"nu": "uint8"}, min_size=64)
    params, grads = ({k: x for k, x in tree.items() if x.ndim} for tree in (params, grads[0]))
    mesh, state = Mesh(DEVICES, ("data",)), tx.init(params)
    along = {"bias": PartitionSpec("data"), "kernel": PartitionSpec("data")}
    along["layers"] = PartitionSpec(None, "data")
    # What is a leaf's, its scales among it, lies as the leaf does.
    state_specs = jax.tree_util.tree_map_with_path(
        lambda path, x: along.get(path[-1].key, PartitionSpec()), state
    )
    sharded_step = jax.shard_map(
        lambda g, s, p: gradtx.apply_gradients(tx, g, s, p),
        mesh=mesh,
        in_specs=(along, state_specs, along),
        out_specs=(along, state_specs),
    )
    expected = run(stepping(tx), params, state, [grads, grads])
    same(run(jax.jit(sharded_step), params, state, [grads, grads]), expected)


STOCHASTIC = {
    "7-bytes": lambda: gradtx.precision(adamw(), "7-bytes"),
    "bf16": lambda: gradtx.precision(adamw(), "bf16"),
    "codes at random": lambda: gradtx.store(adamw(), mu="int8_stochastic", nu="uint8_stochastic"),
}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_saved_on_eight_devices_and_restored_on_fewer_it_goes_on_bit_for_bit(name):
    tx = STOCHASTIC[name]()
    step, grads = stepping(tx), [filled(i + 1, jnp.bfloat16) for i in range(4)]

    def on(count, tree):
        mesh = Mesh(DEVICES[:count], ("data",))
        specs = {"bias": "data", "kernel": "data"}
        return {
            k: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*filter(None, [specs.get(k)]))))
            for k, x in tree.items()
        }

    params = on(8, filled(0, jnp.bfloat16))
    params, state = run(step, params, tx.init(params), grads[:2], functools.partial(on, 8))
    saved, kept = gradtx.to_state_dict(state), jax.tree.map(np.asarray, params)
    expected = run(step, params, state, grads[2:], functools.partial(on, 8))
    for count in (2, 1):
        put = functools.partial(on, count)
        restored, report = gradtx.from_state_dict(tx, put(kept), saved)
        assert report.is_complete and not report.cast
        made = run(step, put(kept), restored, grads[2:], put)
        same(made, expected)
        assert made[0]["kernel"].sharding.num_devices == count


@pytest.mark.wide
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_converted_state_is_sharded_as_its_parameters(kind):
    mesh, put = placing("2-D", kind)
    with jax.set_mesh(mesh):
        params = put(filled(0, jnp.float32))
        plain, small = adamw(), gradtx.precision(adamw(), "7-bytes")
        state = plain.init(params)
        narrow, moved, _ = gradtx.convert_state(plain, state, small, params, params_dtype="bfloat16")
        assert shardings(moved) == shardings(small.init(narrow))
        assert shardings(narrow) == shardings(params)
        back, again, _ = gradtx.convert_state(small, moved, plain, narrow, params_dtype="float32")
        assert shardings((back, again)) == shardings((params, state))
    same(again, state)
