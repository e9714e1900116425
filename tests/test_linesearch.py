"""Line searches and L-BFGS on losses of their own, against Optax and in all places where they may stand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from counting import compilations
from trajectories import x64

PARAMS = {"w": jnp.zeros(3), "b": jnp.ones(2)}


def bowl(params, scale=1.0):
    """Least at w = 1 and b = -2."""
    return scale * (
        jnp.sum((params["w"] - 1) ** 2 * jnp.arange(1.0, 4)) + jnp.sum((params["b"] + 2) ** 2) / 2
    )


def valley(x):
    """Rosenbrock's function."""
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def quartic(x):
    return jnp.sum(jnp.arange(1.0, x.size + 1) * (x - 1) ** 4) + jnp.sum(x**2)


def searched(state):
    """What the line search of a state has found."""
    (slots,) = (kept for name, kept in state["slots"].items() if name.endswith("linesearch"))
    return slots


def minimized(tx, params=PARAMS, loss=bowl, steps=12, jit=True, **arguments):
    state = tx.init(params)

    def step(params, state):
        value, grad = jax.value_and_grad(loss)(params, **arguments)
        update = functools.partial(gradtx.apply_gradients, tx, value=value, value_fn=loss, **arguments)
        return update(grad, state, params)

    step = jax.jit(step) if jit else step
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


@jax.numpy_dtype_promotion("standard")  # for Optax's L-BFGS
def rates(library, tx, loss, x, steps):
    """The rate, the number of trials and the loss of each step."""
    state, value_and_grad = tx.init(x), library.value_and_grad_from_state(loss)

    @jax.jit
    def step(x, state):
        value, grad = value_and_grad(x, state=state)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=loss)
        return library.apply_updates(x, updates), state

    found = []
    for _ in range(steps):
        x, state = step(x, state)
        if library is optax:
            slots = {k: optax.tree.get(state, k) for k in ("learning_rate", "num_linesearch_steps", "value")}
        else:
            slots = searched(state)
        found.append([float(slots[k]) for k in ("learning_rate", "num_linesearch_steps", "value")])
        if found[-1][-1] < 1e-10:
            break
    return np.array(found)


CHAINS = {
    "zoom": (
        lambda library: library.chain(library.sgd(1.0), library.scale_by_zoom_linesearch(20)),
        quartic,
        np.linspace(-1, 2, 7),
        25,
    ),
    "zoom of Armijo alone, bounded": (
        lambda library: library.chain(
            library.sgd(1.0), library.scale_by_zoom_linesearch(20, 0.03, approx_dec_rtol=None)
        ),
        valley,
        np.array([-1.2, 1.0, -1.2, 1.0]),
        20,
    ),
    "backtracking": (
        lambda library: library.chain(
            library.sgd(1.0), library.scale_by_backtracking_linesearch(15, store_grad=True)
        ),
        quartic,
        np.linspace(-1, 2, 7),
        25,
    ),
    "lbfgs": (lambda library: library.lbfgs(), valley, np.array([-1.2, 1.0] * 5), 40),
}


@pytest.mark.parametrize("name", CHAINS)
def test_rates_and_trials_are_optax_s(name):
    build, loss, start, steps = CHAINS[name]
    with x64():
        ours, theirs = (
            rates(library, build(library), loss, jnp.asarray(start), steps) for library in (gradtx, optax)
        )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)


def evaluations(library, starts):
    """How often the loss is evaluated from each start until it is below 1e-10."""
    tx, value_and_grad = library.lbfgs(), library.value_and_grad_from_state(valley)

    def step(carry):
        x, state, count = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=valley)
        found = optax.tree.get(state, "num_linesearch_steps") if library is optax else None
        trials = searched(state)["num_linesearch_steps"] if found is None else found
        return library.apply_updates(x, updates), state, count + trials

    def count(x):
        return jax.lax.while_loop(lambda c: valley(c[0]) >= 1e-10, step, (x, tx.init(x), 0))[2]

    return jax.jit(lambda starts: jax.lax.map(count, starts))(starts)


@pytest.mark.wide
@jax.numpy_dtype_promotion("standard")
def test_lbfgs_needs_as_many_evaluations_as_optax_on_rosenbrock_in_100_dimensions():
    """Rounding alone moves the count by a few percent, so that it is the mean over starts that are alike."""
    with x64():
        noise = np.random.default_rng(0).normal(size=(24, 100))
        starts = jnp.asarray(np.array([-1.2, 1.0] * 50) + 1e-6 * noise)
        ours, theirs = (float(np.mean(np.asarray(evaluations(lib, starts)))) for lib in (gradtx, optax))
    assert ours <= 1.02 * theirs


