"""An optimizer as a config and back, and a state as a flat dict and back."""

from __future__ import annotations

import json
from typing import Any

import jax.numpy as jnp
import numpy as np

import gradtx


def build(config: dict[str, Any]) -> gradtx.Transform:
    tx: gradtx.Transform = gradtx.from_config(config)
    return tx


def main() -> None:
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(schedule, mask=("!*bias",)))
    text = json.dumps(gradtx.to_config(tx))
    assert build(json.loads(text)) == tx

    again: gradtx.Schedule = gradtx.from_config(gradtx.to_config(schedule))
    assert float(again(10)) == float(schedule(10))

    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)}
    flat: dict[str, np.ndarray] = gradtx.to_state_dict(tx.init(params))
    state, restored = gradtx.from_state_dict(tx, params, flat)
    assert not restored.new and gradtx.step_count(state) == 0

    print(
        gradtx.describe(tx, params), gradtx.check(tx, params, steps=100), gradtx.formula(tx, params, "bias")
    )
    assert gradtx.diff(tx, tx).first is None


if __name__ == "__main__":
    main()
