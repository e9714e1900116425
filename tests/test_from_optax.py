"""A run of Optax goes on in gradtx, and back: every optimizer that both have, and states that do not fit."""

from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from flax import nnx
from flax.training import train_state

import gradtx
from catalogue import ENTRIES
from gradtx.core.engine.steps import is_declared
from gradtx.core.engine.structure import Structure
from gradtx.interop.fitting import plain
from gradtx.interop.optax.table import row_of
from trajectories import deviation, x64

HANDOVER = 50
FALLING = gradtx.linear_schedule(0.1, 0.01, 80)
ONLY_W = {"w": True, "b": False}


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax does not run under strict promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def contrib(library):
    return optax.contrib if library is optax else library


def transforms_of(library):
    return optax.transforms if library is optax else library


def is_even(step):
    return step % 2 == 0


# Optax 0.2.5, the oldest that is tested with, takes a number alone.
DECAY_MAY_BE_SCHEDULED = jax.tree.leaves(optax.add_decayed_weights(FALLING).init({})) != []

# Each is built from either library. On purpose the rates are such that 100 steps amplify no rounding.
SHARED = {
    "sgd": lambda o: o.sgd(0.1),
    "sgd, nesterov": lambda o: o.sgd(0.05, 0.9, nesterov=True),
    "sgd, scheduled": lambda o: o.sgd(FALLING, 0.9),
    "adam": lambda o: o.adam(0.01),
    "adamw, masked and scheduled": lambda o: o.adamw(FALLING, mask=ONLY_W),
    "nadamw": lambda o: o.nadamw(0.01),
    "adagrad": lambda o: o.adagrad(0.1),
    "rmsprop": lambda o: o.rmsprop(0.01),
    "rmsprop, corrected": lambda o: o.rmsprop(0.01, bias_correction=True),
    "rmsprop, centered": lambda o: o.rmsprop(0.01, centered=True, momentum=0.9, initial_scale=1.0),
    "rmsprop, centered and corrected": lambda o: o.rmsprop(0.01, centered=True, bias_correction=True),
    "adadelta": lambda o: o.adadelta(0.1, weight_decay=0.1),
    "ademamix": lambda o: contrib(o).ademamix(0.01, b3=gradtx.linear_schedule(0.9, 0.999, 60)),
    "lion": lambda o: o.lion(0.003),
    "adafactor": lambda o: o.adafactor(0.01, min_dim_size_to_factor=2, momentum=0.9, weight_decay_rate=0.1),
    "adafactor, whole": lambda o: o.adafactor(FALLING, factored=False),
    "prodigy": lambda o: contrib(o).prodigy(0.1),
    "sm3": lambda o: o.sm3(0.05),
    "optimistic_gradient_descent": lambda o: o.optimistic_gradient_descent(FALLING),
    "optimistic_adam_v2": lambda o: o.optimistic_adam_v2(0.01),
    "dog": lambda o: contrib(o).dog(gradtx.linear_schedule(1.0, 0.5, 80), ("distance", 0.1)),
    "dog, heuristic": lambda o: contrib(o).dog(gradtx.constant_schedule(1.0)),
    "schedule_free_sgd": lambda o: contrib(o).schedule_free_sgd(0.05, weight_decay=0.1),
    "schedule_free_adamw, masked": lambda o: o.masked(contrib(o).schedule_free_adamw(0.01), ONLY_W),
    "schedule_free, in a chain": lambda o: o.chain(
        o.trace(0.5), contrib(o).schedule_free(o.chain(o.scale_by_adam(), o.scale(-0.01)), 0.01)
    ),
    "mechanize": lambda o: contrib(o).mechanize(o.sgd(0.1), eps=1e-20, s_init=0.1),
    "sam": lambda o: contrib(o).sam(o.adam(0.01), o.sgd(0.1), sync_period=3),
    "sam, whose climb goes on": lambda o: contrib(o).sam(
        o.adam(0.01), o.adam(0.1), sync_period=4, reset_state=False
    ),
    "add_decayed_weights": lambda o: o.chain(
        o.add_decayed_weights(FALLING if DECAY_MAY_BE_SCHEDULED else 0.1), o.scale(-0.1)
    ),
    "chain": lambda o: o.chain(
        o.clip_by_global_norm(1.0), o.chain(o.scale_by_adam(), o.scale_by_schedule(lambda t: -0.1 / (1 + t)))
    ),
    "named_chain": lambda o: o.named_chain(("b", o.ema(0.9)), ("a", o.trace(0.9)), ("c", o.scale(-0.1))),
    "masked": lambda o: o.chain(o.masked(o.adam(0.1), ONLY_W), o.scale(0.1)),
    "MultiSteps": lambda o: o.MultiSteps(o.adam(0.05), 3).gradient_transformation(),
    "MultiSteps, sum": lambda o: o.MultiSteps(
        o.sgd(FALLING, 0.9), 4, use_grad_mean=False
    ).gradient_transformation(),
    "apply_if_finite": lambda o: o.apply_if_finite(o.adam(0.05), 2),
    "partition": lambda o: o.partition({"w": o.adam(0.05), "b": o.sgd(0.05, 0.9)}, {"w": "w", "b": "b"}),
    "flatten": lambda o: o.flatten(o.adamw(0.05)),
    "apply_every": lambda o: o.chain(o.adam(0.05), o.apply_every(4)),
    "conditionally_transform": lambda o: o.chain(
        o.conditionally_transform(o.trace(0.9), is_even), o.scale(-0.05)
    ),
    "conditionally_mask": lambda o: o.conditionally_mask(o.adam(0.05), is_even),
    "selective_transform": lambda o: transforms_of(o).selective_transform(
        o.adam(0.05), freeze_mask={"w": False, "b": True}
    ),
    "inject_hyperparams": lambda o: o.inject_hyperparams(o.adamw)(
        learning_rate=lambda t: 0.1 / (1 + t), weight_decay=0.1
    ),
}

