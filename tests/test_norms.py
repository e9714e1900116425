"""Norms of very large and very small numbers: what can be represented is right, and finite is not skipped."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import gradtx
from gradtx.core.norms import Squares, root_mean_square
from trajectories import x64

HUGE = jnp.array([1.9e19, 0.0])


def update(tx, g, params=None):
    return jax.jit(lambda g: tx.update(g, tx.init(g if params is None else params), params)[0])(g)


def exact(*leaves):
    """The norm in extended precision."""
    wide = np.concatenate([np.ravel(np.asarray(x, np.complex128)) for x in leaves])
    most = np.max(np.abs(wide)) if wide.size else 0.0
    return float(most * np.linalg.norm(wide / most)) if most else 0.0


SIZES = [1e-37, 1e-30, 3e-25, 1e-20, 1e-16, 1e-15, 1e-10, 1.0, 1e10, 1e14, 1e15, 1e16, 1e19, 1e25, 1e37]


@pytest.mark.by_turns(6)
@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_norm_is_right_where_it_can_be_represented(size, jitted):
    rng = np.random.default_rng(0)
    real = np.float32(size) * rng.uniform(0.5, 1.0, (7, 3)).astype(np.float32)
    turned = (real[0] * np.exp(1j)).astype(np.complex64)
    norm = jax.jit(gradtx.global_norm) if jitted else gradtx.global_norm
    for leaves in (
        [real],
        [real, turned],
        [real, np.float32(size) * np.float32([1e-3])],
        [real, np.float32([0])],
        [real] * 20,
        [real, np.pad(real[:, 0], (0, 2**14))],
    ):
        np.testing.assert_allclose(float(norm(leaves)), exact(*leaves), rtol=1e-6)
    # Of another magnitude in each leaf: none may drown what is larger.
    for other in SIZES:
        leaves = [real, np.full(5, other, np.float32)]
        np.testing.assert_allclose(float(norm(leaves)), exact(*leaves), rtol=1e-6)


@pytest.mark.parametrize("shapes, reductions", [([(8,), (8, 8), ()], 3), ([(2**14 + 1,), (8,)], 3)])
def test_a_branch_that_is_not_entered_costs_no_reduction_of_a_small_leaf(shapes, reductions):
    leaves = [jnp.ones(shape) for shape in shapes]
    assert str(jax.make_jaxpr(gradtx.global_norm)(leaves)).count("reduce_sum") == reductions


@pytest.mark.by_turns(4)
@pytest.mark.parametrize("size", [1e-200, 1e-160, 1e-25, 1.0, 1e25, 1e160, 1e300])
def test_a_norm_in_float64_is_right_too(size):
    with x64():
        g = jnp.array([3.0, 4.0]) * size
        assert g.dtype == np.float64
        np.testing.assert_allclose(float(gradtx.global_norm(g)), 5.0 * size, rtol=1e-14)
        mixed = [g, jnp.full(2, 1e30, jnp.float32), jnp.full(2, 1e-30, jnp.float32)]
        np.testing.assert_allclose(float(gradtx.global_norm(mixed)), exact(*mixed), rtol=1e-7)
        clipped = update(gradtx.clip_by_global_norm(1e-100), g)
        wanted = np.array([0.6, 0.8]) * min(1e-100, 5.0 * size)
        np.testing.assert_allclose(clipped, wanted, rtol=1e-13)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [0, 1])
def test_the_derivative_of_a_norm_is_the_direction(size, batch):
    g = jnp.array([3.0, 4.0]) * np.float32(size)
    found = jax.grad(lambda g: Squares([g[None] if batch else g], batch=batch).norm().sum())(g)
    np.testing.assert_allclose(found, [0.6, 0.8], rtol=1e-6)


@pytest.mark.wide
def test_the_issues_numbers():
    clip = gradtx.clip_by_global_norm(1.0)
    np.testing.assert_allclose(update(clip, HUGE), [1.0, 0.0])
    many = update(clip, jnp.full(10**6, 3e16))
    np.testing.assert_allclose(many, np.full(10**6, 1e-3), rtol=1e-5)
    low = update(clip, jnp.full(4, 1e19, jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(low, np.float32), 0.5, rtol=1e-2)
    with x64():
        np.testing.assert_allclose(update(clip, jnp.array([1e160, 0.0])), [1.0, 0.0])
    block = gradtx.clip_by_block_rms(1.0)
    np.testing.assert_allclose(update(block, jnp.array([3e20, 4e20])), [0.8485281, 1.1313708], rtol=1e-6)
    assert update(block, jnp.array([np.inf, 1.0, 1.0, 1.0])).tolist() == [np.inf, 1.0, 1.0, 1.0]
    for size in (3e20, 1e-25):
        scaled = update(gradtx.scale_by_param_block_rms(0.0), jnp.ones(3), jnp.full(3, size))
        np.testing.assert_allclose(scaled, np.full(3, size), rtol=1e-6)
    np.testing.assert_allclose(float(gradtx.global_norm(jnp.array([3e-25, 4e-25]))), 5e-25, rtol=1e-6)
    examples = jnp.stack([HUGE, jnp.array([0.0, 0.5])])
    sums, count = gradtx.per_example_global_norm_clip(examples, 1.0)
    np.testing.assert_allclose(sums, [1.0, 0.5])
    assert count == 1
    sums, count = gradtx.per_example_layer_norm_clip({"a": examples, "b": examples}, 2.0**0.5)
    np.testing.assert_allclose(sums["a"], [1.0, 0.5])
    assert count["b"] == 1


@pytest.mark.parametrize("bound", [1e-20, 1.0, 1e10])
def test_what_is_finite_is_clipped_even_if_its_norm_cannot_be_represented(bound):
    g = jnp.full((2, 8), 3e38)
    assert np.isinf(gradtx.global_norm(g))
    np.testing.assert_allclose(
        update(gradtx.clip_by_global_norm(bound), g), np.full((2, 8), bound / 4), rtol=1e-6
    )
    np.testing.assert_allclose(update(gradtx.clip_by_block_rms(bound), g), np.full((2, 8), bound), rtol=1e-6)
    sums, _ = gradtx.per_example_global_norm_clip(g, bound)
    np.testing.assert_allclose(sums, np.full(8, 2 * bound / 8**0.5), rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e-9, 1.0, 3e20, 3e38])
def test_a_bound_of_zero_gives_zero_and_its_derivatives_are_finite(size):
    g = jnp.full(3, size)
    np.testing.assert_array_equal(update(gradtx.clip_by_global_norm(0.0), g), np.zeros(3))

    def first(g, bound):
        tx = gradtx.clip_by_global_norm(bound)
        return tx.update(g, tx.init(g))[0][0]

    for derivative in jax.grad(first, (0, 1))(g, 0.0), jax.jacfwd(first, (0, 1))(g, 0.0):
        assert all(jnp.isfinite(x).all() for x in derivative)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_inf_and_nan_clip_nothing(bad):
    g = jnp.array([bad, 1.0, 1e30])
    for tx in (gradtx.clip_by_global_norm(1.0), gradtx.clip_by_block_rms(1.0)):
        np.testing.assert_array_equal(update(tx, g), g)


def test_a_root_mean_square_is_never_too_large():
    for size in SIZES:
        x = jnp.full((3, 5), size)
        np.testing.assert_allclose(float(root_mean_square(x)), size, rtol=1e-6)
    assert float(root_mean_square(jnp.zeros((0, 3)))) == 0.0


WRAPPERS = {
    "guard": lambda tx: gradtx.guard(tx, deviations=None),
    "guard updates": lambda tx: gradtx.guard(tx, deviations=None, updates=True),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 3),
    "accumulate": lambda tx: gradtx.accumulate(tx, 1),
    "accumulate skip": lambda tx: gradtx.accumulate(tx, 1, non_finite="skip"),
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 1, should_skip_update_fn=gradtx.skip_not_finite),
    "track": lambda tx: gradtx.track(tx, every=1),
}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("form", ["update", "apply_gradients"])
@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_finite_step_is_not_skipped_and_what_is_measured_outside_is_clipped_inside(name, jitted, form):
    tx = WRAPPERS[name](gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.scale(-1.0)))
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    run = jax.jit(getattr(tx, form)) if jitted else getattr(tx, form)
    for size in (1e25, 1.0, 1e-25):
        grads = {"a": jnp.array([3.0, 0.0]) * np.float32(size), "b": jnp.array([4.0]) * np.float32(size)}
        result, state = run(grads, tx.init(params), params)
        norm = min(1.0, 5.0 * size)
        np.testing.assert_allclose(result["a"], [-0.6 * norm, 0.0], rtol=1e-6)
        np.testing.assert_allclose(result["b"], [-0.8 * norm], rtol=1e-6)
        if name == "track":
            measured = gradtx.metrics(state)
            np.testing.assert_allclose(measured["gradient_norm"], 5.0 * size, rtol=1e-6)
            assert measured["clip_fraction"] == (size > 0.2)
        if name == "guard":
            np.testing.assert_allclose(gradtx.report(state).last[0].gradient_norm, 5.0 * size, rtol=1e-6)


@pytest.mark.wide
def test_one_bad_leaf_beside_a_huge_one_is_named():
    tx = gradtx.guard(gradtx.sgd(1.0))
    grads = {"a": jnp.full(2, 1e30), "b": jnp.array([1.0, np.nan]), "c": jnp.full(2, 1e30)}
    _, state = tx.update(grads, tx.init(grads), grads)
    assert gradtx.report(state).first_leaf == "b"


@pytest.mark.by_turns(4)
@pytest.mark.parametrize("sizes", [(1e25, 1e25), (1e25, 1.0), (1.0, 1e-25), (1e-25, 1e-25), (1.0, 1.0)])
def test_shards_of_different_magnitudes_have_one_norm(sizes):
    mesh = Mesh(np.array(jax.devices()[:2]), "x")
    g = jnp.array([[3.0 * sizes[0]], [4.0 * sizes[1]]], jnp.float32)
    tx = gradtx.clip_by_global_norm(1e-30, axis_name="x")

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=PartitionSpec("x"), out_specs=PartitionSpec("x"))
    def clipped(g):
        return tx.update(g, tx.init(g))[0]

    with np.errstate(all="ignore"):
        wanted = np.asarray(g, np.float64) / exact(g) * 1e-30
    np.testing.assert_allclose(clipped(g), wanted, rtol=1e-5, atol=1e-38)


@pytest.mark.wide
def test_a_sweep_clips_each_by_its_own_bound():
    bounds = jnp.array([0.5, 1.0, 1e6])
    g = jnp.array([[1e25, 0.0], [3e-25, 4e-25], [3.0, 4.0]])
    for row in g:
        swept = jax.vmap(lambda b, row=row: update(gradtx.clip_by_global_norm(b), row))(bounds)
        np.testing.assert_allclose(swept[1], row / max(1.0, exact(row)), rtol=1e-6)
    batch = jax.vmap(lambda row: update(gradtx.clip_by_global_norm(1.0), row))(g)
    np.testing.assert_allclose(batch[0], [1.0, 0.0])
    np.testing.assert_allclose(batch[1], g[1])
    np.testing.assert_allclose(batch[2], [0.6, 0.8], rtol=1e-6)


def test_a_squared_norm_that_can_be_represented_is_right():
    tiny = jnp.full(10**6, 1e-20)
    _, seen = gradtx.skip_large_updates(tiny, 0, None, 1.0)
    np.testing.assert_allclose(float(seen["norm_squared"]), 1e-34, rtol=1e-4)
    skip, _ = gradtx.skip_large_updates(HUGE, 0, None, 1.0)
    assert skip


@pytest.mark.wide
def test_adafactor_steps_are_bounded_for_parameters_and_gradients_of_any_size():
    tx = gradtx.adafactor(0.1, min_dim_size_to_factor=2)
    for size in (1e-25, 1.0, 1e20):
        params = jnp.full((4, 4), size)
        u = update(tx, jnp.ones((4, 4)), params)
        np.testing.assert_allclose(u, np.full((4, 4), -0.1 * max(size, 1e-3)), rtol=1e-5)
