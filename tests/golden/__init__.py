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
    "adamax": ("adamax", {"learning_rate": 0.05, "b1": 0.9, "b2": 0.999, "eps": 1e-8}),
    "adamax_weight_decay": (
        "adamax",
        {"learning_rate": 0.03, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "weight_decay": 0.05},
    ),
    "radam": ("radam", {"learning_rate": 0.05, "b1": 0.9, "b2": 0.999, "eps_scaled": True, "eps": 1e-8}),
    "radam_weight_decay": (
        "radam",
        {
            "learning_rate": 0.03,
            "b1": 0.8,
            "b2": 0.95,
            "eps_scaled": True,
            "eps": 1e-3,
            "weight_decay": 0.05,
        },
    ),
    "radam_decoupled": (
        "radam",
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "eps_scaled": True,
            "eps": 1e-4,
            "weight_decay": 0.1,
            "decay_coupling": "rate",
        },
    ),
    "rprop": ("rprop", {"learning_rate": 0.01}),
    "rprop_factors": (
        "rprop",
        {
            "learning_rate": 0.02,
            "eta_minus": 0.7,
            "eta_plus": 1.4,
            "min_step_size": 5e-3,
            "max_step_size": 0.1,
        },
    ),
    # torch bounds the first size too, which is 0.2 there.
    "rprop_first_too_large": (
        "rprop",
        {"learning_rate": 0.05, "min_step_size": 1e-3, "max_step_size": 0.05},
    ),
}


