"""Averages of the parameters: their values, when they move, what they refuse, and how they are found."""

from __future__ import annotations

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state

import gradtx
import gradtx.flax
import references
import wrapper_references
from needy import Needy
from trajectories import STEPS, narrow, problem, x64

PARAMS = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array(0.5)}
ADAMW = {"learning_rate": 0.05, "b1": 0.8, "b2": 0.95, "weight_decay": 0.1}
WARM = gradtx.linear_schedule(0.0, 0.95, 40)


def grads_of(params, steps, seed=0):
    rng = np.random.default_rng(seed)
    return [
        jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params) for _ in range(steps)
    ]


def steps_of(tx, params, grads, **extra):
    """The parameters, the averages and the state after each step."""
    state, step = tx.init(params), jax.jit(functools.partial(gradtx.apply_gradients, tx))
    result = []
    for g in grads:
        params, state = step(g, state, params, **extra)
        result.append((params, gradtx.eval_params(state, params), state))
    return result


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


ADAMW_REFERENCE = functools.partial(references.Adamw, **ADAMW)
REFERENCES = {
    "ema_params": (
        lambda inner: gradtx.ema_params(inner, 0.9),
        lambda inner: wrapper_references.EmaParams(inner, 0.9),
    ),
    "ema_params warmed up": (
        lambda inner: gradtx.ema_params(inner, WARM),
        lambda inner: wrapper_references.EmaParams(inner, references.linear(0.0, 0.95, 40)),
    ),
    "polyak_average": (gradtx.polyak_average, wrapper_references.PolyakAverage),
    "polyak_average from the middle": (
        lambda inner: gradtx.polyak_average(inner, 50),
        lambda inner: wrapper_references.PolyakAverage(inner, 50),
    ),
    "polyak_average between two": (
        lambda inner: gradtx.polyak_average(inner, 49.5),
        lambda inner: wrapper_references.PolyakAverage(inner, 50),
    ),
    "lookahead": (
        lambda inner: gradtx.lookahead(inner, 5, 0.4),
        lambda inner: wrapper_references.Lookahead(inner, 5, 0.4),
    ),
    "lookahead restarted": (
        lambda inner: gradtx.lookahead(inner, 5, 0.4, reset_state=True),
        lambda inner: wrapper_references.Lookahead(inner, 5, 0.4, reset_state=True),
    ),
    "lookahead of an average of 1": (
        lambda inner: gradtx.lookahead(inner, 3, 1.0),
        lambda inner: wrapper_references.Lookahead(inner, 3, 1.0),
    ),
}


def worst_error(case, data, *, jitted=True):
    """The largest error of the average over all steps, relative to what its leaf has been."""
    make, make_reference = REFERENCES[case]
    tx, reference = make(gradtx.adamw(**ADAMW)), make_reference(ADAMW_REFERENCE())
    names = sorted(data.params)
    values = [np.asarray(data.params[k], np.result_type(data.params[k], np.float64)) for k in names]
    reference.init(values)
    params = jax.tree.map(jnp.asarray, data.params)
    state = tx.init(params)

    @jax.jit
    def step(params, state, g):
        params, state = gradtx.apply_gradients(tx, g, state, params)
        return params, state, gradtx.eval_params(state, params)

    worst = 0.0
    for t in range(STEPS):
        params, state, average = step(params, state, {k: jnp.asarray(g[t]) for k, g in data.grads.items()})
        updates = reference.update([data.grads[k][t] for k in names], values)
        values = [p + u for p, u in zip(values, updates, strict=True)]
        for name, expected in zip(names, reference.average, strict=True):
            error = np.abs(np.asarray(average[name]) - expected)
            worst = max(worst, np.max(error / np.maximum(np.abs(expected), 1e-2), initial=0.0))
    return worst


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("case", REFERENCES)
def test_the_average_follows_its_reference(case):
    """Real and complex leaves, in double precision."""
    with x64():
        assert worst_error(case, problem()) < 1e-12


@pytest.mark.full
@pytest.mark.parametrize("case", REFERENCES)
def test_the_average_follows_its_reference_in_single_precision(case):
    data = problem(mild=True)
    data = type(data)(params=narrow(data.params), grads=narrow(data.grads))
    assert worst_error(case, data) < 1e-5


