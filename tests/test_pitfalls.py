"""What has hurt the users of today's optimizer libraries: one test for each line of the list, by its number.

Those about wrappers have their number in the name of a test in the wrapper's file: 12, 28 and 35 in
`test_accumulate.py`, 12 and 13 in `test_guards.py`, 19, 20 and 24 in `test_groups.py`, 32 and 35 in
`test_averages.py`. 40 is `test_mutants.py`.

Numbers that concern what gradtx does not have yet, and belong to that work: 14 (SAM, clipping by leaf), 29 to
31 (Muon, second-order methods), 34 (rprop), and parts of 6 (stochastic rounding), 8 (line search, Muon), 18
(reduce_on_plateau), 32 (AMSGrad, acprop) and 36 (sm3).
"""

from __future__ import annotations

import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from counting import compilations

BF16, F16, F32 = jnp.bfloat16, jnp.float16, jnp.float32
PARAMS = {"w": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])}
GRADS = jax.tree.map(lambda p: p + 0.25, PARAMS)

EVERY = {
    "adadelta": gradtx.adadelta(1.0),
    "adafactor": gradtx.adafactor(0.1),
    "adagrad": gradtx.adagrad(0.1),
    "adam": gradtx.adam(0.1),
    "adamw": gradtx.adamw(0.1),
    "lion": gradtx.lion(0.1),
    "nadam": gradtx.nadam(0.1),
    "nadamw": gradtx.nadamw(0.1),
    "noisy_sgd": gradtx.noisy_sgd(0.1),
    "prodigy": gradtx.prodigy(),
    "rmsprop": gradtx.rmsprop(0.1, centered=True, momentum=0.9),
    "sgd": gradtx.sgd(0.1, momentum=0.9),
}
every = pytest.mark.parametrize("name", EVERY)
# The laws run over everything; here a few of each kind show it.
some = pytest.mark.parametrize("name", ["adafactor", "adamw", "prodigy", "sgd"])


