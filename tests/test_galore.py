"""GaLore: beside Optax, on scanned layers, on gradients that say little, and what a state has of it."""

from __future__ import annotations

import contextlib
import functools
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
import wrapper_references
from catalogue import as_matrices
from rotation import one_of
from trajectories import deviations, problem, x64

# Optax 0.2.5, the oldest that is tested with, has no GaLore.
HAS_GALORE = hasattr(optax.contrib, "galore")
DIMENSIONS = getattr(optax.contrib, "GaLoreDimensionNumbers", gradtx.contrib.GaLoreDimensionNumbers)
PROJ_TYPES = ["optax", "std", "reverse_std", "right", "left", "full"]


def random(shape, seed=0, dtype="float32"):
    rng = np.random.default_rng([seed, *shape])
    x = rng.normal(size=shape)
    return jnp.asarray(x + 1j * rng.normal(size=shape) if "complex" in dtype else x, dtype)


def projectors(state):
    return state["slots"]["scale_by_galore"]["projector"]


@contextlib.contextmanager
def optax_in_double():
    """Optax decomposes in float64, and the largest entry of each singular vector is positive."""

    def upright(x):
        return x * jnp.sign(jnp.take_along_axis(x, jnp.abs(x).argmax(axis=0, keepdims=True), axis=0))

    def svd(*args, **kwargs):
        u, s, vh = jnp.linalg.svd(*args, **kwargs)
        return upright(u), s, upright(vh.T).T

    linalg = SimpleNamespace(svd=svd)
    wide = SimpleNamespace(**vars(jnp) | {"float32": jnp.float64, "linalg": linalg})
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        x64(),
        mock.patch.object(optax.contrib._galore, "jnp", wide),
    ):
        yield


SHAPES = {"tall": (6, 4), "wide": (3, 8), "square": (5, 5), "heads": (4, 3, 2), "out": (3, 2, 7)}
SHAPES |= {"bias": (5,), "number": ()}
AXES = {"tall": (0, 1), "wide": (1, 0), "square": (-2, -1), "heads": (0, (1, 2)), "out": ((0, 1), 2)}


def dimensions(params):
    """Numbers of axes, as a function of the parameters."""
    return {name: DIMENSIONS(*AXES[name]) if name in AXES else None for name in params}


def point(shapes):
    return {name: random(shape, dtype="float64") for name, shape in shapes.items()}


def sine(params, t):
    return jax.tree.map(lambda x: jnp.sin(3 * x + t) + 0.3 * x, params)


def together(txs, params, steps, first=0, states=None):
    """The parameters of each transform after some steps, and its state."""
    update = [jax.jit(tx.update) for tx in txs]
    states = [tx.init(params) for tx in txs] if states is None else states
    points = [params] * len(txs)
    for t in range(first, first + steps):
        for i, step in enumerate(update):
            updates, states[i] = step(sine(points[i], t), states[i], points[i])
            points[i] = gradtx.apply_updates(points[i], updates)
    return points, states


SETTINGS = {
    "as it is": ({"rank": 2, "update_proj_gap": 7, "scale": 0.25}, None, None),
    "one direction": ({"rank": 1, "update_proj_gap": 10, "weight_decay": 0.1}, "trace", None),
    "more than there are": ({"rank": 64, "update_proj_gap": 3}, "scale_by_lion", None),
    "axes": ({"rank": 3, "update_proj_gap": 7, "scale": 0.5}, None, dimensions),
    "a tree": (
        {"rank": 2, "update_proj_gap": 50},
        "scale_by_adam",
        dimensions(AXES | {"bias": 0, "number": 0}),
    ),
}


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("case", SETTINGS)
def test_it_is_optax_s_step_by_step(case):
    if not HAS_GALORE:
        return
    settings, base, axes = SETTINGS[case]
    with optax_in_double():
        txs = [
            library.contrib.galore(
                0.02,
                base_optimizer=base and getattr(library, base)(*([0.9] if base == "trace" else [])),
                weight_dimension_numbers=axes,
                **settings,
            )
            for library in (gradtx, optax)
        ]
        (ours, theirs), _ = together(txs, point(SHAPES), 100)
        for name in SHAPES:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.wide