def test_a_decay_near_1_keeps_its_digits():
    """1 - 0.99999 in float32 is off by 1e-3; the average after 1,000 steps is within 1e-5 of float64."""
    rng = np.random.default_rng(0)
    tx = gradtx.ema_params(gradtx.scale(1.0), 0.99999)
    start = rng.normal(size=64).astype(np.float32)
    updates = rng.normal(size=(1000, 64)).astype(np.float32)
    updates[:, 32:] = np.abs(updates[:, 32:])  # a half that drifts

    @jax.jit
    def run(params):
        def step(carry, g):
            params, state = carry
            return gradtx.apply_gradients(tx, g, state, params), None

        return jax.lax.scan(step, (params, tx.init(params)), jnp.asarray(updates))[0]

    params, state = run(jnp.asarray(start))
    reference, value, expected = start.astype(np.float64), start.copy(), start.astype(np.float64)
    for u in updates:
        value = value + u  # the parameters themselves are what float32 makes of them
        expected = 0.99999 * expected + (1 - 0.99999) * value.astype(np.float64)
    np.testing.assert_array_equal(params, value)
    moved = np.abs(expected - reference)
    error = np.abs(np.asarray(gradtx.eval_params(state, params)) - expected)
    assert np.max(error / np.maximum(np.abs(expected), moved)) < 1e-5


@pytest.mark.wide
@jax.numpy_dtype_promotion("standard")  # Optax needs it
def test_32_lookahead_is_optaxs_step_by_step():
    """Optax takes pairs of fast and slow weights; here the parameters are the fast ones."""
    grads = grads_of(PARAMS, 23)
    for reset in (False, True):
        ours = gradtx.lookahead(gradtx.adam(0.1, b1=0.8), 4, 0.3, reset)
        theirs = optax.lookahead(optax.adam(0.1, b1=0.8), 4, 0.3, reset)
        pair = optax.LookaheadParams.init_synced(PARAMS)
        state = theirs.init(pair)
        for g, (params, slow, _) in zip(grads, steps_of(ours, PARAMS, grads), strict=True):
            updates, state = theirs.update(g, state, pair)
            pair = optax.apply_updates(pair, updates)
            for mine, other in ((params, pair.fast), (slow, pair.slow)):
                for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
                    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_32_lookahead_refuses_optaxs_pairs():
    tx = gradtx.lookahead(gradtx.sgd(0.1), 2, 0.5)
    pair = optax.LookaheadParams.init_synced(PARAMS)
    with pytest.raises(ValueError, match="'fast/b' in the params and 'b' in the gradients"):
        tx.update(PARAMS, tx.init(pair), pair)


@pytest.mark.by_turns(2)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: gradtx.lookahead(inner, 2, 0.5),
        lambda inner: gradtx.lookahead(inner, 2, 0.5, reset_state=True),
        lambda inner: gradtx.ema_params(inner, 0.9),
        gradtx.polyak_average,
    ],
)
def test_35_keyword_arguments_reach_what_is_inside(wrap):
    tx = wrap(gradtx.chain(Needy(), gradtx.sgd(1.0)))
    g = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = tx.update(g, tx.init(PARAMS), PARAMS, value=3.0)
    assert_equal(updates, jax.tree.map(lambda p: jnp.full_like(p, -3.0), PARAMS))
    with pytest.raises(TypeError, match="needs the keyword argument 'value'"):
        tx.update(g, tx.init(PARAMS), PARAMS)


@pytest.mark.wide
def test_a_restart_keeps_the_hyperparameters_that_were_set():
    tx = gradtx.lookahead(gradtx.adam(0.1), 2, 0.5, reset_state=True)
    state = gradtx.set_hyperparams(tx.init(PARAMS), learning_rate=0.03)
    params = PARAMS
    for g in grads_of(PARAMS, 2):
        params, state = gradtx.apply_gradients(tx, g, state, params)
    inner = state["slots"]["lookahead"]["inner"]
    assert gradtx.hyperparams(state)["learning_rate"] == 0.03
    assert_equal(inner["slots"], tx.fast_optimizer.init(params)["slots"])
    assert int(inner["step"]) == 0 and gradtx.step_count(state) == 2


@pytest.mark.wide
def test_a_restart_starts_schedules_and_slots_of_parameters_anew():
    """Prodigy remembers the parameters that it started from; a function of the step is code."""
    inner = gradtx.chain(gradtx.prodigy(lambda step: jnp.where(step == 0, 1.0, 0.5)), gradtx.scale(1.0))
    tx = gradtx.lookahead(inner, 2, 0.5, reset_state=True)
    params, state = PARAMS, tx.init(PARAMS)
    rates = []
    for g in grads_of(PARAMS, 4):
        rates.append(gradtx.hyperparams(state)["learning_rate"])
        params, state = gradtx.apply_gradients(tx, g, state, params)
    assert rates == [1.0, 0.5, 1.0, 0.5]
    assert_equal(state["slots"]["lookahead"]["inner"], inner.init(params))


