"""One Inf or NaN in one leaf of one step, for each wrapper around each optimizer of the catalogue."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from catalogue import ENTRIES, axes_or_none, has_axes
from gradtx import testing

OPTIMIZERS = [entry.name for entry in ENTRIES.values() if entry.kind == "optimizer"]
LEAVING_OUT = {
    "accumulate": lambda tx: gradtx.accumulate(tx, 2, non_finite="skip"),
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 2, should_skip_update_fn=gradtx.skip_not_finite),
    "guard": gradtx.guard,
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 5),
    "conditionally_mask": lambda tx: gradtx.conditionally_mask(tx, is_good, forward_extra_args=True),
}
PASSING = {
    "ema_params": lambda tx: gradtx.ema_params(tx, 0.9),
    "polyak_average": gradtx.polyak_average,
    "lookahead": lambda tx: gradtx.lookahead(tx, 2, 0.5),
    "track": lambda tx: gradtx.track(tx, every=1),
    "masked": lambda tx: gradtx.masked(tx, has_axes),
    "partition": lambda tx: gradtx.partition({"axes": tx, "none": gradtx.sgd(0.1)}, axes_or_none),
    "selective_transform": lambda tx: gradtx.selective_transform(tx, freeze_mask="bias"),
}


def is_good(step, good, **extra):
    return good


def rotated(wrappers):
    """A few pairs, in which each wrapper and each optimizer is; all of them with --full."""
    pairs = list(itertools.product(wrappers, OPTIMIZERS))
    some = set(pairs[:: len(OPTIMIZERS) + 1]) | {
        (list(wrappers)[i % len(wrappers)], name) for i, name in enumerate(OPTIMIZERS)
    }
    return [pair if pair in some else pytest.param(*pair, marks=pytest.mark.full) for pair in pairs]


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("wrapper, optimizer", rotated(LEAVING_OUT))
def test_a_bad_step_leaves_no_trace(wrapper, optimizer):
    """Parameters and the wrapped state are, to the bit, those of a run without it."""
    tx, extra = LEAVING_OUT[wrapper](ENTRIES[optimizer].transform()), ENTRIES[optimizer].extra
    start = testing.example_params()
    good = testing.example_grads(start, steps=4)
    bad = [
        {**good[0], "bias": jnp.float32(np.nan)},
        {**good[0], "kernel": good[0]["kernel"].at[2, 1].set(np.inf)},
        {**good[0], "kernel": good[0]["kernel"].at[0, 0].set(-np.inf)},
    ]

    @jax.jit
    def step(params, state, g):
        finite = jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(g)]).all()
        return gradtx.apply_gradients(tx, g, state, params, good=finite, **extra)

    def end(grads):
        params, state = start, tx.init(start)
        for g in grads:
            params, state = step(params, state, g)
        return params, state["slots"][tx.name]["inner"]

    clean, planted = end(good), end([good[0], bad[0], good[1], bad[1], good[2], bad[2], good[3]])
    jax.tree.map(np.testing.assert_array_equal, planted, clean)


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("wrapper, optimizer", rotated(PASSING))
def test_a_bad_leaf_reaches_no_other(wrapper, optimizer):
    tx = PASSING[wrapper](ENTRIES[optimizer].transform())
    testing.Case(tx, **ENTRIES[optimizer].extra).obeys("nan_stays_in_its_leaf")
