"""Parameters of 16 bits and what is beside them: exactly what they stand for, and what no step may lose."""

import functools
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import gradtx
from counting import compilations
from gradtx.core.splits import FORMS

KEEPING = [name for name in FORMS if name != "stochastic"]
BF16, F16 = ml_dtypes.bfloat16, np.dtype(np.float16)
SHAPES = {"matrix": (5, 3), "vector": (7,), "scalar": (), "empty": (0, 2)}


def all_kinds():
    """Numbers of every exponent and of both signs, and those at the ends."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 0x7F800000, 4000, dtype=np.uint32)
    edges = [
        0,
        1,
        0x007FFFFF,
        0x00800000,
        0x3F7F8000,
        0x3F808000,
        0x3F80FFFF,
        0x7F7FFFFF,
        0x7F7F7FFF,
        0x7F800000,
    ]
    x = np.concatenate([bits, np.array(edges, np.uint32)]).view(np.float32)
    return np.concatenate([x, -x])


@functools.partial(jax.jit, static_argnums=(0, 2))
def kept(how, x, dtype):
    form = FORMS[how]
    p = form.write(x, dtype, None)
    beside = form.rest(x, p)
    return p, beside, form.value(p, beside)


def bits(x):
    return np.asarray(x, np.float32).view(np.int32).astype(np.int64)


@pytest.mark.parametrize("how", ["split16", "master"])
def test_both_together_are_every_float32(how):
    """Normal, subnormal, zero, infinite and the largest, of both signs, bit for bit; NaN stays NaN."""
    x = all_kinds()
    got = np.asarray(kept(how, x, "bfloat16")[2])
    same = got.view(np.uint32) == x.view(np.uint32)
    assert same.all(), x[~same]
    p, _, value = kept(how, np.array([np.nan, 1], np.float32), "bfloat16")
    assert np.isnan(np.asarray(p, np.float32)[0]) and np.isnan(value[0]) and value[1] == 1


def test_split8_is_half_of_a_256th_of_a_bfloat16_away():
    """But for what lies between the last of the 256 and the next bfloat16, which is a whole one away."""
    x = all_kinds()
    _, beside, value = kept("split8", x, "bfloat16")
    assert beside.dtype == jnp.int8
    apart = np.abs(bits(value) - bits(x))
    last = np.asarray(beside) == 127
    assert apart[~last].max() <= 128 and apart[last].max() <= 255
    np.testing.assert_array_equal(np.signbit(value), np.signbit(x))


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_kahan_has_twice_the_digits(dtype):
    """Both together round to the parameter again."""
    about = ml_dtypes.finfo(dtype)
    x = all_kinds()
    x = x[np.abs(x) < float(about.max)]
    p, _, value = (np.asarray(a) for a in kept("kahan", x, np.dtype(dtype).name))
    bound = 2 * float(about.eps) ** 2 * np.abs(x.astype(np.float64)) + float(about.smallest_subnormal)
    # Some processors take for 0 what is subnormal in float32.
    near = np.abs(value.astype(np.float64) - x) <= np.maximum(
        bound, np.where(np.abs(x) < 2.0**-100, 2.0**-125, 0)
    )
    assert near.all(), (x[~near], value[~near])
    normal = np.abs(x) >= float(about.smallest_normal)
    np.testing.assert_array_equal(value.astype(dtype)[normal], p[normal])


def tree(make, dtype=None):
    return {k: jnp.asarray(make(s), dtype) for k, s in SHAPES.items()}


def values(how, params, state):
    """What parameters and what is beside them stand for."""
    beside = state["slots"]["precise_params"]["beside"]
    return {k: np.asarray(FORMS[how].value(p, beside[k]), np.float64) for k, p in params.items()}


@functools.partial(jax.jit, static_argnums=(0, 1))
def apply(tx, through_update, grads, state, params):
    if through_update:
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state
    return gradtx.apply_gradients(tx, grads, state, params)


class Reference:
    """One form in numpy: the value after a step to `new`, which is computed in float32."""

    def __init__(self, how, start):
        self.how, self.value = how, start.astype(np.float32)

    def step(self, u):
        new = self.value + np.asarray(u).astype(np.float32)
        if self.how == "kahan":
            p = new.astype(BF16)
            rest = (new - p.astype(np.float32)).astype(BF16)
            new = p.astype(np.float32) + rest.astype(np.float32)
        if self.how == "split8":
            whole = bits(new)
            p = (whole + 0x8000) >> 16 << 16
            behind = np.clip((whole - p + 128) // 256, -128, 127)
            new = (p + 256 * behind).astype(np.int32).view(np.float32)
        self.value = new


@pytest.mark.parametrize("how", KEEPING)
def test_a_trajectory_is_that_of_its_reference(how):
    """120 steps whose products are exact, so that nothing but the form rounds."""
    rng = np.random.default_rng(1)
    params = tree(lambda s: rng.normal(size=s), BF16)
    tx = gradtx.precise_params(gradtx.sgd(2.0**-9), how)
    state = tx.init(params)
    wanted = {k: Reference(how, np.asarray(p)) for k, p in params.items()}
    for _ in range(120):
        grads = tree(lambda s: rng.normal(size=s), BF16)
        params, state = apply(tx, False, grads, state, params)
        for k, g in grads.items():
            wanted[k].step(-(2.0**-9) * np.asarray(g, np.float32))
    for k, got in values(how, params, state).items():
        # Where a sum lies on a border the rest is one unit smaller, and the next steps see it.
        unit = {"kahan": 2.0**-15, "split8": 2.0**-15}.get(how, 0.0)
        np.testing.assert_allclose(got, wanted[k].value, rtol=unit, atol=0)


@pytest.mark.wide
@pytest.mark.parametrize("how", KEEPING)
def test_a_trajectory_is_that_of_float32(how):
    rng = np.random.default_rng(2)
    start = tree(lambda s: rng.normal(size=s), BF16)
    grads = jax.tree.map(
        lambda *x: jnp.stack(x), *[tree(lambda s: rng.normal(size=s), BF16) for _ in range(120)]
    )
    found = []
    for tx, params in (
        (gradtx.adamw(1e-4), jax.tree.map(lambda x: x.astype(jnp.float32), start)),
        (gradtx.precise_params(gradtx.adamw(1e-4), how), start),
        (gradtx.adamw(1e-4), start),
    ):

        @jax.jit
        def run(params, state, grads, tx=tx):
            def step(carry, g):
                return gradtx.apply_gradients(tx, g, carry[1], carry[0]), None

            return jax.lax.scan(step, (params, state), grads)[0]

        found.append(run(params, tx.init(params), grads))
    (exact, _), (params, state), (lost, _) = found
    got = values(how, params, state)
    for k in ("matrix", "vector"):
        wanted = np.asarray(exact[k], np.float64)
        bound = {"kahan": 120 * 2.0**-17, "split8": 120 * 2.0**-16}.get(how, 2.0**-22)
        np.testing.assert_allclose(got[k], wanted, rtol=bound, atol=0)
        moved = np.abs(wanted - np.asarray(start[k], np.float64))
        # In bfloat16 alone most of it is lost.
        off = np.abs(np.asarray(lost[k], np.float64) - wanted)
        assert np.mean(np.abs(got[k] - wanted)) < 0.2 * np.mean(off) < np.mean(moved)


JUMPS = np.array([1.0, -1.0, 1.0, 3.0, 1e-3, 100.0, -0.3, 2.0, 1.0, 0.0], np.float32)
TARGETS = np.array([1.001, -1.002, -0.7, 2.99, 5.0, 1e-3, 0.3, 0.499, 0.0, 1e-30], np.float32)


@pytest.mark.parametrize("through_update", [False, True], ids=["apply_gradients", "update"])
@pytest.mark.parametrize("how", KEEPING)
def test_a_step_goes_where_it_should_also_across_exponents_and_zero(how, through_update):
    """`update` as exactly as a difference of 16 bits can; with a gradient of 32 bits exactly."""
    params = jnp.asarray(JUMPS, jnp.bfloat16)
    tx = gradtx.precise_params(gradtx.sgd(1.0), how)
    start = np.asarray(params, np.float32)
    for dtype in ("bfloat16", "float32"):
        grads = jnp.asarray(start - TARGETS, dtype)
        wanted = (start - np.asarray(grads, np.float32)).astype(np.float64)
        new, state = apply(tx, through_update, grads, tx.init(params), params)
        got = np.asarray(FORMS[how].value(new, state["slots"]["precise_params"]["beside"]), np.float64)
        own = {"kahan": 2.0**-16, "split8": 2.0**-15}.get(how, 0.0) * np.abs(wanted) + 1e-45
        lost = 2.0**-8 * np.abs(wanted - start) if through_update and dtype == "bfloat16" else 0.0
        assert (np.abs(got - wanted) <= own + lost).all(), (dtype, got, wanted)


def identical(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()


def beside_of(state):
    """What is beside the parameters, wherever in a state."""
    if not isinstance(state, dict):
        return []
    here = [state["beside"]] if "beside" in state else []
    return here + [x for part in state.values() for x in beside_of(part)]


@pytest.mark.parametrize("how", FORMS)
@pytest.mark.parametrize("outside", [False, True], ids=["inside", "outside"])
def test_a_step_that_is_skipped_changes_no_bit(how, outside):
    inner = gradtx.sgd(1e-3)
    make = functools.partial(gradtx.apply_if_finite, max_consecutive_errors=5)
    tx = make(gradtx.precise_params(inner, how)) if outside else gradtx.precise_params(make(inner), how)
    rng = np.random.default_rng(4)
    params = tree(lambda s: rng.normal(size=s), BF16)
    state = tx.init(params)
    for through_update in (False, True):
        params, state = apply(tx, through_update, tree(lambda s: rng.normal(size=s), BF16), state, params)
        bad = {k: jnp.full(s, math.nan, jnp.bfloat16) for k, s in SHAPES.items()}
        new, after = apply(tx, through_update, bad, state, params)
        if how != "stochastic" or outside:
            identical(new, params)
        identical(beside_of(after), beside_of(state))
        assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in new.values())


@pytest.mark.parametrize("how", FORMS)
def test_a_parameter_that_somebody_changed_counts_as_it_is(how):
    params = jnp.asarray([1.0, -2.0, 0.5, 3.0], jnp.bfloat16)
    tx = gradtx.precise_params(gradtx.sgd(1e-4), how)
    params, state = apply(tx, False, jnp.ones(4, jnp.bfloat16), tx.init(params), params)
    # To another size, over zero, to the other sign alone, and to zero, where what is beside is negative.
    changed = jnp.asarray([100.0, 7.0, -0.5, 0.0], jnp.bfloat16)
    new, _ = apply(tx, False, jnp.zeros(4, jnp.bfloat16), state, changed)
    np.testing.assert_allclose(
        np.asarray(new, np.float32), np.asarray(changed, np.float32), rtol=2.0**-7, atol=1e-3
    )


@pytest.mark.parametrize("how", FORMS)
def test_mixed_trees_and_float16(how):
    params = {
        "half": jnp.asarray([0.5, 1e-6, -3.0], jnp.float16),
        "wide": jnp.asarray([0.5, 2.0], jnp.float32),
        "complex": jnp.asarray([1 + 1j], jnp.complex64),
        "none": None,
        "brain": jnp.asarray([1.0], jnp.bfloat16),
    }
    tx = gradtx.precise_params(gradtx.sgd(2.0**-14), how)
    if how.startswith("split"):
        with pytest.raises(ValueError, match="'half' is float16"):
            tx.init(params)
        params["half"] = params["half"].astype(jnp.bfloat16)
    state = tx.init(params)
    beside = state["slots"]["precise_params"]["beside"]
    assert beside["wide"] is None and beside["complex"] is None and beside["none"] is None
    start = params
    for _ in range(64):
        params, state = apply(tx, False, jax.tree.map(jnp.ones_like, params), state, params)
    for k in ("wide", "complex"):
        np.testing.assert_allclose(params[k], np.asarray(start[k]) - 64 * 2.0**-14, rtol=1e-6)
    if how != "stochastic":
        assert float(params["brain"][0]) == np.float32(1 - 64 * 2.0**-14).astype(BF16)
        got = np.asarray(params["half"], np.float64)
        np.testing.assert_allclose(got, np.asarray(start["half"], np.float64) - 64 * 2.0**-14, rtol=2.0**-8)


def test_steps_at_random_are_right_on_average():
    """Each is less than a rounding."""
    n, steps, rate = 1 << 16, 16, 2.0**-12
    tx = gradtx.precise_params(gradtx.sgd(rate), "stochastic")
    params = jnp.ones(n, jnp.bfloat16)
    state = tx.init(params)
    for _ in range(steps):
        params, state = apply(tx, False, jnp.ones(n, jnp.bfloat16), state, params)
    moved = 1 - np.asarray(params, np.float64)
    step = 2.0**-8
    deviation = math.sqrt(steps * rate * step / n)
    assert abs(moved.mean() - steps * rate) <= 4 * deviation
    assert len(np.unique(moved)) > 1


@pytest.mark.parametrize(
    "behind", [lambda: gradtx.scale(0.5), lambda: gradtx.clip(1.0), lambda: gradtx.add_decayed_weights(0.1)]
)
def test_nothing_changes_the_update_behind_it(behind):
    with pytest.raises(ValueError, match="precise_params"):
        gradtx.chain(gradtx.precise_params(gradtx.sgd(0.1)), behind()).init(jnp.ones(2, jnp.bfloat16))


@pytest.mark.parametrize(
    "around",
    [
        gradtx.precise_params,
        lambda tx: gradtx.precision(tx, "7-bytes"),
        lambda tx: gradtx.precise_params(gradtx.apply_if_finite(gradtx.chain(gradtx.clip(1.0), tx), 5)),
    ],
)
def test_one_inside_of_another_has_no_meaning(around):
    """It would be shown parameters in float32."""
    with pytest.raises(ValueError, match="Leave one of the two out"):
        around(gradtx.precise_params(gradtx.sgd(0.1), "kahan"))


@pytest.mark.wide
@pytest.mark.parametrize("outside", [False, True], ids=["inside", "outside"])
def test_accumulated_gradients_make_the_step_of_their_mean(outside):
    every = functools.partial(gradtx.accumulate, every=2)
    inner = gradtx.sgd(2.0**-9)
    tx = every(gradtx.precise_params(inner)) if outside else gradtx.precise_params(every(inner))
    params = jnp.asarray([1.0, -2.0], jnp.bfloat16)
    state = tx.init(params)
    for i in range(8):
        new, after = apply(tx, False, jnp.asarray([1.0, 2.0], jnp.bfloat16) * (1 + i % 2), state, params)
        if i % 2 == 0:
            identical(new, params)
            identical(beside_of(after), beside_of(state))
        params, state = new, after
    got = FORMS["split8"].value(params, *beside_of(state))
    np.testing.assert_allclose(got, [1 - 6 * 2.0**-9, -2 - 12 * 2.0**-9], rtol=2.0**-15)


@pytest.mark.wide
def test_one_program_serves_all_numbers_a_scan_and_a_sweep():
    params = jnp.asarray(np.linspace(-2, 2, 12).reshape(4, 3), jnp.bfloat16)
    grads = jnp.asarray(np.random.default_rng(3).normal(size=(10, 4, 3)), jnp.bfloat16)

    def run(rate):
        tx = gradtx.precise_params(gradtx.adamw(1e-3), "split16")
        state = gradtx.set_hyperparams(tx.init(params), learning_rate=rate)

        def body(carry, g):
            return gradtx.apply_gradients(tx, g, carry[1], carry[0]), None

        (p, state), _ = jax.lax.scan(body, (params, state), grads)
        return FORMS["split16"].value(p, *beside_of(state))

    rates = jnp.asarray([1e-4, 1e-3, 1e-2])
    sweep = jax.jit(jax.vmap(run))(rates)
    once = jax.jit(run)
    once(rates[0])
    each = list(rates)
    with compilations() as count:
        alone = [once(rate) for rate in each]
        assert count() == 0
    for one, other in zip(sweep, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6)
    # A step can be differentiated: the value after it by the rate.
    slope = jax.jit(jax.jacfwd(run))(rates[1])
    difference = (np.asarray(run(1.1e-3), np.float64) - np.asarray(run(0.9e-3), np.float64)) / 2e-4
    np.testing.assert_allclose(slope, difference, rtol=0.02, atol=1e-2)