def load_torch():
    """`torch.npz`: params, grads_by_step, steps, trajectories, state_dicts, arguments, versions.

    `params` is the start, a list of two float64 arrays. Each of the 100 functions of
    `grads_by_step` maps the parameters before that step to their gradients, and `quiet_grads` to those
    without the noise. `trajectories[case]` is a list of the parameters after each of `steps`, which
    count from 1; `state_dicts[case]` is the state dict after step 50, with arrays for tensors;
    `arguments[case]` is the torch optimizer's name and keyword arguments.
    """
    with np.load(Path(__file__).parent / "torch.npz") as file:
        arrays = dict(file)
    leaves = [
        {key: arrays[f"problem/{name}/{key}"] for key in ("start", "target", "curvature", "noise")}
        for name in ("w", "b")
    ]

    def grads_at(step):
        def grads(params):
            return [g + leaf["noise"][step] for g, leaf in zip(quiet_grads(params), leaves, strict=True)]

        return grads

    def quiet_grads(params):
        return [leaf["curvature"] * (p - leaf["target"]) for p, leaf in zip(params, leaves, strict=True)]

    return SimpleNamespace(
        params=[leaf["start"] for leaf in leaves],
        grads_by_step=[grads_at(step) for step in range(len(leaves[0]["noise"]))],
        quiet_grads=quiet_grads,
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


def at_step(value):
    """The schedule of value(t) at step t of the recordings, which counts from 1; a schedule counts from 0."""

    def schedule(step):
        # What reads recordings, and the scripts that make them, need numpy alone.
        import jax.numpy as jnp

        values = [value(t) for t in range(1, 101)]
        return jnp.asarray(values)[jnp.asarray(step).astype("int32")]

    return schedule


def corrected(eps, b2):
    """For an eps that is added to the root of a second moment whose bias is not yet corrected."""
    return at_step(lambda t: eps / (1 - b2**t) ** 0.5)


def torch_nadam(b1, b2, eps, momentum_decay):
    """NAdam with the momentum of its paper: b1 (1 - 0.96^(t momentum_decay) / 2) at step t."""

    def momentum(t):
        return b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def left(t):
        return 1 - np.prod([momentum(s) for s in range(1, t + 1)])

    of_g = ("scale_by_schedule", [at_step(lambda t: (1 - momentum(t)) / left(t))])
    of_m = ("scale_by_schedule", [at_step(lambda t: momentum(t + 1) / left(t + 1))])
    step = ("add", [of_g, ("chain", [("ema", [b1, False]), of_m])])
    return ("ratio", [step, ("chain", [("square", []), ("ema", [b2]), ("sqrt", []), ("offset", [eps])])])


def rectification(b2, t, threshold=5):
    """RAdam's factor at step t, and 0 before it is used."""
    limit = 2 / (1 - b2) - 1
    rho = limit - 2 * t * b2**t / (1 - b2**t)
    if rho < threshold:
        return 0.0
    return ((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)) ** 0.5


def half_life(*args):
    """The schedule of that name."""

    def value(t):
        import gradtx

        return gradtx.half_life_schedule(*args)(t)

    return value


QUIET = ("lbfgs", "lbfgs_two_pairs")
"""The cases that are recorded without noise."""


def lbfgs(learning_rate, memory_size):
    """L-BFGS without a line search; torch bounds the first step by the sum of magnitudes, not by the norm."""
    problem = load_torch()
    grads = np.concatenate([g.ravel() for g in problem.quiet_grads(problem.params)])
    first = min(1.0, 1 / np.abs(grads).sum()) / min(1.0, 1 / np.linalg.norm(grads))
    rate = at_step(lambda t: learning_rate * (first if t == 1 else 1.0))
    return "lbfgs", {"learning_rate": rate, "memory_size": memory_size, "linesearch": None}


def recorded_curvature(updates, params):
    """The curvatures of the recorded problem, which its gradients have."""
    with np.load(Path(__file__).parent / "torch.npz") as file:
        return [file[f"problem/{name}/curvature"] for name in ("w", "b")]


# Every case of make_official.py that this library can say, as a name of it and arguments: a dict of those
# by keyword or a list of those by position, in which a pair like the case itself stands for a transform.
# What differs by more than a name has a comment.
OFFICIAL_CASES = {
    "stable_adamw": ("stable_adamw", {"learning_rate": 0.05, "weight_decay": 0.0}),
    "stable_adamw_weight_decay": (
        "stable_adamw",
        {"learning_rate": 0.03, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "weight_decay": 0.1},
    ),
    # torch raises the momentum over the steps, in the step but not in the average.
    "nadam": ("chain", [torch_nadam(0.9, 0.999, 1e-8, 0.004), ("scale_by_learning_rate", [0.05])]),
    "nadam_weight_decay": (
        "chain",
        [
            torch_nadam(0.8, 0.99, 1e-4, 0.05),
            ("add_decayed_weights", [0.05]),
            ("scale_by_learning_rate", [0.05]),
        ],
    ),
    "nadam_constant": ("nadam", {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "eps": 1e-6}),
    "nadamw_constant": (
        "nadamw",
        {"learning_rate": 0.03, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "weight_decay": 0.1},
    ),
    "lbfgs": lbfgs(0.04, 5),
    "lbfgs_two_pairs": lbfgs(0.03, 2),
    "schedule_free_sgd": ("schedule_free_sgd", {"learning_rate": 0.5, "b1": 0.9}),
    "schedule_free_sgd_warmup": (
        "schedule_free_sgd",
        {
            "learning_rate": 0.3,
            "b1": 0.8,
            "weight_decay": 0.05,
            "warmup_steps": 20,
            "weight_lr_power": 1.5,
        },
    ),
    # Steps count by t^r there; here the rate that the average knows has the power r / weight_lr_power.
    "schedule_free_sgd_r": (
        "schedule_free",
        [("sgd", [0.2]), at_step(lambda t: 0.2 * t ** (3.0 / 2.0)), 0.95, 2.0],
    ),
    "schedule_free_adamw": (
        "schedule_free_adamw",
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.999, "eps": 1e-8},
    ),
    "schedule_free_adamw_warmup": (
        "schedule_free_adamw",
        {
            "learning_rate": 0.1,
            "b1": 0.8,
            "b2": 0.95,
            "eps": 1e-4,
            "weight_decay": 0.05,
            "warmup_steps": 20,
        },
    ),
    "prodigy": ("prodigy", {"learning_rate": 1.0, "betas": (0.9, 0.999), "estim_lr0": 1e-6}),
    "prodigy_weight_decay": (
        "prodigy",
        {
            "learning_rate": 0.5,
            "betas": (0.8, 0.99),
            "beta3": 0.95,
            "eps": 1e-4,
            "weight_decay": 0.05,
            "estim_lr0": 1e-3,
            "estim_lr_coef": 0.5,
            "safeguard_warmup": True,
        },
    ),
    # The authors correct a bias only when asked to; here the rate takes the correction back.
    "prodigy_uncorrected": (
        "prodigy",
        {
            "learning_rate": at_step(lambda t: (1 - 0.9**t) / (1 - 0.99**t) ** 0.5),
            "betas": (0.9, 0.99),
            "estim_lr0": 1e-3,
        },
    ),
    "dadapt_adamw": ("dadapt_adamw", {"learning_rate": 1.0, "betas": (0.9, 0.999), "estim_lr0": 1e-6}),
    "dadapt_adamw_weight_decay": (
        "dadapt_adamw",
        {
            "learning_rate": 0.5,
            "betas": (0.8, 0.99),
            "eps": 1e-4,
            "weight_decay": 0.05,
            "estim_lr0": 1e-3,
        },
    ),
    "lion": ("lion", {"learning_rate": 0.01, "b1": 0.9, "b2": 0.99, "weight_decay": 0.0}),
    "lion_weight_decay": ("lion", {"learning_rate": 0.02, "b1": 0.95, "b2": 0.8, "weight_decay": 0.1}),
    "ademamix": (
        "ademamix",
        {"learning_rate": 0.02, "b1": 0.9, "b2": 0.999, "b3": 0.99, "alpha": 5.0, "eps": 1e-8},
    ),
    "ademamix_schedules": (
        "ademamix",
        {
            "learning_rate": 0.02,
            "b1": 0.8,
            "b2": 0.95,
            "b3": at_step(half_life(0.8, 0.98, 60)),
            "alpha": at_step(lambda t: min(3.0 * t / 60, 3.0)),
            "eps": 1e-3,
            "weight_decay": 0.1,
        },
    ),
    "adan": (
        "adan",
        {"learning_rate": 0.05, "b1": 0.98, "b2": 0.92, "b3": 0.99, "eps": 1e-8, "eps_root": 0.0},
    ),
    "adan_decoupled": (
        "adan",
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.8,
            "b3": 0.95,
            "eps": 1e-3,
            "eps_root": 0.0,
            "weight_decay": 0.1,
        },
    ),
    # A proximal decay by lambda is the decoupled one with the rate eta / (1 + eta lambda).
    "adan_proximal": (
        "adan",
        {
            "learning_rate": 0.05 / (1 + 0.05 * 0.1),
            "b1": 0.95,
            "b2": 0.9,
            "b3": 0.98,
            "eps": 1e-6,
            "eps_root": 0.0,
            "weight_decay": 0.1,
        },
    ),
    "adopt": ("adopt", {"learning_rate": 0.05, "b1": 0.9, "b2": 0.9999, "eps": 1e-6}),
    "adopt_weight_decay": (
        "adopt",
        {
            "learning_rate": 0.05,
            "b1": 0.8,
            "b2": 0.95,
            "eps": 0.05,
            "use_clipping": False,
            "weight_decay": 0.05,
            "decay_coupling": "gradient",
        },
    ),
    # The authors' first step moves nothing; here it decays.
    "adopt_decoupled": (
        "adopt",
        {
            "learning_rate": 0.03,
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-3,
            "weight_decay": at_step(lambda t: 0.0 if t == 1 else 0.1),
        },
    ),
    # This package bounds by the fourth root of t; the authors and this library by that of t - 1.
    "adopt_later_bound": (
        "adopt",
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-3,
            "clip_value_fn": at_step(lambda t: t**0.25),
            "weight_decay": 0.1,
        },
    ),
    # This package adds 1e-15 inside the root, before the bias correction, where laprop adds eps to the root.
    "laprop": (
        "chain",
        [
            (
                "scale_by_rms",
                {"decay": 0.999, "eps": at_step(lambda t: 1e-15 / (1 - 0.999**t)), "bias_correction": True},
            ),
            ("ema", [0.9]),
            ("scale_by_learning_rate", [0.02]),
        ],
    ),
    # It decays the parameters after the step.
    "laprop_weight_decay": (
        "chain",
        [
            (
                "scale_by_rms",
                {"decay": 0.95, "eps": at_step(lambda t: 1e-15 / (1 - 0.95**t)), "bias_correction": True},
            ),
            ("ema", [0.8]),
            ("scale", [1 - 0.05 * 0.1]),
            ("add_decayed_weights", [0.1]),
            ("scale_by_learning_rate", [0.05]),
        ],
    ),
    # It adds eps to the root without its bias correction.
    "laprop_eps": (
        "chain",
        [
            (
                "ratio",
                [
                    ("identity", []),
                    (
                        "chain",
                        [
                            ("square", []),
                            ("ema", [0.99, False]),
                            ("offset", [1e-15]),
                            ("sqrt", []),
                            ("offset", [1e-3]),
                            ("scale_by_schedule", [corrected(1.0, 0.99)]),
                        ],
                    ),
                ],
            ),
            ("ema", [0.9]),
            ("scale_by_learning_rate", [0.02]),
        ],
    ),
    # The authors' eps is both, eps and eps_root.
    "adabelief": (
        "adabelief",
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_root": 1e-8},
    ),
    "adabelief_decoupled": (
        "adabelief",
        {
            "learning_rate": 0.03,
            "b1": 0.8,
            "b2": 0.95,
            "eps": 1e-4,
            "eps_root": 1e-4,
            "weight_decay": 0.1,
            "decay_coupling": "rate",
        },
    ),
    "adabelief_fixed_decay": (
        "adabelief",
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-6,
            "eps_root": 1e-6,
            "weight_decay": 1e-3,
            "decay_coupling": "none",
        },
    ),
    "adabelief_coupled": (
        "adabelief",
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-6,
            "eps_root": 1e-6,
            "weight_decay": 0.05,
        },
    ),
    # The authors' default is rectified as RAdam is, and adds eps to the root without its bias correction.
    "adabelief_rectified": (
        "chain",
        [
            (
                "add",
                [
                    (
                        "chain",
                        [
                            ("scale_by_belief", [0.9, 0.999, corrected(1e-16, 0.999), 1e-16]),
                            ("scale_by_schedule", [at_step(lambda t: rectification(0.999, t))]),
                        ],
                    ),
                    (
                        "chain",
                        [
                            ("ema", [0.9]),
                            (
                                "scale_by_schedule",
                                [at_step(lambda t: 0.0 if rectification(0.999, t) else 1.0)],
                            ),
                        ],
                    ),
                ],
            ),
            ("scale_by_learning_rate", [0.05]),
        ],
    ),
    "yogi": ("yogi", {"learning_rate": 0.05, "b1": 0.9, "b2": 0.999, "eps": 1e-3}),
    "yogi_accumulator": (
        "chain",
        [
            ("add_decayed_weights", [0.05]),
            (
                "scale_by_yogi",
                {"b1": 0.8, "b2": 0.9, "eps": 1e-4, "initial_accumulator_value": 1e-2},
            ),
            ("scale_by_learning_rate", [0.1]),
        ],
    ),
    "yogi_decoupled": (
        "yogi",
        {
            "learning_rate": 0.03,
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-2,
            "weight_decay": 0.1,
            "decay_coupling": "rate",
        },
    ),
    # This package's second moment has no bias correction, and the first one's is outside the norm; `lamb`
    # has both inside, as the paper. It adds eps to the norm too.
    "lamb": (
        "chain",
        [
            ("scale_by_adam", {"b1": 0.9, "b2": 0.999, "eps": 1e-6, "bias_correction": False}),
            ("scale_by_trust_ratio", {"eps": 1e-6}),
            ("scale_by_schedule", [at_step(lambda t: 1 / (1 - 0.9**t))]),
            ("scale_by_learning_rate", [0.02]),
        ],
    ),
    "lamb_weight_decay": (
        "chain",
        [
            ("scale_by_adam", {"b1": 0.8, "b2": 0.95, "eps": 1e-4, "bias_correction": False}),
            ("add_decayed_weights", [0.1]),
            ("scale_by_trust_ratio", {"eps": 1e-4}),
            ("scale_by_learning_rate", [0.03]),
        ],
    ),
    "fromage": ("fromage", {"learning_rate": 0.01}),
    "fromage_large": ("fromage", {"learning_rate": 0.2}),
    "novograd": ("novograd", {"learning_rate": 0.05, "b1": 0.9, "b2": 0.25, "eps": 1e-8}),
    "novograd_weight_decay": (
        "novograd",
        {"learning_rate": 0.02, "b1": 0.95, "b2": 0.98, "eps": 1e-3, "weight_decay": 0.05},
    ),
    "novograd_averaging": (
        "chain",
        [
            ("scale_by_novograd", {"b1": 0.0, "b2": 0.9, "eps": 1e-8}),
            ("trace", {"decay": 0.9, "dampening": 0.9, "dampen_first": False}),
            ("scale_by_learning_rate", [0.1]),
        ],
    ),
    "sm3": ("sm3", {"learning_rate": 0.1, "momentum": 0.9}),
    "sm3_eps": (
        "chain",
        [("scale_by_sm3", {"b1": 0.0, "b2": 1.0, "eps": 1e-2}), ("scale_by_learning_rate", [0.2])],
    ),
    "madgrad": ("madgrad", {"learning_rate": 0.05, "momentum": 0.9, "eps": 1e-6}),
    "madgrad_weight_decay": (
        "madgrad",
        {"learning_rate": 0.02, "momentum": 0.0, "eps": 1e-3, "weight_decay": 0.05},
    ),
    # The rate of the decay has eps in it too.
    "madgrad_decoupled": (
        "add",
        [
            ("scale_by_madgrad", [0.03, 0.8, 1e-4]),
            (
                "chain",
                [("set_to_zero", []), ("add_decayed_weights", [0.1]), ("scale", [-(0.03 + 1e-4)])],
            ),
        ],
    ),
    "dog": ("dog", {"init_step": ("heuristic", 1e-3), "eps": 1e-8}),
    "dog_weight_decay": (
        "dog",
        {"learning_rate": 0.5, "init_step": ("heuristic", 1e-2), "eps": 1e-2, "weight_decay": 0.1},
    ),
    "dog_first_rate": ("dog", {"init_step": ("learning_rate", 0.01), "eps": 1e-8}),
    # Each leaf by itself.
    "ldog": (
        "partition",
        [
            {
                "w": ("dog", {"init_step": ("heuristic", 1e-3)}),
                "b": ("dog", {"init_step": ("heuristic", 1e-3)}),
            },
            ["w", "b"],
        ],
    ),
    "dowg": ("dowg", {"eps": 1e-4}),
    "dowg_eps": ("dowg", {"eps": 1e-2}),
    # Names that this package does not know have one block a leaf.
    "adam_mini": ("adam_mini", {"learning_rate": 0.05, "b2": 0.999, "blocks": {"*": None}}),
    # A row is an output there, and a bias is neither decayed nor in blocks.
    "adam_mini_rows": (
        "adam_mini",
        {
            "learning_rate": 0.03,
            "b1": 0.8,
            "b2": 0.95,
            "eps": 1e-4,
            "blocks": {"*": 0},
            "weight_decay": 0.1,
            "mask": [True, False],
        },
    ),
    "came": ("came", {"learning_rate": 0.02}),
    "came_weight_decay": (
        "came",
        {
            "learning_rate": 0.03,
            "b1": 0.8,
            "b2": 0.95,
            "b3": 0.98,
            "eps1": 1e-20,
            "eps2": 1e-8,
            "clip_threshold": 0.5,
            "weight_decay": 0.1,
        },
    ),
    "sophia_h": (
        "sophia",
        {
            "learning_rate": 0.5,
            "b1": 0.96,
            "b2": 0.9,
            "eps": 1e-12,
            "weight_decay": 0.0,
            "gamma": 1.0,
            "clip_threshold": 0.05,
            "hessian_diagonal_fn": ("stateless", [recorded_curvature]),
            "bias_correction": False,
            "estimate_first": True,
        },
    ),
    # This package adds 1e-15 to a divisor that is never below it; its estimate is the squared gradient.
    "sophia_g": (
        "sophia",
        {
            "learning_rate": 0.02,
            "b1": 0.9,
            "b2": 0.8,
            "eps": 1e-15,
            "weight_decay": 0.1,
            "gamma": 2.0,
            "hessian_diagonal_fn": ("square", {}),
            "bias_correction": False,
            "estimate_first": True,
        },
    ),
    # This package adds 1e-15 inside the root and eps outside, both before the bias correction.
    "mars": (
        "chain",
        [
            ("reduce_variance", [0.95, 0.025]),
            (
                "scale_by_adam",
                {"b1": 0.95, "b2": 0.99, "eps": 1e-8, "eps_root": 1e-15, "eps_scaled": True},
            ),
            ("scale_by_learning_rate", [0.05]),
        ],
    ),
    # There a vector has an optimizer of its own, AdamW.
    "mars_lion": (
        "partition",
        {
            "transforms": {
                "matrix": (
                    "chain",
                    [
                        ("reduce_variance", [0.9, 0.05]),
                        ("ema", [0.9, False]),
                        ("sign", []),
                        ("add_decayed_weights", [0.1]),
                        ("scale_by_learning_rate", [0.01]),
                    ],
                ),
                "vector": (
                    "adamw",
                    {
                        "learning_rate": 0.02,
                        "b1": 0.8,
                        "b2": 0.95,
                        "eps": 1e-8,
                        "eps_root": 1e-15,
                        "weight_decay": 0.05,
                        "eps_scaled": True,
                    },
                ),
            },
            "param_labels": ["matrix", "vector"],
        },
    ),
}