def test_it_is_optax_s_as_that_runs_until_the_directions_change():
    """The signs of the first directions mean nothing; Optax finds them in float32."""
    if not HAS_GALORE:
        return
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), x64():
        single = DIMENSIONS(0, 1)
        shapes = {name: SHAPES[name] for name in ("tall", "wide", "square", "bias")}
        txs = [m.contrib.galore(0.01, 2, weight_dimension_numbers=single) for m in (gradtx, optax)]
        (ours, theirs), _ = together(txs, point(shapes), 100)
        for name in shapes:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_run_of_optax_s_goes_on_and_back():
    if not HAS_GALORE:
        return
    with optax_in_double():
        settings = {"rank": 2, "update_proj_gap": 7, "weight_dimension_numbers": dimensions}
        ours, theirs = (m.contrib.galore(0.02, weight_decay=0.1, **settings) for m in (gradtx, optax))
        (middle,), (state,) = together([theirs], point(SHAPES), 10)
        moved = gradtx.from_optax_state(ours, state, middle)
        again = gradtx.to_optax_state(ours, moved, theirs.init(middle))
        jax.tree.map(np.testing.assert_array_equal, again, state)
        (one, other), _ = together([theirs, ours], middle, 10, 10, [state, moved])
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9), one, other)


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("proj_type", PROJ_TYPES)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_of_a_new_gradient_what_is_left_is_its_largest_part(proj_type, dtype):
    """Whatever the side, P P* g Q Q* is the best approximation of its rank."""
    with x64():
        shapes = {"tall": (5, 3), "wide": (2, 3, 4), "square": (4, 4)}
        g = {name: random(shape, dtype=dtype) for name, shape in shapes.items()}
        tx = gradtx.scale_by_galore(
            2, base_optimizer=gradtx.identity(), weight_dimension_numbers=as_matrices, proj_type=proj_type
        )
        updates, _ = tx.update(g, tx.init(g))
        for name, x in g.items():
            u, s, vh = np.linalg.svd(x, full_matrices=False)
            expected = (u[..., :2] * s[..., None, :2]) @ vh[..., :2, :]
            np.testing.assert_allclose(updates[name], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("proj_type", PROJ_TYPES)
def test_a_batch_of_matrices_follows_the_reference(proj_type):
    settings = {"rank": 2, "update_proj_gap": 4, "scale": 0.5, "proj_type": proj_type}
    ours = gradtx.scale_by_galore(
        base_optimizer=gradtx.scale_by_adam(eps=1e-2), weight_dimension_numbers=as_matrices, **settings
    )
    theirs = wrapper_references.ScaleByGalore(
        base_optimizer=wrapper_references.ScaleByAdam(eps=1e-2), batches=True, **settings
    )
    with x64():
        assert max(deviations(ours, theirs, problem(mild=True))) <= 1e-9


def test_scanned_layers_and_blocks_are_what_leaves_apart_are():
    layers, qkv = random((3, 6, 4)), random((4, 12))
    whole = {"layers": layers, "qkv": qkv}
    apart = {f"layer{i}": x for i, x in enumerate(layers)}
    apart |= {name: qkv[:, 4 * i : 4 * i + 4] for i, name in enumerate("qkv")}
    views = {"layers": gradtx.matrix_view("brc"), "qkv": gradtx.matrix_view("rc", column_blocks=3)}
    (stacked,), (state,) = together([gradtx.galore(0.02, 2, 3, weight_dimension_numbers=views)], whole, 8)
    (scattered,), _ = together([gradtx.galore(0.02, 2, 3)], apart, 8)
    joined = {
        "layers": jnp.stack([scattered[f"layer{i}"] for i in range(3)]),
        "qkv": jnp.concatenate([scattered[name] for name in "qkv"], axis=1),
    }
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), stacked, joined)
    mu = state["slots"]["scale_by_galore"]["inner"]["slots"]["scale_by_adam"]["mu"]
    assert jax.tree.map(jnp.shape, projectors(state)) == {"layers": (3, 6, 2), "qkv": (3, 4, 2)}
    assert jax.tree.map(jnp.shape, mu) == {"layers": (3, 2, 4), "qkv": (3, 2, 4)}


