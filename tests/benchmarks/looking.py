"""The cases of looking into an optimizer, taking it along and moving in, on a tree of 1,000 leaves."""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import gradtx

from . import trees
from .cases import HYPERPARAMETERS, clipped, plain
from .measure import Row, show_seconds, take_turns, wall

LIMIT = 2.0
"""Seconds."""

TORCH = {
    "lr": 3e-4,
    "betas": (HYPERPARAMETERS["b1"], HYPERPARAMETERS["b2"]),
    "eps": HYPERPARAMETERS["eps"],
    "weight_decay": HYPERPARAMETERS["weight_decay"],
    "amsgrad": False,
    "maximize": False,
}


def grouped(rate: float = 3e-4) -> Any:
    """Three groups, clipped and guarded, over accumulated gradients."""
    groups = {"embedding": gradtx.set_to_zero(), "norm": gradtx.adam(rate), "body": clipped(gradtx)}
    tx = gradtx.partition(groups, {"wte": "embedding", "*ln_*": "norm", "*": "body"})
    return gradtx.accumulate(gradtx.guard(tx), 8)


def calls(quick: bool) -> dict[str, Callable[[], Any]]:
    """Each function on the tree, its result printed where it prints."""
    shapes = trees.transformer(3 if quick else 83, 64, 1_000, 64)
    params, several, one = trees.filled(shapes), grouped(), plain(gradtx)
    state, config = several.init(params), gradtx.to_config(several)
    taken = gradtx.to_state_dict(state)
    file = io.BytesIO()
    np.savez(file, **taken)
    theirs = clipped(optax).init(params)
    ours = gradtx.from_optax_state(clipped(gradtx), theirs, params)
    order = [str(i) for i in range(len(jax.tree.leaves(params)))]
    names = dict(zip(gradtx.core.leaves.paths(params), order, strict=True))
    new = {"state": {}, "param_groups": [{**TORCH, "params": list(range(len(order)))}]}
    at_ten = {**one.init(params), "step": np.int32(10)}
    torch = gradtx.to_torch_state_dict(one, at_ten, names, params, new, order=order)
    return {
        "str": lambda: str(several),
        "describe": lambda: str(gradtx.describe(several, params)),
        "formula": lambda: str(gradtx.formula(several, params, "h0/fc/kernel")),
        "diff": lambda: str(gradtx.diff(several, grouped(1e-4), params)),
        "check": lambda: str(gradtx.check(several, params, steps=1_000)),
        "to_config": lambda: json.dumps(gradtx.to_config(several)),
        "from_config": lambda: gradtx.from_config(config),
        "to_state_dict": lambda: gradtx.to_state_dict(state),
        "from_state_dict": lambda: gradtx.from_state_dict(several, params, taken),
        "from_optax_state": lambda: gradtx.from_optax_state(clipped(gradtx), theirs, params),
        "to_optax_state": lambda: gradtx.to_optax_state(clipped(gradtx), ours, theirs),
        "from_torch_state_dict": lambda: gradtx.from_torch_state_dict(one, torch, names, params, order=order),
        "to_torch_state_dict": lambda: gradtx.to_torch_state_dict(
            one, at_ten, names, params, new, order=order
        ),
    }


def looking(quick: bool) -> list[Row]:
    """Each function as a new process calls it: with nothing traced or compiled before."""

    def cold(call: Callable[[], Any]) -> Callable[[], float]:
        timed = wall(call, 1)

        def measure() -> float:
            jax.clear_caches()
            return timed()

        return measure

    rows = []
    for name, seconds in take_turns({n: cold(c) for n, c in calls(quick).items()}, 2 if quick else 5).items():
        median = statistics.median(seconds)
        limit = f"< {show_seconds(LIMIT)}"
        rows.append(Row("once, 1,000 leaves", name, show_seconds(median), "", "", "", limit, median < LIMIT))
    return rows


CASES: dict[str, Callable[[bool], list[Row]]] = {"looking": looking}
"""Every case by the name that `--case` takes."""
