"""Steps by native kernels, against Optax, against torch's fused AdamW where torch is, and a plain copy."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx

from . import trees
from .cases import HYPERPARAMETERS, in_one, plain, update_and_apply
from .measure import BASE, Row, owning, processor, rows, take_turns, wall

Stepping = Callable[[], Any]

TREES: dict[str, tuple[Any, float, float]] = {
    "one leaf of 32M": ({"w": (8_000, 4_000)}, 0.7, 1.0),
    "GPT-2 124M, 148 leaves": (trees.transformer(12, 768, 50_257, 1_024), 0.75, 1.0),
    "MLP, 6 leaves": (trees.mlp(64, 256, 256, 8), 0.8, 1.0),
    "1,000 leaves of 768": ({f"l{i:03}": (768,) for i in range(1_000)}, 0.5, 1.0),
}
"""The shapes of each, and what is promised against Optax and against torch."""

QUICK = {"w": (64, 128), "b": (128,)}

OPTIMIZERS: dict[str, tuple[Any, Any]] = {
    "AdamW": (plain(gradtx), plain(optax)),
    "clipped AdamW": (
        gradtx.chain(gradtx.clip_by_global_norm(1.0), plain(gradtx)),
        optax.chain(optax.clip_by_global_norm(1.0), plain(optax)),
    ),
    "Lion": (gradtx.lion(3e-4), optax.lion(3e-4)),
    "SGD with momentum": (gradtx.sgd(0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9)),
    "Adam, mu_dtype=bfloat16": (
        gradtx.adam(3e-4, mu_dtype=jnp.bfloat16),
        optax.adam(3e-4, mu_dtype=jnp.bfloat16),
    ),
    "AdamW in 8 bits": (gradtx.precision(plain(gradtx), "8bit"), plain(optax)),
}


def compiled(step: Any, tx: Any, shapes: Any, kernels: Any) -> Stepping:
    """A call of the compiled step, which owns what it works on."""
    params, grads = trees.filled(shapes, 0), trees.filled(shapes, 1)
    held = params, tx.init(params)
    with gradtx.kernels(kernels):
        program = jax.jit(step, donate_argnums=(0, 1)).lower(*held, grads).compile()
    return owning(program, held, grads)


def fused_by_torch(shapes: Any) -> Stepping:
    """torch's own AdamW, by its fused kernel."""
    import torch

    leaves = [np.asarray(x) for x in jax.tree.leaves(trees.filled(shapes, 0))]
    params = [torch.nn.Parameter(torch.from_numpy(x.copy())) for x in leaves]
    for p, g in zip(params, jax.tree.leaves(trees.filled(shapes, 1)), strict=True):
        p.grad = torch.from_numpy(np.asarray(g).copy())
    settings = {
        "lr": 3e-4,
        "betas": (HYPERPARAMETERS["b1"], HYPERPARAMETERS["b2"]),
        "eps": HYPERPARAMETERS["eps"],
        "weight_decay": HYPERPARAMETERS["weight_decay"],
    }
    optimizer = torch.optim.AdamW(params, fused=True, **settings)

    def call() -> None:
        optimizer.step()

    call()
    return call


