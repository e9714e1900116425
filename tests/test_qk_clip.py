"""QK-clip: recordings of official code, its reference, the layouts of weights, and what it is given."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from golden import QK_CASES, load_qk_clip
from modern_references import QkClip
from trajectories import x64

RECORDED, _ = load_qk_clip()
RNG = np.random.default_rng(0)
QUERY, KEY = gradtx.heads("query"), gradtx.heads("key")
ROLES = {"*query": "query", "*key": "key"}


def moved(tx, weights, max_logits, updates=None):
    """The new parameters where the optimizer would have made `weights`."""
    weights = jax.tree.map(jnp.asarray, weights)
    updates = jax.tree.map(jnp.zeros_like, weights) if updates is None else updates
    params = jax.tree.map(lambda w, u: w - u, weights, updates)
    found, _ = jax.jit(tx.update)(updates, tx.init(params), params, max_logits=max_logits)
    return gradtx.apply_updates(params, found)


def close(actual, expected, rtol=1e-13):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), actual, expected)


def random(*shape):
    return RNG.normal(size=shape)


# MaxText divides by S + 1e-6.
LIMITS = {"maxtext_mla": 1e-6}
IN_PARTS = {"wq_b": ("query", "rotary_query"), "wkv_b": ("key", "value")}


def case_of(name):
    """The weights before and after, the largest logits, and the arguments."""
    recorded = RECORDED[name]
    before = {key: x for key, x in recorded.items() if key != "max_logits" and not key.endswith("_new")}
    after = {key: recorded[f"{key}_new"] for key in before}
    return before, after, recorded["max_logits"], QK_CASES[name][1]


@pytest.mark.parametrize("name", RECORDED)
def test_follows_official_code(name):
    before, after, max_logits, numbers = case_of(name)
    roles = {f"*/{key}": gradtx.heads(key) for key in before}
    with x64():
        updates = {"layer": {key: 0.1 * random(*x.shape) for key, x in before.items()}}
        tx = gradtx.qk_clip(roles, **numbers)
        new = moved(tx, {"layer": before}, {"layer": jnp.asarray(max_logits)}, updates)
        close(new["layer"], after, rtol=LIMITS.get(name, 1e-12))


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", [name for name in RECORDED if "mla" in name])
@pytest.mark.parametrize("as_torch", [False, True])
def test_follows_official_code_where_weights_are_parts_of_one(name, as_torch):
    before, after, max_logits, numbers = case_of(name)

    def together(weights):
        found = {
            leaf: np.concatenate([weights[part] for part in parts], axis=2)
            for leaf, parts in IN_PARTS.items()
        }
        return {k: x.reshape(len(x), -1).T if as_torch else x for k, x in found.items()}

    roles = {
        f"*{leaf}": gradtx.heads({p: before[p].shape[2] for p in parts}, "hi" if as_torch else "ihd")
        for leaf, parts in IN_PARTS.items()
    }
    with x64():
        given = {"layer": together(before)}
        new = moved(gradtx.qk_clip(roles, **numbers), given, {"layer": jnp.asarray(max_logits)})
        close(new["layer"], together(after), rtol=LIMITS.get(name, 1e-12))


def attention(queries=4, keys=2, size=3, inputs=5):
    return {
        "query": random(inputs, queries, size),
        "key": random(inputs, keys, size),
        "value": random(inputs, keys, size),
    }


LOGITS = np.array([250.0, 90.0, 160.0, 105.0])


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("sharing", ["group", "key", "query"])
@pytest.mark.parametrize("keys", [1, 2, 4])
def test_follows_its_reference(sharing, keys):
    params = {"a": attention(keys=keys), "b": attention(keys=keys)}
    names = [(layer, name) for layer in params for name in ("query", "key", "value")]
    grads = [{layer: {k: random(*x.shape) for k, x in tree.items()} for layer, tree in params.items()}] * 3
    logits = {"a": LOGITS, "b": LOGITS[::-1] / 2}
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.qk_clip(ROLES, alpha=0.3, sharing=sharing))
    reference = QkClip([None if name == "value" else (a, name) for a, name in names], 100.0, 0.3, sharing)
    reference.init([])
    with x64():
        state, theirs = tx.init(params), [params[a][name] for a, name in names]
        ours = jax.tree.map(jnp.asarray, params)
        for g in grads:
            ours, state = gradtx.apply_gradients(tx, g, state, ours, max_logits=logits)
            us = reference.update([-0.1 * g[a][name] for a, name in names], theirs, max_logits=logits)
            theirs = [p + u for p, u in zip(theirs, us, strict=True)]
        close([ours[a][name] for a, name in names], theirs, rtol=1e-12)


def test_a_logit_is_multiplied_by_gamma():
    """Of every head that is above the bound, with rotary parts too; the others keep theirs."""
    weights = {"query": random(6, 2, 3), "rotary_query": random(6, 2, 4), "key": random(6, 2, 3)}
    shared, x = random(6, 4), random(7, 6)

    def logits(w):
        parts = [np.einsum("ti,ihd->htd", x, w[name]) for name in ("query", "rotary_query", "key")]
        return np.einsum("hqd,hkd->hqk", parts[0], parts[2]) + np.einsum("hqd,kd->hqk", parts[1], x @ shared)

    with x64():
        before = logits(weights)
        largest = before.max(axis=(1, 2))
        tau = (largest.min() + largest.max()) / 2
        roles = {name: gradtx.heads(name) for name in weights}
        after = logits(moved(gradtx.qk_clip(roles, tau), weights, jnp.asarray(largest)))
        close(after, before * np.minimum(tau / largest, 1)[:, None, None], rtol=1e-10)


def flat(x):
    return x.reshape(len(x), -1)


# The same attention in other layouts: what makes the leaves of the kernels, and what is said of them.
LAYOUTS = {
    "torch": (
        lambda q, k, v: {"query": flat(q).T, "key": flat(k).T, "value": flat(v).T},
        {
            "query": gradtx.heads("query", "hi", number=4),
            "key": gradtx.heads("key", "hi", number=2),
        },
    ),
    "heads first": (
        lambda q, k, v: {"query": q.transpose(1, 0, 2), "kv": np.stack([k, v]).transpose(0, 2, 1, 3)},
        {"query": gradtx.heads("query", "hid"), "kv": gradtx.heads(("key", "value"), "hhid")},
    ),
    "one kernel": (
        lambda q, k, v: {"qkv": np.concatenate([q, k, v], axis=1)},
        {"*": gradtx.heads(("query", "key", "value"), "ihd", number=(4, 2, 2))},
    ),
    "one kernel of two axes": (
        lambda q, k, v: {"qkv": flat(np.concatenate([q, k, v], axis=1))},
        {"*": gradtx.heads(["query", "key", "value"], "ih", number=(4, 2, 2))},
    ),
    "sizes first": (
        lambda q, k, v: {"query": q.transpose(2, 0, 1), "key": k.transpose(2, 1, 0), "value": v},
        {"query": gradtx.heads("query", "dih"), "key": gradtx.heads("key", "dhi")},
    ),
    "biases beside": (
        lambda q, k, v: {
            "query": {"kernel": q, "bias": q[0]},
            "key": {"kernel": k, "bias": flat(k)[0]},
        },
        {
            "query/kernel": "query",
            "query/bias": gradtx.heads("query", "hd"),
            "key/kernel": "key",
            "key/bias": gradtx.heads("key", "h", number=2),
        },
    ),
}


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("sharing", ["group", "key"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_the_weights_changes_nothing(layout, sharing):
    make, roles = LAYOUTS[layout]
    plain = attention()
    with x64():
        new = moved(gradtx.qk_clip(ROLES, sharing=sharing), plain, LOGITS)
        found = moved(gradtx.qk_clip(roles, sharing=sharing), make(*plain.values()), LOGITS)
        close(found, make(*(np.asarray(new[name]) for name in plain)))


def test_a_module_of_layers_with_one_head_each():
    """Whose axes are layers, inputs and the size of the head."""
    plain = attention(keys=4)
    roles = {"query": gradtx.heads("query", "bid"), "key": gradtx.heads("key", "idb")}
    with x64():
        new = moved(gradtx.qk_clip(ROLES), plain, LOGITS)
        given = {"query": plain["query"].transpose(1, 0, 2), "key": plain["key"].transpose(0, 2, 1)}
        found = moved(gradtx.qk_clip(roles), given, LOGITS[:, None])
        close(found["query"].transpose(1, 0, 2), new["query"])
        close(found["key"].transpose(0, 2, 1), new["key"])


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("axis", [0, 1])
def test_scanned_layers_are_each_as_alone(axis):
    """Flax's scan stacks along any axis; what it has sown is (layers, heads)."""
    layers = [attention() for _ in range(3)]
    logits = np.stack([LOGITS, LOGITS[::-1], LOGITS / 3])
    axes = ["bihd", "ibhd"][axis]
    with x64():
        stacked = {"block": {k: np.stack([x[k] for x in layers], axis=axis) for k in ("query", "key")}}
        roles = {f"*{name}": gradtx.heads(name, axes) for name in ("query", "key")}
        found = moved(gradtx.qk_clip(roles), stacked, {"block": {"max_logits": (jnp.asarray(logits),)}})
        for i, (layer, own) in enumerate(zip(layers, logits, strict=True)):
            expected = moved(gradtx.qk_clip(ROLES), layer, jnp.asarray(own))
            for name in ("query", "key"):
                close(jnp.take(found["block"][name], i, axis), expected[name])


