"""Record how PyTorch's optimizers move: `torch.npz`, and the losses of the first example.

    pip install torch==2.13.0 numpy
    python tests/golden/make_torch.py

Needed only to record anew: the tests read the files. `torch.npz` holds 100 steps of each case in
float64 on noisy diagonal quadratics, the parameters after every step of `STEPS`, the optimizer's
state dict after step `HANDOVER`, the arguments that torch was given, and the versions of torch and
numpy. `golden.load_torch` reads it, and `golden.TORCH_CASES` says each case in this library's names.
"""

import copy
import json
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent
EXAMPLE = FOLDER.parents[1] / "examples" / "first_steps_torch.json"
VERSIONS = {"torch": torch.__version__, "numpy": np.__version__}

SHAPES = {"w": (4, 3), "b": (5,)}
LENGTH = 100
STEPS = (*range(1, 6), *range(10, LENGTH + 1, 5))
HANDOVER = 50

CASES = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd_weight_decay": ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    "sgd_momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "sgd_dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    "sgd_nesterov": ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    "sgd_nesterov_weight_decay": (
        "SGD",
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
    ),
    "adagrad": ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.0, "eps": 1e-10}),
    "adagrad_accumulator": ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.1, "eps": 1e-3}),
    "adagrad_weight_decay": ("Adagrad", {"lr": 0.1, "eps": 1e-10, "weight_decay": 0.05}),
    "rmsprop": ("RMSprop", {"lr": 0.01, "alpha": 0.99, "eps": 1e-8}),
    "rmsprop_centered": ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "centered": True}),
    "rmsprop_momentum": ("RMSprop", {"lr": 0.01, "alpha": 0.95, "eps": 1e-4, "momentum": 0.9}),
    "rmsprop_centered_momentum": (
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "momentum": 0.8, "centered": True},
    ),
    "rmsprop_weight_decay": (
        "RMSprop",
        {"lr": 0.01, "alpha": 0.99, "eps": 1e-3, "weight_decay": 0.05},
    ),
    "adadelta": ("Adadelta", {"lr": 1.0, "rho": 0.9, "eps": 1e-6}),
    "adadelta_weight_decay": (
        "Adadelta",
        {"lr": 0.5, "rho": 0.95, "eps": 1e-4, "weight_decay": 0.05},
    ),
    "adam": ("Adam", {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8}),
    "adam_betas": ("Adam", {"lr": 0.05, "betas": (0.7, 0.95), "eps": 1e-3}),
    "adam_weight_decay": (
        "Adam",
        {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.05},
    ),
    "adamw": ("AdamW", {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}),
    "adamw_betas": ("AdamW", {"lr": 0.05, "betas": (0.8, 0.99), "eps": 1e-4, "weight_decay": 0.1}),
    "adamax": ("Adamax", {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8}),
    "adamax_weight_decay": (
        "Adamax",
        {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.05},
    ),
    "radam": ("RAdam", {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8}),
    "radam_weight_decay": (
        "RAdam",
        {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.05},
    ),
    "radam_decoupled": (
        "RAdam",
        {
            "lr": 0.05,
            "betas": (0.9, 0.99),
            "eps": 1e-4,
            "weight_decay": 0.1,
            "decoupled_weight_decay": True,
        },
    ),
    "rprop": ("Rprop", {"lr": 0.01}),
    "rprop_factors": (
        "Rprop",
        {"lr": 0.02, "etas": (0.7, 1.4), "step_sizes": (5e-3, 0.1)},
    ),
    "rprop_first_too_large": (
        "Rprop",
        {"lr": 0.2, "etas": (0.5, 1.2), "step_sizes": (1e-3, 0.05)},
    ),
}


def make_problem(seed=0):
    """A leaf's gradient at step i: curvature * (parameter - target) + noise[i]."""
    rng = np.random.default_rng(seed)
    problem = {}
    for name, shape in SHAPES.items():
        problem[f"{name}/start"] = rng.normal(size=shape)
        problem[f"{name}/target"] = rng.normal(size=shape)
        problem[f"{name}/curvature"] = np.exp(rng.uniform(np.log(0.01), np.log(3.0), size=shape))
        problem[f"{name}/noise"] = 0.1 * rng.normal(size=(LENGTH, *shape))
    # One element has no gradient at all: there an accumulator stays zero.
    problem["b/curvature"][0] = 0.0
    problem["b/noise"][:, 0] = 0.0
    return problem


