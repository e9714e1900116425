"""Bad arguments and unknown names: each error says what was given and what is wanted, word for word."""

from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

NUMBER = " must be a number, a 0-d array or a schedule, got "
CLIMBS = " A negative one climbs; to maximize, negate the loss."

AT_CONSTRUCTION = {
    "a negative eps": (
        lambda: gradtx.scale_by_adam(eps=-1e-8),
        ValueError,
        "scale_by_adam: eps must be >= 0, got -1e-08.",
    ),
    "a decay of 1": (
        lambda: gradtx.adam(0.1, b1=1.0),
        ValueError,
        "scale_by_adam: b1 must be in [0, 1), got 1.0.",
    ),
    "a negative decay": (lambda: gradtx.ema(-0.1), ValueError, "ema: decay must be in [0, 1), got -0.1."),
    "a negative learning rate": (
        lambda: gradtx.adam(-1e-3),
        ValueError,
        "scale_by_learning_rate: learning_rate must be >= 0, got -0.001." + CLIMBS,
    ),
    "a NaN": (
        lambda: gradtx.sgd(float("nan")),
        ValueError,
        "scale_by_learning_rate: learning_rate must be >= 0, got float('nan')." + CLIMBS,
    ),
    "a NaN where any number will do": (
        lambda: gradtx.scale(float("nan")),
        ValueError,
        "scale: step_size must be a number other than NaN, got float('nan').",
    ),
    "a momentum over 1": (lambda: gradtx.trace(1.5), ValueError, "trace: decay must be in [0, 1], got 1.5."),
    "a negative norm": (
        lambda: gradtx.clip_by_global_norm(-1.0),
        ValueError,
        "clip_by_global_norm: max_norm must be >= 0, got -1.0.",
    ),
    "a string": (lambda: gradtx.sgd("0.1"), TypeError, f"sgd: learning_rate{NUMBER}'0.1'."),
    "a bool": (lambda: gradtx.sgd(True), TypeError, f"sgd: learning_rate{NUMBER}True."),
    "a vector": (
        lambda: gradtx.sgd(jnp.ones(3)),
        ValueError,
        "sgd: learning_rate must be a number, got an array of shape (3,). To try several values at once, "
        "build "
        "the optimizer under jax.vmap.",
    ),
    "a schedule of no length": (
        lambda: gradtx.linear_schedule(1.0, 0.0, 0),
        ValueError,
        "linear_schedule: transition_steps must be > 0, got 0.",
    ),
    "a cosine of negative length": (
        lambda: gradtx.cosine_decay_schedule(1.0, -5),
        ValueError,
        "cosine_decay_schedule: decay_steps must be > 0, got -5.",
    ),
    "an exponential of no length": (
        lambda: gradtx.exponential_decay(1.0, 0, 0.5),
        ValueError,
        "exponential_decay: transition_steps must be > 0, got 0.",
    ),
    "a polynomial of no length": (
        lambda: gradtx.polynomial_schedule(1.0, 0.0, 2, 0),
        ValueError,
        "polynomial_schedule: transition_steps must be > 0, got 0.",
    ),
    "a decay that is over before the warmup": (
        lambda: gradtx.warmup_linear_decay_schedule(0.0, 1.0, 10, 10),
        ValueError,
        "warmup_linear_decay_schedule: decay_steps counts from the start, warmup included, and must be "
        "greater than warmup_steps; got 10 and 10.",
    ),
    "the same with a cosine": (
        lambda: gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 5),
        ValueError,
        "warmup_cosine_decay_schedule: decay_steps counts from the start, warmup included, and must be "
        "greater than warmup_steps; got 5 and 10.",
    ),
    "schedules and boundaries that do not fit": (
        lambda: gradtx.join_schedules([gradtx.constant_schedule(1.0)], [1, 2]),
        ValueError,
        "join_schedules: 1 schedules need 0 boundaries, got 2.",
    ),
    "an optimizer that was not called": (
        lambda: gradtx.chain(gradtx.adam),
        TypeError,
        "chain takes transforms, with init and update; got gradtx.adam. Call it: adam(...).",
    ),
    "a number in a chain": (
        lambda: gradtx.chain(gradtx.sgd(0.1), 3),
        TypeError,
        "chain takes transforms, with init and update; got 3.",
    ),
    "a number in a wrapper": (
        lambda: gradtx.accumulate(3, 2),
        TypeError,
        "accumulate takes transforms, with init and update; got 3.",
    ),
    "a wrapped optimizer that was not called": (
        lambda: gradtx.guard(gradtx.adam),
        TypeError,
        "guard takes transforms, with init and update; got gradtx.adam. Call it: adam(...).",
    ),
    "a list in a chain": (
        lambda: gradtx.chain([gradtx.sgd(0.1)]),
        TypeError,
        "chain takes transforms, with init and update; got [sgd(0.1)].",
    ),
    "a named chain without names": (
        lambda: gradtx.named_chain(gradtx.sgd(0.1)),
        TypeError,
        "named_chain takes pairs (name, transform), got sgd(0.1).",
    ),
    "a name that stands twice": (
        lambda: gradtx.named_chain(("a", gradtx.sgd(0.1)), ("a", gradtx.sgd(0.1))),
        ValueError,
        "named_chain: 'a' is taken; give each transform a name of its own.",
    ),
    "an unknown treatment of the rest": (
        lambda: gradtx.masked(gradtx.sgd(0.1), "*", outside="keep"),
        ValueError,
        "masked: outside must be 'pass' or 'zero', got 'keep'.",
    ),
    "an unknown coupling": (
        lambda: gradtx.adamw(0.1, decay_coupling="paper"),
        ValueError,
        "adamw: decay_coupling must be 'gradient', 'rate', 'cautious', 'schedule' or 'none', got 'paper'.",
    ),
    "key and seed": (
        lambda: gradtx.add_noise(0.1, 0.5, key=1, seed=2),
        ValueError,
        "add_noise: give key or seed, not both.",
    ),
    "a preset that there is not": (
        lambda: gradtx.precision(gradtx.sgd(0.1), "8bits"),
        ValueError,
        "precision: there is no preset '8bits'. There are 'f32', 'bf16', '8bit', '7-bytes'. Did "
        "you mean '8bit'?",
    ),
    "a preset in place of slots": (
        lambda: gradtx.precision(gradtx.sgd(0.1), slots="8bit"),
        TypeError,
        "precision: slots are formats by the name of each slot, as slots={'nu': 'float32'}; got '8bit'. A "
        "preset stands before them: gradtx.precision(tx, '8bit').",
    ),
}

