"""Accumulation: what it costs, what it leaves out, and how it compares with Optax's `MultiSteps`."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradtx
import gradtx.flax
from needy import Needy

PARAMS = {"bias": jnp.array([0.5, -1.0]), "kernel": jnp.arange(6.0).reshape(3, 2) / 4 + 0.1}


def gradients(steps, seed=0):
    rng = np.random.default_rng(seed)
    return [
        jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), PARAMS) for _ in range(steps)
    ]


def follow(tx, grads):
    """The updates and parameters of every step; Optax's arithmetic mixes dtypes."""
    params, trajectory = PARAMS, []
    with jax.numpy_dtype_promotion("standard"):
        state, update = tx.init(params), jax.jit(tx.update)
        for g in grads:
            updates, state = update(g, state, params)
            params = optax.apply_updates(params, updates)
            trajectory.append((updates, params))
    return trajectory


def end(tx, grads, through):
    """The parameters and the state after some steps."""

    @jax.jit
    def step(params, state, g):
        if through == "apply_gradients":
            return gradtx.apply_gradients(tx, g, state, params)
        updates, state = tx.update(g, state, params)
        return gradtx.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for g in grads:
        params, state = step(params, state, g)
    return params, state


def assert_close(one, other, rtol=2e-6, atol=1e-7):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("use_grad_mean", [True, False])
@pytest.mark.parametrize("every", [1, 3, lambda step: jnp.where(step < 2, 1, 3)], ids=["1", "3", "scheduled"])
def test_multi_steps_is_optaxs_step_by_step(every, use_grad_mean):
    grads = gradients(60)
    ours = gradtx.MultiSteps(gradtx.adamw(0.1), every, use_grad_mean=use_grad_mean)
    theirs = optax.MultiSteps(optax.adamw(0.1), every, use_grad_mean=use_grad_mean)
    for one, other in zip(follow(ours, grads), follow(theirs, grads), strict=True):
        assert_close(one, other, rtol=2e-5, atol=5e-6)  # Optax rounds b2 to float32


@pytest.mark.wide
def test_multi_steps_skips_as_optaxs_does():
    grads = gradients(20)
    grads[3]["bias"] = jnp.array([np.nan, 1.0])
    grads[7] = jax.tree.map(lambda g: 100 * g, grads[7])

    def skip(updates, gradient_step, params):
        squares = sum(jnp.sum(x**2) for x in jax.tree.leaves(updates))
        return ~(squares < 100), {"squares": squares}

    ours = gradtx.MultiSteps(gradtx.adam(0.1), 2, should_skip_update_fn=skip)
    theirs = optax.MultiSteps(optax.adam(0.1), 2, should_skip_update_fn=skip)
    for one, other in zip(follow(ours, grads), follow(theirs, grads), strict=True):
        assert_close(one, other, rtol=2e-5, atol=5e-6)  # Optax rounds b2 to float32
    state = ours.init(PARAMS)
    _, state = ours.update(grads[3], state, PARAMS)
    assert np.isnan(state["slots"]["MultiSteps"]["skip"]["squares"])
    assert gradtx.metrics(state)["skipped"] == 1


