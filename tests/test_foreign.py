"""Transforms that are not the engine's: two functions, or any object with `init` and `update`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import gradtx

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array([0.5])}
GRADS = jax.tree.map(lambda p: p + 1.0, PARAMS)


class Count(NamedTuple):
    count: jax.Array


class Counting:
    """Multiplies by the number of updates so far, from 1."""

    def init(self, params):
        return Count(jnp.zeros((), jnp.int32))

    def update(self, updates, state, params=None):
        count = state.count + 1
        return jax.tree.map(lambda u: u * count.astype(u.dtype), updates), Count(count)


class AsNamespace:
    """Has `init` and `update` as static functions, and takes every keyword argument."""

    init = staticmethod(lambda params: {"sum": jax.tree.map(jnp.zeros_like, params)})

    @staticmethod
    def update(updates, state, params=None, **extra):
        total = jax.tree.map(jnp.add, state["sum"], updates)
        return total, {"sum": total}


def two_functions():
    counting = Counting()
    return gradtx.GradientTransformation(counting.init, counting.update)


def run(tx, grads=GRADS, steps=2):
    state = tx.init(PARAMS)
    for _ in range(steps):
        updates, state = tx.update(grads, state, PARAMS)
    return updates, state


@pytest.mark.brief
@pytest.mark.parametrize("make", [Counting, two_functions])
def test_inside_a_chain(make):
    updates, state = run(gradtx.chain(gradtx.scale(2.0), make(), gradtx.scale(-0.5)))
    assert updates["w"].tolist() == (-2.0 * GRADS["w"]).tolist()
    (inner,) = state["slots"].values()
    assert int(inner.count) == 2


def test_two_of_a_kind_are_named_apart():
    tx = gradtx.chain(Counting(), AsNamespace(), two_functions())
    updates, state = run(tx, steps=1)
    assert set(state["slots"]) == {"foreign", "foreign_1", "transform"}
    assert updates["w"].tolist() == GRADS["w"].tolist()


def test_side_by_side():
    updates, _ = run(gradtx.add(Counting(), gradtx.scale(10.0)))
    assert updates["w"].tolist() == (12.0 * GRADS["w"]).tolist()


@pytest.mark.parametrize("outside", ["pass", "zero"])
def test_under_a_mask(outside):
    updates, state = run(gradtx.masked(AsNamespace(), "w", outside=outside))
    assert updates["w"].tolist() == (2 * GRADS["w"]).tolist()
    assert updates["b"].tolist() == ([0.0] if outside == "zero" else GRADS["b"].tolist())
    assert state["slots"]["foreign"]["sum"]["b"] is None


def test_a_leaf_without_a_gradient_stays_without():
    tx = gradtx.chain(Counting(), gradtx.scale(1.0))
    updates, _ = tx.update({**GRADS, "b": None}, tx.init(PARAMS), PARAMS)
    assert updates["b"] is None
    assert updates["w"].tolist() == GRADS["w"].tolist()


def test_under_jit_and_scan():
    tx = gradtx.chain(Counting(), gradtx.scale(1.0))
    step = jax.jit(tx.update)
    _, state = step(GRADS, tx.init(PARAMS), PARAMS)
    updates, _ = step(GRADS, state, PARAMS)
    assert updates["w"].tolist() == (2 * GRADS["w"]).tolist()


def test_hyperparameters_beside_a_foreign_transform():
    state = gradtx.chain(Counting(), gradtx.sgd(0.1)).init(PARAMS)
    assert gradtx.hyperparams(gradtx.set_hyperparams(state, learning_rate=0.2)) == {"learning_rate": 0.2}


def test_it_prints_as_what_cannot_be_rebuilt_and_compares_by_identity():
    one, other = Counting(), Counting()
    assert repr(gradtx.chain(one, gradtx.sgd(0.1))) == "chain(<Counting>, sgd(0.1))"
    assert gradtx.chain(one) == gradtx.chain(one)
    assert gradtx.chain(one) != gradtx.chain(other)


def test_it_unpacks_into_its_two_functions():
    init, update = gradtx.chain(Counting(), gradtx.scale(2.0))
    updates, _ = update(GRADS, init(PARAMS), PARAMS)
    assert updates["w"].tolist() == (2 * GRADS["w"]).tolist()


def test_keyword_arguments_go_to_those_that_take_them():
    def update(updates, state, params=None, *, factor, other=1.0):
        return jax.tree.map(lambda u: u * factor * other, updates), state

    tx = gradtx.chain(Counting(), gradtx.GradientTransformation(lambda params: (), update))
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, factor=3.0, unused=5.0)
    assert updates["w"].tolist() == (3 * GRADS["w"]).tolist()


def test_the_parameters_go_to_an_update_that_has_a_place_for_them():
    def of_two(updates, state):
        return updates, state

    def of_any(updates, *others):
        assert others[1]["b"] is PARAMS["b"]
        return updates, others[0]

    for update in (of_two, of_any):
        tx = gradtx.chain(gradtx.GradientTransformation(lambda params: (), update), gradtx.scale(2.0))
        assert tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]["w"].tolist() == (2 * GRADS["w"]).tolist()


def test_it_must_give_back_the_tree():
    broken = gradtx.GradientTransformation(lambda p: (), lambda u, s, p=None: ({"w": u["w"]}, s))
    tx = gradtx.chain(broken, gradtx.scale(1.0))
    words = r"The updates of test_foreign.* \(transform\) and the gradients are different trees: leaf 'b' is"
    with pytest.raises(ValueError, match=words):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)


def test_two_functions_by_keyword_are_those_by_position():
    counting = Counting()
    by_name = gradtx.GradientTransformation(update=counting.update, init=counting.init)
    assert by_name == gradtx.GradientTransformation(counting.init, counting.update)
    updates, state = run(gradtx.chain(by_name, gradtx.scale(1.0)))
    assert updates["w"].tolist() == (2 * GRADS["w"]).tolist()
    assert int(state["slots"]["transform"].count) == 2


class Halving(gradtx.GradientTransformation):
    """A subclass with arguments of its own, as code for Optax's named tuple has it."""

    def __new__(cls, times):
        def update(updates, state, params=None):
            return jax.tree.map(lambda u: u / 2**times, updates), state

        return super().__new__(cls, init=lambda params: gradtx.EmptyState(), update=update)


