"""Leaves as matrices: their views, where they go, and what is done to them as stacks."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gradtx
import gradtx.transforms.dion
import gradtx.transforms.kron
import kin_of_muon_references
import matrix_references
from compiled_exchanges import exchanges
from golden import MATRIX_CASES
from gradtx.core.engine import each_matrix
from gradtx.core.engine.views import MatrixView
from gradtx.core.polar import COEFFICIENTS
from gradtx.core.roots import inverse_root
from matrix_trajectories import RECORDED, trajectory
from rotation import one_of
from trajectories import x64

# Optax 0.2.5, the oldest that is tested with, has none of its own.
DIMENSIONS = getattr(optax.contrib, "MuonDimensionNumbers", gradtx.contrib.MuonDimensionNumbers)
VIEWS = [
    ((3, 4), gradtx.matrix_view("rc"), [(1, 3, 4)]),
    ((3, 4), gradtx.matrix_view("cr"), [(1, 4, 3)]),
    ((2, 3, 4), gradtx.matrix_view("brc"), [(2, 3, 4)]),
    ((2, 3, 4), gradtx.matrix_view("rbc"), [(3, 2, 4)]),
    ((2, 3, 4), gradtx.matrix_view("rcc"), [(1, 2, 12)]),
    ((2, 3, 4), gradtx.matrix_view("crr"), [(1, 12, 2)]),
    ((3, 3, 2, 5), gradtx.matrix_view("rrrc"), [(1, 18, 5)]),
    ((2, 3, 2, 3, 2), gradtx.matrix_view("brcbc"), [(6, 3, 4)]),
    ((4, 12), gradtx.matrix_view("rc", column_blocks=3), [(3, 4, 4)]),
    ((2, 4, 6), gradtx.matrix_view("brc", row_blocks=2, column_blocks=3), [(12, 2, 2)]),
    ((4, 12), gradtx.matrix_view("rc", column_blocks=(8, 2, 2)), [(1, 4, 8), (1, 4, 2), (1, 4, 2)]),
    ((5, 2, 6), gradtx.matrix_view("rbc", row_blocks=(2, 3)), [(2, 2, 6), (2, 3, 6)]),
    ((3, 0), gradtx.matrix_view("rc"), [(1, 3, 0)]),
    ((0, 3, 2), gradtx.matrix_view("brc"), [(0, 3, 2)]),
]


@pytest.mark.parametrize(("shape", "view", "parts"), VIEWS, ids=lambda x: str(x))
def test_a_leaf_is_cut_into_matrices_and_made_of_them_again(shape, view, parts):
    x = jnp.arange(float(np.prod(shape))).reshape(shape)
    cut = view.of(shape)
    found = cut.split(x)
    assert [p.shape for p in found] == parts
    assert [(cut.count(i), *map(int, size)) for i, size in enumerate(cut.sizes)] == parts
    np.testing.assert_array_equal(cut.join(found), x)
    assert sorted(np.concatenate([p.ravel() for p in found]).tolist()) == x.ravel().tolist()
    arranged = cut.arranged([p.sum(axis=-1) for p in found])
    leading = tuple(n for n, letter in zip(shape, view.axes, strict=True) if letter == "b")
    for own, (count, rows, _) in zip((arranged,) if cut.is_even else arranged, parts, strict=True):
        assert own.shape[: len(leading)] == leading and own.shape[-1] == rows
        assert own.size == count * rows


def test_a_block_of_columns_is_what_it_says():
    x = jnp.arange(24.0).reshape(2, 12)
    queries, keys, values = gradtx.matrix_view("rc", column_blocks=(8, 2, 2)).of(x.shape).split(x)
    np.testing.assert_array_equal(queries[0], x[:, :8])
    np.testing.assert_array_equal(keys[0], x[:, 8:10])
    np.testing.assert_array_equal(values[0], x[:, 10:])
    heads = gradtx.matrix_view("rc", column_blocks=3).of(x.shape).split(x)[0]
    np.testing.assert_array_equal(heads[1], x[:, 4:8])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: gradtx.matrix_view("rr"), "an 'r' and a 'c' at least; got 'rr'"),
        (lambda: gradtx.matrix_view("rxc"), "got 'rxc'"),
        (lambda: gradtx.matrix_view(2), "got 2"),
        (lambda: gradtx.matrix_view("rc", row_blocks=0), "row_blocks is how many blocks there are"),
        (lambda: gradtx.matrix_view("rc", column_blocks=(3, 0)), r"each >= 1; got \(3, 0\)"),
        (
            lambda: gradtx.matrix_view("rc").of((2, 3, 4)),
            r"is of 2 axes, and the leaf has the shape \(2, 3, 4\)",
        ),
        (
            lambda: gradtx.matrix_view("rc", column_blocks=2).of((2, 3)),
            "3 columns are no 2 blocks of one size",
        ),
        (lambda: gradtx.matrix_view("rc", row_blocks=(1, 2)).of((2, 3)), "blocks of 1, 2 rows are 3, of 2"),
    ],
)
def test_a_view_that_means_nothing_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def shapes(tree):
    return jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, jnp.float32), tree, is_leaf=lambda x: isinstance(x, tuple)
    )


LAYER = {
    "attn": {
        "query": {"kernel": (48, 4, 12), "bias": (4, 12)},
        "out": {"kernel": (4, 12, 48), "bias": (48,)},
    },
    "mlp": {"up": {"kernel": (48, 192), "bias": (192,)}, "down": {"kernel": (192, 48)}},
    "norm": {"scale": (48,)},
}
SCANNED = jax.tree.map(lambda s: (6, *s), LAYER, is_leaf=lambda x: isinstance(x, tuple))


@pytest.mark.parametrize(("layer", "batch"), [(LAYER, ""), (SCANNED, "b")], ids=["layers apart", "scanned"])
def test_names_and_shapes_say_which_leaf_is_what(layer, batch):
    params = shapes({"embed": {"embedding": (500, 48)}, "layers": layer, "lm_head": {"kernel": (48, 500)}})
    table = {
        r.path.removeprefix("layers/"): (r.view, r.optimizer)
        for r in gradtx.routing(gradtx.muon(0.02), params)
    }
    assert table == {
        "embed/embedding": ("rc", "adamw"),
        "lm_head/kernel": ("rc", "adamw"),
        "attn/query/kernel": (f"{batch}rcc", "muon"),
        "attn/query/bias": ("", "adamw"),
        "attn/out/kernel": (f"{batch}rrc", "muon"),
        "attn/out/bias": ("", "adamw"),
        "mlp/up/kernel": (f"{batch}rc", "muon"),
        "mlp/up/bias": ("", "adamw"),
        "mlp/down/kernel": (f"{batch}rc", "muon"),
        "norm/scale": ("", "adamw"),
    }


UNCLEAR = {
    "a head under another name": (
        {"embed": {"embedding": (500, 48)}, "final": {"kernel": (48, 500)}},
        r"'final/kernel', \(48, 500\): a side is the vocabulary's 500",
    ),
    "a table under another name": ({"tokens": {"w": (50_257, 768)}}, "a side of 50257 may be a vocabulary"),
    "stacked without a vector to tell": (
        {"layers": {"kernel": (6, 48, 48)}},
        "3 axes, of which no name says",
    ),
    "each channel by itself": (
        {"conv": {"kernel": (3, 3, 1, 32)}},
        "a convolution of each channel by itself",
    ),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_a_leaf_that_may_be_either_is_asked_for(case):
    tree, words = UNCLEAR[case]
    params = shapes(tree)
    with pytest.raises(ValueError, match=f"it is not clear what these leaves are:\n.*{words}") as error:
        gradtx.muon(0.02).init(params)
    (path,) = [r.path for r in gradtx.routing(gradtx.muon(0.02), params) if not r.optimizer]
    said = gradtx.muon(0.02, muon_weight_dimension_numbers={path: None})
    assert {r.path: r.optimizer for r in gradtx.routing(said, params)}[path] == "adamw"
    # What the message says to write makes it a matrix.
    view = eval(str(error.value).split(f"{path!r}: ")[1].split("}")[0])
    said = gradtx.muon(0.02, muon_weight_dimension_numbers={path: view})
    assert {r.path: r.optimizer for r in gradtx.routing(said, params)}[path] == "muon"
    assert isinstance(view, MatrixView)


FORMS = {
    "patterns": {"*w": gradtx.matrix_view("rc"), "b": None},
    "a tree": {"w": gradtx.matrix_view("rc"), "b": None},
    "Optax's": {"w": DIMENSIONS(0, 1), "b": None},
    "its own": {"w": gradtx.contrib.MuonDimensionNumbers((0,), (-1,)), "b": None},
    "a function of a leaf": lambda path, leaf: gradtx.matrix_view("rc") if path == "w" else None,
    "a function of all": lambda params: {"w": gradtx.matrix_view("rc"), "b": None},
}


@pytest.mark.parametrize("form", FORMS)
def test_views_have_the_forms_of_labels(form):
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    table = gradtx.routing(gradtx.muon(0.1, muon_weight_dimension_numbers=FORMS[form]), params)
    assert [(r.path, r.view, r.optimizer) for r in table] == [("b", "", "adamw"), ("w", "rc", "muon")]


@pytest.mark.parametrize(
    ("views", "error", "words"),
    [
        ({"*x": None}, ValueError, r"the views' pattern '\*x' matches no leaf. There are b, w"),
        ({"*w": "muon"}, TypeError, "of the leaf 'w' it was said 'muon', which is no view"),
        ({"*w": gradtx.matrix_view("brc")}, ValueError, "the view of the leaf 'w' does not fit"),
        (
            {"w": DIMENSIONS(0, 0)},
            ValueError,
            "is not of 2 axes, each of which is one",
        ),
        ({"w": {"x": None}}, TypeError, "of the leaf 'w' it was said {'x': None}, which is no view"),
        ([None, None, None], ValueError, "the tree of views does not fit the parameters"),
    ],
)
def test_a_view_that_does_not_fit_is_refused(views, error, words):
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    with pytest.raises(error, match=words):
        gradtx.muon(0.1, muon_weight_dimension_numbers=views).init(params)


def test_a_rule_of_matrices_refuses_what_is_none():
    with pytest.raises(
        ValueError, match=r"scale_by_muon works on matrices, and the leaf 'b' of shape \(3,\) has no"
    ):
        gradtx.scale_by_muon().init({"b": jnp.ones(3)})
    with pytest.raises(ValueError, match="routing takes an optimizer with one method on matrices"):
        gradtx.routing(gradtx.adam(0.1), {"b": jnp.ones(3)})


def of_sizes(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    return {f"w{i}": jnp.asarray(rng.normal(size=size), jnp.float32) for i, size in enumerate(sizes)}


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_each_set_of_coefficients_makes_singular_values_about_one(name):
    g = of_sizes((8, 20), (20, 8), (8, 8))
    tx = gradtx.orthogonalize(name, 9 if name == "newton_schulz" else 5)
    for u in tx.update(g, tx.init(g))[0].values():
        values = np.linalg.svd(u, compute_uv=False)
        assert values.min() > 0.3 and values.max() < 1.6, values


@pytest.mark.by_turns(4)
@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "aol", "schatten"])
@pytest.mark.parametrize("name", one_of(2, ["standard", "dion", "polar_express", "cubic"]))
def test_the_gram_form_gives_the_same(name, preconditioning):
    with x64():
        g = {k: v.astype(jnp.float64) for k, v in of_sizes((4, 24), (24, 4), (2, 5, 5)).items()}
        made = []
        for gram in (False, True):
            tx = gradtx.orthogonalize(
                name, preconditioning=preconditioning, gram=gram, views={"w2": gradtx.matrix_view("brc")}
            )
            made.append(tx.update(g, tx.init(g))[0])
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), *made)


def test_extreme_and_empty_and_complex_matrices():
    tx = gradtx.orthogonalize("newton_schulz", 15, eps=0.0)
    rng = np.random.default_rng(0)
    g = rng.normal(size=(4, 6)).astype(np.float32)
    expected = matrix_references.polar(g.astype(float), (2.0, -1.5, 0.5), 15, 0.0)
    for size in (1e-30, 1.0, 1e30):
        given = {"w": jnp.asarray(g * np.float32(size))}
        np.testing.assert_allclose(tx.update(given, tx.init(given))[0]["w"], expected, rtol=1e-4, atol=1e-5)
    z = {"z": jnp.asarray(g + 1j * rng.normal(size=g.shape), jnp.complex64)}
    u = np.asarray(tx.update(z, tx.init(z))[0]["z"])
    np.testing.assert_allclose(u @ u.conj().T, np.eye(4), atol=1e-4)
    for zero in ({"w": jnp.zeros((3, 4))}, {"w": jnp.zeros((0, 4))}, {"w": jnp.zeros((3, 0))}):
        updates, _ = tx.update(zero, tx.init(zero))
        assert updates["w"].shape == zero["w"].shape and not np.any(updates["w"])
    lacking = {"w": jnp.asarray(g), "n": None}
    assert tx.update(lacking, tx.init(lacking))[0]["n"] is None


OF_MATRICES = [
    gradtx.scale_by_muon,
    gradtx.scale_by_normuon,
    gradtx.scale_by_adamuon,
    gradtx.scale_by_dion,
    gradtx.scale_by_dion2,
    gradtx.scale_by_contra_muon,
    gradtx.scale_by_aurora,
    gradtx.scale_by_soap_muon,
    gradtx.scale_by_soap,
    gradtx.scale_by_kl_soap,
    gradtx.scale_by_splus,
    gradtx.scale_by_shampoo,
    gradtx.scale_by_kron,
]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rank_fraction": 0.5, "eps": 1e-2},
        {"rank_fraction": 0.3, "rank_multiple_of": 2, "power_iters": 3},
    ],
    ids=["of full rank", "of half rank", "iterated"],
)
def test_dion_follows_its_reference_from_the_same_start(settings, monkeypatch):
    """Random is only the first Q."""

    def drawn(shape):
        return np.cos(np.arange(np.prod(shape)) ** 2).reshape(shape)

    def of_each(keys, shape, dtype):
        return jnp.broadcast_to(jnp.asarray(drawn(shape), dtype), (len(keys), *shape))

    monkeypatch.setattr(gradtx.transforms.dion, "normal_of_each", of_each)
    tx = gradtx.scale_by_dion(**settings, beta=0.9, views={"w3": gradtx.matrix_view("brc")})
    reference = kin_of_muon_references.ScaleByDion(**settings, beta=0.9, first_q=drawn)
    rng = np.random.default_rng(0)
    params = {f"w{i}": rng.normal(size=s) for i, s in enumerate([(6, 4), (4, 6), (5, 5), (2, 3, 7)])}
    z = rng.normal(size=(4, 3)) + 1j * rng.normal(size=(4, 3))
    params["w4"] = z
    reference.init([*params.values()])
    with x64():
        state, update = tx.init(jax.tree.map(jnp.asarray, params)), jax.jit(tx.update)
        for t in range(100):
            g = {
                k: np.sin(np.arange(1, p.size + 1) * (t + 1)).reshape(p.shape) + p for k, p in params.items()
            }
            expected = reference.update([*g.values()], [*params.values()])
            updates, state = update(jax.tree.map(jnp.asarray, g), state, params)
            for u, e in zip(updates.values(), expected, strict=True):
                np.testing.assert_allclose(u, e, rtol=1e-8, atol=1e-9)


def test_dion_draws_by_the_path_and_the_key():
    params = of_sizes((6, 4), (6, 4))
    first = {}
    for name, tx in {"0": gradtx.scale_by_dion(0.5), "1": gradtx.scale_by_dion(0.5, key=1)}.items():
        _, state = tx.update(params, tx.init(params), params)
        first[name] = state["slots"]["scale_by_dion"]["basis"]["6x4"]
    assert np.any(first["0"][0] != first["0"][1]) and np.any(first["0"] != first["1"])
    alone = {"w1": params["w1"]}
    tx = gradtx.scale_by_dion(0.5)
    _, state = tx.update(alone, tx.init(alone), alone)
    np.testing.assert_allclose(state["slots"]["scale_by_dion"]["basis"]["6x4"][0], first["0"][1], rtol=1e-5)


def test_muown_takes_an_output_of_zeros_along():
    """Elsewhere it is NaN, and all of the matrix with it."""
    p = {"kernel": jnp.array([[1.0, 0.0], [2.0, 0.0], [0.5, 0.0]])}
    tx = gradtx.scale_by_muown(0.1)
    state, update = tx.init(p), jax.jit(tx.update)
    for t in range(5):
        # At first it has no gradient either.
        updates, state = update(
            jax.tree.map(lambda x, t=t: jnp.sin(x) + float(t > 1) * jnp.cos(x), p), state, p
        )
        p = gradtx.apply_updates(p, updates)
        assert np.isfinite(p["kernel"]).all() and np.any(p["kernel"][:, 1]) == (t > 1)


ON_A_MESH = (gradtx.scale_by_normuon, gradtx.scale_by_soap)
"""Methods that differ in what the engine does for them."""

OF_A_KIND = (gradtx.scale_by_muon, gradtx.scale_by_dion, gradtx.scale_by_soap, gradtx.scale_by_shampoo)
"""Of the methods that share their arithmetic one each."""


def steps_of(tx, params, grads):
    """The last update of some."""
    state, update = tx.init(params), jax.jit(tx.update)
    for g in grads:
        updates, state = update(g, state, params)
    return updates


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("make", one_of(4, OF_MATRICES), ids=lambda make: make.__name__)
def test_scanned_layers_are_what_layers_apart_are(make, monkeypatch):
    # What is drawn depends on the path of a leaf.
    ones = lambda keys, shape, dtype: jnp.ones((len(keys), *shape), dtype)  # noqa: E731
    for module in (gradtx.transforms.kron, gradtx.transforms.dion):
        monkeypatch.setattr(module, "normal_of_each", ones)
    said = "weight_dimension_numbers" if make is gradtx.scale_by_muon else "views"
    together = make(**{said: {"w": gradtx.matrix_view("brc")}})
    grads = [of_sizes((3, 5), (3, 5), (3, 5), (3, 5), seed=seed) for seed in range(4)]
    stacks = [{"w": jnp.stack([*g.values()])} for g in grads]
    with x64():
        grads, stacks = (jax.tree.map(lambda x: x.astype(jnp.float64), tree) for tree in (grads, stacks))
        apart, scanned = steps_of(make(), grads[0], grads), steps_of(together, stacks[0], stacks)
        np.testing.assert_allclose(scanned["w"], jnp.stack([*apart.values()]), rtol=1e-9, atol=1e-10)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("make", one_of(4, OF_MATRICES), ids=lambda make: make.__name__)
def test_a_matrix_may_have_its_first_gradient_late(make):
    """It begins then, and the others go on as they would without it."""
    grads = [of_sizes((3, 5), (3, 5), seed=seed) for seed in range(9)]
    without = [{**g, "w1": None} for g in grads]
    tx, made = make(), []
    for given in (without[:4] + grads[4:], without):
        state, own = tx.init(grads[0]), []
        for g in given:
            updates, state = tx.update(g, state, grads[0])
            own.append(updates)
        made.append(own)
    for i, (one, other) in enumerate(zip(*made, strict=True)):
        np.testing.assert_allclose(one["w0"], other["w0"], rtol=1e-4, atol=1e-5)
        if i >= 5:  # of some methods the first gradient moves nothing
            assert np.isfinite(one["w1"]).all() and np.any(one["w1"]), i


def test_a_root_by_products_is_that_of_the_eigenvalues_where_they_do_not_converge():
    rng = np.random.default_rng(0)
    for rank, n in ((1, 16), (8, 64), (64, 64)):
        g = jnp.asarray(rng.normal(size=(1, n, rank)), jnp.float32)
        x, eps = g @ g.mT, jnp.float32(1e-6)
        roots = [inverse_root(x, eps, 0.25, method=method) for method in ("newton", "eigen")]
        assert np.isfinite(roots[0]).all() and np.abs(roots[0]).max() < 2 * np.abs(roots[1]).max()
    nothing = inverse_root(jnp.zeros((1, 3, 3)), jnp.float32(0.0), 0.25, method="newton")
    assert not np.any(nothing)


def test_zeros_teach_kron_nothing_and_the_period_is_what_was_said():
    g = of_sizes((6, 5))
    tx = gradtx.scale_by_kron(preconditioner_update_probability=1 / 41)
    state, update = tx.init(g), jax.jit(tx.update)
    ages = []
    for _ in range(84):
        _, state = update(g, state, g)
        ages.append(int(state["slots"]["scale_by_kron"]["age"]))
    assert [i + 1 for i, age in enumerate(ages) if age == 0] == [41, 82]
    tx = gradtx.scale_by_kron(key=jax.random.key(3))
    zero = jax.tree.map(jnp.zeros_like, g)
    _, state = jax.lax.fori_loop(0, 500, lambda i, c: tx.update(zero, c[1], g), (zero, tx.init(g)))
    assert float(jnp.abs(state["slots"]["scale_by_kron"]["left"]["6x5"]).max()) == 1.0
    assert np.any(tx.update(g, state, g)[0]["w0"])


@pytest.mark.parametrize("mode", [None, "one_diag", "all_diag"])
def test_products_that_kron_remembers_are_those_of_its_factors(mode):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params = {k: rng.normal(size=size) + 1j * (k == "wc") for k, size in (("wa", (6, 5)), ("wc", (3, 7)))}
        makers = [
            gradtx.scale_by_kron(
                preconditioner_update_probability=1 / 3, memory_save_mode=mode, cached=cached
            )
            for cached in (False, True)
        ]
        states, step = [tx.init(params) for tx in makers], [jax.jit(tx.update) for tx in makers]
        for _ in range(30):
            grads = jax.tree.map(lambda p: rng.normal(size=p.shape) + 0 * p, params)
            (plain, states[0]), (cached, states[1]) = (
                update(grads, state) for update, state in zip(step, states, strict=True)
            )
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13), plain, cached)
        slots = states[1]["slots"]["scale_by_kron"]
        for side in ("left", "right"):
            for size, q in slots[side].items():
                product = np.abs(q) ** 2 if q.ndim == 2 else np.conj(q).mT @ q
                np.testing.assert_allclose(slots[f"product_{side}"][size], product, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: gradtx.scale_by_shampoo(block_size=True), "block_size must be an int >= 1, got True"),
        (lambda: gradtx.scale_by_shampoo(exponent=np.inf), "exponent must be finite and > 0, got float"),
        (lambda: gradtx.scale_by_shampoo(exponent=0.3, root="newton"), "one over a whole number"),
        (lambda: gradtx.scale_by_shampoo(exponent=1e10, root="newton"), "one over a whole number"),
        (
            lambda: gradtx.scale_by_shampoo(grafting="lion"),
            "grafting must be one of None, 'adagrad', ",
        ),
        (lambda: gradtx.scale_by_kron(max_size_triangular=-1), "max_size_triangular must be an int >= 0"),
        (
            lambda: gradtx.scale_by_kron(memory_save_mode="some"),
            "memory_save_mode must be one of None, ",
        ),
        (lambda: gradtx.scale_by_dion2(fraction=True), r"fraction must be a float in \(0, 1\], got True"),
        (lambda: gradtx.scale_by_splus(max_precond_dim=0), "max_precond_dim must be an int >= 1, got 0"),
        (lambda: gradtx.scale_by_matrix_size("rows"), "size must be 'fan_in' or 'mean_side', got 'rows'"),
        (
            lambda: gradtx.add_noise(0.1, 0.5, jax.random.key(0, impl="rbg")).init(1.0),
            "of JAX's default implementation",
        ),
    ],
)
def test_what_no_method_takes_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.by_turns(1)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, marks=() if make in OF_A_KIND else pytest.mark.full, id=make.__name__)
        for make in OF_MATRICES
    ],
)
def test_every_kind_of_matrix_has_a_finite_update(make):
    """Five axes, none and one element, of one rank, zeros, huge and tiny, in float32 and bfloat16."""
    rng = np.random.default_rng(0)
    outer = np.outer(rng.normal(size=6), rng.normal(size=4))
    tree = {
        "deep": rng.normal(size=(2, 1, 3, 2, 4)),
        "empty": np.zeros((0, 4)),
        "single": np.ones((1, 1)),
        "column": rng.normal(size=(5, 1)),
        "lacking": outer,
        "zero": np.zeros((3, 4)),
        "huge": 1e15 * outer.T,
        "tiny": 1e-15 * outer,
    }
    said = "weight_dimension_numbers" if make is gradtx.scale_by_muon else "views"
    tx = make(**{said: {"deep": gradtx.matrix_view("bbrrc")}})
    for dtype in (jnp.float32, jnp.bfloat16):
        params = jax.tree.map(lambda x, dtype=dtype: jnp.asarray(x, dtype), tree)
        updates = steps_of(tx, {**params, "none": None}, [{**params, "none": None}] * 12)
        assert updates.pop("none") is None
        for path, u in updates.items():
            assert u.shape == params[path].shape and u.dtype == dtype
            assert np.isfinite(np.asarray(u, np.float32)).all(), path
            assert not np.any(updates["zero"]), path
            assert u.size == 0 or path == "zero" or np.any(u), path


def test_what_is_compiled_grows_with_the_sizes_and_not_with_the_layers():
    def products(count):
        params = of_sizes(*[(4, 6)] * count)
        tx = gradtx.muon(0.1)
        text = jax.jit(tx.update).lower(params, tx.init(params), params).as_text()
        return text.count("dot_general")

    assert products(3) == products(30) > 0


def compiled_in_place(tx, params):
    """The compiled step, which gets the parameters and the state and gives them back in the same order."""

    def step(params, state, grads):
        return gradtx.apply_gradients(tx, grads, state, params)

    return jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile()


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("make", OF_MATRICES, ids=lambda make: make.__name__)
def test_a_loop_over_matrices_copies_no_stack(monkeypatch, make):
    """What is written in the place of a stack is not read of it again, which XLA would copy it for."""
    monkeypatch.setattr(each_matrix, "AT_ONCE", 1)
    params, tx = of_sizes(*[(18, 14)] * 5), make()
    text = compiled_in_place(tx, params).as_text()
    assert " while(" in text
    within = text[: text.index("\nENTRY ")]
    assert not re.findall(r"= \S*\[5,\d+,\d+\]\S* copy\(.*", within)


def test_what_a_step_holds_does_not_grow_with_the_sizes(monkeypatch):
    """One stack at a time: the largest, and what one matrix of it takes."""
    monkeypatch.setattr(each_matrix, "AT_ONCE", 1)
    sizes = ((64, 96), (96, 64), (64, 128), (128, 64))
    params, tx = of_sizes(*sizes * 8), gradtx.scale_by_muon()
    memory = compiled_in_place(tx, params).memory_analysis()
    one = 4 * 64 * 128
    assert memory.temp_size_in_bytes <= (8 + 3) * one + 65536


def test_muon_is_optax_s_step_by_step():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), x64():
        rng = np.random.default_rng(0)
        params = {"w": rng.normal(size=(6, 4)), "k": rng.normal(size=(4, 9)), "q": rng.normal(size=(4, 3, 5))}
        params = jax.tree.map(jnp.asarray, {**params, "b": rng.normal(size=3)})
        dims = DIMENSIONS
        views = {"w": dims(), "k": dims(1, 0), "q": dims(0, (1, 2)), "b": None}
        for settings in (
            {},
            {"ns_coeffs": "dion", "weight_decay": 0.1, "adam_weight_decay": 0.2, "consistent_rms": 0.2},
            {"nesterov": False, "adaptive": False, "preconditioning": "aol", "adam_learning_rate": 0.01},
            {"preconditioning": "schatten", "ns_steps": 7},
            {"preconditioning": "spectral", "beta": 0.8},
        ):
            txs = [
                m.contrib.muon(0.02, muon_weight_dimension_numbers=views, **settings) for m in (gradtx, optax)
            ]
            steps = [jax.jit(tx.update) for tx in txs]
            states, points = [tx.init(params) for tx in txs], [params, params]
            for t in range(100):
                for i, step in enumerate(steps):
                    grads = jax.tree.map(lambda x, t=t: jnp.sin(3 * x + t) + 0.3 * x, points[i])
                    updates, states[i] = step(grads, states[i], points[i])
                    points[i] = gradtx.apply_updates(points[i], updates)
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-7), *points)


@jax.numpy_dtype_promotion("standard")
@jax.numpy_rank_promotion("allow")
def test_a_state_of_optax_s_muon_goes_on():
    params = {"w": jnp.ones((3, 4)), "b": jnp.ones(3)}
    theirs, ours = optax.contrib.muon(0.1), gradtx.muon(0.1)
    state = theirs.init(params)
    grads = {"w": jnp.arange(12.0).reshape(3, 4), "b": jnp.ones(3)}
    for _ in range(2):
        _, state = theirs.update(grads, state, params)
    moved = gradtx.from_optax_state(ours, state, params)
    back = gradtx.to_optax_state(ours, moved, theirs.init(params))
    updates = [tx.update(grads, s, params)[0] for tx, s in ((theirs, state), (ours, moved), (theirs, back))]
    for other in updates[1:]:
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3), updates[0], other)


@pytest.mark.parametrize("make", [gradtx.scale_by_soap, gradtx.scale_by_normuon])
def test_a_matrix_that_had_no_slots_is_asked_for_a_new_state(make):
    tx, w = make(), jnp.ones((3, 2))
    with pytest.raises(
        ValueError, match=f"{make.__name__}: the state has no '.*' for the leaf 'b/kernel', which"
    ):
        both = {"a": {"kernel": w}, "b": {"kernel": w}}
        tx.update(both, tx.init({"a": {"kernel": w}, "b": {"kernel": None}}), both)
    wide = {"kernel": jnp.ones((3, 4))}
    with pytest.raises(ValueError, match="Pass the state that init made for these parameters"):
        tx.update(wide, tx.init({"kernel": w}), wide)


def test_a_shard_is_not_taken_for_a_matrix():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("x",))
    spec, tx = jax.sharding.PartitionSpec("x"), gradtx.orthogonalize(views={"": gradtx.matrix_view("rc")})

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec)
    def step(x):
        return tx.update(x, tx.init(x))[0]

    with pytest.raises(ValueError, match="the leaves vary over the axis x, so that a leaf may be a shard"):
        step(jnp.ones((4, 3)))


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("case", one_of(2, MATRIX_CASES))
def test_follows_the_authors_optimizer(case):
    """What the authors' own code does with three matrices, 100 steps in float64: golden/make_matrices.py."""
    assert {*MATRIX_CASES} == {*RECORDED.trajectories}
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11),
        trajectory(case),
        RECORDED.trajectories[case],
    )


