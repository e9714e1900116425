"""What a newcomer meets first says what it means: the README's rule, the names of numbers, errors."""

from __future__ import annotations

import doctest
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
import gradtx.testing

README = Path(__file__).parent.parent / "README.md"
PARAMS = {"backbone": {"w": jnp.ones(2)}, "head": {"w": jnp.ones(2)}}
LABELS = {"backbone/*": "backbone", "*": "head"}


def test_the_rule_of_the_readme_passes_the_laws():
    examples = doctest.DocTestParser().get_examples(README.read_text())
    start = next(i for i, e in enumerate(examples) if "(gradtx.Rule, name=" in e.source)
    names = {"gradtx": gradtx, "jnp": jnp}
    for example in examples[start : start + 2]:
        exec(example.source, names)
    tx: gradtx.Transform = names["tx"]  # type: ignore[assignment]
    assert "ScaleByBelief" in repr(tx)
    gradtx.testing.check(tx)


def names_of(tx):
    return set(gradtx.hyperparams(tx.init(PARAMS)))


def test_the_factor_of_a_group_stands_beside_the_name_of_its_transform():
    factors = gradtx.scale_by_group({"backbone": 0.01, "head": 1.0}, LABELS)
    state = gradtx.chain(gradtx.sgd(0.1), factors).init(PARAMS)
    read = {"scale_by_group.backbone": 0.01, "scale_by_group.head": 1.0, "learning_rate": 0.1}
    assert gradtx.hyperparams(state) == read
    # Its end alone is enough to set it.
    assert gradtx.hyperparams(gradtx.set_hyperparams(state, head=2.0))["scale_by_group.head"] == 2.0


def test_a_second_one_and_one_in_a_group_too():
    tx = gradtx.chain(*[gradtx.scale_by_group({"a": 2.0}, {"*": "a"})] * 2)
    assert names_of(tx) == {"scale_by_group.a", "scale_by_group_1.a"}
    tx = gradtx.named_chain(("rates", gradtx.scale_by_group({"a": 2.0}, {"*": "a"})))
    assert names_of(tx) == {"scale_by_group.a"}


def test_the_numbers_of_a_wrapper_stand_beside_its_name():
    tx = gradtx.accumulate(gradtx.guard(gradtx.ema_params(gradtx.sgd(0.1), 0.9)), every=4)
    assert gradtx.hyperparams(tx.init(PARAMS)) == {
        "accumulate.every": 4,
        "guard.decay": 0.99,
        "guard.deviations": 6,
        "guard.patience": 10,
        "guard.warmup": 100,
        "ema_params.decay": 0.9,
        "learning_rate": 0.1,
    }


def test_the_numbers_of_an_optimizer_that_wraps_something_stand_alone():
    injected = gradtx.inject_hyperparams(lambda rate: gradtx.scale(-rate))(rate=0.5)
    assert names_of(injected) == {"rate"}
    assert "b1" in names_of(gradtx.scale_by_sophia())


def test_groups_that_are_wrapped_have_the_names_of_the_groups():
    groups = {label: gradtx.guard(gradtx.sgd(0.1)) for label in ("backbone", "head")}
    state = gradtx.accumulate(gradtx.partition(groups, LABELS), 2).init(PARAMS)
    read = gradtx.hyperparams(state)
    assert list(read) == [
        "accumulate.every",
        *(f"accumulate.backbone.guard.{name}" for name in ("decay", "deviations", "patience", "warmup")),
        *(f"accumulate.head.guard.{name}" for name in ("decay", "deviations", "patience", "warmup")),
        "accumulate.backbone.guard.sgd.learning_rate",
        "accumulate.head.guard.sgd.learning_rate",
    ]
    state = gradtx.set_hyperparams(state, **{"head.guard.sgd.learning_rate": 0.5, "head.guard.warmup": 3})
    changed = {n: v for n, v in gradtx.hyperparams(state).items() if v != read[n]}
    assert changed == {"accumulate.head.guard.sgd.learning_rate": 0.5, "accumulate.head.guard.warmup": 3}


def test_what_two_groups_have_is_told_apart_by_the_groups():
    groups = {"backbone": gradtx.sgd(0.1), "head": gradtx.chain(gradtx.scale_by_learning_rate(0.2))}
    assert names_of(gradtx.partition(groups, LABELS)) == {
        "backbone.sgd.learning_rate",
        "head.scale_by_learning_rate.learning_rate",
    }


