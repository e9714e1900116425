"""How large the compiled step of an optimizer is for each leaf, counted against Optax's."""

import re

import jax
import numpy as np
import optax
import pytest

import gradtx

SETTINGS = {
    "adam": {},
    "adamw": {"weight_decay": 0.1},
    "lion": {"weight_decay": 0.1},
    "sgd": {"momentum": 0.9},
}


def counts(library, name, leaves):
    """The loops over leaves of a compiled, donated step, what they read, and the copies that it makes."""
    tx = getattr(library, name)(0.1, **SETTINGS[name])
    params = {str(i): jax.ShapeDtypeStruct((37,), np.float32) for i in range(leaves)}

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return library.apply_updates(params, updates), state

    with jax.numpy_dtype_promotion("standard"):  # Optax mixes dtypes
        state = jax.eval_shape(tx.init, params)
        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params)
    text = lowered.compile().as_text() or ""
    entry = text[text.index("ENTRY") :]
    loops = re.findall(r"= f32\[37\]\S* fusion\(([^)]*)\)", entry)
    read = sum(len(operands.split(",")) for operands in loops)
    return np.array([len(loops), read, len(re.findall(r"= f32\[37\]\S* copy\(", entry))])


@pytest.mark.wide
@pytest.mark.parametrize("name", SETTINGS)
def test_a_leaf_more_adds_no_more_loops_and_copies_than_in_optax(name):
    ours, theirs = (counts(library, name, 3) - counts(library, name, 2) for library in (gradtx, optax))
    assert ours[0] == theirs[0] > 0
    # All numbers of the optimizer come to a loop as one vector, whatever their number is.
    assert ours[1] <= theirs[1] + ours[0]
    assert ours[2] <= theirs[2]
