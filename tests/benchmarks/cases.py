"""The cases: each a function of `quick` that gives rows of the table."""

from __future__ import annotations

import functools
import itertools
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import optax

import gradtx

from . import trees
from .measure import BASE, Row, owning, processor, rows, show_seconds, take_turns, wall

HYPERPARAMETERS = {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.1}


def plain(library: Any) -> Any:
    return library.adamw(3e-4, **HYPERPARAMETERS)


def clipped(library: Any) -> Any:
    schedule = library.linear_schedule(0.0, 3e-4, 1_000)
    return library.chain(library.clip_by_global_norm(1.0), library.adamw(schedule, **HYPERPARAMETERS))


def update_and_apply(library: Any, tx: Any) -> Callable[..., Any]:
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return library.apply_updates(params, updates), state

    return step


def in_one(tx: Any) -> Callable[..., Any]:
    def step(params: Any, state: Any, grads: Any) -> Any:
        return gradtx.apply_gradients(tx, grads, state, params)

    return step


def contestants(build: Callable[[Any], Any]) -> dict[str, tuple[Any, Callable[..., Any]]]:
    """The transforms and steps to compare, by name."""
    ours, theirs = build(gradtx), build(optax)
    return {
        BASE: (theirs, update_and_apply(optax, theirs)),
        "update, apply_updates": (ours, update_and_apply(gradtx, ours)),
        "apply_gradients": (ours, in_one(ours)),
    }


def steps(
    case: str, shapes: Any, build: Callable[[Any], Any], target: float, calls: int, rounds: int
) -> list[Row]:
    """The jitted, donated step; the contestants share the gradients and own the rest.

    Whoever compiles and makes its arrays first has the better memory, by some percent where there are many:
    each takes every place in that order as often as the others. What is donated is returned in the order in
    which it came: JAX pairs buffers by shape and order, and XLA would copy every one otherwise.
    """
    grads, made = trees.filled(shapes, seed=1), contestants(build)
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for order in itertools.permutations(made):
        jax.clear_caches()
        running = {name: wall(stepping(*made[name], shapes, grads), calls) for name in order}
        for name, own in take_turns(running, rounds).items():
            seconds[name] += own
    return rows(f"step: {case}", seconds, target)


def stepping(tx: Any, step: Callable[..., Any], shapes: Any, grads: Any) -> Callable[[], Any]:
    """A call of the compiled step, which owns its parameters and state."""
    params = trees.filled(shapes)
    return owning(jax.jit(step, donate_argnums=(0, 1)), (params, tx.init(params)), grads)


def step_one_leaf(quick: bool) -> list[Row]:
    size = 2**18 if quick else 2**25
    return steps("one leaf of 32M", {"w": (size,)}, plain, 1.05, 1, 1 if quick else 7)


def step_gpt2(quick: bool) -> list[Row]:
    shapes = trees.transformer(12, 64, 500, 64) if quick else trees.transformer(12, 768, 50_257, 1_024)
    return steps("GPT-2 124M, 148 leaves", shapes, plain, 1.05, 1, 1 if quick else 5)


def step_many_leaves(quick: bool) -> list[Row]:
    count = 100 if quick else 1_000
    shapes = {f"w{i}": (768,) for i in range(count)}
    return steps("1,000 leaves of 768", shapes, plain, 1.05, 2, 1 if quick else 15)


def step_mlp(quick: bool) -> list[Row]:
    return steps(
        "MLP 784-128-64-10, clipped, scheduled",
        trees.mlp(784, 128, 64, 10),
        clipped,
        1.05,
        20,
        1 if quick else 41,
    )


def step_tiny(quick: bool) -> list[Row]:
    return steps(
        "MLP 8-8-8-2, clipped, scheduled", trees.mlp(8, 8, 8, 2), clipped, 1.2, 100, 1 if quick else 61
    )


def step_tiny_plain(quick: bool) -> list[Row]:
    return steps("MLP 8-8-8-2, AdamW alone", trees.mlp(8, 8, 8, 2), plain, 1.2, 100, 1 if quick else 61)