# What is only recorded, and why.
MECHANIC = (
    "This package keeps every reward at 0 or above and takes slopes as they are; here, as in Optax, slopes "
    "are bounded by those before, and a reward may fall below 0."
)
RECORDED_ONLY = (
    ("sm3_beta", "An accumulator of this package never falls; one here is replaced at every step."),
    ("mechanic", MECHANIC),
    ("mechanic_adam", MECHANIC),
)


def load_official():
    """`official.npz`: params, grads_by_step, steps, trajectories, evaluated, sources, versions.

    The problem is that of `load_torch`, without noise for the cases in `QUIET`: `grads_by_step` is a
    function of the case. `trajectories[case]` is a list of the parameters after each of
    `steps`, which count from 1, and `evaluated[case]`, where there is one, of those to evaluate with;
    `sources[case]` has the package, its version, the class and the arguments.
    """
    with np.load(Path(__file__).parent / "official.npz") as file:
        arrays = dict(file)
    problem = load_torch()
    shapes = [p.shape for p in problem.params]
    ends = np.cumsum([p.size for p in problem.params])[:-1]

    def leaves(rows):
        return [[x.reshape(s) for x, s in zip(np.split(row, ends), shapes, strict=True)] for row in rows]

    sources = json.loads(str(arrays["sources"]))
    return SimpleNamespace(
        params=problem.params,
        grads_by_step=lambda case: (
            [problem.quiet_grads] * len(problem.grads_by_step) if case in QUIET else problem.grads_by_step
        ),
        steps=arrays["steps"].tolist(),
        trajectories={case: leaves(arrays[case]) for case in sources},
        evaluated={case: leaves(arrays[f"{case}/eval"]) for case in sources if f"{case}/eval" in arrays},
        sources=sources,
        versions=json.loads(str(arrays["versions"])),
    )