def kinds(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def one(tx, g, p=None, steps=1):
    """The last of some updates of one leaf."""
    p = jnp.zeros_like(g) if p is None else p
    state = tx.init(p)
    for _ in range(steps):
        u, state = tx.update(g, state, p)
    return u


def test_01_moments_of_bfloat16_parameters_are_float32_unless_asked():
    slots = gradtx.adam(0.1).init(cast(PARAMS, BF16))["slots"]["scale_by_adam"]
    assert {x.dtype for x in jax.tree.leaves(slots)} == {np.dtype(F32)}
    asked = gradtx.adam(0.1, mu_dtype=BF16, nu_dtype=BF16).init(PARAMS)["slots"]["scale_by_adam"]
    assert {x.dtype for x in jax.tree.leaves(asked)} == {np.dtype(BF16)}


def test_02_b2_is_not_rounded_to_the_parameters_dtype():
    wide, narrow = (one(gradtx.adam(0.1, b2=0.999), jnp.full(2, 0.5, d), steps=3) for d in (F32, BF16))
    np.testing.assert_allclose(narrow.astype(F32), wide, rtol=2**-8)


@pytest.mark.by_turns(2)
@every
def test_03_zero_float16_gradients_are_finite(name):
    zeros = cast(jax.tree.map(jnp.zeros_like, PARAMS), F16)
    tx, params = EVERY[name], cast(PARAMS, F16)
    updates, _ = tx.update(zeros, tx.init(params), params)
    assert all(bool(jnp.isfinite(u).all()) for u in jax.tree.leaves(updates))


@pytest.mark.by_turns(1)
@some
@pytest.mark.parametrize("dtypes", [(BF16, F32), (F32, BF16)], ids=["bf16 params", "bf16 grads"])
def test_04_no_state_drifts_at_the_first_update(name, dtypes):
    tx, params, grads = EVERY[name], cast(PARAMS, dtypes[0]), cast(GRADS, dtypes[1])
    state = tx.init(params)
    _, after = tx.update(grads, state, params)
    assert kinds(after) == kinds(state)


@pytest.mark.by_turns(3)
@some
@pytest.mark.parametrize(
    "rate", [np.float64(0.1), np.float32(0.1), jnp.float32(0.1)], ids=lambda r: type(r).__name__
)
def test_05_a_learning_rate_of_an_array_type_changes_no_dtype(name, rate):
    tx = getattr(gradtx, name)(learning_rate=rate)
    params = cast(PARAMS, BF16)
    updates, _ = tx.update(params, tx.init(params), params)
    assert {u.dtype for u in jax.tree.leaves(updates)} == {np.dtype(BF16)}


def test_06_apply_gradients_rounds_a_bfloat16_parameter_once():
    p, g = jnp.ones(1, BF16), jnp.full(1, -(2.0**-8 + 2.0**-18), F32)
    tx = gradtx.sgd(1.0)
    assert float(gradtx.apply_gradients(tx, g, tx.init(p), p)[0][0]) == 1.0 + 2.0**-7


def test_07_integer_parameters_are_an_error():
    with pytest.raises(TypeError, match="the leaf 'n' is int32"):
        gradtx.sgd(0.1).init({"n": jnp.arange(3)})


def test_08_a_complex_leaf_has_a_real_second_moment():
    z = jnp.array([3.0 + 4.0j], jnp.complex64)
    state = gradtx.adam(0.1, b1=0.0).init(z)
    u, state = gradtx.adam(0.1, b1=0.0).update(z, state)
    assert state["slots"]["scale_by_adam"]["nu"].dtype == F32
    np.testing.assert_allclose(u, -0.1 * z / 5, rtol=1e-5)  # |g|², not each part's own square


@pytest.mark.wide
def test_08_the_sum_rules_of_a_complex_leaf_are_those_of_its_parts():
    z = jnp.array([3.0 + 4.0j, 1.0 - 2.0j], jnp.complex64)
    for tx in (gradtx.sgd(0.1, momentum=0.9), gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1))):
        parts = one(tx, jnp.stack([z.real, z.imag]), steps=2)
        np.testing.assert_allclose(one(tx, z, steps=2), jax.lax.complex(*parts), rtol=1e-6)


def test_09_an_integer_hyperparameter_works_under_jit():
    tx = gradtx.adam(1, b1=0, eps=0)
    u, _ = jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)
    assert u["w"].tolist() == [-1.0, 1.0]


@pytest.mark.wide
def test_10_a_norm_of_many_bfloat16_leaves_is_accumulated_in_float32():
    leaves = [jnp.ones((), BF16)] * 600
    np.testing.assert_allclose(float(gradtx.global_norm(leaves)), np.sqrt(600), rtol=1e-5)


def test_10_a_float16_norm_does_not_overflow():
    u = one(gradtx.clip_by_global_norm(1.0), jnp.full(4, 3e4, F16))
    assert u.tolist() == [0.5] * 4


def test_10_zero_gradients_and_a_zero_bound_give_zero():
    assert one(gradtx.clip_by_global_norm(0.0), jnp.zeros(3)).tolist() == [0.0] * 3


@pytest.mark.by_turns(1)
@some
@pytest.mark.parametrize("bad", [jnp.inf, jnp.nan])
def test_11_one_bad_element_does_not_spread_to_another_leaf(name, bad):
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), EVERY[name])
    grads = {**GRADS, "bias": jnp.array([bad])}
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert bool(jnp.isfinite(updates["w"]).all()) and bool((updates["w"] != 0).all())


def test_12_zero_is_set_not_multiplied():
    bad = jnp.array([jnp.nan, jnp.inf])
    assert one(gradtx.set_to_zero(), bad).tolist() == [0.0, 0.0]
    assert one(gradtx.masked(gradtx.sgd(0.1), False, outside="zero"), bad).tolist() == [0.0, 0.0]


