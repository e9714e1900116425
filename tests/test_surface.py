"""The small wrappers under Optax's names: step by step against Optax, and where it is wrong, why not."""

from __future__ import annotations

import functools
import inspect
import pickle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import catalogue
import gradtx
from gradtx import testing
from gradtx.inspect.docstrings import meanings
from trajectories import x64

STEPS = 60
RNG = np.random.default_rng(0)
PARAMS = {"bias": RNG.normal(size=()), "empty": np.zeros((0, 2)), "w": RNG.normal(size=(4, 3))}
GRADS = [
    jax.tree.map(lambda p: RNG.normal(size=p.shape) * 10 ** RNG.uniform(-2, 2), PARAMS) for _ in range(STEPS)
]


@pytest.fixture(autouse=True)
def settings():
    """Standard promotion: Optax does not run under the strict one."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def run(tx, grads=GRADS, params=PARAMS, **extra):
    """The updates of every step and the states after it, compiled."""
    params = jax.tree.map(jnp.asarray, params)
    state, history = tx.init(params), []
    step = jax.jit(lambda g, s, p: tx.update(g, s, p, **extra))
    for g in grads:
        updates, state = step(jax.tree.map(jnp.asarray, g), state, params)
        history.append((updates, state))
    return history


def assert_close(ours, theirs, rtol=1e-12):
    def check(a, b):
        np.testing.assert_allclose(testing.compare.wide(a), testing.compare.wide(b), rtol=rtol, atol=1e-300)

    jax.tree.map(check, ours, theirs)


def assert_same_updates(ours, theirs, rtol=1e-12):
    with x64():
        for (a, _), (b, _) in zip(run(ours), run(theirs), strict=True):
            assert_close(a, b, rtol)


def norm(updates):
    return jnp.sqrt(sum(jnp.sum(u * u) for u in jax.tree.leaves(updates)))


INNERS = {
    "adam": lambda library: library.adam(0.1),
    "clip, then momentum": lambda library: library.chain(
        library.clip_by_global_norm(1.0), library.sgd(0.1, momentum=0.9)
    ),
    "adamw": lambda library: library.adamw(0.1, weight_decay=0.1),
    "one block": lambda library: library.clip_by_block_rms(0.1),
}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("inner", INNERS)
def test_flatten_follows_optax(inner):
    make = INNERS[inner]
    assert_same_updates(gradtx.flatten(make(gradtx)), optax.flatten(make(optax)))


def test_flatten_runs_an_optax_transform():
    assert_same_updates(gradtx.flatten(optax.adam(0.1)), optax.flatten(optax.adam(0.1)))


@pytest.mark.wide
def test_flatten_of_an_elementwise_transform_changes_nothing():
    tx = gradtx.adam(0.1)
    for (a, _), (b, _) in zip(run(gradtx.flatten(tx)), run(tx), strict=True):
        assert_close(a, b, rtol=1e-6)


MIXED = {
    "half": jnp.array([1.0, -2.0], jnp.bfloat16),
    "none": None,
    "w": jnp.array([[0.5, 3.0]]),
    "z": jnp.array([1 + 1j], jnp.complex64),
}


@pytest.mark.wide
def test_flatten_keeps_each_leafs_dtype():
    """Optax's vector makes each update float32 beside a float32 leaf, and complex beside a complex one."""
    tx = gradtx.flatten(gradtx.adam(0.1))
    updates, state = tx.update(MIXED, tx.init(MIXED), MIXED)
    assert jax.tree.map(lambda u: u.dtype, updates) == jax.tree.map(lambda p: p.dtype, MIXED)
    mu = state["slots"]["flatten"]["inner"]["slots"]["scale_by_adam"]["mu"]
    assert jax.tree.map(lambda x: (x.shape, x.dtype.name), mu) == {
        "complex": ((1,), "complex64"),
        "real": ((4,), "float32"),
    }
    expected, _ = gradtx.adam(0.1).update(MIXED, gradtx.adam(0.1).init(MIXED), MIXED)
    assert_close(updates, expected, rtol=1e-6)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("library", [gradtx, optax], ids=["gradtx", "optax"])
@pytest.mark.parametrize("absent", [["half"], ["w"], ["z"], ["half", "w"], ["half", "w", "z"]])
def test_flatten_leaves_what_has_no_gradient_bit_for_bit(absent, library):
    """With a transform of either library inside; Optax's own flatten fails."""
    tx = gradtx.flatten(library.adam(0.1))
    _, state = tx.update(MIXED, tx.init(MIXED), MIXED)
    grads = {k: None if k in absent else g for k, g in MIXED.items()}
    updates, after = jax.jit(tx.update)(grads, state, MIXED)
    assert {k for k, u in updates.items() if u is None} == {"none", *absent}

    def moments(state):
        inner = state["slots"]["flatten"]["inner"]
        return inner["slots"]["scale_by_adam"]["mu"] if library is gradtx else inner[0].mu

    where = {"half": ("real", slice(0, 2)), "w": ("real", slice(2, 4)), "z": ("complex", slice(0, 1))}
    for name, (group, part) in where.items():
        same = np.array_equal(moments(state)[group][part], moments(after)[group][part])
        assert same == (name in absent), name


@pytest.mark.parametrize("absent", ["half", "w", "z"])
def test_flatten_moves_the_others_as_without_it(absent):
    flat, plain = gradtx.flatten(gradtx.adam(0.1)), gradtx.adam(0.1)
    results = []
    for tx in (flat, plain):
        _, state = tx.update(MIXED, tx.init(MIXED), MIXED)
        results.append(tx.update({**MIXED, absent: None}, state, MIXED)[0])
    assert_close(*results, rtol=1e-6)


AROUND = {
    "a guard": lambda tx: gradtx.apply_if_finite(tx, 5),
    "float32": lambda tx: gradtx.precise_params(tx, "split16"),
    "a report": gradtx.track,
}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("around", AROUND)
def test_what_is_wrapped_sees_the_parameters_that_have_no_gradient(around):
    """As it does by itself: here they say which part of a vector is whose."""
    make, params = AROUND[around], {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(2, jnp.bfloat16)}
    flat, plain = (make(tx) for tx in (gradtx.flatten(gradtx.adam(0.1)), gradtx.adam(0.1)))
    results = []
    for tx in (flat, plain):
        _, state = tx.update(params, tx.init(params), params)
        results.append(tx.update({**params, "a": None}, state, params)[0])
    assert results[0]["a"] is None
    assert_close(*results, rtol=1e-2)


