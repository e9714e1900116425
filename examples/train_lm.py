"""Train a small transformer on the source of Python's standard library.

    python examples/train_lm.py
    python examples/train_lm.py --optimizer lion --schedule cosine --out runs/lion
    python examples/train_lm.py --accumulate 8 --guard --ema --out runs/wrapped
    python examples/train_lm.py --precision 7-bytes --out runs/7-bytes
    python examples/train_lm.py --config examples/run.toml --out runs/config
    python examples/train_lm.py --resume --learning-rate 1e-3

The model reads bytes and predicts the next one. The optimizer is composed in view, in
`make_optimizer`: clipping, Adam's direction, decayed weights, and a learning rate that warms up
and then falls to zero. A few minutes on two cores take it well below what counting pairs and triples
of bytes achieves; a run that does not even beat the pairs exits with an error. `--config` takes the
optimizer and its schedule from a TOML file in place of these options. `--accumulate` takes
each batch in micro-batches, `--guard` skips steps that would do harm, and `--ema` evaluates an
average of the weights. `--precision` says in how many bits weights and state are kept; the model
itself computes in float32 always, so that runs differ in what is kept alone.

The run's folder receives `training.png` and Orbax checkpoints, in place of a former run's. The
batch of a step depends only on the seed and the step, and a checkpoint holds parameters, optimizer
state, step and settings, so `--resume` continues bit for bit. What the command line changes on
resuming is printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from matplotlib.figure import Figure
from ready_made import USUAL, ready_made
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from stdlib_text import load, ngram_baselines
from transformer import CONTEXT, DECAYED, Transformer

import gradtx

WARMUP, EVERY = 100, 100  # steps of warmup; steps from one validation and checkpoint to the next
PyTree = Any
Checkpoints = ocp.CheckpointManager
console = Console(highlight=False)


# The optimizer


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run depends on; kept in every checkpoint."""

    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    schedule: str = "linear"
    steps: int = 1_400
    batch_size: int = 16
    accumulate: int = 1
    guard: bool = False
    ema: bool = False
    precision: str = "f32"
    seed: int = 0
    config: dict[str, Any] | None = None  # what --config read, in place of IN_CONFIG


# The dtype of the weights, and the preset of gradtx.precision; "bf16-nearest" has no remedy.
PRECISIONS: dict[str, tuple[Any, Any]] = {
    "f32": (jnp.float32, "f32"),
    "bf16-nearest": (jnp.bfloat16, "f32"),
    "bf16": (jnp.bfloat16, "bf16"),
    "8bit": (jnp.float32, "8bit"),
    "7-bytes": (jnp.bfloat16, "7-bytes"),
}
IN_CONFIG = ("optimizer", "learning_rate", "weight_decay", "schedule")


def make_schedule(settings: Settings) -> gradtx.Schedule | float:
    peak, steps = settings.learning_rate, settings.steps
    if settings.schedule == "constant":
        return peak
    shapes = {
        "linear": gradtx.warmup_linear_decay_schedule,
        "cosine": gradtx.warmup_cosine_decay_schedule,
    }
    return shapes[settings.schedule](0.0, peak, min(WARMUP, steps // 2), steps)


def make_optimizer(settings: Settings) -> gradtx.Transform:
    """AdamW from its parts, a ready-made optimizer behind the same clipping, or what a config says."""
    rate, decay = make_schedule(settings), settings.weight_decay
    if settings.config is not None:
        tx = gradtx.from_config(settings.config)
    elif settings.optimizer == "adamw":
        tx = gradtx.chain(
            gradtx.clip_by_global_norm(1.0),
            gradtx.scale_by_adam(b1=0.9, b2=0.95),
            gradtx.add_decayed_weights(decay, mask=DECAYED),
            gradtx.scale_by_learning_rate(rate),
        )
    else:
        tx = ready_made(settings.optimizer, rate, decay)
        tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), tx)
    if settings.ema:
        tx = gradtx.ema_params(tx, 0.99)
    preset = PRECISIONS[settings.precision][1]
    if preset != "f32":
        tx = gradtx.precision(tx, preset)
    tx = gradtx.track(tx, every=10)
    if settings.guard:
        tx = gradtx.guard(tx)
    return gradtx.accumulate(tx, settings.accumulate) if settings.accumulate > 1 else tx


