"""Transforms as plain data: the round trip, what cannot be written, and what is refused, with its place."""

from __future__ import annotations

import copy
import json
import sys
import tomllib

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import catalogue
import gradtx
from catalogue import ENTRIES

FUNCTIONS = {
    name: getattr(catalogue, name)
    for name in (
        "at_even_steps",
        "axes_or_none",
        "by_axes",
        "by_rank",
        "doubled",
        "doubled_tree",
        "examples",
        "as_matrices",
        "has_axes",
        "in_blocks",
        "is_matrix",
        "one_head",
        "slower_rate",
        "has_no_axes",
        "too_large",
    )
}
PATTERNS = ("!*bias", "!*norm*")


def toml(x):
    """A value in TOML, where a table's plain values come first, as its writers have them."""
    if isinstance(x, dict):
        plain_first = sorted(x.items(), key=lambda item: isinstance(item[1], dict))
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in plain_first) + "}"
    if isinstance(x, list):
        return "[" + ", ".join(map(toml, x)) + "]"
    return json.dumps(x, allow_nan=False)


def copies(config):
    """A config as it comes back from each format."""
    yield config
    yield json.loads(json.dumps(config, allow_nan=False))
    yield tomllib.loads("\n".join(f"{json.dumps(k)} = {toml(v)}" for k, v in config.items()))


def round_trips(tx, names=None):
    config = gradtx.to_config(tx, names)
    for document in copies(config):
        built = gradtx.from_config(document, names)
        assert built == tx and repr(built) == repr(tx)
        assert gradtx.to_config(built, names) == config
    return config


@pytest.mark.by_turns(9)
@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_every_form_of_the_catalogue_comes_back_equal(entry):
    for variant in ["", *entry.variants, *entry.layouts]:
        tx = entry.build(variant)
        by_name = {"injected": tx} if entry.name.startswith("inject") else {}
        round_trips(tx, FUNCTIONS | by_name)


@pytest.mark.brief
@pytest.mark.parametrize(
    "mask",
    [
        None,
        "*kernel",
        PATTERNS,
        {"w": True, "layers": [False, True], "b": (True, None)},
        {"call": True},
        {"name": True},
        {"b": True, "a": False},
        {0: True, "x": False, (1, "y"): None},
        {"w": [True, {"inner": False}], "b": True},
        ["axes", "none"],
        [],
        (),
        {},
        {"w": float("nan"), "b": -float("inf")},
        np.dtype("bfloat16"),
    ],
    ids=repr,
)
def test_values_that_the_formats_lack_come_back_equal(mask):
    round_trips(gradtx.masked(gradtx.clip(float("inf")), mask))


def test_how_a_config_reads():
    schedule = gradtx.warmup_linear_decay_schedule(0.0, 1e-3, 10, 100)
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(schedule, mask=PATTERNS))
    assert gradtx.to_config(tx) == {
        "call": "chain",
        "transforms": [
            {"call": "clip_by_global_norm", "max_norm": 1.0},
            {
                "call": "adamw",
                "learning_rate": {
                    "call": "warmup_linear_decay_schedule",
                    "init_value": 0.0,
                    "peak_value": 1e-3,
                    "warmup_steps": 10,
                    "decay_steps": 100,
                },
                "mask": ["!*bias", "!*norm*"],
            },
        ],
    }
    assert gradtx.to_config(gradtx.prodigy(betas=(0.8, 0.9)))["betas"] == [0.8, 0.9]
    patterns = {"*bias": "body", "*": "head"}
    groups = gradtx.partition({"body": gradtx.set_to_zero(), "head": gradtx.sgd(0.1)}, patterns)
    written = round_trips(groups)
    assert list(written["transforms"]) == ["body", "head"]
    assert written["param_labels"] == {"dict": [["*bias", "body"], ["*", "head"]]}


def test_what_is_written_by_hand_is_read():
    assert gradtx.from_config({"call": "adam", "learning_rate": 0.1, "mask": None}) == gradtx.adam(0.1)
    by_hand = gradtx.from_config({"call": "prodigy", "betas": [0.8, 0.9]})
    assert by_hand == gradtx.prodigy(betas=(0.8, 0.9))


class Soften(gradtx.Rule, name="soften_for_config"):
    """u = g / (1 + |g| / bound)"""

    bound: gradtx.Positive

    def apply(self, g, slots, leaf):
        return g / (1 + abs(g) / self.bound), slots


@gradtx.recipe
def softened_sgd_for_config(learning_rate: gradtx.ScalarOrSchedule, nesterov: bool = False):
    return gradtx.chain(gradtx.scale(0.5), gradtx.sgd(learning_rate, 0.9, nesterov))


