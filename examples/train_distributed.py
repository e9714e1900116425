"""Train a small transformer on many devices: ZeRO-1, FSDP, or Muon on a mesh of two axes.

    python examples/train_distributed.py --mode zero1 --processes 4
    python examples/train_distributed.py --mode fsdp --processes 2 --devices 4 --steps 50
    python examples/train_distributed.py --mode muon --processes 4 --resume
    srun python examples/train_distributed.py --mode fsdp --cluster

The modes differ in how parameters are sharded and in the optimizer, and in nothing else:

    zero1   every device has all parameters; `gradtx.shard_state` keeps the state of AdamW in shards
    fsdp    every parameter is in shards, and so, without a word, is what AdamW remembers of it
    muon    every matrix is in shards over both axes of a mesh, "data" and "model"; for the step each
            device gets whole matrices of them, and orthogonalizes these

Parameters and state are made where they stay, so that neither is ever whole on a device that keeps a
part of it. The batch of a step depends on the seed and the step alone, and each process reads its own
rows of it: one process and many see the same, and their losses agree up to the order of sums.

`--processes N` starts N processes on this machine: on a CPU each has `--devices` simulated devices
and they talk by Gloo; of GPUs each gets as many. The output is that of the first; if one fails the
others are stopped. Without it the run is in this one process, with all devices that JAX sees.

On a cluster each process is started by its scheduler with `--cluster`, which calls
`jax.distributed.initialize()`. JAX finds the other processes by what is there, in this order:

    Open MPI            OMPI_MCA_orte_hnp_uri, OMPI_COMM_WORLD_SIZE, _RANK and _LOCAL_RANK
    Slurm               SLURM_JOB_ID, SLURM_STEP_NODELIST, SLURM_NTASKS, SLURM_PROCID, SLURM_LOCALID
    TPU pods            on GKE TPU_WORKER_ID and TPU_PROCESS_ADDRESSES or TPU_WORKER_HOSTNAMES; elsewhere
                        the metadata of the machine
    Kubernetes          KUBERNETES_SERVICE_HOST and JOB_COMPLETION_INDEX of an indexed Job (jax[k8s])

JAX_COORDINATOR_ADDRESS goes before the address that is found, JAX_COORDINATOR_PORT before its port.
Elsewhere start each process yourself, with `--coordinator HOST:PORT --processes N --process-id I`.

The folder of the run gets `losses.json` and Orbax checkpoints, in place of a former run's; on several
machines it is one that all of them see. `--resume` goes on from the last checkpoint on any number of
processes, also from zero1 in fsdp and back, since their states are the same. `--expect FILE` compares
the losses with the `losses.json` of another run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from local_processes import free_port, is_free, run_together
from ready_made import ready_made
from rich.console import Console
from rich.table import Table
from stdlib_text import load
from transformer import CONTEXT, DECAYED, HEADS, LAYERS, WIDTH, Transformer

import gradtx

MODES = ("zero1", "fsdp", "muon")
WARMUP, EVERY = 20, 100  # steps of warmup; steps from one checkpoint to the next
TOLERANCE = 1e-4  # of the losses of two runs whose sums are in another order, relative
PyTree = Any
Checkpoints = ocp.CheckpointManager
console = Console(highlight=False, soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the losses of a run depend on; kept in every checkpoint."""

    mode: str = "zero1"
    steps: int = 200
    batch_size: int = 32
    learning_rate: float = 2e-3
    seed: int = 0
    width: int = WIDTH
    layers: int = LAYERS
    context: int = CONTEXT


# Where everything lies


def make_mesh(mode: str, model: int) -> Mesh:
    """All devices of all processes, along one axis, or along two for Muon."""
    devices = jax.device_count()
    sizes = {"data": devices // model, "model": model} if mode == "muon" else {"data": devices}
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), (AxisType.Auto,) * len(sizes))


def spec(mode: str, mesh: Mesh, shape: tuple[int, ...]) -> PartitionSpec:
    """How a parameter is sharded; an axis that the devices do not divide stays whole."""
    axes: list[str | None] = [None] * len(shape)
    if mode == "fsdp":
        axes[int(np.argmax(shape))] = "data"
    elif mode == "muon" and len(shape) == 2:
        axes = ["data", "model"]
    return PartitionSpec(
        *(a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape, strict=True))
    )


