"""The parameters may have any names, also those by which a state is read."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtx

NAMES = [
    *(
        "step",
        "numbers",
        "slots",
        "eval_params",
        "inner",
        "inner_1",
        "clock",
        "metrics",
        "marks",
        "measured_at",
    ),
    *(
        "callable",
        "linear_schedule",
        "one_minus_b1",
        "foreign",
        "transform",
        "skipped",
        "faults",
        "adam",
        "a",
    ),
    *("scale_by_adam", "mu", "a/b", "a.b", "0", "opt_state", "guard", "track", "ema_params", "first"),
]


def leaf(value=1.0):
    return jnp.full(2, value)


A_STATE = {
    "step": leaf(),
    "numbers": {"adam": {"learning_rate": leaf(5.0)}},
    "slots": {"ema_params": {"eval_params": {"a": leaf(7.0)}}},
}
A_GUARD = {
    name: leaf() for name in (*gradtx.wrappers.guard.Guard.slots, *gradtx.wrappers.guard.Guard.scalars)
}
HOSTILE = {
    "a state": A_STATE,
    "a state below": {"a": A_STATE, "b": leaf()},
    "an average": {"eval_params": {"a": leaf()}, "a": leaf(2.0)},
    "an average of all": {"eval_params": {"eval_params": leaf()}},
    "what is wrapped": {"inner": A_STATE, "inner_1": {"inner": A_STATE}},
    "a function": {"callable": leaf(), "b": {"callable": leaf()}},
    "a schedule": {"linear_schedule": leaf(), "b": {"linear_schedule": {"init_value": leaf()}}},
    "a clock": {"clock": leaf(), "slots": {"clock": leaf(3.0)}},
    "a guard": {**A_GUARD, "inner": A_STATE},
    "a record": {
        "marks": leaf(),
        "metrics": {"gradient_norm": leaf()},
        "measured_at": leaf(),
        "skipped": leaf(),
    },
    "another library": {"foreign": A_STATE, "transform": {"eval_params": {"foreign": leaf()}}},
    "separators": {
        "a/b": {"c.d": leaf(), "c": {"d": leaf()}},
        "a": {"b/c": leaf(2.0)},
        "eval_params.a": leaf(),
    },
}
TRANSFORMS = {
    "momentum": lambda: gradtx.sgd(0.1, momentum=0.9),
    "average": lambda: gradtx.ema_params(gradtx.sgd(0.1, momentum=0.9), 0.5),
    "guard": lambda: gradtx.guard(gradtx.adam(0.1)),
    "track": lambda: gradtx.track(gradtx.accumulate(gradtx.adam(0.1), 2), every=1),
    "accumulate": lambda: gradtx.accumulate(gradtx.sgd(gradtx.linear_schedule(0.1, 0.0, 4), momentum=0.9), 2),
    "lookahead": lambda: gradtx.lookahead(gradtx.sgd(0.1, momentum=0.9), 2, 0.5),
    "monitor": lambda: gradtx.chain(gradtx.monitor({"inner": gradtx.trace(0.5)}), gradtx.sgd(0.1)),
    "optax": lambda: gradtx.chain(optax.trace(0.5), gradtx.sgd(0.1)),
    "a function": lambda: gradtx.chain(
        gradtx.GradientTransformation(
            lambda params: jax.tree.map(jnp.zeros_like, params),
            lambda gs, state, params=None: (gs, jax.tree.map(jnp.add, state, gs)),
        ),
        gradtx.sgd(0.1),
    ),
}


def plain(params):
    """The same leaves, by numbers."""
    return {f"leaf_{i:03}": x for i, x in enumerate(jax.tree.leaves(params))}


def readings(tx, params):
    """All that can be read of a state after two steps, where the parameters' names are not among it."""
    state = tx.init(params)
    for _ in range(2):
        params, state = gradtx.apply_gradients(tx, jax.tree.map(lambda p: 0.1 * p, params), state, params)
    settable = "momentum" if "momentum" in gradtx.hyperparams(state) else "learning_rate"
    state = gradtx.set_hyperparams(state, **{settable: 0.25})
    rebased, changes = gradtx.rebase(tx, state)
    found = {
        "hyperparams": gradtx.hyperparams(state),
        "step": gradtx.step_count(state),
        "metrics": gradtx.metrics(state),
        "average": [x.tolist() for x in jax.tree.leaves(gradtx.eval_params(state, params))],
        "changes": changes,
        "rebased": gradtx.hyperparams(rebased),
        "mapped": [
            x.tolist() for x in jax.tree.leaves(gradtx.tree_map_params(tx, lambda x: x + 1, state)["slots"])
        ],
        "restored": [
            x.tolist()
            for x in jax.tree.leaves(gradtx.from_state_dict(tx, params, gradtx.to_state_dict(state))[0])
        ],
    }
    try:
        report = gradtx.report(state)
        found["report"] = report.name, report.steps, report.skipped, len(report.faults)
    except ValueError as error:
        found["report"] = str(error)
    return found