def test_a_restart_of_another_librarys_state():
    tx = gradtx.lookahead(optax.adam(0.1), 2, 0.5, reset_state=True)
    _, _, state = steps_of(tx, PARAMS, grads_of(PARAMS, 4))[-1]
    assert_equal(state["slots"]["lookahead"]["inner"], optax.adam(0.1).init(PARAMS))


@pytest.mark.wide
def test_a_leaf_without_a_gradient_sits_out_a_restart():
    tx = gradtx.lookahead(gradtx.adam(0.1), 2, 0.5, reset_state=True)
    ((params, _, state),) = steps_of(tx, PARAMS, grads_of(PARAMS, 1))
    grads = {**grads_of(PARAMS, 1)[0], "b": None}
    new, after = jax.jit(functools.partial(gradtx.apply_gradients, tx))(grads, state, params)
    mu = [s["slots"]["lookahead"]["inner"]["slots"]["scale_by_adam"]["mu"] for s in (state, after)]
    assert_equal((new["b"], mu[1]["b"]), (params["b"], mu[0]["b"]))
    assert_equal(mu[1]["w"], jnp.zeros_like(PARAMS["w"]))


@pytest.mark.wide
def test_the_fast_weights_are_the_slow_ones_after_a_synchronization():
    tx = gradtx.lookahead(gradtx.adam(0.1), 3, 0.5)
    for t, (params, slow, _) in enumerate(steps_of(tx, PARAMS, grads_of(PARAMS, 12)), 1):
        same = all(np.allclose(params[k], slow[k], rtol=1e-7, atol=0) for k in params)
        assert same == (t % 3 == 0)


