"""Sophia and its estimate of the Hessian, in what a trajectory does not show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

MIX = jnp.array([[2.0, 0.5, -0.3], [0.5, 1.0, 0.2], [-0.3, 0.2, 3.0]])


def coupled(params):
    """A loss whose Hessian is not diagonal, over two leaves."""
    x = jnp.append(params["w"], params["b"])
    return x @ MIX @ x / 2


PARAMS = {"w": jnp.array([0.3, -0.7]), "b": jnp.array(0.5)}


def test_the_mean_of_many_estimates_is_the_diagonal():
    tx = gradtx.hutchinson_estimator_diag_hessian(3)

    @jax.jit
    def estimates(state):
        def one(state, _):
            found, state = tx.update(PARAMS, state, PARAMS, obj_fn=coupled)
            return state, found

        return jax.lax.scan(one, state, length=4000)[1]

    found = estimates(tx.init(PARAMS))
    np.testing.assert_allclose(found["w"].mean(0), [2.0, 1.0], atol=0.05)
    np.testing.assert_allclose(found["b"].mean(), 3.0, atol=0.05)
    assert found["b"].std() > 0.3


def test_an_estimate_is_made_only_when_it_is_due():
    seen = []

    def estimate(updates, params):
        jax.debug.callback(lambda: seen.append(1))
        return jax.tree.map(jnp.ones_like, updates)

    tx = gradtx.scale_by_sophia(update_interval=4, hessian_diagonal_fn=gradtx.stateless(estimate))
    step = jax.jit(lambda state: tx.update(PARAMS, state, PARAMS)[1])
    state = tx.init(PARAMS)
    for _ in range(9):
        state = step(state)
    jax.effects_barrier()
    assert len(seen) == 3


def test_the_loss_is_seen_through_masks_and_groups():
    """A group's Hessian is that of its own leaves, with the others as they are."""
    estimate = gradtx.scale_by_sophia(b2=0.5, gamma=1.0, estimate_first=True)
    own = gradtx.partition({"second": estimate, "first": gradtx.sgd(0.1)}, {"w": "first", "b": "second"})
    updates, _ = own.update(PARAMS, own.init(PARAMS), PARAMS, obj_fn=coupled)
    # One element alone has its curvature, 3, whatever the sign.
    np.testing.assert_allclose(updates["b"], 0.5 / (0.5 * 3.0), rtol=1e-6)
    np.testing.assert_allclose(updates["w"], -0.1 * PARAMS["w"], rtol=1e-6)


def test_the_interval_can_be_changed_in_the_state():
    tx = gradtx.scale_by_sophia(update_interval=100, hessian_diagonal_fn=gradtx.square())
    state = tx.init(PARAMS)
    _, state = tx.update(PARAMS, state, PARAMS)
    for every, expected in ((100, 1), (3, 2)):
        state = gradtx.set_hyperparams(state, update_interval=every)
        for _ in range(3):
            _, state = tx.update(PARAMS, state, PARAMS)
        assert gradtx.step_count(state["slots"]["scale_by_sophia"]["inner"]) == expected


def test_it_prints_how_much_is_not_clipped(capfd):
    tx = gradtx.scale_by_sophia(
        b1=0.0,
        gamma=1.0,
        b2=0.0,
        hessian_diagonal_fn=gradtx.stateless(lambda updates, params: jax.tree.map(jnp.ones_like, updates)),
        estimate_first=True,
        verbose=True,
        print_win_rate_every_n_steps=2,
    )
    state, grads = tx.init(PARAMS), {"w": jnp.array([0.3, -7.0]), "b": jnp.array(5.0)}
    step = jax.jit(lambda state: tx.update(grads, state, PARAMS)[1])
    for _ in range(5):
        state = step(state)
    jax.effects_barrier()
    printed = capfd.readouterr().out
    assert printed.count("scale_by_sophia: win rate 0.333") == 2


@pytest.mark.parametrize(
    "build, error, words",
    [
        (lambda: gradtx.sophia(0.1, print_win_rate_every_n_steps=-1), ValueError, "must be an int >= 0"),
        (lambda: gradtx.sophia(0.1, update_interval=0), ValueError, "whole number from 1"),
        (lambda: gradtx.sophia(0.1).init(jnp.ones(2, complex)), TypeError, "no meaning for the complex leaf"),
        (
            lambda: gradtx.sophia(0.1).update(PARAMS, gradtx.sophia(0.1).init(PARAMS), PARAMS),
            TypeError,
            "needs the keyword argument 'obj_fn'",
        ),
    ],
)
def test_a_misuse_is_an_error(build, error, words):
    with pytest.raises(error, match=words):
        build()
