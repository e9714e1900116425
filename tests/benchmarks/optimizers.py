"""Every ready-made optimizer that Optax has too, on the leaves of GPT-2."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

import gradtx

from . import trees
from .cases import stepping
from .measure import BASE, Row, rows, take_turns, wall

RATE = {"learning_rate": 3e-4}
SETTINGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(["adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw"], RATE),
    **dict.fromkeys(["adamw", "adan", "amsgrad", "fromage", "lamb", "lars", "lion", "nadam", "nadamw"], RATE),
    **dict.fromkeys(["novograd", "optimistic_adam_v2", "optimistic_gradient_descent", "radam"], RATE),
    **dict.fromkeys(["rmsprop", "rprop", "sign_sgd", "signum", "sm3", "yogi"], RATE),
    "noisy_sgd": {**RATE, "key": 0},
    "polyak_sgd": {},
    "sgd": {**RATE, "momentum": 0.9},
    **dict.fromkeys(["acprop", "ademamix", "adopt", "cocob", "dadapt_adamw", "dog", "dowg"], RATE),
    **dict.fromkeys(["madgrad", "momo", "momo_adam", "prodigy", "simplified_ademamix"], RATE),
    **dict.fromkeys(["schedule_free_adamw", "schedule_free_sgd"], RATE),
}
CHOSEN: list[str] = []
"""Those that are measured."""

NEED_THE_LOSS = ("momo", "momo_adam", "polyak_sgd")


def step_of_each(quick: bool) -> list[Row]:
    """The jitted, donated step of each, through `apply_gradients`, in both orders of making the arrays."""
    shapes = trees.transformer(2, 64, 500, 64) if quick else trees.transformer(12, 768, 50_257, 1_024)
    grads, result = trees.filled(shapes, seed=1), []
    for name in CHOSEN:
        settings = SETTINGS[name]
        library = optax if hasattr(optax, name) else optax.contrib
        extra = {"value": 1.0} if name in NEED_THE_LOSS else {}
        ours, theirs = getattr(gradtx, name)(**settings), getattr(library, name)(**settings)

        def in_one(params: Any, state: Any, grads: Any, tx: Any = ours, extra: Any = extra) -> Any:
            return gradtx.apply_gradients(tx, grads, state, params, **extra)

        def in_two(params: Any, state: Any, grads: Any, tx: Any = theirs, extra: Any = extra) -> Any:
            updates, state = tx.update(grads, state, params, **extra)
            return optax.apply_updates(params, updates), state

        # Some of Optax's states are the parameters themselves, which cannot be donated twice.
        copied = SimpleNamespace(init=lambda params, tx=theirs: jax.tree.map(jnp.copy, tx.init(params)))
        contestants = {BASE: (copied, in_two), "apply_gradients": (ours, in_one)}
        seconds: dict[str, list[float]] = {key: [] for key in contestants}
        for order in (list(contestants), list(contestants)[::-1]):
            jax.clear_caches()
            running = {key: wall(stepping(*contestants[key], shapes, grads), 1) for key in order}
            for key, own in take_turns(running, 1 if quick else 5).items():
                seconds[key] += own
        result += rows(f"step: GPT-2 124M, {name}", seconds, 1.05)
    return result


CASES = {"optimizers": step_of_each}