@pytest.mark.wide
def test_has_updated_is_about_the_last_call():
    grads = gradients(3)
    tx = gradtx.MultiSteps(gradtx.sgd(0.1), 2, should_skip_update_fn=lambda u, n, p: (u["bias"][0] > 50, ()))
    state, seen = tx.init(PARAMS), []
    too_large = {**grads[0], "bias": jnp.array([100.0, 0.0])}
    for g in (grads[0], grads[1], too_large, grads[2]):
        _, state = tx.update(g, state, PARAMS)
        seen.append(bool(tx.has_updated(state)))
    # Optax's answers True for the skipped call as well, since its counter stands at 0.
    assert seen == [False, True, False, False]
    assert tx.gradient_transformation() is tx


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("through", ["update", "apply_gradients"])
def test_12_one_bad_micro_gradient_is_left_out_alone(bad, through):
    """Means and moments are those of a run without it; in Optax it poisons all that follow (#828)."""
    grads = gradients(9)
    planted = [*grads[:4], {**grads[0], "bias": jnp.array([bad, 1.0])}, *grads[4:]]
    tx = gradtx.accumulate(gradtx.adamw(0.1), 3, non_finite="skip")

    (clean, before), (params, state) = end(tx, grads, through), end(tx, planted, through)
    jax.tree.map(np.testing.assert_array_equal, params, clean)
    jax.tree.map(
        np.testing.assert_array_equal,
        state["slots"]["accumulate"]["inner"],
        before["slots"]["accumulate"]["inner"],
    )
    assert gradtx.metrics(state)["skipped"] == 1 and gradtx.metrics(before)["skipped"] == 0


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("through", ["update", "apply_gradients"])
def test_12_a_mean_with_a_bad_gradient_is_dropped_and_the_next_is_clean(bad, through):
    grads = gradients(9)
    planted = [*grads[:3], grads[0], {**grads[0], "bias": jnp.array([bad, 1.0])}, grads[1], *grads[3:]]
    tx = gradtx.accumulate(gradtx.adamw(0.1), 3)

    (clean, before), (params, state) = end(tx, grads, through), end(tx, planted, through)
    before, after = before["slots"]["accumulate"], state["slots"]["accumulate"]
    jax.tree.map(np.testing.assert_array_equal, params, clean)
    for name in ("inner", "sum", "clock", "count"):
        jax.tree.map(np.testing.assert_array_equal, after[name], before[name])
    assert after["skipped"] == 1 and before["skipped"] == 0


def test_keep_takes_what_comes():
    tx = gradtx.accumulate(gradtx.sgd(0.1), 2, non_finite="keep")
    state = tx.init(PARAMS)
    for g in gradients(2):
        updates, state = tx.update({**g, "bias": jnp.array([np.inf, 1.0])}, state, PARAMS)
    assert updates["bias"][0] == -np.inf and np.isfinite(updates["kernel"]).all()


@pytest.mark.wide
def test_28_between_updates_only_the_sum_moves():
    """The inner transform stands inside a loop of no trip or one, and nothing large is copied."""
    params = {f"w{i}": jnp.ones((64, 8)) for i in range(5)}
    tx = gradtx.accumulate(gradtx.adamw(0.1), 8)
    step = jax.jit(lambda p, s, g: gradtx.apply_gradients(tx, g, s, p), donate_argnums=(0, 1))
    compiled = step.lower(params, tx.init(params), params).compile().as_text()
    entry = compiled[compiled.index("ENTRY") :]
    assert len(re.findall(r" while\(", entry)) == 1
    assert not re.findall(r"f32\[64,8\]\S* copy\(", entry)
    # All the arithmetic on a leaf outside of the loop: its norm, to see that it is finite, and the sum.
    assert not re.findall(r"f32\[64,8\]\S* (?:sqrt|rsqrt|divide|power)\(", entry)


@pytest.mark.wide
def test_28_the_inner_state_is_kept_bit_for_bit_between_updates():
    tx = gradtx.accumulate(gradtx.prodigy(1.0), 4)
    state = tx.init(PARAMS)
    for i, g in enumerate(gradients(8)):
        before = state["slots"]["accumulate"]["inner"]
        _, state = tx.update(g, state, PARAMS)
        after = state["slots"]["accumulate"]["inner"]
        same = jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, after))
        assert same == (i % 4 != 3)