def make_optimizer(settings: Settings, mesh: Mesh) -> gradtx.Transform:
    """AdamW or Muon behind clipping; where the parameters are whole, with its state in shards."""
    peak, steps = settings.learning_rate, settings.steps
    rate = gradtx.warmup_linear_decay_schedule(0.0, peak, min(WARMUP, steps // 2), steps)
    if settings.mode == "muon":
        tx = ready_made("muon", rate, decay=0.1)
    else:
        tx = gradtx.adamw(rate, b2=0.95, weight_decay=0.1, mask=DECAYED)
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), tx)
    return gradtx.shard_state(tx, mesh, "data") if settings.mode == "zero1" else tx


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is known of a run before there is an array: the shapes say where each of them lies."""

    settings: Settings
    mesh: Mesh
    graph: Any
    tx: gradtx.Transform
    params: PyTree  # jax.ShapeDtypeStruct with shardings, and so is the state
    state: PyTree

    def make(self) -> tuple[PyTree, PyTree]:
        """The first parameters and their state, each array made in its shards."""
        params = jax.jit(partial(first_params, self.settings), out_shardings=shardings(self.params))()
        init = jax.jit(self.tx.init, out_shardings=gradtx.state_sharding(self.tx, params))
        return params, init(params)


def model(settings: Settings) -> Transformer:
    return Transformer(nnx.Rngs(settings.seed), settings.width, settings.layers)


def first_params(settings: Settings) -> PyTree:
    return nnx.to_pure_dict(nnx.state(model(settings)))


def make_plan(settings: Settings, mesh: Mesh) -> Plan:
    def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        own = NamedSharding(mesh, spec(settings.mode, mesh, x.shape))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=own)

    params = jax.tree.map(placed, jax.eval_shape(partial(first_params, settings)))
    tx = make_optimizer(settings, mesh)
    graph = nnx.graphdef(nnx.eval_shape(partial(model, settings)))
    return Plan(settings, mesh, graph, tx, params, tx.init(params))


def shardings(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.sharding, tree)


def show_plan(plan: Plan) -> None:
    """Print what each device keeps."""
    sizes = " x ".join(f"{n} {name!r}" for name, n in plan.mesh.shape.items())
    console.print(f"{plan.settings.mode} on a mesh of {sizes}: {crowd()} ({jax.devices()[0].platform})")
    table = Table("", "in all", "on a device", box=None, pad_edge=False)
    for name, tree in ("parameters", plan.params), ("optimizer state", plan.state):
        leaves = jax.tree.leaves(tree)
        whole = sum(x.size * x.dtype.itemsize for x in leaves)
        kept = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)
        table.add_row(name, f"{whole / 2**20:.2f} MiB", f"{kept / 2**20:.2f} MiB ({kept / whole:.0%})")
    console.print(table)
    for remark in gradtx.describe(plan.tx, plan.params).remarks:
        console.print(remark)


def crowd() -> str:
    return f"{counted(jax.process_count(), 'process', 'es')}, {counted(jax.device_count(), 'device', 's')}"


def counted(n: int, what: str, ending: str) -> str:
    return f"{n} {what}{ending if n > 1 else ''}"


# Training


@dataclasses.dataclass
class Run:
    """A run at some step; with its settings it is what a checkpoint holds."""

    params: PyTree
    opt_state: PyTree
    losses: list[float]  # one for each step so far


def compile_step(plan: Plan) -> Callable:
    """The training step, whose results lie where its arguments did."""

    def loss(params: PyTree, windows: jax.Array) -> jax.Array:
        tokens = windows.astype(jnp.int32)
        logits = nnx.merge(plan.graph, params)(tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    everywhere = NamedSharding(plan.mesh, PartitionSpec())
    where = shardings(plan.params), shardings(plan.state), everywhere

    @partial(jax.jit, donate_argnums=(0, 1), out_shardings=where)
    def train_step(params: PyTree, opt_state: PyTree, windows: jax.Array) -> tuple:
        value, grads = jax.value_and_grad(loss)(params, windows)
        params, opt_state = gradtx.apply_gradients(plan.tx, grads, opt_state, params)
        return params, opt_state, value

    return train_step


def batch(text: np.ndarray, plan: Plan, step: int) -> jax.Array:
    """The windows of one step in shards, of which each process reads those of its devices."""
    settings, length = plan.settings, plan.settings.context + 1
    random = np.random.default_rng((settings.seed, step))
    starts = random.integers(text.size - length + 1, size=settings.batch_size)

    def rows(index: Any) -> np.ndarray:
        return text[starts[index[0]][:, None] + np.arange(length)]

    sharding = NamedSharding(plan.mesh, PartitionSpec("data"))
    return jax.make_array_from_callback((settings.batch_size, length), sharding, rows)


def train(run: Run, plan: Plan, text: np.ndarray, stop: int, checkpoints: Checkpoints) -> None:
    """Run the steps up to `stop`; save every hundred steps and at the end."""
    train_step, tokens = compile_step(plan), plan.settings.batch_size * plan.settings.context
    first, began = len(run.losses), time.monotonic()
    for step in range(first, stop):
        run.params, run.opt_state, value = train_step(run.params, run.opt_state, batch(text, plan, step))
        run.losses.append(float(value))
        now = time.monotonic()
        if step == first:
            console.print(f"step {step + 1:5}   loss {run.losses[-1]:.4f}   compiled in {now - began:.1f} s")
            began = now
        elif (step + 1) % 10 == 0 or step + 1 == stop:
            speed = (step - first) * tokens / (now - began)
            console.print(f"step {step + 1:5}   loss {run.losses[-1]:.4f}   {speed:,.0f} tokens/s")
        if (step + 1) % EVERY == 0 or step + 1 == stop:
            save(checkpoints, plan.settings, run)


# Checkpoints


def open_checkpoints(out: Path) -> Checkpoints:
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    return Checkpoints((out / "checkpoints").resolve(), options=options)


def save(checkpoints: Checkpoints, settings: Settings, run: Run) -> None:
    """Write parameters and optimizer state, each process its shards, and the rest as JSON."""
    arrays = {"params": run.params, "opt_state": run.opt_state}
    record = {"settings": dataclasses.asdict(settings), "losses": run.losses}
    items = {"arrays": ocp.args.StandardSave(arrays), "record": ocp.args.JsonSave(record)}
    checkpoints.save(len(run.losses), args=ocp.args.Composite(**items))


def resumed_settings(checkpoints: Checkpoints, given: dict[str, Any]) -> tuple[Settings, list[float]]:
    """The settings of the last checkpoint and its losses; only the mode may be another."""
    step = checkpoints.latest_step()
    if step is None:
        raise SystemExit(f"nothing to resume: {checkpoints.directory} holds no checkpoint")
    items = ocp.args.Composite(record=ocp.args.JsonRestore())
    record = checkpoints.restore(step, args=items)["record"]
    old = Settings(**record["settings"])
    for name, value in given.items():
        was = getattr(old, name)
        if value != was and not (name == "mode" and "muon" not in (value, was)):
            raise SystemExit(
                f"the run in {checkpoints.directory.parent} has {option(name)} {was}, not {value}: leave "
                f"{option(name)} out to resume it, or start a new run with another --out"
            )
    return dataclasses.replace(old, **given), record["losses"]


def restore(checkpoints: Checkpoints, plan: Plan, losses: list[float]) -> Run:
    """The arrays of the last checkpoint, each process reading the shards that it keeps now."""
    template = ocp.args.StandardRestore({"params": plan.params, "opt_state": plan.state})
    arrays = checkpoints.restore(len(losses), args=ocp.args.Composite(arrays=template))["arrays"]
    console.print(f"resuming at step {len(losses)}")
    return Run(arrays["params"], arrays["opt_state"], losses)


# Results


def conclude(run: Run, settings: Settings, out: Path, expected: Path | None) -> None:
    """Write the losses, and compare them with another run's."""
    if jax.process_index() == 0:
        record = {
            "settings": dataclasses.asdict(settings),
            "on": crowd(),
            "losses": run.losses,
        }
        (out / "losses.json").write_text(json.dumps(record, indent=1) + "\n")
        console.print(f"losses in {out / 'losses.json'}, and a checkpoint beside it")
    if len(run.losses) < settings.steps:
        console.print(f"stopped after step {len(run.losses)}; --resume continues")
    if expected is not None:
        compare(run.losses, expected)


