"""How far float32 drifts from float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

STEPS = 100
BOUND = 2e-6


def second_moment(b2, grads):
    """Adam's second moment after every gradient, in float32."""
    tx = gradtx.scale_by_adam(b2=b2)

    @jax.jit
    def run(state, grads):
        def body(state, g):
            return tx.update(g, state)[1], None

        return jax.lax.scan(body, state, grads)[0]

    state = run(tx.init(jnp.zeros(grads.shape[1:], jnp.float32)), grads)
    return np.asarray(state["slots"]["scale_by_adam"]["nu"], np.float64)


@pytest.mark.parametrize("b2", [0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999])
def test_the_second_moment_does_not_drift(b2):
    grads = np.random.default_rng(0).normal(size=(STEPS, 50)).astype(np.float32)
    nu = np.zeros(grads.shape[1:])
    for g in grads.astype(np.float64):
        nu = b2 * nu + (1 - b2) * g**2
    actual = second_moment(b2, jnp.asarray(grads))
    assert np.max(np.abs(actual / nu - 1)) <= BOUND