@pytest.mark.parametrize("proj_type", PROJ_TYPES)
def test_a_state_has_what_was_said_of_it(proj_type):
    params = {"tall": jnp.ones((64, 16)), "wide": jnp.ones((16, 64)), "bias": jnp.ones(64)}
    state = gradtx.scale_by_galore(4, proj_type=proj_type).init(params)["slots"]["scale_by_galore"]
    mu = state["inner"]["slots"]["scale_by_adam"]["mu"]
    rows = {"optax": "tall", "std": "wide", "reverse_std": "tall", "right": "tall wide", "left": ""}
    for name, (m, n) in (("tall", (64, 16)), ("wide", (16, 64))):
        if proj_type == "full":
            shapes = (m, 4), (n, 4), (4, 4)
        elif name in rows[proj_type].split():
            shapes = (m, 4), None, (4, n)
        else:
            shapes = (n, 4), None, (m, 4)
        second = state["column_projector"][name]
        assert (state["projector"][name].shape, second if second is None else second.shape) == shapes[:2]
        assert mu[name].shape == shapes[2]
    assert state["projector"]["bias"] is None and mu["bias"].shape == (64,)


def test_a_step_between_pays_nothing_for_the_decomposition():
    """It stands inside of a conditional, and is entered once in a period."""

    def found(jaxpr, inside=False):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "svd":
                yield inside
            for value in equation.params.values():
                for part in value if isinstance(value, tuple | list) else [value]:
                    if hasattr(getattr(part, "jaxpr", part), "eqns"):
                        here = inside or equation.primitive.name == "cond"
                        yield from found(getattr(part, "jaxpr", part), here)

    params = {"kernel": jnp.ones((4, 3)), "scanned": jnp.ones((2, 4, 3)), "bias": jnp.ones(3)}
    tx = gradtx.galore(0.1, 2, 3, weight_dimension_numbers=as_matrices)
    state, update, changed = tx.init(params), jax.jit(tx.update), []
    # The stack is decomposed at once, or on a CPU one matrix after another.
    assert [*found(jax.make_jaxpr(tx.update)(params, state, params).jaxpr)] == [True, True, True]
    for t in range(9):
        if t == 5:  # from here on every second
            state = gradtx.set_hyperparams(state, update_proj_gap=2)
        _, new = update(jax.tree.map(lambda x, t=t: random(x.shape, t), params), state, params)
        pairs = [(projectors(s)["kernel"], projectors(s)["scanned"]) for s in (state, new)]
        changed.append([bool(np.any(a != b)) for a, b in zip(*pairs, strict=True)])
        state = new
    assert changed == [[t in (0, 3, 6, 8)] * 2 for t in range(9)]
    assert update._cache_size() == 1


def test_a_sweep_decomposes_no_more_often():
    """The conditional is on what is due for one of them; each has its own period."""
    sweep, g = jnp.array([2, 3]), random((4, 3))
    tx = gradtx.scale_by_galore(2)
    states = jax.vmap(lambda gap: gradtx.set_hyperparams(tx.init(g), update_proj_gap=gap))(sweep)
    step = jax.vmap(lambda g, state: tx.update(g, state)[1], in_axes=(None, 0))
    text = str(jax.make_jaxpr(step)(g, states))
    assert "svd" in text and "select_n" in text and text.count("cond[") == 1
    changed = []
    for t in range(7):
        new = step(random((4, 3), t), states)
        changed.append(np.any(projectors(new) != projectors(states), axis=(1, 2)).tolist())
        states = new
    assert changed == [[t % 2 == 0, t % 3 == 0] for t in range(7)]


