"""Labels: every form of saying which group a leaf belongs to, and what is wrong with the others."""

from __future__ import annotations

import dataclasses
import enum
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import gradtx
import gradtx.flax

PARAMS = {
    "embed": {"table": jnp.ones((3, 2))},
    "layers": [
        {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    ],
}


PATHS = ["embed/table", "layers/0/bias", "layers/0/kernel", "layers/1/bias", "layers/1/kernel"]


TRANSFORMS = {"a": gradtx.scale(2.0), "b": gradtx.scale(3.0), "c": gradtx.scale(5.0)}


OF_FACTOR = {2.0: "a", 3.0: "b", 5.0: "c"}


def by_path(updates):
    return dict(zip(PATHS, jax.tree.leaves(updates), strict=True))


def groups(tx, params=PARAMS):
    """The label of each leaf, as told by what `scale` did to gradients of 1."""
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(ones, tx.init(params), params)
    return [OF_FACTOR[float(u.ravel()[0])] for u in jax.tree.leaves(updates)]


def ends(path, leaf):
    return "a" if path.endswith("kernel") else "b" if path.endswith("bias") else "c"


LAYERS = ["c", "b", "a", "b", "a"]


FORMS = {
    "a tree": (
        {"embed": {"table": "c"}, "layers": [{"kernel": "a", "bias": "b"}, {"kernel": "a", "bias": "b"}]},
        LAYERS,
    ),
    "a prefix of the tree": ({"embed": "c", "layers": ["a", {"kernel": "b", "bias": "a"}]}, [*"caaab"]),
    "one label": ("b", [*"bbbbb"]),
    "a function of path and leaf": (ends, LAYERS),
    "a partial function": (
        functools.partial(lambda of, path, leaf: of[path[0]], {"e": "a", "l": "c"}),
        [*"acccc"],
    ),
    "a function of the parameters": (
        lambda params: jax.tree.map(lambda p: "a" if p.shape == (2, 2) else "b", params),
        [*"bbaba"],
    ),
    "a function of the parameters that gives a prefix": (
        lambda params: {"embed": "a", "layers": "b"},
        [*"abbbb"],
    ),
    "patterns": ({"*kernel": "a", "*bias": "b", "*": "c"}, LAYERS),
    "patterns, of which the first that matches counts": (
        {"layers/0/*": "a", "layers/*": "b", "*": "c"},
        [*"caabb"],
    ),
    "the same in another order": ({"layers/*": "b", "layers/0/*": "a", "*": "c"}, [*"cbbbb"]),
    "a pattern without a wildcard among others": ({"embed/table": "b", "*": "c"}, [*"bcccc"]),
    "an excluding pattern": ({"!*bias": "a", "*": "b"}, [*"ababa"]),
    "pairs": ((("*kernel", "a"), ("*", "b")), [*"bbaba"]),
    "lists of two, as JSON has them": ([["*kernel", "a"], ["*", "b"]], [*"bbaba"]),
}


@pytest.mark.by_turns(13)
@pytest.mark.brief
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_labels(form):
    labels, expected = FORMS[form]
    assert groups(gradtx.partition(TRANSFORMS, labels)) == expected


@pytest.mark.parametrize("form", FORMS)
def test_the_labels_of_factors_take_every_form(form):
    labels, expected = FORMS[form]
    assert groups(gradtx.scale_by_group({"a": 2.0, "b": 3.0, "c": 5.0}, labels)) == expected


class Part(enum.Enum):
    BODY = 1
    HEAD = 2


@pytest.mark.by_turns(4)
@pytest.mark.parametrize(
    "one, other",
    [(0, 1), (True, False), (Part.BODY, Part.HEAD), ((0, 1), (0, 2)), (np.int64(3), 4)],
    ids=repr,
)
def test_a_label_is_anything_hashable(one, other):
    tx = gradtx.partition(
        {one: gradtx.scale(2.0), other: gradtx.scale(3.0)},
        lambda path, leaf: one if path.startswith("embed") else other,
    )
    assert groups(tx) == [*"abbbb"]
    assert set(tx.init(PARAMS)["numbers"]) == {f"{one}.scale", f"{other}.scale"}


def test_members_of_an_enum_print_as_code():
    tx = gradtx.partition({Part.BODY: gradtx.sgd(0.1)}, Part.BODY)
    assert repr(tx) == f"partition({{{__name__}.Part.BODY: sgd(0.1)}}, {__name__}.Part.BODY)"


def of(mapping):
    return gradtx.partition(mapping, "a")


def quoted(text):
    return f"^{re.escape(text)}$"


A_TREE = (
    "Labels are a tree of the parameters' structure, or a prefix of it, a function of (path, leaf), a "
    "function of the parameters, or path patterns, one of them with a '*', and a label for each."
)


NO_TREE = "the tree of labels does not fit the parameters"


LABELLED_WRONG = {
    "an unknown label": (
        {"embed": "c", "layers": "d"},
        "the leaf 'layers/0/bias' has the label 'd', which has no transform. There are 'a', 'b', 'c'. "
        "Add it there, or label the leaf otherwise.",
    ),
    "an unknown label from a function": (
        lambda path, leaf: "d" if path == "layers/1/kernel" else "a",
        "the leaf 'layers/1/kernel' has the label 'd', which has no transform. There are 'a', 'b', 'c'. "
        "Add it there, or label the leaf otherwise.",
    ),
    "a list for a label": (
        lambda path, leaf: ["a"],
        "the leaf 'embed/table' has the label ['a'], which has no transform. There are 'a', 'b', 'c'. "
        "Add it there, or label the leaf otherwise.",
    ),
    "None in the tree": (
        {"embed": "c", "layers": [{"kernel": "a", "bias": None}, "a"]},
        "the leaf 'layers/0/bias' has no label: the tree of labels has None there. There are 'a', 'b', 'c'.",
    ),
    "None for a part of the tree": (
        {"embed": "c", "layers": None},
        "the leaf 'layers/0/bias' has no label: the tree of labels has None there. There are 'a', 'b', 'c'.",
    ),
    "None from a function": (
        lambda path, leaf: None if path.endswith("bias") else "a",
        "the leaf 'layers/0/bias' has no label: the function of (path, leaf) gives None. There are 'a', 'b', "
        "'c'.",
    ),
    "no pattern that matches": (
        {"*kernel": "a", "embed*": "b"},
        "the leaf 'layers/0/bias' has no label: no pattern of '*kernel', 'embed*' matches it; a last pattern "
        "'*' is for all the others. There are 'a', 'b', 'c'.",
    ),
    "a pattern that matches nothing": (
        {"*kernal": "a", "*": "b"},
        f"the labels' pattern '*kernal' matches no leaf. There are {', '.join(PATHS)}.",
    ),
    "a tree without a leaf": (
        {"embed": "a"},
        f"{NO_TREE}: the labels have nothing for 'layers/0/bias'. {A_TREE}",
    ),
    "a tree with another leaf": (
        {"embed": "a", "layers": "b", "head": "c"},
        f"{NO_TREE}: the labels have 'head', which the parameters do not have. {A_TREE}",
    ),
    "a tree of another kind": (
        {"embed": "a", "layers": ("b", "b")},
        f"{NO_TREE}: the containers differ. {A_TREE}",
    ),
}


@pytest.mark.parametrize("case", LABELLED_WRONG)
def test_20_a_wrong_label_is_an_error_that_names_the_leaf(case):
    labels, text = LABELLED_WRONG[case]
    tx = gradtx.partition(TRANSFORMS, labels)
    with pytest.raises(ValueError, match=quoted(f"partition: {text}")):
        tx.init(PARAMS)
    state = gradtx.partition(TRANSFORMS, "a").init(PARAMS)
    with pytest.raises(ValueError, match=quoted(f"partition: {text}")):
        tx.update(PARAMS, state, PARAMS)


def test_a_misspelt_label_is_recognised():
    tx = gradtx.partition(
        {"embedding": gradtx.sgd(0.1), "body": gradtx.sgd(0.2)}, {"embed": "embeding", "layers": "body"}
    )
    text = (
        "partition: the leaf 'embed/table' has the label 'embeding', which has no transform. There are "
        "'embedding', 'body'. Did you mean 'embedding'?"
    )
    with pytest.raises(ValueError, match=quoted(text)):
        tx.init(PARAMS)


def test_a_label_without_a_factor_is_an_error_that_names_the_leaf():
    tx = gradtx.scale_by_group({"a": 1.0}, {"embed": "a", "layers": "b"})
    text = (
        "scale_by_group: the leaf 'layers/0/bias' has the label 'b', which has no factor. There are 'a'. "
        "Add it there, or label the leaf otherwise."
    )
    with pytest.raises(ValueError, match=quoted(text)):
        tx.init(PARAMS)


def test_an_array_is_no_label():
    text = (
        "partition: the label of the leaf 'embed/table' is an array. A label is a string, an int or another "
        "value that can be hashed. There are 0."
    )
    with pytest.raises(TypeError, match=quoted(text)):
        gradtx.partition({0: gradtx.sgd(0.1)}, jnp.array(0)).init(PARAMS)


@pytest.mark.parametrize(
    "build, error, text",
    [
        (
            lambda: of({}),
            TypeError,
            "partition takes a mapping from labels to transforms, at least one; got {}.",
        ),
        (
            lambda: of([("a", gradtx.sgd(0.1))]),
            TypeError,
            "partition takes a mapping from labels to transforms, at least one; got [('a', sgd(0.1))].",
        ),
        (
            lambda: of({"a": gradtx.sgd}),
            TypeError,
            "partition takes transforms, with init and update; got gradtx.sgd. Call it: sgd(...).",
        ),
        (
            lambda: of({1: gradtx.sgd(0.1), "1": gradtx.sgd(0.2)}),
            ValueError,
            "partition: the labels 1 and '1' would both be '1' in the state. Choose labels that differ as "
            "strings.",
        ),
        (
            lambda: of({None: gradtx.sgd(0.1)}),
            ValueError,
            "partition: None cannot be a label: it is no name. Choose another.",
        ),
        (
            lambda: of({"callable": gradtx.sgd(0.1)}),
            ValueError,
            "partition: 'callable' cannot be a label: 'callable' has a meaning of its own in the state. "
            "Choose another.",
        ),
        (
            lambda: gradtx.scale_by_group({"one_minus_b1": 1.0}, "a"),
            ValueError,
            "scale_by_group: 'one_minus_b1' cannot be a label: 'one_minus_b1' has a meaning of its own in "
            "the state. Choose another.",
        ),
        (
            lambda: gradtx.scale_by_group({"a": "10"}, "a"),
            TypeError,
            "scale_by_group: the factor of 'a' must be a number, a 0-d array or a schedule, got '10'.",
        ),
        (
            lambda: gradtx.scale_by_group(2.0, "a"),
            TypeError,
            "scale_by_group takes a mapping from labels to factors, at least one; got 2.0.",
        ),
        (
            lambda: gradtx.partition({"a": gradtx.sgd(0.1)}, labels="a"),
            TypeError,
            "partition has no argument 'labels'. Did you mean 'param_labels'?",
        ),
    ],
)
def test_wrong_arguments(build, error, text):
    with pytest.raises(error, match=quoted(text)):
        build()


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Model:
    """A callable pytree with its activation among the leaves, as a module of Equinox has it."""

    weight: object
    bias: object
    activation: object = None

    def __call__(self, x):
        return self.activation(x @ self.weight + self.bias)


FILTERED = Model(jnp.ones((2, 2)), jnp.ones(2))


def weights(path, leaf):
    return "a" if path == "weight" else "b"


@pytest.mark.parametrize(
    "labels",
    [
        Model("a", "b", None),
        Model("a", "b", "b"),
        weights,
        lambda model: jax.tree_util.tree_map_with_path(lambda path, x: weights(path[0].name, x), model),
        {"w*": "a", "*": "b"},
    ],
    ids=[
        "a model of labels",
        "a label for None",
        "a function of path and leaf",
        "a function of the model",
        "patterns",
    ],
)
def test_a_filtered_callable_model(labels):
    tx = gradtx.partition({"a": gradtx.scale(2.0), "b": gradtx.scale(3.0)}, labels)
    assert groups(tx, FILTERED) == ["a", "b"]
    assert tx.update(FILTERED, tx.init(FILTERED), FILTERED)[0].activation is None


class Network(nnx.Module):
    def __init__(self):
        self.body, self.head = (nnx.Linear(2, 2, rngs=nnx.Rngs(i)) for i in range(2))

    def __call__(self, x):
        return self.head(self.body(x))


@pytest.mark.by_turns(1)
@pytest.mark.parametrize(
    "labels",
    [
        {"body/*": "frozen", "*": "head"},
        lambda path, leaf: "head" if path in ("head/kernel", "head/bias") else "frozen",
        nnx.State({"body": "frozen", "head": "head"}),
    ],
    ids=["patterns", "a function", "a prefix of the state"],
)
@pytest.mark.parametrize("cls", [nnx.Optimizer, gradtx.flax.Optimizer], ids=["flax", "gradtx.flax"])
def test_a_model_of_nnx(labels, cls):
    model = Network()
    tx = gradtx.partition({"head": gradtx.adam(0.1), "frozen": gradtx.set_to_zero()}, labels)
    optimizer = cls(model, tx, wrt=nnx.Param)
    before = jax.tree.map(jnp.copy, nnx.state(model))
    optimizer.update(model, nnx.grad(lambda m: m(jnp.ones((1, 2))).sum())(model))
    moved = jax.tree.map(lambda a, b: bool((a != b).all()), nnx.state(model), before)
    assert jax.tree.leaves(moved["body"]) == [False, False]
    assert jax.tree.leaves(moved["head"]) == [True, True]


def test_a_dict_of_labels_for_a_state_of_nnx_says_what_differs():
    tx = gradtx.partition({"a": gradtx.sgd(0.1)}, {"body": "a", "head": "a"})
    with pytest.raises(ValueError, match="the containers differ: dict and State"):
        tx.init(nnx.state(Network()))


def test_a_model_of_linen():
    params = linen.Dense(2).init(jax.random.key(0), jnp.ones((1, 2)))
    tx = gradtx.partition({"w": gradtx.adam(0.1), "b": gradtx.sgd(0.1)}, {"*/kernel": "w", "*": "b"})
    _, state = tx.update(params, tx.init(params), params)
    assert state["slots"]["w.scale_by_adam"]["mu"]["params"]["bias"] is None
    assert state["slots"]["w.scale_by_adam"]["mu"]["params"]["kernel"].shape == (2, 2)


@pytest.mark.parametrize(
    "labels", [{"embed": None, "layers": "a"}, {"layers/*": "a"}, {"embed": "z", "layers": "a"}], ids=repr
)
def test_19_what_is_masked_out_needs_no_label(labels):
    tx = gradtx.masked(gradtx.partition({"a": gradtx.scale(2.0)}, labels), "layers/*", outside="zero")
    updates = by_path(tx.update(PARAMS, tx.init(PARAMS))[0])
    assert [float(u.ravel()[0]) for u in updates.values()] == [0.0, 2.0, 2.0, 2.0, 2.0]


def test_other_labels_are_another_transform():
    txs = [
        gradtx.partition({"a": gradtx.adam(0.1), "b": gradtx.sgd(0.1)}, labels)
        for labels in ({"*kernel": "a", "*": "b"}, {"*": "b", "*kernel": "a"}, {"embed": "a", "layers": "b"})
    ]
    assert len({repr(tx) for tx in txs}) == 3
    assert len({tx.program.masks for tx in txs}) == 3
    assert txs[0] != txs[1] != txs[2] != txs[0]