@pytest.mark.wide
def test_inside_accumulate_the_average_moves_with_the_parameters():
    grads = grads_of(PARAMS, 12)
    inside = steps_of(gradtx.accumulate(gradtx.ema_params(gradtx.adamw(0.1), 0.5), 3), PARAMS, grads)
    alone = gradtx.ema_params(gradtx.adamw(0.1), 0.5)
    means = [
        jax.tree.map(lambda *g: functools.reduce(jnp.add, g) * jnp.float32(1 / 3), *grads[i : i + 3])
        for i in range(0, 12, 3)
    ]
    whole = steps_of(alone, PARAMS, means)
    for t, (params, average, _) in enumerate(inside, 1):
        expected = (PARAMS, PARAMS) if t < 3 else whole[t // 3 - 1][:2]
        for mine, other in zip((params, average), expected, strict=True):
            for k in mine:
                np.testing.assert_allclose(mine[k], other[k], rtol=1e-6, atol=1e-6)
    for a, b in itertools.pairwise(inside):
        moved = int(a[2]["slots"]["accumulate"]["count"]) == 2
        assert np.any(a[1]["w"] != b[1]["w"]) == moved


@pytest.mark.wide
def test_around_accumulate_the_average_moves_on_every_micro_step():
    tx = gradtx.ema_params(gradtx.accumulate(gradtx.sgd(0.1), 3), 0.5)
    average, before = PARAMS, PARAMS
    for t, (params, found, _) in enumerate(steps_of(tx, PARAMS, grads_of(PARAMS, 9)), 1):
        assert np.any(params["w"] != before["w"]) == (t % 3 == 0)
        moved = jax.tree.map(lambda a, p: 0.5 * a + 0.5 * p, average, params)
        assert np.any(moved["w"] != average["w"]) == (t >= 3)
        for k in moved:
            np.testing.assert_allclose(found[k], moved[k], rtol=1e-6)
        average, before = moved, params


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("case", REFERENCES)
def test_a_leaf_without_a_gradient_keeps_its_average(case):
    tx = REFERENCES[case][0](gradtx.adamw(0.1))
    params, average, state = steps_of(tx, PARAMS, grads_of(PARAMS, 3))[-1]
    grads = {**grads_of(PARAMS, 1)[0], "b": None}
    params, state = gradtx.apply_gradients(tx, grads, state, params)
    after = gradtx.eval_params(state, params)
    assert_equal(after["b"], average["b"])


@pytest.mark.parametrize("case", ["ema_params", "polyak_average", "lookahead"])
def test_bfloat16_parameters_have_a_float32_average(case):
    """Of p + u before it is rounded: steps of 2^-10 are lost on a bfloat16 of 1, not on its average.

    Lookahead moves towards the parameters as they are stored, which restart from it.
    """
    tx = REFERENCES[case][0](gradtx.sgd(2.0**-10))
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    for now, average, state in steps_of(tx, params, [{"w": jnp.ones(2, jnp.bfloat16)}] * 5):
        slot = state["slots"][case]["eval_params"]["w"]
        assert slot.dtype == jnp.float32 and average["w"].dtype == jnp.bfloat16
        assert_equal(now, params)
        if case == "polyak_average":
            np.testing.assert_allclose(slot, 1 - 2.0**-10, rtol=1e-7)
    assert bool(jnp.all(slot < 1)) == (case != "lookahead")


@pytest.mark.parametrize("apply", [True, False])
def test_lookahead_on_bfloat16_parameters(apply):
    """The slow weights keep in float32 what a bfloat16 has no digits for."""
    tx, params = gradtx.lookahead(gradtx.sgd(2.0**-7), 1, 2.0**-3), jnp.ones(2, jnp.bfloat16)
    state = tx.init(params)
    for t in (1, 2):
        if apply:
            params, state = gradtx.apply_gradients(tx, jnp.ones_like(params), state, params)
        else:
            updates, state = tx.update(jnp.ones_like(params), state, params)
            params = gradtx.apply_updates(params, updates)
        fast = 1 - 2.0**-7
        assert_equal(params, jnp.ones_like(params))
        slow = state["slots"]["lookahead"]["eval_params"]
        np.testing.assert_allclose(slow, fast + (1 - fast) * (1 - 2.0**-3) ** t, rtol=1e-6)


def test_a_real_update_of_a_complex_leaf_leaves_its_average_complex():
    tx = gradtx.ema_params(gradtx.square(), 0.5)
    params = jnp.array([1.0 + 2.0j])
    new, state = gradtx.apply_gradients(tx, jnp.array([1.0 + 1.0j]), tx.init(params), params)
    np.testing.assert_array_equal(new, [3.0 + 2.0j])
    np.testing.assert_array_equal(gradtx.eval_params(state, new), [2.0 + 2.0j])


def test_an_average_narrower_than_float32_is_refused():
    for make in (functools.partial(gradtx.ema_params, decay=0.999), gradtx.polyak_average):
        with pytest.raises(ValueError, match="accumulator_dtype must be 'float32' or wider, got 'bfloat16'"):
            make(gradtx.sgd(0.1), accumulator_dtype="bfloat16")
    with x64():
        params = jnp.ones(2, jnp.float32)
        state = gradtx.ema_params(gradtx.sgd(0.1), 0.9, accumulator_dtype="float64").init(params)
        assert state["slots"]["ema_params"]["eval_params"].dtype == np.float64
        assert gradtx.eval_params(state, params).dtype == np.float32


CHANGED = {
    "in a chain": (
        lambda: gradtx.chain(gradtx.ema_params(gradtx.sgd(1.0), 0.9), gradtx.clip(1.0)),
        "ema_params needs the new parameters, but clip changes the update of the leaf 'b' after it. "
        "Put ema_params around, or behind, everything that changes the update",
    ),
    "on one leaf": (
        lambda: gradtx.chain(
            gradtx.masked(gradtx.polyak_average(gradtx.sgd(1.0)), "w"), gradtx.masked(gradtx.clip(1.0), "w")
        ),
        "polyak_average needs the new parameters, but clip changes the update of the leaf 'w'",
    ),
    "by another library": (
        lambda: gradtx.chain(gradtx.ema_params(gradtx.sgd(1.0), 0.9), optax.clip(1.0)),
        "but optax.clip (foreign) changes",
    ),
    "by a wrapper": (
        lambda: gradtx.chain(
            gradtx.ema_params(gradtx.sgd(1.0), 0.9), gradtx.accumulate(gradtx.identity(), 2)
        ),
        "but accumulate changes",
    ),
    "after a wrapper": (
        lambda: gradtx.chain(
            gradtx.accumulate(gradtx.ema_params(gradtx.sgd(1.0), 0.9), 2), gradtx.scale(0.5)
        ),
        "accumulate.inner.ema_params needs the new parameters, but scale changes",
    ),
    "by lookahead": (
        lambda: gradtx.lookahead(gradtx.ema_params(gradtx.sgd(1.0), 0.9), 2, 0.5),
        "lookahead.inner.ema_params needs the new parameters, but lookahead changes the update after it",
    ),
    "after lookahead": (
        lambda: gradtx.chain(gradtx.lookahead(gradtx.sgd(1.0), 2, 0.5), gradtx.clip(1.0)),
        "lookahead needs the new parameters, but clip changes",
    ),
    "by the join of branches": (
        lambda: gradtx.add(gradtx.ema_params(gradtx.sgd(1.0), 0.9), gradtx.scale(1.0)),
        "ema_params needs the new parameters, but add changes",
    ),
    "by the join of nested branches": (
        lambda: gradtx.add(
            gradtx.scale(1.0), gradtx.ema_params(gradtx.add(gradtx.sgd(1.0), gradtx.sign()), 0.9)
        ),
        "ema_params needs the new parameters, but add_1 changes",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_change_of_the_update_after_an_average_is_an_error(case):
    make, message = CHANGED[case]
    with pytest.raises(ValueError) as error:
        make().init(PARAMS)
    assert message in str(error.value)


FINE = {
    "other leaves": lambda: gradtx.chain(
        gradtx.masked(gradtx.ema_params(gradtx.sgd(1.0), 0.9), "w"), gradtx.masked(gradtx.clip(1.0), "b")
    ),
    "the rest made zero": lambda: gradtx.masked(gradtx.ema_params(gradtx.sgd(1.0), 0.9), "w", outside="zero"),
    "another average": lambda: gradtx.chain(
        gradtx.ema_params(gradtx.sgd(1.0), 0.9), gradtx.polyak_average(gradtx.chain(), 3)
    ),
    "lookahead inside": lambda: gradtx.ema_params(gradtx.lookahead(gradtx.sgd(1.0), 2, 0.5), 0.9),
    "in accumulate": lambda: gradtx.accumulate(gradtx.ema_params(gradtx.sgd(1.0), 0.9), 2),
    "branches before": lambda: gradtx.ema_params(gradtx.add(gradtx.sgd(1.0), gradtx.scale(0.1)), 0.9),
}


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("case", FINE)
def test_what_changes_nothing_may_follow_an_average(case):
    tx = FINE[case]()
    tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_a_slot_of_this_name_is_an_average_of_the_parameters():
    with pytest.raises(TypeError, match="Set `last = True` where it is one, or give the slot another name"):

        class Wrong(gradtx.Rule, name="wrong"):
            eval_params = gradtx.Slot()

    class Largest(gradtx.Rule, name="largest"):
        eval_params = gradtx.Slot(init=lambda rule, param: param)
        needs, last = ("params",), True

        def apply(self, g, slots, leaf):
            return g, {"eval_params": jnp.maximum(slots.eval_params, leaf.param + g)}

    tx = gradtx.chain(gradtx.sgd(1.0), Largest())
    params, state = gradtx.apply_gradients(tx, PARAMS, tx.init(PARAMS), PARAMS)
    assert_equal(gradtx.eval_params(state, params), jax.tree.map(jnp.maximum, PARAMS, params))
    with pytest.raises(ValueError, match="largest needs the new parameters, but clip changes"):
        gradtx.chain(tx, gradtx.clip(1.0)).init(PARAMS)
    state = gradtx.named_chain(("eval_params", gradtx.sgd(0.1))).init(PARAMS)
    assert_equal(gradtx.eval_params(state, PARAMS), PARAMS)


def test_without_an_average_it_gives_the_parameters():
    state = gradtx.adamw(0.1).init(PARAMS)
    found = gradtx.eval_params(state, PARAMS)
    assert found.keys() == PARAMS.keys() and all(found[k] is PARAMS[k] for k in PARAMS)


def averaged():
    return gradtx.ema_params(gradtx.sgd(1.0), 0.5)


def halfway():
    """The average after one step of gradient 1 from `PARAMS`, and the new parameters."""
    return jax.tree.map(lambda p: p - 0.5, PARAMS), jax.tree.map(lambda p: p - 1, PARAMS)


HOLDERS = {
    "a chain": lambda: gradtx.chain(gradtx.identity(), averaged()),
    "a named chain": lambda: gradtx.named_chain(("opt", averaged())),
    "accumulate": lambda: gradtx.accumulate(averaged(), 1),
    "accumulate twice": lambda: gradtx.accumulate(gradtx.accumulate(averaged(), 1), 1),
    "optax.chain": lambda: optax.chain(optax.identity(), averaged()),
    "optax.masked": lambda: optax.masked(averaged(), {"w": True, "b": True}),
    "a chain in a chain of optax": lambda: gradtx.chain(optax.chain(averaged())),
}


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("case", HOLDERS)
def test_an_average_is_found_wherever_it_is(case):
    tx = HOLDERS[case]()
    state = tx.init(PARAMS)
    updates, state = tx.update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS)
    params = optax.apply_updates(PARAMS, updates)
    average, expected = halfway()
    assert_equal(params, expected)
    assert_equal(gradtx.eval_params(state, params), average)
    assert_equal(jax.jit(gradtx.eval_params)(state, params), average)


@pytest.mark.parametrize("holder", [train_state.TrainState, gradtx.flax.TrainState])
def test_an_average_in_a_train_state(holder):
    state = holder.create(apply_fn=None, params=PARAMS, tx=averaged())
    state = state.apply_gradients(grads=jax.tree.map(jnp.ones_like, PARAMS))
    assert_equal(gradtx.eval_params(state, state.params), halfway()[0])


@pytest.mark.wide
@pytest.mark.parametrize("holder", [nnx.Optimizer, gradtx.flax.Optimizer])
def test_an_average_in_an_nnx_optimizer(holder):
    model = nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Linear(2, 1, rngs=nnx.Rngs(1)))
    before = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    optimizer = holder(model, averaged(), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.ones_like, before))
    now = nnx.state(model, nnx.Param)
    average = gradtx.eval_params(optimizer, now)
    assert jax.tree.structure(average) == jax.tree.structure(now)
    for a, p in zip(jax.tree.leaves(average), jax.tree.leaves(before), strict=True):
        np.testing.assert_allclose(a, p - 0.5, rtol=1e-6)
    nnx.update(model, average)  # what a user does with it