# Training


@dataclasses.dataclass
class Run:
    """All that a run is at some step; a checkpoint holds exactly this."""

    settings: Settings
    params: PyTree
    opt_state: PyTree
    curves: dict[str, list]  # train, rate: a number per step; validation: pairs of step and loss

    @property
    def step(self) -> int:
        return len(self.curves["train"])


def model(seed: int, dtype: Any = jnp.float32) -> tuple[Any, PyTree]:
    """The model's structure and its first parameters, in a dtype."""
    graph, params = nnx.split(Transformer(nnx.Rngs(seed)))
    return graph, jax.tree.map(lambda p: p.astype(dtype), nnx.to_pure_dict(params))


def start(settings: Settings) -> tuple[Any, Run]:
    """The model's structure and a run at step 0."""
    graph, params = model(settings.seed, PRECISIONS[settings.precision][0])
    opt_state = make_optimizer(settings).init(params)
    return graph, Run(settings, params, opt_state, {"train": [], "rate": [], "validation": []})


def rate_of(opt_state: PyTree) -> float:
    """The learning rate of the next update, the first if there are several; NaN if there is none."""
    numbers = gradtx.hyperparams(opt_state).items()
    return next((x for name, x in numbers if name.split(".")[-1] == "learning_rate"), float("nan"))


def compile_step(graph: Any, tx: gradtx.Transform) -> tuple[Callable, Callable]:
    """The training step and the loss, each one compiled function."""

    def loss(params: PyTree, windows: jax.Array) -> jax.Array:
        tokens = windows.astype(jnp.int32)
        wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
        logits = nnx.merge(graph, wide)(tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params: PyTree, opt_state: PyTree, windows: jax.Array) -> tuple:
        value, grads = jax.value_and_grad(loss)(params, windows)
        params, opt_state = gradtx.apply_gradients(tx, grads, opt_state, params, value=value)
        return params, opt_state, value

    return train_step, jax.jit(loss)


def windows_at(text: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return text[starts[:, None] + np.arange(CONTEXT + 1)]


def batch(text: np.ndarray, settings: Settings, step: int) -> np.ndarray:
    """The windows of one step: a function of the seed and the step, whatever ran before."""
    random = np.random.default_rng((settings.seed, step))
    return windows_at(text, random.integers(text.size - CONTEXT, size=settings.batch_size))


def validate(loss: Callable, params: PyTree, text: np.ndarray) -> float:
    """The mean loss over 512 windows spread evenly over the held-out text."""
    starts = np.linspace(0, text.size - CONTEXT - 1, 512).astype(int)
    return float(np.mean([loss(params, windows_at(text, part)) for part in np.split(starts, 8)]))


def train(
    run: Run, graph: Any, text: np.ndarray, held_out: np.ndarray, stop: int, checkpoints: Checkpoints
) -> None:
    """Run the steps up to `stop`; validate and save every hundred steps and at the end."""
    train_step, loss = compile_step(graph, make_optimizer(run.settings))
    fields = "loss {task.fields[loss]:.3f}", "rate {task.fields[rate]:.1e}", "{task.fields[speed]}"
    columns = MofNCompleteColumn(), BarColumn(), *map(TextColumn, fields), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=stop, loss=0.0, rate=0.0, speed="compiling")
        for step in range(run.step, stop):
            rate = rate_of(run.opt_state)
            windows, values = batch(text, run.settings, step), []
            for part in np.split(windows, run.settings.accumulate):
                run.params, run.opt_state, value = train_step(run.params, run.opt_state, part)
                values.append(value)
            value = np.mean(values)
            run.curves["train"].append(float(value))
            run.curves["rate"].append(rate)
            speed = f"{(progress.tasks[bar].speed or 0) * windows[:, 1:].size:,.0f} tokens/s"
            progress.update(bar, completed=run.step, loss=float(value), rate=rate, speed=speed)
            if run.step % EVERY == 0 or run.step == stop:
                score = validate(loss, gradtx.eval_params(run.opt_state, run.params), held_out)
                run.curves["validation"].append((run.step, score))
                recent, measured = np.mean(run.curves["train"][-EVERY:]), gradtx.metrics(run.opt_state)
                console.print(
                    f"step {run.step:5}   train {recent:.3f}   validation {score:.3f}"
                    f"   |g| {measured['gradient_norm']:.2f}   |u|/|w| {measured['update_ratio']:.1e}"
                )
                save(checkpoints, run)


