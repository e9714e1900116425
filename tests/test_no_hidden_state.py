"""The state and the spec decide: nothing that this process has built, run or kept."""

import gc
import math
import pickle
import subprocess
import sys
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from catalogue import ENTRIES
from counting import compilations
from gradtx.core.numbers.domains import domain_of
from gradtx.core.numbers.schedule import SCHEDULES
from gradtx.core.spec.fields import ANY, DECAY

PARAMS = {"w": jnp.ones(3)}
GRADS = {"w": jnp.array([1.0, 2.0, 3.0])}


def moved(tx, state):
    return np.asarray(tx.update(GRADS, state, PARAMS)[0]["w"] / GRADS["w"])


# Numbers that were given as arrays.


def test_equal_transforms_do_the_same_whichever_made_the_state():
    made, other = gradtx.sgd(jnp.float32(0.1)), gradtx.sgd(jnp.float32(0.1))
    state = made.init(PARAMS)
    assert made == other and hash(made) == hash(other)
    np.testing.assert_array_equal(moved(made, state), moved(other, state))
    state = gradtx.set_hyperparams(state, learning_rate=0.5)
    for tx in (made, other):
        with pytest.raises(ValueError, match=r"array 0\.1, and is 0\.5 in .*rebase.*set_hyperparams"):
            tx.update(GRADS, state, PARAMS)
        np.testing.assert_allclose(moved(tx, gradtx.rebase(tx, state)[0]), -0.1, rtol=1e-6)
    np.testing.assert_array_equal(moved(gradtx.sgd(0.1), state), np.float32(-0.5))


def test_under_jit_the_states_number_is_in_force_whichever_is_traced_first():
    step = jax.jit(lambda tx, state: tx.update(GRADS, state, PARAMS)[0]["w"], static_argnums=0)
    state = gradtx.sgd(0.5).init(PARAMS)
    for tx in (gradtx.sgd(jnp.float32(0.1)), gradtx.sgd(jnp.float32(0.1))):
        np.testing.assert_array_equal(step(tx, state), -0.5 * GRADS["w"])


def test_a_decay_given_as_an_array_is_compared_too():
    tx = gradtx.adam(0.1, b1=jnp.float32(0.9))
    state = tx.init(PARAMS)
    tx.update(GRADS, state, PARAMS)
    with pytest.raises(ValueError, match="b1"):
        tx.update(GRADS, gradtx.set_hyperparams(state, b1=0.5), PARAMS)


@pytest.mark.wide
def test_a_restored_state_is_not_ignored_in_a_new_process(tmp_path):
    (tmp_path / "state").write_bytes(pickle.dumps(jax.device_get(gradtx.sgd(0.5).init(PARAMS))))
    code = f"""
import pickle, gradtx, jax.numpy as jnp
state = pickle.load(open({str(tmp_path / "state")!r}, "rb"))
for rate in (0.1, jnp.float32(0.1)):
    try:
        print(gradtx.sgd(rate).update({{"w": jnp.ones(3)}}, state)[0]["w"].tolist())
    except ValueError as error:
        print(error)
for wrong in ({{"learning_rate": -1.0}}, {{"learning_rate": float("nan")}}):
    try:
        gradtx.set_hyperparams(state, **wrong)
        print("accepted", wrong)
    except ValueError as error:
        print(error)
"""
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    first, second, *others = lines.splitlines()
    assert first == "[-0.5, -0.5, -0.5]" and "is 0.5 in the state" in second
    assert len(others) == 2 and all("learning_rate must be >= 0" in line for line in others)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("compiled", [False, True])
def test_optaxs_inject_hyperparams_around_gradtx(compiled):
    ours, theirs = (
        optax.inject_hyperparams(factory)(learning_rate=optax.linear_schedule(0.5, 0.1, 4), b1=0.9)
        for factory in (gradtx.adam, optax.adam)
    )
    states, params = [ours.init(PARAMS), theirs.init(PARAMS)], PARAMS
    update = [jax.jit(tx.update) if compiled else tx.update for tx in (ours, theirs)]
    for step in range(6):
        if step == 3:
            for state in states:
                state.hyperparams["b1"] = jnp.asarray(0.5)
        with jax.numpy_dtype_promotion("standard"):  # Optax's schedules ask for it
            results = [u(GRADS, s, params) for u, s in zip(update, states, strict=True)]
        states = [state for _, state in results]
        np.testing.assert_allclose(results[0][0]["w"], results[1][0]["w"], rtol=1e-5)


