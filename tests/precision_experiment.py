"""Trains examples/train_lm.py in every precision: writes the tables and the picture of docs/precision.md.

python tests/precision_experiment.py
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

import gradtx
from gradtx.inspect import style

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tests")]

import stdlib_text  # noqa: E402
import train_lm  # noqa: E402

import picture_settings  # noqa: E402
from benchmarks import trees  # noqa: E402

PAGE, PICTURE = ROOT / "docs" / "precision.md", ROOT / "docs" / "precision.svg"
BEGIN, END = "<!-- measured: {} -->", "<!-- end -->"
MODES = {
    "f32": "float32",
    "bf16-nearest": "bfloat16, rounded to the nearest",
    "bf16": "`bf16`",
    "8bit": "`8bit`",
    "7-bytes": "`7-bytes`",
}
"""What is compared, and how the table calls it; the first is what the others are compared with."""

AVERAGED = 50
"""Over how many steps the picture averages."""


def settings(mode: str, seed: int, steps: int) -> train_lm.Settings:
    """Small updates from the first step on, and ever smaller ones towards the end."""
    return train_lm.Settings(
        precision=mode, seed=seed, steps=steps, batch_size=2, learning_rate=3e-4, schedule="cosine"
    )


def nbytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def run(compiled: tuple[Any, Any], chosen: train_lm.Settings, texts: tuple[np.ndarray, np.ndarray]) -> Any:
    """The training losses of a run, its loss on the text that is held out, and its bytes a parameter."""
    (train_step, loss), (text, held_out) = compiled, texts
    _, made = train_lm.start(chosen)
    params, opt_state, losses = made.params, made.opt_state, []
    # A gradient is as wide as its weight.
    size = (2 * nbytes(params) + nbytes(opt_state)) / sum(x.size for x in jax.tree.leaves(params))
    for step in range(chosen.steps):
        windows = train_lm.batch(text, chosen, step)
        params, opt_state, value = train_step(params, opt_state, windows)
        losses.append(float(value))
    return {"train": losses, "held_out": train_lm.validate(loss, params, held_out), "bytes": size}


def run_all(seeds: int, steps: int, keep: Path | None) -> dict[str, list[Any]]:
    """The runs of each mode, by seed; those that the file `keep` has are taken from there."""
    there = json.loads(keep.read_text()) if keep and keep.exists() else {}
    texts, compiled = stdlib_text.load(), {}
    for seed in range(seeds):
        for mode in MODES:
            name, chosen = f"{mode}, seed {seed}, {steps} steps", settings(mode, seed, steps)
            if name not in there:
                if mode not in compiled:
                    graph, _ = train_lm.model(seed)
                    compiled[mode] = train_lm.compile_step(graph, train_lm.make_optimizer(chosen))
                there[name] = run(compiled[mode], chosen, texts)
                if keep:
                    keep.write_text(json.dumps(there))
            print(f"{name}: {there[name]['held_out']:.4f}", file=sys.stderr, flush=True)
    return {mode: [there[f"{mode}, seed {seed}, {steps} steps"] for seed in range(seeds)] for mode in MODES}


def interval(differences: np.ndarray) -> tuple[Any, Any]:
    """The mean over the first axis, and how far its 95 % interval reaches to each side, by Student's t."""
    n = len(differences)
    return differences.mean(0), stats.t.ppf(0.975, n - 1) * differences.std(0, ddof=1) / np.sqrt(n)


def table(runs: dict[str, list[Any]]) -> str:
    """Of each mode its bytes, its loss on held-out text, and the difference to float32 of the same seed."""
    base = np.array([r["held_out"] for r in runs["f32"]])
    lines = [
        "| weights and state | bytes a parameter | held-out loss | minus float32, by seed | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    for mode, name in MODES.items():
        own = np.array([r["held_out"] for r in runs[mode]])
        middle, reach = interval(own - base)
        compared = (
            "| | |"
            if mode == "f32"
            else f"| {middle:+.4f} | {middle - reach:+.4f} to {middle + reach:+.4f} |"
        )
        lines.append(f"| {name} | {runs[mode][0]['bytes']:.2f} | {own.mean():.4f} {compared}")
    n, steps = len(base), len(runs["f32"][0]["train"])
    lines += [
        "",
        f"{n} seeds, {steps} steps each, nats per byte. From seed to seed the loss of float32 varies by "
        f"{base.std(ddof=1):.4f} (standard deviation).",
    ]
    return "\n".join(lines)


def kept(preset: Any, dtype: Any, shapes: Any) -> tuple[Any, Any, Any]:
    """AdamW in a preset, and parameters and state of these shapes without their values."""
    tx = gradtx.precision(gradtx.adamw(1e-3), preset)
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), trees.abstract(shapes))
    return tx, params, jax.eval_shape(tx.init, params)