def bits(x):
    return np.asarray(x).view(np.uint32).tolist()


@pytest.mark.by_turns(4)
@pytest.mark.parametrize("logit", [100.0, -3.0, -500.0, -math.inf, math.nan, math.inf])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_head_that_is_not_clipped_gets_its_update_bit_for_bit(logit, compiled):
    """At the bound, below 0, and where it is no finite number: that is for a guard."""
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), attention(keys=4))
    grads = jax.tree.map(lambda x: x.at[..., 0, 0].set(-0.0), params)
    tx = gradtx.qk_clip(ROLES)
    update = jax.jit(tx.update) if compiled else tx.update
    logits = jnp.array([logit, 400.0, logit, 400.0])
    found, _ = update(grads, tx.init(params), params, max_logits=logits)
    for name in ("query", "key"):
        assert bits(found[name][:, ::2]) == bits(grads[name][:, ::2])
        assert not np.any(np.asarray(found[name][:, 1::2]) == np.asarray(grads[name][:, 1::2]))
    assert bits(found["value"]) == bits(grads["value"])


@pytest.mark.wide
def test_a_bad_logit_does_not_reach_the_other_heads_of_its_group():
    weights = attention()
    for bad in (math.nan, math.inf):
        found = moved(gradtx.qk_clip(ROLES), weights, jnp.array([bad, 400.0, 50.0, bad]))
        expected = moved(gradtx.qk_clip(ROLES), weights, jnp.array([50.0, 400.0, 50.0, 50.0]))
        close(found, expected, rtol=0)


