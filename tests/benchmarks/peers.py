"""gradtx against other JAX libraries that need an older JAX: each in a process and an environment of its own.

    python -m tests.benchmarks.peers FOLDER

makes an environment for each of them in FOLDER, where there is none yet, lets them take turns, and writes
docs/peers.md. A process of a peer runs this file as it is, so nothing but the standard library is imported at
the top.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

REQUIREMENTS = {
    "precondition-opt": [
        *("precondition-opt==0.3.0", "jax==0.4.25", "jaxlib==0.4.25"),
        *("optax==0.2.2", "flax==0.8.2", "numpy<2", "scipy<1.13"),
    ],
    "psgd-jax": [
        *("psgd-jax==0.2.9", "jax==0.4.30", "jaxlib==0.4.30"),
        *("optax==0.2.3", "flax==0.8.5", "numpy<2"),
    ],
}
"""What each peer is installed with."""

OURS = {"precondition-opt": ["shampoo"], "psgd-jax": ["kron", "kron, cached"]}
"""Which optimizers of gradtx each peer is compared with."""

SIDE, COUNT, INTERVAL = 512, 32, 10
TARGETS = {"compile": 0.15, "mean step": 0.5, "worst step": 0.3}

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "peers.md"

TEXT = """\
# Beside other JAX libraries

Shampoo and PSGD Kron against the JAX packages that have them, {count} matrices of {side} x {side} in float32,
preconditioners made anew every {interval} steps, everything else as it comes. Those packages need an older
JAX, so each contestant runs in a process of its own, in turns; one command from the checkout makes their
environments, measures and writes this page:

    python -m tests.benchmarks.peers FOLDER

Measured on {date}: cpu, {cores} cores, Python {python}, gradtx with jax {jax}. Processes of
each contestant, of which the median is taken: {rounds}. Compiling is CPU time of the process; steps are wall
time with what is updated donated, after the first {interval} steps.

{table}

gradtx makes the preconditioners of a few matrices at each step, so that the worst step is near the mean; the
others make all of them at once, PSGD Kron's at every step that it draws. *cached* is
`kron(..., cached=True)`, which remembers the products of its factors.
"""


def optimizer(name: str) -> Any:
    """The transform of a contestant: preconditioners made anew every tenth step, else as it comes."""
    if name == "precondition-opt":
        from precondition.distributed_shampoo import distributed_shampoo

        return distributed_shampoo(1e-3, SIDE, preconditioning_compute_steps=INTERVAL)
    if name == "psgd-jax":
        from psgd_jax.kron import kron

        return kron(1e-3, preconditioner_update_probability=1 / INTERVAL)
    import gradtx

    if name == "shampoo":
        return gradtx.shampoo(1e-3, precondition_frequency=INTERVAL)
    return gradtx.kron(1e-3, preconditioner_update_probability=1 / INTERVAL, cached=name == "kron, cached")


def measure(name: str, count: int) -> dict[str, float]:
    """The seconds of compiling a step on so many matrices, of its mean and of its worst."""
    import jax
    import numpy as np

    tx, rng = optimizer(name), np.random.default_rng(0)
    params = {f"w{i}": rng.standard_normal((SIDE, SIDE), np.float32) for i in range(count)}
    state, params = tx.init(params), jax.device_put(params)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return jax.tree_util.tree_map(lambda p, u: p + u, params, updates), state

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params)
    start = time.process_time()
    compiled = lowered.compile()
    found = {"compile": time.process_time() - start}
    grads, seconds = jax.tree_util.tree_map(lambda p: p + 0, params), []
    for _ in range(1 + 3 * INTERVAL):
        start = time.perf_counter()
        params, state = jax.block_until_ready(compiled(params, state, grads))
        seconds.append(time.perf_counter() - start)
    # The first interval has the steps that begin.
    seconds = seconds[1 + INTERVAL :]
    return {**found, "mean step": statistics.fmean(seconds), "worst step": max(seconds)}


def in_a_process(python: str, name: str, count: int) -> dict[str, float]:
    # LAPACK's threads would wait for work on the cores of the products.
    done = subprocess.run(
        [python, str(pathlib.Path(__file__).resolve()), "--contestant", name, "--count", str(count)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def environment(folder: pathlib.Path, peer: str) -> str:
    """The Python of a peer's environment, which is made where there is none."""
    python = folder / peer / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / peer)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *REQUIREMENTS[peer]], check=True)
    return str(python)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, nargs="?")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=COUNT, help="how many matrices")
    parser.add_argument("--rounds", type=int, default=3, help="how many processes of each")
    arguments = parser.parse_args()
    if arguments.contestant:
        print(json.dumps(measure(arguments.contestant, arguments.count)))
        return
    if arguments.folder is None:
        parser.error("give a folder for the environments of the peers")
    lines = ["| case | gradtx | peer | ratio | target | met |", "| --- | --- | --- | --- | --- | --- |"]
    for peer, contestants in OURS.items():
        python = {peer: environment(arguments.folder, peer)}
        rounds = [
            {
                name: in_a_process(python.get(name, sys.executable), name, arguments.count)
                for name in (*contestants, peer)
            }
            for _ in range(arguments.rounds)
        ]
        for own, (what, target) in itertools.product(contestants, TARGETS.items()):
            ours, theirs = (statistics.median(r[name][what] for r in rounds) for name in (own, peer))
            ratio = statistics.median(r[own][what] / r[peer][what] for r in rounds)
            met = "yes" if ratio <= target else "no"
            case = f"{what}: {own} against {peer}"
            lines.append(f"| {case} | {ours:.3g} s | {theirs:.3g} s | {ratio:.3f} | <= {target} | {met} |")
    table = "\n".join(lines)
    print(table)
    import jax

    page = TEXT.format(
        count=arguments.count,
        side=SIDE,
        interval=INTERVAL,
        date=datetime.datetime.now(datetime.UTC).date(),
        cores=os.cpu_count(),
        python=platform.python_version(),
        jax=jax.__version__,
        rounds=arguments.rounds,
        table=table,
    )
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