def copying(shapes: Any) -> Stepping:
    """Three plain copies of the parameters, in numpy: six of the seven arrays that AdamW reads or writes."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(trees.filled(shapes, 0))]
    pairs = [(x.copy(), x.copy()) for x in leaves]

    def call() -> None:
        for source, target in pairs:
            for _ in range(3):
                np.copyto(target, source)

    call()
    return call


def of_tree(name: str, quick: bool, optimizers: list[str], rounds: int) -> list[Row]:
    """The native step of some optimizers, and for AdamW all contestants."""
    shapes, to_optax, to_torch = TREES[name]
    shapes = QUICK if quick else shapes
    count = sum(x.size for x in jax.tree.leaves(trees.abstract(shapes)))
    times, rounds = (1, 1) if quick else (max(1, 300_000 // count), rounds)
    result: list[Row] = []
    for optimizer in optimizers:
        tx, peer = OPTIMIZERS[optimizer]
        makers: dict[str, Callable[[], Stepping]] = {
            BASE: lambda peer=peer: compiled(update_and_apply(optax, peer), peer, shapes, "xla"),
            "native": lambda tx=tx: compiled(in_one(tx), tx, shapes, "native"),
            "xla": lambda tx=tx: compiled(in_one(tx), tx, shapes, "xla"),
        }
        if optimizer == "AdamW":
            if importlib.util.find_spec("torch"):
                makers["torch"] = lambda: fused_by_torch(shapes)
            makers["copy"] = lambda: copying(shapes)
        seconds: dict[str, list[float]] = {n: [] for n in makers}
        for order in ([*makers], [*makers][::-1]):
            running = {n: wall(makers[n](), times) for n in order}
            for n, spent in take_turns(running, rounds).items():
                seconds[n] += spent
            running.clear()
        case = f"native: {optimizer}, {name}"
        target = to_optax if optimizer == "AdamW" else None
        result += rows(case, {n: seconds[n] for n in (BASE, "native")}, target)
        result += rows(case, {n: seconds[n] for n in (BASE, "xla")}, None)
        if "torch" in seconds:
            against = {BASE: seconds["torch"], "native": seconds["native"]}
            result += rows(f"{case}, against torch", against, to_torch)
        if "copy" in seconds:
            result += [_bandwidth(case, count, seconds)]
    return result


def _bandwidth(case: str, count: int, seconds: dict[str, list[float]]) -> Row:
    """GB/s of AdamW, which moves 28 bytes a parameter, and of the copy, which moves 24."""
    own, copy = (statistics.median(seconds[n]) for n in ("native", "copy"))
    rates = 28 * count / own / 1e9, 24 * count / copy / 1e9
    title = f"{case}, GB/s against a copy's"
    return Row(
        title, "native", f"{rates[0]:.1f}", f"{rates[1]:.1f}", f"{rates[0] / rates[1]:.3f}", "", "", None
    )


def steps(quick: bool) -> list[Row]:
    result = []
    for name in TREES:
        large = name.startswith(("one", "GPT"))
        chosen = [*OPTIMIZERS] if name.startswith("one") else ["AdamW"]
        result += of_tree(name, quick, chosen, 4 if large else 12)
    return result


def compile_time(quick: bool) -> list[Row]:
    """Tracing, lowering and compiling of 964 leaves, every cache cleared; loops of C are there already."""
    shapes = {f"l{i:03}": (768,) if i % 2 else (32, 24) for i in range(4 if quick else 964)}
    params = trees.abstract(shapes)
    contestants = {
        BASE: (plain(optax), update_and_apply(optax, plain(optax)), "xla"),
        "xla": (plain(gradtx), in_one(plain(gradtx)), "xla"),
        "native": (plain(gradtx), in_one(plain(gradtx)), "native"),
    }
    spent: dict[str, list[list[float]]] = {n: [] for n in contestants}
    for turn in range(1 if quick else 4):
        for name, (tx, step, kernels) in contestants.items():
            jax.clear_caches()
            state = jax.eval_shape(tx.init, params)
            jitted = jax.jit(lambda p, s, g, step=step: step(p, s, g), donate_argnums=(0, 1))
            with gradtx.kernels(kernels):  # type: ignore[arg-type]
                parts = [
                    lambda _, f=jitted, s=state: f.trace(params, s, params),
                    lambda traced: traced.lower(),
                    lambda lowered: lowered.compile(),
                ]
                found = processor(parts)
            if turn or quick:  # the first one imports, and makes the loop
                spent[name].append(found)
    result = []
    targets = {"xla": (0.25, 1.0), "native": (0.25, 0.3)}
    for name, (to_trace, to_compile) in targets.items():
        for part, title, target in ((0, "trace", to_trace), (1, "lower", None), (2, "compile", to_compile)):
            seconds = {n: [found[part] for found in spent[n]] for n in (BASE, name)}
            result += rows(f"{title}: AdamW, 964 leaves", seconds, target)
    return result


CASES = {"native": steps, "native-compile": compile_time}
"""Every case by the name that `--case` takes."""