@pytest.mark.wide
def test_flatten_with_scales_asks_for_a_gradient_of_each_leaf():
    """A scale beside elements of several leaves cannot stay for some of them."""
    params = {"a": jnp.ones(300), "b": jnp.ones(700)}
    for inner in (gradtx.adam(0.1), gradtx.apply_if_finite(gradtx.adam(0.1), 5)):
        tx = gradtx.precision(gradtx.flatten(inner), "8bit", min_size=0)
        state = tx.init(params)
        tx.update(params, state, params)
        with pytest.raises(
            ValueError, match=r"the leaf a has no gradient .*scale_by_adam\.mu is kept in blocks"
        ):
            tx.update({**params, "a": None}, state, params)


def test_flatten_measures_what_is_left():
    """A block's root mean square is that of the leaves with a gradient: nothing is filled with zeros."""
    tx = gradtx.flatten(gradtx.clip_by_block_rms(1.0))
    params = {"a": jnp.zeros(3), "b": jnp.zeros(2)}
    updates, _ = tx.update({"a": None, "b": jnp.array([2.0, -2.0])}, tx.init(params), params)
    assert updates["b"].tolist() == [1.0, -1.0]


def test_flatten_without_the_parameters_names_the_leaf_that_has_no_gradient():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    tx = gradtx.flatten(gradtx.adam(0.1))
    with pytest.raises(
        ValueError, match=r"flatten: the leaf b has no gradient.*update\(grads, state, params"
    ):
        tx.update({"a": params["a"], "b": None}, tx.init(params))
    masked = gradtx.masked(tx, "a")
    assert masked.update({"a": params["a"], "b": None}, masked.init(params))[0]["a"] is not None


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("inner", [gradtx.adam, optax.adam], ids=["ours", "theirs"])
def test_flatten_names_the_leaf_that_was_none_at_init(inner):
    params = {"a": jnp.ones(3), "late": jnp.ones(2), "c": jnp.ones(())}
    tx = gradtx.flatten(inner(0.1))
    state = tx.init({**params, "late": None})
    words = (
        r"flatten: the state was made for other leaves: of 4 elements in real leaves, which have 6 now\. "
        r"Probably the leaf 'late' was None or masked out at init .*Call init again"
    )
    for given in ((params, state, params), (params, state), ({**params, "a": None}, state, params)):
        with pytest.raises(ValueError, match=words):
            tx.update(*given)
    other = {**params, "a": jnp.ones(7), "late": jnp.ones(2, complex)}
    fewer = {**params, "late": None, "a": None}
    with pytest.raises(ValueError, match="Probably a leaf that init saw is None or masked out now"):
        tx.update(fewer, state, fewer)
    with pytest.raises(ValueError, match=r"one of the leaves a, c, late was None .* or had another dtype"):
        tx.update(other, state, other)


def test_flatten_keeps_no_state_for_what_is_masked_out():
    tx = gradtx.masked(gradtx.flatten(gradtx.trace(0.9)), "w")
    params = {"w": jnp.ones((2, 2)), "bias": jnp.ones(3)}
    state = tx.init(params)
    assert state["slots"]["flatten"]["inner"]["slots"]["trace"]["trace"]["real"].shape == (4,)
    assert tx.update(params, state, params)[0]["bias"].tolist() == [1.0] * 3


def test_flatten_of_no_leaves():
    tx = gradtx.flatten(gradtx.adam(0.1))
    assert tx.update({}, tx.init({}), {})[0] == {}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("others", [(), ("data",)], ids=["some sharded", "all sharded"])
def test_flatten_of_sharded_leaves_keeps_its_state_replicated(others, compiled):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    params = {
        "a": jax.device_put(jnp.ones((16, 2)), NamedSharding(mesh, PartitionSpec("data"))),
        "b": jax.device_put(jnp.ones(8), NamedSharding(mesh, PartitionSpec(*others))),
    }
    tx = gradtx.flatten(gradtx.adam(0.1))
    state, step = tx.init(params), tx.update
    if compiled:
        step = jax.jit(step, donate_argnums=1)
    for _ in range(3):
        updates, state = step(params, state, params)
    vectors = jax.tree.leaves(state["slots"]["flatten"]["inner"]["slots"])
    assert [v.sharding.is_fully_replicated for v in vectors] == [True, True]
    assert not compiled or step._cache_size() == 1
    np.testing.assert_allclose(updates["a"], -0.1, rtol=1e-5)


def test_flatten_takes_a_transform():
    with pytest.raises(TypeError, match=r"flatten takes transforms.*Call it: sgd"):
        gradtx.flatten(gradtx.sgd)


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_apply_every_follows_optax(k):
    assert_same_updates(gradtx.apply_every(k), optax.apply_every(k))


@pytest.mark.wide
def test_apply_every_after_adam_follows_optax():
    ours = gradtx.chain(gradtx.adam(0.1), gradtx.apply_every(4))
    # Four updates may cancel, and the sum then has more than their rounding errors.
    assert_same_updates(ours, optax.chain(optax.adam(0.1), optax.apply_every(4)), rtol=1e-10)


def test_12_apply_every_forgets_a_bad_sum():
    """Optax starts anew by multiplying with 0, and 0 * NaN is NaN for ever (#828)."""
    grads = [jnp.array([x]) for x in (1.0, jnp.nan, 3.0, 4.0, 5.0, 6.0)]
    params = jnp.zeros(1)
    ours, theirs = (
        [float(u[0]) for u, _ in run(lib.apply_every(2), grads, params)] for lib in (gradtx, optax)
    )
    assert np.isnan(ours[1]) and ours[2:] == [0.0, 7.0, 0.0, 11.0]
    assert all(np.isnan(theirs[2:]))


def test_apply_every_counts_each_gradient_once():
    """Also those of a leaf that is absent when the sum goes out, or when the next one begins."""
    tx, params = gradtx.apply_every(2), {"a": jnp.zeros(()), "b": jnp.zeros(())}
    state, out = tx.init(params), []
    for a in (1.0, None, None, 8.0, 16.0, 32.0):
        grads = {"a": None if a is None else jnp.float32(a), "b": jnp.float32(1.0)}
        updates, state = tx.update(grads, state, params)
        out.append(None if updates["a"] is None else float(updates["a"]))
    assert out == [0.0, None, None, 9.0, 0.0, 48.0]


def test_apply_every_goes_on_with_another_k():
    tx, one = gradtx.apply_every(3), jnp.ones(())
    _, state = tx.update(one, tx.init(one))
    _, state = tx.update(one, gradtx.set_hyperparams(state, k=5))
    out = []
    for _ in range(3):
        u, state = tx.update(one, state)
        out.append(float(u))
    assert out == [0.0, 0.0, 5.0]


def value(state, *path):
    return state["slots"][".".join(path)]["value"]


