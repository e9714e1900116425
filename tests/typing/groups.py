"""Groups, freezing, accumulation, guards, averages, and hyperparameters that are read and set."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import gradtx

Params = dict[str, dict[str, jax.Array]]


def label(path: str, leaf: jax.Array) -> str:
    return "head" if path.startswith("head") else "body"


def one(rate: gradtx.ScalarOrSchedule) -> gradtx.Transform:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(rate, mask="!*bias"))
    tx = gradtx.track(gradtx.ema_params(tx, decay=0.99), every=10)
    return gradtx.accumulate(gradtx.guard(tx), every=2)


def main() -> None:
    params: Params = {
        "body": {"w": jnp.ones((2, 2)), "bias": jnp.zeros(2)},
        "head": {"w": jnp.ones((2, 1)), "bias": jnp.zeros(1)},
    }
    tx = gradtx.partition(
        {"body": one(1e-3), "head": gradtx.sgd(gradtx.linear_schedule(1e-2, 0.0, 100))}, label
    )
    state = tx.init(params)
    for _ in range(2):
        params, state = gradtx.apply_gradients(tx, params, state, params)
    evaluated = gradtx.eval_params(state, params)
    assert evaluated["head"]["w"].shape == (2, 1)

    numbers = gradtx.hyperparams(state)
    assert numbers["body.accumulate.guard.track.adamw.learning_rate"] == 1e-3
    state = gradtx.set_hyperparams(state, **{"body.accumulate.guard.track.adamw.learning_rate": 2e-3})
    seen = gradtx.report(state, "body/accumulate/inner/guard")
    assert int(seen.skipped) == 0
    assert "update_norm" in " ".join(gradtx.metrics(state))

    patterns = {"body*": "frozen", "*": "trained"}
    frozen = gradtx.partition({"frozen": gradtx.set_to_zero(), "trained": gradtx.sgd(0.1)}, patterns)
    frozen = gradtx.chain(frozen, gradtx.scale_by_group({"frozen": 1.0, "trained": 0.5}, patterns))
    updates, _ = frozen.update(params, frozen.init(params), params)
    assert not updates["body"]["w"].any()

    steps = gradtx.MultiSteps(gradtx.adam(1e-3), 4)
    held = steps.init(params)
    updates, held = steps.update(params, held, params)

    state, changes = gradtx.rebase(gradtx.sgd(0.2), gradtx.sgd(0.1).init(params))
    assert changes == {"learning_rate": (0.1, 0.2)}


if __name__ == "__main__":
    main()