LEAVES = {"w": np.linspace(-1.0, 1.5, 12).reshape(4, 3), "b": np.array([0.3, -0.7])}


@functools.partial(jax.jit, static_argnums=0)
def scan(txs, params, states, steps):
    """All optimizers side by side, each on its own parameters, so that there is one program to compile."""

    def one(carry, t):
        params, states = carry
        new = []
        for tx, p, s in zip(txs, params, states, strict=True):
            grads = jax.tree.map(lambda x: 0.5 * x + 0.3 * jnp.sin(1.7 * t + 3 * x), p)
            updates, s = tx.update(grads, s, p)
            new.append((optax.apply_updates(p, updates), s))
        params, states = ([x[i] for x in new] for i in (0, 1))
        return (params, states), params

    return jax.lax.scan(one, (params, states), steps)


def run(txs, params, states, first):
    """The parameters after each of 50 steps, then the last parameters and states."""
    dtype = jax.tree.leaves(params)[0].dtype
    steps = jnp.arange(first, first + HANDOVER, dtype=dtype)
    (params, states), trajectories = scan(tuple(map(Structure.of, txs)), params, states, steps)
    return trajectories, params, states


def hand_over(names, dtype, bound):
    """Fifty steps in Optax and fifty in gradtx, and the other way round, equal a hundred in one of them."""
    theirs, ours = ([SHARED[name](library) for name in names] for library in (optax, gradtx))
    params = [jax.tree.map(lambda x: jnp.asarray(x, dtype), LEAVES) for _ in names]
    for one, other, move in ((theirs, ours, forth), (ours, theirs, back)):
        before, middle, states = run(one, params, [tx.init(p) for tx, p in zip(one, params, strict=True)], 0)
        unbroken, *_ = run(one, middle, states, HANDOVER)
        moved = list(map(move, one, other, states, middle))
        for tx, state, p in zip(other, moved, middle, strict=True):
            assert kinds(state) == kinds(tx.init(p))
        trajectories, *_ = run(other, middle, moved, HANDOVER)
        for name, start, *ends in zip(names, before, trajectories, unbroken, strict=True):
            actual, expected = (jax.tree.map(lambda *x: np.concatenate(x), start, end) for end in ends)
            # Adafactor's decay and momentum are float32 in Optax, also for float64 parameters.
            assert deviation(actual, expected) < (max(bound, 1e-6) if "adafactor" in name else bound), name