FOREIGN_ARGUMENTS = {
    "lr": (
        lambda: gradtx.adam(lr=1e-3),
        TypeError,
        "adam has no argument 'lr'. It is called 'learning_rate' here.",
    ),
    "betas": (
        lambda: gradtx.adam(1e-3, betas=(0.8, 0.95)),
        TypeError,
        "adam has no argument 'betas'. Give the two decays by name: b1=0.8, b2=0.95.",
    ),
    "beta1": (
        lambda: gradtx.scale_by_adam(beta1=0.9),
        TypeError,
        "scale_by_adam has no argument 'beta1'. It is called 'b1' here.",
    ),
    "epsilon": (
        lambda: gradtx.adam(1e-3, epsilon=1e-7),
        TypeError,
        "adam has no argument 'epsilon'. It is called 'eps' here.",
    ),
    "alpha": (
        lambda: gradtx.rmsprop(1e-3, alpha=0.99),
        TypeError,
        "rmsprop has no argument 'alpha'. It is called 'decay' here.",
    ),
    "max_grad_norm": (
        lambda: gradtx.clip_by_global_norm(max_grad_norm=1.0),
        TypeError,
        "clip_by_global_norm has no argument 'max_grad_norm'. It is called 'max_norm' here.",
    ),
    "total_steps": (
        lambda: gradtx.cosine_decay_schedule(1.0, total_steps=10),
        TypeError,
        "cosine_decay_schedule has no argument 'total_steps'. It is called 'decay_steps' here.",
    ),
    "a misspelling": (
        lambda: gradtx.adam(1e-3, nestrov=True),
        TypeError,
        "adam has no argument 'nestrov'. Did you mean 'nesterov'?",
    ),
    "nothing alike": (
        lambda: gradtx.scale(color=1),
        TypeError,
        "scale has no argument 'color'. It takes step_size.",
    ),
    "no argument at all": (
        lambda: gradtx.sign(1),
        TypeError,
        "sign: too many positional arguments. Call it as sign().",
    ),
    "a missing argument": (
        lambda: gradtx.noisy_sgd(),
        TypeError,
        "noisy_sgd: missing a required argument: 'learning_rate'. Call it as noisy_sgd(learning_rate, "
        "eta=0.01, gamma=0.55, key=None, *, seed=None).",
    ),
}


