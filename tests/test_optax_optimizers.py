"""Each optimizer and transform against the installed Optax, step by step, wherever Optax is right."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from trajectories import x64

STEPS = 100
SHAPES = {"scalar": (), "vector": (5,), "matrix": (4, 3), "kernel": (2, 3, 2)}
SETTINGS = {
    "adabelief": {"learning_rate": 0.01},
    "adamax": {"learning_rate": 0.01},
    "adamaxw": {"learning_rate": 0.01, "weight_decay": 0.1},
    "amsgrad": {"learning_rate": 0.01},
    "adopt": {"learning_rate": 0.01},
    "centralize": {},
    "cocob": {"weight_decay": 0.1},
    "dadapt_adamw": {"weight_decay": 0.1},
    "dog": {"init_step": ("heuristic", 1e-2)},
    "dowg": {},
    "fromage": {"learning_rate": 0.01},
    "keep_params_nonnegative": {},
    "lamb": {"learning_rate": 0.01, "weight_decay": 0.1},
    "lars": {"learning_rate": 0.1, "weight_decay": 0.1},
    "madgrad": {"learning_rate": 0.01, "weight_decay": 0.1},
    "momo": {"lower_bound": -0.5},
    "momo_adam": {"adapt_lower_bound": True},
    "normalize": {},
    "normalize_by_update_norm": {"scale_factor": 2.0},
    "novograd": {"learning_rate": 0.01, "weight_decay": 0.1},
    "optimistic_adam_v2": {"learning_rate": 0.01, "beta": 0.5},
    "optimistic_gradient_descent": {"learning_rate": 0.01, "beta": 0.5},
    "polyak_sgd": {"eps": 0.1},
    "radam": {"learning_rate": 0.01},
    "reduce_on_plateau": {"factor": 0.5, "patience": 3, "cooldown": 2, "accumulation_size": 2},
    "scale_by_distance_over_gradients": {"reps_rel": 0.1, "global_scale": 0.5, "param_dtype": "float64"},
    "schedule_free_adamw": {"learning_rate": 0.01, "weight_decay": 0.1},
    "schedule_free_sgd": {"learning_rate": 0.1, "b1": 0.5, "weight_decay": 0.1},
    "adaptive_grad_clip": {"clipping": 0.5},
    "scale_by_param_block_norm": {},
    "scale_by_polyak": {"variant": "sps+", "f_min": 0.3},
    "scale_by_trust_ratio": {"min_norm": 0.1, "eps": 0.01},
    "sign_sgd": {"learning_rate": 0.01},
    "signum": {"learning_rate": 0.01},
    "simplified_ademamix": {"learning_rate": 0.01, "alpha": 2.0},
    "sm3": {"learning_rate": 0.01},
    "sophia": {"learning_rate": 0.01, "gamma": 0.5, "update_interval": 7},
    "yogi": {"learning_rate": 0.01},
    "zero_nans": {},
}
# Rounding of Optax's own: the rho of RAdam is the difference of two large numbers, the root of MADGRAD's step
# is taken in float32.
TOLERANCES = {"madgrad": 1e-6, "radam": 1e-10}


@pytest.fixture(autouse=True)
def settings():
    """Float64, where Optax rounds no decay, and standard promotion: it does not run under the strict one."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), x64():
        yield


def quartic(params):
    """A loss whose Hessian is diagonal, so that every estimate of it is right."""
    return sum(jnp.sum(x**4) for x in jax.tree.leaves(params))


NEED_A_VALUE = ("momo", "momo_adam", "polyak_sgd", "reduce_on_plateau", "scale_by_polyak")


def run(tx, shapes, steps=STEPS, **extra):
    """The updates of each step, of the same gradients at parameters that move slowly."""
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}
    grads = {name: jnp.asarray(rng.normal(size=(steps, *shape))) for name, shape in shapes.items()}

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params, **extra)
        return (jax.tree.map(lambda p, u: p + 0.01 * u, params, updates), state), updates

    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), grads)[1])(params)


