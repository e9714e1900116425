"""Each matrix as a leaf of its own: beside loops over matrices, on meshes, and what a state has of it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
import references
from gradtx.testing.compare import identical
from modern_references import Hyperball
from trajectories import x64

SHAPES = {"layers": (2, 5, 4), "qkv": (4, 12), "conv": (2, 2, 3, 5), "heads": (2, 4, 2), "bias": (5,)}
VIEWS = {
    "layers": gradtx.matrix_view("brc"),
    "qkv": gradtx.matrix_view("rc", column_blocks=(6, 3, 3)),
    "conv": gradtx.matrix_view("rrrc"),
    "heads": gradtx.matrix_view("crb"),
}
FACTORED = {"min_dim_size_to_factor": 2}


def random(shape, seed=0, dtype="float32"):
    rng = np.random.default_rng([seed, *shape])
    x = rng.normal(size=shape)
    return jnp.asarray(x + 1j * rng.normal(size=shape) if "complex" in dtype else x, dtype)


def tree(seed=0, dtype="float32"):
    return {name: random(shape, seed, dtype) for name, shape in SHAPES.items()}


def apart(params):
    """The matrices of a tree of these shapes, with no help from the library."""
    x = params
    found = {f"layers{i}": x["layers"][i] for i in range(2)}
    found |= {"q": x["qkv"][:, :6], "k": x["qkv"][:, 6:9], "v": x["qkv"][:, 9:]}
    found["conv"] = x["conv"].reshape(12, 5)
    found |= {f"heads{i}": x["heads"][:, :, i].T for i in range(2)}
    return {**found, "bias": x["bias"]}


def inside(state):
    """The state of what is wrapped."""
    return state["slots"]["by_matrix"]["inner"]


def run(tx, params, steps=10, seed=1):
    """The parameters and the state after some steps, of gradients that are those of the matrices."""
    state, step = tx.init(params), jax.jit(functools.partial(gradtx.apply_gradients, tx))
    for t in range(steps):
        g = tree(seed + t)
        params, state = step(g if "layers" in params else apart(g), state, params)
    return params, state


def chained(min_dim=2):
    return gradtx.chain(
        gradtx.scale_by_factored_rms(min_dim_size_to_factor=min_dim),
        gradtx.clip_by_block_rms(1.0),
        gradtx.scale_by_hyperball(0.1),
    )


def test_it_is_a_loop_over_matrices():
    """Adafactor's moments and a hyperball of each, in float64 numpy, for 100 steps."""
    tx = gradtx.by_matrix(chained(), VIEWS)
    with x64():
        params = tree(dtype="float64")
        own = {name: np.array(x) for name, x in apart(params).items()}
        loop = {}
        for name, x in own.items():
            direction = references.Chain(
                references.ScaleByFactoredRms(**FACTORED), references.ClipByBlockRms(1.0)
            )
            loop[name] = Hyperball(direction, 0.1)
            loop[name].init([x])
        state, step = tx.init(params), jax.jit(functools.partial(gradtx.apply_gradients, tx))
        for t in range(100):
            g = tree(t + 1, "float64")
            params, state = step(g, state, params)
            for name, x in apart(g).items():
                own[name] = own[name] + loop[name].update([np.array(x)], [own[name]])[0]
        for name, x in apart(params).items():
            np.testing.assert_allclose(x, own[name], rtol=1e-10, atol=1e-12, err_msg=name)
            np.testing.assert_allclose(np.linalg.norm(x), np.linalg.norm(apart(tree(dtype="float64"))[name]))


