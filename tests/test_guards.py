"""Guards: a step that would do harm changes nothing, is counted, and is named in the report."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradtx
import gradtx.flax
import references
import wrapper_references
from gradtx.testing.compare import identical
from gradtx.wrappers.blackbox import ROWS, Verdict
from trajectories import x64

PARAMS = {"a": jnp.array([1.0, -2.0, 3.0]), "b": [jnp.ones((2, 2)), jnp.float32(0.5)]}
GOOD = {"a": jnp.array([0.3, -0.1, 0.2]), "b": [0.1 * jnp.ones((2, 2)), jnp.float32(-0.2)]}
PATHS = ["a", "b/0", "b/1"]
BAD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}
INNER = {
    "adamw": gradtx.adamw(1e-2),
    "clipped elements": gradtx.chain(gradtx.clip(1.0), gradtx.sgd(1e-2)),
    "clipped adamw": gradtx.chain(gradtx.clip_by_global_norm(0.1), gradtx.adamw(1e-2)),
    "prodigy": gradtx.prodigy(),
    "noisy_sgd": gradtx.noisy_sgd(1e-2),
    "accumulate": gradtx.accumulate(gradtx.adamw(1e-2), 2, non_finite="keep"),
    "optax": optax.adamw(1e-2),
}


def planted(tree, leaf, value, element=0):
    """A tree with one element of one leaf replaced."""
    leaves, structure = jax.tree.flatten(tree)
    x = np.array(leaves[leaf])
    x.reshape(-1)[element] = value
    leaves[leaf] = jnp.asarray(x)
    return structure.unflatten(leaves)


def updating(tx):
    """A compiled step by `update` and `apply_updates`."""

    def step(params, state, grads, **extra):
        updates, state = tx.update(grads, state, params, **extra)
        return gradtx.apply_updates(params, updates), state

    return jax.jit(step)


def applying(tx):
    """A compiled step by `apply_gradients`."""
    return jax.jit(lambda params, state, grads, **extra: tx.apply_gradients(grads, state, params, **extra))


FORMS = {"update": updating, "apply_gradients": applying}


def slots(state, name="guard"):
    return state["slots"][name]


FORMS_BESIDE = [("update", False), ("update", True), ("apply_gradients", True)]


@pytest.mark.by_turns(1)
@pytest.mark.parametrize(
    "form, updates",
    [
        ("apply_gradients", False),
        *(pytest.param(*pair, marks=pytest.mark.full) for pair in FORMS_BESIDE),
    ],
)
@pytest.mark.parametrize("inner", INNER)
def test_13_a_skip_changes_no_bit_and_the_next_step_goes_through(inner, form, updates):
    tx = gradtx.guard(INNER[inner], updates=updates)
    step = FORMS[form](tx)
    params, state = step(PARAMS, tx.init(PARAMS), GOOD)
    expected, after = step(params, state, GOOD)
    for i, value in enumerate(BAD.values()):
        same, skipped = step(params, state, planted(GOOD, i, value))
        identical(same, params, "params of a skipped step")
        identical(slots(skipped)["inner"], slots(state)["inner"], "inner state of a skipped step")
        assert (slots(skipped)["skipped"], slots(skipped)["in_a_row"]) == (1, 1)
        assert gradtx.report(skipped).faults == {PATHS[i]: 1}
        recovered, state_after = step(same, skipped, GOOD)
        identical(recovered, expected, "params after the step that follows")
        identical(slots(state_after)["inner"], slots(after)["inner"], "inner state after it")
        assert (slots(state_after)["skipped"], slots(state_after)["in_a_row"]) == (1, 0)


@pytest.mark.wide
def test_a_skipped_update_is_zero():
    tx = gradtx.guard(gradtx.adamw(1e-2))
    updates, _ = tx.update(planted(GOOD, 1, np.nan), tx.init(PARAMS), PARAMS)
    identical(updates, jax.tree.map(jnp.zeros_like, PARAMS), "the update")


@pytest.mark.wide
def test_11_an_inf_in_one_leaf_stops_the_step_and_is_named():
    tx = gradtx.guard(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1)))
    params, state = updating(tx)(PARAMS, tx.init(PARAMS), planted(GOOD, 1, np.inf, 3))
    identical(params, PARAMS, "params")
    assert gradtx.report(state).faults == {"b/0": 1}


@pytest.mark.wide
def test_12_a_bad_micro_batch_does_not_poison_the_sum():
    tx = gradtx.accumulate(gradtx.guard(gradtx.sgd(1.0)), 2, non_finite="keep")
    step, params, state = updating(tx), PARAMS, tx.init(PARAMS)
    for grads in (GOOD, planted(GOOD, 0, np.inf), GOOD, GOOD):
        params, state = step(params, state, grads)
    expected = jax.tree.map(lambda p, g: p - g, PARAMS, GOOD)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), params, expected)
    report = gradtx.report(state)
    assert (report.name, report.first_leaf, report.first_step) == ("accumulate/inner/guard", "a", 0)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("value", BAD.values())
def test_a_loss_that_is_not_finite_stops_the_step(value):
    tx = gradtx.guard(gradtx.adamw(1e-2))
    step = applying(tx)
    params, state = step(PARAMS, tx.init(PARAMS), GOOD, value=jnp.float32(value))
    identical(params, PARAMS, "params")
    assert gradtx.report(state).last[0].verdict == Verdict.LOSS
    params, state = step(params, state, GOOD, value=jnp.float32(1.0))
    assert not np.array_equal(params["a"], PARAMS["a"])


@pytest.mark.wide
def test_an_update_that_is_not_finite_is_skipped_only_where_it_is_looked_at():
    grads = planted(GOOD, 0, 0.0)
    overflow = gradtx.chain(gradtx.ratio(gradtx.identity(), gradtx.square()), gradtx.scale(3e38))
    for updates in (False, True):
        tx = gradtx.guard(overflow, updates=updates)
        for make in FORMS.values():
            params, state = make(tx)(PARAMS, tx.init(PARAMS), grads)
            if updates:
                identical(params, PARAMS, "params")
                assert gradtx.report(state).last[0].verdict == Verdict.UPDATE
                assert gradtx.report(state).first_leaf == "a"
            else:
                assert not np.isfinite(params["a"]).all()


# Spikes, against the model that takes every mean from its definition.

STEPS = 260
SPIKES = (40, 41, 90, 91, 92, 200)
NEW_LEVEL = 130
SETTINGS = {"deviations": 4.0, "decay": 0.95, "warmup": 20, "patience": 3}


def series():
    """Numbers around 1 with spikes, among them two during the warmup, and from a step on around 6."""
    rng = np.random.default_rng(3)
    x = 1 + 0.1 * rng.normal(size=STEPS)
    x[NEW_LEVEL:] += 5
    x[[5, 6]] = 3.0
    x[list(SPIKES)] *= 10
    return np.abs(x)


def follow(tx, reference, grads, values):
    """The verdicts, limits and parameters of every step, and the same of the reference."""
    params, state = {"w": jnp.ones(4)}, tx.init({"w": jnp.ones(4)})

    def step(carry, inputs):
        params, state = carry
        g, value = inputs
        updates, state = tx.update({"w": g}, state, params, value=value)
        params, own = gradtx.apply_updates(params, updates), slots(state)
        row = (state["step"] - 1) % ROWS
        kept = own["marks"][row, 1], own["metrics"][row, 2], own["mean"], own["std"], params["w"]
        return (params, state), kept

    _, kept = jax.lax.scan(step, (params, state), (jnp.asarray(grads), jnp.asarray(values)))
    theirs = [np.ones(4)]
    reference.init(theirs)
    trajectory = []
    for g, value in zip(grads, values, strict=True):
        theirs = [p + u for p, u in zip(theirs, reference.update([g], theirs, value=value), strict=True)]
        trajectory.append(theirs[0])
    return [np.asarray(x) for x in kept], np.stack(trajectory)


WORDS = {
    Verdict.APPLIED: "applied",
    Verdict.GRADIENT: "gradient",
    Verdict.LOSS: "loss",
    Verdict.SPIKE: "spike",
    Verdict.NEW_LEVEL: "new level",
}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("watch", ["gradient_norm", "loss"])
def test_spikes_and_a_change_of_level_follow_the_model(watch, double):
    direction = np.array([0.5, -0.5, 0.5, 0.5])
    x = series()
    grads = np.outer(x if watch == "gradient_norm" else np.ones(STEPS), direction)
    values = x if watch == "loss" else np.ones(STEPS)
    grads[[60, NEW_LEVEL + 1], 2] = np.nan, np.inf
    values[70] = np.nan
    tx = gradtx.guard(gradtx.sgd(0.1, momentum=0.9), watch=watch, **SETTINGS)
    model = wrapper_references.Guard(references.Sgd(0.1, momentum=0.9), watch=watch, **SETTINGS)
    if double:
        with x64():
            (verdicts, limits, mean, std, params), expected = follow(tx, model, grads, values)
    else:
        grads, values = grads.astype(np.float32), values.astype(np.float32)
        (verdicts, limits, mean, std, params), expected = follow(tx, model, grads, values)
    assert [WORDS[v] for v in verdicts] == model.verdicts
    assert [i for i, v in enumerate(model.verdicts) if v == "spike"] == sorted(
        [*SPIKES, NEW_LEVEL, NEW_LEVEL + 2, NEW_LEVEL + 3]
    )
    assert model.verdicts[NEW_LEVEL + 4] == "new level"
    judged = [i for i, v in enumerate(model.verdicts) if v not in ("gradient", "loss")]
    wanted = np.array(model.limits)
    np.testing.assert_allclose(limits[judged], np.where(np.isinf(wanted), 0, wanted), rtol=2e-5)
    np.testing.assert_allclose(params, expected, rtol=1e-12 if double else 1e-4)
    assert np.isfinite(mean).all() and np.isfinite(std).all()


def run(tx, grads, **extra):
    """The states after each of some gradients, by one compiled step."""
    step, params, state, states = applying(tx), PARAMS, tx.init(PARAMS), []
    for g in grads:
        params, state = step(params, state, g, **extra)
        states.append(state)
    return states


def scaled(factor):
    return jax.tree.map(lambda g: factor * g, GOOD)


def verdicts(state):
    return [step.verdict for step in gradtx.report(state).last]


@pytest.mark.wide
def test_what_is_not_finite_is_never_applied_however_often():
    tx = gradtx.guard(gradtx.sgd(0.1), patience=2, warmup=1)
    states = run(tx, [GOOD, *[planted(GOOD, 0, np.nan)] * 8])
    assert verdicts(states[-1])[1:] == [Verdict.GRADIENT] * 8
    assert slots(states[-1])["in_a_row"] == 8


def test_faults_between_spikes_do_not_keep_a_new_level_away():
    tx = gradtx.guard(gradtx.sgd(0.1), patience=2, warmup=1)
    bad, large = planted(GOOD, 0, np.nan), scaled(10.0)
    states = run(tx, [GOOD, large, bad, large, bad, large, large])
    assert verdicts(states[-1])[3:] == [Verdict.SPIKE, Verdict.GRADIENT, Verdict.NEW_LEVEL, Verdict.APPLIED]


def test_a_good_step_between_spikes_does():
    tx = gradtx.guard(gradtx.sgd(0.1), patience=2, warmup=1)
    states = run(tx, [GOOD, *[scaled(10.0), GOOD] * 5])
    assert verdicts(states[-1])[1::2] == [Verdict.SPIKE] * 5


def test_rounding_is_no_spike():
    tx = gradtx.guard(gradtx.sgd(0.1), warmup=1)
    states = run(tx, [GOOD] * 20 + [scaled(1.0001)])
    assert slots(states[-1])["skipped"] == 0


@pytest.mark.wide
def test_without_deviations_no_step_is_too_large():
    tx = gradtx.guard(gradtx.sgd(0.1), deviations=None, warmup=1)
    states = run(tx, [GOOD, GOOD, scaled(1e6)])
    assert slots(states[-1])["skipped"] == 0
    assert [step.limit for step in gradtx.report(states[-1]).last] == [None] * 3


def test_a_gradient_whose_square_overflows_is_finite_and_may_be_a_spike():
    tx = gradtx.guard(gradtx.sgd(1e-3), warmup=2, patience=1)
    states = run(tx, [scaled(1e25), GOOD, GOOD, GOOD, scaled(1e30)])
    applied = Verdict.APPLIED
    assert verdicts(states[-1]) == [applied] * 4 + [Verdict.SPIKE]
    assert [int(slots(s)["seen"]) for s in states] == [1, 2, 3, 4, 4]
    first = gradtx.report(states[0]).last[0]
    np.testing.assert_allclose(first.gradient_norm, 1e25 * float(gradtx.global_norm(GOOD)), rtol=1e-6)


# The black box and the report.


def test_the_box_keeps_the_last_32_steps():
    tx = gradtx.guard(gradtx.sgd(1e-3), deviations=None)
    grads = [scaled(1.0 + i) for i in range(50)]
    states = run(tx, grads)
    for count in (1, ROWS - 1, ROWS, ROWS + 1, 50):
        last = gradtx.report(states[count - 1]).last
        assert [step.step for step in last] == list(range(max(count - ROWS, 0), count))
        norms = [float(gradtx.global_norm(grads[step.step])) for step in last]
        np.testing.assert_allclose([step.gradient_norm for step in last], norms, rtol=1e-6)


def test_the_first_fault_outlives_the_box():
    tx = gradtx.guard(gradtx.sgd(1e-3))
    states = run(tx, [GOOD, planted(GOOD, 2, np.inf), planted(GOOD, 0, np.nan), *[GOOD] * 40])
    report = gradtx.report(states[-1])
    assert (report.first_step, report.first_leaf, report.skipped) == (1, "b/1", 2)
    assert report.faults == {"a": 1, "b/1": 1}
    assert not any(step.skipped for step in report.last)


@pytest.mark.wide
def test_a_hundred_planted_faults_are_named():
    """Of several bad leaves the first in the tree; each step and leaf of the table too."""
    rng = np.random.default_rng(5)
    tx = gradtx.guard(gradtx.adamw(1e-3))
    step, params, state = applying(tx), PARAMS, tx.init(PARAMS)
    leaves = jax.tree.leaves(GOOD)
    faults = dict.fromkeys(PATHS, 0)
    named, count = {}, 0
    while count < 100:
        grads = GOOD
        if rng.uniform() < 0.7:
            chosen = sorted(rng.choice(3, size=1 + (rng.uniform() < 0.3), replace=False).tolist())
            for leaf in chosen:
                value = list(BAD.values())[rng.integers(3)]
                grads = planted(grads, leaf, value, rng.integers(leaves[leaf].size))
                faults[PATHS[leaf]] += 1
            named[int(state["step"])] = PATHS[chosen[0]]
            count += 1
        before = params
        params, state = step(params, state, grads)
        report = gradtx.report(state)
        now = report.last[-1]
        assert (now.step, now.leaf) == (report.steps - 1, named.get(report.steps - 1))
        assert now.skipped == (now.leaf is not None) == np.array_equal(before["a"], params["a"])
        assert {s.step: s.leaf for s in report.last if s.leaf} == {
            k: v for k, v in named.items() if k >= report.steps - ROWS
        }
    first = min(named)
    assert (report.first_step, report.first_leaf, report.skipped) == (first, named[first], 100)
    assert report.faults == {k: n for k, n in faults.items() if n}
    assert sum(faults.values()) > 100


@pytest.mark.wide
def test_a_fault_in_a_large_leaf_is_found_by_optimized_code():
    params = {"a": jnp.ones(5), "w": jnp.ones((1024, 64)), "z": jnp.ones(33, jnp.complex64)}
    tx = gradtx.guard(gradtx.sgd(0.1), deviations=None, updates=True)
    optimized = {"xla_backend_optimization_level": 3}
    step, state = jax.jit(tx.update, compiler_options=optimized), tx.init(params)
    rng = np.random.default_rng(9)
    for i, value in enumerate([*BAD.values(), complex(1, np.nan), complex(1, np.inf)] * 2):
        grads = jax.tree.map(lambda p: np.array(rng.normal(size=p.shape), p.dtype), params)
        name = "z" if isinstance(value, complex) else "w"
        grads[name].reshape(-1)[rng.integers(grads[name].size)] = value
        assert gradtx.report(step(grads, state, params)[1]).faults == {name: 1}, i
    assert gradtx.report(step(params, state, params)[1]).skipped == 0


@pytest.mark.wide
def test_the_report_is_a_table():
    tx = gradtx.guard(gradtx.sgd(1e-3), warmup=1, patience=1, deviations=3.0)
    large = scaled(100.0)
    states = run(tx, [GOOD, planted(GOOD, 1, np.inf), large, large], value=jnp.float32(0.25))
    assert str(gradtx.report(states[-1])) == (
        "guard: 2 of 4 steps skipped, 0 in a row; the first fault was at step 1 in 'b/0'\n"
        "step  loss  gradient_norm   limit\n"
        "   0  0.25         0.4690       -\n"
        "   1  0.25            inf  0.4695  skipped: gradient not finite, first in 'b/0'\n"
        "   2  0.25          46.90  0.4695  skipped: spike\n"
        "   3  0.25          46.90  0.4695  applied: the new level"
    ).replace("0.4690", " 0.469").replace("46.90", " 46.9")


def test_the_report_of_no_steps():
    report = gradtx.report(gradtx.guard(gradtx.sgd(1.0)).init(PARAMS))
    assert str(report) == "guard: 0 of 0 steps skipped, 0 in a row\nstep  loss  gradient_norm  limit"


@pytest.mark.wide
def test_the_report_reads_what_holds_a_state():
    tx = gradtx.guard(gradtx.adamw(1e-3))
    bad = planted(GOOD, 1, np.nan)
    held = gradtx.flax.TrainState.create(apply_fn=None, params=PARAMS, tx=tx).apply_gradients(grads=bad)
    assert gradtx.report(held).first_leaf == "b/0"
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = gradtx.flax.Optimizer(model, tx, wrt=nnx.Param)
    grads = nnx.grad(lambda m: jnp.log(-jnp.abs(m.kernel[...])).sum() + m.bias[...].sum())(model)
    optimizer.update(model, jax.tree.map(lambda g: g + jnp.float32(np.nan) * g, grads))
    assert gradtx.report(optimizer).first_leaf == "bias"
    state = optax.chain(optax.identity(), optax.GradientTransformationExtraArgs(*tx)).init(PARAMS)
    assert gradtx.report(state).name == "1/guard"


def test_several_guards_are_told_apart_by_name():
    tx = gradtx.named_chain(
        ("outer", gradtx.guard(gradtx.scale(2.0))), ("inner", gradtx.guard(gradtx.guard(gradtx.sgd(0.1))))
    )
    state = tx.init(PARAMS)
    for name in ("outer/guard", "inner/guard", "inner/guard/inner/guard"):
        assert gradtx.report(state, name).name == name
    with pytest.raises(ValueError, match=r"more than one guard \(3\)"):
        gradtx.report(state)
    with pytest.raises(ValueError, match="no guard called 'heads'"):
        gradtx.report(state, "heads")


def test_the_report_says_what_it_cannot_read():
    tx = gradtx.guard(gradtx.sgd(0.1))
    with pytest.raises(TypeError, match="no gradtx state in this int"):
        gradtx.report(3)
    with pytest.raises(ValueError, match="no guard in this dict"):
        gradtx.report(gradtx.sgd(0.1).init(PARAMS))
    with pytest.raises(ValueError, match="batch of states"):
        gradtx.report(jax.vmap(tx.init)(jax.tree.map(lambda p: jnp.stack([p, p]), PARAMS)))
    with pytest.raises(TypeError, match="abstract"):
        gradtx.report(jax.eval_shape(tx.init, PARAMS))


# Trees and nesting.


@pytest.mark.wide
def test_masked_and_absent_leaves_keep_their_names():
    params = {"frozen": jnp.ones(2), "none": None, "table": jnp.arange(3), "w": jnp.ones(2), "z": jnp.ones(1)}
    tx = gradtx.masked(gradtx.guard(gradtx.adamw(0.1)), ("w", "z"))
    grads = {**params, "table": np.zeros(3, jax.dtypes.float0), "frozen": jnp.full(2, np.nan)}
    step, state = updating(tx), tx.init(params)
    _, after = step(params, state, grads)
    assert gradtx.report(after).skipped == 0
    new, after = step(params, after, {**grads, "w": None, "z": jnp.full(1, np.inf)})
    assert (gradtx.report(after).first_step, gradtx.report(after).first_leaf) == (1, "z")
    identical(new["z"], params["z"], "the leaf")
    _, after = step(params, after, {**grads, "w": None, "z": None})
    assert gradtx.report(after).last[-1].verdict == Verdict.APPLIED


def test_a_leaf_that_was_none_at_init_is_named_too():
    tx = gradtx.guard(gradtx.sgd(0.1))
    state = tx.init({"u": None, "w": jnp.ones(2)})
    params = {"u": jnp.ones(2), "w": jnp.ones(2)}
    _, state = tx.update({"u": jnp.full(2, np.nan), "w": jnp.ones(2)}, state, params)
    assert gradtx.report(state).first_leaf == "u"


@pytest.mark.wide
@pytest.mark.parametrize("form", FORMS)
def test_a_guard_inside_a_chain_inside_accumulate(form):
    guarded = gradtx.chain(
        gradtx.clip_by_global_norm(1.0), gradtx.guard(gradtx.scale_by_adam()), gradtx.scale(-0.1)
    )
    tx = gradtx.accumulate(guarded, 2, non_finite="keep")
    plain = gradtx.accumulate(
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.scale_by_adam(), gradtx.scale(-0.1)), 2
    )
    both = []
    for this, grads in ((tx, [GOOD, planted(GOOD, 2, np.inf), GOOD, GOOD]), (plain, [GOOD, GOOD])):
        step, params, state = FORMS[form](this), PARAMS, this.init(PARAMS)
        for g in grads:
            params, state = step(params, state, g)
        both.append(params)
    assert gradtx.report(run(tx, [GOOD, planted(GOOD, 2, np.inf)])[-1]).first_leaf == "b/1"
    identical(*both, "params")


# Transformations of functions.


def jaxprs(jaxpr):
    """A jaxpr and all inside of it, but for the second look at gradients of unusual size."""
    yield jaxpr
    usual = {v for e in jaxpr.eqns if e.params.get("name") == "usually" for v in e.outvars}
    usual |= {v for e in jaxpr.eqns for x in e.invars if any(x is u for u in usual) for v in e.outvars}
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond" and equation.invars[0] in usual:
            continue
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from jaxprs(inner)


def sums(tx, form):
    """How often a step sums a whole leaf."""
    params = {k: jnp.ones((8, 4)) for k in "abc"}

    def step(grads, state, params):
        return getattr(tx, form)(grads, state, params)

    traced = jax.make_jaxpr(step)(params, tx.init(params), params)
    found = [e for j in jaxprs(traced.jaxpr) for e in j.eqns if e.primitive.name == "reduce_sum"]
    return sum(e.invars[0].aval.size == 32 for e in found)


@pytest.mark.wide
@pytest.mark.parametrize("form", ["update", "apply_gradients"])
def test_clipping_inside_a_guard_measures_nothing_again(form):
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))
    assert sums(gradtx.adamw(1e-3), form) == 0
    assert sums(clipped, form) == 3
    assert sums(gradtx.guard(gradtx.adamw(1e-3)), form) == 3
    assert sums(gradtx.guard(clipped), form) == 3
    assert sums(gradtx.guard(clipped, updates=True), form) == 3
    assert sums(gradtx.guard(gradtx.guard(clipped)), form) == 3
    assert sums(gradtx.apply_if_finite(clipped, 1), form) == 3


CLIPPED = gradtx.chain(gradtx.clip_by_global_norm(0.3), gradtx.sgd(0.1, momentum=0.9))
WRAPPED = {
    "guard": gradtx.guard(CLIPPED, warmup=1, deviations=1e4),
    "guard updates": gradtx.guard(CLIPPED, updates=True),
    "apply_if_finite": gradtx.apply_if_finite(CLIPPED, 3),
    "conditionally_mask": gradtx.conditionally_mask(
        CLIPPED, lambda step, *, fine: fine, forward_extra_args=True
    ),
    "conditionally_transform": gradtx.conditionally_transform(
        CLIPPED, lambda step, *, fine: fine, forward_extra_args=True
    ),
}


def loss_after(tx, fine):
    """The loss after some steps in a scan, by the gradients, the start, and the numbers in the state."""

    def loss(grads, start, numbers):
        def step(carry, inputs):
            params, state = carry
            g, ok = inputs
            updates, state = tx.update({"w": g}, state, params, fine=ok, value=jnp.float32(1.0))
            return (gradtx.apply_updates(params, updates), state), None

        begin = {"w": start}, {**tx.init({"w": start}), "numbers": numbers}
        (params, _), _ = jax.lax.scan(step, begin, (grads, jnp.array(fine)))
        return jnp.sum(params["w"] ** 2)

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))


START = jnp.array([1.0, 2.0, 3.0])
TWO = jnp.array([[0.3, -0.2, 0.4], [0.1, 0.5, -0.4]])


@pytest.mark.wide
@pytest.mark.parametrize("name", WRAPPED)
def test_reverse_mode_through_good_and_skipped_steps(name):
    """The derivatives are those of the steps that were made; that by a gradient that was skipped is 0.

    The clipping's norm is measured outside of what is skipped: 0 times its derivative at an Inf must not come
    back from there.
    """
    tx = WRAPPED[name]
    bad = jnp.array([[1.0, np.inf, 1.0], [np.nan, 1.0, 1.0], [1.0, 1.0, -np.inf]])
    if name == "conditionally_transform":
        bad = jnp.zeros((3, 3))
    mixed = jnp.concatenate([TWO[:1], bad, TWO[1:]])
    fine = [True, False, False, False, True]
    by_grads, by_start, by_numbers = loss_after(tx, fine)(mixed, START, tx.init({"w": START})["numbers"])
    expected = loss_after(CLIPPED, [True] * 2)(TWO, START, CLIPPED.init({"w": START})["numbers"])
    np.testing.assert_allclose(by_grads[jnp.array([0, 4])], expected[0], rtol=1e-5)
    np.testing.assert_allclose(by_start, expected[1], rtol=1e-5)
    assert all(np.isfinite(x) and x == 0 for x in jax.tree.leaves(by_numbers))
    if name != "conditionally_transform":
        np.testing.assert_array_equal(by_grads[1:4], np.zeros((3, 3)))


@pytest.mark.wide
def test_what_a_guard_keeps_has_no_derivative():
    tx = WRAPPED["guard"]
    state = tx.init({"w": START})

    def kept(g):
        own = slots(tx.update({"w": g}, state)[1])
        return own["mean"] + own["std"] + own["metrics"].sum()

    for g in (TWO[0], jnp.array([1.0, np.inf, 1.0])):
        np.testing.assert_array_equal(jax.grad(kept)(g), np.zeros(3))


@pytest.mark.wide
@pytest.mark.parametrize("name", ["guard", "guard updates", "apply_if_finite"])
def test_a_batch_skips_where_it_must(name):
    tx = WRAPPED[name]
    grads = jnp.stack([jnp.ones(2), jnp.array([1.0, np.nan]), jnp.array([np.inf, 2.0])])
    params = jnp.ones((3, 2))
    states = jax.vmap(tx.init)(params)
    for form in ("update", "apply_gradients"):
        result, after = jax.jit(jax.vmap(getattr(tx, form)))(grads, states, params)
        alone, _ = getattr(tx, form)(grads[0], tx.init(params[0]), params[0])
        np.testing.assert_allclose(result[0], alone, rtol=1e-6)
        still = 0.0 if form == "update" else 1.0
        np.testing.assert_array_equal(result[1:], np.full((2, 2), still))
        inner = next(iter(after["slots"].values()))["inner"]
        assert inner["step"].tolist() == [1, 0, 0]


@pytest.mark.wide
def test_shards_decide_alike():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("shards",))
    split, whole = jax.sharding.PartitionSpec("shards"), jax.sharding.PartitionSpec()
    params = {"w": jnp.ones((8, 2))}
    for wrap in (gradtx.guard, functools.partial(gradtx.apply_if_finite, max_consecutive_errors=9)):
        tx = wrap(gradtx.adam(0.1), axis_name="shards")
        state = tx.init(params)
        specs = jax.tree.map(lambda x: split if x.shape == (8, 2) else whole, state)
        for form in ("update", "apply_gradients"):

            def step(grads, state, params, tx=tx, form=form):
                return getattr(tx, form)(grads, state, params)

            sharded = jax.jit(
                jax.shard_map(step, mesh=mesh, in_specs=(split, specs, split), out_specs=(split, specs))
            )
            result, after = sharded({"w": jnp.ones((8, 2)).at[5, 1].set(np.nan)}, state, params)
            np.testing.assert_array_equal(result["w"], np.full((8, 2), float(form != "update")))
            result, _ = sharded({"w": jnp.ones((8, 2))}, after, params)
            expected, _ = getattr(tx.inner, form)({"w": jnp.ones((8, 2))}, tx.inner.init(params), params)
            np.testing.assert_allclose(result["w"], expected["w"], rtol=1e-6)
        unnamed = wrap(gradtx.adam(0.1))
        with pytest.raises(ValueError, match="vary over the axis shards"):
            jax.shard_map(
                lambda g, s, p, tx=unnamed: tx.update(g, s, p),
                mesh=mesh,
                in_specs=(split, specs, split),
                out_specs=(split, specs),
            )(params, state, params)


# Optax's wrappers.


def side_by_side(ours, theirs, grads, **extra):
    """The updates and states after each step of both libraries."""
    mine, other = ours.init(PARAMS), theirs.init(PARAMS)
    for g, kwargs in zip(grads, extra.get("kwargs") or [{}] * len(grads), strict=True):
        u, mine = ours.update(g, mine, PARAMS, **kwargs)
        v, other = theirs.update(g, other, PARAMS, **kwargs)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), u, v)
        yield mine, other


@pytest.mark.wide
def test_apply_if_finite_is_optaxs_until_it_gives_up():
    bad = [planted(GOOD, i, value) for i, value in enumerate(BAD.values())]
    grads = [GOOD, bad[0], bad[1], GOOD, bad[2], GOOD, GOOD, *bad, GOOD]
    pair = gradtx.apply_if_finite(gradtx.trace(0.9), 3), optax.apply_if_finite(optax.trace(0.9), 3)
    for mine, other in side_by_side(*pair, grads):
        for name in ("notfinite_count", "last_finite", "total_notfinite"):
            own, theirs = slots(mine, "apply_if_finite")[name], getattr(other, name)
            assert own == theirs and own.dtype == theirs.dtype, name


def test_13_the_count_starts_anew_after_giving_up():
    """#1746: Optax's goes on, so that once it has given up it lets every bad step through."""
    tx = gradtx.apply_if_finite(gradtx.trace(0.5), 2)
    state, bad = tx.init(PARAMS), planted(GOOD, 0, np.inf)
    applied, counts = [], []
    for _ in range(7):
        updates, state = tx.update(bad, state, PARAMS)
        applied.append(not np.isfinite(updates["a"]).all())
        counts.append(int(slots(state, "apply_if_finite")["notfinite_count"]))
    assert applied == [False, False, True, False, False, True, False]
    assert counts == [1, 2, 0, 1, 2, 0, 1]
    assert slots(state, "apply_if_finite")["total_notfinite"] == 7
    updates, state = tx.update(GOOD, state, PARAMS)
    own = slots(state, "apply_if_finite")
    assert own["last_finite"] and own["notfinite_count"] == 0 and own["inner"]["step"] == 3