def test_snapshot_follows_optax():
    """From the first update on; at `init` Optax's measures the parameters in the place of updates."""
    with x64():
        ours = run(gradtx.chain(gradtx.scale(0.5), gradtx.snapshot("norm", norm), gradtx.clip(1.0)))
        theirs = run(optax.chain(optax.scale(0.5), optax.snapshot("norm", norm), optax.clip(1.0)))
        for (a, s), (b, t) in zip(ours, theirs, strict=True):
            assert_close(a, b)
            assert_close(value(s, "snapshot", "norm"), t[1].measurement["norm"])


def measures(library, decay=0.9):
    return {
        "norm": norm,
        "average": library.measure_with_ema(norm, decay),
        "biased": library.measure_with_ema(norm, decay, debias=False),
        "large": library.measure_with_ema(lambda u: norm(u) > 10, 0.5),
        "tree": library.measure_with_ema(lambda u: {"w": jnp.abs(u["w"]).max(), "b": u["bias"]}, 0.8),
        "velocity": library.trace(0.9),
    }


@pytest.mark.wide
def test_monitor_follows_optax():
    with x64():
        ours = run(gradtx.chain(gradtx.monitor(measures(gradtx)), gradtx.scale(2.0)))
        monitor = optax.monitor(measures(optax))
        # Optax's state has another structure after the first update, and a bool average is float32.
        theirs = run(optax.chain(monitor, optax.scale(2.0)))
        for (a, s), (b, t) in zip(ours, theirs, strict=True):
            assert_close(a, b)
            for name, expected in t[0].measurements.items():
                assert_close(value(s, "monitor", name), expected, rtol=1e-6 if name == "large" else 1e-12)


@pytest.mark.wide
def test_monitors_state_keeps_its_structure():
    """Optax's gains its measurements at the first update, so that `scan` fails."""
    tx, theirs = gradtx.monitor(measures(gradtx)), optax.monitor(measures(optax))
    params = jax.tree.map(jnp.asarray, PARAMS)

    def steps(tx):
        return jax.lax.scan(lambda s, _: tx.update(params, s, params)[::-1], tx.init(params), None, length=2)

    assert gradtx.step_count(steps(tx)[0]) == 2
    with pytest.raises(TypeError, match="scan"):
        steps(theirs)


def test_an_average_in_a_narrow_dtype_is_stored_in_it():
    tx = gradtx.measure_with_ema(norm, 0.9, accumulator_dtype="bfloat16")
    _, state = tx.update(jnp.ones(4), tx.init(jnp.ones(4)))
    assert (value(state, "measure_with_ema").dtype, float(value(state, "measure_with_ema"))) == (
        jnp.bfloat16,
        2.0,
    )


def test_the_decay_of_an_average_is_a_hyperparameter():
    tx = gradtx.monitor(measures(gradtx))
    numbers = gradtx.hyperparams(tx.init(jax.tree.map(jnp.asarray, PARAMS)))
    assert numbers["monitor.average.decay"] == 0.9 and numbers["monitor.tree.decay"] == 0.8


def test_a_measurement_keeps_its_dtype_and_sees_none_for_what_is_absent():
    def count(updates):
        return {
            "leaves": len(jax.tree.leaves(updates)),
            "wide": all(u.dtype == jnp.float32 for u in jax.tree.leaves(updates)),
        }

    tx = gradtx.snapshot("seen", count)
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(3)}
    state = tx.init(params)
    updates, after = tx.update({"a": params["a"], "b": None}, state, params)
    assert updates["a"].dtype == jnp.bfloat16 and updates["b"] is None
    seen = value(after, "snapshot", "seen")
    assert (int(seen["leaves"]), bool(seen["wide"])) == (1, True)
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)


def test_optaxs_reader_finds_a_snapshot_by_its_name():
    tx = gradtx.snapshot("norm", norm)
    _, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    assert optax.tree.get(state, "snapshot.norm") == {"value": 5.0}


@pytest.mark.parametrize("bad", [3, "norm"])
def test_a_measure_is_a_function_or_a_transform(bad):
    with pytest.raises(TypeError, match="monitor: 'norm' must be a function of the updates"):
        gradtx.monitor({"norm": bad})


def test_a_measurement_has_a_name_that_a_state_can_hold():
    for name in ("", 3):
        with pytest.raises(ValueError, match=r"cannot be the name of a measurement; give .*monitor\("):
            gradtx.monitor({name: norm})


def schedule(count):
    return 0.1 / (1 + count)


INJECTED = {
    "numbers": (lambda lib: lib.adam, {"learning_rate": 0.1, "b1": 0.8}),
    "a schedule": (lambda lib: lib.sgd, {"learning_rate": schedule, "momentum": 0.9, "nesterov": True}),
    "schedules of a decay": (
        lambda lib: lib.scale_by_adam,
        {"b2": lambda count: 1 - 1 / (jnp.asarray(count, float) + 2)},
    ),
    "a stateful schedule": (
        lambda lib: lib.adamw,
        {"learning_rate": catalogue.Fading(), "weight_decay": 0.1},
    ),
}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", INJECTED)
def test_injected_hyperparameters_follow_optax(name):
    factory, arguments = INJECTED[name]
    ours, theirs = (lib.inject_hyperparams(factory(lib))(**arguments) for lib in (gradtx, optax))
    assert_same_updates(ours, theirs)


def test_an_injected_argument_with_a_name_of_gradtxs_own_is_renamed_or_static():
    def scaled(factor=2.0, step=1.0):
        return gradtx.scale(factor)

    with pytest.raises(ValueError, match=r"argument 'step' has a name .* Rename it .* static_args"):
        gradtx.inject_hyperparams(scaled)()
    assert gradtx.inject_hyperparams(scaled, static_args="step")() is not None


def test_injected_numbers_are_read_and_set_in_the_state():
    params = jnp.ones(2)
    ours = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=0.5)
    theirs = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    s, t = ours.init(params), theirs.init(params)
    assert gradtx.hyperparams(s)["learning_rate"] == t.hyperparams["learning_rate"]
    t.hyperparams["learning_rate"] = jnp.float32(0.25)
    s = gradtx.set_hyperparams(s, learning_rate=0.25)
    assert_close(ours.update(params, s, params)[0], theirs.update(params, t, params)[0])


@pytest.mark.wide
def test_02_injected_numbers_are_not_rounded_to_the_parameters_dtype():
    """Optax's take the dtype of bfloat16 gradients, in which 0.999 is 1 and the update NaN (#1414)."""
    params = jnp.ones(2, jnp.bfloat16)
    ours, theirs = (lib.inject_hyperparams(lib.adam)(learning_rate=0.1) for lib in (gradtx, optax))
    assert float(ours.update(params, ours.init(params), params)[0][0]) == np.float32(jnp.bfloat16(-0.1))
    assert not np.isfinite(theirs.update(params, theirs.init(params), params)[0]).all()
    with pytest.raises(
        ValueError, match="hyperparam_dtype='bfloat16' would round numbers; gradtx keeps them in float32"
    ):
        gradtx.inject_hyperparams(gradtx.adam, hyperparam_dtype=jnp.bfloat16)
    gradtx.inject_hyperparams(gradtx.adam, hyperparam_dtype=jnp.float32)