@pytest.mark.by_turns(7)
@pytest.mark.parametrize("name", SETTINGS)
def test_it_follows_optax(name):
    # Optax fails at a scalar, or makes a vector of it.
    whole = name not in ("sm3", "scale_by_distance_over_gradients")
    shapes = {k: v for k, v in SHAPES.items() if whole or v}
    where = home(name), gradtx
    extra = {"value": 1.5} if name in NEED_A_VALUE else {"obj_fn": quartic} if name == "sophia" else {}
    theirs, ours = (run(getattr(library, name)(**SETTINGS[name]), shapes, **extra) for library in where)
    for leaf in shapes:
        scale = np.maximum.accumulate(np.abs(theirs[leaf]), axis=0)
        assert np.all(np.abs(ours[leaf] - theirs[leaf]) <= TOLERANCES.get(name, 1e-12) * scale), leaf


@pytest.mark.parametrize("mode", ["smooth", "refined"])
def test_lions_modes_follow_optax(mode):
    if "mode" not in inspect.signature(optax.scale_by_lion).parameters:
        assert tuple(map(int, optax.__version__.split(".")[:3])) < (0, 2, 8)
        return
    theirs, ours = (run(o.scale_by_lion(mode=mode, smooth_beta=0.7), SHAPES) for o in (optax, gradtx))
    for leaf in SHAPES:
        np.testing.assert_allclose(ours[leaf], theirs[leaf], rtol=1e-12, atol=1e-15)


def test_rprop_makes_the_step_that_optax_makes_one_step_later():
    """Of the signs + + + - + a size of 0.1 makes 0.1, 0.12, 0.144, 0 and 0.072, as in PyTorch."""
    grads = jnp.array([2.0, 1.0, 3.0, -1.0, 1.0])

    def moves(tx):
        return jax.lax.scan(lambda s, g: tx.update(g, s, g)[::-1], tx.init(grads[0]), grads)[1]

    ours, theirs = (moves(library.rprop(0.1)) for library in (gradtx, optax))
    np.testing.assert_allclose(ours, [-0.1, -0.12, -0.144, 0.0, -0.072], rtol=1e-12)
    np.testing.assert_allclose(theirs[:4], [0.0, -0.1, -0.12, 0.0], rtol=1e-12)


def test_adans_differences_have_the_factor_of_the_official_code():
    """At the second step v^ is not 0: b2 in the paper and in `sail-sg/Adan`, 1 - b2 in Optax."""
    b1, b2, b3, g1, g2 = 0.98, 0.92, 0.99, 1.0, 3.0

    def second(tx):
        state = tx.init(jnp.zeros(()))
        _, state = tx.update(jnp.asarray(g1), state)
        return float(tx.update(jnp.asarray(g2), state)[0])

    def expected(factor):
        d = g2 - g1
        m = (b1 * (1 - b1) * g1 + (1 - b1) * g2) / (1 - b1**2)
        v = (1 - b2) * d / (1 - b2**2)
        n = (b3 * (1 - b3) * g1**2 + (1 - b3) * (g2 + factor * d) ** 2) / (1 - b3**2)
        return (m + factor * v) / (np.sqrt(n) + 1e-8)

    np.testing.assert_allclose(second(gradtx.scale_by_adan()), expected(b2), rtol=1e-12)
    np.testing.assert_allclose(second(optax.scale_by_adan()), expected(1 - b2), rtol=1e-12)


def test_acprop_measures_from_the_average_of_now_as_in_the_paper():
    """|g - m| is b1 times what it is from the average of before, which Optax takes."""
    shapes, b1 = {"w": (4,)}, 0.8
    where = optax.contrib, gradtx
    theirs, ours = (run(lib.scale_by_acprop(b1, eps=0.0, eps_root=0.0), shapes) for lib in where)
    np.testing.assert_allclose(ours["w"][0], theirs["w"][0], rtol=1e-12)
    np.testing.assert_allclose(ours["w"][1:] * b1, theirs["w"][1:], rtol=1e-12)


