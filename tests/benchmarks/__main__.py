"""gradtx against Optax: `python -m tests.benchmarks` prints a table and writes it to docs/benchmarks.md."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import pathlib
import platform
import sys

import jax
import optax

import gradtx

from . import cases, looking, matrices, native, optimizers, presets, wrapped
from .measure import Row

CASES = (
    cases.CASES
    | optimizers.CASES
    | wrapped.CASES
    | looking.CASES
    | matrices.CASES
    | presets.CASES
    | native.CASES
)
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "benchmarks.md"

INTRODUCTION = """\
# Benchmarks

gradtx against Optax with the same hyperparameters, measured by one command from the checkout, which also
writes this page:

    python -m tests.benchmarks

`--case NAME` runs one case, and with `--update` puts its rows into the page in place of the old ones;
`--quick` tries all of them on small trees and writes nothing. It runs on whatever backend JAX finds.

{setting}

{table}

How to read it. The contestants take turns in many short rounds of one process. A time is the median over
rounds, `ratio` the median of each round's gradtx / Optax (or what the case names), and `fastest` the ratio
of the fastest rounds, which other load on the machine disturbs least. Steps are compiled and their arrays
made anew in every order of the contestants: whoever is first has the better memory, by up to a tenth on many
leaves.

- **step**: the jitted step with state and parameters donated, wall time. gradtx's numbers are arguments
  of the compiled step where Optax's are constants in it; that is what a few leaves of a few elements show:
  each array in and out takes about a microsecond to pass, whatever is computed with it.
- **step: GPT-2 124M, NAME**: each ready-made optimizer that both have, through `apply_gradients`.
- **Muon**: 8 layers of matrices of 256 x 768, 256 x 256, 256 x 1,024 and 1,024 x 256; temporaries are what
  the compiled step holds beside its arguments and results. On eight simulated devices parameters are sharded
  along their first axis; an exchange is a collective operation, and what it moves its result on a device.
- **SOAP, Shampoo**: `apply_gradients`, bases and roots renewed every 10 steps, against AdamW's step and as
  many products of the same matrices as a step of theirs has; and the worst step against the mean. LAPACK has
  one thread. On eight simulated devices what is remembered stays where it is; gradients and updates move.
- **AdamW, one leaf of 34M** and **28 leaves of GPT-2** (2 layers): the presets of `gradtx.precision`
  through `apply_gradients`, parameters and gradients in bfloat16 for `bf16` and `7-bytes`; against Optax in
  float32, and *against float32*, the own step without a preset. *Scheduled for memory* has the compiler
  option `xla_cpu_scheduler_type="CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"`. Temporaries are what the compiled
  step holds beside its arguments and results, divided by the number of parameters.
- **native**: the step under `gradtx.kernels("native")`, and by XLA, both through `apply_gradients`; against
  torch's `AdamW(fused=True)` where torch is installed, on as many threads. AdamW must move 28 bytes a
  parameter, and the copy beside it moves 24, in numpy, on one thread. 964 leaves: CPU time with every cache
  of JAX cleared, and the loop in the cache folder.
- **accumulate**: AdamW on 8.3M parameters, donated, 8 micro-batches to an update, against Optax's
  `MultiSteps`; and a micro-step (the median of eight) against the sum of two trees, donated too.
- **AdamW in a wrapper**: the step through `apply_gradients`, clipped and scheduled or plain, against the same
  step alone. `track` measures every hundredth update. Without clipping a guard reads the gradients once more.
- **trace**, **lower**, **compile**: a new `jax.jit` of the step with every cache of JAX cleared, CPU time of
  the process. Lowering and compiling have no targets.
- **un-jitted update**: `update` called outside of `jit`, wall time. gradtx runs one compiled program a leaf.
  XLA's CPU client runs a program of under about a thousand operations at once and hands a larger one to a
  thread, which costs more than the work itself on small leaves; Optax's many programs are small.
- **compilations**: entries in the cache of the compiled step over settings of the learning rate; Optax's is
  a new transform for each, gradtx's is set in the state.
- **state bytes**: what `init` makes; gradtx's has the hyperparameters in it.
- **once, 1,000 leaves**: what looks into an optimizer, takes it along or moves it in, called once with
  nothing traced before. The optimizer is AdamW, clipped and scheduled, in one of three groups, or that
  guarded, over accumulated gradients; what moves in is AdamW, clipped and scheduled of Optax, plain of
  torch.
- **import**: CPU time that the import adds to a process that has imported what is named.

Return what you donate in the order in which it came, as in `step(params, state, grads) -> (params, state)`.
JAX pairs donated buffers with results by shape and order; with the state before the parameters among the
arguments and after them among the results, XLA copies every array, which made both libraries' steps on large
trees three to four times as slow on a CPU.
"""


def setting() -> str:
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (gradtx, jax, optax))
    device = jax.devices()[0]
    kind = "" if device.platform == "cpu" else f" ({device.device_kind})"
    date = datetime.datetime.now(datetime.UTC).date()
    return f"Measured on {date}: {device.platform}{kind}, Python {platform.python_version()}, {versions}."


def cells(row: Row) -> list[str]:
    met = {None: "", True: "yes", False: "no"}[row.met]
    return [row.case, row.variant, row.gradtx, row.base, row.ratio, row.fastest, row.target, met]


HEADER = ["case", "gradtx by", "gradtx", "Optax or other", "ratio", "fastest", "target", "met"]


def table(rows: list[Row]) -> str:
    lines = [HEADER, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def updated(page: str, rows: list[Row], names: list[str]) -> str:
    """A page with some rows in place of those of the same cases, or after all others."""
    lines = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| ")]
    known = [Row(*map(str.strip, line[:-1]), None) for line in lines[2:]]  # type: ignore[arg-type]
    met = {"yes": True, "no": False}
    old = [
        dataclasses.replace(row, met=met.get(line[-1].strip()))
        for row, line in zip(known, lines[2:], strict=True)
    ]
    cases = {row.case for row in rows}
    first = next((i for i, row in enumerate(old) if row.case in cases), len(old))
    others = [[row for row in part if row.case not in cases] for part in (old[:first], old[first:])]
    return INTRODUCTION.format(
        setting="\n".join(
            [line for line in page.splitlines() if line.startswith(("Measured on ", "Again on "))]
            + [f"Again on {datetime.datetime.now(datetime.UTC).date()}: {', '.join(names)}."]
        ),
        table=table([*others[0], *rows, *others[1]]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small trees and few rounds; writes no page")
    parser.add_argument("--case", choices=CASES, action="append", help="only this one; writes no page")
    parser.add_argument("--update", action="store_true", help="put the rows of --case into the page")
    named = {"choices": optimizers.SETTINGS, "action": "append"}
    parser.add_argument("--optimizer", help="of the case `optimizers` only this one", **named)
    arguments = parser.parse_args()
    optimizers.CHOSEN += arguments.optimizer or optimizers.SETTINGS
    rows: list[Row] = []
    for name in arguments.case or CASES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found = CASES[name](arguments.quick)
        rows += found
        # A case that fails later takes nothing along.
        print(table(found), file=sys.stderr, flush=True)
    print(setting(), table(rows), sep="\n\n")
    if arguments.update and arguments.case and not arguments.quick:
        page = updated(PAGE.read_text(encoding="utf-8"), rows, arguments.case)
        PAGE.write_text(page, encoding="utf-8")
    if not arguments.quick and not arguments.case:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(INTRODUCTION.format(setting=setting(), table=table(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