def reads_the_same(make, params):
    """The same is read as of parameters with harmless names, in the order of the leaves."""
    tx = make()
    mine, theirs = readings(tx, params), readings(tx, plain(params))
    for what, value in theirs.items():
        if what in ("mapped", "restored", "average"):
            assert all(np.array_equal(a, b) for a, b in zip(mine[what], value, strict=True)), what
        else:
            assert mine[what] == value, what


PAIRS = [
    (tree, name)
    for i, tree in enumerate(HOSTILE)
    for j, name in enumerate(TRANSFORMS)
    if (i + j) % 4 == 0 or tree == "an average"
]
"""Each tree with some transforms, and each transform with some trees."""


@pytest.mark.by_turns(2)
@pytest.mark.parametrize(("tree", "name"), PAIRS)
def test_any_names_of_the_parameters_read_the_same(tree, name):
    reads_the_same(TRANSFORMS[name], HOSTILE[tree])


TREES = st.recursive(
    st.just(leaf()),
    lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, min_size=1, max_size=3),
    max_leaves=5,
).filter(lambda tree: isinstance(tree, dict))


@pytest.mark.wide
@settings(max_examples=5, deadline=None)
@given(TREES, st.sampled_from(sorted(TRANSFORMS)))
def test_trees_of_such_names_read_the_same(params, name):
    reads_the_same(TRANSFORMS[name], params)


def test_the_momentum_of_a_leaf_named_eval_params_is_no_average():
    params = {"eval_params": {"a": 1.0}, "a": 1.0}
    tx = gradtx.sgd(0.1, momentum=0.9)
    params, state = gradtx.apply_gradients(tx, params, tx.init(params), params)
    assert gradtx.eval_params(state, params) == params


@pytest.mark.by_turns(9)
@pytest.mark.parametrize("label", ["eval_params", "inner", "clock", "foreign", "step", "a.b", "a/b"])
@pytest.mark.parametrize("slot", ["trace", "eval_params"])
def test_groups_may_have_such_names_too(label, slot):
    params = {"a": leaf(), slot: leaf(2.0)}
    tx = gradtx.partition({label: gradtx.ema_params(gradtx.sgd(0.1, momentum=0.9), 0.5)}, label)
    new, state = gradtx.apply_gradients(tx, params, tx.init(params), params)
    found = gradtx.eval_params(state, new)
    for path, p in params.items():
        np.testing.assert_allclose(found[path], 0.5 * p + 0.5 * new[path], rtol=1e-6)
    assert gradtx.hyperparams(state)["learning_rate"] == 0.1
    assert gradtx.hyperparams(state)[f"{label}.sgd.learning_rate".rpartition(".")[2]] == 0.1


def test_a_transform_and_a_group_of_its_name_have_slots_of_their_own():
    tx = gradtx.chain(gradtx.trace(0.9), gradtx.named_chain(("trace", gradtx.trace(0.8))))
    state = tx.init({"trace": leaf()})
    _, state = tx.update({"trace": leaf()}, state)
    assert {key: slots["trace"]["trace"].shape for key, slots in state["slots"].items()} == {
        "trace": (2,),
        "trace.trace": (2,),
    }


def test_a_transform_that_is_a_user_s_own_names_no_slot_as_a_state_is_read():
    for wrong, words in (
        ("inner", "the state of a wrapped transform"),
        ("inner_1", "the state of a wrapped transform"),
        ("clock", "that its schedules run by"),
    ):
        with pytest.raises(TypeError, match=words):
            type("Wrong", (gradtx.Rule,), {wrong: gradtx.Slot()}, name="wrong")
    with pytest.raises(TypeError, match="another library's transform"):
        type("Wrong", (gradtx.Rule,), {}, name="foreign_1")


def test_the_clock_of_a_wrapper_is_that_of_schedules_inside_a_schedule():
    inner = gradtx.linear_schedule(1.0, 5.0, 4)
    tx = gradtx.accumulate(gradtx.sgd(0.1), gradtx.join_schedules([inner, inner], [10]))
    params = {"clock": leaf()}
    state = tx.init(params)
    for _ in range(3):
        params, state = gradtx.apply_gradients(tx, params, state, params)
    # The first update takes one gradient, the second one two.
    read = gradtx.hyperparams(state)
    assert read["accumulate.every"] == read["accumulate.every.schedules.0"] == 3.0


def test_a_state_dict_of_another_library_has_no_step_to_go_by():
    tx = gradtx.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params), lambda gs, state, params=None: (gs, state)
    )
    params = {"step": leaf(), "a": jnp.ones(3)}
    state, _ = gradtx.from_state_dict(tx, params, gradtx.to_state_dict(tx.init(params)))
    assert state["step"].shape == (2,) and state["a"].shape == (3,)


def test_a_formula_takes_no_metric_for_the_slot_of_a_leaf_of_its_name():
    tx = gradtx.track(gradtx.sgd(0.1), every=1)
    shapes = {name: jax.ShapeDtypeStruct((2,), np.float32) for name in ("gradient_norm", "measured_at")}
    plainly = {name: jax.ShapeDtypeStruct((2,), np.float32) for name in ("a", "b")}
    mine = gradtx.formula(tx, shapes, "gradient_norm")
    assert mine.slots.keys() == gradtx.formula(tx, plainly, "a").slots.keys()