def forth(theirs, ours, state, params):
    return gradtx.from_optax_state(ours, state, params)


def back(ours, theirs, state, params):
    return gradtx.to_optax_state(ours, state, theirs.init(params))


def kinds(state):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), state)


@pytest.mark.wide
def test_a_run_handed_over_goes_on():
    with x64():
        hand_over(list(SHARED), np.float64, 1e-9)


@pytest.mark.full
def test_a_run_handed_over_goes_on_in_float32():
    hand_over(list(SHARED), np.float32, 3e-5)


P = {"w": jnp.ones((2, 3)), "b": jnp.zeros(2)}


def stepped(tx, params=P, times=2):
    """A state after a few updates."""
    state = tx.init(params)
    for _ in range(times):
        _, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
    return state


def own_of(name):
    """Optax's transform of an entry's name, with those of the entry's settings that it takes."""
    entry = ENTRIES[name]
    for module in (optax, optax.contrib, optax.transforms) if entry.make is None else ():
        factory = getattr(module, name, None)
        if factory is not None:
            taken = inspect.signature(factory).parameters
            return lambda variant: factory(
                **{k: v for k, v in entry.arguments(variant).items() if k in taken}
            )
    return None


UNMOVED = {
    "monitor": "what was measured is measured anew at the next update",
    "snapshot": "what was measured is measured anew at the next update",
    "measure_with_ema": "averages of measurements start anew",
    "guard": "not in Optax",
    "track": "what was measured is measured anew at the next update",
    "ema_params": "not in Optax",
    "precise_params": "what is beside a parameter has no place there",
    "polyak_average": "not in Optax",
    **dict.fromkeys(
        [
            *("adam_atan2", "adam_mini", "came", "laprop", "mars", "stable_adamw"),
            *("scale_by_adam_atan2", "scale_by_adam_mini", "scale_by_came", "scale_by_laprop"),
            *("normuon", "scale_by_normuon", "scale_by_soap", "soap", "kl_soap", "scale_by_kl_soap"),
            *("adamuon", "scale_by_adamuon", "dion2", "scale_by_dion2", "shampoo", "scale_by_shampoo"),
            *("kron", "scale_by_kron", "splus", "scale_by_splus", "dion", "scale_by_dion", "muown"),
            *("scale_by_muown", "contra_muon", "scale_by_contra_muon", "aurora", "scale_by_aurora"),
            *("soap_muon", "scale_by_soap_muon"),
            *("scale_by_leaf", "reduce_variance", "scale_by_stable_adam", "ema_nesterov"),
        ],
        "not in Optax",
    ),
}


@pytest.mark.parametrize("name", [n for n, e in ENTRIES.items() if e.kind != "schedule"])
def test_every_entry_is_moved_or_has_a_reason(name):
    entry = ENTRIES[name]
    for variant in ["", *entry.variants]:
        tx = entry.transform(variant)
        units = [u for u in tx.program.units if is_declared(u) and (u.transform.slots or u.transform.scalars)]
        known = all(row_of(u.transform) or u.transform.name == "flatten" for u in units)
        assert known != (name in UNMOVED), (
            f"{name} {variant}: a row in interop/optax/table.py, or a reason here"
        )


MOVED = [n for n, e in ENTRIES.items() if e.kind != "schedule" and n not in UNMOVED and own_of(n)]


def test_optax_has_most_entries():
    """A module of Optax that moved away would leave little to compare."""
    assert len(MOVED) >= 30