def test_what_is_the_users_own():
    assert round_trips(softened_sgd_for_config(0.1)) == {
        "call": "softened_sgd_for_config",
        "learning_rate": 0.1,
    }
    tx = gradtx.chain(Soften(bound=2.0), gradtx.sgd(0.1))
    config = round_trips(tx, {"soften": Soften})
    assert config["transforms"][0] == {"call": "soften", "bound": 2.0}
    foreign = gradtx.chain(optax.scale_by_adam(), gradtx.scale(-0.1))
    config = round_trips(foreign, {"adam_of_optax": foreign.members[0]})
    assert config["transforms"][0] == {"name": "adam_of_optax"}
    raw = gradtx.GradientTransformation(jnp.zeros_like, jnp.add)
    round_trips(raw, {"zeros": jnp.zeros_like, "add_up": jnp.add})
    measured = gradtx.snapshot("norm", gradtx.global_norm)
    assert round_trips(measured)["measure"] == {"name": "global_norm"}


UNWRITABLE = {
    "a function": (
        lambda: gradtx.chain(gradtx.sgd(0.1), gradtx.masked(gradtx.sgd(0.1), catalogue.has_axes)),
        TypeError,
        r"^transforms\[1\]\.mask: catalogue\.has_axes has no name .* names=\{'has_axes': \.\.\.\}\.$",
    ),
    "a lambda": (
        lambda: gradtx.sgd(lambda step: 0.1),
        TypeError,
        r"^learning_rate: <.*lambda>> has no name .* names=\{'my_function': \.\.\.\}\.$",
    ),
    "a rule": (
        lambda: gradtx.chain(Soften(bound=1.0)),
        TypeError,
        r"^transforms\[0\]: Soften\(bound=1\.0\) is built by Soften, .* names=\{'Soften': \.\.\.\}\.$",
    ),
    "another library's transform": (
        lambda: gradtx.chain(optax.scale_by_adam()),
        TypeError,
        r"^transforms\[0\]: <optax\.scale_by_adam> has no name",
    ),
    "an array": (
        lambda: gradtx.masked(gradtx.sgd(0.1), {"w": np.ones(2, bool)}),
        TypeError,
        r"^mask\.w: <array bool\[2\]> is an array",
    ),
    "no transform": (lambda: 3, TypeError, "^to_config takes a transform or a schedule of gradtx's, got 3"),
    "levels without end": (
        lambda: gradtx.masked(gradtx.sgd(0.1), nested(10_000)),
        ValueError,
        r"^mask(\[0\])+.*: nested more than 100 levels deep\.$",
    ),
    "another recipe of the name": (
        lambda: shadowed(),
        ValueError,
        "is not what its own call builds",
    ),
}


def nested(levels):
    x = []
    for _ in range(levels):
        x = [x]
    return x


def shadowed():
    """What a recipe built before another one took its name."""

    @gradtx.recipe
    def redefined_for_config(rate: gradtx.Scalar):
        return gradtx.sgd(rate)

    tx = redefined_for_config(0.1)

    @gradtx.recipe
    def redefined_for_config(rate: gradtx.Scalar):
        return gradtx.sgd(rate, momentum=0.9)

    return tx


@pytest.mark.parametrize(("make", "kind", "words"), UNWRITABLE.values(), ids=list(UNWRITABLE))
def test_what_cannot_be_written_is_named_with_its_place(make, kind, words):
    with pytest.raises(kind, match=words):
        gradtx.to_config(make())


def test_names_are_the_users_to_choose_but_not_gradtxs_own():
    with pytest.raises(ValueError, match="names: 'adamw' is gradtx's own; choose another name"):
        gradtx.from_config({"call": "adamw", "learning_rate": 1}, {"adamw": print})
    with pytest.raises(TypeError, match=r"names is a mapping from names to what is yours, got \["):
        gradtx.to_config(gradtx.sgd(0.1), [print])
    with pytest.raises(TypeError, match="names: 3 is no name; a name is a string"):
        gradtx.to_config(gradtx.sgd(0.1), {3: print})


