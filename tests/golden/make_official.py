"""Record how the authors' own optimizers move, and others where there are none: `official.npz`.

    pip install torch==2.13.0 numpy==2.4.6 schedulefree==1.4.1 prodigyopt==1.1.2 dadaptation==3.2 \
        lion-pytorch==0.2.5 madgrad==1.3 adabelief-pytorch==0.2.1 colorama tabulate torch-adopt==0.1.0 \
        dog-optimizer==1.0.3 dowgopt==0.13 pytorch-optimizer==4.1.0 torch-optimi==0.3.3 adam-mini==1.1.1 \
        came-pytorch==0.1.3 sophia-opt==0.2.2 mechanic-pytorch==0.0.1
    python tests/golden/make_official.py

Needed only to record anew: the tests read the file. It holds 100 steps of each case in float64 on the
problem of `make_torch.py`: the parameters after every step of `STEPS`, those to evaluate with where the
optimizer has others, the package with its version, the class, the arguments that it was given and what was
called at each step. `golden.load_official` reads it, and `golden.OFFICIAL_CASES` says each case in this
library's names.
"""

import importlib
import importlib.metadata
import json
from pathlib import Path

import numpy as np
import torch
from make_torch import LENGTH, SHAPES, make_problem

STEPS = (*range(1, 6), *range(10, LENGTH + 1, 10))
EVERY = 10

# Batched updates take some of their factors in float32.
PLAIN = {"foreach": False}