def test_paths_that_read_alike_keep_their_numbers():
    """A label may have a dot, and be the path of a wrapper and what it wraps."""
    groups = {"a": gradtx.guard(gradtx.sgd(0.1)), "a.guard": gradtx.sgd(0.2)}
    state = gradtx.partition(groups, {"backbone/*": "a", "*": "a.guard"}).init(PARAMS)
    rates = {n: v for n, v in gradtx.hyperparams(state).items() if n.endswith("learning_rate")}
    assert sorted(rates.values()) == [0.1, 0.2]
    for name in rates:
        changed = gradtx.hyperparams(gradtx.set_hyperparams(state, **{name: 0.7}))
        assert {n for n in rates if changed[n] == 0.7} == {name}


NEEDY = {
    "optax.reduce_on_plateau (foreign)": optax.contrib.reduce_on_plateau(),
    "optax.scale_by_backtracking_linesearch (foreign)": optax.scale_by_backtracking_linesearch(3),
}


@pytest.mark.parametrize("name", NEEDY)
def test_another_librarys_transform_has_its_own_name_in_errors(name):
    tx = gradtx.chain(gradtx.scale(1.0), NEEDY[name])
    with pytest.raises(TypeError) as error:
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert str(error.value).startswith(f"{name} needs the keyword argument 'value'")


def needy():
    def update(updates, state, params=None, *, value):
        return updates, state

    return gradtx.GradientTransformation(lambda params: (), update)


class Needy:
    def init(self, params):
        return ()

    def update(self, updates, state, params=None, *, value):
        return updates, state


@pytest.mark.parametrize(
    "tx, name",
    [
        (needy(), r"test_clear_words\.needy"),
        (gradtx.chain(needy(), needy()), r"test_clear_words\.needy \(transform\)"),
        (gradtx.chain(Needy()), r"test_clear_words\.Needy \(foreign\)"),
        (gradtx.named_chain(("a", Needy())), r"test_clear_words\.Needy \(a\.foreign\)"),
    ],
    ids=["alone", "of two functions", "an object", "under a name"],
)
def test_a_transform_of_ones_own_has_the_name_of_what_made_it(tx, name):
    with pytest.raises(TypeError, match=f"^{name} needs the keyword argument 'value'"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_an_error_inside_of_it_names_it_too():
    tx = gradtx.chain(gradtx.scale(1.0), optax.trace(0.9))
    state = tx.init(PARAMS)
    state["slots"]["foreign"] = state["slots"]["foreign"]._replace(trace=None)
    with pytest.raises(Exception) as error:
        jax.jit(tx.update)(PARAMS, state, PARAMS)
    assert "optax.trace (foreign)" in "\n".join([str(error.value), *error.value.__notes__])


@pytest.mark.parametrize("read", ["hyperparams", "set_hyperparams", "eval_params", "step_count", "report"])
def test_a_state_of_optax_says_what_to_do(read):
    args = (PARAMS,) if read == "eval_params" else ()
    with pytest.raises(TypeError) as error:
        getattr(gradtx, read)(optax.adam(0.1).init(PARAMS), *args)
    assert "a state of Optax: gradtx.from_optax_state(tx, state, params) makes" in str(error.value)


def test_what_was_injected_is_said_to_be_in_the_state():
    with pytest.raises(TypeError, match="What was injected is in its field hyperparams"):
        gradtx.hyperparams(optax.inject_hyperparams(optax.sgd)(0.1).init(PARAMS))
    # What it says to do works.
    state = optax.adam(0.1).init(PARAMS)
    moved = gradtx.from_optax_state(gradtx.adam(0.1), state, PARAMS)
    assert gradtx.hyperparams(moved)["learning_rate"] == 0.1


def test_a_transform_and_a_tree_are_no_state():
    with pytest.raises(TypeError, match=r"It is a transform: pass the state that its init\(params\) makes"):
        gradtx.hyperparams(gradtx.sgd(0.1))
    with pytest.raises(TypeError, match=r"Pass the state that tx\.init\(params\) makes"):
        gradtx.eval_params(PARAMS, PARAMS)


def test_a_name_with_a_slip_is_found_without_what_stands_before_it():
    state = gradtx.accumulate(gradtx.adam(1e-3), 4).init(jnp.ones(2))
    with pytest.raises(KeyError, match=r"no hyperparameter 'evry'\. Did you mean 'every'\?"):
        gradtx.set_hyperparams(state, evry=3)
    assert gradtx.hyperparams(gradtx.set_hyperparams(state, every=3))["accumulate.every"] == 3