@pytest.mark.by_turns(5)
@pytest.mark.parametrize("name", MOVED)
def test_an_initial_state_of_each_entry_moves_both_ways(name):
    """And whatever is added to the catalogue under a name of Optax's."""
    for variant in ["", *ENTRIES[name].variants]:
        theirs, ours = own_of(name)(variant), ENTRIES[name].transform(variant)
        state = theirs.init(P)
        moved = gradtx.from_optax_state(ours, state, P, step=0)
        if name == "scale_by_distance_over_gradients":  # Optax knows the first distance at init
            moved["slots"][name]["max_dist"] = ours.init(P)["slots"][name]["max_dist"]
        jax.tree.map(np.testing.assert_array_equal, moved, ours.init(P))
        back = gradtx.to_optax_state(ours, moved, state)
        assert jax.tree.structure(back) == jax.tree.structure(state)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(data(a), data(b)), back, state)


def data(x):
    return jax.random.key_data(x) if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key) else x


@pytest.mark.wide
def test_bfloat16_moments_are_widened_and_nothing_is_aliased():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), P)
    state = stepped(optax.adam(0.1), params)
    moved = gradtx.from_optax_state(gradtx.adam(0.1), state, params)
    mu = moved["slots"]["scale_by_adam"]["mu"]
    assert mu["w"].dtype == jnp.float32
    np.testing.assert_array_equal(mu["w"], state[0].mu["w"].astype(jnp.float32))
    full = stepped(optax.adam(0.1))
    moved = gradtx.from_optax_state(gradtx.adam(0.1), full, P)
    jax.tree.map(lambda x: x.delete(), (full,))
    assert gradtx.step_count(moved) == 2 and float(moved["slots"]["scale_by_adam"]["nu"]["b"][0]) > 0


def test_a_state_is_placed_as_init_would():
    mesh = jax.make_mesh((2,), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    params = jax.tree.map(lambda p: jax.device_put(p, sharding), P)
    moved = gradtx.from_optax_state(gradtx.adam(0.1), stepped(optax.adam(0.1)), params)
    wanted = gradtx.adam(0.1).init(params)
    jax.tree.map(lambda a, b: a.sharding == b.sharding or pytest.fail(f"{a.sharding}"), moved, wanted)


def test_a_schedule_and_a_callable_go_on_from_the_step():
    rate = FALLING
    tx = gradtx.adam(lambda t: 0.1 / (1 + t))
    moved = gradtx.from_optax_state(tx, stepped(optax.adam(rate), times=3), P)
    assert gradtx.hyperparams(moved)["learning_rate"] == pytest.approx(0.025)


def test_a_step_can_be_given_where_optax_counts_none():
    state = stepped(optax.sgd(0.1, 0.9))
    assert gradtx.step_count(gradtx.from_optax_state(gradtx.sgd(0.1, 0.9), state, P)) == 0
    assert gradtx.step_count(gradtx.from_optax_state(gradtx.sgd(FALLING, 0.9), state, P, step=7)) == 7


@pytest.mark.wide
def test_lookahead_moves_with_its_slow_weights():
    theirs, ours = optax.lookahead(optax.adam(0.1), 3, 0.5), gradtx.lookahead(gradtx.adam(0.1), 3, 0.5)
    pair = optax.LookaheadParams.init_synced(P)
    state = theirs.init(pair)
    fast, own = P, ours.init(P)
    for i in range(8):
        if i == 4:
            own, fast = gradtx.from_optax_state(ours, state, pair), pair.fast
        grads = jax.tree.map(jnp.sin, pair.fast)
        updates, state = theirs.update(grads, state, pair)
        pair = optax.apply_updates(pair, updates)
        if i >= 4:
            fast, own = gradtx.apply_gradients(ours, grads, own, fast)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), fast, pair.fast)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5), gradtx.eval_params(own, fast), pair.slow
    )
    back = gradtx.to_optax_state(ours, own, theirs.init(pair))
    assert int(back.steps_since_sync) == int(state.steps_since_sync)
    with pytest.raises(ValueError, match=r"lookahead keeps the slow weights.*LookaheadParams\(fast, slow\)"):
        gradtx.from_optax_state(ours, state, pair.fast)
    with pytest.raises(ValueError, match="tx has no lookahead"):
        gradtx.from_optax_state(gradtx.adam(0.1), stepped(optax.adam(0.1)), pair)


