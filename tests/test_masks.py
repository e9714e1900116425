"""Masks: every form of saying which leaves, and what becomes of the others."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradtx

PARAMS = {
    "embed": {"table": jnp.ones((3, 2))},
    "layers": [
        {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    ],
}
PATHS = ["embed/table", "layers/0/bias", "layers/0/kernel", "layers/1/bias", "layers/1/kernel"]
KERNELS = {"layers/0/kernel", "layers/1/kernel"}
BOOLS = jax.tree.map(lambda p: False, PARAMS)


def leaves(tree):
    return dict(zip(PATHS, jax.tree.leaves(tree), strict=True))


def doubled(mask, **kwargs):
    """The paths of the leaves that `masked(scale(2))` doubles."""
    tx = gradtx.masked(gradtx.scale(2.0), mask, **kwargs)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    return {path for path, u in leaves(updates).items() if float(u.ravel()[0]) == 2.0}


TREE = {
    "embed": {"table": False},
    "layers": [{"kernel": True, "bias": False}, {"kernel": True, "bias": False}],
}

FORMS = {
    "a tree": (TREE, KERNELS),
    "a tree of numpy bools": (jax.tree.map(np.bool_, TREE), KERNELS),
    "a prefix of the tree": ({"embed": False, "layers": [True, False]}, {"layers/0/kernel", "layers/0/bias"}),
    "True": (True, set(PATHS)),
    "False": (False, set()),
    "a predicate of path and leaf": (lambda path, leaf: path.endswith("kernel") and leaf.ndim == 2, KERNELS),
    "a function of the parameters": (lambda p: jax.tree.map(lambda x: x.shape == (2, 2), p), KERNELS),
    "a partial function": (
        functools.partial(lambda suffix, path, leaf: path.endswith(suffix), "kernel"),
        KERNELS,
    ),
    "a pattern": ("*/kernel", KERNELS),
    "an excluding pattern": ("!*bias", KERNELS | {"embed/table"}),
    "several patterns": (("embed/*", "layers/0/*"), {"embed/table", "layers/0/kernel", "layers/0/bias"}),
    "patterns to include and exclude": (("layers/*", "!*bias", "!*/1/*"), {"layers/0/kernel"}),
}


@pytest.mark.brief
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_mask(form):
    mask, expected = FORMS[form]
    assert doubled(mask) == expected


@pytest.mark.parametrize("form", FORMS)
def test_the_mask_argument_of_a_rule_takes_every_form(form):
    mask, expected = FORMS[form]
    tx = gradtx.add_decayed_weights(1.0, mask)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert {path for path, u in leaves(updates).items() if float(u.ravel()[0]) == 2.0} == expected


def test_outside_pass_leaves_the_others_as_they_came():
    tx = gradtx.masked(gradtx.scale(2.0), "*/kernel")
    updates = leaves(tx.update(PARAMS, tx.init(PARAMS))[0])
    assert {path for path, u in updates.items() if float(u.ravel()[0]) == 1.0} == set(PATHS) - KERNELS


def test_outside_zero_makes_the_others_zero_also_where_they_are_nan():
    tx = gradtx.masked(gradtx.scale(2.0), "*/kernel", outside="zero")
    grads = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), PARAMS)
    updates = leaves(tx.update(grads, tx.init(PARAMS))[0])
    assert {path for path, u in updates.items() if not u.any()} == set(PATHS) - KERNELS


def test_the_others_cost_no_state():
    state = gradtx.masked(gradtx.adam(0.1), "*/kernel").init(PARAMS)
    slots = state["slots"]["scale_by_adam"]
    assert len(jax.tree.leaves(slots)) == 2 * len(KERNELS)
    assert slots["mu"]["embed"]["table"] is None


def test_freezing_by_outside_zero_costs_no_state_and_moves_nothing():
    tx = gradtx.masked(gradtx.adamw(0.1), "embed/*", outside="zero")
    params, state = gradtx.apply_gradients(tx, PARAMS, tx.init(PARAMS), PARAMS)
    assert len(jax.tree.leaves(state["slots"])) == 2
    moved = leaves(jax.tree.map(lambda a, b: bool((a != b).any()), params, PARAMS))
    assert {path for path, m in moved.items() if m} == {"embed/table"}


def test_nested_masks_intersect():
    inner = gradtx.masked(gradtx.scale(2.0), "layers/*")
    tx = gradtx.masked(inner, "*bias")
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    assert {p for p, u in leaves(updates).items() if float(u.ravel()[0]) == 2.0} == {
        "layers/0/bias",
        "layers/1/bias",
    }


def test_a_recipe_with_a_mask_inside_a_mask():
    tx = gradtx.masked(gradtx.chain(gradtx.add_decayed_weights(1.0, "!*bias")), "layers/*")
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert {p for p, u in leaves(updates).items() if float(u.ravel()[0]) == 2.0} == KERNELS


def test_a_measure_sees_the_included_leaves_alone():
    tx = gradtx.masked(gradtx.clip_by_global_norm(1.0), "embed/*")
    updates = leaves(tx.update(PARAMS, tx.init(PARAMS))[0])
    np.testing.assert_allclose(updates["embed/table"], 1 / np.sqrt(6), rtol=1e-6)
    assert float(updates["layers/0/bias"][0]) == 1.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Module:
    """A model that is a callable pytree, as Equinox's are; `activation` is `None` in its gradients."""

    weight: object
    bias: object

    def __call__(self, x):
        return x @ self.weight + self.bias