def test_a_state_says_which_matrices_are_of_which_leaf():
    """Also where a leaf has no gradient, and nobody says what its shape is."""
    params = {"a": {"kernel": jnp.ones((3, 2))}, "b": {"kernel": None}, "c": {"kernel": jnp.ones((2, 3, 2))}}
    views = {"c/kernel": gradtx.matrix_view("brc")}
    tx = gradtx.scale_by_soap(views=views)
    state = tx.init(params)
    slots = state["slots"]["scale_by_soap"]
    assert {name: x.shape for name, x in slots["left"].items()} == {"3x2": (3, 3, 3)}
    assert jax.tree.map(int, slots["rows"]) == {
        "a": {"kernel": 0},
        "b": {"kernel": None},
        "c": {"kernel": 1},
    }
    rng = np.random.default_rng(0)
    late = {**params, "a": {"kernel": None}, "c": {"kernel": jnp.asarray(rng.normal(size=(2, 3, 2)))}}
    _, without = jax.jit(tx.update)(late, state)
    _, given = jax.jit(tx.update)(late, state, params)
    left = without["slots"]["scale_by_soap"]["left"]["3x2"]
    np.testing.assert_array_equal(left, given["slots"]["scale_by_soap"]["left"]["3x2"])
    assert not np.any(left[0]) and np.all(np.any(left[1:], axis=(1, 2)))
    # As many as before, and not the same: b has taken the place of a.
    moved = {**params, "a": {"kernel": None}, "b": {"kernel": jnp.ones((3, 2))}}
    with pytest.raises(ValueError, match="the state has no 'rows' for the leaf 'b/kernel', which was None"):
        tx.update(moved, state, moved)