def test_15_a_changed_learning_rate_compiles_nothing():
    tx = gradtx.adam(0.1)
    step, state = jax.jit(tx.update), tx.init(PARAMS)
    state = gradtx.set_hyperparams(state, learning_rate=0.3)
    step(GRADS, state)
    with compilations() as count:
        for rate in (0.2, 0.4):
            step(GRADS, gradtx.set_hyperparams(state, learning_rate=rate))
        assert count() == 0


def test_15_given_and_set_hyperparameters_give_the_same_bits():
    given, tx = gradtx.adamw(0.3, b1=0.8), gradtx.adamw(0.1)
    state = gradtx.set_hyperparams(tx.init(PARAMS), learning_rate=0.3, b1=0.8)
    a, b = tx.update(GRADS, state, PARAMS)[0], given.update(GRADS, given.init(PARAMS), PARAMS)[0]
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_16_there_is_one_count_and_the_learning_rate_is_read_by_its_name():
    tx = gradtx.chain(gradtx.adam(gradtx.linear_schedule(0.5, 0.0, 2)), gradtx.ema(0.9))
    _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert gradtx.step_count(state) == 1
    assert gradtx.hyperparams(state)["learning_rate"] == 0.25


def test_17_update_t_from_0_uses_the_schedule_at_t():
    tx = gradtx.sgd(gradtx.piecewise_constant_schedule(1.0, {0: 0.5, 2: 0.5}))
    state, seen = tx.init(PARAMS), []
    for _ in range(4):
        u, state = jax.jit(tx.update)({"w": jnp.ones(2), "bias": jnp.ones(1)}, state)
        seen.append(-float(u["bias"][0]))
    assert seen == [0.5, 0.5, 0.25, 0.25]


def test_18_adafactor_with_a_decay_offset_is_finite():
    tx = gradtx.adafactor(0.1, decay_offset=10)
    u, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(u))


def test_19_masked_says_what_becomes_of_the_other_leaves():
    default, zero = (gradtx.masked(gradtx.sgd(0.1), "w", **k) for k in ({}, {"outside": "zero"}))
    assert default.update(GRADS, default.init(PARAMS))[0]["bias"].tolist() == GRADS["bias"].tolist()
    assert zero.update(GRADS, zero.init(PARAMS))[0]["bias"].tolist() == [0.0]


def test_21_every_update_takes_params_and_keywords_and_names_what_is_missing():
    tx = gradtx.adamw(0.1)
    tx.update(GRADS, tx.init(PARAMS), PARAMS, value=1.0)
    with pytest.raises(ValueError, match="add_decayed_weights needs the parameters"):
        tx.update(GRADS, tx.init(PARAMS))


@every
def test_22_an_optimizer_prints_compares_and_pickles_by_value(name):
    tx = EVERY[name]
    assert repr(tx).startswith(f"{name}(")
    assert tx == pickle.loads(pickle.dumps(tx)) == eval(repr(tx), vars(gradtx))


@pytest.mark.wide
def test_23_weight_decay_takes_a_schedule_and_every_optimizer_with_it_a_mask():
    for name in ("adam", "adamw", "adagrad", "lion", "nadamw", "rmsprop", "sgd"):
        decay = gradtx.linear_schedule(0.5, 0.0, 1)
        tx = getattr(gradtx, name)(0.1, weight_decay=decay, mask="!bias")
        _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
        assert gradtx.hyperparams(state)["weight_decay"] == 0.0


def test_24_frozen_leaves_cost_no_state():
    tx = gradtx.masked(gradtx.adam(0.1), "bias", outside="zero")
    assert len(jax.tree.leaves(tx.init(PARAMS)["slots"])) == 2


@pytest.mark.by_turns(2)
@some
def test_25_params_and_state_can_be_donated(name):
    tx, params = EVERY[name], jax.tree.map(jnp.copy, PARAMS)
    state = tx.init(params)
    step = jax.jit(lambda p, s: gradtx.apply_gradients(tx, GRADS, s, p), donate_argnums=(0, 1))
    for _ in range(2):
        params, state = step(params, state)
    assert gradtx.step_count(state) == 2


