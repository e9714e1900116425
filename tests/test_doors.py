"""Libraries that ask for Optax's class take what `to_optax` gives."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

DATA = np.array([0.3, 1.2, 0.7, -0.4, 2.0], np.float32)


@pytest.fixture(autouse=True)
def settings():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def svi(optim):
    """NumPyro's variational inference of a mean."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import numpyro
        from numpyro import distributions, infer

    def model(data):
        mean = numpyro.sample("mean", distributions.Normal(0.0, 1.0))
        numpyro.sample("data", distributions.Normal(mean, 1.0), obs=data)

    return infer.SVI(model, infer.autoguide.AutoNormal(model), optim, infer.Trace_ELBO())


@pytest.mark.wide
def test_numpyro_refuses_what_is_not_optaxs_class():
    """That is why there is `to_optax`."""
    with pytest.raises(TypeError, match=r"Expected either an instance of .*optax\.GradientTransformation"):
        svi(gradtx.adam(1e-2))


@pytest.mark.wide
def test_numpyros_svi_runs_as_with_optax():
    key = jax.random.key(0)
    ours, theirs = (
        svi(optim).run(key, 60, DATA, progress_bar=False)
        for optim in (gradtx.to_optax(gradtx.adam(1e-2)), optax.adam(1e-2))
    )
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-4)
    assert ours.losses[-10:].mean() < ours.losses[:10].mean()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), ours.params, theirs.params)


@pytest.mark.wide
def test_numpyros_state_reads_as_gradtxs():
    fit = svi(gradtx.to_optax(gradtx.adam(gradtx.linear_schedule(1e-2, 0.0, 10))))
    state = fit.init(jax.random.key(0), DATA)
    state, _ = jax.jit(fit.update)(state, DATA)
    assert gradtx.hyperparams(state.optim_state)["learning_rate"] == 0.009
    assert gradtx.step_count(state.optim_state) == 1


def needy_update(updates, state, params=None, *, value):
    return jax.tree.map(lambda u: u * value, updates), state


def test_what_to_optax_gives_is_optaxs_and_takes_keyword_arguments():
    needy = gradtx.GradientTransformation(lambda params: (), needy_update)
    tx = optax.chain(gradtx.to_optax(gradtx.chain(needy, gradtx.scale(2.0))), optax.scale(0.5))
    updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2), value=3.0, other=1.0)
    assert updates.tolist() == [3.0, 3.0]
    assert gradtx.to_optax(tx) is tx


def test_to_optax_takes_a_transform():
    with pytest.raises(TypeError, match=r"to_optax takes transforms, .* Call it: adam\(\.\.\.\)"):
        gradtx.to_optax(gradtx.adam)


def test_a_transform_is_no_tuple():
    """Optax's class is a tuple: what claimed to be one would be taken apart by all that walks trees."""
    tx = gradtx.adam(1e-2)
    assert not isinstance(tx, tuple)
    assert jax.tree.leaves(tx) == [tx]
