"""How far float32 drifts from float64."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.numerics import Decay, divide, divide_again, sign

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
    np.testing.assert_array_equal(jax.jit(lambda x, a, b: divide_again(divide(x, a), b))(x, none, none), 0)
    np.testing.assert_array_equal(jax.jit(lambda x, a: sign(divide(x, a)))(x, none), 0)
    unchanged = jax.jit(lambda x, a, b: divide_again(divide(x, a), b))(x + 1, none + 2, none + 4)
    np.testing.assert_allclose(unchanged, 0.125)


ASK_FOR_MORE = {
    "scale_by_backtracking_linesearch",
    "scale_by_group",
    "scale_by_leaf",
    "scale_by_polyak",
    "scale_by_schedule",
    "scale_by_sophia",
    "scale_by_zoom_linesearch",
}
"""Transforms that need a loss, a table, a function or a schedule."""

DIRECTIONS = sorted(
    name
    for name in gradtx.__all__
    if name.startswith(("scale_by_", "normalize", "debias", "clip")) and name not in ASK_FOR_MORE
)


@jax.numpy_dtype_promotion("standard")
@pytest.mark.parametrize("name", DIRECTIONS)
def test_no_eps_is_needed_for_a_zero_gradient_behind_another_rescaling(name):
    """Both denominators are the least number there is."""
    factory = getattr(gradtx, name)
    least = {"eps": 1e-38 if name in ("scale_by_cocob", "scale_by_dowg") else 0.0, "eps_root": 0.0}
    parameters = inspect.signature(factory).parameters.items()
    numbers = {key: 0.1 for key, p in parameters if p.default is inspect.Parameter.empty}
    numbers |= {key: least[key] for key, _ in parameters if key in least}
    tx, g = gradtx.chain(gradtx.scale_by_rss(0.0, eps=0.0), factory(**numbers)), jnp.zeros((2, 3))
    updates = jax.jit(lambda g: tx.update(g, tx.init(g), g)[0])(g)
    assert np.isfinite(updates).all()


def test_a_ratio_of_a_rescaled_zero_gradient_is_zero():
    size = gradtx.chain(gradtx.square(), gradtx.sqrt())
    tx, g = (
        gradtx.chain(gradtx.scale_by_rss(0.0, eps=0.0), gradtx.ratio(gradtx.identity(), size)),
        jnp.zeros(3),
    )
    np.testing.assert_array_equal(jax.jit(lambda g: tx.update(g, tx.init(g))[0])(g), 0)


def test_what_is_not_a_number_stays_so():
    assert np.isnan(divide(jnp.array([1.0, jnp.nan]), jnp.array([jnp.nan, 0.0]))).all()