@pytest.mark.wide
def test_a_guard_skips_what_went_wrong():
    tx = gradtx.guard(gradtx.chain(gradtx.sgd(0.1), gradtx.qk_clip(ROLES)))
    params = jax.tree.map(jnp.asarray, attention())
    grads = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params)
    new, _ = gradtx.apply_gradients(tx, grads, tx.init(params), params, max_logits=jnp.full(4, jnp.nan))
    close(new, params, rtol=0)


def test_no_bound_clips_nothing_and_a_schedule_may_end_one():
    weights, logits = attention(), jnp.full(4, 1e6)
    close(moved(gradtx.qk_clip(ROLES, math.inf), weights, logits), jax.tree.map(jnp.asarray, weights), rtol=0)
    tx = gradtx.qk_clip(ROLES, gradtx.piecewise_constant_schedule(100.0, {1: 1e30}))
    params = jax.tree.map(jnp.asarray, weights)
    state, sizes = tx.init(params), []
    for _ in range(2):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params, max_logits=logits)
        sizes.append(float(jnp.abs(updates["query"]).max()))
    assert sizes[0] > 0 and sizes[1] == 0


TREE = {
    "layers_0": {"attn": attention(), "mlp": {"kernel": random(5, 5)}},
    "layers_1": {"attn": attention(), "cross": attention()},
}
THREE = {"layers_0/attn": LOGITS, "layers_1/attn": LOGITS[::-1], "layers_1/cross": LOGITS / 2}
GIVEN = {
    "paths": THREE,
    "a tree": {
        "layers_0": {"attn": THREE["layers_0/attn"]},
        "layers_1": {"attn": THREE["layers_1/attn"], "cross": THREE["layers_1/cross"]},
    },
    "what was sown, and more": {
        "intermediates": {
            "layers_0": {"attn": {"max_logits": (THREE["layers_0/attn"],)}, "mlp": {"rms": (np.ones(()),)}},
            "layers_1": {
                "attn": {"max_logits": (THREE["layers_1/attn"],)},
                "cross": {"max_logits": (THREE["layers_1/cross"],)},
                "norm": (np.ones(3),),
            },
            "head": {"max_logits": (np.ones(2),)},
        }
    },
    "patterns": {
        "*cross": THREE["layers_1/cross"],
        "*_0/*": THREE["layers_0/attn"],
        "*_1/attn": THREE["layers_1/attn"],
    },
}


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("form", GIVEN)
@pytest.mark.parametrize("params_in_a_collection", [False, True])
def test_the_largest_logits_in_every_form(form, params_in_a_collection):
    given = GIVEN[form]
    tree = {"params": TREE} if params_in_a_collection else TREE
    with x64():
        found = moved(gradtx.qk_clip(ROLES), tree, given)
        found = found["params"] if params_in_a_collection else found
        for path, own in THREE.items():
            layer, name = path.split("/")
            close(found[layer][name], moved(gradtx.qk_clip(ROLES), TREE[layer][name], own))
        assert np.array_equal(found["layers_0"]["mlp"]["kernel"], TREE["layers_0"]["mlp"]["kernel"])


