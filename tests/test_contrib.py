"""What Optax has in `contrib` beyond optimizers: where it does the same, where not, and why."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import contrib_references
import gradtx
import references
from trajectories import x64


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax does not run under strict promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.25, -1.0])}


def loss(params):
    return sum(jnp.sum((x - 0.5) ** 4) for x in jax.tree.leaves(params))


grads_of = jax.grad(loss)


def climb(library, rho=0.1):
    contrib = optax.contrib if library is optax else library
    return library.chain(contrib.normalize(), library.sgd(rho))


def sam(library, **settings):
    contrib = optax.contrib if library is optax else library
    return contrib.sam(library.sgd(0.01, 0.9), climb(library), **settings)


def followed(tx, calls, params=PARAMS, **extra):
    """The parameters after some calls with their gradients."""
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        return gradtx.apply_gradients(tx, grads_of(params), state, params, **extra)

    if isinstance(tx, optax.GradientTransformation):

        def step(params, state):
            updates, state = tx.update(grads_of(params), state, params, **extra)
            return optax.apply_updates(params, updates), state

    for _ in range(calls):
        params, state = step(params, state)
    return params, state


def same(a, b, **tolerance):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, **{"rtol": 1e-5, "atol": 1e-6, **tolerance}), a, b
    )


@pytest.mark.parametrize(
    "settings", [{}, {"sync_period": 3}, {"sync_period": 3, "reset_state": False}], ids=str
)
def test_sam_is_optax_s(settings):
    same(followed(sam(gradtx, **settings), 12)[0], followed(sam(optax, **settings), 12)[0])


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_round_in_one_call_is_a_round_of_calls(calls):
    def grad_fn(params, i):
        return grads_of(params)

    whole, _ = followed(sam(gradtx, sync_period=calls, opaque_mode=True), 5, grad_fn=grad_fn)
    same(whole, followed(sam(gradtx, sync_period=calls), 5 * calls)[0])
    theirs, _ = followed(sam(optax, sync_period=calls, opaque_mode=True), 5, grad_fn=grad_fn)
    same(whole, theirs)


def test_an_opaque_round_is_the_reference_s():
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(3, 2)), rng.normal(size=4)]
    reference = contrib_references.OpaqueSam(
        references.Sgd(0.01, momentum=0.9),
        references.Chain(references.NormalizeByUpdateNorm(1.0, 0.0), references.Sgd(0.1)),
        sync_period=3,
    )

    def slopes(params, i):
        return [4 * (x - 0.5) ** 3 + 0.1 * i for x in params]

    with x64():
        tx, params = sam(gradtx, sync_period=3, opaque_mode=True), [jnp.asarray(x) for x in start]
        state = tx.init(params)
        reference.init(start)
        for _ in range(100):
            grads = [4 * (x - 0.5) ** 3 for x in params]
            updates, state = tx.update(grads, state, params, grad_fn=slopes)
            known = [list(map(np.asarray, tree)) for tree in (grads, params)]
            expected = reference.update(*known, grad_fn=slopes)
            same(updates, expected, rtol=1e-12, atol=1e-14)
            params = gradtx.apply_updates(params, updates)


def test_an_opaque_round_needs_the_gradient():
    tx = sam(gradtx, opaque_mode=True)
    with pytest.raises(TypeError, match="sam needs the keyword argument 'grad_fn'"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_gradients_that_a_round_takes_are_averaged_over_an_axis():
    tx, x = sam(gradtx, opaque_mode=True, batch_axis_name="batch"), jnp.array([1.0])
    targets = jnp.array([0.0, 1.0])

    def step(target):
        grad_fn = jax.grad(lambda x, i: jnp.sum((x - target) ** 2))
        grads = jax.lax.pmean(grad_fn(x, 0), "batch")
        return tx.update(grads, tx.init(x), x, grad_fn=grad_fn)[0]

    updates = jax.vmap(step, axis_name="batch")(targets)
    np.testing.assert_allclose(updates[0], updates[1])
    np.testing.assert_allclose(updates[0], -0.01 * 2 * (1.0 + 0.1 - 0.5), rtol=1e-5)


def test_a_round_where_some_leaves_are_another_group_s():
    """The gradient is a function of all parameters; those of the other group keep their values in it."""
    groups = {"s": sam(gradtx, opaque_mode=True), "o": gradtx.set_to_zero()}
    tx = gradtx.partition(groups, {"w": "s", "b": "o"})

    def coupled(params, i):
        return jax.tree.map(lambda x: x * params["b"][0] / params["b"][0], grads_of(params))

    together, _ = followed(tx, 3, grad_fn=coupled)
    alone, _ = followed(
        sam(gradtx, opaque_mode=True), 3, {"w": PARAMS["w"]}, grad_fn=lambda p, i: grads_of(p)
    )
    same(together["w"], alone["w"])
    same(together["b"], PARAMS["b"])


def test_what_stands_still_is_not_run():
    """A gradient of 0 has no direction to climb in, which in Optax reaches the optimizer as well."""
    still, found = jax.tree.map(jnp.zeros_like, PARAMS), {}
    for library in (gradtx, optax):
        tx = sam(library)
        state = tx.init(PARAMS)
        _, state = tx.update(grads_of(PARAMS), state, PARAMS)
        found[library], _ = tx.update(still, state, PARAMS)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found[gradtx]))
    assert all(np.isnan(x).all() for x in jax.tree.leaves(found[optax]))


def test_rounds_of_one_call_are_the_optimizer():
    same(followed(sam(gradtx, sync_period=1), 6)[0], followed(gradtx.sgd(0.01, 0.9), 6)[0])


@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_a_round_has_a_number_of_calls(value):
    with pytest.raises(ValueError, match="sam: sync_period must be an int >= 1"):
        sam(gradtx, sync_period=value)


SCHEDULE_FREE = gradtx.schedule_free_sgd(0.02, b1=0.8)


def test_the_parameters_to_evaluate_with_are_optax_s():
    params, state = followed(SCHEDULE_FREE, 20)
    other = optax.contrib.schedule_free_sgd(0.02, b1=0.8)
    theirs, their_state = followed(other, 20)
    expected = optax.contrib.schedule_free_eval_params(their_state, theirs)
    same(gradtx.eval_params(state, params), expected)
    same(gradtx.schedule_free_eval_params(state, params), expected)


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.accumulate(SCHEDULE_FREE, every=1),
        gradtx.chain(gradtx.clip_by_global_norm(1e9), SCHEDULE_FREE),
        gradtx.schedule_free(optax.sgd(0.02), 0.02, b1=0.8),
        gradtx.partition({"a": SCHEDULE_FREE, "b": SCHEDULE_FREE}, {"w": "a", "b": "b"}),
    ],
    ids=["accumulate", "chain", "around Optax", "partition"],
)
def test_the_average_is_found_wherever_it_is(tx):
    params, state = followed(tx, 10)
    same(
        gradtx.eval_params(state, params),
        gradtx.eval_params(followed(SCHEDULE_FREE, 10)[1], params),
        rtol=1e-4,
    )


def test_one_rate_is_one_number():
    state = gradtx.schedule_free_adamw(0.01).init(PARAMS)
    assert gradtx.hyperparams(gradtx.set_hyperparams(state, learning_rate=0.5))["learning_rate"] == 0.5


def test_nothing_may_change_what_is_averaged():
    with pytest.raises(ValueError, match="schedule_free"):
        gradtx.chain(SCHEDULE_FREE, gradtx.scale(0.5)).init(PARAMS)


def test_a_state_without_schedule_free():
    with pytest.raises(ValueError, match="there is no schedule_free in this state"):
        gradtx.schedule_free_eval_params(gradtx.sgd(0.1).init(PARAMS), PARAMS)
    tx = gradtx.partition({"a": SCHEDULE_FREE, "b": SCHEDULE_FREE}, {"w": "a", "b": "b"})
    with pytest.raises(ValueError, match=r"there is more than one schedule_free \(2\)"):
        gradtx.schedule_free_eval_params(tx.init(PARAMS), PARAMS)


def test_the_first_step_of_a_warmup_moves():
    """At t / T, as in the authors' code; Optax's moves by 0, and its average counts it all the same."""
    x = jnp.array([1.0])
    for library, expected in ((gradtx, -0.1), (optax.contrib, 0.0)):
        tx = library.schedule_free_sgd(1.0, warmup_steps=10)
        np.testing.assert_allclose(tx.update(x, tx.init(x), x)[0], expected, rtol=1e-6)


def test_a_path_grows_where_rounding_hides_its_steps():
    """Of parameters near 40 float32 shows no step of 1e-6, from which Optax would have to read the path."""
    x, moved = jnp.array([40.0]), {}
    for library, mechanize in ((gradtx, gradtx.mechanize), (optax, optax.contrib.mechanize)):
        tx = mechanize(library.adam(1.0), weight_decay=0.0)
        state = tx.init(x)

        def step(carry, _, tx=tx):
            x, state = carry
            updates, state = tx.update(x, state, x)
            return (x + updates, state), None

        (end, _), _ = jax.jit(lambda x, state, step=step: jax.lax.scan(step, (x, state), length=300))(
            x, state
        )
        moved[library] = abs(float(end[0]) - 40.0)
    assert moved[optax] == 0.0
    assert moved[gradtx] > 1.0


def test_a_gradient_too_large_to_be_squared_does_not_end_the_tuning():
    tx = gradtx.mechanize(gradtx.sgd(1e-3))
    params, state = followed(tx, 5)
    huge = jax.tree.map(lambda x: jnp.full_like(x, 1e25), PARAMS)
    _, state = tx.update(huge, state, params)
    assert all(np.isfinite(state["slots"]["mechanize"][name]).all() for name in "rmvs")


def test_mechanize_says_what_is_no_number_of_tuners():
    with pytest.raises(ValueError, match="mechanize: num_betas must be an int >= 1, got 0"):
        gradtx.mechanize(gradtx.sgd(1.0), num_betas=0)


def scales(tx, losses):
    state, found = tx.init(jnp.ones(())), []
    for value in losses:
        u, state = tx.update(jnp.ones(()), state, value=value)
        found.append(float(u))
    return found


def test_a_negative_loss_that_rises_is_no_improvement():
    """-1.0 is better than -1.5 by Optax's rule, which takes a part of the best loss away from it."""
    losses = [-1.5, -1.4, -1.4, -1.4]
    assert scales(gradtx.reduce_on_plateau(0.5, 2, rtol=0.1), losses) == [1.0, 1.0, 0.5, 0.5]
    assert scales(optax.contrib.reduce_on_plateau(0.5, 2, rtol=0.1), losses) == [1.0] * 4