def test_a_subclass_may_have_a_new_of_its_own():
    tx = Halving(3)
    assert isinstance(tx, Halving)
    assert run(tx)[0]["w"].tolist() == (GRADS["w"] / 8).tolist()
    assert run(gradtx.chain(tx, gradtx.scale(4.0)))[0]["w"].tolist() == (GRADS["w"] / 2).tolist()
    init, update = tx
    assert update(GRADS, init(PARAMS), PARAMS)[0]["b"].tolist() == (GRADS["b"] / 8).tolist()


class Labelled(gradtx.GradientTransformation):
    """A subclass that sets an attribute in `__new__`, as Optax's named tuple allows it."""

    def __new__(cls, label):
        self = super().__new__(cls, lambda params: (), lambda u, s, p=None: (gradtx.tree.scale(0.5, u), s))
        self.label = label
        return self


class Initialized(gradtx.GradientTransformation):
    """A subclass that is given two functions, and has an `__init__`."""

    def __init__(self, init, update):
        self.label = "x"


class Methods(gradtx.GradientTransformation):
    """A subclass with methods in place of functions."""

    def __init__(self, label):
        self.label = label

    def init(self, params):
        return ()

    def update(self, updates, state, params=None):
        return gradtx.tree.scale(0.5, updates), state


SUBCLASSES = {
    "in __new__": lambda: Labelled("x"),
    "in __init__": lambda: Initialized(*Labelled("y")),
    "beside methods": lambda: Methods("x"),
}