def test_a_number_is_for_all_heads():
    with x64():
        found = moved(gradtx.qk_clip(ROLES), TREE, 150.0)
        expected = moved(gradtx.qk_clip(ROLES), TREE, dict.fromkeys(THREE, np.full(4, 150.0)))
        close(found, expected, rtol=0)
        close(moved(gradtx.qk_clip(ROLES), TREE, 0), TREE, rtol=0)


SPARSE = {k: v for k, v in THREE.items() if k != "layers_1/cross"}
WRONG_LOGITS = {
    "none": (None, "has nothing for the attention module 'layers_0/attn': it has no array"),
    "one is missing": (SPARSE, "nothing for the attention module 'layers_1/cross': it has 'layers_0/attn'"),
    "another path": (
        {**SPARSE, "layers_1/crossed": LOGITS},
        r"nothing for the attention module 'layers_1/cross': it has .*'layers_1/crossed'",
    ),
    "one array for several": (
        LOGITS,
        "has one entry for both of the attention modules 'layers_0/attn' and 'layers_1/attn'",
    ),
    "one for a layer": (
        {"layers_0/attn": LOGITS, "layers_1": LOGITS},
        "has one entry, 'layers_1', for both of the attention modules 'layers_1/attn' and 'layers_1/cross'",
    ),
    "two micro-batches": (
        {**SPARSE, "layers_1": {"cross": {"max_logits": (LOGITS, LOGITS)}}},
        r"several entries .*'layers_1/cross': 'layers_1/cross/max_logits/0', .* Give the largest over all",
    ),
    "a batch": (
        {**THREE, "layers_0/attn": np.ones((2, 4))},
        r"of the attention module 'layers_0/attn' has the shape \(2, 4\), and its query heads make it \(4,\)",
    ),
    "of the keys": ({**THREE, "layers_0/attn": np.ones(2)}, r"has the shape \(2,\), .* make it \(4,\)"),
    "a pattern matches none": (
        {"*nowhere": LOGITS, "*": LOGITS},
        r"the max_logits' pattern '\*nowhere' matches no attention module. There are layers_0/attn, layers",
    ),
    "no pattern matches": (
        {"*attn": LOGITS},
        r"no pattern of max_logits matches the attention module 'layers_1/cross': '\*attn'. Give one for",
    ),
    "several patterns match": (
        {"*attn": LOGITS, "*": LOGITS},
        r"several patterns of max_logits match the attention module 'layers_0/attn': '\*', '\*attn'",
    ),
}


