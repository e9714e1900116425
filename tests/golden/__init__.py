"""Golden trajectories: what other implementations did, and how this library says the same."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

# Every case of make_torch.py as an optimizer of this library and its arguments. What differs from
# torch by more than a name: eps is outside the square root, RMSprop and Adagrad take theirs there
# only when asked to; the first step of a dampened momentum is not dampened.
TORCH_CASES = {
    "sgd": ("sgd", {"learning_rate": 0.1}),
    "sgd_weight_decay": ("sgd", {"learning_rate": 0.1, "weight_decay": 0.05}),
    "sgd_momentum": ("sgd", {"learning_rate": 0.05, "momentum": 0.9}),
    "sgd_dampening": (
        "sgd",
        {"learning_rate": 0.1, "momentum": 0.9, "dampening": 0.5, "dampen_first": False},
    ),
    "sgd_nesterov": ("sgd", {"learning_rate": 0.05, "momentum": 0.8, "nesterov": True}),
    "sgd_nesterov_weight_decay": (
        "sgd",
        {"learning_rate": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
    ),
    "adagrad": (
        "adagrad",
        {
            "learning_rate": 0.1,
            "initial_accumulator_value": 0.0,
            "eps": 1e-10,
            "eps_in_sqrt": False,
        },
    ),
    "adagrad_accumulator": (
        "adagrad",
        {"learning_rate": 0.1, "initial_accumulator_value": 0.1, "eps": 1e-3, "eps_in_sqrt": False},
    ),
    "adagrad_weight_decay": (
        "adagrad",
        {
            "learning_rate": 0.1,
            "initial_accumulator_value": 0.0,
            "eps": 1e-10,
            "eps_in_sqrt": False,
            "weight_decay": 0.05,
        },
    ),
    "rmsprop": (
        "rmsprop",
        {"learning_rate": 0.01, "decay": 0.99, "eps": 1e-8, "eps_in_sqrt": False},
    ),
    "rmsprop_centered": (
        "rmsprop",
        {
            "learning_rate": 0.01,
            "decay": 0.9,
            "eps": 1e-3,
            "eps_in_sqrt": False,
            "centered": True,
        },
    ),
    "rmsprop_momentum": (
        "rmsprop",
        {
            "learning_rate": 0.01,
            "decay": 0.95,
            "eps": 1e-4,
            "eps_in_sqrt": False,
            "momentum": 0.9,
        },
    ),
    "rmsprop_centered_momentum": (
        "rmsprop",
        {
            "learning_rate": 0.01,
            "decay": 0.9,
            "eps": 1e-3,
            "eps_in_sqrt": False,
            "centered": True,
            "momentum": 0.8,
        },
    ),
    "rmsprop_weight_decay": (
        "rmsprop",
        {
            "learning_rate": 0.01,
            "decay": 0.99,
            "eps": 1e-3,
            "eps_in_sqrt": False,
            "weight_decay": 0.05,
        },
    ),
    "adadelta": ("adadelta", {"learning_rate": 1.0, "rho": 0.9, "eps": 1e-6}),
    "adadelta_weight_decay": (
        "adadelta",
        {"learning_rate": 0.5, "rho": 0.95, "eps": 1e-4, "weight_decay": 0.05},
    ),
    "adam": ("adam", {"learning_rate": 0.05, "b1": 0.9, "b2": 0.999, "eps": 1e-8}),
    "adam_betas": ("adam", {"learning_rate": 0.05, "b1": 0.7, "b2": 0.95, "eps": 1e-3}),
    "adam_weight_decay": (
        "adam",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.05},
    ),
    "adamw": (
        "adamw",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
    ),
    "adamw_betas": (
        "adamw",
        {"learning_rate": 0.05, "b1": 0.8, "b2": 0.99, "eps": 1e-4, "weight_decay": 0.1},
    ),
}


def load_torch():
    """`torch.npz`: params, grads_by_step, steps, trajectories, state_dicts, arguments, versions.

    `params` is the start, a list of two float64 arrays. Each of the 100 functions of
    `grads_by_step` maps the parameters before that step to their gradients. `trajectories[case]`
    is a list of the parameters after each of `steps`, which count from 1; `state_dicts[case]` is the
    state dict after step 50, with arrays for tensors; `arguments[case]` is the torch optimizer's name
    and keyword arguments.
    """
    with np.load(Path(__file__).parent / "torch.npz") as file:
        arrays = dict(file)
    leaves = [
        {key: arrays[f"problem/{name}/{key}"] for key in ("start", "target", "curvature", "noise")}
        for name in ("w", "b")
    ]

    def grads_at(step):
        def grads(params):
            return [
                leaf["curvature"] * (p - leaf["target"]) + leaf["noise"][step]
                for p, leaf in zip(params, leaves, strict=True)
            ]

        return grads

    return SimpleNamespace(
        params=[leaf["start"] for leaf in leaves],
        grads_by_step=[grads_at(step) for step in range(len(leaves[0]["noise"]))],
        steps=arrays["steps"].tolist(),
        trajectories={
            case: [list(pair) for pair in zip(arrays[f"{case}/w"], arrays[f"{case}/b"], strict=True)]
            for case in TORCH_CASES
        },
        state_dicts={case: state_dict_of(case, arrays) for case in TORCH_CASES},
        arguments={case: json.loads(str(arrays[f"{case}/torch"])) for case in TORCH_CASES},
        versions=json.loads(str(arrays["versions"])),
    )


def state_dict_of(case, arrays):
    """The state dict of a case, as torch had it but for the arrays."""
    state = {}
    for name, array in arrays.items():
        if name.startswith(f"{case}/state/"):
            *_, key, entry = name.split("/")
            state.setdefault(int(key), {})[entry] = array
    return {"state": state, "param_groups": json.loads(str(arrays[f"{case}/param_groups"]))}