def bytes_table() -> str:
    """What AdamW on the leaves of GPT-2 keeps of each parameter in each mode."""
    lines = ["| | weight | gradient | first moment | second moment | beside | all |", "|---" * 7 + "|"]
    for mode, name in MODES.items():
        dtype, preset = train_lm.PRECISIONS[mode]
        _, params, state = kept(preset, dtype, trees.transformer(12, 768, 50_257, 1_024))
        count, weight = sum(x.size for x in jax.tree.leaves(params)), np.dtype(dtype).itemsize
        of = dict.fromkeys(("mu", "nu", "beside"), 0)
        for path, x in jax.tree_util.tree_leaves_with_path(state):
            words = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
            for slot in of:
                of[slot] += nbytes(x) if slot in words or f"{slot}_scales" in words else 0
        sizes = [weight, weight, *(n / count for n in of.values())]
        lines.append(f"| {name} | " + " | ".join(f"{n:.2f}" for n in (*sizes, sum(sizes))) + " |")
    return "\n".join(lines)


ORDERS = {
    "XLA's own order": {},
    "ordered for memory": {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"},
}


def temporaries_table() -> str:
    """Bytes for each parameter that the compiled step holds beside its arguments and results, on a CPU."""
    head = [f"{n} of 512 x 512, {order}" for order in ORDERS for n in ("one leaf", "eight leaves")]
    lines = [f"| | {' | '.join(head)} |", "|---" * (1 + len(head)) + "|"]
    for mode, name in MODES.items():
        dtype, preset = train_lm.PRECISIONS[mode]
        found = []
        for options in ORDERS.values():
            for n in (1, 8):
                tx, params, state = kept(preset, dtype, {f"w{i}": (512, 512) for i in range(n)})

                def step(params: Any, state: Any, grads: Any, tx: Any = tx) -> Any:
                    return gradtx.apply_gradients(tx, grads, state, params)

                lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params)
                said = lowered.compile(compiler_options=options).memory_analysis()
                assert said is not None
                found.append(f"{said.temp_size_in_bytes / (n * 512**2):.1f}")
        lines.append(f"| {name} | {' | '.join(found)} |")
    return "\n".join(lines)


def smoothed(losses: np.ndarray) -> np.ndarray:
    """Means over the last `AVERAGED` steps, of as many steps as there are."""
    sums = np.cumsum(np.pad(losses, ((0, 0), (1, 0))), axis=1)
    return (sums[:, AVERAGED:] - sums[:, :-AVERAGED]) / AVERAGED


def draw(runs: dict[str, list[Any]]) -> Figure:
    """The losses of all modes, and their differences to float32 with the confidence interval as a band."""
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    curves = {mode: smoothed(np.array([r["train"] for r in own])) for mode, own in runs.items()}
    steps = AVERAGED + np.arange(curves["f32"].shape[1])
    style.prepare(left)
    for mode, own in curves.items():
        left.plot(steps, own.mean(0), label=mode)
    style.prepare(right)
    for mode, own in curves.items():
        middle, reach = interval(own - curves["f32"])
        (line,) = right.plot(steps, middle, label=mode)
        right.fill_between(steps, middle - reach, middle + reach, color=line.get_color(), alpha=0.18, lw=0)
    for axes, title, y in (
        (left, "Training loss", "nats per byte"),
        (right, "Minus float32, seed by seed", ""),
    ):
        style.dress(axes, title, f"step (mean over {AVERAGED} steps and all seeds)", y)
        style.on_steps(axes)
        style.name_lines(axes)
    return figure


def rewritten(text: str, name: str, block: str) -> str:
    """The page with another block between the markers of a name."""
    begin = BEGIN.format(name)
    if text.count(begin) != 1:
        raise ValueError(f"docs/precision.md must have {begin!r} once, and has it {text.count(begin)} times.")
    head, _, tail = text.partition(begin)
    return f"{head}{begin}\n{block}\n{tail[tail.index(END) :]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--keep", type=Path, help="a file for finished runs, which are then not run again")
    arguments = parser.parse_args()
    runs = run_all(arguments.seeds, arguments.steps, arguments.keep)
    with matplotlib.rc_context({**picture_settings.SHEET, "svg.hashsalt": "precision"}):
        made = io.StringIO()
        draw(runs).savefig(made, format="svg", metadata={"Date": None, "Creator": None})
    PICTURE.write_text(picture_settings.light_and_dark(made.getvalue()), encoding="utf-8")
    blocks = {"bytes": bytes_table(), "losses": table(runs), "temporaries": temporaries_table()}
    page = PAGE.read_text(encoding="utf-8")
    for name, block in blocks.items():
        print(block, end="\n\n")
        page = rewritten(page, name, block)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