@pytest.mark.parametrize("case", WRONG_LOGITS)
def test_wrong_logits_are_an_error(case):
    given, words = WRONG_LOGITS[case]
    with pytest.raises(ValueError, match=words):
        moved(gradtx.qk_clip(ROLES), TREE, given)


def test_logits_are_real_numbers_and_are_given():
    for bad in (dict.fromkeys(THREE, np.ones(4, complex)), 1j, "all"):
        with pytest.raises(TypeError, match=r"max_logits.* must be real numbers"):
            gradtx.qk_clip(ROLES).update(TREE, gradtx.qk_clip(ROLES).init(TREE), TREE, max_logits=bad)
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.qk_clip(ROLES))
    with pytest.raises(TypeError, match="qk_clip needs the keyword argument 'max_logits'"):
        tx.update(TREE, tx.init(TREE), TREE)
    with pytest.raises(ValueError, match="qk_clip needs the parameters"):
        tx.update(TREE, tx.init(TREE), max_logits=1.0)


WRONG_HEADS = {
    "a pattern matches none": (
        {**ROLES, "*wq/kernel": "query"},
        ValueError,
        r"the heads' pattern '\*wq/kernel' matches no leaf. There are ",
    ),
    "no role": ({"*query": "queries"}, TypeError, "'layers_0/attn/query' it was said 'queries'. Give gradtx"),
    "a number": ({"*query": 3, "*key": KEY}, TypeError, "it was said 3"),
    "other axes": (
        {"*query": gradtx.heads("query", "bihd"), "*key": KEY},
        ValueError,
        r"the heads of the leaf 'layers_0/attn/query' do not fit: heads\('query', axes='bihd'\) is of 4 axes",
    ),
    "a number that does not divide": (
        {"*query": gradtx.heads("query", "iih", number=2), "*key": KEY},
        ValueError,
        "'layers_0/attn/query' do not fit: 3 entries are not 2 heads of one size",
    ),
    "another number": ({"*query": gradtx.heads("query", number=3), "*key": KEY}, ValueError, "are not 3"),
    "parts of another size": (
        {"*query": gradtx.heads({"query": 2, "rotary_query": 2}), "*key": KEY},
        ValueError,
        "parts of 2 and 2 are 4, of a head of 3",
    ),
    "kinds that do not divide": (
        {"*query": gradtx.heads(("query", "key", "value"))},
        ValueError,
        "4 heads are not as many of each of query, key, value",
    ),
    "no keys": ({"*query": QUERY}, ValueError, "'layers_0/attn/query' has queries, and no leaf has keys"),
    "no queries": ({"*key": KEY}, ValueError, "'layers_0/attn/key' has keys, and no leaf has queries"),
    "no keys in one": (
        {"*query": QUERY, "*attn/key": KEY},
        ValueError,
        "no leaf of the attention module 'layers_1' has keys; there is only 'layers_1/cross/query'",
    ),
    "keys that do not divide": (
        {"*query": QUERY, "*key": gradtx.heads("key", "dih")},
        ValueError,
        "'layers_0/attn' the 4 query heads cannot share 3 key heads: 4 is no multiple of 3",
    ),
    "two numbers": (
        {"*query": QUERY, "*key": KEY, "*attn/value": gradtx.heads("query")},
        ValueError,
        "the leaf 'layers_0/attn/query' has 4 heads of queries, and 'layers_0/attn/value' 2",
    ),
    "layers of one alone": (
        {"*query": gradtx.heads("query", "bhd"), "*key": KEY},
        ValueError,
        r"has a batch of layers \(\), and 'layers_0/attn/query' has \(5,\)",
    ),
    "another tree": ({"layers_0": "query"}, ValueError, "the tree of heads does not fit the parameters"),
}