def test_a_gradient_that_says_no_directions_leaves_those_that_are_known():
    tx = gradtx.scale_by_galore(1, 2)
    w, g = jnp.ones((4, 3)), random((4, 3))
    state, seen = tx.init(w), []
    bad = jnp.full_like(g, jnp.nan)
    zero = jnp.zeros_like(g)
    for grad in (zero, bad, g, g, zero, 2 * g, bad, g.at[0].set(5.0), -g[::-1]):
        _, state = tx.update(grad, state)
        seen.append(np.asarray(projectors(state)))
        assert np.isfinite(seen[-1]).all()
    # None from the first two; the third begins late; at the fifth and the seventh nothing is said.
    assert not np.any(seen[:2]) and np.any(seen[2])
    for later in seen[3:8]:
        np.testing.assert_array_equal(later, seen[2])
    assert np.any(seen[8] != seen[7])


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("proj_type", PROJ_TYPES)
@pytest.mark.parametrize("dtype", one_of(2, ["float32", "bfloat16", "complex64"]))
def test_every_kind_of_gradient_has_a_finite_update(proj_type, dtype):
    of_one = jnp.outer(jnp.arange(5.0), jnp.ones(3))  # of rank 1, with a row of zeros
    grads = {
        "zero": jnp.zeros((4, 4)),
        "one": of_one,
        "equal": jnp.eye(4),
        "large": 1e30 * of_one,
        "small": 1e-30 * of_one,
        "row": jnp.ones((1, 7)),
        "empty": jnp.zeros((0, 3)),
        "vector": jnp.ones(3),
        "number": jnp.float32(2.0),
        "absent": None,
    }
    form = "complex64" if dtype == "complex64" else "float32"
    params = jax.tree.map(lambda g: jnp.ones(g.shape, dtype), grads)
    grads = jax.tree.map(lambda g: g.astype(form), grads)
    tx = gradtx.galore(0.1, 3, 2, proj_type=proj_type)
    state, new = tx.init(params), params
    for _ in range(3):
        updates, state = jax.jit(tx.update)(grads, state, new)
        new = gradtx.apply_updates(new, updates)
    assert new["absent"] is None and not np.any(updates["zero"])
    for path, x in [*new.items(), *projectors(state).items()]:
        assert x is None or np.isfinite(np.asarray(x, form)).all(), path
    assert {x.dtype.name for x in projectors(state).values() if x is not None} == {form}


def test_parameters_of_16_bits_take_gradients_of_32():
    """Optax's branches would have two dtypes."""
    params, grads = {"w": jnp.ones((4, 3), "bfloat16")}, {"w": random((4, 3))}
    tx = gradtx.galore(0.1, 2)
    updates, state = jax.jit(tx.update)(grads, tx.init(params), params)
    assert updates["w"].dtype == "float32" and projectors(state)["w"].dtype == "float32"
    wide = jax.tree.map(lambda x: x.astype("float32"), params)
    expected, _ = tx.update(grads, tx.init(wide), wide)
    np.testing.assert_array_equal(updates["w"], expected["w"])


def test_directions_may_be_stored_in_16_bits():
    params = {"w": random((6, 4))}
    short, whole = (gradtx.galore(0.1, 2, 4, projector_dtype=dtype) for dtype in ("bfloat16", None))
    ends, (state, _) = together([short, whole], params, 3)
    assert projectors(state)["w"].dtype == "bfloat16"
    np.testing.assert_allclose(*(end["w"] for end in ends), atol=0.02)


def test_a_shard_is_not_taken_for_a_matrix():
    mesh = Mesh(np.array(jax.devices()[:2]), ("x",))
    spec, tx = PartitionSpec("x"), gradtx.scale_by_galore(2)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec)
    def step(x):
        return tx.update(x, tx.init(x))[0]

    with pytest.raises(ValueError, match="the leaves vary over the axis x, so that a leaf may be a shard"):
        step(jnp.ones((4, 3)))


def test_a_leaf_without_a_gradient_keeps_its_own_and_may_begin_late():
    params = {"a": jnp.ones((4, 3)), "b": jnp.ones((3, 5)), "c": jnp.ones(2)}
    tx = gradtx.galore(0.1, 2, 10, weight_dimension_numbers={"a": gradtx.matrix_view("cr")})
    grads = jax.tree.map(lambda x: random(x.shape), params)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(3):
        updates, state = update({**grads, "b": None}, state, params)
    assert updates["b"] is None and not np.any(projectors(state)["b"]) and np.any(projectors(state)["a"])
    updates, after = update(grads, state, params)
    assert np.any(updates["b"]) and np.any(projectors(after)["b"])
    np.testing.assert_array_equal(projectors(after)["a"], projectors(state)["a"])
    alone = gradtx.masked(tx, "b", outside="zero")
    state = alone.init(params)
    assert projectors(state)["a"] is None and projectors(state)["b"].shape == (5, 2)
    updates, _ = alone.update(grads, state, params)
    assert np.any(updates["b"]) and not np.any(updates["a"])