def not_bias(params):
    return {k: k != "bias" for k in params}


def test_33_an_injected_mask_function_is_a_mask():
    """Optax takes it for a schedule, and turns weight decay off without a word (#57, #1373)."""
    params = {"w": jnp.ones(2), "bias": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    tx = gradtx.inject_hyperparams(gradtx.adamw)(learning_rate=0.1, weight_decay=0.5, mask=not_bias)
    updates, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.05, rtol=1e-6)
    assert updates["bias"].tolist() == [0.0, 0.0]


def descending(lib):
    """Arithmetic on its argument, as Levanter's default has it."""

    def make(learning_rate, decay=0.5):
        parts = [lib.scale_by_adam(), lib.add_decayed_weights(decay * 0.2), lib.scale(-learning_rate)]
        return lib.chain(lib.clip_by_global_norm(1.0), *parts)

    return make


def of_two_functions(lib):
    """Two functions that close over its argument, as MaxText's has them."""

    def make(learning_rate):
        def update(updates, state, params=None):
            count = state.count + 1
            return jax.tree.map(lambda g: -learning_rate * g / count, updates), Count(count)

        return lib.GradientTransformation(init=lambda params: Count(jnp.zeros((), jnp.int32)), update=update)

    return make


class Count(NamedTuple):
    count: jax.Array


def every_second(lib):
    """A wrapper, with an optimizer that has numbers of its own in it."""
    return lambda learning_rate: lib.flatten(lib.chain(lib.trace(0.9), lib.scale(-2 * learning_rate)))


OWN = {"arithmetic": descending, "two functions": of_two_functions, "a wrapper": every_second}
RATES = {"a number": 0.1, "a schedule": schedule, "states": catalogue.Fading()}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("make", OWN)
def test_an_injected_function_of_ones_own_follows_optax(make, rate):
    ours, theirs = (
        lib.inject_hyperparams(OWN[make](lib))(learning_rate=RATES[rate]) for lib in (gradtx, optax)
    )
    assert_same_updates(ours, theirs)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("make", OWN)
def test_an_injected_function_runs_eagerly_too(make, rate):
    tx = gradtx.inject_hyperparams(OWN[make](gradtx))(learning_rate=RATES[rate])
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.ones(())}
    eager, compiled = tx.init(params), tx.init(params)
    for _ in range(3):
        a, eager = tx.update(params, eager, params)
        b, compiled = jax.jit(tx.update)(params, compiled, params)
        assert_close(a, b, rtol=1e-5)


def test_the_numbers_of_an_injected_function_are_its_arguments_and_nothing_else():
    """What the function writes into its code is code; what it computes is not there to set."""
    make = gradtx.inject_hyperparams(lambda rate, decay: descending(gradtx)(rate, decay))
    tx = make(rate=gradtx.linear_schedule(0.5, 0.0, 4), decay=0.0)
    params = jnp.ones(2)
    state = tx.init(params)
    assert {k: v for k, v in gradtx.hyperparams(state).items() if "." not in k} == {"rate": 0.5, "decay": 0.0}
    steps = jax.jit(tx.update)
    _, state = steps(params, state, params)
    assert gradtx.hyperparams(state)["rate"] == 0.375
    before = steps(params, state, params)[0]
    state = gradtx.set_hyperparams(state, **{"rate.init_value": 1.0})
    np.testing.assert_allclose(steps(params, state, params)[0], 2 * before, rtol=1e-5)
    assert steps._cache_size() == 1


def test_numbers_of_what_an_injected_function_wraps_are_no_hyperparameters():
    tx = gradtx.inject_hyperparams(lambda rate: gradtx.accumulate(gradtx.adam(rate), 2))(rate=0.5)
    params = jnp.ones(2)
    state = tx.init(params)
    assert gradtx.hyperparams(state) == {"rate": 0.5}
    state = gradtx.set_hyperparams(state, rate=0.25)
    for expected in (0.0, -0.25):
        updates, state = tx.update(params, state, params)
        np.testing.assert_allclose(updates, expected, rtol=1e-5)
    assert gradtx.hyperparams(state) == {"rate": 0.25}


def test_a_function_that_gives_no_number_for_a_step_is_passed_on():
    def make(rate, mask, label):
        return gradtx.masked(gradtx.sgd(rate * label("fast")), mask)

    tx = gradtx.inject_hyperparams(make)(0.5, not_bias, lambda name: {"fast": 2.0}[name])
    params = {"w": jnp.ones(2), "bias": jnp.ones(2)}
    updates, _ = tx.update(params, tx.init(params), params)
    assert (updates["w"].tolist(), updates["bias"].tolist()) == ([-1.0, -1.0], [1.0, 1.0])


def test_a_static_argument_stays_as_it_is():
    def make(rate, size):
        return gradtx.chain(*[gradtx.scale(-rate)] * size)

    with pytest.raises(TypeError) as error:
        gradtx.inject_hyperparams(make)(0.5, 2)
    assert "is named in static_args" in error.value.__notes__[-1]
    tx = gradtx.inject_hyperparams(make, static_args="size")(0.5, 2)
    assert gradtx.hyperparams(tx.init(jnp.ones(1))) == {"rate": 0.5}
    assert float(tx.update(jnp.float32(1.0), tx.init(jnp.float32(1.0)))[0]) == 0.25


def test_an_injected_function_prints_compares_and_describes():
    tx = gradtx.inject_hyperparams(own_factory)(1e-3, max_norm=2.0)
    assert repr(tx) == "inject_hyperparams(test_surface.own_factory)(rate=0.001, max_norm=2.0)"
    assert tx == gradtx.inject_hyperparams(own_factory)(rate=1e-3, max_norm=2.0)
    assert tx != gradtx.inject_hyperparams(own_factory)(rate=2e-3, max_norm=2.0)
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert "rate" in str(gradtx.describe(tx, {"w": jnp.ones((3, 2))}))


def own_factory(rate, max_norm=1.0):
    return gradtx.chain(gradtx.clip_by_global_norm(max_norm), gradtx.scale(-rate))


def test_a_misspelt_argument_is_named_as_the_factory_names_it():
    with pytest.raises(TypeError, match=r"adamw has no argument 'lr'. It is called 'learning_rate' here"):
        gradtx.inject_hyperparams(gradtx.adamw)(lr=0.1)


