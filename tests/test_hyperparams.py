"""Hyperparameters: read as given, set by name wherever the state is, and refused with a reason."""

from __future__ import annotations

import inspect
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
import gradtx.flax
from catalogue import ENTRIES
from gradtx.core.spec.fields import Scalar, ScalarOrSchedule
from trajectories import x64

PARAMS = {"w": jnp.array([[0.5, -1.0, 2.0], [1.0, 0.25, -0.5]]), "b": jnp.array([1.0, -2.0])}
GRADS = jax.tree.map(lambda p: 0.3 * p * p - 0.2, PARAMS)
GIVEN = {"learning_rate": 0.0003, "b1": 0.9, "b2": 0.999999, "eps": 1e-8, "weight_decay": 0.01}


def _nnx(cls, tx):
    return cls(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), tx, wrt=nnx.Param)


HOLDERS = {
    "state": lambda tx: tx.init(PARAMS),
    "optax.chain": lambda tx: optax.chain(optax.clip(1.0), tx).init(PARAMS),
    "gradtx inside gradtx's wrapper of Optax": lambda tx: gradtx.chain(optax.chain(tx)).init(PARAMS),
    "Flax TrainState": lambda tx: train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=tx),
    "gradtx TrainState": lambda tx: gradtx.flax.TrainState.create(apply_fn=None, params=PARAMS, tx=tx),
    "nnx.Optimizer": lambda tx: _nnx(nnx.Optimizer, tx),
    "gradtx Optimizer": lambda tx: _nnx(gradtx.flax.Optimizer, tx),
}


@pytest.mark.brief
@pytest.mark.parametrize("holder", HOLDERS)
def test_values_are_floats_that_print_as_given(holder):
    found = gradtx.hyperparams(HOLDERS[holder](gradtx.adamw(**GIVEN)))
    assert {k: found[k] for k in GIVEN} == GIVEN
    assert {type(v) for v in found.values()} == {float}
    assert [repr(found[k]) for k in GIVEN] == ["0.0003", "0.9", "0.999999", "1e-08", "0.01"]


def test_values_print_as_given_under_x64():
    with x64():
        found = gradtx.hyperparams(gradtx.adamw(**GIVEN).init(jnp.zeros(2)))
    assert {k: repr(found[k]) for k in GIVEN} == {k: repr(v) for k, v in GIVEN.items()}


@pytest.mark.parametrize("b2", [0.9, 0.95, 0.99, 0.999, 0.9999, 0.999999, 0.0, 0.1, 0.3])
def test_a_decay_is_read_back_exactly(b2):
    assert gradtx.hyperparams(gradtx.scale_by_adam(b2=b2).init(PARAMS))["b2"] == b2


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_set_value_is_read_back_and_the_others_stay(holder):
    held = HOLDERS[holder](gradtx.adamw(**GIVEN))
    before = gradtx.hyperparams(held)
    held = gradtx.set_hyperparams(held, learning_rate=0.002, b2=0.95)
    assert gradtx.hyperparams(held) == {**before, "learning_rate": 0.002, "b2": 0.95}


def test_set_leaves_the_old_state_as_it_was():
    state = gradtx.sgd(0.1).init(PARAMS)
    gradtx.set_hyperparams(state, learning_rate=0.2)
    assert gradtx.hyperparams(state) == {"learning_rate": 0.1}


@pytest.mark.parametrize("holder", [h for h in HOLDERS if "TrainState" in h])
def test_step_count_of_a_train_state(holder):
    held = HOLDERS[holder](gradtx.sgd(0.1))
    held = held.apply_gradients(grads=GRADS).apply_gradients(grads=GRADS)
    assert gradtx.step_count(held) == held.step == 2


@pytest.mark.parametrize("cls", [nnx.Optimizer, gradtx.flax.Optimizer])
def test_step_count_of_an_nnx_optimizer(cls):
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = cls(model, gradtx.sgd(0.1), wrt=nnx.Param)
    for _ in range(3):
        optimizer.update(model, nnx.grad(lambda m: m(jnp.ones((1, 2))).sum())(model))
    assert gradtx.step_count(optimizer) == 3


def test_step_count_of_an_optax_chain_and_of_nested_states_is_the_outermost():
    inner = gradtx.chain(optax.chain(gradtx.sgd(0.1)), gradtx.scale(1.0))
    state = inner.init(PARAMS)
    for _ in range(2):
        _, state = inner.update(GRADS, state, PARAMS)
    assert gradtx.step_count((state,)) == 2