def test_groups_have_averages_of_their_own():
    tx = gradtx.chain(
        gradtx.masked(gradtx.ema_params(gradtx.sgd(1.0), 0.5), "w"),
        gradtx.masked(gradtx.lookahead(gradtx.sgd(1.0), 5, 0.5), "b"),
    )
    ((params, average, _),) = steps_of(tx, PARAMS, [jax.tree.map(jnp.ones_like, PARAMS)])
    assert_equal(params, halfway()[1])
    assert_equal(average, {"w": halfway()[0]["w"], "b": PARAMS["b"]})


def test_a_mask_costs_no_state_outside():
    tx = gradtx.masked(averaged(), "w")
    ((params, average, state),) = steps_of(tx, PARAMS, [jax.tree.map(jnp.ones_like, PARAMS)])
    assert state["slots"]["ema_params"]["eval_params"]["b"] is None
    assert average["b"] is not None
    assert_equal(average["b"], params["b"])
    partly = optax.masked(averaged(), {"w": True, "b": False})
    assert_equal(gradtx.eval_params(partly.init(PARAMS), params), {"w": PARAMS["w"], "b": params["b"]})


def test_of_two_averages_of_a_leaf_one_is_named():
    tx = gradtx.ema_params(gradtx.ema_params(gradtx.sgd(1.0), 0.5), 0.75)
    params, state = after_one(tx)
    with pytest.raises(ValueError) as error:
        gradtx.eval_params(state, params)
    assert str(error.value) == (
        "Both ema_params and ema_params_1 have an average of the leaf 'b'. Say which to evaluate with: "
        "eval_params(..., name='ema_params_1')."
    )
    for name, share in (("ema_params", 0.5), ("ema_params_1", 0.25)):
        expected = jax.tree.map(lambda p, share=share: p - share, PARAMS)
        assert_equal(gradtx.eval_params(state, params, name=name), expected)
    with pytest.raises(
        KeyError, match=r"no average 'polyak'\. Give name= as one of ema_params, ema_params_1"
    ):
        gradtx.eval_params(state, params, name="polyak")
    with pytest.raises(KeyError, match="and no other: put ema_params around"):
        gradtx.eval_params(gradtx.sgd(0.1).init(PARAMS), params, name="ema_params")