def test_without_patience_the_first_loss_that_is_no_better_reduces():
    losses = [3.0, 2.0, 2.0, 1.0]
    assert scales(gradtx.reduce_on_plateau(0.5, 0), losses) == [1.0, 1.0, 0.5, 0.5]
    assert scales(optax.contrib.reduce_on_plateau(0.5, 0), losses) == [0.5, 0.25, 0.25, 0.125]


def test_a_loss_that_is_no_number_is_no_better():
    losses = [1.0, jnp.nan, jnp.nan, 0.5]
    assert scales(gradtx.reduce_on_plateau(0.5, 2), losses) == [1.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize("shape", [(), (5,), (1, 5), (3, 4), (2, 3, 4), (2, 2, 3, 4), (2, 1, 2, 3, 4)])
def test_units_are_optax_s(shape):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    np.testing.assert_allclose(gradtx.unitwise_norm(x), optax.transforms.unitwise_norm(x), rtol=1e-6)
    norms = gradtx.unitwise_norm(x)
    clipped = [
        library.transforms.unitwise_clip(norms, jnp.full_like(x, 0.5), x) for library in (gradtx, optax)
    ]
    np.testing.assert_allclose(*clipped, rtol=1e-6)


def test_a_unit_along_other_axes():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)
    expected = np.broadcast_to(np.linalg.norm(x, axis=-1, keepdims=True), x.shape)
    np.testing.assert_allclose(gradtx.unitwise_norm(x, axis=-1), expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"axis=3: a leaf of shape \(2, 3, 4\) has no axis 3"):
        gradtx.unitwise_norm(x, axis=3)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e20, 1e37])