def every_third(step):
    return step % 3 == 0


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", ["conditionally_transform", "conditionally_mask"])
def test_conditions_are_optaxs(name):
    grads = [scaled(1.0 + i) for i in range(7)]
    ours = getattr(gradtx, name)(gradtx.trace(0.9), every_third)
    theirs = getattr(optax, name)(optax.trace(0.9), every_third)
    for mine, other in side_by_side(ours, theirs, grads):
        assert slots(mine, name)["calls"] == other.step

    def small(step, value):
        return (value < 2.0) & (step < 5)

    ours = getattr(gradtx, name)(gradtx.trace(0.9), small, forward_extra_args=True)
    theirs = getattr(optax, name)(optax.trace(0.9), small, forward_extra_args=True)
    kwargs = [{"value": jnp.float32(v)} for v in (1.0, 3.0, 1.0, 3.0, 1.0, 1.0, 1.0)]
    assert len(list(side_by_side(ours, theirs, grads, kwargs=kwargs))) == 7


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["conditionally_transform", "conditionally_mask"])
def test_a_step_that_is_not_run_keeps_the_state(name, form):
    tx = getattr(gradtx, name)(gradtx.adamw(0.1), lambda step: step != 1)
    step = FORMS[form](tx)
    params, state = step(PARAMS, tx.init(PARAMS), GOOD)
    after, rested = step(params, state, GOOD)
    identical(slots(rested, name)["inner"], slots(state, name)["inner"], "inner state")
    if name == "conditionally_mask":
        identical(after, params, "params")
    else:
        identical(after, jax.tree.map(jnp.add, params, GOOD), "params")


