"""`gradtx.testing.check` passes what is sound, and finds each of the faults planted here."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import testing
from gradtx.testing import gradtx_laws


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", ["sgd", "adamw", "lion"])
def test_sound_optimizers_of_optax_pass(name):
    # Optax adds Python scalars to arrays of other dtypes.
    with jax.numpy_dtype_promotion("standard"):
        testing.check(getattr(optax, name)(1e-2))


@pytest.mark.wide
def test_a_chain_with_a_foreign_member_passes():
    testing.check(gradtx.chain(gradtx.clip(1.0), optax.trace(0.9), gradtx.sgd(0.1)))


def test_an_unknown_law_is_an_error():
    with pytest.raises(ValueError, match=r"There is no law 'gravity'. There are .*jit_equals_eager"):
        testing.check(gradtx.sgd(0.1), skip=["gravity"])


def stateless(change):
    """An optimizer that only changes the gradients, as a function of the tree."""
    return gradtx.GradientTransformation(lambda params: (), lambda g, s, p=None: (change(g), s))


def scaled(grads, factor):
    return jax.tree.map(lambda g: factor * g, grads)


def norm_scaled(grads):
    return scaled(grads, 1 / gradtx.global_norm(grads))


def impure():
    calls = iter(range(1000))
    return stateless(lambda grads: scaled(grads, 1.0 + next(calls)))


def counting(dtype):
    """An optimizer whose counter starts as an int32 and comes out in another dtype."""
    return gradtx.GradientTransformation(
        lambda params: jnp.zeros((), jnp.int32), lambda g, s, p=None: (g, (s + 1).astype(dtype))
    )


def keeping(keep):
    """An optimizer with the parameters in its state."""
    return gradtx.GradientTransformation(lambda params: keep(params), lambda g, s, p=None: (g, s))


class Stuck(gradtx.Rule, name="stuck"):
    """u = g rate, with a rate that is taken from the code and not from the state."""

    rate: gradtx.Number

    code = 0.1

    def apply(self, g, slots, leaf):
        return g * self.code, slots


class Detached(gradtx.Rule, name="detached"):
    """u = g rate, without a derivative with respect to the rate."""

    rate: gradtx.Number

    def apply(self, g, slots, leaf):
        return g * jax.lax.stop_gradient(self.rate), slots


PLANTED = {
    "state_in_is_state_out": counting(jnp.float32),
    "updates_have_the_promoted_dtype": stateless(lambda g: jax.tree.map(lambda x: x.astype("bfloat16"), g)),
    "two_runs_are_identical": impure(),
    "init_aliases_nothing": keeping(lambda params: params),
    "abstract_init_matches": keeping(
        lambda params: jax.tree.map(lambda x: 0 if isinstance(x, jax.core.Tracer) else x + 1, params)
    ),
    "zero_gradients_are_finite": stateless(lambda g: jax.tree.map(lambda x: x / abs(x), g)),
    "nan_stays_in_its_leaf": stateless(norm_scaled),
    "jit_equals_eager": stateless(
        lambda g: scaled(g, 1.0 if isinstance(jax.tree.leaves(g)[0], jax.core.Tracer) else 1.001)
    ),
    "hyperparameters_have_gradients": Detached(rate=0.1),
}


@pytest.mark.by_turns(6)
@pytest.mark.parametrize("law", PLANTED)
def test_a_planted_fault_is_found(law):
    case = testing.Case(PLANTED[law], compiled=law != "two_runs_are_identical")
    with pytest.raises(AssertionError, match=law):
        case.obeys(law)


def test_numbers_that_are_not_in_the_state_are_found():
    class Other(Stuck, name="stuck"):
        """The same, built with another number."""

        code = 0.2

    case = testing.Case(Stuck(rate=0.1), alternative=Other(rate=0.2))
    with pytest.raises(AssertionError, match=r"numbers_live_in_the_state: params bias"):
        case.obeys("numbers_live_in_the_state")


# The law about derivatives, on functions of a number x: what it is asked of, and what not.

SMOOTH = {
    "a cube": (lambda x: x**3, 2.0, 12.0),
    "of a tiny number": (lambda x: 1e3 * x / (x + 1e-7), 1e-8, 1e10 / 1.21),
    "at 0": (lambda x: math.expm1(3 * x), 0.0, 3.0),
    "small beside its value": (lambda x: 1e3 + 1e-3 * x, 1.0, 1e-3),
}


@pytest.mark.parametrize("function, x, slope", SMOOTH.values(), ids=SMOOTH)
def test_a_wrong_derivative_is_denied(function, x, slope):
    def denied(given):
        return gradtx_laws._denied(function, x, given, lambda x: True)

    assert denied(slope) is None
    for wrong in (slope * 1.01, -slope, 0.0, math.nan):
        assert denied(wrong) == pytest.approx(slope, rel=1e-3)


def test_a_number_beyond_whose_end_there_is_nothing_has_the_slope_of_one_side():
    def root(x):
        return math.nan if x < 0 else x * (1 + x)

    for given, found in ((1.0, None), (0.5, pytest.approx(1.0))):
        assert gradtx_laws._denied(root, 0.0, given, lambda x: x >= 0) == found


def test_at_a_kink_every_slope_between_its_sides_is_one():
    for slope, is_one in ((-1.0, True), (0.0, True), (1.0, True), (1.01, False), (-2.0, False)):
        assert (gradtx_laws._denied(abs, 0.0, slope, lambda x: True) is None) == is_one


def test_nothing_is_asked_of_a_count_or_at_a_jump():
    rng = np.random.default_rng(0)
    assert gradtx_laws._denied(math.floor, 3.0, 7.0, lambda x: x == int(x)) is None
    assert gradtx_laws._denied(lambda x: float(x > 3), 3.0, 0.0, lambda x: True) is None
    assert gradtx_laws._denied(lambda x: rng.standard_normal(), 3.0, 0.5, lambda x: True) is None


@pytest.mark.wide
@pytest.mark.parametrize("name", ["soap", "scale_by_adadelta", "scale_by_factored_rms"])
def test_what_rounding_decides_or_a_tiny_number_is_no_fault(name):
    """SOAP's first basis is that of a matrix without full rank, which rounding completes."""
    testing.Case(getattr(gradtx, name)()).obeys("hyperparameters_have_gradients")


@pytest.mark.wide
@pytest.mark.parametrize("dtype", ["bfloat16", "bfloat16_stochastic"])
def test_a_mean_that_forgets_less_than_its_format_rounds_is_no_fault(dtype):
    tx = gradtx.store(gradtx.scale_by_adam(b2=0.9999), nu=dtype, min_size=0, seed=1)
    testing.Case(tx).obeys("slots_are_what_they_are_declared")


def test_the_page_of_the_laws_has_each_of_them():
    page = (Path(__file__).parents[1] / "docs" / "laws.md").read_text()
    for name, law in testing.LAWS.items():
        star = "*" if name in testing.OURS else ""
        assert f"| `{name}`{star} | {law.__doc__} |" in page, "python tests/laws_report.py writes it"
