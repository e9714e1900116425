"""A run of torch goes on in gradtx, and back: recorded state dicts, and dicts that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from golden import TORCH_CASES
from gradtx.core.structure import Structure
from test_torch import TORCH, step
from trajectories import x64

HANDOVER = 50
NAMES = [0, 1]


def made(case):
    name, kwargs = TORCH_CASES[case]
    return getattr(gradtx, name)(**kwargs)


def run(tx, params, state, first, last, dtype):
    """The parameters after each step from `first` on, and the state after `last` of them."""
    history = {}
    params = [jnp.asarray(p, dtype) for p in params]
    for i in range(first, last):
        grads = [jnp.asarray(g, dtype) for g in TORCH.grads_by_step[i]([np.asarray(p) for p in params])]
        params, state = step(Structure.of(tx), grads, state, params)
        history[i + 1] = [np.asarray(p) for p in params]
    return history, state


def at(case, number):
    return TORCH.trajectories[case][TORCH.steps.index(number)]


def as_narrow(state_dict):
    narrow = jax.tree.map(lambda x: np.float32(x) if isinstance(x, np.ndarray) else x, state_dict["state"])
    return {**state_dict, "state": narrow}


def tensors(case, dtype):
    return TORCH.state_dicts[case] if dtype == np.float64 else as_narrow(TORCH.state_dicts[case])


# SGD does not count its steps; where the first is not dampened, they matter.
STEP = {"sgd_dampening": HANDOVER}
BOUNDS = {np.float64: {"rtol": 1e-11, "atol": 1e-13}, np.float32: {"rtol": 3e-5, "atol": 3e-6}}


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", TORCH_CASES)
def test_a_run_goes_on_as_torchs_did(case, dtype):
    tx = made(case)
    with x64(dtype == np.float64):
        params = [jnp.asarray(p, dtype) for p in at(case, HANDOVER)]
        names = {"0": 0, "1": 1}
        state = gradtx.from_torch_state_dict(tx, tensors(case, dtype), names, params, step=STEP.get(case))
        history, _ = run(tx, params, state, HANDOVER, 100, dtype)
    for number in TORCH.steps:
        if number > HANDOVER:
            for actual, leaf in zip(history[number], at(case, number), strict=True):
                np.testing.assert_allclose(actual, leaf, **BOUNDS[dtype], err_msg=f"step {number}")


@pytest.mark.parametrize("case", TORCH_CASES)
def test_the_way_back_gives_torchs_own_state_dict(case):
    tx, recorded = made(case), TORCH.state_dicts[case]
    with x64():
        params = [jnp.asarray(p) for p in TORCH.params]
        history, state = run(tx, params, tx.init(params), 0, HANDOVER, np.float64)
        empty = {**recorded, "state": {}}
        given = gradtx.to_torch_state_dict(tx, state, {"0": 0, "1": 1}, history[HANDOVER], empty)
    assert given["param_groups"] == recorded["param_groups"]
    assert list(given["state"]) == list(recorded["state"])
    for key, entries in recorded["state"].items():
        assert set(given["state"][key]) == set(entries)
        for name, array in entries.items():
            new = given["state"][key][name]
            assert (new.dtype, new.shape) == (array.dtype, array.shape), name
            np.testing.assert_allclose(new, array, rtol=1e-11, atol=1e-14, err_msg=name)
