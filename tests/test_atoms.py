"""Adam, RMSProp and Lion put together from atoms: the packaged numbers at the packaged cost.

Lion's step mixes the old momentum, and an average gives the new one. With m' = b2 m + (1 - b2) g,

    b1 m + (1 - b1) g = b1/b2 m' + (1 - b1/b2) g,

so that it is a sum of two branches. Only its sign counts: the two forms could differ where the mix cancels
to within rounding, which a gradient does not hit but by design.
"""

import collections
import functools
import re

import jax
import numpy as np
import pytest

import gradtx
from gradtx import add as plus
from gradtx import chain, debias, ema, identity, offset, ratio, scale, sign, sqrt, square
from trajectories import narrow, problem, run, x64


def adam_from_atoms(b1=0.9, b2=0.999, eps=1e-8):
    return ratio(
        chain(ema(b1, debias=False), debias(b1)),
        chain(square(), ema(b2, debias=False), debias(b2), sqrt(), offset(eps)),
    )


def rms_from_atoms(decay=0.9, eps=1e-8):
    return ratio(identity(), chain(square(), ema(decay, debias=False), offset(eps), sqrt()))


def lion_from_atoms(b1=0.9, b2=0.99):
    momentum = chain(ema(b2, debias=False), scale(b1 / b2))
    return chain(plus(momentum, scale(1 - b1 / b2)), sign())


REBUILT = {
    "adam": (adam_from_atoms(), gradtx.scale_by_adam()),
    "adam_eps_inside": (
        ratio(
            chain(ema(0.9, debias=False), debias(0.9)),
            chain(square(), ema(0.999, debias=False), debias(0.999), offset(1e-6), sqrt()),
        ),
        gradtx.scale_by_adam(eps=0.0, eps_root=1e-6),
    ),
    "adam_uncorrected": (
        ratio(ema(0.9, debias=False), chain(square(), ema(0.999, debias=False), sqrt(), offset(1e-8))),
        gradtx.scale_by_adam(bias_correction=False),
    ),
    "rmsprop": (rms_from_atoms(), gradtx.scale_by_rms()),
    "rmsprop_eps_outside": (
        ratio(identity(), chain(square(), ema(0.9, debias=False), sqrt(), offset(1e-8))),
        gradtx.scale_by_rms(eps_in_sqrt=False),
    ),
    "lion": (lion_from_atoms(), gradtx.scale_by_lion()),
}
RATE = 1e-2


def both(name, data):
    """The parameters over all steps: rebuilt, packaged."""
    pair = (chain(part, gradtx.scale_by_learning_rate(RATE)) for part in REBUILT[name])
    return [run(tx, data.params, data.grads)[1] for tx in pair]


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", REBUILT)
def test_rebuilt_is_the_packaged_one_in_double_precision(name):
    with x64():
        rebuilt, packaged = both(name, problem(small=True))
    for key, expected in packaged.items():
        np.testing.assert_allclose(rebuilt[key], expected, rtol=1e-14, atol=0)


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", REBUILT)
def test_rebuilt_is_the_packaged_one_in_single_precision(name):
    data = problem(small=True)
    data = type(data)(params=narrow(data.params), grads=narrow(data.grads))
    rebuilt, packaged = both(name, data)
    for key, expected in packaged.items():
        assert np.max(np.abs(rebuilt[key] - expected) / np.spacing(np.abs(expected))) <= 4


@functools.cache
def fusions(tx):
    """The kernels on leaves; the scalars of a rule have some of their own."""
    params = {"w": np.ones((64, 64), np.float32), "b": np.ones(64, np.float32)}

    def step(params, state, grads):
        return gradtx.apply_gradients(tx, grads, state, params)

    compiled = jax.jit(step).lower(params, tx.init(params), params).compile()
    return len(re.findall(r"= f32\[64[^ ]* fusion\(", compiled.as_text()))


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("name", REBUILT)
def test_rebuilt_costs_what_the_packaged_one_costs(name):
    rebuilt, packaged = (fusions(chain(part, gradtx.scale_by_learning_rate(RATE))) for part in REBUILT[name])
    assert rebuilt == packaged > 0


def test_the_atoms_of_lion_keep_lions_momentum():
    """The slot is the same, so that a step may be made by either."""
    data = problem(small=True)
    states = []
    for tx in REBUILT["lion"]:
        state = tx.init(narrow(data.params))
        for t in range(3):
            grads = narrow({k: g[t] for k, g in data.grads.items()})
            _, state = tx.update(grads, state)
        states.append(jax.tree.leaves(state["slots"]))
    for rebuilt, packaged in zip(*states, strict=True):
        np.testing.assert_array_equal(rebuilt, packaged)


@pytest.mark.wide
def test_an_atom_off_shows():
    """The comparison is no formality: Lion with the betas of its branches swapped is another optimizer."""
    data = problem(small=True)
    swapped = chain(lion_from_atoms(0.99, 0.9), gradtx.scale_by_learning_rate(RATE))
    packaged = chain(gradtx.scale_by_lion(), gradtx.scale_by_learning_rate(RATE))
    with x64():
        a, b = (run(tx, data.params, data.grads)[1]["matrix"] for tx in (swapped, packaged))
    assert np.max(np.abs(a - b)) > RATE


def test_an_adamw_step_computes_no_more_than_its_formula():
    """Every operation on every leaf is compiled anew, so that one more shows in the time to compile."""
    tx, params = gradtx.adamw(1e-3), np.ones((3, 5), np.float32)
    step = jax.jit(lambda params, state, grads: gradtx.apply_gradients(tx, grads, state, params))
    text = step.lower(params, tx.init(params), params).as_text()
    on_leaves = [line for line in text.splitlines() if "3x5" in line]
    found = collections.Counter(re.findall(r"stablehlo\.(\w+)", "\n".join(on_leaves)))
    found.pop("broadcast_in_dim")
    assert found == {"multiply": 11, "add": 8, "sqrt": 1, "maximum": 1, "divide": 1}