def test_units_of_any_size_are_clipped_to_their_bound(size):
    """Some of a leaf's units are 0; Optax's norm of 1e20 is infinite, and of 1e-30 is 0."""
    g = jnp.array([[3.0, 0.0, 0.3], [4.0, 0.0, 0.4]]) * size
    theta = jnp.array([[3.0, 1.0, 30.0], [4.0, 1.0, 40.0]]) * size
    tx = gradtx.adaptive_grad_clip(0.1, eps=0.0)
    clipped = tx.update(g, tx.init(theta), theta)[0] / size
    np.testing.assert_allclose(clipped, [[0.3, 0.0, 0.3], [0.4, 0.0, 0.4]], rtol=1e-5)


def test_a_unit_that_is_not_finite_stays_to_be_found():
    g = jnp.array([[jnp.inf, 3.0], [1.0, 4.0]])
    tx = gradtx.adaptive_grad_clip(0.5)
    clipped = tx.update(g, tx.init(g), jnp.ones((2, 2)))[0]
    np.testing.assert_array_equal(clipped[:, 0], g[:, 0])
    np.testing.assert_allclose(np.linalg.norm(clipped[:, 1]), 0.5 * 2**0.5, rtol=1e-5)


def test_complex_leaves_are_seen_as_two():
    z = {"z": jnp.array([1.0 + 2.0j, -1.0j]), "x": jnp.ones(2)}
    found = {}
    for library, split in ((gradtx, gradtx), (optax, optax.contrib)):
        tx = split.split_real_and_imaginary(library.adam(0.1))
        found[library], _ = tx.update(z, tx.init(z), z)
    same(found[gradtx], found[optax])
    seen = gradtx.split_real_and_imaginary(gradtx.adam(0.1)).init(z)
    slots = seen["slots"]["split_real_and_imaginary"]["inner"]["slots"]["scale_by_adam"]["mu"]
    assert {*slots["z"]} == {"real", "imag"}
    assert slots["z"]["real"].dtype == jnp.float32