def test_a_callable_tree_of_bools_is_a_tree():
    model = Module(jnp.ones((2, 2)), jnp.ones(2))
    tx = gradtx.masked(gradtx.scale(2.0), Module(True, False))
    updates, _ = tx.update(model, tx.init(model))
    assert (float(updates.weight[0, 0]), float(updates.bias[0])) == (2.0, 1.0)


def test_a_function_may_give_a_callable_tree():
    model = Module(jnp.ones((2, 2)), jnp.ones(2))
    tx = gradtx.adamw(0.1, weight_decay=1.0, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
    zero = jax.tree.map(jnp.zeros_like, model)
    updates, _ = tx.update(zero, tx.init(model), model)
    assert float(updates.weight[0, 0]) == -np.float32(0.1)
    assert float(updates.bias[0]) == 0.0


def test_a_none_leaf_is_no_leaf_to_a_mask():
    model = Module(jnp.ones((2, 2)), None)
    for mask in (Module(True, None), Module(True, True), lambda path, leaf: leaf.ndim > 1, "weight"):
        tx = gradtx.masked(gradtx.adam(0.1), mask)
        updates, state = tx.update(model, tx.init(model))
        assert updates.bias is None
        assert len(jax.tree.leaves(state["slots"])) == 2


@pytest.mark.parametrize("dtype", [jnp.int32, bool])
def test_an_integer_leaf_may_be_masked_out(dtype):
    params = {"w": jnp.ones(2), "ids": jnp.ones(2, dtype)}
    tx = gradtx.masked(gradtx.adam(0.1), lambda path, leaf: jnp.issubdtype(leaf.dtype, jnp.floating))
    grads = jax.grad(lambda p: (p["w"] * p["ids"].astype(jnp.float32)).sum(), allow_int=True)(params)
    moved, state = gradtx.apply_gradients(tx, grads, tx.init(params), params)
    assert (moved["ids"] == params["ids"]).all() and moved["ids"].dtype == dtype
    assert (moved["w"] != params["w"]).all()
    assert state["slots"]["scale_by_adam"]["mu"]["ids"] is None


def test_the_paths_of_an_nnx_state_are_the_variables():
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    seen = []

    def mask(path, leaf):
        seen.append(path)
        return path == "kernel"

    params = nnx.state(model, nnx.Param)
    gradtx.masked(gradtx.adam(0.1), mask).init(params)
    assert set(seen) == {"kernel", "bias"}


@pytest.mark.parametrize("mask", ["kernel", "!bias", ("*kernel",)])
def test_patterns_select_variables_of_an_nnx_model(mask):
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, gradtx.masked(gradtx.sgd(0.1), mask, outside="zero"), wrt=nnx.Param)
    before = jax.tree.map(jnp.copy, nnx.state(model))
    optimizer.update(model, nnx.grad(lambda m: m(jnp.ones((1, 2))).sum())(model))
    assert (model.kernel[...] != before["kernel"][...]).all()
    assert (model.bias[...] == before["bias"][...]).all()


def test_masks_make_transforms_different_but_not_recompile_their_leaves():
    a, b = gradtx.adamw(0.1, mask="*kernel"), gradtx.adamw(0.1, mask="*bias")
    assert a != b
    assert a == gradtx.adamw(0.1, mask="*kernel")
