"""Wrappers around wrappers, in every order that has a meaning, against a model of each, step by step.

One compiled program runs all steps of a composition for two rates: a `scan` under `vmap` under `jit`.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
import references
import wrapper_references as models
from catalogue import OnLeavesWithAxes, axes_or_none, has_axes

STEPS = 9
RATES = [0.1, 0.03]
PARAMS = {
    "bias": jnp.array([0.5, -1.0]),
    "kernel": jnp.array([[1.0, -0.5], [0.3, 2.0]]),
    "scale": jnp.array(1.5),
}
NAMES = sorted(PARAMS)
FAULTS = {2: ("bias", np.nan), 5: ("kernel", np.inf)}


# Each wrapper around a transform, and its model around that one's.
LAYERS = {
    "clip": (
        lambda tx: gradtx.chain(gradtx.clip_by_global_norm(0.7), tx),
        lambda model: references.Chain(Clip(0.7), model),
    ),
    "accumulate": (
        lambda tx: gradtx.accumulate(tx, 2),
        lambda model: models.Accumulate(model, 2, drops=True),
    ),
    "guard": (
        lambda tx: gradtx.guard(tx, deviations=None),
        lambda model: models.Guard(model, deviations=None),
    ),
    "partition": (
        lambda tx: gradtx.partition({"axes": tx, "none": gradtx.sgd(0.3)}, axes_or_none),
        lambda model: models.Partition({"axes": model, "none": references.Sgd(0.3)}, axes_or_none),
    ),
    "ema": (lambda tx: gradtx.ema_params(tx, 0.6), lambda model: models.EmaParams(model, 0.6)),
    "masked": (lambda tx: gradtx.masked(tx, has_axes), lambda model: OnLeavesWithAxes(model)),
}


class Clip(references.ClipByGlobalNorm):
    """A norm that is not finite clips nothing."""

    def update(self, grads, params, **extra):
        if models.is_finite(grads):
            return super().update(grads, params, **extra)
        return [references.wide(g) for g in grads]


def composed(layers: tuple[str, ...], rate: Any, model: bool = False) -> Any:
    """Wrappers, the outermost first, around momentum; or their models."""
    result = references.Sgd(rate, momentum=0.9) if model else gradtx.sgd(rate, 0.9)
    for name in reversed(layers):
        result = LAYERS[name][model](result)
    return result


def gradients(layers: tuple[str, ...]) -> list[dict[str, np.ndarray]]:
    """Random ones; two steps have one bad element where something is there to leave them out."""
    rng = np.random.default_rng(0)
    steps = [
        {k: np.asarray(rng.normal(size=p.shape), np.float32) for k, p in PARAMS.items()} for _ in range(STEPS)
    ]
    if {"guard", "accumulate"} & set(layers):
        for t, (name, bad) in FAULTS.items():
            steps[t][name].flat[0] = bad
    return steps


def evaluated(model: Any, params: list[np.ndarray]) -> list[np.ndarray]:
    """The parameters to evaluate with: those of the average, where the model has one."""
    if isinstance(model, models.EmaParams):
        return model.average
    if isinstance(model, models.Partition):
        parts = {k: iter(evaluated(inner, model.of(k, params))) for k, inner in model.inner.items()}
        return [next(parts[label]) for label in model.labels]
    if isinstance(model, OnLeavesWithAxes):
        inner = iter(evaluated(model.references[0], [p for p in params if p.ndim]))
        return [next(inner) if p.ndim else p for p in params]
    if isinstance(model, references.Chain):
        return evaluated(model.references[-1], params)
    return evaluated(model.inner, params) if hasattr(model, "inner") else params


def agrees(layers: tuple[str, ...], through_update: bool) -> None:
    """Parameters after each step, and the parameters to evaluate with, are the model's at both rates."""
    tx, grads = composed(layers, 0.1), gradients(layers)

    @jax.jit
    @jax.vmap
    def run(state: Any) -> Any:
        def step(carry: Any, g: Any) -> Any:
            params, state = carry
            if through_update:
                updates, state = tx.update(g, state, params)
                params = gradtx.apply_updates(params, updates)
            else:
                params, state = gradtx.apply_gradients(tx, g, state, params)
            return (params, state), params

        (params, state), trajectory = jax.lax.scan(step, (PARAMS, state), stacked)
        return trajectory, gradtx.eval_params(state, params)

    stacked = jax.tree.map(lambda *gs: jnp.stack(gs), *grads)
    states = jax.vmap(lambda rate: composed(layers, rate).init(PARAMS))(jnp.array(RATES))
    trajectories, ends = jax.device_get(run(states))
    for i, rate in enumerate(RATES):
        model = composed(layers, rate, model=True)
        params = [references.wide(np.asarray(PARAMS[k])) for k in NAMES]
        model.init(params)
        for t, g in enumerate(grads):
            updates = model.update([g[k] for k in NAMES], params)
            params = [p + u for p, u in zip(params, updates, strict=True)]
            for k, p in zip(NAMES, params, strict=True):
                np.testing.assert_allclose(
                    trajectories[k][i, t], p, rtol=2e-5, atol=2e-6, err_msg=f"{k} after step {t}, rate {rate}"
                )
        for k, p in zip(NAMES, evaluated(model, params), strict=True):
            np.testing.assert_allclose(ends[k][i], p, rtol=2e-5, atol=2e-6, err_msg=f"average of {k}")


PAIRS = list(itertools.permutations(LAYERS, 2))
ALL = list(itertools.permutations(LAYERS))
SOME = random.Random(0).sample(ALL, 8)


@pytest.mark.wide
@pytest.mark.parametrize(
    "i, layers", list(enumerate([*PAIRS, *SOME])), ids=lambda x: x if isinstance(x, int) else " ".join(x)
)
def test_compositions_are_their_models(i, layers):
    agrees(layers, through_update=i % 2 == 0)


@pytest.mark.full
@pytest.mark.parametrize("through_update", [True, False], ids=["update", "apply_gradients"])
@pytest.mark.parametrize("layers", ALL, ids=" ".join)
def test_every_order_is_its_model(layers, through_update):
    agrees(layers, through_update)


@pytest.mark.parametrize(
    "layers",
    [order for order in SOME if order.index("ema") > 0]
    + [("ema",), ("accumulate", "ema"), ("guard", "masked", "ema")],
    ids=" ".join,
)
def test_an_average_of_parameters_that_are_changed_after_is_an_error(layers):
    """What stands between the average and the end of the chain changes the update that it has seen."""
    tx = gradtx.chain(composed(layers, 0.1), gradtx.clip_by_global_norm(0.1))
    with pytest.raises(ValueError, match=r"ema_params.*clip_by_global_norm"):
        tx.init(PARAMS)