PLACES = {
    "bare": gradtx.lbfgs(),
    "half a step": gradtx.lbfgs(0.5),
    "guard": gradtx.guard(gradtx.lbfgs()),
    "accumulate": gradtx.accumulate(gradtx.lbfgs(), every=2),
    "MultiSteps": gradtx.MultiSteps(gradtx.lbfgs(), 2),
    "flatten": gradtx.flatten(gradtx.lbfgs()),
    "apply_if_finite": gradtx.apply_if_finite(gradtx.lbfgs(), 3),
    "track": gradtx.track(gradtx.lbfgs()),
    "ema_params": gradtx.ema_params(gradtx.lbfgs(), 0.9),
    "backtracking": gradtx.lbfgs(linesearch=gradtx.scale_by_backtracking_linesearch(20)),
    "partition": gradtx.partition({"a": gradtx.lbfgs(), "b": gradtx.sgd(0.5)}, {"w": "a", "b": "b"}),
    "two searches": gradtx.partition({"a": gradtx.lbfgs(), "b": gradtx.lbfgs()}, {"w": "a", "b": "b"}),
}


@pytest.mark.by_turns(4)
@pytest.mark.parametrize("place", PLACES)
def test_a_line_search_works_wherever_it_stands(place):
    """The loss goes through chains and wrappers; where a search works on some leaves, the others stay."""
    params, _ = minimized(PLACES[place], steps=40)
    np.testing.assert_allclose(params["w"], 1.0, atol=1e-3)
    np.testing.assert_allclose(params["b"], -2.0, atol=1e-3)


def test_a_leaf_without_a_gradient_keeps_its_value_in_the_loss():
    tx, grads = gradtx.lbfgs(), jax.grad(bowl)(PARAMS)
    updates, state = tx.update(
        {**grads, "b": None}, tx.init(PARAMS), PARAMS, value=bowl(PARAMS), value_fn=bowl
    )
    assert updates["b"] is None
    after = {**PARAMS, "w": PARAMS["w"] + updates["w"]}
    np.testing.assert_allclose(searched(state)["value"], bowl(after), rtol=1e-6)


def test_the_loss_is_traced_once_and_evaluated_once_a_trial():
    calls = []

    def counted(params):
        calls.append(1)
        return bowl(params)

    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(20))
    value, grads = jax.value_and_grad(bowl)(PARAMS)
    _, state = tx.update(grads, tx.init(PARAMS), PARAMS, value=value, value_fn=counted)
    assert len(calls) == searched(state)["num_linesearch_steps"] > 1
    calls.clear()
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, value=value, value_fn=counted))
    for _ in range(3):
        _, state = update(grads, gradtx.set_hyperparams(state, tol=0.01), PARAMS)
    assert len(calls) == 1


def test_an_eager_search_compiles_nothing_new():
    tx = gradtx.lbfgs()
    value, grads = jax.value_and_grad(bowl)(PARAMS)
    _, state = tx.update(grads, tx.init(PARAMS), PARAMS, value=value, value_fn=bowl)
    with compilations() as count:
        tx.update(grads, state, PARAMS, value=value, value_fn=lambda p: bowl(p))
    assert count() == 0


def test_arguments_of_the_loss_go_to_it_and_others_do_not():
    params, _ = minimized(gradtx.lbfgs(), scale=3.0)
    np.testing.assert_allclose(params["w"], 1.0, atol=1e-3)
    value, grads = jax.value_and_grad(bowl)(PARAMS)
    tx = gradtx.lbfgs()
    tx.update(grads, tx.init(PARAMS), PARAMS, value=value, value_fn=bowl, loss=value)


def steep(x):
    """Not a number from 2 on, and minus infinity from 4 on."""
    return jnp.where(x < 4, jnp.where(x < 2, -x, jnp.nan), -jnp.inf)[0]


@pytest.mark.parametrize(
    "search", [gradtx.scale_by_backtracking_linesearch(2), gradtx.scale_by_zoom_linesearch(2)], ids=str
)
def test_where_the_loss_is_not_finite_nothing_moves_and_the_next_search_begins_anew(search):
    tx, x = gradtx.chain(gradtx.scale(-1.0), search), jnp.array([1.0])
    update = jax.jit(lambda g, state: tx.update(g, state, x, value=-1.0, grad=-jnp.ones(1), value_fn=steep))
    state = tx.init(x)
    for g in (-2.0, -100.0):
        updates, state = update(jnp.array([g]), state)
        np.testing.assert_array_equal(updates, 0.0)
        assert searched(state)["value"] == -1.0
        assert searched(state)["decrease_error"] == jnp.finfo(jnp.float32).max
    updates, state = update(jnp.array([-0.5]), state)
    np.testing.assert_allclose(updates, 0.5)