@pytest.mark.parametrize("name", ["safe_norm", "safe_root_mean_squares"])
@pytest.mark.parametrize("x", [[0.0, 0.0], [3.0, 4.0], [0.3, 0.0]])
def test_safe_norms_are_optax_s(name, x):
    for bound in (0.0, 1.0):
        ours, theirs = (
            jax.value_and_grad(getattr(lib, name))(jnp.array(x), bound) for lib in (gradtx, optax)
        )
        same(ours, theirs)


@pytest.mark.parametrize("axis, keepdims", [(None, False), (0, False), (1, True), ((0, 1), False)])
def test_safe_norms_of_some_axes_are_optax_s(axis, keepdims):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32).at[0].set(0.0)
    ours, theirs = (lib.safe_norm(x, 0.5, None, axis, keepdims) for lib in (gradtx, optax))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    slopes = jax.grad(lambda x: gradtx.safe_norm(x, 0.0, None, axis, keepdims).sum())(x)
    assert np.isfinite(slopes).all()


def test_a_root_mean_square_neither_overflows_nor_underflows():
    for size in (1e-30, 1e30):
        np.testing.assert_allclose(gradtx.safe_root_mean_squares(jnp.full(3, size), 0.0), size, rtol=1e-5)


def per_example(params, examples):
    return jax.vmap(jax.grad(lambda p, x: jnp.sum(p["w"] @ x) ** 2 + jnp.sum(p["b"] * x)), (None, 0))(
        params, examples
    )