@pytest.mark.by_turns(2)
@pytest.mark.parametrize(
    "inner",
    [
        gradtx.adafactor(0.1, momentum=0.9, **FACTORED),
        gradtx.lamb(0.1),
        gradtx.lars(0.1),
        gradtx.chain(gradtx.scale_by_param_block_norm(), gradtx.sgd(0.01)),
        gradtx.chain(gradtx.clip_by_global_norm(0.1), gradtx.adam(0.1)),
        gradtx.partition(
            {"first": gradtx.scale_by_soap(), "rest": gradtx.adam(0.1)},
            lambda path, leaf: "first" if path in ("layers/1", "layers1", "qkv/0", "q") else "rest",
        ),
        gradtx.guard(gradtx.adafactor(0.1)),
        optax.adafactor(0.1, **FACTORED),
    ],
    ids=["adafactor", "lamb", "lars", "norms", "global norm", "labels", "guard", "optax"],
)
def test_it_is_what_leaves_apart_are(inner):
    if isinstance(inner, gradtx.Transform):
        (whole, state), (scattered, theirs) = (
            run(gradtx.by_matrix(inner, VIEWS), tree()),
            run(inner, apart(tree())),
        )
    else:
        with jax.numpy_dtype_promotion("standard"):
            whole, state = run(gradtx.by_matrix(inner, VIEWS), tree())
            scattered, theirs = run(gradtx.chain(inner), apart(tree()))
            theirs = theirs["slots"]["foreign"]
    expected = jax.tree.leaves(apart(whole))
    assert sorted(jax.tree.map(jnp.shape, jax.tree.leaves(inside(state)))) == sorted(
        jax.tree.map(jnp.shape, jax.tree.leaves(theirs))
    )
    for x, y in zip(expected, jax.tree.leaves(scattered), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)


@pytest.mark.wide
def test_outside_of_a_compiled_function_it_is_so_bit_for_bit():
    tx, inner, params = gradtx.by_matrix(chained(), VIEWS), chained(), tree()
    state, theirs, own = tx.init(params), inner.init(apart(params)), apart(params)
    for t in range(2):
        updates, state = tx.update(tree(t + 1), state, params)
        expected, theirs = inner.update(apart(tree(t + 1)), theirs, own)
        identical(apart(updates), expected, "updates")
        params, own = gradtx.apply_updates(params, updates), gradtx.apply_updates(own, expected)


def test_what_is_inside_sees_matrices_by_their_numbers():
    seen = {}

    def note(path, leaf):
        seen[path] = leaf.shape
        return True

    params = {"block": {"kernel": jnp.ones((2, 3, 4)), "bias": jnp.ones((2, 4))}, "norm": jnp.ones(4)}
    params["embed"] = jnp.ones((7, 4))
    tx = gradtx.by_matrix(
        gradtx.masked(gradtx.trace(0.9), note), {"block/kernel": gradtx.matrix_view("brc", row_blocks=(1, 2))}
    )
    tx.init(params)
    kernel = {f"block/kernel/{i}": (1 + i % 2, 4) for i in range(4)}
    assert seen == {"block/bias": (2, 4), **kernel, "embed": (7, 4), "norm": (4,)}
    seen.clear()
    gradtx.by_matrix(tx.inner, {"embed": gradtx.matrix_view("rc")}).init(
        {"embed": params["embed"], "block": {"dense": {"weight": jnp.ones((3, 2)), "bias": jnp.ones(3)}}}
    )
    # torch's weight has the outputs first; inside, rows come first.
    assert seen == {"block/dense/bias": (3,), "block/dense/weight/0": (2, 3), "embed/0": (7, 4)}


def test_a_leaf_without_a_gradient_keeps_its_state_bit_for_bit():
    tx = gradtx.by_matrix(gradtx.adafactor(0.1, momentum=0.9, **FACTORED), VIEWS)
    params, update = tree(), jax.jit(tx.update)
    _, state = update(tree(1), tx.init(params), params)
    updates, after = update({**tree(2), "qkv": None, "bias": None}, state, params)
    expected, moved = update(tree(2), state, params)
    assert updates["qkv"] is None and updates["bias"] is None
    for name in ("layers", "conv", "heads"):
        identical(updates[name], expected[name], name)
    slots = (jax.tree_util.tree_leaves_with_path(inside(s)["slots"]) for s in (state, after, moved))
    for (keys, old), (_, new), (_, other) in zip(*slots, strict=True):
        path = jax.tree_util.keystr(keys)
        identical(new, old if "'qkv'" in path or "'bias'" in path else other, path)


def test_without_the_parameters_it_is_so_too():
    """Nothing says then of which shape the leaf is, and its slots are there all the same."""
    tx, params = gradtx.by_matrix(gradtx.trace(0.9), VIEWS), tree()
    _, state = tx.update(tree(1), tx.init(params))
    updates, after = tx.update({**tree(2), "qkv": None}, state)
    assert updates["qkv"] is None and np.any(updates["layers"])
    identical(*(inside(s)["slots"]["trace"]["trace"]["qkv"] for s in (after, state)), "trace")