def record(optimizer_name, kwargs, problem):
    """The parameters after each of STEPS, stacked, by name, and the state dict after HANDOVER."""
    problem = {name: torch.from_numpy(array) for name, array in problem.items()}
    params = {name: torch.nn.Parameter(problem[f"{name}/start"].clone()) for name in SHAPES}
    optimizer = getattr(torch.optim, optimizer_name)(params.values(), **kwargs)
    trajectory = {name: [] for name in SHAPES}
    for i in range(LENGTH):
        for name, p in params.items():
            offset = p.detach() - problem[f"{name}/target"]
            p.grad = problem[f"{name}/curvature"] * offset + problem[f"{name}/noise"][i]
        optimizer.step()
        if i + 1 in STEPS:
            for name, p in params.items():
                trajectory[name].append(p.detach().numpy().copy())
        if i + 1 == HANDOVER:
            state_dict = copy.deepcopy(optimizer.state_dict())
    return {name: np.stack(arrays) for name, arrays in trajectory.items()}, state_dict


def make_trajectories():
    """Write `torch.npz`."""
    problem = make_problem()
    arrays = {"versions": json.dumps(VERSIONS), "steps": np.array(STEPS)}
    arrays |= {f"problem/{name}": array for name, array in problem.items()}
    for case, (optimizer_name, kwargs) in CASES.items():
        arrays[f"{case}/torch"] = json.dumps({"optimizer": optimizer_name, "kwargs": kwargs})
        trajectories, state_dict = record(optimizer_name, kwargs, problem)
        arrays |= {f"{case}/{name}": trajectory for name, trajectory in trajectories.items()}
        arrays[f"{case}/param_groups"] = json.dumps(state_dict["param_groups"])
        for key, entries in state_dict["state"].items():
            arrays |= {f"{case}/state/{key}/{entry}": x.numpy() for entry, x in entries.items()}
    np.savez_compressed(FOLDER / "torch.npz", **arrays)


def short(array):
    """Nested lists of the shortest decimals that are read back as the same float32."""
    return [short(x) for x in array] if np.ndim(array) else float(str(np.float32(array)))


def make_first_steps(epochs=100, seed=0):
    """Write the losses of `Linear(10, 1)` under three optimizers, each epoch one full batch.

    Float32 throughout; an epoch's loss is that of its forward pass, before its update.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(32, 10)).astype(np.float32)
    y = x @ rng.normal(size=(10, 1)) + 0.1 * rng.normal(size=(32, 1))
    y = y.astype(np.float32)
    # The interval that torch itself draws the weights of such a layer from.
    weight, bias = (rng.uniform(-1, 1, size=s) / np.sqrt(10) for s in [(1, 10), (1,)])
    weight, bias = weight.astype(np.float32), bias.astype(np.float32)
    cases = {
        "adam": ("Adam", {"lr": 0.001}),
        "adamw": ("AdamW", {"lr": 0.001, "weight_decay": 0.01}),
        "adadelta": ("Adadelta", {"lr": 1.0}),
    }
    losses = {}
    for case, (optimizer_name, kwargs) in cases.items():
        model = torch.nn.Linear(10, 1)
        model.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        optimizer = getattr(torch.optim, optimizer_name)(model.parameters(), **kwargs)
        losses[case] = []
        for _ in range(epochs):
            loss = torch.nn.functional.mse_loss(model(torch.from_numpy(x)), torch.from_numpy(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[case].append(loss.item())
    content = {
        "source": "tests/golden/make_torch.py",
        "versions": VERSIONS,
        "x": short(x),
        "y": short(y),
        "weight": short(weight),
        "bias": short(bias),
        "cases": {
            case: {"optimizer": name, "kwargs": kwargs, "losses": short(losses[case])}
            for case, (name, kwargs) in cases.items()
        },
    }
    EXAMPLE.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_trajectories()
    make_first_steps()
    print(VERSIONS)