# The domain of a number.


def numbers(tx):
    """The paths of all numbers of a transform, with the domain that its specs give them."""
    for program in [tx.program, *(p.program for p in tx.program.wrapped.values() if hasattr(p, "program"))]:
        for unit in program.rules:
            for field, (scope, argument) in unit.sources.items():
                declared = unit.transform.fields()[field]
                value = unit.transform.__dict__[field]
                if isinstance(value, float | int):
                    name = f"one_minus_{argument}" if declared.decay else argument
                    yield (*scope, name), DECAY if declared.decay else declared.domain


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_state_says_the_domain_that_the_spec_says(entry):
    for path, domain in numbers(ENTRIES[entry].transform()):
        assert domain_of(path).words == domain.words, path


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedules_numbers_have_its_domains(name):
    for key, field in SCHEDULES[name].fields().items():
        path = ("adamw", "learning_rate", name, key)
        assert domain_of(path).words == (field.domain or field.elements or ANY).words


def test_another_rule_of_the_same_name_makes_no_transform_stricter():
    state = gradtx.scale(-1.0).init(PARAMS)

    class Scale(gradtx.Rule, name="scale"):
        step_size: gradtx.Positive

        def apply(self, g, slots, leaf):
            return self.step_size * g, slots

    assert gradtx.hyperparams(gradtx.set_hyperparams(state, step_size=-2.0)) == {"step_size": -2.0}
    own = Scale(step_size=1.0).init(PARAMS)
    assert gradtx.hyperparams(gradtx.set_hyperparams(own, step_size=-2.0)) == {"step_size": -2.0}


def test_a_users_rule_changes_nothing_for_the_librarys_optimizers():
    class Climb(gradtx.Rule, name="climb"):
        learning_rate: gradtx.Number

        def apply(self, g, slots, leaf):
            return self.learning_rate * g, slots

    state = Climb(learning_rate=-1.0).init(PARAMS)
    assert gradtx.hyperparams(gradtx.set_hyperparams(state, learning_rate=-2.0)) == {"learning_rate": -2.0}
    with pytest.raises(ValueError, match="learning_rate must be >= 0"):
        gradtx.set_hyperparams(gradtx.adamw(0.1).init(PARAMS), learning_rate=-2.0)


# Names that something of the user's shares with something else.


def defined(name, bases=(gradtx.Schedule,)):
    """A schedule of a name, as a user defines it."""

    class Own(*bases, name=name):
        value: gradtx.Number

        def at(self, step):
            return self.value + 0 * step

    Own.__qualname__ = f"defined.{name}"
    return Own


@pytest.mark.parametrize("name", ["eps", "adam", "learning_rate", "value"])
def test_a_schedule_called_as_something_else_changes_nothing(name):
    tx = gradtx.adam(gradtx.constant_schedule(0.1))
    state = tx.init(PARAMS)
    before = gradtx.hyperparams(state), moved(tx, state)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SCHEDULES, name, defined(name))
        assert domain_of(("adam", "eps")).words == ">= 0"
        assert gradtx.hyperparams(tx.init(PARAMS)) == gradtx.hyperparams(state) == before[0]
        np.testing.assert_array_equal(moved(tx, state), before[1])
        after = gradtx.set_hyperparams(state, eps=0.5)
        assert gradtx.hyperparams(after)["eps"] == 0.5
        assert gradtx.rebase(tx, after)[1] == {"eps": (0.5, 1e-8)}
        own = gradtx.sgd(SCHEDULES[name](value=0.25))
        assert gradtx.hyperparams(own.init(PARAMS))["learning_rate.value"] == 0.25