# Case: package, class, arguments.
CASES = {
    "nadam": (
        "torch",
        "torch.optim.NAdam",
        {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8, "momentum_decay": 0.004},
    ),
    "nadam_weight_decay": (
        "torch",
        "torch.optim.NAdam",
        {
            "lr": 0.05,
            "betas": (0.8, 0.99),
            "eps": 1e-4,
            "momentum_decay": 0.05,
            "weight_decay": 0.05,
            "decoupled_weight_decay": True,
        },
    ),
    # So large a decay leaves nothing of the schedule of the momentum.
    "nadam_constant": (
        "torch",
        "torch.optim.NAdam",
        {"lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-6, "momentum_decay": 1e6},
    ),
    "nadamw_constant": (
        "torch",
        "torch.optim.NAdam",
        {
            "lr": 0.03,
            "betas": (0.8, 0.95),
            "eps": 1e-3,
            "momentum_decay": 1e6,
            "weight_decay": 0.1,
            "decoupled_weight_decay": True,
        },
    ),
    "lbfgs": (
        "torch",
        "torch.optim.LBFGS",
        {"lr": 0.04, "max_iter": 1, "history_size": 5, "tolerance_grad": 0.0, "tolerance_change": 0.0},
    ),
    "lbfgs_two_pairs": (
        "torch",
        "torch.optim.LBFGS",
        {"lr": 0.03, "max_iter": 1, "history_size": 2, "tolerance_grad": 0.0, "tolerance_change": 0.0},
    ),
    "schedule_free_sgd": (
        "schedulefree",
        "schedulefree.SGDScheduleFree",
        {"lr": 0.5, "momentum": 0.9},
    ),
    "schedule_free_sgd_warmup": (
        "schedulefree",
        "schedulefree.SGDScheduleFree",
        {"lr": 0.3, "momentum": 0.8, "weight_decay": 0.05, "warmup_steps": 20, "weight_lr_power": 1.5},
    ),
    "schedule_free_sgd_r": (
        "schedulefree",
        "schedulefree.SGDScheduleFree",
        {"lr": 0.2, "momentum": 0.95, "r": 3.0},
    ),
    "schedule_free_adamw": (
        "schedulefree",
        "schedulefree.AdamWScheduleFree",
        {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8},
    ),
    "schedule_free_adamw_warmup": (
        "schedulefree",
        "schedulefree.AdamWScheduleFree",
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.05, "warmup_steps": 20},
    ),
    "prodigy": (
        "prodigyopt",
        "prodigyopt.Prodigy",
        {"lr": 1.0, "betas": (0.9, 0.999), "d0": 1e-6, "use_bias_correction": True},
    ),
    "prodigy_weight_decay": (
        "prodigyopt",
        "prodigyopt.Prodigy",
        {
            "lr": 0.5,
            "betas": (0.8, 0.99),
            "beta3": 0.95,
            "eps": 1e-4,
            "weight_decay": 0.05,
            "d0": 1e-3,
            "d_coef": 0.5,
            "use_bias_correction": True,
            "safeguard_warmup": True,
        },
    ),
    "prodigy_uncorrected": (
        "prodigyopt",
        "prodigyopt.Prodigy",
        {"lr": 1.0, "betas": (0.9, 0.99), "d0": 1e-3},
    ),
    "dadapt_adamw": (
        "dadaptation",
        "dadaptation.DAdaptAdam",
        {"lr": 1.0, "betas": (0.9, 0.999), "d0": 1e-6, "decouple": True, "use_bias_correction": True},
    ),
    "dadapt_adamw_weight_decay": (
        "dadaptation",
        "dadaptation.DAdaptAdam",
        {
            "lr": 0.5,
            "betas": (0.8, 0.99),
            "eps": 1e-4,
            "weight_decay": 0.05,
            "d0": 1e-3,
            "decouple": True,
            "use_bias_correction": True,
        },
    ),
    "lion": ("lion-pytorch", "lion_pytorch.Lion", {"lr": 0.01, "betas": (0.9, 0.99)}),
    "lion_weight_decay": (
        "lion-pytorch",
        "lion_pytorch.Lion",
        {"lr": 0.02, "betas": (0.95, 0.8), "weight_decay": 0.1},
    ),
    "ademamix": (
        "pytorch-optimizer",
        "pytorch_optimizer.AdEMAMix",
        {"lr": 0.02, "betas": (0.9, 0.999, 0.99), "alpha": 5.0, "eps": 1e-8, **PLAIN},
    ),
    "ademamix_schedules": (
        "pytorch-optimizer",
        "pytorch_optimizer.AdEMAMix",
        {
            "lr": 0.02,
            "betas": (0.8, 0.95, 0.98),
            "alpha": 3.0,
            "t_alpha_beta3": 60.0,
            "eps": 1e-3,
            "weight_decay": 0.1,
            "weight_decouple": True,
            **PLAIN,
        },
    ),
    "adan": (
        "pytorch-optimizer",
        "pytorch_optimizer.Adan",
        {"lr": 0.05, "betas": (0.98, 0.92, 0.99), "eps": 1e-8, **PLAIN},
    ),
    "adan_decoupled": (
        "pytorch-optimizer",
        "pytorch_optimizer.Adan",
        {
            "lr": 0.05,
            "betas": (0.9, 0.8, 0.95),
            "eps": 1e-3,
            "weight_decay": 0.1,
            "weight_decouple": True,
            **PLAIN,
        },
    ),
    "adan_proximal": (
        "pytorch-optimizer",
        "pytorch_optimizer.Adan",
        {"lr": 0.05, "betas": (0.95, 0.9, 0.98), "eps": 1e-6, "weight_decay": 0.1, **PLAIN},
    ),
    "adopt": ("torch-adopt", "adopt.ADOPT", {"lr": 0.05, "betas": (0.9, 0.9999), "eps": 1e-6}),
    "adopt_weight_decay": (
        "torch-adopt",
        "adopt.ADOPT",
        {"lr": 0.05, "betas": (0.8, 0.95), "eps": 0.05, "clip_lambda": None, "weight_decay": 0.05},
    ),
    "adopt_decoupled": (
        "torch-adopt",
        "adopt.ADOPT",
        {"lr": 0.03, "betas": (0.9, 0.99), "eps": 1e-3, "weight_decay": 0.1, "decouple": True},
    ),
    "adopt_later_bound": (
        "pytorch-optimizer",
        "pytorch_optimizer.ADOPT",
        {
            "lr": 0.05,
            "betas": (0.9, 0.99),
            "eps": 1e-3,
            "weight_decay": 0.1,
            "weight_decouple": True,
            **PLAIN,
        },
    ),
    "laprop": (
        "pytorch-optimizer",
        "pytorch_optimizer.LaProp",
        {"lr": 0.02, "betas": (0.9, 0.999), "eps": 0.0, **PLAIN},
    ),
    "laprop_weight_decay": (
        "pytorch-optimizer",
        "pytorch_optimizer.LaProp",
        {"lr": 0.05, "betas": (0.8, 0.95), "eps": 0.0, "weight_decay": 0.1, **PLAIN},
    ),
    "laprop_eps": (
        "pytorch-optimizer",
        "pytorch_optimizer.LaProp",
        {"lr": 0.02, "betas": (0.9, 0.99), "eps": 1e-3, **PLAIN},
    ),
    "adabelief": (
        "adabelief-pytorch",
        "adabelief_pytorch.AdaBelief",
        {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8, "rectify": False, "print_change_log": False},
    ),
    "adabelief_decoupled": (
        "adabelief-pytorch",
        "adabelief_pytorch.AdaBelief",
        {
            "lr": 0.03,
            "betas": (0.8, 0.95),
            "eps": 1e-4,
            "weight_decay": 0.1,
            "weight_decouple": True,
            "rectify": False,
            "print_change_log": False,
        },
    ),
    "adabelief_fixed_decay": (
        "adabelief-pytorch",
        "adabelief_pytorch.AdaBelief",
        {
            "lr": 0.05,
            "betas": (0.9, 0.99),
            "eps": 1e-6,
            "weight_decay": 1e-3,
            "weight_decouple": True,
            "fixed_decay": True,
            "rectify": False,
            "print_change_log": False,
        },
    ),
    "adabelief_coupled": (
        "pytorch-optimizer",
        "pytorch_optimizer.AdaBelief",
        {
            "lr": 0.05,
            "betas": (0.9, 0.99),
            "eps": 1e-6,
            "weight_decay": 0.05,
            "weight_decouple": False,
            **PLAIN,
        },
    ),
    "adabelief_rectified": (
        "adabelief-pytorch",
        "adabelief_pytorch.AdaBelief",
        {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-16, "rectify": True, "print_change_log": False},
    ),
    "yogi": (
        "pytorch-optimizer",
        "pytorch_optimizer.Yogi",
        {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-3, **PLAIN},
    ),
    "yogi_accumulator": (
        "pytorch-optimizer",
        "pytorch_optimizer.Yogi",
        {
            "lr": 0.1,
            "betas": (0.8, 0.9),
            "initial_accumulator": 1e-2,
            "eps": 1e-4,
            "weight_decay": 0.05,
            "weight_decouple": False,
            **PLAIN,
        },
    ),
    "yogi_decoupled": (
        "pytorch-optimizer",
        "pytorch_optimizer.Yogi",
        {"lr": 0.03, "betas": (0.9, 0.99), "eps": 1e-2, "weight_decay": 0.1, **PLAIN},
    ),
    "lamb": (
        "pytorch-optimizer",
        "pytorch_optimizer.Lamb",
        {"lr": 0.02, "betas": (0.9, 0.999), "eps": 1e-6, **PLAIN},
    ),
    "lamb_weight_decay": (
        "pytorch-optimizer",
        "pytorch_optimizer.Lamb",
        {
            "lr": 0.03,
            "betas": (0.8, 0.95),
            "eps": 1e-4,
            "weight_decay": 0.1,
            "weight_decouple": False,
            "adam_debias": True,
            **PLAIN,
        },
    ),
    "fromage": ("pytorch-optimizer", "pytorch_optimizer.Fromage", {"lr": 0.01, **PLAIN}),
    "fromage_large": ("pytorch-optimizer", "pytorch_optimizer.Fromage", {"lr": 0.2, **PLAIN}),
    "novograd": (
        "pytorch-optimizer",
        "pytorch_optimizer.NovoGrad",
        {"lr": 0.05, "betas": (0.9, 0.25), "eps": 1e-8, **PLAIN},
    ),
    "novograd_weight_decay": (
        "pytorch-optimizer",
        "pytorch_optimizer.NovoGrad",
        {"lr": 0.02, "betas": (0.95, 0.98), "eps": 1e-3, "weight_decay": 0.05, **PLAIN},
    ),
    "novograd_averaging": (
        "pytorch-optimizer",
        "pytorch_optimizer.NovoGrad",
        {"lr": 0.1, "betas": (0.9, 0.9), "eps": 1e-8, "grad_averaging": True, **PLAIN},
    ),
    "sm3": (
        "pytorch-optimizer",
        "pytorch_optimizer.SM3",
        {"lr": 0.1, "momentum": 0.9, "eps": 1e-8, **PLAIN},
    ),
    "sm3_eps": (
        "pytorch-optimizer",
        "pytorch_optimizer.SM3",
        {"lr": 0.2, "momentum": 0.0, "eps": 1e-2, **PLAIN},
    ),
    "sm3_beta": (
        "pytorch-optimizer",
        "pytorch_optimizer.SM3",
        {"lr": 0.05, "momentum": 0.5, "beta": 0.9, "eps": 1e-8, **PLAIN},
    ),
    "madgrad": ("madgrad", "madgrad.MADGRAD", {"lr": 0.05, "momentum": 0.9, "eps": 1e-6}),
    "madgrad_weight_decay": (
        "madgrad",
        "madgrad.MADGRAD",
        {"lr": 0.02, "momentum": 0.0, "weight_decay": 0.05, "eps": 1e-3},
    ),
    "madgrad_decoupled": (
        "madgrad",
        "madgrad.MADGRAD",
        {"lr": 0.03, "momentum": 0.8, "weight_decay": 0.1, "eps": 1e-4, "decouple_decay": True},
    ),
    "dog": ("dog-optimizer", "dog.DoG", {"reps_rel": 1e-3, "eps": 1e-8}),
    "dog_weight_decay": (
        "dog-optimizer",
        "dog.DoG",
        {"reps_rel": 1e-2, "lr": 0.5, "weight_decay": 0.1, "eps": 1e-2},
    ),
    "dog_first_rate": ("dog-optimizer", "dog.DoG", {"init_eta": 0.01, "eps": 1e-8}),
    "ldog": ("dog-optimizer", "dog.LDoG", {"reps_rel": 1e-3, "eps": 1e-8}),
    "dowg": ("dowgopt", "dowg.DoWG", {"eps": 1e-4}),
    "dowg_eps": ("dowgopt", "dowg.DoWG", {"eps": 1e-2}),
    "stable_adamw": (
        "torch-optimi",
        "optimi.StableAdamW",
        {"lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.0, **PLAIN, "triton": False},
    ),
    "stable_adamw_weight_decay": (
        "torch-optimi",
        "optimi.StableAdamW",
        {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1, **PLAIN, "triton": False},
    ),
    "adam_mini": ("adam-mini", "adam_mini.Adam_mini", {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-8}),
    "adam_mini_rows": (
        "adam-mini",
        "adam_mini.Adam_mini",
        {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1},
    ),
    "came": ("came-pytorch", "came_pytorch.CAME", {"lr": 0.02}),
    "came_weight_decay": (
        "came-pytorch",
        "came_pytorch.CAME",
        {
            "lr": 0.03,
            "betas": (0.8, 0.95, 0.98),
            "eps": (1e-20, 1e-8),
            "clip_threshold": 0.5,
            "weight_decay": 0.1,
        },
    ),
    "mars": (
        "pytorch-optimizer",
        "pytorch_optimizer.MARS",
        {"lr": 0.05, "betas": (0.95, 0.99), "gamma": 0.025, "optimize_1d": True, **PLAIN},
    ),
    "mars_lion": (
        "pytorch-optimizer",
        "pytorch_optimizer.MARS",
        {
            "lr": 0.01,
            "betas": (0.9, 0.95),
            "gamma": 0.05,
            "mars_type": "lion",
            "lr_1d": 0.02,
            "betas_1d": (0.8, 0.95),
            "weight_decay": 0.1,
            "weight_decay_1d": 0.05,
            **PLAIN,
        },
    ),
    "sophia_h": (
        "pytorch-optimizer",
        "pytorch_optimizer.SophiaH",
        {"lr": 0.5, "betas": (0.96, 0.9), "p": 0.05, "update_period": EVERY, **PLAIN},
    ),
    "sophia_g": (
        "sophia-opt",
        "sophia_opt.SophiaG",
        {"lr": 0.02, "betas": (0.9, 0.8), "rho": 2.0, "weight_decay": 0.1},
    ),
    "mechanic": (
        "mechanic-pytorch",
        "mechanic_pytorch.mechanize",
        {"base": "torch.optim.SGD", "s_init": 1e-3, "store_delta": True, "base_kwargs": {"lr": 1.0}},
    ),
    "mechanic_adam": (
        "mechanic-pytorch",
        "mechanic_pytorch.mechanize",
        {
            "base": "torch.optim.Adam",
            "s_init": 1e-2,
            "s_decay": 0.0,
            "betas": (0.9, 0.99),
            "store_delta": True,
            "base_kwargs": {"lr": 0.1},
        },
    ),
}

# On the problem without noise, which would look like curvature.
QUIET = ("lbfgs", "lbfgs_two_pairs")

# What an optimizer is called with beside `step()`; it becomes part of the recording.
CALLS = {
    "adam_mini": "the leaves are named w and b",
    "adam_mini_rows": "the leaves are named mlp.w and mlp.bias",
    "sophia_h": f"step(hessian=curvature) at step 1 and every {EVERY}th one after it",
    **dict.fromkeys(QUIET, "step(closure), on the problem without noise"),
    "sophia_g": f"update_hessian() before step 1 and every {EVERY}th one after it; step(bs=1)",
}


def named(path):
    """The object of a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def make(case, params):
    """The optimizer of a case."""
    _, path, kwargs = CASES[case]
    if path == "mechanic_pytorch.mechanize":
        kwargs = dict(kwargs)
        base, base_kwargs = named(kwargs.pop("base")), kwargs.pop("base_kwargs")
        return named(path)(base, **kwargs)(params.values(), **base_kwargs)
    if path == "adam_mini.Adam_mini":
        names = {"w": "w", "b": "b"} if case == "adam_mini" else {"w": "mlp.w", "b": "mlp.bias"}
        leaves = [(names[name], p) for name, p in params.items()]
        return named(path)(leaves, dim=8, n_heads=2, verbose=False, **kwargs)
    return named(path)(list(params.values()), **kwargs)


def step(case, optimizer, number, problem):
    """One step, which counts from 0."""
    renews = number % EVERY == 0
    if case == "sophia_g":
        if renews:
            optimizer.update_hessian()
        optimizer.step(bs=1)
    elif case == "sophia_h" and renews:
        optimizer.step(hessian=[problem[f"{name}/curvature"] for name in SHAPES])
    elif case in QUIET:
        optimizer.step(lambda: 0.0)
    else:
        optimizer.step()


def flat(params):
    """All parameters as one vector, in the order of SHAPES."""
    return np.concatenate([p.detach().numpy().ravel() for p in params.values()])


def evaluated(optimizer, params):
    """The parameters to evaluate with; those to go on from are put back without a rounding."""
    trained = {name: p.detach().clone() for name, p in params.items()}
    optimizer.eval()
    found = flat(params)
    optimizer.train()
    with torch.no_grad():
        for name, p in params.items():
            p.copy_(trained[name])
    return found


def record(case, problem):
    """The parameters after each of STEPS, and those to evaluate with if there are such."""
    problem = {name: torch.from_numpy(array) for name, array in problem.items()}
    params = {name: torch.nn.Parameter(problem[f"{name}/start"].clone()) for name in SHAPES}
    optimizer = make(case, params)
    averages = hasattr(optimizer, "eval")
    if averages:
        optimizer.train()
    history = {"": [], "/eval": []}
    for i in range(LENGTH):
        for name, p in params.items():
            offset = p.detach() - problem[f"{name}/target"]
            p.grad = problem[f"{name}/curvature"] * offset
            if case not in QUIET:
                p.grad += problem[f"{name}/noise"][i]
        step(case, optimizer, i, problem)
        if i + 1 in STEPS:
            history[""].append(flat(params))
            if averages:
                history["/eval"].append(evaluated(optimizer, params))
    return {case + suffix: np.stack(vectors) for suffix, vectors in history.items() if vectors}


def main():
    """Write `official.npz`."""
    problem, arrays, sources = make_problem(), {"steps": np.array(STEPS)}, {}
    for case, (package, path, kwargs) in CASES.items():
        arrays |= record(case, problem)
        sources[case] = {
            "package": package,
            "version": importlib.metadata.version(package),
            "class": path,
            "kwargs": kwargs,
        }
        if case in CALLS:
            sources[case]["calls"] = CALLS[case]
    for name, array in arrays.items():
        assert np.all(np.isfinite(array)), name
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    arrays |= {"sources": json.dumps(sources), "versions": json.dumps(versions)}
    np.savez_compressed(Path(__file__).parent / "official.npz", **arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Some keep their scalars in the default dtype.
    torch.set_default_dtype(torch.float64)
    main()
