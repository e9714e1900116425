"""A run of several optimizers at once that is the same on every mesh, and the script of one process of it.

Parameters and gradients are made of numpy by the path of a leaf and the step. As a module it is what a test
runs in its own process; as a script it is one of several, which `processes.py` starts.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import pickle
import signal
import sys
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.core.compose.rule import Key, Rule, Slot

LEAVES = {
    "layers/0/kernel": ((64, 24), "float32", ("data", "model")),
    "layers/1/kernel": ((24, 64), "float32", ("model", "data")),
    "layers/1/bias": ((16,), "float32", ("data",)),
    "half": ((32, 8), "bfloat16", (None, "data")),
    "odd": ((5, 3), "float32", ()),
    "scale": ((), "float32", ()),
}
"""The shape and the dtype of each parameter, and the axes of a mesh that shard it."""

POISONED, SPOT = 1, ("layers/0/kernel", (63, 23))
"""The step and the place of a gradient that is no number: in one shard alone, that of the last device."""

STATES_OF = "zero"
"""The optimizer whose state is in shards, and whose parameters are whole on each device."""


def drawn(path, step):
    """The gradient of a leaf at a step; at step -1 the parameter."""
    shape, dtype, _ = LEAVES[path]
    rng = np.random.default_rng([zlib.crc32(path.encode()), step + 1])
    return np.asarray(rng.normal(size=shape), jnp.dtype(dtype))


def mesh_of(axes, kind="Auto"):
    """A mesh over as many devices as its axes have; None without axes."""
    if not axes:
        return None
    devices = np.array(jax.devices()[: math.prod(axes.values())]).reshape(*axes.values())
    return Mesh(devices, tuple(axes), axis_types=(getattr(AxisType, kind),) * len(axes))


def sharding_of(path, mesh, whole):
    """How a parameter is sharded, in the form in which a compiled step gives it back."""
    shape, _, axes = LEAVES[path]
    parts = [a if a in mesh.axis_names and not whole else None for a in axes]
    if AxisType.Explicit in mesh.axis_types:
        parts += [None] * (len(shape) - len(parts))
    else:
        while parts and parts[-1] is None:
            parts.pop()
    return NamedSharding(mesh, PartitionSpec(*parts))


def tree_at(step, mesh, whole=False, poisoned=False):
    """A tree like the parameters, in shards or whole on each device of a mesh; without one on one device."""
    made = {}
    for path in LEAVES:
        x = drawn(path, step)
        if poisoned and path == SPOT[0]:
            x[SPOT[1]] = np.nan
        if mesh is None:
            made[path] = jnp.asarray(x)
        else:
            sharding = sharding_of(path, mesh, whole)
            made[path] = jax.make_array_from_callback(x.shape, sharding, lambda index, x=x: x[index])
    last = {"kernel": made["layers/1/kernel"], "bias": made["layers/1/bias"]}
    return {
        "layers": [{"kernel": made["layers/0/kernel"]}, last],
        **{k: made[k] for k in ("half", "odd", "scale")},
    }


class RoundedAtRandom(Rule, name="rounded_at_random"):
    """m = 0.9 m + g in bfloat16, rounded up or down by chance so that its mean is right."""

    rng_key = Key(lambda rule: jax.random.key(5))
    mu = Slot(dtype="mu_dtype")
    mu_dtype: str

    def apply(self, g, slots, leaf):
        exact = jax.lax.bitcast_convert_type(0.9 * slots.mu + g, jnp.uint32)
        chance = jax.random.bits(leaf.key, g.shape, jnp.uint16).astype(jnp.uint32)
        rounded = jax.lax.bitcast_convert_type((exact + chance) & jnp.uint32(0xFFFF0000), jnp.float32)
        return rounded, {"mu": rounded}


def transforms(mesh, names=None):
    """The optimizers by name; all but the last two are elementwise, up to what a guard remembers of norms."""
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, 0.1, 2, 10)
    views = {"layers/*/kernel": gradtx.matrix_view("rc"), "*": None}
    made = {
        "adamw": gradtx.adamw(schedule, weight_decay=0.1, mu_dtype=jnp.bfloat16),
        "guard": gradtx.guard(gradtx.adam(0.1)),
        "noise": gradtx.chain(gradtx.add_noise(0.1, 0.5, key=3), gradtx.sgd(0.1, momentum=0.9)),
        "rounded": gradtx.chain(RoundedAtRandom(mu_dtype="bfloat16"), gradtx.scale(-0.1)),
        STATES_OF: gradtx.adamw(0.1),
        "clipped": gradtx.chain(gradtx.clip_by_global_norm(0.5), gradtx.adamw(0.1)),
        "muon": gradtx.muon(0.1, muon_weight_dimension_numbers=views),
    }
    if mesh is not None:
        made[STATES_OF] = gradtx.shard_state(made[STATES_OF], mesh, "data", min_size=1)
    return {name: made[name] for name in names or [name for name in made if name != "muon"]}


class Run:
    """Some optimizers, each with parameters and a state of its own.

    Attributes:
        at: the next step.
        params: the parameters by optimizer.
        states: the states by optimizer.
        norms: the global norm of the gradients of each step made.
    """

    def __init__(self, mesh, names=None):
        self.mesh, self.txs = mesh, transforms(mesh, names)
        self.at, self.norms = 0, []
        self.params = {name: tree_at(-1, mesh, name == STATES_OF) for name in self.txs}
        self.states = {name: tx.init(self.params[name]) for name, tx in self.txs.items()}
        self.step = jax.jit(self._step)

    def _step(self, params, states, grads):
        made = {
            name: gradtx.apply_gradients(tx, grads[name], states[name], params[name])
            for name, tx in self.txs.items()
        }
        norm = gradtx.global_norm(next(g for name, g in grads.items() if name != "guard"))
        return {k: p for k, (p, _) in made.items()}, {k: s for k, (_, s) in made.items()}, norm

    def started(self):
        """What the next step will give."""
        grads = {
            name: tree_at(self.at, self.mesh, name == STATES_OF, name == "guard" and self.at == POISONED)
            for name in self.txs
        }
        return self.step(self.params, self.states, grads)

    def go_on(self, to):
        """Makes the steps before one."""
        while self.at < to:
            self.params, self.states, norm = self.started()
            self.norms.append(float(norm))
            self.at += 1
        return self

    def save(self, path):
        """Writes an Orbax checkpoint."""
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, {"params": self.params, "states": self.states})
            checkpointer.wait_until_finished()

    def restore(self, path):
        """Reads one that any mesh has written: to where the parameters are here, and the states belong."""
        shapes = jax.eval_shape(lambda: {"params": self.params, "states": self.states})
        shardings = {
            "params": jax.tree.map(lambda x: x.sharding, self.params),
            "states": {name: gradtx.state_sharding(tx, self.params[name]) for name, tx in self.txs.items()},
        }
        wanted = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
        )
        with ocp.StandardCheckpointer() as checkpointer:
            found = checkpointer.restore(path, wanted)
        assert jax.tree.map(lambda x: x.sharding, found) == shardings
        self.params, self.states = found["params"], found["states"]
        self.at = int(next(iter(self.states.values()))["step"])
        return self

    def shards(self):
        """The parts of all arrays that are on devices of this process, by optimizer and path."""
        found = {}
        for name, params in self.params.items():
            tree = {"params": params, "state": self.states[name]}
            found[name] = {
                "/".join(jax.tree_util.keystr((key,), simple=True) for key in path): (
                    x.shape,
                    [(part.index, np.asarray(part.data)) for part in x.addressable_shards],
                )
                for path, x in jax.tree_util.tree_leaves_with_path(tree)
            }
        return found


def joined(parts):
    """All arrays whole, from the shards of each process, which agree where they are of the same place."""
    found = {}
    for name, paths in parts[0].items():
        found[name] = {}
        for path, (shape, _) in paths.items():
            everywhere = [shard for part in parts for shard in part[name][path][1]]
            whole = np.empty(shape, everywhere[0][1].dtype)
            for index, data in everywhere:
                whole[index] = data
            for index, data in everywhere:
                assert whole[index].tobytes() == data.tobytes(), f"{name}: {path} differs on the devices"
            found[name][path] = whole
    return found


def state_dicts(run):
    """A state that several processes share becomes a dict when it is gathered, and comes back from there."""
    name = "adamw"
    tx, state, params = run.txs[name], run.states[name], run.params[name]
    try:
        gradtx.to_state_dict(state)
    except ValueError as error:
        assert "spread over several processes. Gather the state first" in str(error), error
    else:
        raise AssertionError("a part of a state was taken for all of it")
    back, restored = gradtx.from_state_dict(
        tx, params, gradtx.to_state_dict(process_allgather(state, tiled=True))
    )
    assert restored.is_complete
    assert jax.tree.map(lambda x: x.sharding, back) == gradtx.state_sharding(tx, params)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        for one, other in zip(a.addressable_shards, b.addressable_shards, strict=True):
            assert np.asarray(one.data).tobytes() == np.asarray(other.data).tobytes()


def train(run, to, folder, killed):
    """Makes steps and a checkpoint after each second one; the last process may be killed in a step."""
    while run.at < to:
        if run.at == killed and jax.process_index() == jax.process_count() - 1:
            run.started()
            os.kill(os.getpid(), signal.SIGKILL)
        run.go_on(run.at + 1)
        if run.at % 2 == 0:
            run.save(folder / str(run.at))
            print("saved", run.at, flush=True)


def work(mesh, kind="Auto", names=None, start=None, to=None, save=None, out=None, **others):
    """One run: from the beginning or a checkpoint, to a step, a checkpoint and a file of all shards."""
    run, found = Run(mesh_of(mesh, kind), names), {}
    if start:
        found["restored"] = run.restore(Path(start)).shards()
    if others.get("train_in"):
        return train(run, to, Path(others["train_in"]), others["killed"])
    run.go_on(to)
    if save:
        run.save(Path(save))
    if others.get("dicts"):
        state_dicts(run)
    if out:
        found |= {"norms": run.norms, "end": run.shards()}
        Path(f"{out}.{jax.process_index()}").write_bytes(pickle.dumps(found))


def main():
    """One process: its number, the number of all, the devices of each, the port, and what to do."""
    index, count, devices, port, what = json.loads(sys.argv[1])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_num_cpu_devices", devices)
    known = inspect.signature(jax.distributed.initialize).parameters
    patience = {"initialization_timeout": 60, "heartbeat_timeout_seconds": 10, "shutdown_timeout_seconds": 60}
    jax.distributed.initialize(
        f"localhost:{port}", count, index, **{k: v for k, v in patience.items() if k in known}
    )
    print("connected", flush=True)
    work(**what)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main()
