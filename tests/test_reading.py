"""Reading a state Optax's way: the answer, or an error, and never None in silence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx


@pytest.fixture(autouse=True)
def settings():
    """Standard promotion: Optax does not run under the strict one."""
    with jax.numpy_dtype_promotion("standard"):
        yield


PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.ones(())}


def after(tx, steps=3):
    state = tx.init(PARAMS)
    for _ in range(steps):
        _, state = tx.update(PARAMS, state, PARAMS)
    return state


def equal(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("name", ["count", "mu", "nu"])
@pytest.mark.parametrize("get", [gradtx.tree.get, gradtx.tree_utils.tree_get])
def test_what_optaxs_adam_has_is_found_in_gradtxs(get, name):
    ours, theirs = (after(lib.chain(lib.clip_by_global_norm(1.0), lib.adam(0.1))) for lib in (gradtx, optax))
    equal(get(ours, name), optax.tree_utils.tree_get(theirs, name))


def test_injected_hyperparameters_are_found_as_in_optax():
    make = [
        lib.inject_hyperparams(lib.adamw)(lambda t: 0.1 / (1 + t), weight_decay=0.5)
        for lib in (gradtx, optax)
    ]
    ours, theirs = map(after, make)
    assert gradtx.tree.get(ours, "weight_decay") == optax.tree.get(theirs, "weight_decay") == 0.5
    read = gradtx.tree.get(ours, "hyperparams")
    # Optax keeps the rate of the last update, gradtx that of the next.
    assert read["learning_rate"] == gradtx.tree.get(ours, "learning_rate") == pytest.approx(0.1 / 4)
    assert {*optax.tree.get(theirs, "hyperparams")} <= {*read}


def test_a_decay_is_given_as_it_was_set_though_its_complement_is_kept():
    assert gradtx.tree.get(after(gradtx.adam(0.1, b1=0.8)), "b1") == 0.8


STATES = {
    "ours": lambda: after(gradtx.adam(0.1)),
    "Optax's": lambda: after(optax.adam(0.1)),
    "a tree": lambda: PARAMS,
}


@pytest.mark.parametrize("make", STATES.values(), ids=list(STATES))
def test_what_is_not_there_is_an_error_unless_there_is_a_default(make):
    with pytest.raises(KeyError, match="There is no 'momentum' in this"):
        gradtx.tree.get(make(), "momentum")
    assert gradtx.tree.get(make(), "momentum", None) is None
    assert gradtx.tree.get(make(), "momentum", 3) == 3


def test_the_error_lists_the_hyperparameters():
    with pytest.raises(KeyError, match=r"no 'momentum' in this dict\. Its hyperparameters are learning_rate"):
        gradtx.tree.get(after(gradtx.sgd(0.1)), "momentum")


def test_what_is_not_there_says_what_is():
    state = after(gradtx.sgd(0.1))
    with pytest.raises(
        KeyError, match=r"no 'rate' to set in this dict\. Its hyperparameters are learning_rate"
    ):
        gradtx.tree.set(state, rate=0.2)
    with pytest.raises(KeyError, match="For a value in its place give default="):
        gradtx.tree.get(state, "rate")


def test_several_of_a_name_are_an_error_that_says_where():
    state = after(gradtx.chain(gradtx.scale_by_adam(), gradtx.scale_by_lion()))
    with pytest.raises(KeyError, match=r"several 'mu' in .*scale_by_adam.*; .*scale_by_lion.*filtering="):
        gradtx.tree.get(state, "mu")
    lion = gradtx.tree.get(state, "mu", filtering=lambda path, _: "lion" in jax.tree_util.keystr(path))
    assert lion is state["slots"]["scale_by_lion"]["mu"]


def test_of_several_counts_each_is_read_by_the_code_of_the_error():
    tx = gradtx.chain(gradtx.accumulate(optax.adam(0.1), 2), gradtx.lookahead(gradtx.sgd(1.0), 5, 0.5))
    state = after(tx)
    with pytest.raises(KeyError, match=r"several 'count' .* counts its own updates") as caught:
        gradtx.tree.get(state, "count")
    said = caught.value.args[0]
    ways = said.partition("that you mean: ")[2].partition(". Or choose")[0].split("; ")
    read = {
        code: eval(code, {"state": state, "gradtx": gradtx})
        for code in (w.partition(" for ")[0] for w in ways)
    }
    assert "gradtx.step_count(state) for all updates" in ways and read["gradtx.step_count(state)"] == 3
    inside = "gradtx.step_count(state['slots']['lookahead']['inner'])"
    assert f"{inside} for the updates of what lookahead wraps" in ways and read[inside] == 3
    assert len(ways) == len(read) == len(gradtx.tree.get_all_with_path(state, "count"))
    chosen = eval(said.partition("filtering=, as in ")[2].rstrip("."), {"jax": jax})
    assert gradtx.tree.get(state, "count", filtering=chosen) is not None


def test_a_slot_is_meant_rather_than_its_transform():
    state = after(gradtx.sgd(0.1, momentum=0.9))
    assert gradtx.tree.get(state, "trace") is state["slots"]["trace"]["trace"]


@pytest.mark.parametrize("key", ["count", "mu", "ScaleByAdamState", "b1", "w", "momentum"])
def test_other_states_are_read_as_optax_reads_them(key):
    state = after(optax.inject_hyperparams(optax.adam)(0.1, b1=0.5))
    ours, theirs = (lib.tree.get_all_with_path(state, key) for lib in (gradtx, optax))
    assert [[str(k) for k in path] for path, _ in ours] == [[str(k) for k in path] for path, _ in theirs]
    assert all(a is b for (_, a), (_, b) in zip(ours, theirs, strict=True))


def test_set_is_optaxs_on_an_optax_state():
    state = after(optax.adam(0.1))
    ours, theirs = (lib.tree.set(state, count=7, mu=PARAMS) for lib in (gradtx, optax))
    equal(ours, theirs)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)


def test_set_on_a_gradtx_state_sets_numbers_slots_and_the_step():
    tx = gradtx.adam(0.1)
    state = gradtx.tree.set(after(tx), learning_rate=0.25, count=0, nu=PARAMS)
    assert (gradtx.hyperparams(state)["learning_rate"], gradtx.step_count(state)) == (0.25, 0)
    assert state["slots"]["scale_by_adam"]["nu"] is PARAMS
    jax.jit(tx.update)(PARAMS, state, PARAMS)
    with pytest.raises(ValueError, match="learning_rate must be >= 0"):
        gradtx.tree.set(state, learning_rate=-1.0)
    with pytest.raises(KeyError, match="There is no 'momentum' to set"):
        gradtx.tree.set(state, momentum=0.5)


def test_reading_inside_jit():
    @jax.jit
    def read(state):
        return gradtx.tree.get(state, "learning_rate"), gradtx.tree.get(state, "count")

    assert [float(x) for x in read(after(gradtx.sgd(0.25)))] == [0.25, 3.0]