@pytest.mark.by_turns(2)
@pytest.mark.parametrize(
    "base",
    [
        optax.scale_by_adam(),
        gradtx.scale_by_soap(views=as_matrices),
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.masked(gradtx.trace(0.9), "w")),
        gradtx.accumulate(gradtx.scale_by_adam(), 2),
        gradtx.flatten(gradtx.scale_by_adam()),
    ],
    ids=["optax", "matrices", "chain", "accumulate", "flatten"],
)
def test_any_direction_of_gradients_alone_may_be_inside(base):
    params = {"w": jnp.ones((6, 4)), "u": jnp.ones((4, 9))}
    tx = gradtx.accumulate(gradtx.galore(0.1, 2, 3, base_optimizer=base), 2)
    with jax.numpy_dtype_promotion("standard"):
        (new,), (state,) = together([tx], params, 9)
    assert all(np.isfinite(x).all() and np.any(x != 1) for x in new.values())
    by_leaf = gradtx.slots_by_leaf(tx, params, state)["accumulate"]["inner"]["scale_by_galore"]
    assert jax.tree.map(jnp.shape, by_leaf["projector"]) == {"w": (6, 2), "u": (9, 2)}
    if base == gradtx.scale_by_soap(views=as_matrices):
        assert by_leaf["inner"]["scale_by_soap"]["left"]["w"].shape == (2, 2)
        assert by_leaf["inner"]["scale_by_soap"]["right"]["u"].shape == (2, 2)

        assert "svd.U" in str(gradtx.formula(tx, params, "w"))


def test_no_leaf_is_taken_for_another_on_a_mesh():
    """Leaves of one shape that are sharded otherwise stay so, and so does what is remembered of them."""
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("x", "y"))
    specs = {"a": ("x", "y"), "b": (None, "y"), "c": (None, "x"), "heads": ("x", "y"), "d": ()}
    host = {name: random((8, 4), i) for i, name in enumerate(specs)}
    host["heads"] = random((4, 2, 6))
    params = {k: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*specs[k]))) for k, x in host.items()}
    views = {"heads": gradtx.matrix_view("rcc")}
    adam = gradtx.scale_by_adam(eps=1e-2)
    for proj_type in ("optax", "full"):
        tx = gradtx.galore(0.1, 3, 2, 1.0, adam, weight_dimension_numbers=views, proj_type=proj_type)
        state, step = (
            tx.init(params),
            jax.jit(lambda p, s, tx=tx: gradtx.apply_gradients(tx, sine(p, 0), s, p)),
        )
        first = projectors(state)
        assert first["a"].sharding.spec == PartitionSpec("x") and first["b"].sharding.spec == PartitionSpec()
        before, after = jax.tree.map(lambda x: x.sharding, (params, state)), (params, state)
        expected = host, tx.init(host)
        for _ in range(3):
            after, expected = step(*after), step(*expected)
        jax.tree.map(
            lambda x, s: x.sharding.is_equivalent_to(s, x.ndim) or pytest.fail(f"{x.sharding}"), after, before
        )
        assert step._cache_size() == 2  # one of them for the host's
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), after[0], expected[0]
        )