def test_a_leaf_that_was_absent_at_init_is_named():
    params, tx = tree(), gradtx.by_matrix(gradtx.scale_by_adam(), VIEWS)
    assert inside(tx.init({**params, "conv": None}))["slots"]["scale_by_adam"]["mu"]["conv"] is None
    with pytest.raises(
        ValueError,
        match=r"by_matrix: the state was made for other leaves or other views: it has no "
        r"'slots/scale_by_adam/mu/conv/0', which is of shape \(12, 5\) now; the leaf 'conv' of shape "
        r"\(2, 2, 3, 5\) is seen as 1 matrix\. .* None or masked out then\.",
    ):
        tx.update(params, tx.init({**params, "conv": None}), params)
    masked = gradtx.masked(tx, "layers")
    updates, state = jax.jit(masked.update)(params, masked.init(params), params)
    identical(updates["qkv"], params["qkv"], "outside")
    assert len(state["slots"]["by_matrix"]["inner"]["slots"]["scale_by_adam"]["mu"]["layers"]) == 2


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    "inner",
    [gradtx.scale_by_adam(), gradtx.scale_by_factored_rms(**FACTORED), optax.scale_by_adam()],
    ids=["adam", "factored", "optax"],
)
def test_a_state_of_other_views_is_refused(inner, compiled):
    params = {"w": jnp.ones((4, 6)), "b": jnp.ones(6)}
    one, two, uneven = (
        gradtx.by_matrix(inner, {"w": gradtx.matrix_view("rc", column_blocks=blocks)})
        for blocks in (1, 2, (5, 1))
    )
    for other in (one, uneven):
        update = jax.jit(two.update) if compiled else two.update
        with pytest.raises(
            ValueError,
            match=r"by_matrix: the state was made .* the leaf 'w' of shape \(4, 6\) is seen as 2 mat",
        ):
            update(params, other.init(params), params)
    with pytest.raises(
        ValueError,
        match=r"it has '.*w/0' of shape .* the leaf 'w' of shape \(4, 6\) is seen as 1 matrix\. Pass the",
    ):
        one.update(params, two.init(params), params)


def test_what_is_unclear_is_said_with_the_words_to_write():
    tx = gradtx.by_matrix(gradtx.scale_by_adam())
    params = {"mix": {"kernel": jnp.ones((2, 3, 4))}, "wide": {"kernel": jnp.ones((4, 40_000))}}
    with pytest.raises(ValueError) as error:
        tx.init(params)
    assert str(error.value) == (
        "by_matrix: it is not clear what these leaves are:\n"
        "    'mix/kernel', (2, 3, 4): 3 axes, of which no name says what they are\n"
        "    'wide/kernel', (4, 40000): a side of 40000 may be a vocabulary\n"
        "Say it by views={'mix/kernel': gradtx.matrix_view('brc')} for a matrix, with the letter of each "
        "axis (r for inputs, c for outputs, b for a batch), or {'mix/kernel': None} for one that is shown "
        "as it is."
    )
    said = gradtx.by_matrix(
        gradtx.scale_by_adam(), {"mix/kernel": gradtx.matrix_view("brc"), "wide/kernel": None}
    )
    mu = inside(said.init(params))["slots"]["scale_by_adam"]["mu"]
    assert len(mu["mix"]["kernel"]) == 2 and mu["wide"]["kernel"].shape == (4, 40_000)
    with pytest.raises(
        ValueError, match=r"by_matrix: the view of the leaf 'w' does not fit: 6 columns are no 4"
    ):
        gradtx.by_matrix(tx.inner, {"w": gradtx.matrix_view("rc", column_blocks=4)}).init(
            {"w": jnp.ones((2, 6))}
        )
    with pytest.raises(ValueError, match=r"by_matrix: .* gave updates of other shapes than it got"):
        squeezing = gradtx.stateless(lambda updates, params: jax.tree.map(jnp.sum, updates))
        tx = gradtx.by_matrix(squeezing)
        tx.update({"w": jnp.ones((2, 3))}, tx.init({"w": jnp.ones((2, 3))}))