RECIPES = [
    n
    for n in gradtx.__all__
    if "gradtx.optimizers" in str(getattr(getattr(gradtx, n), "__module__", ""))
    and n != "dpsgd"  # its gradients have examples
]
OPTIONS = {"adafactor": {"min_dim_size_to_factor": 2}}
WHOLE = {"precondition_frequency", "update_interval", "inverse_every", "update_proj_gap"}
"""Arguments that are a number of calls, which 0.5 is not."""
# Used by init alone, or not by this step, at which all numbers are 0.5.
WITHOUT_EFFECT = {
    *("adagrad.initial_accumulator_value", "rmsprop.initial_scale", "adamax.b2", "fromage.min_norm"),
    *(f"rprop.{name}" for name in ("learning_rate", "eta_minus", "eta_plus", "weight_decay")),
    *("adopt.eps", "cocob.alpha", "cocob.eps", "dadapt_adamw.estim_lr0", "dowg.init_estim_sq_dist"),
    *("polyak_sgd.max_learning_rate", "schedule_free_sgd.warmup_steps", "schedule_free_adamw.warmup_steps"),
    *(f"radam.{name}" for name in ("eps", "eps_root", "threshold")),
    *("sophia.b2", "shampoo.eps", "kl_soap.init_factor", "scion.head_radius", "scion.embedding_radius"),
    *(f"kron.preconditioner_{name}" for name in ("update_probability", "lr", "init_scale")),
    *("shampoo.start_preconditioning_step", "splus.eps"),
    "contra_muon.eps",  # of which nothing is left where the iteration converges
}


def numeric(name):
    recipe = getattr(gradtx, name)
    hints = typing.get_type_hints(recipe)
    kinds = (Scalar, ScalarOrSchedule, Scalar | None, ScalarOrSchedule | None)
    found = [k for k in inspect.signature(recipe).parameters if hints[k] in kinds]
    return [k for k in found if k not in WHOLE]


def build(name, **values):
    return getattr(gradtx, name)(**{**dict.fromkeys(numeric(name), 0.5), **OPTIONS.get(name, {}), **values})


def at_step(step):
    """Gradients that change with the step, and parameters that lie along them."""
    grads = jax.tree.map(lambda p: jnp.sin(7.0 * p + 2.0 * step), PARAMS)
    return grads, jax.tree.map(lambda p, g: p - 10.0 * step * jnp.sign(g), PARAMS, grads)


_grown = {}


def grown(name):
    """An optimizer with every number 0.5, and its state after two steps."""
    if name not in _grown:
        tx = build(name)
        state = tx.init(PARAMS)
        for step in range(2):
            grads, params = at_step(step)
            _, state = tx.update(grads, state, params, **ENTRIES[name].extra)
        _grown[name] = tx, state
    return _grown[name]


def same_bits(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: np.array_equal(x, y), a, b)))


def test_the_recipes_are_all_there():
    assert len(RECIPES) >= 11
    assert sum(len(numeric(name)) for name in RECIPES) >= 60


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("name", RECIPES)
def test_every_argument_is_read_under_the_recipes_own_name(name):
    read = gradtx.hyperparams(grown(name)[1])
    assert {k: read[k] for k in numeric(name)} == dict.fromkeys(numeric(name), 0.5)


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("name", RECIPES)
def test_a_set_argument_acts_as_in_a_fresh_optimizer(name):
    tx, old = grown(name)
    grads, params = at_step(2)
    extra = ENTRIES[name].extra
    unchanged, after = tx.update(grads, old, params, **extra)
    for argument in numeric(name):
        fresh = build(name, **{argument: 0.25})
        state = gradtx.set_hyperparams(old, **{argument: 0.25})
        expected = fresh.update(grads, gradtx.rebase(fresh, old)[0], params, **extra)
        result = tx.update(grads, state, params, **extra)
        assert same_bits(result, expected), argument
        used = not same_bits((result[0], result[1]["slots"]), (unchanged, after["slots"]))
        assert used == (f"{name}.{argument}" not in WITHOUT_EFFECT), argument


def test_prodigys_betas_are_b1_and_b2():
    state = gradtx.prodigy(betas=(0.8, 0.99)).init(PARAMS)
    read = gradtx.hyperparams(gradtx.set_hyperparams(state, b1=0.7))
    assert (read["b1"], read["b2"]) == (0.7, 0.99)