@every
def test_26_init_takes_shapes(name):
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), PARAMS)
    abstract, real = EVERY[name].init(shapes), EVERY[name].init(PARAMS)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract) == jax.tree.map(
        lambda x: (x.shape, x.dtype), real
    )


def test_27_the_state_is_nested_dicts_by_name():
    state = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)).init(PARAMS)
    paths = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in jax.tree.leaves_with_path(state)]
    assert "slots/scale_by_adam/mu/w" in paths
    assert "numbers/clip_by_global_norm/max_norm" in paths
    shorter = gradtx.adam(0.1).init(PARAMS)
    assert shorter["slots"].keys() == state["slots"].keys()


def test_32_lions_betas_are_in_their_places():
    g = [jnp.array([1.0]), jnp.array([-0.5])]
    tx = gradtx.lion(1.0, b1=0.9, b2=0.1, weight_decay=0.0)
    _, state = tx.update(g[0], tx.init(g[0]), g[0])
    u, _ = tx.update(g[1], state, g[0])
    assert u.tolist() == [-1.0]  # m = 0.9, and 0.9 m - 0.1 * 0.5 > 0; with the betas swapped it is negative


def test_33_a_mask_function_is_a_mask_and_never_a_schedule():
    tx = gradtx.adamw(0.1, weight_decay=0.5, mask=lambda path, leaf: path == "w")
    assert "mask" not in gradtx.hyperparams(tx.init(PARAMS))
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    u, _ = tx.update(zeros, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(u["w"], -0.05 * PARAMS["w"], rtol=1e-6)
    assert u["bias"].tolist() == [0.0]


def test_36_a_warmup_of_no_steps_is_over():
    assert float(gradtx.warmup_constant_schedule(0.0, 1e-3, 0)(0)) == np.float32(1e-3)


def test_36_a_chain_of_nothing_is_the_identity():
    u, _ = gradtx.chain().update(GRADS, gradtx.chain().init(PARAMS))
    jax.tree.map(np.testing.assert_array_equal, u, GRADS)


@some
def test_36_a_scalar_parameter_is_a_parameter(name):
    assert one(EVERY[name], jnp.float32(0.5), jnp.float32(1.0)).shape == ()


def test_36_the_gradient_of_a_norm_at_0_is_0():
    assert jax.grad(gradtx.global_norm)(jnp.zeros(2)).tolist() == [0.0, 0.0]


@some
def test_37_a_none_gradient_leaves_its_leaf_as_it_is(name):
    tx = EVERY[name]
    params, _ = gradtx.apply_gradients(tx, {**GRADS, "bias": None}, tx.init(PARAMS), PARAMS)
    assert params["bias"].tolist() == PARAMS["bias"].tolist()
    assert not np.array_equal(params["w"], PARAMS["w"])


def test_38_no_version_is_compared():
    sources = pathlib.Path(gradtx.__file__).parent.rglob("*.py")
    assert [
        s.name for s in sources if "jax.__version__" in s.read_text() or "flax.__version__" in s.read_text()
    ] == []


def test_39_the_other_librarys_name_for_an_argument_is_suggested():
    with pytest.raises(TypeError, match="It is called 'weight_decay_mask' here"):
        gradtx.adadelta(1.0, mask="w")
    with pytest.raises(TypeError, match="It is called 'mask' here"):
        gradtx.adamw(1.0, weight_decay_mask="w")


def test_41_a_negative_learning_rate_is_an_error_that_says_it_climbs():
    with pytest.raises(ValueError, match=r"A negative one climbs; to maximize, negate the loss"):
        gradtx.scale_by_learning_rate(-1e-3)


def test_42_numbers_in_the_state_are_in_force_and_rebase_reports():
    old = gradtx.sgd(0.5).init(PARAMS)
    tx = gradtx.sgd(0.25)
    assert tx.update(GRADS, old)[0]["bias"].tolist() == [-0.5 * float(GRADS["bias"][0])]
    assert gradtx.rebase(tx, old)[1] == {"learning_rate": (0.5, 0.25)}