def test_a_static_argument_must_exist():
    with pytest.raises(ValueError, match=r"static_args has 'nesterof', which gradtx.sgd does not take"):
        gradtx.inject_hyperparams(gradtx.sgd, static_args=["nesterov", "nesterof"])


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_another_librarys_constructor_is_injected_as_one_of_ones_own(name):
    ours, theirs = (lib.inject_hyperparams(getattr(optax, name))(schedule) for lib in (gradtx, optax))
    assert_same_updates(ours, theirs)


def test_a_partial_of_a_constructor_is_one():
    make = functools.partial(gradtx.adamw, b2=0.95)
    assert gradtx.inject_hyperparams(make)(0.1, mask=not_bias) == gradtx.adamw(0.1, b2=0.95, mask=not_bias)


class HalvesOnPlateau:
    """A stateful schedule that needs a keyword argument of `update`."""

    def init(self):
        return {"best": jnp.float32(jnp.inf), "rate": jnp.float32(1.0)}

    def update(self, state, *, value, **extra):
        better = value < state["best"]
        return {
            "best": jnp.minimum(value, state["best"]),
            "rate": state["rate"] * jnp.where(better, 1.0, 0.5),
        }

    def __call__(self, state, **extra):
        return state["rate"]


def test_a_stateful_schedule_gets_the_keyword_arguments():
    ours, theirs = (
        lib.inject_hyperparams(lib.sgd)(learning_rate=HalvesOnPlateau()) for lib in (gradtx, optax)
    )
    params = jnp.ones(1)
    s, t = ours.init(params), theirs.init(params)
    rates = []
    for v in (3.0, 4.0, 4.0, 2.0, 5.0, 1.0):
        a, s = jax.jit(ours.update)(params, s, params, value=jnp.float32(v))
        b, t = theirs.update(params, t, params, value=jnp.float32(v))
        assert_close(a, b)
        rates.append(gradtx.hyperparams(s)["learning_rate"])
    assert rates == [1.0, 1.0, 0.5, 0.25, 0.25, 0.125]
    assert repr(ours) == "inject_hyperparams(gradtx.sgd)(learning_rate=<HalvesOnPlateau>)"


def test_stateless_follows_optax():
    def f(updates, params):
        return jax.tree.map(lambda u, p: u + 0.1 * p, updates, params)

    assert_same_updates(gradtx.stateless(f), optax.stateless(f))
    assert_same_updates(
        gradtx.stateless_with_tree_map(lambda u, p: u * p), optax.stateless_with_tree_map(lambda u, p: u * p)
    )


def test_a_function_without_parameters_gets_none():
    seen = []
    tx = gradtx.chain(
        gradtx.stateless(lambda u, p: seen.append(p) or u),
        gradtx.stateless_with_tree_map(lambda u, p: seen.append(p) or u),
    )
    tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    assert seen == [None, None]


def test_a_function_that_gives_another_tree_is_an_error():
    tx = gradtx.stateless(lambda updates, params: {"w": updates["w"]})
    params = {"w": jnp.ones(2), "bias": jnp.ones(1)}
    with pytest.raises(ValueError, match="leaf 'bias' is only in the gradients"):
        tx.update(params, tx.init(params), params)


def test_what_is_not_a_function_is_an_error():
    for make in (gradtx.stateless, gradtx.stateless_with_tree_map):
        with pytest.raises(TypeError, match="takes a function of updates and parameters, got 3"):
            make(3)


def test_extra_arguments_are_dropped_where_none_are_taken():
    theirs = optax.GradientTransformation(*optax.scale(2.0))
    with pytest.raises(TypeError):
        theirs.update(1.0, theirs.init(1.0), None, value=1.0)
    tx = gradtx.with_extra_args_support(theirs)
    assert tx.update(jnp.ones(()), tx.init(jnp.ones(())), value=1.0)[0] == 2.0
    polyak = gradtx.with_extra_args_support(optax.scale_by_polyak())
    assert_close(
        polyak.update(jnp.ones(2), polyak.init(jnp.ones(2)), jnp.ones(2), value=jnp.float32(3.0), other=1)[0],
        optax.scale_by_polyak().update(jnp.ones(2), (), jnp.ones(2), value=jnp.float32(3.0))[0],
    )
    ours = gradtx.adam(0.1)
    assert gradtx.with_extra_args_support(ours) is ours


def per_example(dtype=np.float64):
    rng = np.random.default_rng(3)
    grads = {"a": rng.normal(size=(6, 4)), "b": [rng.normal(size=(6,)), 3 * rng.normal(size=(6, 2, 3))]}
    grads["a"][1], grads["b"][0][1], grads["b"][1][1] = 0, 0, 0
    return jax.tree.map(lambda g: jnp.asarray(g, dtype), grads)


@pytest.mark.wide
@pytest.mark.parametrize("bound", [0.0, 0.5, 3.0, 9.0, np.inf])
def test_per_example_clipping_follows_optax(bound):
    with x64():
        grads = per_example()
        assert_close(*(lib.per_example_global_norm_clip(grads, bound) for lib in (gradtx, optax)))
        for uniform in (True, False):
            a, b = (lib.per_example_layer_norm_clip(grads, bound, uniform) for lib in (gradtx, optax))
            assert_close(a[0], b[0])
            jax.tree.map(np.testing.assert_array_equal, a[1], b[1])


@pytest.mark.wide
def test_per_example_clipping_of_integers_gives_float32():
    grads = [jnp.array([[0, 0, 0], [0, 3, 4], [4, 0, 3], [3, 4, 0]])]
    (total,), count = gradtx.per_example_global_norm_clip(grads, 1.25)
    assert (total.dtype, total.tolist(), int(count)) == (jnp.float32, [1.75] * 3, 3)


@pytest.mark.wide
def test_10_per_example_norms_are_taken_in_float32():
    """Optax's overflow in float16, and give 0."""
    grads = [jnp.full((2, 4), 3e4, jnp.float16)]
    ours, theirs = (lib.per_example_global_norm_clip(grads, 1.0)[0][0].tolist() for lib in (gradtx, optax))
    assert (ours, theirs) == ([1.0] * 4, [0.0] * 4)


@pytest.mark.wide
def test_36_per_example_clipping_has_a_derivative_at_zero():
    """Optax's is NaN."""

    def loss(lib, x):
        return lib.per_example_global_norm_clip([x], 1.0)[0][0].sum()

    zeros = jnp.zeros((2, 3))
    assert jax.grad(lambda x: loss(gradtx, x))(zeros).tolist() == [[1.0] * 3] * 2
    assert np.isnan(jax.grad(lambda x: loss(optax, x))(zeros)).all()


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_11_a_bad_example_spreads_no_further_than_its_elements(bad):
    grads = {"a": jnp.array([[bad, 1e9], [0.0, 0.1]]), "b": jnp.array([[1e9], [0.2]])}
    sums, count = gradtx.per_example_global_norm_clip(grads, 1.0)
    assert np.isnan(sums["a"][0]) and int(count) == 1
    np.testing.assert_allclose([sums["a"][1], sums["b"][0]], [0.1, 0.2], rtol=1e-6)