def after_one(tx):
    """The parameters and the state after a gradient of ones."""
    return gradtx.apply_gradients(tx, jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), PARAMS)


def test_an_average_is_named_by_the_end_of_its_path():
    tx = gradtx.chain(
        gradtx.named_chain(("fast", gradtx.ema_params(gradtx.identity(), 0.5))),
        gradtx.named_chain(("slow", gradtx.ema_params(gradtx.identity(), 0.75))),
    )
    params, state = after_one(tx)
    expected = jax.tree.map(lambda p: p + 0.5, PARAMS)
    assert_equal(gradtx.eval_params(state, params, name="fast.ema_params"), expected)
    with pytest.raises(
        KeyError,
        match=r"'ema_params' may be any of several averages\. Give name= as one of fast\.ema_params, slow",
    ):
        gradtx.eval_params(state, params, name="ema_params")


def test_averages_of_other_parameters_are_refused():
    state = averaged().init(PARAMS)
    with pytest.raises(
        ValueError, match="ema_params has an average of the leaf 'b', which the params do not"
    ):
        gradtx.eval_params(state, {"w": PARAMS["w"]})
    with pytest.raises(ValueError, match=r"of shape \(3,\) of the leaf 'w', which has shape \(4,\)"):
        gradtx.eval_params(state, {**PARAMS, "w": jnp.ones(4)})
    with pytest.raises(TypeError, match="no gradtx state in this dict"):
        gradtx.eval_params(PARAMS, state)


def test_parameters_called_like_the_parts_of_a_state():
    params = {"ema_params": jnp.ones(2), "slots": {"step": jnp.zeros(3)}, "numbers": jnp.ones(1)}
    tx = gradtx.ema_params(gradtx.adam(1.0), 0.5)
    state = tx.init(params)
    assert_equal(gradtx.eval_params(state, jax.tree.map(jnp.zeros_like, params)), params)