def tracing(name: str, quick: bool, build: Callable[[Any], Any]) -> list[Row]:
    """Tracing, lowering and compiling a new step, with nothing left over from the one before."""
    params = trees.abstract(trees.transformer(3 if quick else 80, 64, 5_025, 1_024))
    measured: dict[str, dict[str, list[float]]] = {"trace": {}, "lower": {}, "compile": {}}

    def once(name: str, compiles: bool) -> None:
        tx, step = contestants(build)[name]
        state = jax.eval_shape(tx.init, params)
        jitted = jax.jit(step, donate_argnums=(0, 1))
        jax.clear_caches()
        parts: list[Any] = [lambda _: jitted.trace(params, state, params), lambda traced: traced.lower()]
        if compiles:
            parts.append(lambda lowered: lowered.compile())
        for kind, seconds in zip(measured, processor(parts), strict=False):
            measured[kind].setdefault(name, []).append(seconds)

    for i in range(2 if quick else 7):
        for contestant in contestants(build):
            once(contestant, compiles=i < 3)
    result = []
    for kind, seconds in measured.items():
        result += rows(f"{kind}: 964 leaves, {name}", seconds, 0.35 if kind == "trace" else None)
    return result


def trace_plain(quick: bool) -> list[Row]:
    return tracing("AdamW", quick, plain)


def trace_clipped(quick: bool) -> list[Row]:
    return tracing("clipped AdamW, scheduled", quick, clipped)


def unjitted(quick: bool) -> list[Row]:
    """`update` outside of jit, on leaves below and above the size from which XLA on a CPU uses a thread."""
    result = []
    for size in (32, 768):
        shapes = {f"w{i}": (size,) for i in range(120)}
        grads, params = trees.filled(shapes, seed=1), trees.filled(shapes)
        running = {}
        for name, library in ((BASE, optax), ("update", gradtx)):
            tx = plain(library)
            call = functools.partial(tx.update, grads, tx.init(params), params)
            jax.block_until_ready(call())
            running[name] = wall(call, 3)
        turns = take_turns(running, 5 if quick else 61)
        result += rows(f"un-jitted update: 120 leaves of {size}", turns, 0.25)
    return result


def compilations(quick: bool) -> list[Row]:
    """How often the step compiles over settings of the learning rate, as Optax's users and ours set it."""
    settings = [1e-4 * (i + 1) for i in range(5 if quick else 100)]
    params = trees.filled(trees.mlp(8, 8, 8, 2))

    @functools.partial(jax.jit, static_argnums=0)
    def step(tx: Any, grads: Any, state: Any, params: Any) -> Any:
        return tx.update(grads, state, params)

    state = plain(optax).init(params)
    for rate in settings:
        step(optax.adamw(rate, **HYPERPARAMETERS), params, state, params)
    theirs = step._cache_size()
    tx = plain(gradtx)
    state = tx.init(params)
    for rate in settings:
        step(tx, params, gradtx.set_hyperparams(state, learning_rate=rate), params)
    ours = step._cache_size() - theirs
    case, ratio = f"compilations: {len(settings)} learning rates", f"{ours / theirs:.3g}"
    return [Row(case, "set_hyperparams", str(ours), str(theirs), ratio, "", "1", ours == 1)]


def state_bytes(quick: bool) -> list[Row]:
    """The size of AdamW's state."""
    params = trees.abstract(trees.transformer(12, 768, 50_257, 1_024))
    ours, theirs = (
        sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(plain(lib).init, params)))
        for lib in (gradtx, optax)
    )
    ratio = f"{ours / theirs:.7f}"
    return [Row("state bytes: GPT-2 124M", "init", f"{ours:,}", f"{theirs:,}", ratio, "", "", None)]


def importing(quick: bool) -> list[Row]:
    """What `import gradtx` adds to a process that has imported JAX, in CPU seconds."""
    timed = "import time; a = time.process_time(); import {}; print(time.process_time() - a)"

    def run(before: str, module: str) -> float:
        code = f"import {before}; {timed.format(module)}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return float(done.stdout)

    result = []
    for before in ("jax", "jax, jax.numpy, jax.random"):
        seconds = take_turns(
            {
                BASE: functools.partial(run, before, "optax"),
                "import gradtx": functools.partial(run, before, "gradtx"),
            },
            2 if quick else 11,
        )
        (row,) = rows(f"import: after {before}", seconds, None)
        median = statistics.median(seconds["import gradtx"])
        result.append(
            Row(
                row.case,
                row.variant,
                row.gradtx,
                row.base,
                row.ratio,
                row.fastest,
                f"< {show_seconds(0.15)}",
                median < 0.15,
            )
        )
    return result


CASES: dict[str, Callable[[bool], list[Row]]] = {
    "tiny": step_tiny,
    "tiny-plain": step_tiny_plain,
    "mlp": step_mlp,
    "many-leaves": step_many_leaves,
    "one-leaf": step_one_leaf,
    "gpt2": step_gpt2,
    "trace": trace_plain,
    "trace-clipped": trace_clipped,
    "unjitted": unjitted,
    "compilations": compilations,
    "state": state_bytes,
    "import": importing,
}
"""Every case by the name that `--case` takes, small ones first."""