@pytest.mark.wide
def test_accumulate_takes_the_state_of_multi_steps_and_a_wrapper_one_of_optax_inside():
    theirs = optax.MultiSteps(optax.adam(0.1), 3)
    state = stepped(theirs, times=5)
    moved = gradtx.from_optax_state(gradtx.accumulate(gradtx.adam(0.1), 3), state, P)
    assert gradtx.step_count(moved) == 5
    slots = moved["slots"]["accumulate"]
    np.testing.assert_array_equal(slots["sum"]["w"], jnp.full((2, 3), 2.0))
    assert int(slots["clock"]) == 1 and int(slots["inner"]["step"]) == 1
    inside = gradtx.from_optax_state(gradtx.MultiSteps(optax.adam(0.1), 3), state, P)
    jax.tree.map(np.testing.assert_array_equal, inside["slots"]["MultiSteps"]["inner"], state.inner_opt_state)
    with pytest.raises(ValueError, match="inner_opt_state: the structure of this state is not that of"):
        gradtx.from_optax_state(gradtx.MultiSteps(optax.lion(0.1), 3), state, P)


def test_a_transform_that_stays_optaxs_moves_inside_a_chain():
    theirs = optax.chain(optax.scale_by_radam(), optax.trace(0.9), optax.scale(-0.1))
    ours = gradtx.chain(optax.scale_by_radam(), gradtx.trace(0.9), gradtx.scale(-0.1))
    state = stepped(theirs)
    moved = gradtx.from_optax_state(ours, state, P)
    assert gradtx.step_count(moved) == 2
    jax.tree.map(np.testing.assert_array_equal, moved["slots"]["foreign"], state[0])
    jax.tree.map(np.testing.assert_array_equal, gradtx.to_optax_state(ours, moved, theirs.init(P)), state)


def test_what_is_measured_does_not_hinder():
    theirs = optax.chain(optax.snapshot("norm", gradtx.global_norm), optax.adam(0.1))
    ours = gradtx.chain(gradtx.monitor({"norm": gradtx.global_norm}), gradtx.adam(0.1))
    moved = gradtx.from_optax_state(ours, stepped(theirs), P)
    assert gradtx.step_count(moved) == 2 and moved["slots"]["monitor.norm"]["value"] == 0
    assert int(gradtx.to_optax_state(ours, moved, theirs.init(P))[1][0].count) == 2


def test_track_starts_anew_around_what_is_moved():
    ours = gradtx.track(gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1)))
    moved = gradtx.from_optax_state(ours, stepped(optax.adam(0.1)), P)
    inner = moved["slots"]["track"]["inner"]
    assert gradtx.step_count(moved) == 2 == int(inner["step"])
    assert float(inner["slots"]["scale_by_adam"]["nu"]["b"][0]) > 0
    assert int(gradtx.to_optax_state(ours, moved, optax.adam(0.1).init(P))[0].count) == 2


@pytest.mark.wide
def test_micro_steps_by_a_function_are_counted_inside():
    every = lambda t: 2 + t  # noqa: E731
    theirs = optax.MultiSteps(optax.adam(0.1), every)
    for wrapper in (gradtx.accumulate, gradtx.MultiSteps):
        moved = gradtx.from_optax_state(wrapper(gradtx.adam(0.1), every), stepped(theirs, times=6), P)
        (slots,) = moved["slots"].values()
        assert int(slots["clock"]) == int(slots["inner"]["step"]) == 2


def variables(optimizer):
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    return model, nnx.Optimizer(model, optimizer, wrt=nnx.Param)


