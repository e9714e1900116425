"""A chain on plain dicts: schedules, masks, a jitted step, a scan, a sweep and micro-batches."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import gradtx

Params = dict[str, jax.Array]
Carry = tuple[Params, gradtx.OptState]


def loss(params: Params, x: jax.Array) -> jax.Array:
    return jnp.mean((x @ params["kernel"] + params["bias"] - 1.0) ** 2)


def optimizer(learning_rate: gradtx.ScalarOrSchedule) -> gradtx.GradientTransformation:
    return gradtx.chain(
        gradtx.clip_by_global_norm(1.0),
        gradtx.scale_by_adam(b2=0.99),
        gradtx.add_decayed_weights(0.01, mask=("!*bias",)),
        gradtx.scale_by_learning_rate(learning_rate),
    )


def train(tx: gradtx.Transform, params: Params, xs: jax.Array) -> tuple[Params, gradtx.OptState, jax.Array]:
    def step(carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, x)
        updates, state = tx.update(grads, state, params)
        new: Params = gradtx.apply_updates(params, updates)
        return (new, state), value

    (params, state), losses = jax.lax.scan(step, (params, tx.init(params)), xs)
    return params, state, losses


def halved(step: jax.Array) -> jax.Array:
    return 1e-2 * 0.5 ** (step / 10)


def main() -> None:
    params: Params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
    xs = jnp.linspace(0.0, 1.0, 5 * 4 * 3).reshape(5, 4, 3)
    schedule: gradtx.Schedule = gradtx.warmup_linear_decay_schedule(0.0, 3e-2, warmup_steps=2, decay_steps=10)
    first = schedule(0)
    assert float(first) == 0.0
    for rate in (schedule, halved):
        new, state, losses = train(optimizer(rate), params, xs)
        assert losses.shape == (5,) and new["kernel"].shape == (3, 2)
        assert gradtx.step_count(state) == 5

    def started(learning_rate: jax.Array) -> gradtx.OptState:
        return gradtx.adamw(learning_rate).init(params)

    states = jax.vmap(started)(jnp.logspace(-4, -1, 3))
    assert gradtx.hyperparams(states)["learning_rate"].shape == (3,)

    one: gradtx.TransformUpdateFn = optimizer(1e-2).update
    _, grads = jax.value_and_grad(loss)(params, xs[0])
    updates, _ = one(grads, optimizer(1e-2).init(params), params)
    assert updates["bias"].shape == (2,)

    init, update = gradtx.sgd(0.1, momentum=0.9, nesterov=True)
    updates, _ = update(grads, init(params), params)

    def value_and_grad(params: Params, x: jax.Array) -> tuple[jax.Array, Params]:
        return jax.value_and_grad(loss)(params, x)

    value, mean = gradtx.accumulate_gradients(value_and_grad, 2)(params, xs[0])
    new = gradtx.apply_updates(params, mean)
    assert float(value) > 0 and new["bias"].dtype == jnp.float32


if __name__ == "__main__":
    main()