def test_private_gradients_without_noise_are_the_reference_s():
    rng = np.random.default_rng(0)
    reference = contrib_references.DifferentiallyPrivateAggregate(1.0, 0.0)
    with x64():
        params = {"b": jnp.zeros(4), "s": jnp.zeros(()), "z": jnp.zeros((3, 2), jnp.complex128)}
        tx = gradtx.differentially_private_aggregate(1.0, 0.0, key=1)
        state = tx.init(params)
        reference.init([*params.values()])
        for size in (1, 5, 8):
            shapes = {name: (size, *p.shape) for name, p in params.items()}
            grads = {name: rng.normal(size=shape) for name, shape in shapes.items()}
            grads["z"] = grads["z"] + 1j * rng.normal(size=shapes["z"])
            updates, state = tx.update(jax.tree.map(jnp.asarray, grads), state, params)
            expected = reference.update([*grads.values()], [*params.values()])
            same([*updates.values()], expected, rtol=1e-12)


def test_without_noise_dpsgd_is_optax_s():
    examples = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)
    grads, found = per_example(PARAMS, examples), {}
    for library in (gradtx, optax.contrib):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the seed, which Optax itself passes on
            tx, params = library.dpsgd(0.1, 1.0, 0.0, 3, momentum=0.9), PARAMS
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(grads, state, params)
            params = gradtx.apply_updates(params, updates)
        found[library] = params
    same(found[gradtx], found[optax.contrib])


def test_private_noise_has_its_deviation_in_every_part():
    """Of a complex leaf in the real and in the imaginary part, which in Optax have less."""
    zeros = {"x": jnp.zeros((4, 2_000)), "z": jnp.zeros((4, 2_000), jnp.complex64)}
    params = jax.tree.map(lambda x: x[0], zeros)
    deviations = {}
    for library in (gradtx, optax.contrib):
        tx = library.differentially_private_aggregate(2.0, 3.0, key=jax.random.key(0))
        updates, state = tx.update(zeros, tx.init(params), params)
        parts = updates["x"], updates["z"].real, updates["z"].imag
        deviations[library] = [float(jnp.std(4 * part)) for part in parts]
        if library is gradtx:
            again, _ = tx.update(zeros, state, params)
            assert not np.array_equal(again["x"], updates["x"])
    np.testing.assert_allclose(deviations[gradtx], 6.0, rtol=0.1)
    np.testing.assert_allclose(deviations[optax.contrib][1:], 6.0 / 2**0.5, rtol=0.1)


def test_a_huge_example_is_clipped_and_one_that_is_no_number_moves_nothing_else():
    grads = jnp.array([[3e25, 4e25], [jnp.nan, 1.0]])
    tx = gradtx.differentially_private_aggregate(1.0, 0.0, key=1)
    np.testing.assert_allclose(tx.update(grads, tx.init(grads[0]), grads[0])[0], [jnp.nan, 0.4], rtol=1e-5)


def test_private_gradients_need_a_key_and_examples():
    with pytest.raises(ValueError, match="differentially_private_aggregate: give a key"):
        gradtx.differentially_private_aggregate(1.0, 1.0)
    with pytest.raises(ValueError, match="give key or seed, not both"):
        gradtx.differentially_private_aggregate(1.0, 1.0, 1, seed=2)
    tx = gradtx.dpsgd(0.1, 1.0, 1.0, seed=1)
    with pytest.raises(
        ValueError, match=r"the gradient of the leaf 'b' has shape \(2,\), and the parameter has"
    ):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_without_parameters_private_gradients_are_known_by_what_they_have_alike():
    tx, grads = gradtx.dpsgd(0.1, 1.0, 1.0, seed=1, momentum=0.9), per_example(PARAMS, jnp.ones((3, 2)))
    alone, with_params = (tx.update(grads, tx.init(PARAMS), params)[0] for params in (None, PARAMS))
    same(alone, with_params)
    with pytest.raises(ValueError, match="'trace' of the leaf 'b' has shape"):
        tx.update(PARAMS, tx.init(PARAMS))
    alone, other = gradtx.differentially_private_aggregate(1.0, 0.0, 1), {**PARAMS, "b": jnp.ones(3)}
    with pytest.raises(ValueError, match="Give the gradients of each example"):
        alone.update(other, alone.init(other))
    updates, _ = alone.update(PARAMS, alone.init(PARAMS))
    with pytest.raises(ValueError, match="An update has the shape of what it is added to"):
        gradtx.apply_updates(PARAMS, updates)


