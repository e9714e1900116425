"""The cases of wrappers: against Optax's, or against the same optimizer without them."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradtx

from . import trees
from .cases import clipped, in_one, plain, stepping, update_and_apply
from .measure import BASE, Row, rows, take_turns, wall

MICRO_STEPS = 8


def accumulating(quick: bool) -> list[Row]:
    """Micro-steps of accumulation, 8 to an update."""
    size = (8, 256, 8_000) if not quick else (2, 32, 100)
    shapes = trees.small_transformer(*size)
    grads = trees.filled(shapes, seed=1)
    theirs = optax.MultiSteps(plain(optax), MICRO_STEPS)
    ours = gradtx.accumulate(plain(gradtx), MICRO_STEPS)

    def add(params: Any, total: Any, grads: Any) -> Any:
        return params, jax.tree.map(jnp.add, total, grads)

    bare = gradtx.GradientTransformation(functools.partial(jax.tree.map, jnp.zeros_like), add)
    made = {
        BASE: (theirs, update_and_apply(optax, theirs)),
        "update, apply_updates": (ours, update_and_apply(gradtx, ours)),
        "apply_gradients": (ours, in_one(ours)),
        "a bare add": (bare, add),
    }
    calls = {name: wall(stepping(*pair, shapes, grads), 1) for name, pair in made.items()}

    def micro_steps(names: list[str], rounds: int) -> dict[str, list[list[float]]]:
        turns = take_turns({name: calls[name] for name in names}, rounds * MICRO_STEPS)
        return {
            name: [own[i : i + MICRO_STEPS] for i in range(0, len(own), MICRO_STEPS)]
            for name, own in turns.items()
        }

    targets = {"update, apply_updates": 0.7, "apply_gradients": 0.22}
    case = f"accumulate: 8 micro-steps and their update, {len(jax.tree.leaves(grads))} leaves"
    result = []
    for name, target in targets.items():
        eights = micro_steps([BASE, name], 2 if quick else 15)
        result += rows(case, {n: list(map(sum, own)) for n, own in eights.items()}, target)
    singles = micro_steps(["a bare add", "apply_gradients"], 2 if quick else 30)
    medians = {n: list(map(statistics.median, own)) for n, own in singles.items()}
    against_add = {BASE: medians["a bare add"], "apply_gradients": medians["apply_gradients"]}
    return result + rows("accumulate: a micro-step against a bare add", against_add, 1.6)


def wrapping(quick: bool) -> list[Row]:
    """AdamW on GPT-2's leaves inside a wrapper, against the same without."""
    shapes = trees.transformer(12, 64, 500, 64) if quick else trees.transformer(12, 768, 50_257, 1_024)
    labels = {"wte": "embedding", "*ln_*": "norm", "*": "body"}
    result = []
    for form, build in (("clipped", clipped), ("plain", plain)):
        tx = build(gradtx)
        made = {
            BASE: tx,
            "guard": gradtx.guard(tx),
            "track": gradtx.track(tx),
            "partition, 3 groups": gradtx.partition(dict.fromkeys(labels.values(), tx), labels),
        }
        grads = trees.filled(shapes, seed=1)
        # Two at a time, each made first once: more would not fit in the memory of a small machine.
        for name in list(made)[1:]:
            seconds: dict[str, list[float]] = {BASE: [], name: []}
            for order in ((BASE, name), (name, BASE)):
                jax.clear_caches()
                running = {n: wall(stepping(made[n], in_one(made[n]), shapes, grads), 1) for n in order}
                for n, own in take_turns(running, 1 if quick else 15).items():
                    seconds[n] += own
            # Without clipping a guard reads the gradients once more.
            target = None if name == "guard" and form == "plain" else 1.03
            result += rows(f"GPT-2 124M: {form} AdamW in a wrapper, against it alone", seconds, target)
    return result


CASES: dict[str, Callable[[bool], list[Row]]] = {"accumulate": accumulating, "wrappers": wrapping}
"""Every case by the name that `--case` takes."""