def test_one_argument_may_feed_two_rules():
    tx = gradtx.adamw(0.1, weight_decay=0.5, decay_coupling="schedule", schedule=0.5)
    state = gradtx.set_hyperparams(tx.init(PARAMS), learning_rate=0.0, weight_decay=0.0)
    assert same_bits(tx.update(GRADS, state, PARAMS)[0], jax.tree.map(jnp.zeros_like, PARAMS))


SCHEDULED = gradtx.adamw(gradtx.warmup_linear_decay_schedule(0.0, 0.5, 2, 10))


def test_a_schedule_reads_as_its_next_value_and_its_numbers():
    state = SCHEDULED.init(PARAMS)
    _, state = SCHEDULED.update(GRADS, state, PARAMS)
    read = gradtx.hyperparams(state)
    assert {k: v for k, v in read.items() if k.startswith("learning_rate")} == {
        "learning_rate": 0.25,
        "learning_rate.decay_steps": 10.0,
        "learning_rate.end_value": 0.0,
        "learning_rate.init_value": 0.0,
        "learning_rate.peak_value": 0.5,
        "learning_rate.warmup_steps": 2.0,
    }


def test_setting_a_schedules_name_lists_what_can_be_set():
    with pytest.raises(ValueError, match=r"learning_rate is a schedule.*learning_rate\.peak_value.*rebase"):
        gradtx.set_hyperparams(SCHEDULED.init(PARAMS), learning_rate=0.1)


def test_a_schedules_number_is_set_by_its_dotted_name():
    state = gradtx.set_hyperparams(SCHEDULED.init(PARAMS), **{"learning_rate.init_value": 0.125})
    assert gradtx.hyperparams(state)["learning_rate"] == 0.125


def test_a_schedule_of_numbers_is_one_array_and_one_with_others_inside_keeps_their_names():
    line = gradtx.linear_schedule(0.0, 1.0, 4)
    numbers = gradtx.sgd(line).init(PARAMS)["numbers"]["sgd"]["learning_rate"]
    assert jax.tree.map(np.shape, numbers) == {"linear_schedule": (6,)}
    joined = gradtx.join_schedules([line, gradtx.constant_schedule(0.5)], [10])
    (numbers,) = gradtx.sgd(joined).init(PARAMS)["numbers"]["sgd"]["learning_rate"].values()
    assert jax.tree.map(np.shape, numbers) == {
        "schedules": {"0": {"linear_schedule": (6,)}, "1": {"constant_schedule": (1,)}},
        "boundaries": {"0": (), "0_rest": ()},
    }


@pytest.mark.wide
def test_several_numbers_of_a_schedule_are_set_at_once_also_in_a_sweep_and_traced():
    def make(peak):
        return gradtx.sgd(gradtx.warmup_linear_decay_schedule(0.0, peak, 2, 8)).init(PARAMS)

    changes = {"learning_rate.warmup_steps": 3.0, "learning_rate.peak_value": 0.25}
    states = {"one": make(0.5), "sweep": jax.vmap(make)(jnp.array([0.5, 1.0]))}
    for state in states.values():
        for change in (gradtx.set_hyperparams, jax.jit(gradtx.set_hyperparams)):
            new = gradtx.hyperparams(change(state, **changes))
            assert {name: np.unique(new[name]).tolist() for name in changes} == {
                name: [value] for name, value in changes.items()
            }
            assert np.all(new["learning_rate.decay_steps"] == 8)


def test_a_plain_callable_reads_as_its_next_value_and_cannot_be_set():
    tx = gradtx.sgd(lambda step: 0.5 / (1.0 + step.astype(jnp.float32)))
    state = tx.init(PARAMS)
    _, state = tx.update(GRADS, state)
    assert gradtx.hyperparams(state) == {"learning_rate": 0.25}
    with pytest.raises(ValueError, match="learning_rate is a function of the step, which is code"):
        gradtx.set_hyperparams(state, learning_rate=0.1)


def test_an_unknown_name_suggests_a_known_one():
    with pytest.raises(KeyError, match=r"'learning_rat'\. Did you mean 'learning_rate'\? There are b1, b2"):
        gradtx.set_hyperparams(gradtx.adam(0.1).init(PARAMS), learning_rat=0.1)