@pytest.mark.brief
@pytest.mark.parametrize("case", [*AT_CONSTRUCTION, *FOREIGN_ARGUMENTS])
def test_of_arguments(case):
    call, kind, message = {**AT_CONSTRUCTION, **FOREIGN_ARGUMENTS}[case]
    with pytest.raises(kind, match="^" + re.escape(message) + r"(\nThis was raised while \w+ was built\.)?$"):
        call()


def test_an_error_inside_a_recipe_names_the_recipe():
    with pytest.raises(ValueError, match="scale_by_adam: eps") as caught:
        gradtx.adamw(0.1, eps=-1.0)
    assert caught.value.__notes__ == ["This was raised while adamw was built."]


@pytest.mark.parametrize("name", ["softmax_cross_entropy_with_integer_labels", "l2_loss", "losses"])
def test_a_loss_is_optaxs(name):
    with pytest.raises(AttributeError, match=f"leaves losses to Optax: use optax.{name}. Only the optimizer"):
        getattr(gradtx, name)


@pytest.mark.parametrize("name", ["power_iteration", "projections"])
def test_what_only_optax_has_is_optaxs(name):
    with pytest.raises(
        AttributeError, match=f"gradtx has no '{name}'. Optax's works beside it, .*optax.{name}"
    ):
        getattr(gradtx, name)


def test_an_unknown_name_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'gradtx' has no attribute 'adma'$"):
        gradtx.adma  # noqa: B018
    assert not hasattr(gradtx, "__wrapped__")


@pytest.mark.parametrize("value", [float("inf"), 1e40, jnp.float32(jnp.inf)])
def test_a_number_is_finite_in_its_dtype(value):
    for build in (
        gradtx.adam,
        lambda x: gradtx.adam(0.1, eps=x),
        lambda x: gradtx.linear_schedule(0.0, x, 5),
        lambda x: gradtx.join_schedules([x, 1.0], [3]),
    ):
        with pytest.raises(ValueError, match="and finite in float32; got"):
            build(value)
    state = gradtx.adam(0.1).init(jnp.zeros(2))
    with pytest.raises(ValueError, match="learning_rate must be >= 0, and finite in float32; got"):
        gradtx.set_hyperparams(state, learning_rate=value)


@pytest.mark.wide
def test_infinity_is_a_limit_that_limits_nothing():
    inf = float("inf")
    for build in (gradtx.clip, gradtx.clip_by_global_norm, gradtx.clip_by_block_rms):
        tx, g = build(inf), jnp.array([1.0, 1e30])
        assert tx.update(g, tx.init(g))[0].tolist() == g.tolist()
    state = gradtx.set_hyperparams(gradtx.clip_by_global_norm(1.0).init(jnp.zeros(2)), max_norm=inf)
    assert gradtx.hyperparams(state) == {"max_norm": inf}
    gradtx.guard(gradtx.sgd(0.1), deviations=inf, warmup=inf, patience=inf)
    gradtx.apply_if_finite(gradtx.sgd(0.1), inf)