_TRANSPOSED = {"*": ("matrix_view", {"axes": "cr"})}
_AS_THEY_ARE = {"*": ("matrix_view", {"axes": "rc"})}
_IN_TORCH = {"views": _TRANSPOSED}
_OF_TORCH = {"eps": 0.0, "convention": "torch", "muon_weight_dimension_numbers": _TRANSPOSED}
_OF_NORMUON = {"eps": 1e-7, "views": _TRANSPOSED}
# All bases and roots anew at once, as the authors have it.
_OF_SHAMPOO = {"stagger": False, "views": _TRANSPOSED}
_OF_SOAP = {"weight_decay": 0.0, **_OF_SHAMPOO}


def _galore(learning_rate, rank, gap, scale, proj_type, b1=0.9, b2=0.999, eps=1e-6):
    """GaLore with the authors' Adam, whose eps is added before the bias is corrected."""
    adam = {"b1": b1, "b2": b2, "eps": eps, "eps_scaled": True}
    return "galore", {
        "learning_rate": learning_rate,
        "rank": rank,
        "update_proj_gap": gap,
        "scale": scale,
        "proj_type": proj_type,
        "base_optimizer": ("scale_by_adam", adam),
        "weight_dimension_numbers": _TRANSPOSED,
    }


def _decayed_after(case, weight_decay):
    """With the authors' decay, (1 - eta lambda) (theta - eta u), where all leaves are projected."""
    name, arguments = case
    scale = arguments["scale"] * (1 - arguments["learning_rate"] * weight_decay)
    return name, {**arguments, "scale": scale, "weight_decay": weight_decay}


