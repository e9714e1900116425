"""Each row of the founding table: what the transform's formula says minus the article's is zero, for sympy.

The articles' formulas are written here over the names that the transform has: `g`, `theta`, `t`, its
hyperparameters, its slots before the step, and (`mu_new`) after it.
"""

import jax
import numpy as np
import pytest
import sympy
from sympy import Max, Symbol, sqrt

import gradtx
import test_mutants
from gradtx.formulas.expression import symbols
from gradtx.formulas.notation import identifier
from test_founding_formulas import PUBLIC, ROWS
from test_mutants import patch  # noqa: F401

FORMULAS = {}


class Names(dict):
    """Symbols by name, all positive: the roots of the formulas are then the ordinary ones."""

    def __missing__(self, name):
        self[name] = Symbol(name, positive=True)
        return self[name]


S = Names({name: Symbol(name, real=True) for name in ("g", "theta", "mu", "mu_new", "trace", "trace_new")})


def article(*rows):
    """Keeps an article's formula under the names of its rows: what it gives is named as in the transform."""

    def keep(formula):
        FORMULAS.update(dict.fromkeys(rows, formula))
        return formula

    return keep


def coupled():
    """The gradient of the loss with L2."""
    return S["g"] + S["weight_decay"] * S["theta"]


@article("full-batch", "one-sample", "mini-batch")
def gradient_descent():
    return {"update": -S["learning_rate"] * S["g"]}


@article("momentum")
def damped():
    v = S["momentum"] * S["trace"] + (1 - S["dampening"]) * coupled()
    return {"trace_new": v, "update": -S["learning_rate"] * S["trace_new"]}


@article("momentum-by-parts")
def by_parts():
    v = S["decay"] * S["trace"] + (1 - S["dampening"]) * coupled()
    return {"trace_new": v, "update": -S["learning_rate"] * S["trace_new"]}


@article("momentum-first-step-undamped")
def undamped(first):
    share = 1 if first else 1 - S["dampening"]
    v = S["momentum"] * S["trace"] + share * coupled()
    return {"trace_new": v, "update": -S["learning_rate"] * S["trace_new"]}


@article("momentum-plain", "momentum-rate-outside")
def plain():
    v = S["momentum"] * S["trace"] + S["g"]
    return {"trace_new": v, "update": -S["learning_rate"] * S["trace_new"]}


@article("momentum-nesterov")
def nesterov():
    ahead = S["g"] + S["momentum"] * S["trace_new"]
    return {"trace_new": plain()["trace_new"], "update": -S["learning_rate"] * ahead}


@article("momentum-rate-inside")
def rate_inside():
    return {"trace_new": S["decay"] * S["trace"] - S["learning_rate"] * S["g"], "update": S["trace_new"]}


@article("adagrad")
def adagrad():
    total = S["sum_of_squares"] + coupled() ** 2
    root = sqrt(S["sum_of_squares_new"] + S["eps"])
    return {"sum_of_squares_new": total, "update": -S["learning_rate"] / root * coupled()}


@article("adagrad-eps-outside")
def adagrad_outside():
    total = S["sum_of_squares"] + S["g"] ** 2
    divisor = sqrt(S["sum_of_squares_new"]) + S["eps"]
    return {"sum_of_squares_new": total, "update": -S["learning_rate"] * S["g"] / divisor}


@article("adagrad-start")
def adagrad_start():
    total = S["sum_of_squares"] + S["g"] ** 2
    root = sqrt(S["sum_of_squares_new"] + S["eps"])
    return {"sum_of_squares_new": total, "update": -S["learning_rate"] * S["g"] / root}


def mean_square(g):
    return S["decay"] * S["nu"] + (1 - S["decay"]) * g**2


@article("rmsprop")
def rmsprop():
    root = sqrt(S["nu_new"] + S["eps"])
    return {"nu_new": mean_square(coupled()), "update": -S["learning_rate"] / root * coupled()}


@article("rmsprop-eps-outside")
def rmsprop_outside():
    divisor = sqrt(S["nu_new"]) + S["eps"]
    return {"nu_new": mean_square(S["g"]), "update": -S["learning_rate"] * S["g"] / divisor}