def test_optax_never_moves_again_after_a_loss_that_was_not_a_number():
    tx, x = optax.chain(optax.scale(-1.0), optax.scale_by_backtracking_linesearch(2)), jnp.array([1.0])
    state = tx.init(x)
    for g in (-2.0, -0.5):
        keywords = {"value": jnp.float32(-1.0), "grad": -jnp.ones(1), "value_fn": steep}
        updates, state = tx.update(jnp.array([g]), state, x, **keywords)
    np.testing.assert_array_equal(updates, 0.0)


def test_a_rate_is_a_constant_of_derivatives():
    def after(learning_rate):
        tx = gradtx.chain(gradtx.sgd(learning_rate), gradtx.scale_by_backtracking_linesearch(5))
        value, grads = jax.value_and_grad(bowl)(PARAMS)
        updates, state = tx.update(grads, tx.init(PARAMS), PARAMS, value=value, value_fn=bowl)
        return bowl(gradtx.apply_updates(PARAMS, updates)), searched(state)["learning_rate"]

    (_, rate), slope = jax.jit(jax.value_and_grad(after, has_aux=True))(0.1)
    grads = jax.grad(bowl)(PARAMS)
    ends = jax.tree.map(lambda p, g: p - 0.1 * rate * g, PARAMS, grads)
    expected = -rate * gradtx.tree.vdot(grads, jax.grad(bowl)(ends))
    np.testing.assert_allclose(slope, expected, rtol=1e-5)


def test_the_loss_is_that_of_the_rounded_parameters():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16) + jnp.bfloat16(0.1), PARAMS)

    def loss(params):
        return bowl(jax.tree.map(lambda x: x.astype(jnp.float32), params))

    params, state = minimized(gradtx.lbfgs(), params, loss, steps=2)
    assert params["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(searched(state)["value"], loss(params), rtol=1e-6)


def test_complex_parameters():
    def loss(z):
        return jnp.sum(jnp.abs(z - (2 - 1j)) ** 2 * jnp.array([1.0, 5.0]))

    z, tx = jnp.array([1 + 2j, 3 - 1j]), gradtx.lbfgs()
    state, value_and_grad = tx.init(z), gradtx.value_and_grad_from_state(loss)
    for _ in range(8):
        value, grad = value_and_grad(z, state=state)
        z, state = gradtx.apply_gradients(tx, jnp.conj(grad), state, z, value=value, value_fn=loss)
    np.testing.assert_allclose(z, 2 - 1j, atol=1e-4)


@jax.numpy_dtype_promotion("standard")
def test_a_pair_of_negative_curvature_is_left_out():
    """Along it the estimate would lead uphill, as Optax's does."""
    grads = [jnp.array([1.0, 0.5]), jnp.array([2.0, 0.6])]
    directions = {}
    for library in (gradtx, optax):
        tx, x = library.scale_by_lbfgs(), jnp.zeros(2)
        state = tx.init(x)
        for g in grads:
            u, state = tx.update(g, state, x)
            x = x - u
        directions[library] = float(u @ grads[-1])
    assert directions[gradtx] > 0 > directions[optax]


def test_what_a_search_ends_with_is_printed(capfd):
    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale(-1.0), gradtx.scale_by_zoom_linesearch(2, verbose=True))
    minimized(tx, steps=1)
    jax.effects_barrier()
    printed = capfd.readouterr().out
    assert printed.startswith("scale_by_zoom_linesearch: no rate that was tried meets all conditions.")
    minimized(gradtx.lbfgs(linesearch=gradtx.scale_by_zoom_linesearch(20, verbose=True)), steps=2)
    jax.effects_barrier()
    assert not capfd.readouterr().out


def test_value_and_grad_from_state_evaluates_at_first_alone():
    calls = []

    def counted(params):
        jax.debug.callback(lambda: calls.append(1))
        return bowl(params)

    value_and_grad, tx, params = gradtx.value_and_grad_from_state(counted), gradtx.lbfgs(), PARAMS
    step = jax.jit(lambda params, state: value_and_grad(params, state=state))
    state = tx.init(params)
    for expected in (1, 0, 0):
        value, grads = step(params, state)
        jax.effects_barrier()
        assert len(calls) == expected
        np.testing.assert_allclose(value, bowl(params), rtol=1e-6)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), grads, jax.grad(bowl)(params))
        calls.clear()
        params, state = gradtx.apply_gradients(tx, grads, state, params, value=value, value_fn=bowl)


