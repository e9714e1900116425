"""Of equal gradients several processes make the update of one process, and that of one device.

    python tests/distributed_update.py --processes 1 --devices 4 --out FOLDER
    python tests/distributed_update.py --processes 4 --expect FOLDER/update.npz

The first writes what one process makes on as many devices. Each of the others compares the shards that it has
with the same part of that, bit for bit, and with what its own device makes of whole arrays. That is bit for
bit too, but for Muon, where a device that has one matrix of a size multiplies it by another kernel of the
compiler's than one that has several; there the last digits differ.
"""

import functools
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


def on_mesh(mode, mesh, width, layers):
    """Parameters and state after steps on a mesh, by path."""
    plan = example.make_plan(example.Settings(mode=mode, steps=10, width=width, layers=layers), mesh)
    # Together the gradients are shorter than the clip, whose norm is a sum and so in another order.
    values = [draw(plan, 0.1, 0), *(draw(plan, 1e-4, 1 + i) for i in range(STEPS))]
    made = jax.tree_util.tree_leaves_with_path(after_some_steps(plan, values))
    return {f"{mode}: {jax.tree_util.keystr(path)}": x for path, x in made}


def on_one_device(mode, mesh, width, layers):
    """The same on the first device of this process alone, as arrays of numpy."""
    sizes = (1,) * mesh.devices.ndim
    types = (AxisType.Auto,) * mesh.devices.ndim
    alone = jax.make_mesh(sizes, mesh.axis_names, types, devices=jax.local_devices()[:1])
    return {path: np.asarray(x) for path, x in on_mesh(mode, alone, width, layers).items()}


def compare(ours, theirs, same):
    """Each shard that this process has with its part of whole arrays."""
    count = 0
    for path, x in ours.items():
        for shard in x.addressable_shards:
            same(np.asarray(shard.data), theirs[path][shard.index], err_msg=path)
            count += 1
    return count


def main(args):
    size = getattr(args, "width", 32), getattr(args, "layers", 1)
    together = args.expect and np.load(args.expect)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    equal, found = np.testing.assert_array_equal, {}
    for mode in example.MODES:
        mesh = example.make_mesh(mode, 2 if mode == "muon" else 1)
        ours = on_mesh(mode, mesh, *size)
        if together is None:
            found |= {path: np.asarray(x) for path, x in ours.items()}
            continue
        compare(ours, together, equal)
        count = compare(ours, on_one_device(mode, mesh, *size), close if mode == "muon" else equal)
        example.console.print(f"{mode}: {count} shards of {example.crowd()} are equal")
    if together is None:
        args.out.mkdir(parents=True, exist_ok=True)
        np.savez(args.out / "update.npz", **found)


if __name__ == "__main__":
    args = example.parse()
    if args.process_id is None:
        example.start_all(args)
    else:
        example.join(args)
        example.console.quiet = jax.process_index() != 0
        with example.failing_at_once():
            main(args)
