"""Every formula of the founding documents, in a few lines of numpy, against its row of docs/conventions.md.

A row's gradtx expression is read from the page and run; so is its Optax equivalent. What torch does is
recorded in golden/. Each formula moves one leaf by one step: t is from 1, s is the leaf's memory, 0 at first.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import gradtx
from references import Slots
from trajectories import x64

PAGE = Path(__file__).parent.parent / "docs" / "conventions.md"
STEPS = 24
FORMULAS, GRADIENTS = {}, {}
RNG = np.random.default_rng(0)
START = {"theta": RNG.normal(size=5)}
BERT = {
    "LayerNorm": {"bias": RNG.normal(size=2), "scale": RNG.normal(size=2)},
    "dense": {"bias": RNG.normal(size=2), "kernel": RNG.normal(size=2)},
}
NOISE = RNG.normal(size=(STEPS, 5))
X, Y = RNG.normal(size=(12, 5)), RNG.normal(size=12)


def noisy_bowl(theta, t):
    """The slope of a quadratic, and noise; any leaf."""
    return 2 * (theta - 1) + NOISE[t - 1, : theta.size]


def mean_square_error(rows):
    """The slope of the mean squared error over the samples that `rows(t)` names."""
    return lambda theta, t: 2 * X[rows(t)].T @ (X[rows(t)] @ theta - Y[rows(t)]) / len(X[rows(t)])


def row(name, gradient=noisy_bowl):
    def keep(formula):
        FORMULAS[name], GRADIENTS[name] = formula, gradient
        return formula

    return keep


@row("full-batch", mean_square_error(lambda t: np.arange(12)))
@row("one-sample", mean_square_error(lambda t: np.array([t % 12])))
@row("mini-batch", mean_square_error(lambda t: np.arange(4) + 4 * (t % 3)))
def gradient_descent(theta, g, t, s):
    return theta - 0.1 * g


@row("momentum")
@row("momentum-by-parts")
def damped(theta, g, t, s):
    g = g + 0.01 * theta
    s.v = 0.9 * s.v + (1 - 0.5) * g
    return theta - 0.1 * s.v


@row("momentum-first-step-undamped")
def undamped(theta, g, t, s):
    g = g + 0.01 * theta
    s.v = g if t == 1 else 0.9 * s.v + (1 - 0.5) * g
    return theta - 0.1 * s.v


@row("momentum-plain")
def plain(theta, g, t, s):
    s.v = 0.9 * s.v + g
    return theta - 0.1 * s.v


@row("momentum-nesterov")
def nesterov(theta, g, t, s):
    s.v = 0.9 * s.v + g
    return theta - 0.1 * (g + 0.9 * s.v)


@row("momentum-rate-inside")
def rate_inside(theta, g, t, s):
    eta = 0.1 - 0.09 * min((t - 1) / 10, 1)
    s.v = 0.9 * s.v - eta * g
    return theta + s.v


@row("momentum-rate-outside")
def rate_outside(theta, g, t, s):
    eta = 0.1 - 0.09 * min((t - 1) / 10, 1)
    s.v = 0.9 * s.v + g
    return theta - eta * s.v


@row("adagrad")
def adagrad(theta, g, t, s):
    g = g + 0.01 * theta
    s.G = s.G + g**2
    return theta - 0.1 / np.sqrt(s.G + 1e-7) * g


@row("adagrad-eps-outside")
def adagrad_outside(theta, g, t, s):
    s.G = s.G + g**2
    return theta - 0.1 * g / (np.sqrt(s.G) + 1e-10)


@row("adagrad-start")
def adagrad_start(theta, g, t, s):
    s.G = (0.1 if t == 1 else s.G) + g**2
    return theta - 0.1 * g / np.sqrt(s.G + 1e-7)


@row("rmsprop")
def rmsprop(theta, g, t, s):
    g = g + 0.01 * theta
    s.E = 0.9 * s.E + 0.1 * g**2
    return theta - 0.01 / np.sqrt(s.E + 1e-8) * g


@row("rmsprop-eps-outside")
def rmsprop_outside(theta, g, t, s):
    s.E = 0.9 * s.E + 0.1 * g**2
    return theta - 0.01 * g / (np.sqrt(s.E) + 1e-8)


@row("rmsprop-centered")
def rmsprop_centered(theta, g, t, s):
    s.E, s.M = 0.9 * s.E + 0.1 * g**2, 0.9 * s.M + 0.1 * g
    return theta - 0.01 * g / np.sqrt(s.E - s.M**2 + 1e-8)


@row("rmsprop-momentum")
def rmsprop_momentum(theta, g, t, s):
    s.E = 0.9 * s.E + 0.1 * g**2
    s.v = 0.9 * s.v - 0.01 * g / np.sqrt(s.E + 1e-8)
    return theta + s.v


@row("rmsprop-lecture")
def rmsprop_lecture(theta, g, t, s):
    s.E = g**2 if t == 1 else 0.9 * s.E + 0.1 * g**2
    return theta - 0.01 / np.sqrt(s.E) * g


@row("adadelta")
def adadelta(theta, g, t, s, rate=1.0):
    s.G = 0.9 * s.G + 0.1 * g**2
    delta = -np.sqrt(s.D + 1e-6) / np.sqrt(s.G + 1e-6) * g
    s.D = 0.9 * s.D + 0.1 * delta**2
    return theta + rate * delta


@row("adadelta-coupled")
def adadelta_coupled(theta, g, t, s):
    return theta + adadelta(0.0, g + 0.01 * theta, t, s, rate=0.5)


def moments(g, s, b1=0.9, b2=0.999):
    s.m, s.v = b1 * s.m + (1 - b1) * g, b2 * s.v + (1 - b2) * g**2
    return s.m, s.v


def corrected(g, t, s):
    m, v = moments(g, s)
    return m / (1 - 0.9**t), v / (1 - 0.999**t)


@row("adam")
def adam(theta, g, t, s):
    m, v = corrected(g, t, s)
    return theta - 1e-3 * m / (np.sqrt(v) + 1e-8)


@row("adam-eps-inside")
def adam_inside(theta, g, t, s):
    m, v = corrected(g + 0.01 * theta, t, s)
    return theta - 1e-3 * m / np.sqrt(v + 1e-8)


@row("adam-efficient")
def adam_efficient(theta, g, t, s):
    m, v = moments(g, s)
    alpha = 1e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return theta - alpha * m / (np.sqrt(v) + 1e-8)


@row("adam-uncorrected")
def adam_uncorrected(theta, g, t, s):
    m, v = moments(g, s)
    return theta - 1e-3 * m / (np.sqrt(v) + 1e-8)


@row("adam-l2")
def adam_l2(theta, g, t, s):
    return adam(theta, g + 0.01 * theta, t, s)


@row("adam-nesterov")
def adam_nesterov(theta, g, t, s):
    m, v = moments(g, s)
    m = 0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
    return theta - 1e-3 * m / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


@row("adam-stored")
def adam_stored(theta, g, t, s):
    theta = adam(theta, g, t, s)
    s.m = s.m.astype(ml_dtypes.bfloat16).astype(np.float64)
    s.v = s.v.astype(np.float32).astype(np.float64)
    return theta


@row("bias-correction")
def bias_correction(theta, g, t, s):
    return theta - 0.1 * g / (1 - 0.9**t)


@row("adamw-independent")
def adamw_independent(theta, g, t, s):
    m, v = corrected(g, t, s)
    return theta - 2e-5 * m / (np.sqrt(v) + 1e-8) - 0.01 * theta


@row("adamw-eps-inside")
def adamw_inside(theta, g, t, s):
    m, v = corrected(g, t, s)
    return theta - 1e-3 * m / np.sqrt(v + 1e-8) - 1e-3 * 0.01 * theta


def decoupled(theta, g, t, s, rate, decay):
    m, v = corrected(g, t, s)
    return theta - rate * m / (np.sqrt(v) + 1e-8) - rate * decay * theta


@row("adamw")
def adamw(theta, g, t, s):
    return decoupled(theta, g, t, s, 1e-3, 0.01)


@row("adamw-defaults")
def adamw_defaults(theta, g, t, s):
    return decoupled(theta, g, t, s, 2e-5, 0.01)


@row("adamw-optax-defaults")
def adamw_optax(theta, g, t, s):
    return decoupled(theta, g, t, s, 2e-5, 1e-4)


@row("adamw-paper")
def adamw_paper(theta, g, t, s):
    m, v = corrected(g, t, s)
    eta = 0.1 + 0.9 * (t - 1) / 5 if t < 6 else (1 + np.cos(np.pi * min((t - 6) / 15, 1))) / 2
    return theta - eta * (1e-3 * m / (np.sqrt(v) + 1e-8) + 0.01 * theta)


@row("adamw-bert")
def adamw_bert(theta, g, t, s):
    m, v = moments(g, s)
    update = m / (np.sqrt(v) + 1e-6)
    if s.path == "dense/kernel":  # neither LayerNorm nor a bias
        update = update + 0.01 * theta
    return theta - 2e-5 * update


@row("warmup-and-decay")
def warmup_and_decay(theta, g, t, s):
    k = t - 1
    rate = 1e-7 + (2e-5 - 1e-7) * k / 8 if k < 8 else 2e-5 * (1 - min((k - 8) / 12, 1))
    return decoupled(theta, g, t, s, rate, 0.01)


def everything(loss_rows=slice(None)):
    return mean_square_error(lambda t: loss_rows)


FORMULAS["linear-adam"], GRADIENTS["linear-adam"] = adam, everything()
FORMULAS["linear-adamw"], GRADIENTS["linear-adamw"] = adamw, everything()
FORMULAS["linear-adadelta"], GRADIENTS["linear-adadelta"] = adadelta, everything()


def table():
    """The rows of the page: name, source, formula, gradtx, torch, Optax."""
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|(.*)\|$", PAGE.read_text(), flags=re.M)
    cells = {name: [c.strip() for c in rest.split(" | ")] for name, rest in rows}
    return {
        name: SimpleNamespace(ours=ours.strip("`"), optax=theirs.strip("`"))
        for name, (_, _, ours, _, theirs) in cells.items()
    }


ROWS = table()
PUBLIC = {name: getattr(gradtx, name) for name in gradtx.__all__}


def by_formula(name, params):
    """The trajectory of every leaf: a dict from its path to the parameters after each step."""
    leaves = {
        jax.tree_util.keystr(k, simple=True, separator="/"): v for k, v in jax.tree.leaves_with_path(params)
    }
    result = {}
    for path, theta in leaves.items():
        s, history = Slots(path=path), []
        for t in range(1, STEPS + 1):
            theta = FORMULAS[name](theta, GRADIENTS[name](theta, t), t, s)
            history.append(theta)
        result[path] = np.stack(history)
    return result


def by_transform(tx, name, params):
    step = jax.jit(lambda g, s, p: gradtx.apply_gradients(tx, g, s, p))
    with x64():
        params = jax.tree.map(jnp.asarray, params)
        state, history = tx.init(params), []
        for t in range(1, STEPS + 1):
            grads = jax.tree.map(lambda p, t=t: jnp.asarray(GRADIENTS[name](np.asarray(p), t)), params)
            params, state = step(grads, state, params)
            history.append(params)
    stacked = jax.tree.map(lambda *x: np.stack(x), *history)
    return {
        jax.tree_util.keystr(k, simple=True, separator="/"): v for k, v in jax.tree.leaves_with_path(stacked)
    }


def compare(tx, name, rtol, atol=1e-14):
    params = BERT if name == "adamw-bert" else START
    expected = by_formula(name, params)
    actual = by_transform(tx, name, params)
    assert actual.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_allclose(actual[path], leaf, rtol=rtol, atol=atol, err_msg=path)


def test_rows_and_formulas_correspond():
    assert ROWS.keys() == FORMULAS.keys()


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("name", FORMULAS)
def test_expression_is_the_formula(name):
    compare(eval(ROWS[name].ours, PUBLIC), name, rtol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_expression_prints_as_itself(name):
    tx = eval(ROWS[name].ours, PUBLIC)
    assert eval(repr(tx), PUBLIC) == tx


@pytest.mark.by_turns(5)
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.optax != "-"])
def test_optax_equivalent_is_the_formula(name):
    """Optax needs lenient promotion, and computes its schedules in float32."""
    tolerance = {"rtol": 1e-6, "atol": 1e-7} if "schedule" in ROWS[name].optax else {"rtol": 1e-9}
    with jax.numpy_dtype_promotion("standard"):
        compare(eval(ROWS[name].optax, {"optax": optax}), name, **tolerance)