@pytest.mark.parametrize(
    "tx, error, words",
    [
        (gradtx.sgd(0.1), ValueError, "there is no line search in this state"),
        (PLACES["two searches"], KeyError, r"there is more than one line search \(2\)"),
        (PLACES["backtracking"], ValueError, "no gradient of the leaf 'b'. A line search must keep it"),
        (PLACES["partition"], ValueError, "no gradient of the leaf 'b'. A line search must keep it"),
    ],
)
def test_a_state_that_does_not_have_the_gradient(tx, error, words):
    with pytest.raises(error, match=words):
        gradtx.value_and_grad_from_state(bowl)(PARAMS, state=tx.init(PARAMS))


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"value": 1.0}, TypeError, "needs the keyword argument 'value_fn'"),
        ({"value_fn": bowl}, TypeError, "needs the keyword argument 'value'"),
        (
            {"value": 1.0, "value_fn": 3},
            TypeError,
            "value_fn must be the loss, a function of the parameters, got 3",
        ),
        (
            {"value": jnp.ones(2), "value_fn": bowl},
            ValueError,
            r"the loss must be a real number, got float32 of",
        ),
        ({"value": 1.0, "value_fn": lambda p: p["w"]}, ValueError, r"got float32 of shape \(3,\)"),
        ({"value": 1.0, "value_fn": lambda p: 1j * p["w"][0]}, ValueError, "got complex64 of shape"),
    ],
)
def test_a_loss_that_is_none(arguments, error, words):
    tx = gradtx.lbfgs()
    with pytest.raises(error, match=words):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, **arguments)


def test_arguments_that_have_no_meaning():
    with pytest.raises(
        ValueError, match="increase_factor=inf a search begins at max_learning_rate, which is inf"
    ):
        gradtx.scale_by_backtracking_linesearch(5, increase_factor=np.inf, max_learning_rate=np.inf)
    with pytest.raises(ValueError, match="initial_guess_strategy must be 'one' or 'keep', got 'last'"):
        gradtx.scale_by_zoom_linesearch(5, initial_guess_strategy="last")
    with pytest.raises(ValueError, match="memory_size must be an int >= 1, got 0"):
        gradtx.lbfgs(memory_size=0)


def test_in_a_scan():
    tx, value_and_grad = gradtx.lbfgs(), gradtx.value_and_grad_from_state(bowl)

    def step(carry, _):
        params, state = carry
        value, grads = value_and_grad(params, state=state)
        return gradtx.apply_gradients(tx, grads, state, params, value=value, value_fn=bowl), value

    _, values = jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), length=12)
    assert (np.diff(values) <= 0).all()
    assert values[-1] < 1e-6


def test_shards_are_no_tree():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    tx, spec = gradtx.lbfgs(), jax.sharding.PartitionSpec("data")

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec)
    def step(x):
        return tx.update(x, tx.init(x), x, value=jnp.sum(x), value_fn=jnp.sum)[0]

    with pytest.raises(
        ValueError, match="scale_by_lbfgs: inside shard_map the leaves vary over the axis data"
    ):
        step(jnp.ones(4))


def test_a_leaf_that_comes_and_goes_does_not_spoil_the_estimate():
    def loss(p):
        bowls = jnp.sum(jnp.array([1.0, 3.0]) * p["a"] ** 2) + 5 * jnp.sum(p["b"] ** 2)
        return bowls + jnp.sum(p["a"]) * jnp.sum(p["b"])

    tx, params = gradtx.lbfgs(memory_size=2), {"a": jnp.array([1.0, -2.0]), "b": jnp.array([1.5])}
    state, losses = tx.init(params), []
    for i in range(14):
        value, grads = jax.value_and_grad(loss)(params)
        grads = {**grads, "a": None} if i % 2 else grads
        params, state = gradtx.apply_gradients(tx, grads, state, params, value=value, value_fn=loss)
        losses.append(float(value))
    assert (np.diff(losses) <= 0).all()
    assert losses[-1] < 1e-2


def test_a_tolerance_is_a_part_of_the_magnitude_of_the_loss():
    def below(x):
        return jnp.sum(x**2) - 100

    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(10, rtol=0.1, verbose=True))
    x = jnp.array([1.0])
    _, state = tx.update(2 * x, tx.init(x), x, value=below(x), value_fn=below)
    assert searched(state)["num_linesearch_steps"] == 1


def test_an_eager_search_that_keeps_the_gradient_compiles_nothing_either():
    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(10, store_grad=True))
    value, grads = jax.value_and_grad(bowl)(PARAMS)
    _, state = tx.update(grads, tx.init(PARAMS), PARAMS, value=value, value_fn=bowl)
    with compilations() as count:
        tx.update(grads, state, PARAMS, value=value, value_fn=lambda p: bowl(p))
    assert count() == 0


def test_complex_parameters_are_minimized():
    result, _ = gradtx.minimize(lambda z: jnp.abs(z - (1 + 1j)) ** 2, jnp.complex64(0), gradtx.sgd(0.1), 60)
    np.testing.assert_allclose(result, 1 + 1j, rtol=1e-4)