_OF_OPTAX = {"learning_rate": 0.02, "rank": 2, "update_proj_gap": 7}

MATRIX_CASES = {
    "muon": ("muon", {"learning_rate": 0.02, "weight_decay": 0.1, **_OF_TORCH}),
    "muon_rms": (
        "muon",
        {"learning_rate": 0.05, "beta": 0.8, "nesterov": False, "consistent_rms": 0.2, **_OF_TORCH},
    ),
    "normuon": ("normuon", {"learning_rate": 0.02, "weight_decay": 0.1, **_OF_NORMUON}),
    "normuon_quick": ("normuon", {"learning_rate": 0.05, "beta": 0.7, "b2": 0.6, **_OF_NORMUON}),
    "soap": ("soap", {"learning_rate": 0.01, "b1": 0.9, "b2": 0.95, **_OF_SOAP}),
    "soap_often": (
        "soap",
        {
            "learning_rate": 0.02,
            "b1": 0.8,
            "b2": 0.9,
            "shampoo_beta": 0.9,
            "eps": 1e-4,
            "precondition_frequency": 3,
            **_OF_SOAP,
        },
    ),
    "shampoo": (
        "shampoo",
        {
            "learning_rate": 1 / 64,
            "b2": 0.99,
            "eps": 1e-6,
            "precondition_frequency": 3,
            "start_preconditioning_step": 4,
            "grafting": "rmsprop",
            "graft_beta": 0.99,
            **_OF_SHAMPOO,
        },
    ),
    "shampoo_blocks": (
        "shampoo",
        {
            "learning_rate": 1 / 16,
            "b1": 0.0,
            "b2": None,
            "eps": 1e-3,
            "weight_decay": 0.125,
            "precondition_frequency": 1,
            "block_size": 4,
            "grafting": None,
            **_OF_SHAMPOO,
        },
    ),
    "shampoo_newton": (
        "shampoo",
        {
            "learning_rate": 1 / 64,
            "b2": 0.95,
            "eps": 1e-3,
            "weight_decay": 0.125,
            "precondition_frequency": 3,
            "graft_beta": 0.95,
            "root": "newton",
            **_OF_SHAMPOO,
        },
    ),
    "kron": ("kron", {"learning_rate": 0.02, "views": _AS_THEY_ARE}),
    "kron_one_diag": (
        "kron",
        {"learning_rate": 0.02, "b1": 0.0, "memory_save_mode": "one_diag", "views": _AS_THEY_ARE},
    ),
    "kron_rarely": (
        "kron",
        {
            "learning_rate": 0.02,
            "weight_decay": 0.1,
            "b1": 0.8,
            "max_size_triangular": 5,
            "preconditioner_lr": 0.3,
            "preconditioner_init_scale": 0.5,
            "preconditioner_update_probability": 0.4,
            "stagger": False,
            "views": _AS_THEY_ARE,
        },
    ),
    "scion": ("scion", {"learning_rate": 0.01, "radius": 2.0, **_IN_TORCH}),
    "scion_sign": ("scion", {"learning_rate": 0.02, "head_radius": 10.0, **_IN_TORCH}),
    "kl_soap": (
        "kl_soap",
        {"learning_rate": 0.01, "b1": 0.9, "b2": 0.98, "shampoo_beta": 0.98, **_OF_SOAP},
    ),
    "kl_soap_often": (
        "kl_soap",
        {
            "learning_rate": 0.02,
            "b1": 0.8,
            "b2": 0.9,
            "shampoo_beta": 0.7,
            "eps": 1e-4,
            "precondition_frequency": 3,
            "init_factor": 0.5,
            **_OF_SOAP,
        },
    ),
    "splus": ("splus", {"learning_rate": 0.1, **_OF_SOAP}),
    "splus_often": ("splus", {"learning_rate": 0.3, "b1": 0.8, "b2": 0.9, "inverse_every": 7, **_OF_SOAP}),
    "adamuon": ("adamuon", {"learning_rate": 0.02, **_IN_TORCH}),
    "adamuon_heavy": (
        "adamuon",
        {
            "learning_rate": 0.05,
            "weight_decay": 0.1,
            "beta": 0.8,
            "nesterov": False,
            "ns_steps": 4,
            **_IN_TORCH,
        },
    ),
    "dion2": ("dion2", {"learning_rate": 0.02, **_IN_TORCH}),
    "dion2_half": (
        "dion2",
        {
            "learning_rate": 0.05,
            "fraction": 0.5,
            "ef_decay": 0.8,
            "weight_decay": 0.1,
            "consistent_rms": 0.2,
            "ns_coeffs": "dion",
            **_IN_TORCH,
        },
    ),
    "dion": ("dion", {"learning_rate": 0.02, **_IN_TORCH}),
    "dion_half": (
        "dion",
        {"learning_rate": 0.05, "rank_fraction": 0.5, "beta": 0.8, "weight_decay": 0.1, **_IN_TORCH},
    ),
    "dion_low": (
        "dion",
        {
            "learning_rate": 0.02,
            "rank_fraction": 0.25,
            "beta": 0.9,
            "eps": 1e-2,
            "weight_decay": 0.0,
            **_IN_TORCH,
        },
    ),
    "dion_iterated": (
        "dion",
        {
            "learning_rate": 0.02,
            "rank_fraction": 0.5,
            "rank_multiple_of": 2,
            "power_iters": 3,
            "beta": 0.9,
            "weight_decay": 0.1,
            **_IN_TORCH,
        },
    ),
    "muown": ("muown", {"learning_rate": 0.01, **_IN_TORCH}),
    "muown_plain": (
        "muown",
        {
            "learning_rate": 0.05,
            "beta": 0.8,
            "nesterov": False,
            "gain_b1": 0.8,
            "gain_b2": 0.9,
            "gain_eps": 1e-3,
            "ns_steps": 4,
            **_IN_TORCH,
        },
    ),
    "muown_decay": ("muown", {"learning_rate": 0.02, "beta": 0.9, "weight_decay": 0.5, **_IN_TORCH}),
    "aurora": ("aurora", {"learning_rate": 0.02, **_IN_TORCH}),
    "aurora_more": (
        "aurora",
        {
            "learning_rate": 0.05,
            "weight_decay": 0.1,
            "beta": 0.8,
            "nesterov": False,
            "balancing_steps": 4,
            "balancing_power": 0.3,
            **_IN_TORCH,
        },
    ),
    "soap_muon": ("soap_muon", {"learning_rate": 0.02, **_OF_SOAP}),
    "soap_muon_seldom": (
        "soap_muon",
        {
            "learning_rate": 0.03,
            "beta": 0.8,
            "b2": 0.7,
            "shampoo_beta": 0.7,
            "precondition_frequency": 3,
            **_OF_SOAP,
        },
    ),
    "contra_muon": ("contra_muon", {"learning_rate": 0.02, **_IN_TORCH}),
    "contra_muon_strong": (
        "contra_muon",
        {"learning_rate": 0.05, "beta": 0.8, "contra": 0.8, "nesterov": False, **_IN_TORCH},
    ),
    "galore": _galore(0.05, 2, 7, 0.25, "std"),
    "galore_reverse": _galore(0.02, 1, 10, 1.0, "reverse_std", 0.8, 0.9, 1e-4),
    "galore_right": _galore(0.02, 2, 5, 0.5, "right", 0.8, 0.95),
    "galore_left": _galore(0.02, 1, 7, 1.0, "left"),
    "galore_full": _galore(0.05, 2, 7, 0.25, "full", eps=1e-3),
    "galore_decay": _decayed_after(_galore(0.05, 3, 30, 0.25, "std"), 0.1),
    "optax_galore": ("galore", {**_OF_OPTAX, "learning_rate": 0.05, "scale": 0.25}),
    "optax_galore_one": (
        "galore",
        {
            "learning_rate": 0.02,
            "rank": 1,
            "update_proj_gap": 10,
            "base_optimizer": ("scale_by_adam", {"b1": 0.8, "b2": 0.9, "eps": 1e-4}),
            "weight_decay": 0.1,
        },
    ),
    "optax_galore_trace": (
        "galore",
        {**_OF_OPTAX, "scale": 0.5, "base_optimizer": ("trace", {"decay": 0.9, "nesterov": True})},
    ),
    # There the first leaf was a vector, the second of three axes, and the third had its axes exchanged.
    "optax_galore_axes": (
        "galore",
        {
            **_OF_OPTAX,
            "scale": 0.25,
            "weight_decay": 0.05,
            "weight_dimension_numbers": {"0": None, "2": ("matrix_view", {"axes": "cr"})},
        },
    ),
}
"""What each case of `matrices.npz` is here. A weight of torch has the outputs first."""