def test_one_key_makes_the_same_noise_of_a_leaf_whatever_is_beside_it():
    tx = gradtx.dpsgd(0.1, 1.0, 1.0, seed=1)
    grads = per_example(PARAMS, jnp.ones((3, 2)))
    both, _ = tx.update(jax.tree.map(jnp.zeros_like, grads), tx.init(PARAMS), PARAMS)
    alone, _ = tx.update({"w": jnp.zeros((3, 2, 2))}, tx.init({"w": PARAMS["w"]}), {"w": PARAMS["w"]})
    same(both["w"], alone["w"])


def test_a_leaf_may_lack_a_gradient_in_some_calls_of_a_round():
    """Where it did not climb it steps from where it is; where it did it goes back once it is there again."""
    tx, params = gradtx.sam(gradtx.sgd(0.5), climb(gradtx)), {"a": jnp.ones(1), "b": jnp.ones(1)}
    state, path = tx.init(params), []
    for present in ("ab", "ab", "b", "ab", "ab", "b", "b", "ab"):
        grads = {name: x if name in present else None for name, x in params.items()}
        updates, state = tx.update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
        path.append(float(params["a"][0]))
    first = path[1]
    np.testing.assert_allclose(path[2:4], [first, 0.5 * first], rtol=1e-5)
    climbed = path[4]
    assert climbed > path[3]
    np.testing.assert_allclose(path[7], path[3] - 0.5 * climbed, rtol=1e-5)


def test_the_gradient_of_a_round_is_a_tree_like_the_parameters():
    tx = sam(gradtx, opaque_mode=True)
    with pytest.raises(ValueError, match="different trees"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, grad_fn=lambda params, i: [params["b"], params["w"]])
    with pytest.raises(ValueError, match="batch_axis_name is for the gradients that opaque_mode takes"):
        sam(gradtx, batch_axis_name="batch")


def test_an_average_knows_the_b1_that_made_the_parameters():
    def b1(step):
        return jnp.where(step < 2, 0.5, 0.9)

    tx, y = gradtx.schedule_free(gradtx.sgd(0.1), 0.1, b1=b1), jnp.array([1.0])
    state, x, z, expected = tx.init(y), 1.0, 1.0, 1.0
    for step in range(6):
        y, state = gradtx.apply_gradients(tx, y, state, y)
        z -= 0.1 * expected
        x += (z - x) / (step + 1)
        expected = float(b1(step)) * x + (1 - float(b1(step))) * z
        found = [float(y[0]), float(gradtx.eval_params(state, y)[0])]
        np.testing.assert_allclose(found, [expected, x], rtol=1e-5)


def test_private_gradients_are_of_all_leaves_and_of_no_shard():
    grads, tx = jax.tree.map(lambda x: jnp.ones((4, *x.shape)), PARAMS), gradtx.dpsgd(0.1, 1.0, 0.0, seed=1)
    for partial in (
        gradtx.partition({"p": tx, "q": gradtx.sgd(0.1)}, {"w": "p", "b": "q"}),
        gradtx.chain(gradtx.masked(tx, "w"), gradtx.sgd(0.1)),
    ):
        with pytest.raises(ValueError, match="must be the first of a chain and work on all leaves"):
            partial.update(grads, partial.init(PARAMS), PARAMS)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    spec = jax.sharding.PartitionSpec(None, "data")

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=jax.sharding.PartitionSpec("data"))
    def step(x):
        return tx.update(x, tx.init(x[0]), x[0])[0]

    with pytest.raises(ValueError, match="inside shard_map the leaves vary over the axis data"):
        step(jnp.ones((3, 4)))