def test_slots_are_read_by_the_leaves():
    params = of_sizes((3, 2), (2, 3, 2), (4, 6))
    views = {"w1": gradtx.matrix_view("brc"), "w2": gradtx.matrix_view("rc", column_blocks=(4, 2))}
    tx = gradtx.accumulate(gradtx.scale_by_soap(views=views), 2)
    state = tx.init(params)
    for _ in range(4):
        _, state = tx.update(params, state, params)
    (found,) = (
        part["scale_by_soap"]
        for slots in gradtx.slots_by_leaf(tx, params, state).values()
        for part in slots.values()
        if isinstance(part, dict) and "scale_by_soap" in part
    )
    left = found["left"]
    assert left["w0"].shape == (3, 3) and left["w1"].shape == (2, 3, 3)
    assert [x.shape for x in left["w2"]] == [(4, 4), (4, 4)]
    np.testing.assert_allclose(left["w0"], (1 - 0.95**2) * params["w0"] @ params["w0"].T, rtol=1e-5)
    np.testing.assert_allclose(left["w1"][1], (1 - 0.95**2) * params["w1"][1] @ params["w1"][1].T, rtol=1e-5)
    blocks = params["w2"][:, :4], params["w2"][:, 4:]
    for own, block in zip(left["w2"], blocks, strict=True):
        np.testing.assert_allclose(own, (1 - 0.95**2) * block @ block.T, rtol=1e-5)
    with pytest.raises(TypeError, match="slots_by_leaf takes a transform of gradtx"):
        gradtx.slots_by_leaf(optax.adam(0.1), params, state)


