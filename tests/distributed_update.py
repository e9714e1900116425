"""Of equal gradients the update in shards is that of one device, in several processes.

    python tests/distributed_update.py --processes 4

Each process compares the shards that it has with the same part of what its own device makes of whole arrays,
bit for bit. Muon's parameters are compared up to the last digits, in which they differ.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import train_distributed as example

import gradtx

STEPS = 3


def after_some_steps(plan, values):
    """Parameters and state after steps whose gradients are given."""

    def put(arrays):
        leaves = [
            jax.make_array_from_callback(x.shape, like.sharding, lambda index, x=x: x[index])
            for x, like in zip(arrays, jax.tree.leaves(plan.params), strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(plan.params), leaves)

    def step(grads, state, params):
        return gradtx.apply_gradients(plan.tx, grads, state, params)

    jax.sharding.set_mesh(plan.mesh)
    params = put(values[0])
    where = example.shardings((plan.params, plan.state))
    state = jax.jit(plan.tx.init, out_shardings=where[1])(params)
    step = jax.jit(step, out_shardings=where)
    for grads in values[1:]:
        params, state = step(put(grads), state, params)
    return params, state


def draw(plan, scale, seed):
    """An array for each parameter; those of one seed are equal in all processes."""
    random = np.random.default_rng(seed)
    return [
        np.asarray(scale * random.standard_normal(x.shape), x.dtype) for x in jax.tree.leaves(plan.params)
    ]


def compare(mode, width, layers):
    settings = example.Settings(mode=mode, steps=10, width=width, layers=layers)
    mesh = example.make_mesh(mode, 2 if mode == "muon" else 1)
    alone = jax.make_mesh(
        (1,) * mesh.devices.ndim,
        mesh.axis_names,
        (AxisType.Auto,) * mesh.devices.ndim,
        devices=jax.local_devices()[:1],
    )
    plan, whole = (example.make_plan(settings, one) for one in (mesh, alone))
    # Together they are shorter than the clip, whose norm is a sum and so in another order.
    values = [draw(plan, 0.1, 0), *(draw(plan, 1e-4, 1 + i) for i in range(STEPS))]
    ours, theirs = after_some_steps(plan, values), after_some_steps(whole, values)
    count = 0
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        expected, said = np.asarray(y), f"{mode}: {jax.tree_util.keystr(path)}"
        for shard in x.addressable_shards:
            found, wanted = np.asarray(shard.data), expected[shard.index]
            if mode == "muon":  # it differs in the last digits, and why is not known
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7, err_msg=said)
            else:
                np.testing.assert_array_equal(found, wanted, err_msg=said)
            count += 1
    example.console.print(f"{mode}: {count} shards of {example.crowd()} are equal")


if __name__ == "__main__":
    args = example.parse()
    if args.process_id is None:
        example.start_all(args)
    else:
        example.join(args)
        example.console.quiet = jax.process_index() != 0
        with example.failing_at_once():
            for mode in example.MODES:
                compare(mode, getattr(args, "width", 32), getattr(args, "layers", 1))