DOCUMENT = {
    "call": "chain",
    "transforms": [
        {"call": "clip_by_global_norm", "max_norm": 1.0},
        {
            "call": "accumulate",
            "inner": {
                "call": "adamw",
                "learning_rate": {
                    "call": "warmup_cosine_decay_schedule",
                    "init_value": 0.0,
                    "peak_value": 1e-3,
                    "warmup_steps": 10,
                    "decay_steps": 100,
                },
                "b1": 0.8,
                "nesterov": True,
                "decay_coupling": "none",
            },
            "every": 4,
        },
        {
            "call": "partition",
            "transforms": {"a": {"call": "trace", "decay": 0.9}, "b": {"call": "snapshot"}},
            "param_labels": {"dict": [["*bias", "a"], ["*", "b"]]},
        },
    ],
}
DOCUMENT["transforms"][2]["transforms"]["b"] |= {"measure_name": "n", "measure": {"name": "global_norm"}}
NUMBERS = (
    "max_norm",
    "b1",
    "every",
    "decay",
    "init_value",
    "peak_value",
    "warmup_steps",
    "decay_steps",
    "learning_rate",
)
HOSTILE = ["__import__", "os.system", "builtins.eval", "__class__", "a" * 100_000, "", "gradtx.adamw"]
REQUIRED = {*NUMBERS, "inner", "transforms", "param_labels", "measure", "measure_name"} - {"b1"}


def nodes(x, path=()):
    """Every table and list of a document with its path."""
    if isinstance(x, dict | list):
        yield path, x
        for key, child in x.items() if isinstance(x, dict) else enumerate(x):
            yield from nodes(child, (*path, key))


def place(path):
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")


def changed(path, change):
    """A copy of the document, in which a node was changed in place."""
    document = copy.deepcopy(DOCUMENT)
    node = document
    for key in path:
        node = node[key]
    change(node)
    return document


def damaged():
    """Documents that are wrong, each with how its error must begin and what it must say."""
    for path, call in nodes(DOCUMENT):
        if not isinstance(call, dict) or "call" not in call:
            continue
        here, inside = place(path) or "the config", place((*path, ""))
        for bad in [call["call"] + "x", *HOSTILE, 3, None, ["adamw"], {"call": "adamw"}]:
            remedy = "a name is a string" if not isinstance(bad, str) else "names={"
            remedy = f"Did you mean '{call['call']}'?" if bad == call["call"] + "x" else remedy
            yield changed(path, lambda n, bad=bad: n.update(call=bad)), f"{inside}call: ", remedy
        yield changed(path, lambda n: n.update(__class__=1)), f"{inside}__class__: ", "has no argument"
        for key in [key for key in call if key != "call"]:
            misspelt = changed(path, lambda n, key=key: n.update({f"{key}s": n.pop(key)}))
            yield misspelt, f"{inside}{key}s: ", f"'{key}'"
            if key in REQUIRED and key != "transforms":
                without = changed(path, lambda n, key=key: n.pop(key))
                yield without, f"{here}: ", f"needs the argument '{key}'"
            if key in NUMBERS:
                for bad in ["1e-3", [1.0], {"a": 1}, True, {"tuple": [1.0]}]:
                    wrong = changed(path, lambda n, key=key, bad=bad: n.update({key: bad}))
                    yield wrong, f"{inside}{key}: ", "must be a number"
            if key in {"max_norm", "b1", "every", "decay", "warmup_steps", "decay_steps"}:
                negative = changed(path, lambda n, key=key: n.update({key: -1.0}))
                yield negative, f"{inside}{key}: ", "got -1.0"
    adamw = ("transforms", 1, "inner")
    for key, bad, words in [
        ("nesterov", "yes", "must be true or false, got 'yes'"),
        ("nesterov", 1, "must be true or false, got 1"),
        (
            "decay_coupling",
            "rates",
            "must be 'gradient' or 'rate' or 'cautious' or 'schedule' or 'none', got 'rates'",
        ),
        ("learning_rate", {"value": "zero"}, "'value' must be one of none, inf, -inf, nan, got 'zero'"),
        ("learning_rate", {"value": 3}, "'value' must be a string, got 3"),
        ("learning_rate", {"name": "os.system"}, "there is no 'os.system' in gradtx"),
        ("learning_rate", {"name": 3}, "a name is a string, got 3."),
        ("learning_rate", {"name": "minimize"}, "there is no 'minimize' in gradtx"),
        ("learning_rate", "1e-3", "must be a number or a schedule (for YAML write 1.0e-3), got '1e-3'"),
        ("learning_rate", "2E5", "(for YAML write 2.0e+5)"),
        ("learning_rate", "fast", "must be a number or a schedule, got 'fast'"),
        ("mu_dtype", "int32", "mu_dtype must be a floating dtype or a format of slots, got 'int32'"),
        ("mu_dtype", {"dtype": "bool"}, "mu_dtype must be a floating dtype or a format of slots, got 'bool'"),
        ("mask", {"dict": [["a", True], ["a", False]]}, "the key 'a' is there already"),
        ("mask", {"dict": {"a": 1}}, "'dict' must be a list"),
        ("mask", {"tuple": "ab"}, "'tuple' must be a list, got 'ab'"),
        ("mask", {"dtype": "O" * 200}, "there is no dtype"),
        ("mask", b"bytes", "is a bytes; a config holds"),
        ("mask", {1, 2}, "is a set; a config holds"),
        ("mask", nested(10_000), "nested more than 100 levels deep"),
    ]:
        yield changed(adamw, lambda n, k=key, b=bad: n.update({k: b})), f"{place(adamw)}.{key}", words
    pairs = (*adamw, "mask")
    for bad, words in [
        ([1], "must be a pair [key, value]"),
        ([[], 1], "cannot be a key"),
        (1, "must be a pair"),
    ]:
        wrong = changed(adamw, lambda n, bad=bad: n.update(mask={"dict": [["a", 1], bad]}))
        yield wrong, f"{place(pairs)}.dict[1]: ", words
    yield (
        changed(adamw, lambda n: n.update(learning_rate=10**400)),
        f"{place(adamw)}.learning_rate: ",
        "finite",
    )
    yield changed(adamw, lambda n: n.update(mu_dtype="float33")), f"{place(adamw)}: ", "float33"
    for bad in [
        None,
        3,
        "adamw",
        [DOCUMENT],
        [],
        {},
        {"cal": "adamw"},
        {"name": "adamw"},
        {"name": "global_norm"},
    ]:
        yield bad, "the config", ""