# Checkpoints


def open_checkpoints(out: Path) -> Checkpoints:
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    return Checkpoints((out / "checkpoints").resolve(), options=options)


def save(checkpoints: Checkpoints, run: Run) -> None:
    """Write parameters and optimizer state as arrays, settings and curves as JSON."""
    arrays = {"params": run.params, "opt_state": run.opt_state}
    record = {"settings": dataclasses.asdict(run.settings), "curves": run.curves}
    items = {"arrays": ocp.args.StandardSave(arrays), "record": ocp.args.JsonSave(record)}
    checkpoints.save(run.step, args=ocp.args.Composite(**items))


def resume(checkpoints: Checkpoints, given: dict[str, Any]) -> tuple[Any, Run]:
    """The last checkpoint under the settings that are given now; prints what these change."""
    step = checkpoints.latest_step()
    if step is None:
        raise SystemExit(f"nothing to resume: {checkpoints.directory} holds no checkpoint")
    items = ocp.args.Composite(record=ocp.args.JsonRestore())
    record = checkpoints.restore(step, args=items)["record"]
    old = Settings(**record["settings"])
    new = dataclasses.replace(old, **given)
    for name in ("optimizer", "guard", "ema", "precision"):
        if getattr(new, name) != getattr(old, name):
            raise SystemExit(
                f"the checkpoint holds the state of --{name} {getattr(old, name)}, which "
                f"{getattr(new, name)} cannot take over: leave --{name} out, or start a new run with "
                "another --out"
            )
    beside = [name for name in IN_CONFIG if name in given]
    if new.config is not None and beside:
        raise SystemExit(f"the run has a config: pass one with another {beside[0]}, --config FILE")
    if (new.accumulate > 1) != (old.accumulate > 1):
        raise SystemExit("the checkpoint cannot change between one batch and micro-batches")
    graph, run = start(old)
    template = ocp.args.StandardRestore({"params": run.params, "opt_state": run.opt_state})
    arrays = checkpoints.restore(step, args=ocp.args.Composite(arrays=template))["arrays"]
    opt_state, numbers = gradtx.rebase(make_optimizer(new), arrays["opt_state"])
    console.print(f"resuming at step {step}")
    for name in given:
        if name != "config" and getattr(old, name) != getattr(new, name):
            console.print(f"  {name}: {getattr(old, name)} -> {getattr(new, name)}")
    for name, (before, after) in numbers.items():
        console.print(f"  in the optimizer, {name}: {before} -> {after}")
    return graph, Run(new, arrays["params"], opt_state, record["curves"])


# Results


def draw(run: Run, baselines: dict[str, float], path: Path) -> None:
    """Losses above, with the baselines as lines; the learning rate below."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    losses, rates = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    losses.plot(run.curves["train"], color="tab:blue", alpha=0.5, lw=0.8, label="training")
    steps, scores = np.transpose(run.curves["validation"])
    losses.plot(steps, scores, "o-", color="tab:red", ms=4, label=f"validation {scores[-1]:.2f}")
    beside = {"transform": losses.get_yaxis_transform(), "va": "center", "color": "gray"}
    for name, cost in baselines.items():
        losses.axhline(cost, color="gray", ls="--", lw=1)
        losses.text(1.01, cost, f"{name} {cost:.2f}", **beside)
    under = "its config" if run.settings.config else run.settings.optimizer
    losses.set(ylabel="nats per byte", title=f"A small transformer under {under}")
    losses.legend(frameon=False)
    rates.plot(run.curves["rate"], color="tab:green")
    rates.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    for axes in (losses, rates):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def conclude(run: Run, baselines: dict[str, float]) -> None:
    """Print the held-out loss among the baselines; an error if it is above the bigram's."""
    loss = run.curves["validation"][-1][1]
    costs = baselines | {"transformer": loss}
    console.print("\nheld-out text, nats per byte")
    for name, cost in sorted(costs.items(), key=lambda item: -item[1]):
        style = "bold green" if name == "transformer" else "default"
        console.print(f"  {name:12} {cost:.3f}  {'█' * round(12 * cost)}", style=style)
    if not loss <= baselines["bigram"]:
        raise SystemExit(f"the model did not learn: {loss:.3f} is above the bigram's loss")


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def read_config(path: str) -> dict[str, Any]:
    """A config that has been tried on the model's shapes; an error names the file, and the place in it."""
    try:
        config = tomllib.loads(Path(path).read_text())
        tx = gradtx.from_config(config)
        if isinstance(tx, gradtx.Schedule):
            raise ValueError("it has a schedule, which belongs into a transform: call = 'adamw', or another")
        findings = gradtx.check(tx, jax.eval_shape(lambda: model(0)[1]))
        wrong = [str(f) for f in findings if f.name in ("init", "ascent", "untouched", "never moves")]
        if wrong:
            raise ValueError("\n".join(wrong))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {error}") from None
    return config