def test_what_must_be_positive_is_so_in_its_dtype():
    with pytest.raises(ValueError, match="estim_lr0 must be > 0 in float32, where 1e-50 is 0"):
        gradtx.prodigy(estim_lr0=1e-50)


def test_the_numbers_of_a_schedule_have_a_meaning_together_also_in_a_state():
    with pytest.raises(ValueError, match=r"scales must be >= 0, got -1\.0"):
        gradtx.piecewise_constant_schedule(1.0, {5: -1.0})
    for boundaries, error in (((8, 5), "must ascend.*5 comes after 8"), ((-1, 5), "boundaries must be >= 0")):
        with pytest.raises(ValueError, match=error):
            gradtx.join_schedules([1.0, 2.0, 3.0], boundaries)

    def state(schedule):
        return gradtx.sgd(schedule).init(jnp.zeros(2))

    joined = state(gradtx.join_schedules([gradtx.linear_schedule(0.0, 1.0, 2), 2.0, 3.0], [5, 8]))
    stepped = state(gradtx.piecewise_constant_schedule(1.0, {5: 0.5}))
    warm = state(gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 2, 6))
    for given, name, value, error in (
        (joined, "learning_rate.boundaries.0", 9, "must ascend.*8.0 comes after 9"),
        (joined, "learning_rate.boundaries.0", -9, "must be >= 0, got -9"),
        (stepped, "learning_rate.scales.0", -1.0, "must be >= 0, got -1.0"),
        (warm, "learning_rate.warmup_steps", 9, "must be greater than warmup_steps; got 6.0 and 9.0"),
    ):
        with pytest.raises(ValueError, match=error):
            gradtx.set_hyperparams(given, **{name: value})
    both = {"learning_rate.boundaries.0": 9, "learning_rate.boundaries.1": 10}
    assert gradtx.hyperparams(gradtx.set_hyperparams(joined, **both)).items() >= both.items()


PERIODS = {
    "accumulate": lambda n: gradtx.accumulate(gradtx.sgd(0.1), n),
    "MultiSteps": lambda n: gradtx.MultiSteps(gradtx.sgd(0.1), n),
    "lookahead": lambda n: gradtx.lookahead(gradtx.sgd(0.1), n, 0.5),
    "track": lambda n: gradtx.track(gradtx.sgd(0.1), every=n),
    "apply_every": gradtx.apply_every,
}


@pytest.mark.parametrize("name", PERIODS)
def test_a_number_of_calls_is_a_whole_one_that_a_count_reaches(name):
    """A count of 1.5 would run as 2, and of 2^31 never."""
    last, error = 2**31 - 1, "must be a whole number from 1 to 2147483647"
    state = PERIODS[name](last).init(jnp.zeros(2))
    names = {name.rpartition(".")[2]: name for name in gradtx.hyperparams(state)}
    (argument,) = {"every", "sync_period", "k"} & set(names)
    for wrong in (0, 0.5, 1.5, 2**31, 2.0**31, float("inf"), np.float32(2.5)):
        with pytest.raises(ValueError, match=f"{name}: {argument} {error}, got"):
            PERIODS[name](wrong)
        with pytest.raises(ValueError, match=f"{argument} {error}, got"):
            gradtx.set_hyperparams(state, **{argument: wrong})
    for right in (1, 3.0, last):
        changed = gradtx.set_hyperparams(state, **{argument: right})
        assert gradtx.hyperparams(changed)[names[argument]] == right


@pytest.mark.parametrize("period", [0, 1.5, 2**31])
def test_a_period_of_an_update_is_a_whole_number(period):
    with pytest.raises(ValueError, match="periodic_update: update_period must be a whole number from 1"):
        gradtx.periodic_update(jnp.ones(2), jnp.zeros(2), 0, period)