IN_TURN = {
    "scale_by_soap": ("basis_left", {"precondition_frequency": 4}),
    "scale_by_kl_soap": ("basis_left", {"precondition_frequency": 4}),
    "scale_by_splus": ("basis_left", {"inverse_every": 4}),
    "scale_by_shampoo": ("root_left", {"precondition_frequency": 4}),
    "scale_by_kron": ("left", {"preconditioner_update_probability": 0.25}),
}


@pytest.mark.parametrize("stagger", [True, False], ids=["in turn", "at once"])
@pytest.mark.parametrize("name", IN_TURN)
def test_what_costs_much_is_computed_once_in_a_period(name, stagger):
    slot, settings = IN_TURN[name]
    tx = getattr(gradtx, name)(stagger=stagger, **settings)
    params = of_sizes((3, 5), (3, 5), (3, 5), (2, 4))
    state, update, changed = tx.init(params), jax.jit(tx.update), []
    for t in range(16):
        _, new = update(of_sizes((3, 5), (3, 5), (3, 5), (2, 4), seed=t), state, params)
        before, after = (gradtx.slots_by_leaf(tx, params, s)[name][slot] for s in (state, new))
        changed.append([np.any(before[k] != after[k]) for k in params])
        state = new
    # After what begins, each once in four steps; at once all in one step, in turn one in each.
    changed = np.array(changed[4:])
    assert changed.sum(0).tolist() == [3, 3, 3, 3]
    assert sorted(changed.sum(1).tolist()) == ([1] * 12 if stagger else [0] * 9 + [4] * 3)