def test_a_vmapped_sweep_over_decays():
    def train(decay):
        tx = gradtx.ema_params(gradtx.sgd(1.0), decay)
        params, state = gradtx.apply_gradients(
            tx, jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), PARAMS
        )
        return gradtx.eval_params(state, params), state, params

    decays = jnp.array([0.25, 0.5, 0.75])
    average, states, params = jax.jit(jax.vmap(train))(decays)
    for i, d in enumerate((0.25, 0.5, 0.75)):
        np.testing.assert_allclose(average["w"][i], PARAMS["w"] - (1 - d), rtol=1e-6)
    assert_equal(jax.vmap(gradtx.eval_params)(states, params), average)
    assert_equal(gradtx.eval_params(states, params), average)


def test_hyperparameters_by_name():
    tx = gradtx.ema_params(gradtx.ema(0.5), 0.999)
    state = tx.init(PARAMS)
    assert gradtx.hyperparams(state) == {"ema.decay": 0.5, "ema_params.decay": 0.999}
    state = gradtx.set_hyperparams(state, **{"ema_params.decay": 0.75})
    assert gradtx.hyperparams(state)["ema_params.decay"] == 0.75
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        gradtx.set_hyperparams(state, **{"ema_params.decay": 1.0})
    state, changes = gradtx.rebase(gradtx.ema_params(gradtx.ema(0.5), 0.9), state)
    assert changes == {"ema_params.decay": (0.75, 0.9)}
    state = gradtx.polyak_average(gradtx.sgd(0.1), 7).init(PARAMS)
    assert gradtx.hyperparams(state)["polyak_average.start"] == 7
    state = gradtx.lookahead(gradtx.sgd(0.1), 6, 0.5).init(PARAMS)
    own = {"lookahead.sync_period": 6, "lookahead.slow_step_size": 0.5}
    assert gradtx.hyperparams(state) == {**own, "learning_rate": 0.1}