def test_per_example_clipping_takes_none_and_names_the_leaf_that_differs():
    sums, counts = gradtx.per_example_layer_norm_clip({"a": jnp.ones((2, 1)), "b": None}, 1.0)
    assert sums["b"] is None and counts["b"] is None and sums["a"].tolist() == [2.0]
    for grads, match in (
        ({"a": jnp.ones((2, 3)), "b": jnp.ones((3, 3))}, "'b' has 3 examples, and 'a' has 2"),
        ({"a": jnp.ones(())}, "'a' is a scalar"),
        ({"a": None}, "there is no gradient"),
    ):
        for clip in (gradtx.per_example_global_norm_clip, gradtx.per_example_layer_norm_clip):
            with pytest.raises(ValueError, match=match):
                clip(grads, 1.0)


NAMES = {"w": "W", "bias": "B"}
TREE = {"w": jnp.ones((3, 2)), "bias": jnp.ones(2)}


def named(tx, params=TREE, rest=(NAMES,), **options):
    return gradtx.tree_map_params(
        tx,
        lambda slot, *rest: rest[0],
        tx.init(params),
        *rest,
        transform_non_params=lambda x: None,
        **options,
    )


MAPPED = {
    "adam": (gradtx.adam(0.1), {"slots/scale_by_adam/mu", "slots/scale_by_adam/nu"}),
    "adafactor": (
        gradtx.adafactor(0.1, min_dim_size_to_factor=2),
        {f"slots/scale_by_factored_rms/{k}" for k in ("v_row", "v_col", "v")},
    ),
    "a chain of ours and Optax's": (
        gradtx.chain(gradtx.trace(0.9), optax.scale_by_adam()),
        {"slots/trace/trace", "slots/foreign/mu", "slots/foreign/nu"},
    ),
    "inside wrappers": (
        gradtx.accumulate(gradtx.accumulate(gradtx.sgd(0.1, momentum=0.9), 2), 2),
        {
            "slots/accumulate/sum",
            "slots/accumulate/inner/slots/accumulate/sum",
            "slots/accumulate/inner/slots/accumulate/inner/slots/trace/trace",
        },
    ),
    "no slots": (gradtx.noisy_sgd(0.1), set()),
    "flat vectors": (gradtx.flatten(gradtx.adam(0.1)), set()),
    "measurements": (gradtx.monitor({"n": norm, "t": gradtx.identity()}), {"slots/monitor.t/value"}),
    "Optax's own": (optax.adam(0.1), {"0/mu", "0/nu"}),
    "Optax's chain of ours": (
        optax.chain(gradtx.trace(0.9), optax.ema(0.9)),
        {"0/slots/trace/trace", "1/ema"},
    ),
}


@pytest.mark.parametrize("name", MAPPED)
def test_tree_map_params_finds_every_tree_like_the_parameters(name):
    tx, wanted = MAPPED[name]
    mapped = jax.tree_util.tree_flatten_with_path(named(tx))[0]
    found = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in mapped}
    every = {f"{path}/{leaf}": NAMES[leaf] for path in wanted for leaf in NAMES}
    if name == "adafactor":  # a leaf has either its rows and columns or all of v
        every = {k: v for k, v in every.items() if k in found}
        assert len(every) == 3
    assert found == every


def test_tree_map_params_of_an_optax_state_is_optaxs():
    tx = optax.chain(optax.clip(1.0), optax.adamw(optax.linear_schedule(1.0, 0.0, 3)), optax.ema(0.9))
    state = tx.init(TREE)
    for options in ({}, {"transform_non_params": lambda x: None}):
        ours, theirs = (
            lib.tree_map_params(tx, lambda x, n: n, state, NAMES, **options) for lib in (gradtx, optax)
        )
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        assert jax.tree.leaves(ours) == jax.tree.leaves(theirs)


def test_tree_map_params_leaves_the_masked_and_the_others_as_they_are():
    tx = gradtx.masked(gradtx.adam(0.1), "w")
    state = tx.init(TREE)
    mapped = gradtx.tree_map_params(tx, lambda slot, name: name, state, NAMES)
    assert mapped["slots"]["scale_by_adam"]["mu"] == {"w": "W", "bias": None}
    assert mapped["numbers"] == state["numbers"] and mapped["step"] is state["step"]
    assert gradtx.tree_map_params(tx.init, lambda slot: slot, state) == state


def test_tree_map_params_gives_shardings():
    tx, mesh = gradtx.adamw(0.1), jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    shards, whole = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data",), ()))
    params = {"w": jnp.ones((8, 2)), "bias": jnp.ones(3)}
    shardings = gradtx.tree_map_params(
        tx,
        lambda slot, sharding: sharding,
        jax.eval_shape(tx.init, params),
        {"w": shards, "bias": whole},
        transform_non_params=lambda x: whole,
    )
    state = jax.jit(tx.init, out_shardings=shardings)(params)
    assert state["slots"]["scale_by_adam"]["nu"]["w"].sharding == shards
    assert state["step"].sharding == whole


def test_tree_map_params_takes_what_counts_as_a_leaf():
    tx = gradtx.trace(0.9)
    params = {"block": {"w": jnp.ones(2), "b": jnp.ones(1)}, "c": jnp.ones(1)}
    stops = {"is_leaf": lambda x: isinstance(x, dict) and "w" in x}
    assert named(tx, params, ({"block": "B", "c": "C"},), **stops)["slots"]["trace"]["trace"] == {
        "block": "B",
        "c": "C",
    }