def test_polyaks_scaling_multiplies_the_step():
    """As Optax documents it; its code divides the step by what it should be multiplied by."""
    p, g = jnp.array([3.0, 4.0]), jnp.array([3.0, 4.0])
    steps = []
    for library in (gradtx, optax):
        tx = library.polyak_sgd(scaling=0.5, max_learning_rate=100.0)
        steps.append(tx.update(g, tx.init(p), p, value=5.0)[0])
    np.testing.assert_allclose(steps[0], -0.5 * 0.2 * g, rtol=1e-12)
    np.testing.assert_allclose(steps[1], -0.2 / 0.5 * g, rtol=1e-12)


def test_a_loss_below_its_bound_turns_the_step_around_or_does_not():
    g = jnp.array([3.0, 4.0])
    for library in (gradtx, optax):
        for variant, step in (("sps", -0.2), ("sps+", 0.0)):
            tx = library.scale_by_polyak(f_min=6.0, variant=variant)
            np.testing.assert_allclose(tx.update(g, tx.init(g), value=1.0)[0], step * g, rtol=1e-12)


@pytest.mark.parametrize("value", [1e-3, 1.5])
def test_momos_decay_is_the_authors(value):
    """Where the decay is proximal, (theta - tau d) / w; Optax does not divide tau d by w = 1 + eta lambda."""
    p, g = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.3])
    ours, theirs = (
        tx.update(g, tx.init(p), p, value=value)[0]
        for tx in (library.momo(0.5, weight_decay=0.2) for library in (gradtx, optax.contrib))
    )
    w = 1 + 0.5 * 0.2
    decay = p / w - p
    np.testing.assert_allclose((ours - decay) * w, theirs - decay, rtol=1e-12)


def test_a_value_that_is_no_real_number_is_an_error():
    g = jnp.ones(2)
    for tx in (gradtx.momo(), gradtx.scale_by_polyak()):
        with pytest.raises(ValueError, match=r"value is the loss, a real number; got float64 of .*2"):
            tx.update(g, tx.init(g), g, value=g)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_polyaks_step_is_right_for_gradients_whose_square_is_out_of_range(size):
    g = jnp.asarray([3.0, 4.0], jnp.float32) * np.float32(size)
    tx = gradtx.scale_by_polyak(max_learning_rate=np.inf)
    u, _ = tx.update(g, tx.init(g), value=jnp.float32(size))
    np.testing.assert_allclose(u, [3 / 25, 4 / 25], rtol=1e-5)


@pytest.mark.parametrize("bad", [1e200, np.inf, np.nan])
@pytest.mark.parametrize("name", ["dog", "dowg"])
def test_a_gradient_too_large_to_be_squared_does_not_fling_the_parameters(name, bad):
    p = {"a": jnp.ones(2, jnp.float32), "b": jnp.ones(2, jnp.float32)}
    tx, ones = getattr(gradtx, name)(), jax.tree.map(jnp.ones_like, p)
    _, state = tx.update(ones, tx.init(p), p)
    large = {"a": jnp.array([bad, 1.0]), "b": jnp.ones(2)}
    updates, after = tx.update(large, state, p)
    assert not np.any(updates["b"])
    good, _ = tx.update(ones, after, p)
    assert np.isfinite(good["a"]).all() and np.all(np.abs(good["a"]) < 1.0) and np.any(good["a"])


def test_madgrad_stands_still_at_a_rate_of_zero():
    """As the authors' code does; Optax goes on with eps as the rate."""
    g = jnp.ones(3)
    for library, moves in ((gradtx, False), (optax.contrib, True)):
        tx = library.madgrad(0.0)
        assert np.any(tx.update(g, tx.init(g), g)[0]) == moves


