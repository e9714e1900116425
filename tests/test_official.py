"""Every recorded trajectory of an official optimizer, 100 steps in float64: see golden/make_official.py."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from conformance import built
from golden import MATRIX_CASES, OFFICIAL_CASES, QK_CASES, RECORDED_ONLY, TORCH_CASES, load_official
from gradtx.core.engine.structure import Structure
from recorded_codes import OF_FORMATS
from trajectories import x64

OFFICIAL = load_official()


@functools.partial(jax.jit, static_argnums=0)
def step(tx, grads, state, params):
    return gradtx.apply_gradients(tx, grads, state, params)


@functools.cache
def trajectory(case):
    """The parameters after every step, and those to evaluate with where the recording has them."""
    with x64():
        tx = built(OFFICIAL_CASES[case])
        params = [jnp.asarray(p) for p in OFFICIAL.params]
        state, history, evaluated = tx.init(params), [], []
        for grads_at in OFFICIAL.grads_by_step(case):
            grads = [jnp.asarray(g) for g in grads_at([np.asarray(p) for p in params])]
            params, state = step(Structure.of(tx), grads, state, params)
            history.append([np.asarray(p) for p in params])
            if case in OFFICIAL.evaluated:
                evaluated.append([np.asarray(p) for p in gradtx.eval_params(state, params)])
    return history, evaluated


def check(history, recorded):
    for number, expected in zip(OFFICIAL.steps, recorded, strict=True):
        for actual, leaf in zip(history[number - 1], expected, strict=True):
            np.testing.assert_allclose(actual, leaf, rtol=1e-10, atol=1e-13, err_msg=f"step {number}")


@pytest.mark.by_turns(2)
@pytest.mark.parametrize("case", OFFICIAL_CASES)
def test_follows_the_official_optimizer(case):
    check(trajectory(case)[0], OFFICIAL.trajectories[case])


@pytest.mark.by_turns(1)
@pytest.mark.parametrize("case", OFFICIAL.evaluated)
def test_evaluates_with_the_official_parameters(case):
    check(trajectory(case)[1], OFFICIAL.evaluated[case])


def test_every_recording_is_compared_or_has_a_reason():
    only_recorded = dict(RECORDED_ONLY)
    assert all(only_recorded.values())
    assert not set(OFFICIAL_CASES) & set(only_recorded)
    assert set(OFFICIAL_CASES) | set(only_recorded) == set(OFFICIAL.sources)


def test_the_page_has_every_recording():
    page = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")]
    known = [*TORCH_CASES, *OFFICIAL_CASES, *MATRIX_CASES, *QK_CASES]
    known += [*(f"`{name}`" for name in OF_FORMATS), *dict(RECORDED_ONLY)]
    assert [row for row in rows if row not in ("case", "format")] == known
