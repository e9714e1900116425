"""Muon against that of Optax, on the matrices of a few layers, and what preconditioners cost beside AdamW."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import optax
import optax.contrib

import gradtx

from . import trees
from .cases import stepping
from .measure import BASE, Row, rows, show_seconds, take_turns, wall

SHAPES = {"qkv": (256, 768), "proj": (256, 256), "up": (256, 1024), "down": (1024, 256)}
DEVICES = 8


def layers(count: int, quick: bool) -> dict[str, dict[str, tuple[int, ...]]]:
    shrunk = {name: tuple(n // 16 for n in shape) for name, shape in SHAPES.items()}
    return {f"layer {i}": shrunk if quick else SHAPES for i in range(count)}


def contestants() -> dict[str, tuple[Any, Callable[..., Any]]]:
    theirs = optax.contrib.muon(0.02)

    def in_two(params: Any, state: Any, grads: Any) -> Any:
        updates, state = theirs.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return {BASE: (theirs, in_two), "apply_gradients": in_place(gradtx.muon(0.02))}


def compiled(tx: Any, step: Callable[..., Any], shapes: Any) -> tuple[Any, float]:
    """The compiled step, and the seconds of the process that compiling it took."""
    jax.clear_caches()
    params = trees.filled(shapes, seed=0)
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params)
    start = time.process_time()
    return lowered.compile(), time.process_time() - start


def counted(case: str, ours: float, theirs: float, target: float | None, show: Callable[[float], str]) -> Row:
    ratio = ours / theirs
    return Row(
        case,
        "apply_gradients",
        show(ours),
        show(theirs),
        f"{ratio:.3f}",
        "",
        "" if target is None else f"<= {target}",
        None if target is None else ratio <= target,
    )


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def muon(quick: bool) -> list[Row]:
    """The step, the compilation and the temporaries of 8 layers, and how they grow up to 64."""
    shapes = layers(2 if quick else 8, quick)
    grads, seconds = trees.filled(shapes, seed=1), {BASE: [], "apply_gradients": []}
    made = contestants()
    for order in (list(made), list(made)[::-1]):
        jax.clear_caches()
        running = {key: wall(stepping(*made[key], shapes, grads), 1) for key in order}
        for key, own in take_turns(running, 1 if quick else 5).items():
            seconds[key] += own
    result = rows("step: Muon, 8 layers of 4 matrices", seconds, 0.5)
    times: dict[str, list[float]] = {key: [] for key in made}
    for _ in range(1 if quick else 7):
        for key, (tx, step) in made.items():
            program, spent = compiled(tx, step, shapes)
            times[key].append(spent)
            seconds[key] = [program.memory_analysis().temp_size_in_bytes]
    result += rows("compile: Muon, 8 layers of 4 matrices", times, 0.6)
    case = "temporaries: Muon, 8 layers of 4 matrices"
    result.append(counted(case, seconds["apply_gradients"][0], seconds[BASE][0], 0.25, megabytes))
    if not quick:
        many = layers(64, quick)
        program, *spent = min(
            (compiled(*made["apply_gradients"], many) for _ in range(2)), key=lambda x: x[1]
        )
        case = "compile: Muon, 64 layers, against its own of 8"
        result.append(counted(case, spent[0], min(times["apply_gradients"]), 2.0, lambda s: f"{s:.3g} s"))
        largest = 4 * 64 * max(math.prod(shape) for shape in SHAPES.values())
        grown = program.memory_analysis().temp_size_in_bytes - seconds["apply_gradients"][0]
        case = "temporaries: Muon, what 64 layers add to those of 8, against their largest group"
        result.append(counted(case, grown, largest, 1.0, megabytes))
    return result


def in_a_process(call: str, **environment: str) -> Any:
    """What a call of this module prints last in a process of its own, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.benchmarks import matrices; matrices.{call}"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def on_a_mesh(call: str) -> Any:
    """The same in a process that has eight devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    return in_a_process(call, XLA_FLAGS=flags, JAX_PLATFORMS="cpu")


def muon_on_a_mesh(quick: bool) -> list[Row]:
    """What eight devices exchange in a step, and how long it takes; in a process of its own."""
    found = on_a_mesh(f"exchange({quick})")
    ours, theirs = found["apply_gradients"], found[BASE]
    case = f"{{}}: Muon, 8 layers on {DEVICES} devices"
    exchanges = counted(case.format("exchanges"), ours["count"], theirs["count"], None, lambda n: f"{n:.0f}")
    moved = counted(case.format("exchanged"), ours["bytes"], theirs["bytes"], None, megabytes)
    seconds = {BASE: theirs["seconds"], "apply_gradients": ours["seconds"]}
    return [exchanges, moved, *rows(case.format("step"), seconds, 0.4)]


def preconditioners_on_a_mesh(quick: bool) -> list[Row]:
    """What eight devices exchange in a step, against two exchanges for each size of matrix."""
    found = on_a_mesh(f"exchange_of_preconditioners({quick})")
    case = f"exchanges: {{}}, 8 layers on {DEVICES} devices, against two for each size"
    wanted = 2 * len(SHAPES)
    return [counted(case.format(k), n, wanted, 1.0, lambda n: f"{n:.0f}") for k, n in found.items()]


def sharded(quick: bool) -> tuple[Any, Any]:
    """A mesh of all devices, and the parameters of eight layers along it."""
    mesh = jax.make_mesh((DEVICES,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    return mesh, jax.tree.map(lambda x: jax.device_put(x, spec), trees.filled(layers(8, quick), seed=0))


def exchange(quick: bool) -> None:
    """Prints the collectives of each step on a mesh, what they move, and the seconds of some steps."""
    found, running = {}, {}
    mesh, params = sharded(quick)
    with jax.set_mesh(mesh):
        for name, (tx, step) in contestants().items():
            state = jax.jit(tx.init)(params)
            program = jax.jit(step).lower(params, state, params).compile()
            sizes = collectives(program.as_text())
            found[name] = {"count": len(sizes), "bytes": sum(sizes)}
            running[name] = wall(lambda p=program, s=state: p(params, s, params), 1)
        for name, seconds in take_turns(running, 2 if quick else 6).items():
            found[name]["seconds"] = seconds[1:]
    print(json.dumps(found))


def exchange_of_preconditioners(quick: bool) -> None:
    """Prints how many collectives the step of each has on a mesh."""
    found = {}
    mesh, params = sharded(quick)
    with jax.set_mesh(mesh):
        for name, (tx, _) in PRECONDITIONERS.items():
            _, step = in_place(tx)
            program = jax.jit(step).lower(params, tx.init(params), params).compile()
            found[name] = len(collectives(program.as_text()))
    print(json.dumps(found))


def collectives(text: str) -> list[int]:
    """The bytes of the result of each collective operation of a compiled program."""
    operation = r"= (.*?) (?:all-to-all|all-gather|all-reduce|reduce-scatter|collective-permute)(?:-start)?\("
    kinds = re.findall(operation, text)
    return [
        sum(
            4 * math.prod(map(int, filter(None, sizes.split(","))))
            for sizes in re.findall(r"f32\[([\d,]*)\]", k)
        )
        for k in kinds
    ]


SIDE, INTERVAL = 512, 10
PRECONDITIONERS = {
    "SOAP": (gradtx.soap(1e-3, precondition_frequency=INTERVAL), 6),
    "Shampoo": (gradtx.shampoo(1e-3, precondition_frequency=INTERVAL), 4),
}
"""Each with the number of products that it takes of a matrix at every step."""


def preconditioners(quick: bool) -> list[Row]:
    """The mean step against AdamW's and the products that it consists of, and the worst against the mean.

    In a process whose LAPACK has one thread: others would wait for work on the cores of the products.
    """
    result = []
    for name, found in in_a_process(f"steps({quick})", OPENBLAS_NUM_THREADS="1").items():
        case = f"{{}} step: {name} every {INTERVAL}, 4 matrices of {SIDE}, against {{}}"
        of_base = case.format("mean", f"AdamW and {PRECONDITIONERS[name][1]} products")
        mean, worst = found["mean"], found["worst"]
        result.append(counted(of_base, mean, found["beside"], 1.5, show_seconds))
        result.append(counted(case.format("worst", "its mean"), worst, mean, 3.0, show_seconds))
    return result


def steps(quick: bool) -> None:
    """Prints the seconds of the mean and the worst step of each, and of what they are compared with."""
    shapes = {f"layer {i}": {"kernel": (SIDE // 16, SIDE // 16) if quick else (SIDE, SIDE)} for i in range(4)}
    params, found = trees.filled(shapes, seed=0), {}
    for name, (tx, products) in PRECONDITIONERS.items():

        @jax.jit
        def multiplied(xs: Any, products: int = products) -> Any:
            return jax.tree.map(lambda x: functools.reduce(lambda y, _: y @ x, range(products), x), xs)

        running = {
            "products": wall(functools.partial(multiplied, params), 1),
            "adamw": wall(stepping(*in_place(gradtx.adamw(1e-3)), shapes, params), 1),
            "own": wall(stepping(*in_place(tx), shapes, params), 1),
        }
        # The first interval has the steps that begin, and compilation.
        take_turns(running, INTERVAL + 1)
        seconds = take_turns(running, INTERVAL if quick else 3 * INTERVAL)
        found[name] = {
            "mean": statistics.fmean(seconds["own"]),
            "worst": max(seconds["own"]),
            "beside": statistics.median(seconds["products"]) + statistics.median(seconds["adamw"]),
        }
    print(json.dumps(found))


def in_place(tx: Any) -> tuple[Any, Callable[..., Any]]:
    """A transform, and its step."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        return gradtx.apply_gradients(tx, grads, state, params)

    return tx, step


CASES = {
    "muon": muon,
    "muon-mesh": muon_on_a_mesh,
    "preconditioners": preconditioners,
    "preconditioners-mesh": preconditioners_on_a_mesh,
}