def test_an_ambiguous_name_lists_the_qualified_ones():
    state = gradtx.chain(gradtx.scale(2.0), gradtx.scale(3.0)).init(PARAMS)
    assert gradtx.hyperparams(state) == {"scale.step_size": 2.0, "scale_1.step_size": 3.0}
    with pytest.raises(KeyError, match=r"'step_size' is ambiguous: it may be scale.step_size, scale_1.step"):
        gradtx.set_hyperparams(state, step_size=1.0)
    state = gradtx.set_hyperparams(state, **{"scale_1.step_size": 4.0})
    assert gradtx.hyperparams(state) == {"scale.step_size": 2.0, "scale_1.step_size": 4.0}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"learning_rate": -0.1}, r"learning_rate must be >= 0, got -0\.1"),
        ({"b1": 1.0}, r"b1 must be in \[0, 1\), got 1\.0"),
        ({"eps": -1e-8}, "eps must be >= 0, got -1e-08"),
        ({"weight_decay": float("nan")}, r"weight_decay must be >= 0, got float\('nan'\)"),
        ({"b1": jnp.ones(3)}, r"b1 must be a number, got an array of shape \(3,\)"),
    ],
)
def test_a_value_out_of_its_domain_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        gradtx.set_hyperparams(gradtx.adamw(0.1).init(PARAMS), **values)


@pytest.mark.parametrize("value", ["0.1", True, None, gradtx.linear_schedule(0.0, 1.0, 2)])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(TypeError, match="learning_rate must be a number"):
        gradtx.set_hyperparams(gradtx.adamw(0.1).init(PARAMS), learning_rate=value)


@pytest.mark.parametrize("x", [(), {}, optax.adam(0.1).init(PARAMS)], ids=["tuple", "dict", "optax"])
@pytest.mark.parametrize("read", [gradtx.hyperparams, gradtx.step_count])
def test_what_holds_no_state_is_refused(read, x):
    with pytest.raises(TypeError, match=f"There is no gradtx state in this {type(x).__name__}"):
        read(x)


RATES = jnp.array([0.1, 0.2, 0.3])


def test_a_sweep_reads_arrays():
    states = jax.vmap(lambda rate: gradtx.adamw(rate).init(PARAMS))(RATES)
    read = gradtx.hyperparams(states)
    assert read["learning_rate"].tolist() == [0.1, 0.2, 0.3]
    assert read["b2"].tolist() == [0.999] * 3
    assert gradtx.step_count(states).tolist() == [0, 0, 0]


def test_a_sweep_is_set_by_one_number_or_one_each():
    states = jax.vmap(lambda rate: gradtx.adamw(rate).init(PARAMS))(RATES)
    states = gradtx.set_hyperparams(states, b1=0.5, learning_rate=np.array([0.4, 0.5, 0.6]))
    read = gradtx.hyperparams(states)
    assert read["b1"].tolist() == [0.5] * 3
    assert read["learning_rate"].tolist() == [0.4, 0.5, 0.6]


def test_a_sweep_checks_every_value():
    states = jax.vmap(lambda rate: gradtx.adamw(rate).init(PARAMS))(RATES)
    with pytest.raises(ValueError, match=r"b1 must be in \[0, 1\), got 1\.5"):
        gradtx.set_hyperparams(states, b1=np.array([0.5, 1.5, 0.6]))


def test_a_sweep_without_vmap_is_an_error_that_says_so():
    states = jax.vmap(lambda rate: gradtx.sgd(rate).init(PARAMS))(RATES)
    with pytest.raises(ValueError, match=r"sgd/learning_rate.* shape \(3,\).*under jax.vmap"):
        gradtx.sgd(0.1).update(GRADS, states, PARAMS)


def test_set_and_read_inside_jit():
    @jax.jit
    def double(state, b2):
        rate = gradtx.hyperparams(state)["learning_rate"]
        state = gradtx.set_hyperparams(state, learning_rate=2 * rate, b2=b2)
        return state, gradtx.step_count(state)

    state, count = double(gradtx.adam(0.25).init(PARAMS), 0.75)
    read = gradtx.hyperparams(state)
    assert (read["learning_rate"], read["b2"], int(count)) == (0.5, 0.75, 0)


def _committed():
    return jax.device_put(PARAMS, jax.devices()[1])


def _sharded():
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec("x"))
    return {"w": jax.device_put(jnp.ones((8, 2)), sharding)}


@pytest.mark.parametrize(
    "params", [lambda: PARAMS, _committed, _sharded], ids=["free", "committed", "sharded"]
)
def test_set_keeps_dtype_shape_sharding_and_committedness(params):
    old = gradtx.adamw(0.1).init(params())
    new = gradtx.set_hyperparams(old, learning_rate=0.2, b1=0.5)

    def kind(x):
        return x.dtype, x.shape, x.weak_type, x.committed, x.sharding

    assert jax.tree.map(kind, new) == jax.tree.map(kind, old)
