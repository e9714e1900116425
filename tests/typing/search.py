"""L-BFGS with its line search in a loop of one's own, and `minimize`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import gradtx

Carry = tuple[jax.Array, gradtx.OptState]


def rosenbrock(x: jax.Array) -> jax.Array:
    return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def main() -> None:
    tx = gradtx.lbfgs()
    value_and_grad = gradtx.value_and_grad_from_state(rosenbrock)

    def step(carry: Carry, _: None) -> tuple[Carry, jax.Array]:
        x, state = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=rosenbrock)
        return (gradtx.apply_updates(x, updates), state), value

    x = jnp.array([-1.0, 1.0])
    (x, _), values = jax.lax.scan(step, (x, tx.init(x)), None, length=40)
    assert values.shape == (40,)
    assert float(rosenbrock(x)) < 1e-6

    def quadratic(params: dict[str, jax.Array]) -> jax.Array:
        return jnp.sum((params["w"] - 3.0) ** 2)

    best, history = gradtx.minimize(quadratic, {"w": jnp.zeros(2)}, gradtx.adam(0.1), steps=200)
    losses: jax.Array = history["loss"]
    assert losses.shape == (200,) and abs(float(best["w"][0]) - 3.0) < 0.1


if __name__ == "__main__":
    main()
