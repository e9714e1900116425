"""Groups of leaves: a transform for each, and leaves that are frozen."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import references
import test_labels
import wrapper_references
from counting import compilations
from test_labels import FILTERED, LAYERS, PARAMS, Model, Part, by_path, ends, groups
from trajectories import x64


@pytest.mark.wide
def test_a_label_that_no_leaf_has_is_allowed():
    tx = gradtx.partition(
        {"a": gradtx.adam(0.1), "b": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1))}, "a"
    )
    _, state = jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)
    assert jax.tree.leaves(state["slots"]["b.scale_by_adam"]) == []


def test_a_change_of_the_mapping_does_not_reach_the_transform():
    transforms, factors = {"a": gradtx.sgd(0.1)}, {"a": 1.0}
    tx, scale = gradtx.partition(transforms, "a"), gradtx.scale_by_group(factors, "a")
    transforms["a"], factors["a"] = gradtx.sgd(0.2), 2.0
    assert (tx, scale) == (
        gradtx.partition({"a": gradtx.sgd(0.1)}, "a"),
        gradtx.scale_by_group({"a": 1.0}, "a"),
    )


TEN = [
    jax.tree.map(lambda p, i=i: np.sin(i + np.arange(p.size, dtype=p.dtype)).reshape(p.shape), PARAMS)
    for i in range(10)
]
"""Gradients for ten steps."""


@pytest.fixture
def as_optax():
    """Float64, where Optax rounds no decay, and standard promotion: it does not run under the strict one."""
    with jax.numpy_dtype_promotion("standard"), x64():
        yield


def trajectory(tx, steps=100):
    """The parameters after each compiled step of a transform of any library, in float64."""

    @jax.jit
    def step(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
        return (params, state), params

    params, *grads = jax.tree.map(np.float64, (PARAMS, *TEN))
    stacked = jax.tree.map(lambda *g: np.stack([g[i % len(g)] for i in range(steps)]), *grads)
    return jax.lax.scan(step, (params, tx.init(params)), stacked)[1]


def agree(ours, theirs, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol), ours, theirs)


def trio(library):
    return {
        "embed": library.adam(1e-2),
        "layers": library.sgd(0.1, momentum=0.9),
        "frozen": library.set_to_zero(),
    }


LABELS = {"embed": "embed", "layers": ["layers", {"kernel": "layers", "bias": "frozen"}]}


@pytest.mark.wide
@pytest.mark.brief
@pytest.mark.usefixtures("as_optax")
def test_it_equals_optaxs_partition_for_100_steps():
    ours = trajectory(gradtx.partition(trio(gradtx), LABELS))
    agree(ours, trajectory(optax.partition(trio(optax), LABELS)))
    start = by_path(PARAMS)
    moved = {path for path, x in by_path(ours).items() if (x[-1] != start[path]).any()}
    assert moved == set(start) - {"layers/1/bias"}


@pytest.mark.wide
@pytest.mark.usefixtures("as_optax")
def test_freezing_equals_optaxs():
    mask = {"embed": True, "layers": [False, {"kernel": True, "bias": False}]}
    pairs = [
        (gradtx.freeze(mask), optax.transforms.freeze(mask)),
        (
            gradtx.selective_transform(gradtx.adam(0.1), freeze_mask=mask),
            optax.transforms.selective_transform(optax.adam(0.1), freeze_mask=mask),
        ),
    ]
    for ours, theirs in pairs:
        result = trajectory(ours, 10)
        agree(result, trajectory(theirs, 10))
        assert (result["embed"]["table"] == 1).all() and (result["layers"][0]["bias"][-1] != 1).all()


def test_multi_transform_is_partition():
    assert gradtx.multi_transform(trio(gradtx), LABELS) == gradtx.partition(trio(gradtx), LABELS)


@pytest.mark.wide
@pytest.mark.usefixtures("as_optax")
def test_optaxs_transforms_work_in_groups():
    mixed = {**trio(gradtx), "embed": optax.adam(1e-2)}
    agree(trajectory(gradtx.partition(mixed, LABELS)), trajectory(optax.partition(trio(optax), LABELS)))


def leaves(tree):
    """The leaves as the references take them."""
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def norms(updates):
    """The norms of the embedding, of the layers, and of all."""
    parts = [
        np.sqrt(sum(float((u**2).sum()) for u in jax.tree.leaves(updates[k]))) for k in ("embed", "layers")
    ]
    return [*parts, np.hypot(*parts)]


@pytest.mark.wide
def test_20_a_norm_inside_a_group_is_of_the_group_and_outside_of_the_tree():
    labels = {"embed": "embed", "layers": "layers"}
    clip = gradtx.clip_by_global_norm
    inside = gradtx.partition({"embed": clip(1.0), "layers": clip(2.0)}, labels)
    outside = gradtx.chain(
        clip(1.0), gradtx.partition({"embed": gradtx.identity(), "layers": gradtx.scale(1.0)}, labels)
    )
    of_one = gradtx.partition({"embed": clip(1.0), "layers": gradtx.scale(1.0)}, labels)
    embed, layers, whole = norms(PARAMS)
    for tx, expected in [
        (inside, [1.0, 2.0, np.sqrt(5.0)]),
        (outside, [embed / whole, layers / whole, 1.0]),
        (of_one, [1.0, layers, np.hypot(1.0, layers)]),
    ]:
        updates, _ = jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)
        np.testing.assert_allclose(norms(updates), expected, rtol=1e-6)


def test_19_every_leaf_has_a_transform_so_that_no_raw_gradient_passes():
    tx = gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.set_to_zero()}, {"*kernel": "a", "*": "b"})
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    passed = {path for path, u in by_path(updates).items() if float(u.ravel()[0]) == 1.0}
    assert passed == set()


def test_19_a_partition_inside_a_group_labels_the_leaves_of_the_group_alone():
    inner = gradtx.partition(
        {"a": gradtx.scale(2.0), "b": gradtx.scale(3.0)},
        lambda path, leaf: {"kernel": "a", "bias": "b"}[path.split("/")[-1]],
    )
    tx = gradtx.partition({"rest": gradtx.scale(5.0), "layers": inner}, {"embed": "rest", "layers": "layers"})
    assert groups(tx) == LAYERS
    assert set(gradtx.hyperparams(tx.init(PARAMS))) == {
        "rest.scale.step_size",
        "layers.a.scale.step_size",
        "layers.b.scale.step_size",
    }


def test_19_masks_inside_a_group_intersect_with_it():
    tx = gradtx.partition(
        {"a": gradtx.masked(gradtx.scale(2.0), "*kernel", outside="zero"), "b": gradtx.scale(3.0)},
        {"layers/0/*": "a", "*": "b"},
    )
    updates = by_path(tx.update(PARAMS, tx.init(PARAMS))[0])
    assert [float(u.ravel()[0]) for u in updates.values()] == [3.0, 0.0, 2.0, 3.0, 3.0]


def test_parallel_branches_inside_a_group_leave_the_other_groups_alone():
    squares = gradtx.chain(gradtx.square(), gradtx.trace(0.5))
    both = gradtx.add(gradtx.clip_by_global_norm(1.0), squares)
    tx = gradtx.partition({"a": both, "b": gradtx.trace(0.9)}, {"embed": "a", "layers": "b"})
    updates, _ = jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["embed"]["table"], 1 / np.sqrt(6) + 1, rtol=1e-6)
    jax.tree.map(lambda u: np.testing.assert_array_equal(u, 1.0), updates["layers"])


def test_a_real_update_in_one_group_leaves_complex_slots_in_another():
    params = {"z": jnp.ones(2, jnp.complex64), "w": jnp.ones(2, jnp.complex64)}
    for first, second in (("z", "w"), ("w", "z")):
        tx = gradtx.partition(
            {first: gradtx.chain(gradtx.square(), gradtx.trace(0.9)), second: gradtx.trace(0.9)},
            {"z": "z", "w": "w"},
        )
        grads = jax.tree.map(lambda p: p * (1 + 2j), params)
        updates, state = tx.update(grads, tx.init(params), params)
        assert state["slots"][f"{first}.trace"]["trace"][first].dtype == jnp.float32
        np.testing.assert_allclose(updates[first], 5.0)
        np.testing.assert_allclose(updates[second], 1 + 2j)


def moment_bytes(state):
    return sum(x.nbytes for x in jax.tree.leaves(state["slots"]))


FROZEN = {"body": jnp.ones((1000, 10)), "head": jnp.ones((10, 2))}


@pytest.mark.by_turns(3)
@pytest.mark.parametrize(
    "tx",
    [
        gradtx.selective_transform(gradtx.adamw(0.1), freeze_mask={"body": True, "head": False}),
        gradtx.selective_transform(gradtx.adamw(0.1), freeze_mask="body*"),
        gradtx.selective_transform(gradtx.adamw(0.1), freeze_mask=lambda path, leaf: leaf.size > 100),
        gradtx.selective_transform(
            gradtx.adamw(0.1), freeze_mask=lambda p: jax.tree.map(lambda x: x.size > 100, p)
        ),
        gradtx.partition(
            {"frozen": gradtx.set_to_zero(), "trained": gradtx.adamw(0.1)},
            {"body*": "frozen", "*": "trained"},
        ),
    ],
    ids=["a tree", "a pattern", "a predicate", "a function of the parameters", "a partition"],
)
def test_24_frozen_leaves_have_no_state_and_do_not_move(tx):
    state = tx.init(FROZEN)
    assert moment_bytes(state) == 2 * FROZEN["head"].nbytes
    assert moment_bytes(gradtx.chain(gradtx.adamw(0.1), gradtx.freeze("body*")).init(FROZEN)) == 2 * (
        FROZEN["body"].nbytes + FROZEN["head"].nbytes
    )
    grads = {"body": jnp.full_like(FROZEN["body"], jnp.nan), "head": jnp.ones_like(FROZEN["head"])}
    for apply in (
        gradtx.apply_gradients,
        lambda tx, g, s, p: (gradtx.apply_updates(p, tx.update(g, s, p)[0]), s),
    ):
        params, _ = apply(tx, grads, state, FROZEN)
        np.testing.assert_array_equal(params["body"], FROZEN["body"])
        assert (params["head"] != FROZEN["head"]).all()


WHOLE = Model(jnp.ones((2, 2)), jnp.ones(2), jax.nn.relu)


@pytest.mark.parametrize("labels", [Model("a", "a", "frozen"), {"activation*": "frozen", "*": "a"}], ids=repr)
def test_what_is_no_array_may_be_frozen(labels):
    """A whole model, with functions among its leaves, whose gradients are None."""
    for tx in (
        gradtx.partition({"a": gradtx.adam(0.1), "frozen": gradtx.set_to_zero()}, labels),
        gradtx.selective_transform(gradtx.adam(0.1), freeze_mask="activation"),
    ):
        moved, state = gradtx.apply_gradients(tx, FILTERED, tx.init(WHOLE), WHOLE)
        assert moved.activation is jax.nn.relu
        assert (moved.weight < WHOLE.weight).all()
        assert len(jax.tree.leaves(state["slots"])) == 4


def test_a_predicate_inside_a_group_is_asked_about_the_group_alone():
    tx = gradtx.partition(
        {"a": gradtx.adamw(0.1, mask=lambda path, leaf: leaf.ndim > 1), "frozen": gradtx.set_to_zero()},
        {"activation*": "frozen", "*": "a"},
    )
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, FILTERED), tx.init(WHOLE), WHOLE)
    assert updates.weight.all() and not updates.bias.any()


def test_what_is_no_array_may_not_be_trained():
    tx = gradtx.partition({"a": gradtx.adam(0.1)}, "a")
    with pytest.raises(
        TypeError, match=r"a\.scale_by_adam: the leaf 'activation' is of type .*, which has no gradient"
    ):
        tx.init(WHOLE)


def test_an_integer_leaf_may_be_frozen():
    params = {"w": jnp.ones(2), "ids": jnp.arange(2)}
    grads = jax.grad(lambda p: (p["w"] * p["ids"].astype(jnp.float32)).sum(), allow_int=True)(params)
    for tx in (
        gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.set_to_zero()}, {"w": "a", "ids": "b"}),
        gradtx.chain(gradtx.masked(gradtx.sgd(0.1), "w"), gradtx.freeze("ids")),
        gradtx.masked(gradtx.sgd(0.1), "w", outside="zero"),
    ):
        moved, _ = jax.jit(functools.partial(gradtx.apply_gradients, tx))(grads, tx.init(params), params)
        assert moved["ids"].tolist() == [0, 1] and moved["w"].tolist() == [1.0, np.float32(0.9)]


def test_a_leaf_without_a_gradient_this_time_keeps_its_slots():
    tx = gradtx.partition({"a": gradtx.trace(0.9), "b": gradtx.adam(0.1)}, {"embed": "a", "layers": "b"})
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    grads = {**PARAMS, "embed": {"table": None}}
    updates, after = tx.update(grads, state, PARAMS)
    assert updates["embed"]["table"] is None
    np.testing.assert_array_equal(*(s["slots"]["a.trace"]["trace"]["embed"]["table"] for s in (state, after)))


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("apply", [False, True], ids=["update", "apply_gradients"])
@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("wrap", ["inside", "around"])
def test_accumulation_in_a_group_and_around_groups(wrap, order, apply):
    first, second = references.Sgd(0.1, 0.9), references.Sgd(0.2, 0.8)
    each, whole = (gradtx.accumulate, None) if wrap == "inside" else (None, gradtx.accumulate)
    members = {
        "a": each(gradtx.sgd(0.1, 0.9), 2) if each else gradtx.sgd(0.1, 0.9),
        "b": gradtx.sgd(0.2, 0.8),
    }
    tx = gradtx.partition({k: members[k] for k in order}, {"embed": "a", "layers": "b"})
    tx = whole(tx, 2) if whole else tx
    reference = wrapper_references.Partition(
        {"a": wrapper_references.Accumulate(first, 2) if each else first, "b": second},
        lambda path, leaf: "a" if leaf.shape == (3, 2) else "b",
    )
    reference = wrapper_references.Accumulate(reference, 2) if whole else reference
    expected = references.run(reference, leaves(PARAMS), [leaves(g) for g in TEN])

    @jax.jit
    def step(params, state, grads):
        if apply:
            return gradtx.apply_gradients(tx, grads, state, params)
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for grads, wanted in zip(TEN, expected, strict=True):
        params, state = step(params, state, grads)
        for a, b in zip(jax.tree.leaves(params), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert step._cache_size() == 1


@pytest.mark.wide
@pytest.mark.parametrize("labels", ["a", {"embed": "a", "layers": "b"}], ids=["every leaf", "some leaves"])
def test_a_wrapper_that_ends_a_partition_may_hold_every_leaf_or_some(labels):
    """`apply_gradients` and `update` agree also where no leaf is left to the other group."""
    tx = gradtx.partition({"b": gradtx.sgd(0.2), "a": gradtx.accumulate(gradtx.sgd(0.1), 2)}, labels)
    one, state = PARAMS, tx.init(PARAMS)
    other, other_state = PARAMS, state
    for grads in TEN[:4]:
        one, state = jax.jit(functools.partial(gradtx.apply_gradients, tx))(grads, state, one)
        updates, other_state = jax.jit(tx.update)(grads, other_state, other)
        other = gradtx.apply_updates(other, updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one, other)


def pair(*rates):
    return gradtx.partition(
        {k: gradtx.adamw(r) for k, r in zip(["embed", "body"], rates, strict=True)},
        {"embed": "embed", "layers": "body"},
    )


def test_hyperparameters_are_read_and_set_by_group():
    state = pair(0.1, 0.2).init(PARAMS)
    names = gradtx.hyperparams(state)
    assert names["embed.adamw.learning_rate"] == 0.1 and names["body.adamw.learning_rate"] == 0.2
    assert state["numbers"]["embed.adamw"]["learning_rate"] == np.float32(0.1)
    changed = gradtx.set_hyperparams(state, **{"body.adamw.learning_rate": 0.5})
    assert gradtx.hyperparams(changed) == {**names, "body.adamw.learning_rate": 0.5}


def test_rebasing_names_the_group():
    state = pair(0.1, 0.2).init(PARAMS)
    _, changes = gradtx.rebase(pair(0.1, 0.4), state)
    assert changes == {"body.adamw.learning_rate": (0.2, 0.4)}


@pytest.mark.wide
def test_changed_numbers_and_a_second_optimizer_compile_nothing():
    txs = [
        gradtx.chain(
            pair(0.1 * i, 0.2 * i),
            gradtx.scale_by_group({"x": 1.0 * i, "y": 2.0}, {"embed": "x", "layers": "y"}),
        )
        for i in (1, 2, 3)
    ]
    step = jax.jit(lambda params, state: gradtx.apply_gradients(txs[0], TEN[0], state, params))
    eager = functools.partial(gradtx.apply_gradients, grads=TEN[0], params=PARAMS)
    states = [tx.init(PARAMS) for tx in txs]
    states[1] = gradtx.set_hyperparams(states[1], **{"scale_by_group.x": 3.0})
    for tx, state in zip(txs[:2], states[:2], strict=True):
        step(PARAMS, state), eager(tx, state=state)
    with compilations() as count:
        step(PARAMS, states[2])
        step(
            PARAMS,
            gradtx.set_hyperparams(states[2], **{"embed.adamw.learning_rate": 0.7, "scale_by_group.y": 9.0}),
        )
        eager(txs[2], state=states[2])
        assert count() == 0


def test_two_partitions_with_the_same_labels_and_a_transform_of_a_labels_name():
    labels = {"embed": "trace", "layers": "trace_1"}
    part = gradtx.partition({"trace": gradtx.trace(0.9), "trace_1": gradtx.trace(0.8)}, labels)
    tx = gradtx.chain(gradtx.trace(0.7), part, part, gradtx.trace(0.6))
    numbers = tx.init(PARAMS)["numbers"]
    named = {"trace", "trace_1.trace", "trace_1_1.trace", "trace_1_2.trace", "trace_2.trace", "trace_3"}
    assert set(numbers) == named
    assert len(set(tx.program.slot_paths)) == 6
    updates, _ = jax.jit(tx.update)(PARAMS, tx.init(PARAMS))
    jax.tree.map(np.testing.assert_array_equal, updates, PARAMS)


REBUILT = [
    gradtx.partition({"a": gradtx.adam(0.1), "b": gradtx.set_to_zero()}, {"*embed*": "a", "*": "b"}),
    gradtx.partition({0: gradtx.adam(0.1)}, [["*", 0]], mask_compatible_extra_args=True),
    gradtx.partition(
        {Part.BODY: gradtx.sgd(0.1), Part.HEAD: gradtx.sgd(0.2)}, {"embed": Part.BODY, "layers": Part.HEAD}
    ),
    gradtx.partition({"a": gradtx.adam(0.1), "b": gradtx.sgd(0.2), "c": gradtx.sgd(0.3)}, ends),
    gradtx.freeze(("*bias", "!layers/0/*")),
    gradtx.selective_transform(
        gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 5)), freeze_mask={"embed": True, "layers": False}
    ),
    gradtx.scale_by_group({"a": 10.0, "b": gradtx.linear_schedule(0.0, 1.0, 3), "c": 1.0}, ends),
]


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("tx", REBUILT, ids=repr)
def test_the_repr_rebuilds_it(tx):
    scope = {**vars(gradtx), "test_labels": test_labels}
    rebuilt = eval(repr(tx), scope)
    assert rebuilt == tx and hash(rebuilt) == hash(tx) and repr(rebuilt) == repr(tx)
    assert rebuilt.program == tx.program and rebuilt.program.masks == tx.program.masks
    jax.tree.map(
        np.testing.assert_array_equal, *(t.update(PARAMS, t.init(PARAMS), PARAMS)[0] for t in (rebuilt, tx))
    )


def test_a_trained_leaf_that_moves_to_another_group_is_an_error():
    before = gradtx.partition(
        {"a": gradtx.adam(0.1), "b": gradtx.set_to_zero()}, {"embed": "b", "layers": "a"}
    )
    after = gradtx.partition({"a": gradtx.adam(0.1), "b": gradtx.set_to_zero()}, "a")
    with pytest.raises(
        ValueError, match=r"a\.scale_by_adam: the state has no 'mu' for the leaf 'embed/table'"
    ):
        after.update(PARAMS, before.init(PARAMS), PARAMS)


def needs_a_tree(seen):
    """A function of another library that compares a keyword argument with the updates, leaf by leaf."""

    def update(updates, state, params=None, *, like, value):
        seen.append((value, like))
        return jax.tree.map(lambda u, x: u * x, updates, like), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def test_keyword_arguments_reach_the_groups_as_they_are():
    seen = []
    tx = gradtx.partition({"a": needs_a_tree(seen), "b": gradtx.scale(2.0)}, {"embed": "a", "layers": "b"})
    with pytest.raises(ValueError, match="None"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, like=PARAMS, value=3.0)
    assert seen == [(3.0, PARAMS)]


@pytest.mark.parametrize(
    "wrap", [lambda tx: tx, lambda tx: gradtx.accumulate(tx, 1)], ids=["alone", "in a wrapper"]
)
def test_mask_compatible_keyword_arguments_lose_the_leaves_of_other_groups(wrap):
    seen = []
    inner = {"a": wrap(needs_a_tree(seen)), "b": gradtx.scale(2.0)}
    tx = gradtx.partition(inner, {"embed": "a", "layers": "b"}, mask_compatible_extra_args=True)
    threes = jax.tree.map(lambda p: 3.0 * p, PARAMS)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, like=threes, value=4.0)
    assert [value for value, _ in seen] == [4.0] * len(seen)
    assert updates["embed"]["table"][0, 0] == 3.0 and updates["layers"][0]["bias"][0] == 2.0
    nothing = {"kernel": None, "bias": None}
    assert seen[0][1]["layers"] == [nothing, nothing]


def test_a_mask_may_cut_keyword_arguments_too():
    seen = []
    tx = gradtx.masked(needs_a_tree(seen), "embed*", mask_compatible_extra_args=True)
    updates, _ = tx.update(
        PARAMS, tx.init(PARAMS), PARAMS, like=jax.tree.map(lambda p: 3.0 * p, PARAMS), value=4.0
    )
    assert updates["embed"]["table"][0, 0] == 3.0
    nothing = {"kernel": None, "bias": None}
    assert seen[0][1]["layers"] == [nothing, nothing]
    assert "mask_compatible_extra_args=True" in repr(tx)
