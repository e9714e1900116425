"""Optax: gradtx's transforms inside Optax's combinators, and Optax's inside `gradtx.chain`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from needy import Needy
from trajectories import x64

PARAMS = {"w": np.array([[1.0, -2.0], [0.5, 3.0]]), "bias": np.array([0.25, -1.0])}
GRADS = [jax.tree.map(lambda p, s=s: np.sin(3 * p + s), PARAMS) for s in (0.0, 1.0, 2.0, 3.0)]


@pytest.fixture(autouse=True)
def settings():
    """Float64, where Optax rounds no decay, and standard promotion: it does not run under the strict one."""
    with jax.numpy_dtype_promotion("standard"), x64():
        yield


def final(tx, steps=4, **extra):
    """The parameters after some steps, compiled."""

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for grads in GRADS[:steps]:
        params, state = step(params, state, grads)
    return params


def assert_same(ours, theirs, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), ours, theirs)


def adamw(library):
    return library.adamw(0.1, weight_decay=0.1)


COMBINATORS = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(0.5), tx, optax.scale(0.5)),
    "named_chain": lambda tx: optax.named_chain(("clip", optax.clip(0.5)), ("rest", tx)),
    "masked": lambda tx: optax.masked(tx, {"w": True, "bias": False}),
    "partition": lambda tx: optax.partition({"a": tx, "b": optax.set_to_zero()}, {"w": "a", "bias": "b"}),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
    "with_extra_args_support": optax.with_extra_args_support,
    "GradientTransformation": lambda tx: optax.GradientTransformation(*tx),
    "GradientTransformationExtraArgs": lambda tx: optax.GradientTransformationExtraArgs(*tx),
}


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("combinator", COMBINATORS)
def test_inside_optaxs_combinators_it_equals_optaxs_own(combinator):
    wrap = COMBINATORS[combinator]
    assert_same(final(wrap(adamw(gradtx))), final(wrap(adamw(optax))))


@pytest.mark.brief
def test_optax_inside_a_chain_equals_optax():
    ours = gradtx.chain(
        optax.clip_by_global_norm(0.5), optax.scale_by_adam(), gradtx.scale_by_learning_rate(0.1)
    )
    theirs = optax.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam(), optax.scale(-0.1))
    assert_same(final(ours), final(theirs))


def test_optax_inside_masked_equals_optaxs_masked():
    mask = {"w": True, "bias": False}
    ours = gradtx.chain(gradtx.masked(optax.adam(0.1), mask), gradtx.scale(0.5))
    theirs = optax.chain(optax.masked(optax.adam(0.1), mask), optax.scale(0.5))
    assert_same(final(ours), final(theirs))


BF16 = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)


@pytest.mark.parametrize("moments", [None, jnp.bfloat16])
def test_an_optax_state_inside_a_chain_keeps_its_dtypes(moments):
    """Optax's own moments turn to float32 at the first update with float32 gradients (its issue 1207)."""
    tx = gradtx.chain(optax.adam(0.1, mu_dtype=moments), gradtx.scale(0.5))
    state = tx.init(BF16)

    def kinds(x):
        return jax.tree.map(lambda a: (a.shape, a.dtype, a.weak_type), x)

    _, after = jax.jit(tx.update)(GRADS[0], state, BF16)
    assert kinds(after) == kinds(state)
    assert state["slots"]["foreign"][0].mu["w"].dtype == jnp.bfloat16


def test_a_scan_over_an_optax_transform_inside_a_chain():
    tx = gradtx.chain(optax.scale_by_adam(), gradtx.scale(-0.1))
    grads = jax.tree.map(lambda *g: jnp.stack(g), *GRADS)
    state, _ = jax.lax.scan(lambda s, g: tx.update(g, s, BF16)[::-1], tx.init(BF16), grads)
    assert gradtx.step_count(state) == 4


def test_optax_gets_the_dtypes_that_its_user_sees():
    seen = []

    def update(updates, state, params=None):
        seen.append((updates.dtype, params.dtype))
        return updates, state

    spy = optax.GradientTransformation(lambda params: (), update)
    tx = gradtx.chain(gradtx.scale(0.5), spy, gradtx.scale(2.0))
    p = jnp.ones(2, jnp.bfloat16)
    updates, _ = tx.update(p, tx.init(p), p)
    assert seen == [(jnp.bfloat16, jnp.bfloat16)]
    assert updates.dtype == jnp.bfloat16