@pytest.mark.wide
def test_the_state_of_an_nnx_optimizer_moves_both_ways():
    model, old = variables(optax.adam(0.1))
    grads = nnx.state(model, nnx.Param)
    for _ in range(2):
        old.update(model, grads)
    tx, params = gradtx.adam(0.1), nnx.state(model, nnx.Param)
    wanted = gradtx.from_optax_state(tx, *map(plain, (old, params)))
    for holder in (old, old.opt_state):
        state = gradtx.from_optax_state(tx, holder, params)
        assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))
        jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(state), jax.tree.leaves(wanted))
    _, new = variables(tx)
    nnx.update(new.opt_state, nnx.state(state))
    assert gradtx.step_count(new) == 2
    new.update(model, grads)
    back = gradtx.to_optax_state(tx, new, old.opt_state)
    nnx.update(old.opt_state, nnx.state(back))
    assert int(old.opt_state[0].count[...]) == 3
    old.update(model, grads)


def test_the_state_of_a_train_state_moves_both_ways():
    old = train_state.TrainState.create(apply_fn=None, params=P, tx=optax.adam(0.1))
    old = old.replace(opt_state=stepped(optax.adam(0.1)))
    new = train_state.TrainState.create(apply_fn=None, params=P, tx=gradtx.adam(0.1))
    new = new.replace(opt_state=gradtx.from_optax_state(gradtx.adam(0.1), old, P))
    back = gradtx.to_optax_state(gradtx.adam(0.1), new, old)
    jax.tree.map(np.testing.assert_array_equal, back, old.opt_state)


def test_injected_hyperparameters_must_be_those_of_tx():
    theirs = optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3, weight_decay=0.1, b2=0.99)
    state = stepped(theirs)
    moved = gradtx.from_optax_state(gradtx.adamw(1e-3, weight_decay=0.1, b2=0.99), state, P)
    assert gradtx.step_count(moved) == 2
    with pytest.raises(
        ValueError,
        match=r"optax_state.hyperparams has other .*: b2 is 0\.99 there and 0\.999 in tx; learning",
    ):
        gradtx.from_optax_state(gradtx.adamw(3e-4, weight_decay=0.1), state, P)
    gradtx.from_optax_state(gradtx.adamw(3e-4, weight_decay=0.1), state.inner_state, P)
    set_here = gradtx.set_hyperparams(moved, learning_rate=5e-4)
    back = gradtx.to_optax_state(gradtx.adamw(1e-3, weight_decay=0.1, b2=0.99), set_here, state)
    assert float(back.hyperparams["learning_rate"]) == pytest.approx(5e-4)