def test_without_compiling_it_is_the_same():
    """Under `jax.disable_jit` loops and branches are Python's, and a branch may give back what it got."""
    params, tx = of_sizes((4, 3), (4, 3), (2, 3)), gradtx.scale_by_soap(precondition_frequency=2)

    def updates():
        state, found = tx.init(params), []
        for seed in range(3):
            update, state = tx.update(of_sizes((4, 3), (4, 3), (2, 3), seed=seed), state, params)
            found.append(update)
        return found

    expected = updates()
    with jax.disable_jit():
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), updates(), expected)


def test_a_rule_of_a_user_renews_what_is_due():
    class OverNorm(gradtx.MatrixRule, name="over_norm"):
        """u = g over a norm, which is measured at every third update."""

        views: object = None

        norm = gradtx.MatrixSlot(real=True, of=lambda rule, m, n: (), init=lambda rule, m, n: m * n)
        seen = gradtx.MatrixSlot(real=True, of=lambda rule, m, n: ())

        def prepare(self, now):
            return {"is_third": now.step % 3 == 2}

        def observe(self, x, slots, stack):
            return {"seen": slots.seen + 1}

        def is_due(self, slots, stack):
            return stack.is_third

        def renew(self, x, slots, stack):
            return {"norm": jnp.linalg.norm(x, axis=(1, 2))}

        def solve(self, x, slots, stack):
            return x / slots.norm[:, None, None], slots

    tx = OverNorm()
    params = {"w0": jnp.full((2, 2), 3.0), "w1": jnp.full((2, 2), 0.5), "w2": jnp.ones((4, 1))}
    state, update, sizes = tx.init(params), jax.jit(tx.update), []
    for _ in range(3):
        updates, state = update(params, state)
        sizes.append([float(u[0, 0]) for u in updates.values()])
    assert sizes == [[0.75, 0.125, 0.25]] * 2 + [[0.5, 0.5, 0.5]]
    assert state["slots"]["over_norm"]["seen"]["2x2"].tolist() == [3.0, 3.0]

    class Wrong(OverNorm, name="wrong"):
        """As above, and a slot has another shape."""

        def renew(self, x, slots, stack):
            return {"norm": x}

    with pytest.raises(ValueError, match=r"wrong: renew returned .* as the slot 'norm', which has shape"):
        Wrong().update(params, Wrong().init(params))
    with pytest.raises(TypeError, match="under 'rows' the state says which matrices"):
        type("Rows", (gradtx.MatrixRule,), {"rows": gradtx.MatrixSlot()}, name="rows_of")