@pytest.mark.parametrize("dtype", ["bfloat16", "complex64"])
def test_dtypes_are_those_of_the_leaves(dtype):
    wide = "float32" if dtype == "bfloat16" else dtype
    params, grads = tree(dtype=dtype), tree(1, wide)
    tx, inner = (
        f(gradtx.scale_by_adam(mu_dtype=dtype)) for f in (lambda x: gradtx.by_matrix(x, VIEWS), lambda x: x)
    )
    updates, state = jax.jit(tx.update)(grads, tx.init(params), params)
    expected, theirs = jax.jit(inner.update)(apart(grads), inner.init(apart(params)), apart(params))
    identical(apart(updates), expected, "updates")
    mu, own = inside(state)["slots"]["scale_by_adam"]["mu"], theirs["slots"]["scale_by_adam"]["mu"]
    identical(mu["qkv"], tuple(own[name] for name in "qkv"), "mu")


def test_leaves_of_no_elements_and_of_many_axes():
    params = {"none": jnp.ones((0, 4, 3)), "flat": jnp.ones((2, 0)), "many": random((2, 2, 4, 1, 2))}
    views = {"none": gradtx.matrix_view("brc"), "flat": gradtx.matrix_view("rc")}
    views["many"] = gradtx.matrix_view("cbrbr", row_blocks=(3, 5), column_blocks=2)
    tx = gradtx.by_matrix(chained(), views)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
    assert all(np.isfinite(x).all() for x in updates.values())
    shown = tx.view(params)["many"]
    assert [x.shape for x in shown] == [(3, 1), (3, 1), (5, 1), (5, 1)] * 2
    second = np.transpose(params["many"], (1, 3, 2, 4, 0)).reshape(2, 8, 2)[1]
    np.testing.assert_array_equal(shown[4 + 2], second[3:, :1])
    same = gradtx.by_matrix(gradtx.identity(), views)
    identical(same.update(params, same.init(params))[0], params, "cut and joined")


def test_the_state_of_abstract_and_of_traced_parameters():
    tx, params = gradtx.by_matrix(gradtx.adafactor(0.1, **FACTORED), VIEWS), tree()
    made = tx.init(params)
    abstract = tx.init(jax.eval_shape(lambda: params))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract) == jax.tree.map(
        lambda x: (x.shape, x.dtype), made
    )
    identical(jax.jit(tx.init)(params), made, "traced")
    identical(tx.init(jax.tree.map(np.asarray, params)), made, "numpy")


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("inner", [chained(), gradtx.adam(0.1)], ids=["factored", "adam"])
def test_on_a_mesh_it_is_the_same(kind, inner):
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("x", "y"), axis_types=(kind,) * 2)
    shapes = {"layers": (2, 6, 4), "stack": (2, 6, 4), "qkv": (4, 12), "b": (4,)}
    specs = {"layers": (None, "x", "y"), "stack": ("x",), "qkv": ("y", "x")}
    views = {"layers": gradtx.matrix_view("bcr"), "stack": gradtx.matrix_view("brc")}
    tx = gradtx.by_matrix(inner, {**views, "qkv": gradtx.matrix_view("rc", column_blocks=3)})
    host = {name: random(shape) for name, shape in shapes.items()}

    def put(name, x):
        spec = specs.get(name, ())
        # In the form that a compiled function gives it back in.
        full = (*spec, *[None] * (x.ndim - len(spec))) if kind == AxisType.Explicit else spec
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*full)))

    step = jax.jit(lambda g, state, params: gradtx.apply_gradients(tx, g, state, params))
    params, own = host, {name: put(name, x) for name, x in host.items()}
    state, placed = tx.init(params), tx.init(own)
    assert tx.view(own)["layers"][0].sharding.spec == PartitionSpec("y", "x")
    assert tx.view(own)["stack"][0].sharding.is_fully_replicated
    shapes_of = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), own)
    shardings = [x.sharding for x in jax.tree.leaves((own, placed))]
    assert [x.sharding for x in jax.tree.leaves((shapes_of, tx.init(shapes_of)))] == shardings
    for t in range(2):
        g = {name: random(shape, t + 1) for name, shape in shapes.items()}
        params, state = step(g, state, params)
        own, placed = step({name: put(name, x) for name, x in g.items()}, placed, own)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), own, params)
    paths = jax.tree_util.tree_leaves_with_path((own, placed))
    for (path, x), sharding in zip(paths, shardings, strict=True):
        assert x.sharding.is_equivalent_to(sharding, x.ndim), (path, x.sharding, sharding)
    assert step._cache_size() == 2  # one of them for the host's