SEEN = {
    "good": GOOD,
    "inf": planted(GOOD, 0, np.inf),
    "two": planted(planted(GOOD, 0, np.nan), 1, -np.inf, 3),
    "three": planted(planted(GOOD, 1, np.nan, 1), 1, np.nan, 2),
    "with None": {"a": None, "b": jnp.ones(2)},
    "nothing": {},
}


@pytest.mark.by_turns(4)
@pytest.mark.parametrize("tree", SEEN)
def test_conditions_to_skip_are_optaxs(tree):
    for name, more in (
        ("skip_not_finite", ()),
        ("skip_large_updates", (0.22,)),
        ("skip_large_updates", (1e-3,)),
    ):
        ours = getattr(gradtx, name)(SEEN[tree], 0, None, *more)
        theirs = getattr(optax, name)(SEEN[tree], 0, None, *more)
        assert ours[1].keys() == theirs[1].keys()
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6)
        assert bool(ours[0]) == bool(ours[1]["should_skip"])


@pytest.mark.wide
def test_10_conditions_to_skip_count_in_float32():
    narrow = [jnp.ones((), jnp.bfloat16)] * 600
    skip, seen = gradtx.skip_large_updates(narrow, 0, None, 599.0)
    assert skip and seen["norm_squared"] == 600 and seen["norm_squared"].dtype == jnp.float32
    half = [jnp.full(2, 1e4, jnp.float16)]
    assert (
        optax.skip_large_updates(half, 0, None, 1e9)[0]
        and not gradtx.skip_large_updates(half, 0, None, 1e9)[0]
    )
    assert gradtx.skip_large_updates([jnp.array([3j, 4.0])], 0, None, 26.0)[1]["norm_squared"] == 25