def test_keyword_arguments_reach_an_optax_transform_inside_a_chain():
    tx = gradtx.chain(optax.scale_by_polyak(), gradtx.scale(-1.0))
    theirs = optax.chain(optax.scale_by_polyak(), optax.scale(-1.0))
    assert_same(final(tx, value=jnp.float32(2.0)), final(theirs, value=jnp.float32(2.0)))


def test_a_missing_keyword_argument_names_both_and_the_wrap():
    tx = gradtx.chain(optax.scale_by_polyak(), gradtx.scale(-1.0))
    with pytest.raises(TypeError, match=r"^optax\.scale_by_polyak \(foreign\) needs .*=\.\.\."):
        tx.update(GRADS[0], tx.init(PARAMS), PARAMS)


def test_optaxs_chain_drops_keyword_arguments_and_the_error_says_how_to_wrap():
    tx = optax.chain(Needy(), optax.scale(1.0))
    with pytest.raises(
        TypeError, match=r"needy needs .*'value'.*optax.GradientTransformationExtraArgs\(\*tx\)"
    ):
        tx.update(GRADS[0], tx.init(PARAMS), PARAMS, value=jnp.float32(0.5))


def test_the_wrap_lets_keyword_arguments_through_optaxs_chain():
    tx = optax.chain(optax.GradientTransformationExtraArgs(*Needy()), optax.scale(2.0))
    updates, _ = tx.update(GRADS[0], tx.init(PARAMS), PARAMS, value=jnp.float32(0.5))
    assert_same(updates, GRADS[0], rtol=1e-12)


def test_optaxs_and_gradtxs_apply_updates_agree():
    updates = jax.tree.map(lambda g: 0.1 * g, GRADS[0])
    assert_same(gradtx.apply_updates(PARAMS, updates), optax.apply_updates(PARAMS, updates), rtol=0)


def test_apply_gradients_takes_an_optax_transform():
    tx = optax.sgd(0.5)
    params, _ = gradtx.apply_gradients(tx, GRADS[0], tx.init(PARAMS), PARAMS, value=1.0)
    assert_same(params, final(gradtx.sgd(0.5), steps=1), rtol=1e-12)


def test_optaxs_tree_map_params_free_state_can_be_mapped():
    """Optax's `tree_map_params` is not needed: each slot holds the parameters' tree."""
    state = gradtx.adam(0.1).init(PARAMS)
    slots = state["slots"]["scale_by_adam"]
    assert jax.tree.structure(slots["mu"]) == jax.tree.structure(slots["nu"]) == jax.tree.structure(PARAMS)


def test_what_optaxs_own_tests_ask_for():
    """Each was found by running them on gradtx."""
    params, key = {"a": jnp.ones(2), "b": jnp.ones(3)}, jax.random.key(3)
    # A mask of JAX's own bools.
    masked = gradtx.masked(gradtx.sgd(1.0), {"a": jnp.array(True), "b": jnp.array(False)})
    updates, _ = masked.update(params, masked.init(params))
    np.testing.assert_array_equal(updates["a"], -1.0)
    # What is measured, by its name.
    measured = gradtx.chain(
        gradtx.snapshot("before", gradtx.global_norm), gradtx.monitor({"after": gradtx.global_norm})
    )
    _, state = measured.update(params, measured.init(params))
    for name in ("before", "after"):
        np.testing.assert_allclose(gradtx.tree.get(state, name), np.sqrt(5), rtol=1e-6)

    # A typed key as an argument of a user's factory.
    def noisy(rate, key):
        return gradtx.stateless(lambda updates, params: jax.tree.map(lambda u: -rate * u, updates))

    injected = gradtx.inject_hyperparams(noisy)(rate=0.5, key=key)
    updates, _ = injected.update(params, injected.init(params), params)
    np.testing.assert_array_equal(updates["a"], -0.5)
    # The keyword that is missing is said before the tree that is another.
    with pytest.raises(TypeError, match="needs the keyword argument 'value'"):
        gradtx.scale_by_polyak().update(params, gradtx.scale_by_polyak().init(params), jnp.ones(2))
    # Polyak's step of a loss that is as long as the squared gradient is the gradient.
    grads = jnp.array([0.3, -0.7, 1.1])
    tx = gradtx.scale_by_polyak()
    value = (grads * grads).sum()
    np.testing.assert_allclose(tx.update(grads, tx.init(grads), grads, value=value)[0], grads, rtol=2e-7)