BAD = {
    "no directions": (lambda: gradtx.galore(0.1, 0), "rank must be an int >= 1, got 0"),
    "a part of one": (lambda: gradtx.scale_by_galore(2.5), "rank must be an int >= 1, got 2.5"),
    "a gap of none": (
        lambda: gradtx.galore(0.1, update_proj_gap=0),
        "update_proj_gap must be a whole number",
    ),
    "another side": (
        lambda: gradtx.galore(0.1, proj_type="longer"),
        "proj_type must be one of 'optax', 'std', .* got 'longer'",
    ),
    "decay inside": (
        lambda: gradtx.galore(0.1, base_optimizer=gradtx.adamw(1.0)),
        r"add_decayed_weights in it needs params\. .* weight decay to gradtx.galore\(weight_decay=",
    ),
    "a search inside": (
        lambda: gradtx.scale_by_galore(base_optimizer=gradtx.lbfgs()),
        "of which there are no parameters, and scale_by_lbfgs in it needs params",
    ),
    "no transform": (lambda: gradtx.galore(0.1, base_optimizer=gradtx.adam), "base_optimizer|transform"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_galore_is_refused(case):
    make, words = BAD[case]
    with pytest.raises((ValueError, TypeError), match=words):
        make()


MISFIT = {
    "an axis that is not named": (
        DIMENSIONS(0, 1),
        r"the view of the leaf 'k' does not fit: .* does not name the axis 2 of 3\. .*matrix_view\('rcb'\)",
    ),
    "an axis that is two things": (
        {"k": DIMENSIONS(0, (0, 1, 2))},
        "'k' does not fit: .* each of which is one thing",
    ),
    "an axis too many": ({"w": DIMENSIONS(0, 2)}, "'w' does not fit: .* is not of 2 axes"),
    "a view of other axes": ({"w": gradtx.matrix_view("brc")}, "'w' does not fit: .* is of 3 axes"),
    "blocks of several sizes": (
        {"w": gradtx.matrix_view("rc", column_blocks=(1, 2))},
        "cuts the leaf 'w' into blocks of several sizes",
    ),
    "a pattern of nothing": ({"*kernel": None}, "matches no leaf"),
    "another tree": ({"w": DIMENSIONS(), "z": None}, "does not fit the parameters|matches no leaf"),
    "no view": (lambda path, leaf: 3, "of the leaf 'b' it was said 3, which is no view"),
}


@pytest.mark.parametrize("case", MISFIT)
def test_dimension_numbers_that_do_not_fit_are_refused_at_init(case):
    views, words = MISFIT[case]
    params = {"w": jnp.ones((4, 3)), "k": jnp.ones((2, 3, 4)), "b": jnp.ones(3)}
    tx = gradtx.galore(0.1, 2, weight_dimension_numbers=views)
    with pytest.raises((ValueError, TypeError), match=f"scale_by_galore.*{words}"):
        tx.init(params)
    with pytest.raises((ValueError, TypeError), match=words):
        tx.init(jax.eval_shape(lambda: params))


def test_a_state_of_other_leaves_is_refused():
    w = {"w": jnp.ones((4, 3))}
    one, other = gradtx.scale_by_galore(2), gradtx.scale_by_galore(3)
    with pytest.raises(
        ValueError, match=r"'w' is projected by matrices of the shapes \(4, 3\), .* has \(4, 2\)"
    ):
        other.update(w, one.init(w), w)
    late = {"w": jnp.ones((4, 3)), "z": jnp.ones((4, 3))}
    of_none = gradtx.scale_by_galore(2, base_optimizer=gradtx.sign())
    with pytest.raises(ValueError, match=r"'z' .* and the state has none\. .* None or masked out"):
        of_none.update(late, of_none.init({**late, "z": None}), late)
    squeezing = gradtx.stateless(lambda updates, params: jax.tree.map(jnp.sum, updates))
    tx = gradtx.scale_by_galore(2, base_optimizer=squeezing)
    with pytest.raises(ValueError, match="gave updates of other shapes than it got"):
        tx.update(w, tx.init(w), w)


def test_what_was_said_of_the_leaves_is_a_part_of_what_it_is():
    params = jnp.ones((4, 3))
    one, other = (
        gradtx.galore(0.1, 2, weight_dimension_numbers=gradtx.matrix_view(axes)) for axes in ("rc", "cr")
    )
    assert one != other and one.structure() != other.structure()
    assert projectors(one.init(params)).shape == projectors(other.init(params)).shape == (4, 2)
    assert gradtx.galore(0.1, 2, proj_type="right") != gradtx.galore(0.1, 2, proj_type="left")


@pytest.mark.parametrize("abstract", [True, False])
def test_optax_s_numbers_are_taken_in_all_forms(abstract):
    params = {"w": jnp.ones((4, 3)), "k": jnp.ones((2, 3, 4)), "b": jnp.ones(3)}
    params = jax.eval_shape(lambda: params) if abstract else params
    forms = {
        "none": (None, {"w": (4, 2), "k": None}),
        "patterns": ({"k": DIMENSIONS(0, (1, 2))}, {"w": (4, 2), "k": (12, 2)}),
        "a tree": ({"w": None, "k": DIMENSIONS((0, 1), 2), "b": None}, {"w": None, "k": (6, 2)}),
        "a function": (lambda params: {"w": DIMENSIONS(), "k": None, "b": None}, {"w": (4, 2), "k": None}),
        "of a leaf": (as_matrices, {"w": (4, 2), "k": (2, 4, 2)}),
    }
    for name, (views, shapes) in forms.items():
        state = gradtx.scale_by_galore(2, weight_dimension_numbers=views).init(params)
        found = jax.tree.map(lambda x: x.shape, projectors(state))
        assert found == {**shapes, "b": None}, name