ADAM = gradtx.adam(0.1)
REFUSED = {
    "another optimizer": (
        ADAM,
        lambda: stepped(optax.lion(0.1)),
        r"adam.* wants Optax's ScaleByAdamState.*ScaleByLionState at optax_state\[0\]",
    ),
    "no state": (ADAM, lambda: optax.sgd(0.1).init(P), "the Optax state has no more states"),
    "more state": (
        gradtx.sgd(0.1),
        lambda: optax.adam(0.1).init(P),
        r"has ScaleByAdamState at optax_state\[0\], for which tx",
    ),
    "unknown": (ADAM, lambda: optax.adabelief(0.1).init(P), "wants Optax's ScaleByAdamState"),
    "missing leaf": (
        ADAM,
        lambda: optax.adam(0.1).init({"w": P["w"]}),
        "leaf 'b' is only in the slot 'mu' of scale_by_adam",
    ),
    "wrong shape": (
        ADAM,
        lambda: optax.adam(0.1).init({**P, "b": jnp.ones(3)}),
        r"'mu' of scale_by_adam, leaf 'b', has shape \(3,\)",
    ),
    "narrower": (
        gradtx.adam(0.1, mu_dtype="bfloat16"),
        lambda: optax.adam(0.1).init(P),
        "leaf 'b', is float32 in the Optax state, and tx keeps it in bfloat16",
    ),
    "unmasked": (
        gradtx.masked(ADAM, ONLY_W),
        lambda: optax.adam(0.1).init(P),
        "leaf 'b' has a slot 'mu' in ScaleByAdamState, and is masked out in scale_by_adam",
    ),
    "masked": (
        ADAM,
        lambda: optax.masked(optax.adam(0.1), ONLY_W).init(P),
        "leaf 'b' has a slot 'mu' in scale_by_adam, and is masked out in ScaleByAdamState",
    ),
    "counters": (
        gradtx.adam(FALLING),
        lambda: (stepped(optax.scale_by_adam()), optax.scale_by_schedule(FALLING).init(P)),
        r"counters of the Optax state disagree.*optax_state\[1\].count is 0, optax_state\[0\].count is 2",
    ),
    "uncounted": (
        gradtx.sgd(FALLING, 0.9),
        lambda: stepped(optax.sgd(0.1, 0.9)),
        "does not say how many updates were made, and sgd.learning_rate of tx depends",
    ),
    "uncounted, first": (
        gradtx.rmsprop(0.1, first_gradient=True),
        lambda: stepped(optax.rmsprop(0.1)),
        "scale_by_rms of tx depends on it. Pass step=",
    ),
    "begun": (
        gradtx.dog(1.0),
        lambda: stepped(optax.contrib.dog(1.0)),
        r"how many updates were made, and optax_state\[1\].is_init_step says that there was one. Pass step=",
    ),
    "accumulators": (
        gradtx.sm3(0.1),
        lambda: optax.sm3(0.1).init({"w": P["w"]}),
        "'b' is only in the slot|not of these parameters",
    ),
    "a path in a vector": (
        gradtx.flatten(gradtx.mechanize(gradtx.sgd(0.1))),
        lambda: optax.flatten(optax.contrib.mechanize(optax.sgd(0.1))).init(P),
        "mechanize: Optax's MechanicState says what it does together with the parameters",
    ),
    "corrected": (
        gradtx.rmsprop(0.1, bias_correction=True),
        lambda: stepped(optax.rmsprop(0.1)),
        r"\(bias_correction=True\) wants",
    ),
    "guard": (
        gradtx.guard(ADAM),
        lambda: optax.adam(0.1).init(P),
        "guard has a state that Optax has no counterpart for",
    ),
    "groups": (
        gradtx.partition({"x": ADAM, "y": ADAM}, {"w": "x", "b": "y"}),
        lambda: optax.partition({"x": optax.adam(0.1), "z": optax.adam(0.1)}, {"w": "x", "b": "z"}).init(P),
        "y.scale_by_adam wants Optax's ScaleByAdamState",
    ),
    "unfactored": (
        gradtx.adafactor(0.1, min_dim_size_to_factor=2),
        lambda: optax.adafactor(0.1).init(P),
        r"'v_row' of scale_by_factored_rms, leaf 'w', has shape \(1,\)",
    ),
    "multi steps": (
        gradtx.MultiSteps(gradtx.sgd(0.1, 0.9), 2, should_skip_update_fn=gradtx.skip_not_finite),
        lambda: optax.MultiSteps(optax.sgd(0.1, 0.9), 2).init(P),
        "skip_state is another tree",
    ),
    "inner counters": (
        gradtx.MultiSteps(ADAM, 2),
        lambda: stepped(optax.MultiSteps(optax.adam(0.1), 2), times=4)._replace(gradient_step=jnp.int32(5)),
        "inner_opt_state is at step 2, and optax_state at step 5",
    ),
    "gradtx's": (ADAM, lambda: ADAM.init(P), "optax_state is a state of gradtx already"),
    "a checkpoint": (
        ADAM,
        lambda: [{"count": 0, "mu": P, "nu": P}, {}],
        r"is no state of an Optax transform. If it comes from a checkpoint",
    ),
    "an array": (ADAM, lambda: jnp.ones(3), "optax_state is no state"),
    "an abstract state": (
        ADAM,
        lambda: jax.eval_shape(lambda: optax.adam(0.1).init(P)),
        r"optax_state\[0\].count is abstract. Pass a state with arrays",
    ),
    "negative count": (
        ADAM,
        lambda: (optax.ScaleByAdamState(jnp.int32(-1), P, P),),
        r"optax_state\[0\].count must be a number of steps",
    ),
}