DAMAGED = list(damaged())


@pytest.mark.wide
def test_a_damaged_config_is_an_error_that_says_where_and_what():
    assert len(DAMAGED) > 100
    modules = set(sys.modules)
    for document, where, words in DAMAGED:
        before = copy.deepcopy(document) if "nested" not in words else None
        with pytest.raises(ValueError) as error:
            gradtx.from_config(document)
        message = str(error.value)
        assert message.startswith(where), (where, message)
        assert words in message and len(message) < 1_000, (words, message)
        assert before is None or document == before
    assert set(sys.modules) == modules


@pytest.mark.wide
def test_a_config_may_be_deep_but_not_without_end():
    tx = gradtx.sgd(0.1)
    for _ in range(90):
        tx = gradtx.masked(tx, "*")
    round_trips(tx)
    document = {"call": "chain", "transforms": []}
    document["transforms"].append(document)
    with pytest.raises(ValueError, match="nested more than 100 levels deep"):
        gradtx.from_config(document)
    bomb = True
    for _ in range(8):
        bomb = [bomb] * 10
    with pytest.raises(ValueError, match=r"^mask.*: the config has more than 100,000 values\.$"):
        gradtx.from_config({"call": "adam", "learning_rate": 0.1, "mask": bomb})


KEYS = st.sampled_from(["call", "name", "value", "tuple", "list", "dict", "dtype", "w", "*bias", "a.b", ""])
CONSTANTS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(), st.text("ab*/!", max_size=4)
)
VALUES = st.recursive(
    CONSTANTS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(KEYS, st.integers(0, 3), st.tuples(st.integers(0, 3))), inner, max_size=3),
    ),
    max_leaves=6,
)


@pytest.mark.wide
@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_any_tree_of_plain_values_comes_back_equal(value):
    tx = gradtx.masked(gradtx.identity(), value)
    for document in copies(gradtx.to_config(tx)):
        assert gradtx.from_config(document) == tx


PLAIN = st.recursive(
    CONSTANTS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=4,
)
PATHS = [
    (*path, key)
    for path, node in nodes(DOCUMENT)
    for key in (node if isinstance(node, dict) else range(len(node)))
]


@pytest.mark.wide
@settings(max_examples=80, deadline=None)
@given(st.sampled_from(PATHS), PLAIN, st.sampled_from(["replace", "delete", "rename"]))
def test_a_mutated_config_is_an_optimizer_or_an_error(path, value, how):
    def change(node):
        if how == "replace":
            node[path[-1]] = value
        elif how == "delete" or isinstance(node, list):
            del node[path[-1]]
        else:
            node[str(value)] = node.pop(path[-1])

    document = changed(path[:-1], change)
    before = copy.deepcopy(document)
    try:
        built = gradtx.from_config(document)
    except ValueError as error:
        assert str(error)
    else:
        assert gradtx.from_config(gradtx.to_config(built)) == built
    assert repr(document) == repr(before)
