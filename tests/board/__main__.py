"""Every ready-made optimizer on small problems: `python -m tests.board` writes docs/board.md and .svg."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import multiprocessing
import os
import pathlib
import platform
import sys

import jax
import numpy

import gradtx

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # the catalogue imports what lies next to it

from . import page, picture
from .contestants import BASE, CONTESTANTS
from .problems import MAKERS, problem
from .race import Result, run

DOCS = pathlib.Path(__file__).parents[2] / "docs"
QUICKLY = 2
"""How many evaluations a quick run has."""


def setting(seconds: float, workers: int) -> str:
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (gradtx, jax, numpy))
    date = datetime.datetime.now(datetime.UTC).date()
    return (
        f"Run on {date} in {seconds / 60:.0f} minutes by {workers} processes, on CPU cores, with Python "
        f"{platform.python_version()}, {versions}."
    )


def raced(
    names: list[str], on: list[str], quick: bool, workers: int, kept: pathlib.Path | None
) -> dict[str, dict[str, Result]]:
    """The results by problem and contestant, those that are kept among them; the longest runs begin first."""
    found: dict[str, dict[str, Result]] = {name: {} for name in on}
    for line in kept.read_text().splitlines() if kept and kept.exists() else []:
        contestant, name, result = json.loads(line)
        found[name][contestant] = Result(**result)
    races = [(contestant, name) for name in reversed(on) for contestant in names]
    tasks = [(*race, QUICKLY if quick else None) for race in races if race[0] not in found[race[1]]]
    tasks.sort(key=lambda task: task[0] != "lbfgs")
    # One program at a time on each core, and the same processor whatever else the machine has.
    os.environ["JAX_PLATFORMS"], os.environ["OPENBLAS_NUM_THREADS"] = "cpu", "1"
    flags = ["--xla_cpu_multi_thread_eigen=false", *["--xla_backend_optimization_level=0"] * quick]
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for done, (contestant, name, result) in enumerate(pool.imap_unordered(run, tasks), 1):
            found[name][contestant] = result
            if kept:
                with kept.open("a") as file:
                    file.write(json.dumps((contestant, name, dataclasses.asdict(result))) + "\n")
            print(
                f"{done} of {len(tasks)}: {contestant}, {name}: rate {result.rate:.2g}, median "
                f"{numpy.median(result.steps):g} steps, {result.seconds:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    return {name: {contestant: of[contestant] for contestant in names} for name, of in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.board", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps of everything; writes nothing")
    parser.add_argument("--problem", choices=MAKERS, action="append", help="only this one; writes nothing")
    parser.add_argument(
        "--optimizer", choices=CONTESTANTS, action="append", help="only this one; writes nothing"
    )
    parser.add_argument(
        "--keep", type=pathlib.Path, help="a file for the results so far, from which a stopped run goes on"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    arguments = parser.parse_args()
    # The base runs in any case, since all are compared with it.
    names = list(dict.fromkeys([BASE, *arguments.optimizer])) if arguments.optimizer else list(CONTESTANTS)
    on = arguments.problem or list(MAKERS)
    results = raced(names, on, arguments.quick, arguments.workers, arguments.keep)
    problems = {name: problem(name) for name in on}
    seconds = sum(result.seconds for of in results.values() for result in of.values())
    text = page.page(results, problems, setting(seconds / arguments.workers, arguments.workers))
    if arguments.quick:
        print(f"{len(names)} optimizers ran on {len(on)} problems")
    elif arguments.problem or arguments.optimizer:
        print(text[text.index("## All of them") :])
    else:
        DOCS.mkdir(exist_ok=True)
        picture.draw(results, problems, DOCS / "board.svg")
        (DOCS / "board.md").write_text(text, encoding="utf-8")
        print(f"{DOCS.name}/board.md and {DOCS.name}/board.svg")


if __name__ == "__main__":
    main()