@pytest.mark.parametrize("case", WRONG_HEADS)
def test_wrong_heads_are_an_error_at_init(case):
    heads, kind, words = WRONG_HEADS[case]
    with pytest.raises(kind, match=words):
        gradtx.chain(gradtx.sgd(0.1), gradtx.qk_clip(heads)).init(TREE)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("queries",), "role is one of 'query', 'key', 'rotary_query', 'value'"),
        (((),), "role is one of"),
        ((("query", "query"),), "role is one of"),
        (({"query": 0},), "the size of each part of a head is an int >= 1"),
        (("query", "ixd"), "axes has a letter for each axis of a leaf"),
        (("query", "ii"), "axes has a letter for each axis of a leaf"),
        (("query", "idd"), "axes has a letter for each axis of a leaf"),
        (("query", "hih"), "where several axes are heads another one is the size of each"),
        (("query", "ih"), r"Say how many they are, as in gradtx.heads\('query', 'ih', number=8\)"),
        (("query", "ih", 0), "number is how many heads there are"),
        (("query", "ih", (2, 2)), "number is how many heads there are"),
        ((("query", "key"), "ih", (2, 2, 2)), "number is how many heads there are"),
    ],
)
def test_heads_say_what_they_cannot_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        gradtx.heads(*arguments)


def test_sharing_is_one_of_three():
    with pytest.raises(ValueError, match="sharing must be one of 'group', 'key', 'query', got 'mean'"):
        gradtx.qk_clip(ROLES, sharing="mean")


@pytest.mark.wide
def test_heads_in_every_form():
    """As patterns, as a tree or a prefix of one, and as a function of a leaf or of all."""
    params = {"a": attention(), "b": attention(keys=4)}
    logits = {"a": LOGITS, "b": LOGITS / 2}
    tree = {"query": QUERY, "key": KEY, "value": None}

    def of_leaf(path, leaf):
        return path.rpartition("/")[2] if "value" not in path else None

    forms = [
        {"a": tree, "b": tree},
        of_leaf,
        lambda params: {"a": tree, "b": tree},
        [("*value", None), ("*query", QUERY), ("*", KEY)],
        {f"{layer}/{name}": name for layer in "ab" for name in ("query", "key")},
    ]
    with x64():
        expected = moved(gradtx.qk_clip(ROLES), params, logits)
        for form in forms:
            close(moved(gradtx.qk_clip(form), params, logits), expected, rtol=0)


@functools.cache
def both():
    params = jax.tree.map(jnp.asarray, {"a": attention(), "b": attention()})
    return params, {"a": jnp.asarray(LOGITS, jnp.float32), "b": jnp.asarray(LOGITS / 2, jnp.float32)}


def test_leaves_without_a_gradient_stay_and_the_others_know_of_them():
    """The query heads share keys also at a step at which these rest."""
    params, logits = both()
    tx = gradtx.qk_clip(ROLES)
    grads = jax.tree.map(jnp.zeros_like, params)
    expected, _ = tx.update(grads, tx.init(params), params, max_logits=logits)
    grads["a"]["key"] = grads["b"]["query"] = None
    found, _ = tx.update(grads, tx.init(params), params, max_logits=logits)
    assert found["a"]["key"] is None and found["b"]["query"] is None
    close(found["a"]["query"], expected["a"]["query"], rtol=0)
    close(found["b"]["key"], expected["b"]["key"], rtol=0)