def compare(losses: list[float], path: Path) -> None:
    try:
        record = json.loads(path.read_text())
        expected, whose = record["losses"], f"{record['settings']['mode']}, {record['on']}"
    except (ValueError, KeyError, TypeError):
        raise SystemExit(f"{path} is no losses.json of this example") from None
    steps = min(len(losses), len(expected))
    ours, theirs = np.array(losses[:steps]), np.array(expected[:steps])
    off = np.abs(ours - theirs) / np.abs(theirs)
    said = f"the losses of {steps} steps differ from {path} ({whose}) by {off.max():.1e} at most"
    if not off.max() <= TOLERANCE:
        raise SystemExit(f"{said}, at step {off.argmax() + 1}; {TOLERANCE:.0e} is allowed")
    console.print(said)


# The command line


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def address(text: str) -> str:
    if not text.rpartition(":")[0] or not text.rpartition(":")[2].isdigit():
        raise argparse.ArgumentTypeError(f"must be HOST:PORT, as localhost:12345, got {text}")
    return text


def existing(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return Path(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a small transformer on many devices, in one process or many.",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--mode", choices=MODES, help=f"how parameters and state are sharded ({Settings.mode})")
    add("--processes", type=positive, default=None, metavar="N", help="start N processes on this machine")
    add("--devices", type=positive, default=None, metavar="K", help="devices of each process (1)")
    add("--model", type=positive, default=None, metavar="M", help="devices along muon's axis 'model' (2)")
    add("--steps", type=positive, help=f"length of the schedule and the run ({Settings.steps})")
    add("--batch-size", type=positive, help=f"windows of a step, of all devices ({Settings.batch_size})")
    add("--learning-rate", type=float, help=f"the schedule's peak ({Settings.learning_rate})")
    add("--seed", type=int)
    add("--width", type=positive, help=f"features of the model ({WIDTH})")
    add("--layers", type=positive, help=f"blocks of the model ({LAYERS})")
    add("--context", type=positive, help=f"bytes of a window ({CONTEXT})")
    add("--out", type=Path, default=Path("runs/distributed"), help="folder of the results (runs/distributed)")
    add("--resume", action="store_true", default=False, help="continue from the last checkpoint")
    add("--stop-after", type=positive, default=None, metavar="S", help="stop after step S, as if interrupted")
    add("--expect", type=existing, default=None, metavar="FILE", help="losses.json to agree with")
    add("--cluster", action="store_true", default=False, help="be one process of a scheduler's job")
    add("--coordinator", type=address, default=None, metavar="HOST:PORT", help="where process 0 is")
    add("--process-id", type=int, default=None, metavar="I", help="be process I of N, from 0, and start none")
    args = parser.parse_args()
    if args.cluster and (args.processes or args.coordinator or args.process_id is not None):
        parser.error("--cluster: leave out --processes, --coordinator and --process-id, which JAX finds")
    if args.coordinator and not args.processes:
        parser.error("--coordinator: say of how many processes, by --processes")
    if args.process_id is not None:
        if not (args.processes and args.coordinator):
            parser.error("--process-id: say also --processes and --coordinator")
        if not 0 <= args.process_id < args.processes:
            parser.error(f"--process-id: must be from 0 to {args.processes - 1}, got {args.process_id}")
    width = getattr(args, "width", WIDTH)
    if width % (2 * HEADS):
        parser.error(f"--width: must be a multiple of {2 * HEADS}, got {width}")
    return args


def along_model(args: argparse.Namespace, mode: str, devices: int) -> int:
    """How many devices are along the axis "model"; an error if the devices do not go into the mesh."""
    if mode != "muon":
        if args.model:
            raise SystemExit(f"--model is for --mode muon; the mesh of {mode} has one axis")
        return 1
    along = args.model or (1 if devices % 2 else 2)
    if devices % along:
        raise SystemExit(f"--model {along} does not divide the {devices} devices")
    return along


def check_batch(size: int, ways: int) -> None:
    if size % ways:
        raise SystemExit(
            f"a batch of {size} windows cannot be split over {ways} devices: give a --batch-size that {ways} "
            f"divides, such as {math.ceil(size / ways) * ways}, or other devices"
        )


# Processes


def start_all(args: argparse.Namespace) -> None:
    """Start as many processes of this program, each of which is told who it is."""
    if not args.resume:  # what is wrong is said once, before there are processes
        devices, mode = args.processes * (args.devices or 1), getattr(args, "mode", Settings.mode)
        ways = devices // along_model(args, mode, devices)
        check_batch(getattr(args, "batch_size", Settings.batch_size), ways)
    where = args.coordinator or f"localhost:{free_port()}"
    if not is_free(int(where.rpartition(":")[2])):
        raise SystemExit(
            f"--coordinator {where}: the port is in use. Give another one, or leave --coordinator out"
        )
    command = [sys.executable, *sys.argv, "--coordinator", where]
    run_together([[*command, "--process-id", str(i)] for i in range(args.processes)])


def join(args: argparse.Namespace) -> None:
    """Make this process one of several, before JAX looks for devices."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if args.devices or args.processes:
        jax.config.update("jax_num_cpu_devices", args.devices or 1)
    if args.cluster:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise SystemExit(
                f"--cluster: JAX found no cluster ({error}) The environment has nothing of Slurm, Open MPI, "
                f"Kubernetes or a TPU pod; the head of this file names the variables. Elsewhere start each "
                f"process with --coordinator HOST:PORT --processes N --process-id I"
            ) from None
    elif args.process_id is not None:
        host = args.coordinator.rpartition(":")[0]
        mine = range(args.devices or 1)
        jax.distributed.initialize(
            args.coordinator,
            args.processes,
            args.process_id,
            local_device_ids=[args.process_id * len(mine) + i for i in mine] if host == "localhost" else None,
            coordinator_bind_address=args.coordinator if host == "localhost" else None,
        )


def work(args: argparse.Namespace) -> None:
    """Train, as one process of one or many."""
    join(args)
    console.quiet = jax.process_index() != 0
    names = {field.name for field in dataclasses.fields(Settings)}
    given = {name: value for name, value in vars(args).items() if name in names}
    checkpoints = open_checkpoints(args.out)
    losses: list[float] = []
    if args.resume:
        settings, losses = resumed_settings(checkpoints, given)
    else:
        settings = Settings(**given)
        for step in checkpoints.all_steps():
            checkpoints.delete(step)
    along = along_model(args, settings.mode, jax.device_count())
    mesh = make_mesh(settings.mode, along)
    check_batch(settings.batch_size, mesh.shape["data"])
    text, _ = load()
    seen = hashlib.sha256(repr(settings).encode() + text.tobytes()).digest()
    try:
        multihost_utils.assert_equal(np.frombuffer(seen, np.uint8))
    except AssertionError:
        raise SystemExit("the processes have other settings, or other versions of Python's library") from None
    # In it gradtx sees on which mesh a traced matrix is.
    jax.sharding.set_mesh(mesh)
    plan = make_plan(settings, mesh)
    show_plan(plan)
    run = restore(checkpoints, plan, losses) if losses else Run(*plan.make(), losses)
    stop = min(args.stop_after or settings.steps, settings.steps)
    train(run, plan, text, stop, checkpoints)
    conclude(run, settings, args.out, args.expect)


@contextlib.contextmanager
def failing_at_once() -> Iterator[None]:
    """An error ends this process at once; else it would wait for the others, and they for it."""
    try:
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        if isinstance(error, SystemExit):
            print(error, file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def main() -> None:
    args = parse()
    if args.processes and args.process_id is None:
        start_all(args)
        return
    try:
        with failing_at_once():
            work(args)
    except KeyboardInterrupt:
        raise SystemExit("\ninterrupted: --resume continues from the last checkpoint") from None


if __name__ == "__main__":
    main()