def test_a_label_may_be_called_as_a_schedule_is():
    groups = {"linear_schedule": gradtx.sgd(gradtx.linear_schedule(0.5, 0.1, 4)), "eps": gradtx.sgd(2.0)}
    labels = {"w": "linear_schedule", "*": "eps"}
    parted = gradtx.partition(groups, labels)
    assert gradtx.hyperparams(parted.init(PARAMS))["linear_schedule.sgd.learning_rate"] == 0.5
    factors = gradtx.scale_by_group({"linear_schedule": 0.5, "eps": 2.0}, labels)
    state = gradtx.set_hyperparams(factors.init(PARAMS), linear_schedule=0.25)
    np.testing.assert_array_equal(moved(factors, state), np.float32(0.25))


@pytest.mark.parametrize("name", ["", "linear_schedule", "callable"])
def test_a_schedule_that_a_state_would_take_for_another_is_an_error(name):
    line = type(gradtx.linear_schedule(0.0, 1.0, 4))
    with pytest.raises(TypeError, match=r"Own: a state tells a schedule by its name, and .*name=\.\.\."):

        class Own(line, name=name):
            """It has a name that means another one."""

    assert SCHEDULES["linear_schedule"] is line and "callable" not in SCHEDULES


def test_a_recipe_called_as_one_of_gradtx_leaves_that_as_it_is():
    ours = gradtx.sgd(0.1, momentum=0.9)

    @gradtx.recipe
    def sgd(learning_rate: gradtx.ScalarOrSchedule = 0.1, momentum: gradtx.ScalarOrSchedule = 0.9):
        return gradtx.sgd(learning_rate, momentum)

    assert repr(ours) == "sgd(0.1, momentum=0.9)" and repr(sgd()) == "sgd()"
    assert gradtx.from_config(gradtx.to_config(ours)) == ours
    with pytest.raises(ValueError, match="another recipe of the same name"):
        gradtx.to_config(sgd(0.5))


# What a recipe does with its arguments.


def recipe_of(change):
    @gradtx.recipe
    def half(learning_rate: gradtx.ScalarOrSchedule):
        return gradtx.sgd(change(learning_rate))

    return half


ARITHMETIC = {
    "product": lambda x: x * 0.5,
    "product from the right": lambda x: 0.5 * x,
    "sum": lambda x: x + 1,
    "difference": lambda x: 1 - x,
    "quotient": lambda x: x / 2,
    "negation": lambda x: -x,
    "power": lambda x: x**2,
    "magnitude": lambda x: abs(x),
    "float": lambda x: float(x) / 2,
    "jnp": lambda x: jnp.sqrt(x),
    "numpy": lambda x: np.sqrt(x),
    "jnp.asarray": lambda x: jnp.asarray(x),
    "jnp.float32": lambda x: jnp.float32(x),
    "jnp.multiply": lambda x: jnp.multiply(x, 2),
    "lax": lambda x: jax.lax.mul(x, 2.0),
    "np.asarray": lambda x: np.asarray(x),
    "np.float32": lambda x: np.float32(x),
    "a list": lambda x: np.asarray([x, x])[0],
    "math": lambda x: math.sqrt(x),
    "math of several": lambda x: math.fsum([x, x]),
    "rounding": lambda x: math.floor(x),
    "a comparison": lambda x: 0.1 if x == 0.1 else 0.2,
}


@pytest.mark.parametrize("change", ARITHMETIC.values(), ids=ARITHMETIC)
def test_arithmetic_on_an_argument_of_a_recipe_is_an_error(change):
    with pytest.raises(TypeError, match=r"half.*learning_rate.*chain\("):
        recipe_of(change)(0.1)
    with pytest.raises(TypeError, match=r"half.*learning_rate"):
        recipe_of(change)(jnp.float32(0.1))
    if change(2.0) == change(jnp.float32(2.0)) == 2.0:
        return  # conversions to an array leave a traced number as it is
    with pytest.raises(TypeError):  # the conversion of a traced number is JAX's own error
        jax.jit(lambda rate: recipe_of(change)(rate).init(PARAMS)["numbers"])(0.1)