# What goes wrong.


def test_misuse_is_told():
    with pytest.raises(ValueError, match="watch must be 'gradient_norm' or 'loss', got 'norm'"):
        gradtx.guard(gradtx.sgd(0.1), watch="norm")
    with pytest.raises(ValueError, match="deviations must be > 0, got -1"):
        gradtx.guard(gradtx.sgd(0.1), deviations=-1.0)
    tx = gradtx.guard(gradtx.sgd(0.1), watch="loss")
    with pytest.raises(TypeError, match=r"guard needs the keyword argument 'value'"):
        tx.update(GOOD, tx.init(PARAMS), PARAMS)
    with pytest.raises(TypeError, match=r"guard needs the keyword argument 'value'"):
        tx.update(GOOD, tx.init(PARAMS), PARAMS, value=None)
    with pytest.raises(
        ValueError, match=r"value must be the loss, a scalar; its shape is \(2,\)\. Pass the mean"
    ):
        tx.update(GOOD, tx.init(PARAMS), PARAMS, value=jnp.ones(2))
    tx = gradtx.conditionally_mask(gradtx.sgd(0.1), lambda step, value: value > 0, forward_extra_args=True)
    with pytest.raises(TypeError, match=r"conditionally_mask needs the keyword argument 'value'"):
        tx.update(GOOD, tx.init(PARAMS), PARAMS)
    with pytest.raises(
        ValueError, match=r"must give one bool; it gave an array of shape \(2,\)\. .*jnp\.all"
    ):
        tx.update(GOOD, tx.init(PARAMS), PARAMS, value=jnp.ones(2))
    with pytest.raises(ValueError, match="max_consecutive_errors must be >= 0"):
        gradtx.apply_if_finite(gradtx.sgd(0.1), -1)


def test_the_numbers_of_a_guard_are_read_and_set():
    state = gradtx.guard(gradtx.sgd(0.1)).init(PARAMS)
    state = gradtx.set_hyperparams(state, deviations=3.0, learning_rate=0.5, decay=0.9)
    read = gradtx.hyperparams(state)
    assert (read["guard.deviations"], read["learning_rate"], read["guard.decay"]) == (3.0, 0.5, 0.9)
    with pytest.raises(ValueError, match="deviations must be > 0"):
        gradtx.set_hyperparams(state, deviations=0.0)
