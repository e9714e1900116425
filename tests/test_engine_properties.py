"""Properties of the engine over random trees and random chains of transforms."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradtx
from catalogue import ENTRIES
from gradtx.core.engine import kernels
from trajectories import x64

# Compiling takes most of the time, so that the shapes are few and leaves of one shape share a program.
SHAPES = [((2,), np.float32), ((), np.float32), ((0, 3), np.float32), ((2,), np.complex64)]


def array(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return jnp.asarray((x + 1j * rng.normal(size=shape) if dtype is np.complex64 else x).astype(dtype))


leaves = st.one_of(
    st.none(),
    st.builds(lambda kind, seed: array(*kind, seed), st.sampled_from(SHAPES), st.integers(0, 99)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    ),
    max_leaves=6,
).filter(lambda tree: tree is not None)  # parameters of None are no parameters

LOCAL = [
    gradtx.scale(-0.5),
    gradtx.trace(0.9),
    gradtx.scale_by_adam(b1=0.5),
    gradtx.add_decayed_weights(0.1),
    gradtx.ema(0.9),
    gradtx.clip_by_block_rms(0.5),
    gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 3)),
]
WIDE = [gradtx.clip_by_global_norm(0.5)]
local_chains = st.lists(st.sampled_from(LOCAL), max_size=2)
chains = st.lists(st.sampled_from(LOCAL + WIDE), max_size=2)

quick = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


def gradients(params, step):
    return jax.tree.map(lambda p: (p * (0.5 + step)).astype(p.dtype), params)


def run(tx, params, steps=2):
    """The updates and the state of each step."""
    state, results = tx.init(params), []
    for step in range(steps):
        updates, state = tx.update(gradients(params, step), state, params)
        results.append((updates, state))
    return results


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.wide
@quick
@given(chains, chains, chains, trees)
def test_nested_chains_flatten(a, b, c, params):
    nested = gradtx.chain(gradtx.chain(*a, gradtx.chain(*b)), *c)
    flat = gradtx.chain(*a, *b, *c)
    assert nested == flat
    assert repr(nested) == repr(flat)
    assert_same(run(nested, params), run(flat, params))


@pytest.mark.wide
@quick
@given(local_chains, trees, trees)
def test_a_leaf_does_not_depend_on_its_neighbours(members, one, other):
    tx = gradtx.chain(*members)
    together = run(tx, {"one": one, "other": other})
    alone = run(tx, one)
    for (a, _), (b, _) in zip(together, alone, strict=True):
        assert_same(a["one"], b)


@pytest.mark.wide
@quick
@given(chains, trees)
def test_the_state_keeps_its_structure_dtypes_and_shapes(members, params):
    tx = gradtx.chain(*members)

    def kinds(state):
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)

    for updates, state in run(tx, params):
        assert kinds(state) == kinds(tx.init(params))
        assert jax.tree.map(lambda u: u.dtype, updates) == jax.tree.map(lambda p: p.dtype, params)


@quick
@given(trees, st.sampled_from([-2.0, 0.5, 4.0]))
def test_scale_is_linear(params, factor):
    tx = gradtx.scale(factor)
    ((updates, _),) = run(tx, params, steps=1)
    assert_same(updates, jax.tree.map(lambda g: jnp.asarray(factor, g.dtype) * g, gradients(params, 0)))


@pytest.mark.wide
@quick
@given(chains, trees)
def test_a_mask_of_all_is_no_mask_and_a_mask_of_none_is_the_identity(members, params):
    tx = gradtx.chain(*members)
    assert_same(run(gradtx.masked(tx, True), params), run(tx, params))
    for step, (updates, state) in enumerate(run(gradtx.masked(tx, False), params)):
        assert_same(updates, gradients(params, step))
        assert jax.tree.leaves(state["slots"]) == []


@pytest.mark.wide
@quick
@given(chains, trees)
def test_a_named_chain_is_a_chain_in_numbers(members, params):
    named = gradtx.named_chain(*((f"part{i}", tx) for i, tx in enumerate(members)))
    for (a, _), (b, _) in zip(run(named, params), run(gradtx.chain(*members), params), strict=True):
        assert_same(a, b)


@pytest.mark.wide
@quick
@given(chains, trees)
def test_apply_gradients_is_update_and_apply(members, params):
    tx = gradtx.chain(*members)
    state, grads = tx.init(params), gradients(params, 0)
    updates, expected = tx.update(grads, state, params)
    moved, after = gradtx.apply_gradients(tx, grads, state, params)
    assert_same(after, expected)
    assert jax.tree.structure(moved) == jax.tree.structure(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
        moved,
        gradtx.apply_updates(params, updates),
    )


@quick
@given(trees)
def test_leaves_are_named_by_distinct_paths(params):
    seen = []
    gradtx.masked(gradtx.scale(1.0), lambda path, leaf: seen.append(path) is None).init(params)
    assert len(set(seen)) == len(seen) == len(jax.tree.leaves(params))


@quick
@given(chains, trees)
def test_the_repr_of_a_chain_rebuilds_it(members, params):
    tx = gradtx.chain(*members)
    scope = {name: getattr(gradtx, name) for name in gradtx.__all__}
    assert eval(repr(tx), scope) == tx


def test_stages_that_differ_in_the_dtype_of_the_result_are_different():
    """numpy says that the dtype float64 equals None, which once took a middle stage for the last one."""
    middle = kernels.Packing(None, jax.tree.structure(()), ())
    last = dataclasses.replace(middle, finish=np.dtype("float64").name)
    assert middle != last and hash(middle) != hash(last)


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_numbers_may_be_wider_than_the_leaves(name):
    """With 64 bits enabled numbers are float64; leaves, and what is measured on them, may be narrower."""
    entry = ENTRIES[name]
    with x64():
        tx, p = entry.transform(), jnp.ones((2, 3), jnp.float32)
        state = tx.init(p)
        for g in (p, None):
            update, new = jax.eval_shape(lambda g, state: tx.update(g, state, p, **entry.extra), g, state)
            assert [x.dtype for x in jax.tree.leaves(new)] == [x.dtype for x in jax.tree.leaves(state)]
            assert (update is None) if g is None else (update.dtype == jnp.float32)