def test_a_shard_is_not_taken_for_a_matrix():
    mesh, spec = Mesh(np.array(jax.devices()[:2]), ("x",)), PartitionSpec("x")
    tx = gradtx.by_matrix(gradtx.scale(-1.0), {"w": gradtx.matrix_view("rc")})

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec)
    def step(x):
        return tx.update({"w": x}, tx.init({"w": x}))[0]["w"]

    with pytest.raises(ValueError, match="by_matrix: inside shard_map the leaves vary over the axis x"):
        step(jnp.ones((4, 3)))


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("inner", [gradtx.lbfgs(), gradtx.sophia(0.1)], ids=["line search", "hessian"])
def test_the_loss_is_one_of_matrices_inside(inner):
    """A line search and a second derivative inside see functions of what they see."""
    params, goal = tree(), tree(5)

    def loss(p):
        assert p["qkv"] is None or p["qkv"].shape == (4, 12)
        pairs = ((x, goal[name]) for name, x in p.items() if x is not None)
        return sum(jnp.sum((x - y) ** 2) for x, y in pairs)

    tx = gradtx.by_matrix(inner, VIEWS)

    @jax.jit
    def step(new, state):
        value, grads = jax.value_and_grad(loss)(new)
        extra = {"value": value, "grad": grads, "value_fn": loss, "obj_fn": loss}
        return gradtx.apply_gradients(tx, grads, state, new, **extra)

    state, new = tx.init(params), params
    for _ in range(3):
        new, state = step(new, state)
    assert loss(new) < loss(params)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize(
    "make",
    [
        lambda tx: gradtx.guard(gradtx.accumulate(gradtx.by_matrix(tx, VIEWS), 2)),
        lambda tx: gradtx.ema_params(gradtx.by_matrix(tx, VIEWS), 0.9),
        lambda tx: gradtx.by_matrix(gradtx.accumulate(tx, 2), VIEWS),
    ],
    ids=["in a guard", "averaged", "around"],
)
def test_wrappers_combine(make):
    new, state = run(make(gradtx.scale_by_hyperball(0.1)), tree(), 4)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((new, state)))


def test_an_average_stands_around_it():
    with pytest.raises(ValueError, match="needs the new parameters, but by_matrix changes the update after"):
        gradtx.by_matrix(gradtx.ema_params(gradtx.sgd(0.1), 0.9), VIEWS).init(tree())


def test_views_that_a_model_has_said():
    nnx = pytest.importorskip("flax.nnx")
    import gradtx.flax

    class Model(nnx.Module):
        def __init__(self):
            self.qkv = nnx.Param(random((4, 12)), matrix_view=gradtx.matrix_view("rc", column_blocks=3))
            self.mix = nnx.Param(random((2, 3, 4)), matrix_view=None)
            self.scale = nnx.Param(jnp.ones(4))

    model = Model()
    tx = gradtx.by_matrix(gradtx.chain(gradtx.adafactor(0.1)), gradtx.flax.views(model))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert [x.shape for x in tx.view(params)["qkv"]] == [(4, 4)] * 3
    assert tx.view(params)["mix"].shape == (2, 3, 4)
    optimizer = gradtx.flax.Optimizer(model, tx, wrt=nnx.Param)
    grads = nnx.grad(lambda m: jnp.sum(m.qkv[...] ** 2) + jnp.sum(m.mix[...] ** 2))(model)
    expected, _ = gradtx.apply_gradients(
        tx, nnx.to_pure_dict(nnx.state(grads, nnx.Param)), tx.init(params), params
    )
    optimizer.update(model, grads)
    np.testing.assert_allclose(model.qkv[...], expected["qkv"], rtol=1e-6)


def test_what_was_said_of_the_leaves_is_a_part_of_what_it_is():
    one, other = (
        gradtx.by_matrix(gradtx.scale_by_adam(), {"w": gradtx.matrix_view(axes)}) for axes in ("rc", "cr")
    )
    assert one != other and one.structure() != other.structure()
    assert gradtx.from_config(gradtx.to_config(one)) == one and eval(repr(one), vars(gradtx)) == one
