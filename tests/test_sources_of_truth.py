"""Numbers in the state, other numbers in the code: the state's are in force; nobody is silently ignored."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import struct

import gradtx
import gradtx.flax

PARAMS = {"w": jnp.array([1.0, -2.0, 0.5])}
GRADS = {"w": jnp.array([0.5, 1.0, -2.0])}


def assert_rate(updates, rate):
    np.testing.assert_array_equal(updates["w"], np.float32(-rate) * np.asarray(GRADS["w"]))


@pytest.mark.brief
def test_a_traced_rate_is_used_as_given():
    state = gradtx.sgd(0.5).init(PARAMS)

    @jax.jit
    def step(rate):
        return gradtx.sgd(rate).update(GRADS, state, PARAMS)

    for rate in (0.25, 2.0):
        assert_rate(step(rate)[0], rate)


def test_a_traced_rate_is_used_in_apply_gradients_and_inside_a_chain():
    def tx(rate):
        return gradtx.chain(gradtx.clip_by_global_norm(100.0), gradtx.adamw(rate, weight_decay=0.0))

    @jax.jit
    def moved(rate):
        return gradtx.apply_gradients(tx(rate), GRADS, tx(0.5).init(PARAMS), PARAMS)[0]

    expected = gradtx.apply_gradients(tx(0.125), GRADS, tx(0.125).init(PARAMS), PARAMS)[0]
    np.testing.assert_allclose(moved(0.125)["w"], expected["w"], rtol=1e-6)


def test_a_traced_number_of_a_schedule_is_used_as_given():
    def tx(peak):
        return gradtx.sgd(gradtx.linear_schedule(peak, 0.0, 10))

    state = tx(1.0).init(PARAMS)
    updates = jax.jit(lambda peak: tx(peak).update(GRADS, state, PARAMS)[0])(0.25)
    assert_rate(updates, 0.25)


def test_the_gradient_flows_to_a_traced_rate():
    state = gradtx.sgd(0.5).init(PARAMS)

    def total(rate):
        return gradtx.sgd(rate).update(GRADS, state, PARAMS)[0]["w"].sum()

    assert float(jax.grad(total)(0.25)) == -float(GRADS["w"].sum())


@pytest.mark.parametrize("compiled", [True, False], ids=["jit", "eager"])
def test_optax_inject_hyperparams_with_a_schedule(compiled):
    tx = optax.inject_hyperparams(gradtx.sgd)(learning_rate=optax.linear_schedule(1.0, 0.0, 4))
    update = jax.jit(tx.update) if compiled else tx.update
    state = tx.init(PARAMS)
    for rate in (1.0, 0.75, 0.5, 0.25, 0.0):
        updates, state = update(GRADS, state, PARAMS)
        assert_rate(updates, rate)


@pytest.mark.parametrize("compiled", [True, False], ids=["jit", "eager"])
def test_optax_inject_hyperparams_with_a_number_set_in_its_state(compiled):
    tx = optax.inject_hyperparams(gradtx.sgd)(learning_rate=0.5)
    update = jax.jit(tx.update) if compiled else tx.update
    state = tx.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.float32(0.125)
    assert_rate(update(GRADS, state, PARAMS)[0], 0.125)


def test_the_states_numbers_are_in_force():
    state = gradtx.sgd(0.5).init(PARAMS)
    updates, _ = gradtx.sgd(0.25).update(GRADS, state, PARAMS)
    assert_rate(updates, 0.5)
    assert gradtx.hyperparams(state) == {"learning_rate": 0.5}


def test_a_concrete_array_that_is_not_the_states_number_is_an_error():
    tx = gradtx.sgd(jnp.float32(0.5))
    state = gradtx.set_hyperparams(tx.init(PARAMS), learning_rate=0.25)
    with pytest.raises(ValueError, match="learning_rate"):
        tx.update(GRADS, state, PARAMS)


def test_rebase_changes_and_reports():
    old = gradtx.adamw(1e-3, weight_decay=0.1).init(PARAMS)
    new, changes = gradtx.rebase(gradtx.adamw(3e-4, b2=0.95, weight_decay=0.1), old)
    assert changes == {"learning_rate": (0.001, 0.0003), "b2": (0.999, 0.95)}
    read = gradtx.hyperparams(new)
    assert (read["learning_rate"], read["b2"], read["weight_decay"]) == (0.0003, 0.95, 0.1)


def test_rebase_keeps_slots_and_step():
    tx = gradtx.adam(1e-3)
    _, old = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    new, _ = gradtx.rebase(gradtx.adam(3e-4), old)
    assert gradtx.step_count(new) == 1
    assert all(
        a is b for a, b in zip(jax.tree.leaves(new["slots"]), jax.tree.leaves(old["slots"]), strict=True)
    )


def test_rebase_without_a_change_reports_nothing():
    tx = gradtx.adam(1e-3)
    assert gradtx.rebase(tx, tx.init(PARAMS))[1] == {}


def test_rebase_to_another_schedule_reports_what_came_and_went():
    old = gradtx.sgd(0.5).init(PARAMS)
    _, changes = gradtx.rebase(gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10)), old)
    assert changes == {
        "learning_rate": (0.5, None),
        "learning_rate.end_value": (None, 0.0),
        "learning_rate.init_value": (None, 1.0),
        "learning_rate.transition_begin": (None, 0.0),
        "learning_rate.transition_steps": (None, 10.0),
    }


def test_rebase_to_a_callable_evaluates_it_at_the_states_step():
    tx = gradtx.sgd(0.5)
    _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    tx = gradtx.sgd(lambda step: 1.0 / (1.0 + step.astype(jnp.float32)))
    state, _ = gradtx.rebase(tx, state)
    assert gradtx.hyperparams(state) == {"learning_rate": 0.5}
    assert_rate(tx.update(GRADS, state, PARAMS)[0], 0.5)


def test_rebase_of_a_sweep_sets_every_one():
    states = jax.vmap(lambda rate: gradtx.sgd(rate).init(PARAMS))(jnp.array([0.1, 0.2]))
    states, _ = gradtx.rebase(gradtx.sgd(0.5), states)
    assert gradtx.hyperparams(states)["learning_rate"].tolist() == [0.5, 0.5]


def test_rebase_refuses_other_slots():
    with pytest.raises(ValueError, match="it lacks the slots trace/trace"):
        gradtx.rebase(gradtx.sgd(0.1, momentum=0.9), gradtx.sgd(0.1).init(PARAMS))


class WithExtra(gradtx.flax.TrainState):
    """A subclass with a field of its own, as users write it."""

    ema: float = struct.field(pytree_node=False, default=0.0)


@pytest.mark.parametrize("cls", [gradtx.flax.TrainState, WithExtra])
def test_replacing_tx_brings_its_numbers_and_keeps_the_slots(cls):
    state = cls.create(apply_fn=None, params=PARAMS, tx=gradtx.sgd(0.5, momentum=0.5))
    state = state.apply_gradients(grads=GRADS).replace(tx=gradtx.sgd(0.25, momentum=0.0))
    assert gradtx.hyperparams(state)["learning_rate"] == 0.25
    assert gradtx.step_count(state) == state.step == 1
    np.testing.assert_array_equal(state.opt_state["slots"]["trace"]["trace"]["w"], GRADS["w"])
    moved = state.apply_gradients(grads=GRADS)
    assert_rate(jax.tree.map(jnp.subtract, moved.params, state.params), 0.25)


def test_replacing_another_field_keeps_the_states_numbers():
    state = WithExtra.create(apply_fn=None, params=PARAMS, tx=gradtx.sgd(0.5))
    state = gradtx.set_hyperparams(state, learning_rate=0.125).replace(ema=0.5)
    assert (gradtx.hyperparams(state)["learning_rate"], state.ema) == (0.125, 0.5)


def test_replacing_tx_and_opt_state_takes_the_opt_state_as_given():
    state = gradtx.flax.TrainState.create(apply_fn=None, params=PARAMS, tx=gradtx.sgd(0.5))
    state = state.replace(tx=gradtx.sgd(0.25), opt_state=gradtx.sgd(0.125).init(PARAMS))
    assert gradtx.hyperparams(state) == {"learning_rate": 0.125}


def test_replacing_tx_by_one_of_other_slots_is_refused():
    state = gradtx.flax.TrainState.create(apply_fn=None, params=PARAMS, tx=gradtx.sgd(0.5))
    with pytest.raises(ValueError, match="it lacks the slots scale_by_adam/mu, scale_by_adam/nu"):
        state.replace(tx=gradtx.adam(1e-3))


def configured(peak):
    return gradtx.adamw(gradtx.warmup_linear_decay_schedule(0.0, peak, 2, 10))


@pytest.mark.wide
def test_a_resume_with_another_peak_is_the_callers_choice_and_reported(tmp_path):
    tx = configured(1.0)
    _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        tx = configured(0.5)
        restored = checkpointer.restore(tmp_path / "state", tx.init(PARAMS))
    assert gradtx.hyperparams(restored)["learning_rate"] == 0.5  # halfway up to the checkpoint's peak
    rebased, changes = gradtx.rebase(tx, restored)
    assert changes == {"learning_rate.peak_value": (1.0, 0.5)}
    assert gradtx.hyperparams(rebased)["learning_rate"] == 0.25
    assert gradtx.step_count(rebased) == 1
