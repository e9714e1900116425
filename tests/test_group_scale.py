"""A factor for each group of leaves."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import gradtx
import references
import wrapper_references
from test_groups import TEN, leaves
from test_labels import PARAMS

BY_PART = {"embed": "embed", "layers": "body"}


@pytest.mark.wide
def test_factors_are_hyperparameters_under_their_labels():
    tx = gradtx.chain(
        gradtx.adamw(1e-3),
        gradtx.scale_by_group({"embed": 10.0, "body": gradtx.linear_schedule(0.0, 1.0, 4)}, BY_PART),
    )
    state = tx.init(PARAMS)
    assert set(state["numbers"]["scale_by_group"]) == {"embed", "body"}
    state = gradtx.set_hyperparams(state, **{"scale_by_group.embed": 5.0})
    names = gradtx.hyperparams(state)
    assert names["scale_by_group.embed"] == 5.0 and names["scale_by_group.body"] == 0.0
    assert names["scale_by_group.body.end_value"] == 1.0
    updates, state = tx.update(PARAMS, state, PARAMS)
    np.testing.assert_allclose(updates["embed"]["table"], -5e-3 * (1 + 1e-4), rtol=1e-5)
    assert not jax.tree.leaves(updates["layers"])[0].any()
    assert gradtx.hyperparams(state)["scale_by_group.body"] == 0.25


def test_a_factor_that_is_an_argument_of_a_recipe_belongs_to_the_recipe():
    @gradtx.recipe
    def tuned(learning_rate: gradtx.ScalarOrSchedule, head_factor: gradtx.ScalarOrSchedule = 10.0):
        return gradtx.chain(
            gradtx.sgd(learning_rate), gradtx.scale_by_group({"embed": head_factor, "body": 1.0}, BY_PART)
        )

    tx = tuned(0.1)
    state = gradtx.set_hyperparams(tx.init(PARAMS), head_factor=2.0)
    others = {"scale_by_group.body": 1.0, "learning_rate": 0.1}
    assert gradtx.hyperparams(state) == {**others, "head_factor": 2.0}
    updates, _ = tx.update(PARAMS, state)
    np.testing.assert_allclose(
        [updates["embed"]["table"][0, 0], updates["layers"][0]["bias"][0]], [-0.2, -0.1], rtol=1e-6
    )


def reference_by_part(of_embed, of_body):
    return wrapper_references.Partition(
        {"embed": of_embed, "body": of_body}, lambda path, leaf: "embed" if leaf.shape == (3, 2) else "body"
    )


def follows(tx, reference, rtol=2e-5):
    expected = references.run(reference, leaves(PARAMS), [leaves(g) for g in TEN])
    params, state = PARAMS, tx.init(PARAMS)
    for grads, wanted in zip(TEN, expected, strict=True):
        params, state = gradtx.apply_gradients(tx, grads, state, params)
        for a, b in zip(jax.tree.leaves(params), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


@pytest.mark.wide
def test_scaled_adamw_is_an_adamw_for_each_group():
    tx = gradtx.chain(
        gradtx.adamw(0.01, weight_decay=0.3), gradtx.scale_by_group({"embed": 10.0, "body": 0.5}, BY_PART)
    )
    follows(
        tx,
        reference_by_part(references.Adamw(0.1, weight_decay=0.3), references.Adamw(0.005, weight_decay=0.3)),
    )


@pytest.mark.wide
def test_a_decay_and_a_rate_for_each_group_around_one_adam():
    """As the docstring of `scale_by_group` puts it together."""
    tx = gradtx.chain(
        gradtx.scale_by_adam(),
        gradtx.partition(
            {"embed": gradtx.add_decayed_weights(0.01), "body": gradtx.add_decayed_weights(0.3)}, BY_PART
        ),
        gradtx.scale_by_learning_rate(0.01),
        gradtx.scale_by_group({"embed": 10.0, "body": 1.0}, BY_PART),
    )
    follows(
        tx,
        reference_by_part(references.Adamw(0.1, weight_decay=0.01), references.Adamw(0.01, weight_decay=0.3)),
    )