def test_zero_gradients_at_first_do_not_spoil_an_estimate():
    """In Optax the estimate of D-Adaptation becomes NaN for good."""
    g, p = jnp.zeros(3), jnp.ones(3)
    for library, finite in ((gradtx, True), (optax.contrib, False)):
        tx = library.dadapt_adamw()
        _, state = tx.update(g, tx.init(p), p)
        assert np.isfinite(tx.update(jnp.ones(3), state, p)[0]).all() == finite


def test_radam_is_momentum_where_its_factor_has_no_meaning():
    """Up to rho = 4, whatever the threshold; the root of a negative number in Optax."""
    g, first = jnp.asarray(2.0), {"threshold": 0.0, "b1": 0.0}
    ours, theirs = (library.scale_by_radam(**first) for library in (gradtx, optax))
    state, other = ours.init(g), theirs.init(g)
    for _ in range(3):  # rho is 1, 2 and 3
        u, state = ours.update(g, state)
        v, other = theirs.update(g, other)
        np.testing.assert_allclose(u, g, rtol=1e-12)
    assert np.isnan(v)


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_zeros_have_no_norm_to_be_given(eps):
    tx, g = gradtx.normalize_by_update_norm(100.0, eps), jnp.zeros(3)
    np.testing.assert_array_equal(tx.update(g, tx.init(g))[0], 0.0)


def test_sm3_takes_a_scalar():
    p = jnp.asarray(1.0)
    with pytest.raises(IndexError):
        optax.sm3(0.1).update(p, optax.sm3(0.1).init(p))
    tx = gradtx.sm3(1.0, momentum=0.0)
    np.testing.assert_allclose(tx.update(p, tx.init(p))[0], -1.0, rtol=1e-6)


def test_an_empty_leaf_of_sm3_has_no_largest_element():
    p = jnp.zeros((0, 3))
    tx = gradtx.scale_by_sm3()
    with jax.debug_infs(True), jax.disable_jit():
        assert tx.update(p, tx.init(p))[0].shape == (0, 3)


def test_sm3_says_which_leaf_has_too_many_axes():
    with pytest.raises(ValueError, match=r"a leaf may have 8 axes, got shape \(1, 1") as caught:
        gradtx.sm3(0.1).init({"a": {"w": jnp.zeros((1,) * 9)}})
    assert caught.value.__notes__ == ["This was raised for the leaf 'a/w'."]


SCHEDULES = {
    "piecewise_interpolate_schedule": ("cosine", 0.1, {3: 2.0, 10: 0.1, 11: 3.0}),
    "linear_onecycle_schedule": (20, 0.5),
    "cosine_onecycle_schedule": (20, 0.5),
    "warmup_exponential_decay_schedule": (0.0, 0.5, 4, 3, 0.7, 2, True, 0.1),
    "sgdr_schedule": (
        [
            {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 5},
            {"init_value": 0.0, "peak_value": 0.5, "warmup_steps": 3, "decay_steps": 12, "end_value": 0.1},
        ],
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_follows_optaxs(name):
    ours, theirs = (getattr(library, name)(*SCHEDULES[name]) for library in (gradtx, optax))
    steps = jnp.arange(30)
    # Optax's computes in float32 also where float64 is enabled.
    expected = [float(theirs(t)) for t in steps]
    np.testing.assert_allclose([float(ours(t)) for t in steps], expected, rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("name", [*SETTINGS, *SCHEDULES, "acprop", "adan", "rprop"])
def test_names_order_and_defaults_are_optaxs(name):
    where = home(name), gradtx
    theirs, ours = (inspect.signature(getattr(library, name)).parameters for library in where)
    assert list(ours)[: len(theirs)] == list(theirs)
    for key, parameter in theirs.items():
        assert ours[key].kind == parameter.kind, key
        # What a function does by default, its name does not tell.
        if inspect.isfunction(parameter.default) or isinstance(parameter.default, tuple):
            continue
        # A dtype has several names.
        mine = ours[key].default
        assert mine == parameter.default or np.dtype(mine) == np.dtype(parameter.default), key


def home(name):
    """Where Optax has a name."""
    return optax if hasattr(optax, name) else optax.contrib