def parse() -> dict[str, Any]:
    """What the command line says, and nothing that it leaves out but `out` and `resume`."""
    parser = argparse.ArgumentParser(
        description="Train a small transformer on the source of Python's standard library.",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--config", type=read_config, metavar="FILE", help="a TOML file with the optimizer and its schedule")
    add("--optimizer", choices=list(USUAL))
    add("--learning-rate", type=float, help="the schedule's peak; each optimizer has its own usual")
    add("--weight-decay", type=float)
    add("--schedule", choices=["linear", "cosine", "constant"])
    add("--steps", type=positive, help=f"length of the schedule and the run ({Settings.steps})")
    add(
        "--batch-size",
        type=positive,
        help=f"windows of {CONTEXT} bytes a step ({Settings.batch_size})",
    )
    add("--accumulate", type=positive, metavar="K", help="micro-batches to a batch, which K divides (1)")
    add("--guard", action="store_true", help="skip steps that are not finite, and spikes of the gradient")
    add("--ema", action="store_true", help="evaluate an exponential average of the weights")
    add("--precision", choices=list(PRECISIONS), help="how weights and state are kept (f32)")
    add("--seed", type=int)
    add("--out", type=Path, default=Path("runs/lm"), help="folder of the results (runs/lm)")
    add("--resume", action="store_true", default=False, help="continue from the last checkpoint")
    add("--stop-after", type=positive, metavar="N", help="stop after step N, as if interrupted")
    given = vars(parser.parse_args())
    beside = [f"--{name.replace('_', '-')}" for name in IN_CONFIG if name in given]
    if "config" in given and beside:
        parser.error(f"{', '.join(beside)}: set it in the file of --config")
    return given


def main() -> None:
    given = parse()
    out, resuming, stop = given.pop("out"), given.pop("resume"), given.pop("stop_after", None)
    checkpoints = open_checkpoints(out)
    if resuming:
        graph, run = resume(checkpoints, given)
    else:
        graph, run = start(Settings(**(USUAL[given.get("optimizer", "adamw")] | given)))
        for step in checkpoints.all_steps():
            checkpoints.delete(step)

    if run.settings.batch_size % run.settings.accumulate:
        raise SystemExit(
            f"--accumulate {run.settings.accumulate} does not divide a batch of {run.settings.batch_size}"
        )
    text, held_out = load()
    baselines = ngram_baselines(text, held_out)
    console.print(f"{text.size:,} bytes to train on, {held_out.size:,} held out")
    console.print("  ".join(f"{name} {cost:.2f}" for name, cost in baselines.items()))
    stop = min(stop or run.settings.steps, run.settings.steps)
    try:
        if run.step < stop:
            train(run, graph, text, held_out, stop, checkpoints)
    except KeyboardInterrupt:
        raise SystemExit("\ninterrupted: --resume continues from the last checkpoint") from None
    draw(run, baselines, out / "training.png")
    digest = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(run.params)))
    if run.settings.guard:
        console.print(str(gradtx.report(run.opt_state)).splitlines()[0])
    console.print(f"picture {out / 'training.png'}, parameters' fingerprint {digest.hexdigest()[:12]}")
    if run.step < run.settings.steps:
        console.print(f"stopped after step {run.step}; --resume continues")
    else:
        conclude(run, baselines)


if __name__ == "__main__":
    main()