def test_what_is_frozen_as_none_has_no_heads():
    params, logits = both()
    part = {"a": params["a"], "b": dict.fromkeys(params["b"])}
    tx = gradtx.qk_clip(ROLES)
    grads = jax.tree.map(jnp.zeros_like, part)
    found, _ = tx.update(grads, tx.init(part), part, max_logits={"a": logits["a"], "b": logits["b"]})
    whole, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, max_logits=logits)
    close(found["a"], whole["a"], rtol=0)
    lone = {"a": {**params["a"], "key": None}, "b": params["b"]}
    assert tx.init(lone) and tx.update(lone, tx.init(lone), lone, max_logits=logits)


def test_masks_and_groups():
    """A module that is left out passes, and half a module is an error; a partition has it in a group."""
    params, logits = both()
    zeros = jax.tree.map(jnp.zeros_like, params)
    whole, _ = gradtx.qk_clip(ROLES).update(
        zeros, gradtx.qk_clip(ROLES).init(params), params, max_logits=logits
    )
    masked = gradtx.masked(gradtx.qk_clip(ROLES), "a/*")
    found, _ = masked.update(zeros, masked.init(params), params, max_logits=logits)
    close(found["a"], whole["a"], rtol=0)
    close(found["b"], zeros["b"], rtol=0)
    groups = {"attention": gradtx.qk_clip(ROLES), "rest": gradtx.sgd(0.1)}
    tx = gradtx.partition(groups, {"*value": "rest", "*": "attention"})
    close(tx.update(zeros, tx.init(params), params, max_logits=logits)[0], whole, rtol=0)
    half = gradtx.masked(gradtx.qk_clip(ROLES), "!*key")
    with pytest.raises(ValueError, match="some leaves of the attention module 'a', and not on 'a/key'"):
        half.init(params)


def test_nothing_may_change_the_update_afterwards():
    params, logits = both()
    clip = gradtx.qk_clip(ROLES)
    words = "qk_clip needs the new parameters, but scale_by_learning_rate changes the update of the leaf"
    with pytest.raises(ValueError, match=words):
        gradtx.chain(gradtx.scale_by_adam(), clip, gradtx.scale_by_learning_rate(0.1)).init(params)
    with pytest.raises(ValueError, match="ema_params needs the new parameters, but qk_clip changes"):
        gradtx.chain(gradtx.ema_params(gradtx.sgd(0.1), 0.9), clip).init(params)
    tx = gradtx.ema_params(gradtx.chain(gradtx.sgd(0.0), clip), 0.5)
    new, state = gradtx.apply_gradients(tx, params, tx.init(params), params, max_logits=logits)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, params, new)
    close(gradtx.eval_params(state, new), mean, rtol=1e-6)