@pytest.mark.by_turns(1)
@pytest.mark.parametrize(
    "make",
    # Of those that differ by what one device does with its matrices one is for all.
    [
        pytest.param(make, marks=() if make in ON_A_MESH else pytest.mark.full, id=make.__name__)
        for make in OF_MATRICES
    ],
)
def test_on_a_mesh_no_method_moves_more_than_gradients_in_and_updates_out(make):
    """Per size two exchanges; what is remembered stays where it is, on the device of its matrix."""
    devices = jax.devices()[:4]
    for kind in (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit):
        mesh = jax.make_mesh((4,), ("x",), axis_types=(kind,), devices=devices)
        spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x", None))
        sizes = (*[(8, 16)] * 8, *[(16, 8)] * 4)
        params, tx = of_sizes(*sizes), make()
        place = functools.partial(jax.tree.map, lambda x, spec=spec: jax.device_put(x, spec))
        state, update = tx.init(params), jax.jit(tx.update)
        with jax.set_mesh(mesh):
            given = place(params)
            own = tx.init(given)
            compiled = jax.jit(tx.update).lower(given, own, given).compile()
            for stack in jax.tree.leaves(own["slots"]):
                if stack.ndim and stack.shape[0] in (4, 8) and stack.size > 64:
                    assert not stack.sharding.is_fully_replicated
        for seed in range(1, 4):
            grads = of_sizes(*sizes, seed=seed)
            expected, state = update(grads, state, params)
            updates, own = compiled(place(grads), own, given)
            for one, other in zip(updates.values(), expected.values(), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
        text = compiled.as_text()
        names = ("all-to-all", "all-gather", "all-reduce", "collective-permute", "reduce-scatter")
        counts = {name: text.count(f" {name}(") + text.count(f" {name}-start(") for name in names}
        assert sum(counts.values()) <= 4, (kind, counts)


def muon_on(mesh, spec, params, grads):
    """The updates on a mesh, those without one, and the compiled step."""
    tx = gradtx.muon(0.1)
    expected, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    given, moved = (jax.tree.map(lambda x: jax.device_put(x, spec), tree) for tree in (params, grads))
    with jax.set_mesh(mesh):
        state = tx.init(given)
        compiled = jax.jit(tx.update).lower(moved, state, given).compile()
        updates, _ = compiled(moved, state, given)
    return updates, expected, compiled


def test_on_a_mesh_each_device_solves_whole_matrices_and_moves_its_share_once_each_way():
    """Eight layers sharded over four devices: per size one exchange in and one out, of a shard each."""
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    params = of_sizes(*[(8, 16)] * 8, *[(16, 8)] * 6)
    grads = of_sizes(*[(8, 16)] * 8, *[(16, 8)] * 6, seed=1)
    updates, expected, compiled = muon_on(mesh, spec, params, grads)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), updates, expected)
    assert all(u.sharding.is_equivalent_to(spec, 2) for u in updates.values())
    text = compiled.as_text()
    assert text.count(" all-to-all(") <= 4
    assert not any(f" {name}(" in text for name in ("all-gather", "all-reduce", "collective-permute"))


@pytest.mark.parametrize("kind", list(jax.sharding.AxisType)[:2], ids=lambda kind: kind.name)
@pytest.mark.parametrize("count", [8, 3])
def test_on_a_mesh_of_two_axes_a_matrix_comes_along_one_after_the_other(kind, count):
    """No device holds more of a stack than its share of the matrices, also where they are filled up."""
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind), devices=jax.devices()[:8])
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x", "y"))
    params, grads = (of_sizes(*[(16, 32)] * count, seed=seed) for seed in (0, 1))
    updates, expected, compiled = muon_on(mesh, spec, params, grads)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), updates, expected)
    assert all(u.sharding.is_equivalent_to(spec, 2) for u in updates.values())
    found = exchanges(compiled.as_text())
    # Three matrices are for the four devices along one axis, and those along the other gather them too.
    assert len(found) == (4 if count == 8 else 3) and max(size for _, size in found) <= 4 * 16 * 32