HOLDING = {
    "a schedule": lambda x: gradtx.sgd(lambda t: math.sqrt(x) * 0.5**t),
    "a default": lambda x: gradtx.sgd(lambda t, rate=x: math.sqrt(rate)),
    "a function of updates": lambda x: gradtx.stateless(lambda u, p: jax.tree.map(lambda g: g * x, u)),
    "another library's": lambda x: gradtx.chain(optax.scale(x)),
    "inside a group": lambda x: gradtx.partition({"a": gradtx.sgd(lambda t: math.exp(x))}, lambda p, v: "a"),
}


@pytest.mark.parametrize("compose", HOLDING.values(), ids=HOLDING)
def test_a_function_that_holds_an_argument_is_an_error(compose):
    """It would compute from the number that was given, whatever is set in the state."""

    @gradtx.recipe
    def half(learning_rate: gradtx.ScalarOrSchedule):
        return compose(learning_rate)

    with pytest.raises(TypeError, match=r"half: learning_rate must be passed on as it is"):
        half(0.1)


@pytest.mark.parametrize("other", [0.1, np.float32(0.1), jnp.float32(0.1), np.int64(1)], ids=repr)
def test_a_comparison_of_an_argument_with_a_number_is_an_error(other):
    with pytest.raises(TypeError, match=r"half: learning_rate"):
        recipe_of(lambda x: x if x == other else 0.5)(0.1)
    assert recipe_of(lambda x: 0.5 if x is None or x == "auto" else x)(0.1)


def test_factors_of_groups_that_are_a_recipes_arguments_are_numbers():
    @gradtx.recipe
    def grouped(learning_rate: float, head: float):
        scaled = gradtx.scale_by_group({"head": head, "body": 1.0}, {"*w*": "head", "*": "body"})
        return gradtx.chain(scaled, gradtx.sgd(learning_rate))

    tx = grouped(0.1, 0.5)
    assert "'head': 0.5" in repr(tx.inner) and tx.inner == grouped(0.1, 0.5).inner
    assert gradtx.hyperparams(tx.init(PARAMS))["head"] == 0.5


@pytest.mark.parametrize("annotation", [float, float | None, gradtx.Scalar, None])
def test_a_number_is_an_argument_whatever_its_annotation(annotation):
    def half(learning_rate):
        return gradtx.sgd(learning_rate * 0.5)

    half.__annotations__ = {} if annotation is None else {"learning_rate": annotation}
    with pytest.raises(TypeError, match=r"half: learning_rate.*chain\("):
        gradtx.recipe(half)(0.1)


def test_a_choice_by_an_arguments_value_is_an_error():
    @gradtx.recipe
    def capped(learning_rate: gradtx.Scalar):
        return gradtx.sgd(max(learning_rate, 0.2))

    with pytest.raises(TypeError, match="capped: learning_rate"):
        capped(0.1)


def test_an_argument_that_is_no_number_is_no_arithmetic():
    with pytest.raises(ValueError, match="learning_rate must be >= 0, got float\\('nan'\\)"):
        recipe_of(lambda x: x)(math.nan)


def recipe_that_holds(big):
    @gradtx.recipe
    def holding(learning_rate: gradtx.Scalar):
        return gradtx.chain(gradtx.sgd(learning_rate), gradtx.stateless(lambda u, p: big and u))

    return holding


def test_a_recipe_is_not_held_by_the_table_of_constructors():
    big = Captured()
    alive, tx = weakref.ref(big), recipe_that_holds(big)(0.1)
    use(tx)
    del big
    gc.collect()
    assert alive() is not None and repr(tx) == "holding(0.1)"
    del tx
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("name", ["count", "mu", "nu", "step", "hyperparams", "learning_rate"])
def test_a_leafs_name_is_not_taken_for_one_of_the_state(name):
    state = gradtx.adam(0.1).init({name: jnp.ones(2)})
    with jax.numpy_dtype_promotion("standard"):
        after = gradtx.tree.set(state, count=5)
    assert gradtx.step_count(after) == 5 and gradtx.tree.get(after, "count") == 5
    assert gradtx.tree.get(after, "mu")[name].shape == gradtx.tree.get(after, "nu")[name].shape == (2,)
    assert gradtx.tree.get(gradtx.tree.set(state, learning_rate=0.5), "learning_rate") == 0.5