@pytest.mark.parametrize("around", [gradtx.cautious, gradtx.grams])
def test_what_turns_the_sign_is_no_direction(around):
    for inner in (gradtx.guard(gradtx.adam(0.1)), gradtx.chain(gradtx.scale_by_adam(), gradtx.negate())):
        with pytest.raises(ValueError, match="has a learning rate, which turns the sign"):
            around(inner)


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.cautious(gradtx.scale_by_adam()),
        gradtx.scale_by_stable_adam(),
        gradtx.scale_by_hyperball(0.1),
        gradtx.chain(gradtx.reduce_variance(), gradtx.scale_by_adam()),
    ],
    ids=["cautious", "stable_adam", "hyperball", "mars"],
)
def test_one_element_that_is_no_number_stays_alone_and_shows(tx):
    p = jnp.ones(3)
    updates, _ = tx.update(jnp.array([jnp.nan, 1.0, 1.0]), tx.init(p), p)
    np.testing.assert_array_equal(np.isfinite(updates), [False, True, True])


def test_the_derivative_of_an_arctangent_at_a_zero_gradient_is_finite():
    def moved(x):
        tx = gradtx.scale_by_adam_atan2()
        return tx.update(0 * x, tx.init(x))[0].sum()

    assert np.isfinite(jax.grad(moved)(jnp.ones(2))).all()


def test_a_round_and_an_example_have_a_formula():
    tx = sam(gradtx, opaque_mode=True)
    assert "theta" in str(gradtx.formula(tx, PARAMS, "w"))
    assert "l2_norm_clip" in str(gradtx.formula(gradtx.dpsgd(0.1, 1.0, 0.5, seed=1), PARAMS, "w"))
    rounds = gradtx.sam(gradtx.adam(gradtx.cosine_decay_schedule(0.1, 500)), climb(gradtx))
    assert not gradtx.check(rounds, PARAMS, steps=1000)


def test_the_loss_is_seen_through_views():
    flat, _ = followed(gradtx.flatten(sam(gradtx, opaque_mode=True)), 3, grad_fn=lambda p, i: grads_of(p))
    same(flat, followed(sam(gradtx, opaque_mode=True), 3, grad_fn=lambda p, i: grads_of(p))[0])

    def distance(z):
        return jnp.sum(jnp.abs(z - (1 - 2j)) ** 2)

    tx, z = gradtx.split_real_and_imaginary(gradtx.lbfgs()), jnp.zeros(2, jnp.complex64)
    state = tx.init(z)
    for _ in range(4):
        value, grad = jax.value_and_grad(distance)(z)
        z, state = gradtx.apply_gradients(tx, jnp.conj(grad), state, z, value=value, value_fn=distance)
    np.testing.assert_allclose(z, 1 - 2j, rtol=1e-5)


def test_norms_of_any_number():
    assert gradtx.unitwise_norm(jnp.array([1, 1])).dtype == jnp.float32
    np.testing.assert_allclose(gradtx.safe_root_mean_squares(jnp.array([1, 2]), 0.0), 2.5**0.5, rtol=1e-6)
    np.testing.assert_allclose(gradtx.safe_norm(jnp.array([300.0, 0.0], jnp.float16), 0.0), 300.0)
    np.testing.assert_allclose(gradtx.safe_norm(jnp.array([1e-30, 0.0]), 0.0), 1e-30, rtol=1e-6)
    np.testing.assert_array_equal(gradtx.unitwise_norm(jnp.array([jnp.inf, 1.0])), jnp.inf)


def test_no_distance_over_no_gradients_is_no_rate():
    p = 10 * jnp.ones(3)
    for tx in (
        gradtx.scale_by_distance_over_gradients(reps_rel=0.5, eps=0.0),
        gradtx.scale_by_dog("distance", 10.0, eps=0.0),
    ):
        np.testing.assert_array_equal(tx.update(jnp.zeros(3), tx.init(p), p)[0], 0.0)


def test_parameters_may_be_loaded_between_init_and_the_first_step():
    tx = gradtx.mechanize(gradtx.sgd(1.0))
    updates, _ = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)), jnp.full(1, 5.0))
    assert abs(float(updates[0])) < 1e-5