@article("rmsprop-centered")
def rmsprop_centered():
    mean = S["decay"] * S["mu"] + (1 - S["decay"]) * S["g"]
    # Only rounding makes a variance negative; the transform takes 0 then.
    variance = Max(S["nu_new"] - S["mu_new"] ** 2, 0)
    root = sqrt(variance + S["eps"])
    return {"mu_new": mean, "nu_new": mean_square(S["g"]), "update": -S["learning_rate"] * S["g"] / root}


@article("rmsprop-momentum")
def rmsprop_momentum():
    step = S["learning_rate"] * S["g"] / sqrt(S["nu_new"] + S["eps"])
    v = S["momentum"] * S["trace"] - step
    return {"nu_new": mean_square(S["g"]), "trace_new": v, "update": S["trace_new"]}


@article("rmsprop-lecture")
def rmsprop_lecture(first):
    square = S["g"] ** 2 if first else mean_square(S["g"])
    return {"nu_new": square, "update": -S["learning_rate"] / sqrt(S["nu_new"]) * S["g"]}


def delta_rule(g):
    delta = -sqrt(S["e_x"] + S["eps"]) / sqrt(S["e_g_new"] + S["eps"]) * g
    return {
        "e_g_new": S["rho"] * S["e_g"] + (1 - S["rho"]) * g**2,
        "e_x_new": S["rho"] * S["e_x"] + (1 - S["rho"]) * delta**2,
        "update": S["learning_rate"] * delta,
    }


@article("adadelta", "linear-adadelta")
def adadelta():
    return delta_rule(S["g"])


@article("adadelta-coupled")
def adadelta_coupled():
    return delta_rule(coupled())


def moments(g):
    return {
        "mu_new": S["b1"] * S["mu"] + (1 - S["b1"]) * g,
        "nu_new": S["b2"] * S["nu"] + (1 - S["b2"]) * g**2,
    }


def corrected():
    return S["mu_new"] / (1 - S["b1"] ** S["t"]), S["nu_new"] / (1 - S["b2"] ** S["t"])


def adam_direction():
    m, v = corrected()
    return m / (sqrt(v) + S["eps"])


@article("adam", "adam-stored", "linear-adam")
def adam():
    return {**moments(S["g"]), "update": -S["learning_rate"] * adam_direction()}


@article("adam-eps-inside")
def adam_inside():
    m, v = corrected()
    return {**moments(coupled()), "update": -S["learning_rate"] * m / sqrt(v + S["eps_root"])}


@article("adam-efficient")
def adam_efficient():
    rate = S["learning_rate"] * sqrt(1 - S["b2"] ** S["t"]) / (1 - S["b1"] ** S["t"])
    return {**moments(S["g"]), "update": -rate * S["mu_new"] / (sqrt(S["nu_new"]) + S["eps"])}


@article("adam-uncorrected")
def adam_uncorrected():
    direction = S["mu_new"] / (sqrt(S["nu_new"]) + S["eps"])
    return {**moments(S["g"]), "update": -S["learning_rate"] * direction}


@article("adam-l2")
def adam_l2():
    return {**moments(coupled()), "update": -S["learning_rate"] * adam_direction()}


@article("adam-nesterov")
def adam_nesterov():
    ahead = S["b1"] * S["mu_new"] / (1 - S["b1"] ** (S["t"] + 1))
    ahead += (1 - S["b1"]) * S["g"] / (1 - S["b1"] ** S["t"])
    return {**moments(S["g"]), "update": -S["learning_rate"] * ahead / (sqrt(corrected()[1]) + S["eps"])}


@article("bias-correction")
def bias_correction():
    return {"update": -S["learning_rate"] * S["g"] / (1 - S["decay"] ** S["t"])}


@article("adamw-independent")
def adamw_independent():
    step = S["learning_rate"] * adam_direction()
    return {**moments(S["g"]), "update": -step - S["weight_decay"] * S["theta"]}


@article("adamw-eps-inside")
def adamw_inside():
    m, v = corrected()
    step = S["learning_rate"] * m / sqrt(v + S["eps_root"])
    return {**moments(S["g"]), "update": -step - S["learning_rate"] * S["weight_decay"] * S["theta"]}


@article("adamw", "adamw-defaults", "adamw-optax-defaults", "warmup-and-decay", "linear-adamw")
def adamw():
    return {
        **moments(S["g"]),
        "update": -S["learning_rate"] * (adam_direction() + S["weight_decay"] * S["theta"]),
    }


@article("adamw-paper")
def adamw_paper():
    step = S["learning_rate"] * adam_direction() + S["weight_decay"] * S["theta"]
    return {**moments(S["g"]), "update": -S["schedule"] * step}