@pytest.mark.wide
def test_accumulation_sees_the_logits_of_the_step_that_completes_it():
    params, logits = both()
    tx = gradtx.accumulate(gradtx.chain(gradtx.sgd(0.1), gradtx.qk_clip(ROLES)), 2)
    first, state = gradtx.apply_gradients(tx, params, tx.init(params), params, max_logits=1e9)
    close(first, params, rtol=0)
    second, _ = gradtx.apply_gradients(tx, params, state, params, max_logits=logits)
    plain = gradtx.chain(gradtx.sgd(0.1), gradtx.qk_clip(ROLES))
    close(
        second, gradtx.apply_gradients(plain, params, plain.init(params), params, max_logits=logits)[0], 1e-6
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_are_rounded_once(dtype):
    weights = jax.tree.map(lambda x: jnp.asarray(x, dtype), attention(keys=4))
    tx = gradtx.qk_clip(ROLES)
    zeros = jax.tree.map(jnp.zeros_like, weights)
    new, _ = gradtx.apply_gradients(tx, zeros, tx.init(weights), weights, max_logits=jnp.full(4, 400.0))
    for name in ("query", "key"):
        assert new[name].dtype == dtype
        np.testing.assert_array_equal(new[name], weights[name] / 2)


def test_a_config_and_a_repr_give_it_back():
    tx = gradtx.qk_clip(
        {
            "*wq_b": gradtx.heads({"query": 128, "rotary_query": 64}),
            "*qkv": gradtx.heads(("query", "key", "value"), "ih", number=(32, 8, 8)),
            "*query": "query",
        },
        tau=30.0,
    )
    for again in (gradtx.from_config(gradtx.to_config(tx)), eval(repr(tx), vars(gradtx))):
        assert again == tx and repr(again) == repr(tx)
    assert tx != gradtx.qk_clip({"*query": "query"}, tau=30.0)


def test_another_bound_compiles_nothing():
    params, logits = both()
    tx = gradtx.qk_clip(ROLES)
    step = jax.jit(tx.update)
    state = tx.init(params)
    first, _ = step(params, state, params, max_logits=logits)
    second, _ = step(params, gradtx.set_hyperparams(state, tau=50.0, alpha=0.2), params, max_logits=logits)
    assert step._cache_size() == 1
    assert not np.array_equal(first["b"]["query"], second["b"]["query"])


@pytest.mark.wide
def test_it_can_be_mapped_over_models():
    """Their weights and logits have a leading axis that the heads do not know of."""
    params, logits = both()
    tx = gradtx.qk_clip({"query": QUERY, "key": KEY})
    several = jax.tree.map(lambda a, b: jnp.stack([a, b]), params["a"], params["b"])
    state = jax.vmap(tx.init)(several)
    found, _ = jax.vmap(lambda s, p, m: tx.update(p, s, p, max_logits=m))(
        state, several, jnp.stack([logits["a"], logits["b"]])
    )
    for i, name in enumerate("ab"):
        alone, _ = tx.update(params[name], tx.init(params[name]), params[name], max_logits=logits[name])
        close(jax.tree.map(lambda x, i=i: x[i], found), alone, rtol=1e-6)


def one_layer(params, x):
    """A layer of attention, and the largest logit of each of its heads."""
    own = params["attention"]
    q, k, v = (jnp.einsum("bti,ihd->bthd", x, own[n]["kernel"]) for n in ("query", "key", "value"))
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v), logits.max(axis=(0, 2, 3))


def trained(tx, steps=100):
    """The largest logit at each step, on tokens that are to give what the one before them is."""
    x = jax.random.normal(jax.random.key(0), (8, 6, 4))
    y = jnp.roll(x, 1, axis=1).reshape(8, 6, 2, 2)
    keys = dict(zip(("query", "key", "value"), jax.random.split(jax.random.key(1), 3), strict=True))
    params = {"attention": {n: {"kernel": jax.random.normal(k, (4, 2, 2)) / 2} for n, k in keys.items()}}

    def loss(params):
        out, logits = one_layer(params, x)
        return jnp.mean((out - y) ** 2), {"attention": logits}

    def step(carry, _):
        params, state = carry
        (_, logits), grads = jax.value_and_grad(loss, has_aux=True)(params)
        carry = gradtx.apply_gradients(tx, grads, state, params, max_logits=logits)
        return carry, logits["attention"].max()

    return np.asarray(jax.jit(lambda c: jax.lax.scan(step, c, length=steps))((params, tx.init(params)))[1])


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("sharing", ["group", "key"])
def test_the_logits_of_a_model_stay_near_the_bound(sharing):
    """At a high rate they grow without it, as the softmax wants to be sharper."""
    heads = {"*query/kernel": "query", "*key/kernel": "key"}
    free, bounded = (
        trained(gradtx.chain(gradtx.muon(0.2), gradtx.qk_clip(heads, tau, sharing=sharing)))
        for tau in (math.inf, 10.0)
    )
    below = np.argmax(free > 10.0)
    np.testing.assert_allclose(bounded[:below], free[:below], rtol=1e-4)
    assert free[-1] > 100 and free[-20:].min() > 100
    assert bounded.max() < 14 and bounded[-20:].min() > 9
