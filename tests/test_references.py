"""The references against recorded trajectories of torch, in numpy alone."""

import json
from pathlib import Path

import numpy as np
import pytest

import references
from golden import TORCH_CASES, load_torch

TORCH = load_torch()
FIRST_STEPS = Path(__file__).parents[1] / "examples" / "first_steps_torch.json"


@pytest.mark.by_turns(12)
@pytest.mark.parametrize("case", TORCH_CASES)
def test_reference_follows_torch(case):
    name, kwargs = TORCH_CASES[case]
    reference = getattr(references, name.capitalize())(**kwargs)
    trajectory = references.run(reference, TORCH.params, TORCH.grads_by_step)
    for step, expected in zip(TORCH.steps, TORCH.trajectories[case], strict=True):
        for actual, leaf in zip(trajectory[step - 1], expected, strict=True):
            np.testing.assert_allclose(actual, leaf, rtol=1e-10, atol=1e-12, err_msg=f"step {step}")


def test_the_cases_tell_apart_what_they_should():
    """No two cases end alike, so none would pass with the arguments of another."""
    ends = {
        case: np.concatenate([leaf.ravel() for leaf in trajectory[-1]])
        for case, trajectory in TORCH.trajectories.items()
    }
    cases = sorted(ends)
    for i, case in enumerate(cases):
        for other in cases[:i]:
            assert np.max(np.abs(ends[case] - ends[other])) > 1e-6, (case, other)


@pytest.mark.parametrize(
    "case, name, kwargs",
    [
        ("adam", "Adam", {"learning_rate": 0.001}),
        ("adamw", "Adamw", {"learning_rate": 0.001, "weight_decay": 0.01}),
        ("adadelta", "Adadelta", {"learning_rate": 1.0}),
    ],
)
def test_reference_follows_the_first_example(case, name, kwargs):
    """Torch ran in float32, so its losses agree to that precision only."""
    content = json.loads(FIRST_STEPS.read_text())
    x, y = np.array(content["x"]), np.array(content["y"])

    def error(params):
        weight, bias = params
        return x @ weight.T + bias - y

    def grads(params):
        slope = 2 * error(params) / len(x)
        return [slope.T @ x, slope.sum(0)]

    params = [np.array(content["weight"]), np.array(content["bias"])]
    expected = content["cases"][case]["losses"]
    reference = getattr(references, name)(**kwargs)
    trajectory = references.run(reference, params, [grads] * len(expected))
    losses = [np.mean(error(p) ** 2) for p in [params, *trajectory[:-1]]]
    np.testing.assert_allclose(losses, expected, rtol=2e-6)


def rate(step):
    return [0.1, 0.2][step]


@pytest.mark.parametrize(
    "reference, expected",
    [
        (references.Trace(0.9, dampening=0.5), [1.5, 0.9 * 1.5 + 0.5]),
        (references.Trace(0.9, dampening=0.5, dampen_first=False), [3.0, 0.9 * 3.0 + 0.5]),
        (references.ScaleByRms(eps=0.0, first_gradient=True), [1.0, 8.2**-0.5]),
        (references.ScaleByStddev(eps=4.0, first_gradient=True), [1.5, (8.2 - 2.8**2 + 4) ** -0.5]),
        # The learning rate is inside the buffer: the second step keeps 0.9 of the first, at 0.1.
        (
            references.Rmsprop(rate, eps=0.0, first_gradient=True, momentum=0.9),
            [-0.1, -0.09 - 0.2 * 8.2**-0.5],
        ),
        (
            references.ScaleByAdam(b1=0.5, b2=0.75, eps=0.5, eps_scaled=True),
            [
                0.25**0.5 / 0.5 * 1.5 / (1.5 + 0.5),
                0.4375**0.5 / 0.75 * 1.25 / (1.9375**0.5 + 0.5),
            ],
        ),
        (
            references.ScaleByAdam(b1=0.5, b2=0.75, eps=0.5, bias_correction=False),
            [1.5 / (1.5 + 0.5), 1.25 / (1.9375**0.5 + 0.5)],
        ),
    ],
    ids=[
        "dampening",
        "dampening_but_the_first",
        "rms_first_gradient",
        "stddev_first_gradient",
        "rmsprop_changing_rate",
        "adam_eps_scaled",
        "adam_without_bias_correction",
    ],
)
def test_by_hand(reference, expected):
    """Two steps, of the gradients 3 and 1, of what torch has no argument for."""
    reference.init([np.array(2.0)])
    for g, update in zip([3.0, 1.0], expected, strict=True):
        (actual,) = reference.update([np.array(g)], [np.array(2.0)])
        np.testing.assert_allclose(actual, update, rtol=1e-14)


@pytest.mark.parametrize(
    "decay_coupling, expected",
    [
        ("rate", -0.5 * 0.1 * (1 + 0.2 * 2)),
        ("schedule", -0.5 * (0.1 + 0.2 * 2)),
        ("none", -0.5 * 0.1 - 0.2 * 2),
    ],
)
def test_decay_couplings(decay_coupling, expected):
    """At the first step, where Adam's direction is the sign of the gradient."""
    reference = references.Adamw(
        0.1, eps=0.0, weight_decay=0.2, decay_coupling=decay_coupling, schedule=lambda step: 0.5
    )
    reference.init([np.array(2.0)])
    (actual,) = reference.update([np.array(3.0)], [np.array(2.0)])
    np.testing.assert_allclose(actual, expected, rtol=1e-14)