@pytest.mark.by_turns(10)
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_the_reason(case):
    tx, make, message = REFUSED[case]
    state = make()
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        gradtx.from_optax_state(tx, state, P)
    assert len(str(caught.value)) < 600


def test_distances_move_both_ways_and_an_optimizer_of_optax_never_stands_still():
    """Optax's has no counter, and needs a first distance."""
    ours = gradtx.chain(gradtx.scale_by_distance_over_gradients(0.1), gradtx.scale(-1.0))
    theirs = optax.chain(optax.scale_by_distance_over_gradients(0.1), optax.scale(-1.0))
    grads = jax.tree.map(jnp.ones_like, P)
    for times in (0, 2):
        moved = gradtx.from_optax_state(ours, stepped(theirs, times=times), P)
        back = gradtx.to_optax_state(ours, stepped(ours, times=times), theirs.init(P))
        updates, expected = ours.update(grads, moved, P)[0], theirs.update(grads, back, P)[0]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)
        assert all((x != 0).all() for x in jax.tree.leaves(expected))


def test_a_step_that_contradicts_the_counters_and_foreign_transforms_are_refused():
    with pytest.raises(ValueError, match="step=9 was given, and the Optax state is at step 2"):
        gradtx.from_optax_state(ADAM, stepped(optax.adam(0.1)), P, step=9)
    dog, begun = gradtx.dog(1.0), stepped(optax.contrib.dog(1.0))
    with pytest.raises(ValueError, match=r"at step 0, and optax_state\[1\].is_init_step says that the first"):
        gradtx.from_optax_state(dog, begun, P, step=0)
    assert gradtx.step_count(gradtx.from_optax_state(dog, begun, P, step=2)) == 2
    with pytest.raises(TypeError, match="from_optax_state takes a gradtx transform"):
        gradtx.from_optax_state(optax.adam(0.1), stepped(optax.adam(0.1)), P)
    with pytest.raises(ValueError, match=r"optax_state\[0\].mu\['b'\] has shape \(3,\)"):
        gradtx.to_optax_state(ADAM, ADAM.init(P), optax.adam(0.1).init({**P, "b": jnp.ones(3)}))
    with pytest.raises(TypeError, match="not a gradtx state"):
        gradtx.to_optax_state(ADAM, optax.adam(0.1).init(P), optax.adam(0.1).init(P))


@pytest.mark.wide
def test_sophia_moves_with_the_age_of_its_estimate():
    """The loss has a diagonal Hessian, of which every estimate is right."""

    def loss(params):
        return sum((x**4).sum() for x in jax.tree.leaves(params)) / 12

    def ran(tx, params, state, steps):
        @jax.jit
        def step(params, state):
            updates, state = tx.update(jax.grad(loss)(params), state, params, obj_fn=loss)
            return optax.apply_updates(params, updates), state

        for _ in range(steps):
            params, state = step(params, state)
        return params, state

    kwargs = {"learning_rate": 0.05, "gamma": 0.5, "update_interval": 3}
    theirs, ours = optax.contrib.sophia(**kwargs), gradtx.sophia(**kwargs)
    params, state = ran(theirs, LEAVES, theirs.init(LEAVES), 7)
    expected, last = ran(theirs, params, state, 7)
    moved = gradtx.from_optax_state(ours, state, params)
    assert moved["slots"]["scale_by_sophia"]["age"] == 1
    assert gradtx.step_count(moved["slots"]["scale_by_sophia"]["inner"]) == 3
    actual, after = ran(ours, params, moved, 7)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), actual, expected)
    back = gradtx.to_optax_state(ours, after, last)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4), back[0].nu, last[0].nu)