def test_35_keywords_and_parameters_reach_what_is_inside():
    tx = gradtx.accumulate(gradtx.chain(Needy(), gradtx.add_decayed_weights(0.1)), 2)
    state = tx.init(PARAMS)
    for g in gradients(2):
        updates, state = tx.update(g, state, PARAMS, value=jnp.float32(2.0))
    assert np.isfinite(updates["bias"]).all()
    with pytest.raises(TypeError, match="needy needs the keyword argument 'value'"):
        tx.update(g, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(g, tx.init(PARAMS), value=jnp.float32(2.0))


def test_35_an_inner_transform_of_another_library_gets_them_too():
    theirs = optax.polyak_sgd(max_learning_rate=0.1)
    tx = gradtx.accumulate(theirs, 2)
    state = tx.init(PARAMS)
    for g in gradients(2):
        updates, state = tx.update(g, state, PARAMS, value=jnp.float32(1.0))
    assert np.abs(updates["bias"]).max() > 0


def test_the_mean_of_bfloat16_gradients_is_taken_in_float32():
    params = jnp.zeros(1, jnp.bfloat16)
    tx = gradtx.accumulate(gradtx.sgd(1.0), 256)
    state = tx.init(params)
    assert state["slots"]["accumulate"]["sum"].dtype == jnp.float32
    step = jax.jit(lambda p, s, g: gradtx.apply_gradients(tx, g, s, p))
    for _ in range(256):
        params, state = step(params, state, jnp.ones(1, jnp.bfloat16))
    # In bfloat16 the sum would stop at 256 ones, where 256 + 1 is 256: by luck here; 1.0 shows the mean.
    assert float(params[0]) == -1.0
    half = gradtx.accumulate(gradtx.sgd(1.0), 4, accumulator_dtype="bfloat16").init(params)
    assert half["slots"]["accumulate"]["sum"].dtype == jnp.bfloat16


@pytest.mark.parametrize("every", [0, -2, float("nan")])
def test_a_number_of_micro_steps_must_be_positive(every):
    with pytest.raises(ValueError, match="accumulate: every must be a whole number from 1 to"):
        gradtx.accumulate(gradtx.sgd(0.1), every)


def test_an_unknown_policy_is_an_error():
    with pytest.raises(ValueError, match="non_finite must be one of 'drop', 'skip', 'keep', got 'wait'"):
        gradtx.accumulate(gradtx.sgd(0.1), 2, non_finite="wait")


def loss(params, x, y):
    prediction = x @ params["kernel"] + params["bias"][None]
    return jnp.mean((prediction - y) ** 2)


def batch(size):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(size, 3)), jnp.float32), jnp.asarray(
        rng.normal(size=(size, 2)), jnp.float32
    )


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("n", [1, 3, 12])
def test_micro_batches_have_the_gradient_of_the_whole(n):
    x, y = batch(12)
    value, grads = jax.jit(gradtx.accumulate_gradients(jax.value_and_grad(loss), n))(PARAMS, x, y)
    expected, whole = jax.value_and_grad(loss)(PARAMS, x, y)
    assert_close((value, grads), (expected, whole))


@pytest.mark.wide
def test_what_a_gradient_function_returns_beside_is_combined():
    def counting(params, x, y, *, scale):
        value = loss(params, x, y) * scale
        return value, {"seen": jnp.array(len(x)), "right": y[:, 0] > 0}

    x, y = batch(8)
    grad_fn = gradtx.accumulate_gradients(jax.value_and_grad(counting, has_aux=True), 4)
    (value, aux), _ = grad_fn(PARAMS, x, y, scale=2.0)
    np.testing.assert_allclose(value, 2 * loss(PARAMS, x, y), rtol=1e-6)
    assert (
        aux["seen"] == 8 and aux["right"].tolist() == (np.asarray(y)[:, 0] > 0).reshape(4, 2).sum(0).tolist()
    )


def test_micro_batches_of_bfloat16_have_a_mean_in_float32():
    params = jnp.zeros((), jnp.bfloat16)
    grads = gradtx.accumulate_gradients(jax.grad(lambda w, x: jnp.sum(w * x).astype(jnp.float32)), 3)(
        params, jnp.array([1.0, 2.0, 2.0], jnp.bfloat16)
    )
    assert grads.dtype == jnp.float32
    np.testing.assert_allclose(grads, 5 / 3, rtol=1e-6)