@article("adamw-bert")
def adamw_bert(decayed=True):
    direction = S["mu_new"] / (sqrt(S["nu_new"]) + S["eps"])
    decay = S["weight_decay"] * S["theta"] if decayed else 0
    return {**moments(S["g"]), "update": -S["learning_rate"] * (direction + decay)}


def as_sympy(tx, shape=(3,), leaf=None, step=None):
    """The formula of a transform, each hyperparameter that is 0 as 0, at the first step or at a later one."""
    array = jax.ShapeDtypeStruct(shape, np.float32)
    tree = {"LayerNorm": {"bias": array}, "dense": {"kernel": array}} if leaf else array
    formula = gradtx.formula(tx, tree, leaf)
    t = {None: S["t"], "first": sympy.Integer(1), "later": S["k"] + 1}[step]
    zero = {S[name]: 0 for name, value in formula.values.items() if value == 0 and name.isidentifier()}
    shown = {f"{identifier(name)}_new": formula.slots[name] for name in formula.shown()}
    shown["update"] = formula.update
    named = {identifier(name): S[identifier(name)] for name in symbols(*shown.values())} | {"t": t}
    return {name: sympy.sympify(body.source(), locals=named).subs(zero) for name, body in shown.items()}


def difference(ours, theirs):
    """What is left of each part of the formula; zero if the two are equal."""
    assert ours.keys() == theirs.keys()
    # sympy knows of a correction that it is positive if it has a name.
    corrections = {S["b1"] ** S["t"]: 1 - S["c1"], S["b2"] ** S["t"]: 1 - S["c2"]}
    return {name: sympy.simplify((ours[name] - theirs[name]).subs(corrections)) for name in ours}


def is_equal(ours, theirs):
    return all(rest == 0 for rest in difference(ours, theirs).values())


def of_row(name, shape=(3,)):
    """The row's expression and its formula, for sympy: at the first step and later where they differ."""
    tx, formula = eval(ROWS[name].ours, PUBLIC), FORMULAS[name]
    if "first" in formula.__code__.co_varnames:
        return [(as_sympy(tx, shape, step=at), formula(at == "first")) for at in ("first", "later")]
    if "decayed" in formula.__code__.co_varnames:
        leaves = {"dense/kernel": True, "LayerNorm/bias": False}
        return [(as_sympy(tx, shape, leaf), formula(decayed)) for leaf, decayed in leaves.items()]
    return [(as_sympy(tx, shape), formula())]


def test_every_row_has_its_formula():
    assert FORMULAS.keys() == ROWS.keys()


@pytest.mark.by_turns(9)
@pytest.mark.parametrize("name", ROWS)
def test_the_formula_minus_the_articles_is_zero(name):
    for ours, theirs in of_row(name):
        assert is_equal(ours, theirs), difference(ours, theirs)


@pytest.mark.wide
def test_the_slots_start_where_the_articles_do():
    for name, row in ROWS.items():
        if name != "adamw-bert":
            start = gradtx.formula(eval(row.ours, PUBLIC)).start
            assert {str(x) for x in start.values()} <= ({"0.1"} if name == "adagrad-start" else {"0"}), name


MUTANTS = {
    test_mutants.adam_betas_swapped: "adam",
    test_mutants.decay_coupled: "adamw",
    test_mutants.decay_without_the_rate: "adamw",
}
"""Mistakes in a recipe, which is another program for them: nothing that was traced before is used again."""

MUTANT_RULES = {
    test_mutants.b2_off: "adam",
    test_mutants.eps_misplaced: "adam",
    test_mutants.square_root_left_out: "adagrad",
    test_mutants.eps_before_the_correction: "adam",
    test_mutants.correction_off_by_one: "adam",
    test_mutants.first_step_undamped: "momentum",
}


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
def test_a_planted_mistake_leaves_something(mutate, monkeypatch):
    mutate(monkeypatch)
    assert not all(is_equal(*pair) for pair in of_row(MUTANTS[mutate]))


@pytest.mark.full
@pytest.mark.parametrize("mutate", MUTANT_RULES, ids=lambda mutate: mutate.__name__)
def test_a_mistake_planted_in_a_rule_leaves_something(mutate, patch):  # noqa: F811
    mutate(patch)
    assert not all(is_equal(*pair) for pair in of_row(MUTANT_RULES[mutate]))