MATRIX_SOURCES = {
    "normuon": "zichongli5/NorMuon",
    "soap": "nikhilvyas/SOAP",
    "shampoo": "facebookresearch/optimizers",
    "kron": "evanatyourservice/psgd_jax",
    "scion": "LIONS-EPFL/scion",
    "kl_soap": "yorkerlin/KL-Methods",
    "splus": "kvfrans/splus",
    "adamuon": "Chongjie-Si/AdaMuon",
    "dion2": "microsoft/dion",
    "dion": "microsoft/dion",
    "muown": "kcc-lion/muown",
    "aurora": "tilde-research/aurora-release",
    "soap_muon": "KellerJordan/modded-nanogpt",
    "contra_muon": "KellerJordan/modded-nanogpt",
    "galore": "jiaweizzhao/GaLore",
}
"""The repository of each optimizer; torch has the others, and Optax what is called after it."""


def load_matrices():
    """`matrices.npz`: params, steps, sources, and for each case the parameters after each of the steps."""
    with np.load(Path(__file__).parent / "matrices.npz") as file:
        arrays = dict(file)
    about = json.loads(str(arrays.pop("about")))
    shapes = [tuple(shape) for shape in about["shapes"]]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]

    def leaves(row):
        return [x.reshape(shape) for x, shape in zip(np.split(row, ends), shapes, strict=True)]

    return SimpleNamespace(
        params=leaves(arrays.pop("start")),
        steps=about["steps"],
        commits=about["commits"],
        versions={library: about[library] for library in ("torch", "jax", "optax")},
        trajectories={case: list(map(leaves, rows)) for case, rows in arrays.items()},
    )