@pytest.mark.parametrize("n", [2, 3])
def test_the_mean_of_finite_micro_batches_is_finite(n):
    """However large they are, complex ones and values too; what is Inf stays Inf."""

    def twice(w, x):
        return {"real": w * x[0], "complex": jax.lax.complex(x[0], -x[0])}

    mean = gradtx.accumulate_gradients(twice, n)
    for large in (3e38, np.inf):
        found = mean(jnp.float32(1.0), jnp.full(n, large, jnp.float32))
        expected = {"real": np.float32(large), "complex": np.complex64(complex(large, -large))}
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_one_gradient_is_held_whatever_their_number():
    """No array of all micro-gradients exists."""
    x, y = batch(12)
    jaxpr = str(jax.make_jaxpr(gradtx.accumulate_gradients(jax.grad(loss), 6))(PARAMS, x, y))
    assert "f32[6,3,2]" not in jaxpr and "f32[6,2,3]" in jaxpr


@pytest.mark.parametrize(
    "x, told",
    [
        (jnp.ones((10, 3)), "the batch's leaf '0/x' has a leading axis of 10, which 4 micro-batches cannot"),
        (jnp.float32(1.0), "the batch's leaf '0/x' has no leading axis"),
    ],
)
def test_a_batch_that_cannot_be_shared_evenly_is_an_error(x, told):
    with pytest.raises(ValueError, match=told):
        gradtx.accumulate_gradients(lambda p, b: p, 4)(PARAMS, {"x": x})


@pytest.mark.parametrize("n", [0, -1, 2.0, True])
def test_a_number_of_micro_batches_is_a_positive_integer(n):
    with pytest.raises(ValueError, match="n must be a positive integer, got"):
        gradtx.accumulate_gradients(jax.grad(loss), n)
    with pytest.raises(ValueError, match="n must be a positive integer, got"):
        gradtx.flax.accumulate_gradients(jax.grad(loss), n)


class Model(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(self.norm(self.linear(x)))


@pytest.mark.wide
def test_an_nnx_model_keeps_its_statistics_from_one_micro_batch_to_the_next():
    def loss(model, x, y):
        return jnp.mean((model(x) - y) ** 2)

    x, y = batch(12)
    one, other = Model(nnx.Rngs(0)), Model(nnx.Rngs(0))
    value, grads = nnx.jit(gradtx.flax.accumulate_gradients(nnx.value_and_grad(loss), 3))(one, x, y)
    parts = [nnx.value_and_grad(loss)(other, x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)]
    np.testing.assert_allclose(value, np.mean([v for v, _ in parts]), rtol=1e-5)
    mean = jax.tree.map(lambda *gs: sum(gs) / 3, *(g for _, g in parts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads, mean)
    assert_close(one.norm.mean[...], other.norm.mean[...])
    optimizer = gradtx.flax.Optimizer(one, gradtx.adamw(1e-2), wrt=nnx.Param)
    optimizer.update(one, grads)
    assert gradtx.step_count(optimizer) == 1


def test_a_leaf_without_a_gradient_counts_once_and_loses_nothing():
    tx = gradtx.accumulate(gradtx.sgd(1.0), 2)
    params = {"a": jnp.zeros(()), "b": jnp.zeros(())}
    state, moved = tx.init(params), []
    for a in (1.0, 2.0, None, 8.0, 4.0, None, 2.0, 2.0):
        grads = {"a": None if a is None else jnp.float32(a), "b": jnp.float32(1.0)}
        updates, state = tx.update(grads, state, params)
        moved.append(None if updates["a"] is None else float(updates["a"]))
    # (1 + 2) / 2, then 8 / 2; the 4 waits where there is no gradient, and goes with 2 and 2.
    assert moved == [0.0, -1.5, None, -4.0, 0.0, None, 0.0, -4.0]
