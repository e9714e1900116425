"""Writes what a release keeps: configs and states, and the parameters two steps later.

    PYTHONPATH=. python -m tests.golden.make_release

It makes the folder of gradtx's own version, once, when that version is released: what is there afterwards
is what later versions must load, and is not written again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

FOLDER = Path(__file__).parent
BEFORE, AFTER = 4, 2
"""How many steps were made before the state was kept, and how many after it."""

SCHEDULE = gradtx.warmup_cosine_decay_schedule(0.0, 1e-2, 2, 20)
LABELS = {"body/*": "body", "norm/*": "frozen", "*": "head"}
NO_DECAY = ("!*bias", "!norm/*")

CASES = {
    "accumulate_guard": gradtx.accumulate(gradtx.guard(gradtx.sgd(1e-2, momentum=0.9)), every=3),
    "adafactor": gradtx.adafactor(1e-2, min_dim_size_to_factor=2),
    "adamw": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(SCHEDULE, b2=0.99, mask=NO_DECAY)),
    "averages": gradtx.track(gradtx.ema_params(gradtx.sgd(0.1, momentum=0.9, nesterov=True), 0.9), every=2),
    "groups": gradtx.partition(
        {
            "body": gradtx.masked(gradtx.adam(1e-2), "*kernel"),
            "head": gradtx.chain(gradtx.sgd(SCHEDULE, momentum=0.9), gradtx.ema(0.5)),
            "frozen": gradtx.set_to_zero(),
        },
        LABELS,
    ),
    "joined_schedules": gradtx.sgd(
        gradtx.join_schedules([gradtx.linear_schedule(0.0, 0.1, 3), gradtx.constant_schedule(0.05)], [3])
    ),
    "lbfgs": gradtx.lbfgs(memory_size=3),
    "lion": gradtx.lion(1e-3, mu_dtype="bfloat16"),
    "lookahead": gradtx.lookahead(gradtx.adam(1e-2), 3, 0.5),
    "muon": gradtx.muon(1e-2),
    "noise": gradtx.noisy_sgd(1e-2, key=7),
    "prodigy": gradtx.prodigy(1.0),
    "scaled_groups": gradtx.chain(
        gradtx.rmsprop(1e-2), gradtx.scale_by_group({"body": 0.5, "head": 1.0, "frozen": 0.0}, LABELS)
    ),
    "schedule_free": gradtx.schedule_free_adamw(1e-2, warmup_steps=3),
    "shampoo": gradtx.shampoo(1e-2),
    # Adam in a basis that is not settled would make rounding errors as large as anything.
    "soap": gradtx.soap(1e-2, eps=1e-2),
}


def start() -> dict[str, Any]:
    """The parameters that each case starts from."""

    def wave(*shape: int) -> jax.Array:
        size = int(np.prod(shape))
        return jnp.asarray(np.sin(1.0 + np.arange(size)).reshape(shape), jnp.float32)

    return {
        "body": {"kernel": wave(4, 3), "bias": wave(3)},
        "head": {"kernel": wave(3, 2)},
        "norm": {"scale": jnp.ones(3)},
    }


def loss(params: dict[str, Any]) -> jax.Array:
    """What each case minimizes."""
    x = jnp.asarray(np.cos(np.arange(20.0)).reshape(5, 4), jnp.float32)
    inside = jnp.tanh(
        jnp.dot(x, params["body"]["kernel"], precision="highest") + params["body"]["bias"][None]
    )
    inside = inside * params["norm"]["scale"][None]
    out = jnp.dot(inside, params["head"]["kernel"], precision="highest")
    return jnp.mean((out - 1.0) ** 2)


def run(tx: gradtx.Transform, params: Any, state: Any, steps: int) -> tuple[Any, Any]:
    """Makes some steps."""

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any]:
        value, grads = jax.value_and_grad(loss)(params)
        return gradtx.apply_gradients(tx, grads, state, params, value=value, grad=grads, value_fn=loss)

    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def flat(params: Any) -> np.ndarray:
    """The numbers of all parameters, leaf after leaf."""
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])


def unflat(numbers: np.ndarray) -> Any:
    """The parameters of which these are the numbers."""
    leaves, structure = jax.tree.flatten(start())
    ends = np.cumsum([x.size for x in leaves])
    parts = np.split(numbers, ends[:-1])
    return structure.unflatten([jnp.asarray(p).reshape(x.shape) for p, x in zip(parts, leaves, strict=True)])


def main() -> None:
    """Makes the folder of this version."""
    folder = FOLDER / gradtx.__version__
    folder.mkdir()
    configs = {}
    for name, tx in CASES.items():
        configs[name] = gradtx.to_config(tx)
        params = start()
        params, state = run(tx, params, tx.init(params), BEFORE)
        after, _ = run(tx, params, state, AFTER)
        arrays = {f"state/{key}": x for key, x in gradtx.to_state_dict(state).items()}
        np.savez_compressed(folder / f"{name}.npz", params=flat(params), after=flat(after), **arrays)
    (folder / "configs.json").write_text(json.dumps(configs, indent=1) + "\n")


if __name__ == "__main__":
    main()
