"""How far float32 drifts from float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.numerics import Decay, divide, sign

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


@pytest.mark.by_turns(5)
@pytest.mark.parametrize("b2", [0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999])
def test_the_second_moment_does_not_drift(b2):
    grads = np.random.default_rng(0).normal(size=(STEPS, 50)).astype(np.float32)
    nu = np.zeros(grads.shape[1:])
    for g in grads.astype(np.float64):
        nu = b2 * nu + (1 - b2) * g**2
    actual = second_moment(b2, jnp.asarray(grads))
    assert np.max(np.abs(actual / nu - 1)) <= BOUND


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.999999])
def test_an_average_of_squares_that_has_overflowed_stays_infinite(decay):
    """The digits that 1 - c loses are 0 or negative for some decays, and infinity times them is NaN."""
    mixed = Decay(jnp.float32(1 - decay)).mix(jnp.array([jnp.inf, 4.0, jnp.nan]), jnp.float32(1.0))
    np.testing.assert_allclose(mixed, [np.inf, 4 * decay + (1 - decay), np.nan], rtol=1e-6)


def test_a_decay_of_zero_forgets_all():
    mixed = Decay(jnp.float32(1)).mix(jnp.array([1e30, 500.0, 5.0]), jnp.array([1e-9, 0.0, -0.0]))
    np.testing.assert_array_equal(mixed, np.array([1e-9, 0.0, 0.0], np.float32))
    assert Decay(0.25).mix(4.0, 8.0) == 5.0
    tx = gradtx.scale_by_lion(b1=0.0)
    state = tx.init(jnp.zeros(2))
    _, state = tx.update(jnp.full(2, 500.0), state)
    np.testing.assert_array_equal(tx.update(jnp.zeros(2), state)[0], np.zeros(2))
    moved = gradtx.incremental_update(jnp.zeros(3), jnp.array([5.0, -2.0, 0.5]), 1.0)
    np.testing.assert_array_equal(moved, np.zeros(3))


RESCALING = {
    "scale_by_adam": gradtx.scale_by_adam(),
    "scale_by_stddev": gradtx.scale_by_stddev(0.999),
    "scale_by_factored_rms": gradtx.scale_by_factored_rms(min_dim_size_to_factor=2),
}


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("name", RESCALING)
def test_no_finite_gradient_leads_to_nan(name):
    """Its square overflows; of that element the update may be 0, and the others must go on."""
    tx, ordinary = RESCALING[name], jnp.full((4, 3), 0.5)
    state = tx.init(ordinary)
    for large in (3e19, 0.5, 3e38, 3e38, 0.5):
        updates, state = tx.update(ordinary.at[1, 2].set(large), state)
        assert jnp.isfinite(updates).all()
    assert updates[0, 0] > 0


@jax.numpy_dtype_promotion("standard")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_zero_over_zero_stays_zero_where_another_division_follows(dtype):
    """Of (x / a) / b XLA makes x / (a b), and the product of the least denominators is 0."""
    x, none = jnp.zeros(3, dtype), jnp.zeros(3)
    np.testing.assert_array_equal(jax.jit(lambda x, a, b: divide(divide(x, a), b))(x, none, none), 0)
    np.testing.assert_array_equal(jax.jit(lambda x, a: sign(divide(x, a)))(x, none), 0)
    unchanged = jax.jit(lambda x, a, b: divide(divide(x, a), b))(x + 1, none + 2, none + 4)
    np.testing.assert_allclose(unchanged, 0.125)


def test_two_rescalings_without_eps_keep_a_zero_gradient():
    once = gradtx.scale_by_rss(initial_accumulator_value=0.0, eps=0.0)
    tx, g = gradtx.chain(once, once), jnp.zeros(3)
    np.testing.assert_array_equal(jax.jit(lambda g: tx.update(g, tx.init(g))[0])(g), 0)


def test_what_is_not_a_number_stays_so():
    assert np.isnan(divide(jnp.array([1.0, jnp.nan]), jnp.array([jnp.nan, 0.0]))).all()