def test_tree_map_params_names_what_differs():
    tx = gradtx.trace(0.9)
    with pytest.raises(ValueError, match="leaf 'bias' is only in the state's slots"):
        named(tx, rest=({"w": "W"},))
    with pytest.raises(ValueError, match="lacks the slots scale_by_adam/mu"):
        gradtx.tree_map_params(gradtx.adam(0.1), lambda x: x, tx.init(TREE))
    theirs = gradtx.chain(optax.masked(optax.adam(0.1), {"w": True, "bias": False}))
    with pytest.raises(ValueError) as error:
        named(theirs)
    assert "use optax.tree_map_params" in error.value.__notes__[0]


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.flatten(gradtx.adam(0.1)),
        gradtx.apply_every(3),
        gradtx.monitor(
            {"norm": gradtx.global_norm, "mean": gradtx.measure_with_ema(gradtx.global_norm, 0.9)}
        ),
        gradtx.snapshot("norm", gradtx.global_norm),
        gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=gradtx.linear_schedule(0.1, 0.0, 3)),
        gradtx.stateless_with_tree_map(catalogue.doubled),
    ],
    ids=lambda tx: repr(tx).split("(")[0],
)
def test_it_prints_as_the_code_that_builds_it(tx):
    assert eval(repr(tx), {**vars(gradtx), "gradtx": gradtx, "catalogue": catalogue}) == tx
    assert pickle.loads(pickle.dumps(tx)) == tx


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("offset", [0, -2])
def test_a_decay_rate_function_follows_optax(offset):
    """As Big Vision bounds it: the moments go on moving."""

    def bounded(step, rate):
        return jnp.minimum(1 - (step + 1.0) ** -rate, 0.6)

    arguments = {"min_dim_size_to_factor": 2, "step_offset": offset, "decay_rate_fn": bounded}
    ours, theirs = (lib.scale_by_factored_rms(**arguments) for lib in (gradtx, optax))
    assert_same_updates(ours, theirs, rtol=1e-10)


