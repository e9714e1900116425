"""The cases of looking into an optimizer, taking it along and moving in, on a tree of 1,000 leaves."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AbstractMesh

import gradtx
from gradtx.core.engine.leaves import paths

from . import trees
from .cases import HYPERPARAMETERS, clipped, plain
from .measure import Row, show_seconds, take_turns, wall

LIMIT, LIMIT_OF_LARGE = 2.0, 10.0
"""Seconds, and those for a trillion parameters."""

TORCH = {
    "lr": 3e-4,
    "betas": (HYPERPARAMETERS["b1"], HYPERPARAMETERS["b2"]),
    "eps": HYPERPARAMETERS["eps"],
    "weight_decay": HYPERPARAMETERS["weight_decay"],
    "amsgrad": False,
    "maximize": False,
}


def grouped(rate: float = 3e-4) -> Any:
    """AdamW, clipped and scheduled, in one of three groups."""
    groups = {"embedding": gradtx.set_to_zero(), "norm": gradtx.adam(rate), "body": clipped(gradtx)}
    return gradtx.partition(groups, {"wte": "embedding", "*ln_*": "norm", "*": "body"})


def guarded(rate: float = 3e-4) -> Any:
    """The same, guarded, over accumulated gradients."""
    return gradtx.accumulate(gradtx.guard(grouped(rate)), 8)


def looks(build: Callable[..., Any], params: Any) -> dict[str, Callable[[], Any]]:
    """What looks into an optimizer; its result is printed."""
    tx, other = build(), build(1e-4)
    return {
        "str": lambda: str(tx),
        "describe": lambda: str(gradtx.describe(tx, params)),
        "formula": lambda: str(gradtx.formula(tx, params, "h0/fc/kernel")),
        "diff": lambda: str(gradtx.diff(tx, other, params)),
        "check": lambda: str(gradtx.check(tx, params, steps=1_000)),
    }


def moves(params: Any) -> dict[str, Callable[[], Any]]:
    """What takes an optimizer and its state along, or moves them in."""
    several, one = guarded(), plain(gradtx)
    state, config = several.init(params), gradtx.to_config(several)
    taken = gradtx.to_state_dict(state)
    theirs = clipped(optax).init(params)
    ours = gradtx.from_optax_state(clipped(gradtx), theirs, params)
    order = [str(i) for i in range(len(jax.tree.leaves(params)))]
    names = dict(zip(paths(params), order, strict=True))
    new = {"state": {}, "param_groups": [{**TORCH, "params": list(range(len(order)))}]}
    at_ten = {**one.init(params), "step": np.int32(10)}
    torch = gradtx.to_torch_state_dict(one, at_ten, names, params, new, order=order)
    return {
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


def plans() -> dict[str, Callable[[], Any]]:
    """What tells what an optimizer of a trillion parameters takes of 4,096 devices."""
    params, specs = trees.experts()
    mesh = AbstractMesh((64, 64), ("data", "expert"))
    views = {f"*/{name}": gradtx.matrix_view("brc") for name in ("up", "gate", "down")}
    views |= dict.fromkeys(("*/query", "*/out"), gradtx.matrix_view("rc"))
    optimizers = {
        "adamw": clipped(gradtx),
        "adafactor": gradtx.adafactor(3e-4),
        "muon": gradtx.muon(3e-4, muon_weight_dimension_numbers=views),
        "soap": gradtx.soap(3e-4, views=views),
    }
    return {
        f"explain: {name}": lambda tx=tx: str(gradtx.explain(tx, params, mesh, specs=specs))
        for name, tx in optimizers.items()
    }


def looking(quick: bool) -> list[Row]:
    """Each function as a new process calls it: with nothing traced or compiled before."""
    params = trees.filled(trees.transformer(3 if quick else 83, 64, 1_000, 64))

    def cold(call: Callable[[], Any]) -> Callable[[], float]:
        timed = wall(call, 1)

        def measure() -> float:
            jax.clear_caches()
            return timed()

        return measure

    rows = []
    for case, calls, limit in (
        ("once, 1,000 leaves in three groups", looks(grouped, params), LIMIT),
        ("once, 1,000 leaves in three groups, guarded, accumulated", looks(guarded, params), LIMIT),
        ("once, 1,000 leaves", moves(params), LIMIT),
        ("once, a trillion parameters on 4,096 devices", plans(), LIMIT_OF_LARGE),
    ):
        turns = take_turns({name: cold(call) for name, call in calls.items()}, 2 if quick else 5)
        for name, seconds in turns.items():
            median = statistics.median(seconds)
            target = f"< {show_seconds(limit)}"
            rows.append(Row(case, name, show_seconds(median), "", "", "", target, median < limit))
    return rows


CASES: dict[str, Callable[[bool], list[Row]]] = {"looking": looking}
"""Every case by the name that `--case` takes."""