BAD = {
    "a decay of 1": (lambda: gradtx.ema_params(gradtx.sgd(0.1), 1.0), r"decay must be in \[0, 1\), got 1.0"),
    "a start below 0": (lambda: gradtx.polyak_average(gradtx.sgd(0.1), -1), "start must be >= 0, got -1"),
    "no period": (lambda: gradtx.lookahead(gradtx.sgd(0.1), 0, 0.5), "sync_period must be a whole number"),
    "a step too far": (
        lambda: gradtx.lookahead(gradtx.sgd(0.1), 5, 1.5),
        r"slow_step_size must be in \[0, 1\], got 1.5",
    ),
    "a factory": (
        lambda: gradtx.ema_params(gradtx.sgd, 0.9),
        r"ema_params takes transforms, with init and update; .* Call it: sgd\(...\)",
    ),
    "a rate": (lambda: gradtx.lookahead(0.1, 5, 0.5), "lookahead takes transforms"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_has_no_meaning_is_an_error(case):
    make, message = BAD[case]
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_a_changed_period_is_in_force_at_once():
    tx = gradtx.lookahead(gradtx.sgd(1.0), 100, 0.5)
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    (*_, (params, _, state)) = steps_of(tx, PARAMS, [grads] * 5)
    state = gradtx.set_hyperparams(state, sync_period=3)
    params, state = gradtx.apply_gradients(tx, grads, state, params)
    assert_equal(gradtx.eval_params(state, params), jax.tree.map(lambda p: p - 3, PARAMS))
    assert int(state["slots"]["lookahead"]["count"]) == 0


@pytest.mark.wide
def test_a_vmapped_sweep_over_periods():
    """Each state synchronizes by itself, compiled or not, and as it does alone."""
    grads = grads_of(PARAMS, 5)

    def train(period):
        tx, params = gradtx.lookahead(gradtx.adam(0.1), period, 0.5, reset_state=True), PARAMS
        state = tx.init(params)
        for g in grads:
            params, state = gradtx.apply_gradients(tx, g, state, params)
        return params, gradtx.eval_params(state, params)

    periods = jnp.array([1.0, 2.0, 3.0])
    together, compiled = jax.vmap(train)(periods), jax.jit(jax.vmap(train))(periods)
    for i, period in enumerate((1, 2, 3)):
        alone = train(period)
        for batch in (together, compiled):
            for a, b in zip(jax.tree.leaves(batch), jax.tree.leaves(alone), strict=True):
                np.testing.assert_allclose(a[i], b, rtol=2e-6)


@pytest.mark.wide
def test_reverse_mode_through_the_average():
    """The derivative of the average by the learning rate and by the decay, over three steps."""

    def loss(rate, decay):
        tx, p = gradtx.ema_params(gradtx.sgd(rate), decay), jnp.array(2.0)
        state = tx.init(p)
        for _ in range(3):
            updates, state = tx.update(p, state, p)  # of p² / 2
            p = gradtx.apply_updates(p, updates)
        return gradtx.eval_params(state, p)

    with x64():
        rate, decay, h = 0.1, 0.6, 1e-6
        exact = jax.grad(loss, (0, 1))(jnp.array(rate), jnp.array(decay))
        by_rate = (loss(jnp.array(rate + h), decay) - loss(jnp.array(rate - h), decay)) / (2 * h)
        by_decay = (loss(rate, jnp.array(decay + h)) - loss(rate, jnp.array(decay - h))) / (2 * h)
        np.testing.assert_allclose(exact, (by_rate, by_decay), rtol=1e-8)


def fusions(tx, params):
    """The kernels on leaves that a compiled step always runs."""
    step = jax.jit(functools.partial(gradtx.apply_gradients, tx), donate_argnums=(1, 2))
    text = step.lower(params, tx.init(params), params).compile().as_text()
    return len(re.findall(r"= f32\[8,[^ ]* fusion\(", text[text.index("ENTRY") :]))


@pytest.mark.wide
def test_the_average_is_fused_into_the_update():
    """Each leaf has one kernel more, which is the least: on a CPU every kernel writes one array."""
    params = {str(i): jnp.zeros((8, 8 + i)) for i in range(4)}
    alone = fusions(gradtx.adamw(0.1), params)
    assert fusions(gradtx.ema_params(gradtx.adamw(0.1), 0.9), params) <= alone + len(params)
    assert fusions(gradtx.polyak_average(gradtx.adamw(0.1)), params) <= alone + len(params)


@pytest.mark.wide
def test_lookahead_touches_the_slow_weights_when_it_synchronizes_alone():
    """Outside of the loop of one trip or none, a step is that of the fast optimizer."""
    params = {str(i): jnp.zeros((8, 8 + i)) for i in range(8)}
    alone = fusions(gradtx.adamw(0.1), params)
    for reset in (False, True):
        assert fusions(gradtx.lookahead(gradtx.adamw(0.1), 5, 0.5, reset), params) < alone + len(params)


def test_incremental_and_periodic_update_are_optaxs():
    rng = np.random.default_rng(0)
    new, old = ({"w": jnp.asarray(rng.normal(size=5), jnp.float32), "n": None} for _ in range(2))
    for step_size in (0.0, 0.25, jnp.float32(0.9), 1.0):
        mine = gradtx.incremental_update(new, old, step_size)
        np.testing.assert_allclose(
            mine["w"], optax.incremental_update(new, old, step_size)["w"], rtol=1e-6, atol=1e-7
        )
        assert mine["n"] is None
    for steps in range(7):
        mine = jax.jit(gradtx.periodic_update)(new, old, steps, 3)
        assert_equal(mine, optax.periodic_update(new, old, jnp.asarray(steps), 3))


def test_incremental_update_computes_in_float32_and_keeps_dtypes():
    old = {
        "bf": jnp.ones(2, jnp.bfloat16),
        "int": jnp.array([1, 2]),
        "kept": jnp.ones(1),
        "z": jnp.ones(1, "complex64"),
    }
    new = {"bf": jnp.full(2, 2.0), "int": jnp.array([3, 4]), "kept": None, "z": jnp.array([1.0j])}
    moved = gradtx.incremental_update(new, old, 0.5)
    assert_equal(
        moved,
        {
            "bf": jnp.full(2, 1.5, jnp.bfloat16),
            "int": new["int"],
            "kept": old["kept"],
            "z": jnp.array([0.5 + 0.5j], "complex64"),
        },
    )
    with pytest.raises(ValueError, match="leaf 'z' is only in the old tensors"):
        gradtx.incremental_update({k: v for k, v in new.items() if k != "z"}, old, 0.5)


@pytest.mark.wide
def test_ema_params_is_incremental_update_after_the_step():
    tx, alone = gradtx.ema_params(gradtx.adamw(0.1), 0.9), gradtx.adamw(0.1)
    grads = grads_of(PARAMS, 10)
    average = PARAMS
    for (params, mine, _), (_, expected) in zip(
        steps_of(tx, PARAMS, grads), by_hand(alone, grads, average), strict=True
    ):
        for k in params:
            np.testing.assert_allclose(mine[k], expected[k], rtol=1e-6, atol=1e-7)


def by_hand(tx, grads, average):
    for params, _, _ in steps_of(tx, PARAMS, grads):
        average = gradtx.incremental_update(params, average, 0.1)
        yield params, average