def test_a_decay_rate_function_is_a_function_that_gives_a_number():
    with pytest.raises(
        TypeError, match=r"decay_rate_fn must be a function of the step and of decay_rate, got 0\.8"
    ):
        gradtx.scale_by_factored_rms(decay_rate_fn=0.8)
    tx = gradtx.scale_by_factored_rms(decay_rate_fn=lambda step, rate: jnp.ones(2))
    with pytest.raises(ValueError, match=r"decay_rate_fn must give a number, got shape \(2,\)"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


SEVERAL_MEANINGS = {
    "min_size": [
        "the fewest elements of what is kept in a format",
        "the fewest elements of a leaf that is sharded",
    ],
    "precondition_frequency": [
        "the number of updates from one basis to the next, >= 1",
        "the number of updates from one root to the next, >= 1",
    ],
    "exponent": ["the power of the cosine, >= 0", "the exponent of the roots, > 0"],
    "factor": [
        "what the scale is multiplied by, in [0, 1]",
        "a function of (path, leaf) that gives a number",
    ],
    "verbose": [
        "whether to print the result of a search that found no rate to accept",
        "whether to print the win rate, the part of the elements that are not clipped",
    ],
    "clip_threshold": [
        "the largest root mean square of a direction, > 0",
        "the largest element of an update, > 0",
    ],
    "gamma": [
        "the factor of the curvature, >= 0",
        "decay of the average of the steps, in [0, 1)",
        "the exponent of the variance's decay, >= 0",
        "the strength of the correction, >= 0",
    ],
    "decay_steps": [
        "the length of the schedule in steps, > 0",
        "the length of the cooldown in steps, > 0",
    ],
    "inner": [
        "the wrapped transform, of any library",
        "a transform that makes a direction, of any library, such as `scale_by_adam()`",
    ],
    "seed": [
        "another name of `key`, as an int",
        "an int, a `jax.random.key`, or a key's raw data",
        "another one rounds at random in another way",
    ],
    "weight_decay": [
        "lambda, the strength of the weight decay, >= 0",
        "the strength of the regularization, >= 0",
    ],
    "axes": [
        "a letter for each axis, `'h'` for heads, `'d'` for the size of each, `'i'` for inputs, `'b'` for a "
        "batch of layers that are scanned",
        "a letter for each axis, `'r'` for rows, `'c'` for columns, `'b'` for a batch",
    ],
    "axis": [
        "the axes along which the elements of one unit lie",
        "the axes to take it over",
        "the axis of the mesh to shard over, or several",
    ],
    "mesh": [
        "the mesh of `specs`, a `jax.sharding.Mesh` or an `AbstractMesh`",
        "the mesh that the parameters are on",
    ],
    "specs": [
        "a tree like the parameters, or a prefix of one, of `PartitionSpec`s or shardings, such as how the "
        "slots are sharded where the parameters are not",
        "how the parameters are sharded over other axes",
    ],
    "max_norm": ["the bound of the norm, >= 0", "the largest that each may have"],
    "x": ["an optimizer state, or what holds one", "an array"],
    "min_norm": ["norms below it count as this, >= 0", "the bound, >= 0"],
    "patience": [
        "the number of spikes, with no good step among them, that are skipped before the level is accepted, "
        ">= 0",
        "how many means in a row may be no better",
    ],
    "sync_period": [
        "the number of updates from one synchronization to the next, a whole number from 1 to 2^31 - 1",
        "the number k of calls of a round, >= 1",
    ],
    "reset_state": [
        "start the state of `fast_optimizer` anew at each synchronization",
        "whether the climb begins each round with a new state",
    ],
    "max_learning_rate": ["the largest step size, >= 0", "the largest rate, > 0"],
    "rtol": [
        "by how much a mean must be better, as a part of the best one, >= 0",
        "the same as a part of the loss, >= 0",
    ],
    "atol": ["the same as a number, >= 0", "by how much the condition may be broken, >= 0"],
    "optimizer": ["what makes the steps, of any library", "the wrapped transform, of any library"],
    "increase_factor": [
        "what the last rate is multiplied by for the first trial, > 0",
        "what a rate is multiplied by as long as there is no interval, > 0",
    ],
    "init_step": [
        "a word and a number that give the first step, as `scale_by_dog` takes them",
        "what `init_value` is",
    ],
    "init_value": [
        "the number that `init_step` speaks of, >= 0",
        "the first value",
    ],
    "learning_rate": [
        "a factor of the gradients, >= 0 or a schedule",
        "the size of the steps, >= 0 or a schedule",
        "the first size of the steps, >= 0",
    ],
    "boundaries_and_scales": [
        "factors, >= 0, by the step from which they count, in any order",
        "factors, >= 0, by the step at which they are reached, in any order",
    ],
    "beta": [
        "how far ahead, >= 0 or a schedule",
        "the factor of its change",
        "decay of the average of the gradients, in [0, 1)",
        "decay of both averages, in [0, 1)",
        "decay of the momentum, in [0, 1)",
    ],
    "peak_value": [
        "the largest value",
        "the value after the warmup",
    ],
    "threshold": [
        "the bound of the root mean square of each leaf, > 0",
        "from which rho on to rescale",
    ],
    "initial_accumulator_value": [
        "the sum G before the first step, >= 0",
        "the first value of both moments, >= 0",
    ],
    "eps_root": [
        "added inside the root, >= 0",
        "added to s at every step, >= 0",
    ],
    "*transforms": ["transforms, in order", "pairs `(name, transform)`", "at least one transform"],
    "alpha": [
        "the part of the queries in the factor of a logit, in [0, 1]",
        "how small the first bets are, >= 0",
        "weight of the gradient beside the sum, >= 0",
        "weight of the slow average, >= 0",
        "the last value as a fraction of the first",
        "the factor of the direction",
        "the factor of the gradient",
    ],
    "b1": [
        "decay of the sum of the gradients, in [0, 1]",
        "decay of the first moment, in [0, 1)",
        "the share of the momentum in the step, in [0, 1)",
        "the decay of the velocity, in [0, 1]",
        "the part of x in the parameters, which are b1 x + (1 - b1) z, in (0, 1]",
        "decay of the average of the gradients, in [0, 1)",
    ],
    "b2": [
        "decay of the average of estimates, in [0, 1)",
        "decay of the second moment, in [0, 1)",
        "decay of the momentum, in [0, 1)",
        "decay of the largest magnitude, in [0, 1)",
        "decay of the average of their differences, in [0, 1)",
        "decay of the second moment, in [0, 1]",
        "decay of L and R, in [0, 1)",
    ],
    "b3": [
        "decay of the average of squared distances, in [0, 1)",
        "decay of the slow average, in [0, 1)",
        "decay of the sums that the estimate is made from, in [0, 1)",
        "decay of the second moment, in [0, 1)",
    ],
    "count": ["the number of updates made, >= 1", "an integer or a floating array"],
    "decay": [
        "decay of the average, in [0, 1)",
        "mu, the decay of the velocity, in [0, 1]",
        "what the magnitudes so far are multiplied by, in [0, 1)",
    ],
    "decay_rate": [
        "the exponent of the second moment's decay, >= 0",
        "what the value is multiplied by in `transition_steps` steps, > 0",
    ],
    "end_value": ["the last value", "a bound of the value"],
    "eps": [
        "added to the squared norm, >= 0",
        "the least denominator, >= 0",
        "the first largest gradient, > 0",
        "added to the root, > 0",
        "added to the denominator, and to a learning rate that is not 0, >= 0",
        "added to the denominator, >= 0",
        "added inside both roots, >= 0",
        "added to the squared gradients, >= 0",
        "added to the magnitudes of the gradients",
        "added to the magnitude, >= 0",
        "added to the norm of the update, >= 0",
        "added to the norm, >= 0",
        "added inside the root, >= 0",
        "the least norm of parameters, >= 0, so that those that start at 0 can move",
        "added to the diagonals of L and R, >= 0",
    ],
    "weight_dimension_numbers": [
        "which leaves are matrices, and how, where names and shapes do not say it, as `gradtx.matrix_view` "
        "or `gradtx.contrib.MuonDimensionNumbers`",
        "which leaves are matrices, and how",
    ],
    "every": [
        "the number k of micro-steps for an update, a whole number from 1 to 2^31 - 1",
        "the number of updates from one measurement to the next, a whole number from 1 to 2^31 - 1",
    ],
    "f": [
        "`f(updates, params)` gives a tree like `updates`",
        "`f(update, param)` gives the new update of the leaf",
        "`f(slot, *others)` gives the new value",
    ],
    "grads": [
        "the gradients, a tree like `params`",
        "a tree of gradients with the examples along axis 0",
    ],
    "loss": [
        "a differentiable function of the parameters that gives a real scalar",
        "a function of an array of two elements that gives a scalar",
    ],
    "mask": [
        "which leaves to decay, as `gradtx.masked` takes it",
        "which leaves to freeze, as `gradtx.masked` takes it",
        "which leaves, as one of",
    ],
    "momentum": [
        "share of the parameter that stays in each step, in [0, 1]",
        "mu, the decay of the velocity, in [0, 1]",
        "decay of the average of the updates, in [0, 1)",
    ],
    "name": ["which average, where several cover one leaf", "which guard, if there are several"],
    "names": [
        "names for what is yours",
        "which metrics to draw",
        "what torch calls each leaf",
    ],
    "nu_eps": ["added to the denominators, >= 0", "the least root of the second moment, >= 0"],
    "order": [
        "the power",
        "torch's names in the order in which the optimizer got the parameters, where its state dict has none",
    ],
    "params": [
        "the parameters",
        "the parameters, arrays or `jax.ShapeDtypeStruct`s",
        "the parameters to start from",
        "a tree of arrays",
        "not used",
        "what is kept beside each parameter, in place of what the preset says",
    ],
    "schedules": [
        "the schedules (or constants) in order",
        "a schedule, a list of them, or a dict of them by name",
    ],
    "start": ["the first update whose parameters count, >= 0", "the two parameters to start from"],
    "state": [
        "an optimizer state, or what holds one",
        "the state from `tx.init` or an earlier step",
        "the old state, such as one that was restored",
        "the state",
    ],
    "scaling": ["a factor of each step, >= 0 or a schedule", "sigma by a name"],
    "step_size": ["any number, or a schedule", "the part, in [0, 1]"],
    "steps": [
        "the number of calls of `update` in the run",
        "the number of updates",
        "the number of steps so far",
    ],
    "transition_steps": [
        "the length of the transition in steps, > 0",
        "the number of steps in which the value is multiplied by `decay_rate`, > 0",
    ],
    "tx": [
        "a transform of any library",
        "a transform of gradtx's",
        "a transform or a schedule of gradtx's",
        "the transform that gets the state",
        "the transform that made the state",
        "the transform with the new settings",
    ],
    "updates": [
        "the gradients",
        "a tree of arrays",
        "the same tree, as `update` gives it",
        "also skip a step whose update is not finite",
    ],
    "value": ["the value at every step", "the number to add, such as the eps of a denominator"],
}
"""The arguments whose name means several things, with the words for each."""


def test_an_argument_is_described_in_the_same_words_everywhere():
    """Up to the first stop; what is special to a function comes after it, and `as for` names another one."""
    words = {}
    for name in gradtx.__all__:
        for argument, meaning in meanings(getattr(gradtx, name)).items():
            if not meaning.startswith("as for `"):
                words.setdefault(argument, {}).setdefault(meaning, []).append(name)
    assert len(words) > 100
    wrong = [
        f"{argument} is {meaning!r} in {', '.join(names)}"
        for argument, found in words.items()
        for meaning, names in found.items()
        if set(found) != set(SEVERAL_MEANINGS.get(argument, [min(found)]))
    ]
    assert not wrong, "\n".join(["an argument has several wordings:", *wrong])


@pytest.mark.parametrize("name", [n for n in gradtx.__all__ if inspect.isfunction(getattr(gradtx, n))])
def test_each_argument_is_described(name):
    function = getattr(gradtx, name)
    taken = inspect.signature(function).parameters
    assert [argument.lstrip("*") for argument in meanings(function)] == [k for k in taken if name != "recipe"]