def test_an_argument_that_is_passed_as_it_is_is_read_and_set_under_its_name():
    half = recipe_of(lambda x: x)
    for rate in (0.1, jnp.float32(0.1), gradtx.constant_schedule(0.1)):
        tx = half(rate)
        assert gradtx.hyperparams(tx.init(PARAMS))["learning_rate"] == 0.1
    assert repr(half(0.1)) == "half(0.1)"
    read = jax.jit(lambda rate: half(rate).init(PARAMS)["numbers"]["half"]["learning_rate"])(0.1)
    assert read == np.float32(0.1)


# What is kept alive, and what is compiled again.


@pytest.fixture(autouse=True)
def collections_look_at_what_a_test_makes():
    """A worker holds millions of objects by now, and to look at all of them takes a second.

    A rule that a test defines goes with the test, since the next one may ask what rules there are.
    """
    gc.freeze()
    yield
    gc.collect()
    gc.unfreeze()


class Captured:
    """Something that a function holds, such as a table."""


def holders(big):
    """Optimizers with a function that holds `big`, one for each place of a function."""
    schedule = lambda t, held=big: 0.1  # noqa: E731
    return {
        "schedule": lambda: gradtx.adamw(schedule),
        "schedule in a schedule": lambda: gradtx.sgd(
            gradtx.join_schedules([schedule, gradtx.constant_schedule(0.1)], [3])
        ),
        "labels": lambda: gradtx.partition(
            {"a": gradtx.adam(0.1), "b": gradtx.sgd(0.1)}, lambda path, x, held=big: "a"
        ),
        "mask": lambda: gradtx.adamw(0.1, mask=lambda p, held=big: jax.tree.map(lambda x: True, p)),
        "stateless": lambda: gradtx.stateless(lambda u, p, held=big: u),
        "stateless_with_tree_map": lambda: gradtx.stateless_with_tree_map(lambda u, p, held=big: u),
        "monitor": lambda: gradtx.monitor({"zero": lambda u, held=big: jnp.zeros(())}),
        "condition": lambda: gradtx.conditionally_mask(gradtx.sgd(0.1), lambda t, held=big: t < 3),
        "wrapped": lambda: gradtx.guard(gradtx.accumulate(gradtx.adamw(schedule), 2)),
        "flattened": lambda: gradtx.flatten(gradtx.adamw(schedule)),
        "foreign": lambda: gradtx.chain(
            optax.stateless(lambda u, p, held=big: u), gradtx.clip_by_global_norm(1.0)
        ),
        "rule": lambda: gradtx.chain(rule_of(big)(), gradtx.sgd(0.1)),
        "callable of jax's": lambda: gradtx.stateless_with_tree_map(
            jax.tree_util.Partial(lambda u, p, held=big: u)
        ),
    }


def rule_of(big):
    class Holding(gradtx.Rule, name="holding"):
        held = big

        def apply(self, g, slots, leaf):
            return g, slots

    return Holding


def use(tx):
    state = tx.init(PARAMS)
    _, state = tx.update(GRADS, state, PARAMS)
    gradtx.apply_gradients(tx, GRADS, state, PARAMS)
    jax.jit(lambda g, s, p: tx.update(g, s, p))(GRADS, state, PARAMS)


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("place", list(holders(None)))
def test_what_a_function_holds_goes_with_the_optimizer(place):
    big = Captured()
    alive, make = weakref.ref(big), holders(big)[place]
    use(make())
    del big, make
    gc.collect()
    assert alive() is None


def test_minimize_keeps_neither_the_loss_nor_the_optimizer():
    big, other = Captured(), Captured()
    alive = [weakref.ref(big), weakref.ref(other)]
    loss, tx = lambda x, held=big: (x - 3) ** 2, holders(other)["schedule"]()
    gradtx.minimize(loss, jnp.float32(0), tx, 3)
    del big, other, loss, tx
    gc.collect()
    assert [found() for found in alive] == [None, None]


def test_an_eager_loop_that_builds_its_optimizer_anew_compiles_once():
    def once():
        tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(lambda t: 0.1))
        tx.update(GRADS, tx.init(PARAMS), PARAMS)
        gc.collect()

    once()
    with compilations() as count:
        for _ in range(3):
            once()
    assert count() == 0