@pytest.mark.parametrize("make", SUBCLASSES.values(), ids=SUBCLASSES)
def test_a_subclass_may_set_attributes_of_its_own(make):
    tx = make()
    assert tx.label == "x" and tx == tx and isinstance(hash(tx), int) and repr(tx)
    for whole in (tx, gradtx.chain(tx, gradtx.scale(1.0))):
        assert run(whole)[0]["w"].tolist() == (GRADS["w"] / 2).tolist()
    # Another keyword argument is for another transform of the chain.
    gradtx.chain(tx).update(GRADS, gradtx.chain(tx).init(PARAMS), PARAMS, value=1.0)
    fresh = make()
    fresh.label = "z"
    assert fresh.label == "z" and fresh != make()
    # What has been compiled for it would not notice.
    with pytest.raises(AttributeError, match=r"'label' cannot be set any more.*Build a new one"):
        tx.label = "z"
    with pytest.raises(AttributeError, match=r"'update' is what gradtx\.GradientTransformation .*_replace\("):
        tx.update = None
    with pytest.raises(AttributeError, match="is immutable"):
        gradtx.chain(tx).label = "x"


class Given(gradtx.GradientTransformation):
    """A subclass that is given two functions of its own kind."""

    def __init__(self, schedule, mask):
        self.schedule, self.mask = schedule, mask

    def init(self, params):
        return ()

    def update(self, updates, state, params=None):
        return gradtx.tree.scale(0.5, updates), state


@pytest.mark.parametrize("make", [lambda: Given(schedule=abs, mask=all), lambda: Given(abs, all)])
def test_two_functions_of_a_class_with_methods_are_its_own(make):
    tx = make()
    assert (tx.schedule, tx.mask) == (abs, all) and tx == make()
    assert run(tx)[0]["w"].tolist() == (GRADS["w"] / 2).tolist()


@pytest.mark.parametrize(
    "wrap", [lambda tx: gradtx.accumulate(tx, 1), gradtx.guard, gradtx.flatten, lambda tx: tx]
)
def test_a_class_with_methods_gets_the_keyword_arguments_that_it_takes(wrap):
    tx = wrap(Methods("x"))
    if isinstance(tx, Methods):
        tx = gradtx.chain(tx)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, value=1.0)
    assert updates["w"].tolist() == (GRADS["w"] / 2).tolist()


def test_a_subclass_without_functions_is_told_so():
    class Empty(gradtx.GradientTransformation):
        def __init__(self, label):
            self.label = label

    with pytest.raises(TypeError, match=r"Empty has no functions: .*super\(\)\.__new__\(cls, init, update\)"):
        Empty("x").init(PARAMS)


@pytest.mark.parametrize("make", [lambda: gradtx.sgd(1.0), lambda: Labelled("x"), lambda: Methods("x")])
def test_a_function_is_replaced_as_in_a_named_tuple(make):
    tx = make()
    same = tx._replace()
    assert isinstance(same, gradtx.GradientTransformation)
    assert run(same)[0]["w"].tolist() == run(tx)[0]["w"].tolist()
    other = tx._replace(init=lambda params: (), update=lambda u, s, p=None: (u, s))
    assert run(other)[0]["w"] is GRADS["w"] and run(other)[1] == ()
    with pytest.raises(TypeError, match="unexpected keyword argument 'state'"):
        tx._replace(state=())


@pytest.mark.parametrize("make", [lambda: gradtx.adam(1e-3), two_functions, lambda: Halving(1), gradtx.chain])
def test_every_transform_is_a_gradient_transformation(make):
    assert isinstance(make(), gradtx.GradientTransformation)
    assert isinstance(make(), gradtx.GradientTransformationExtraArgs)


def test_what_is_no_function_is_named():
    with pytest.raises(TypeError, match=r"GradientTransformation takes two functions, init.* got 3"):
        gradtx.GradientTransformation(3, lambda u, s, p=None: (u, s))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'update'"):
        gradtx.GradientTransformation(lambda params: ())