QK_CASES = {
    "megatron_mha": ("NVIDIA/Megatron-LM", {"tau": 10.0}),
    "megatron_gqa": ("NVIDIA/Megatron-LM", {"tau": 10.0, "alpha": 0.3, "sharing": "group"}),
    "megatron_mla": ("NVIDIA/Megatron-LM", {"tau": 10.0}),
    "megatron_mla_alpha": ("NVIDIA/Megatron-LM", {"tau": 10.0, "alpha": 0.3}),
    "llm_quest_gqa": ("casinca/LLM-quest", {"tau": 10.0, "alpha": 0.3, "sharing": "key"}),
    "maxtext_mla": ("AI-Hypercomputer/maxtext", {"tau": 10.0}),
}
"""What each case of `qk_clip.npz` is here, and whose code it is from."""


def load_qk_clip():
    """`qk_clip.npz`: for each case `max_logits`, weights by their role, and these after, with `_new`.

    And the commit of each repository.
    """
    with np.load(Path(__file__).parent / "qk_clip.npz") as file:
        arrays = dict(file)
    commits, cases = json.loads(str(arrays.pop("about")))["commits"], {}
    for name, x in arrays.items():
        case, _, key = name.partition("/")
        cases.setdefault(case, {})[key] = x
    return cases, commits
