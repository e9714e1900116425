"""Record how the authors' optimizers of matrices move: `matrices.npz`.

    pip install torch==2.13.0 numpy==2.4.6
    python tests/golden/make_matrices.py torch FOLDER [CASE ...]
    pip install jax==0.4.38 optax==0.2.4 flax==0.10.2 chex numpy
    python tests/golden/make_matrices.py jax FOLDER [CASE ...]
    pip install optax==0.2.8 jax==0.10.2 numpy==2.4.6
    python tests/golden/make_matrices.py optax FOLDER [CASE ...]

Each adds its cases, or some of them, to the file. FOLDER has a folder `OWNER+NAME` for each repository of
`COMMITS`, at that commit; none of them is on a package index.

Needed only to record anew: the tests read the file. It holds 100 steps of each case in float64: parameters
after every step of `STEPS`. Muon and its kin take their products in bfloat16, and others decompose matrices
in float32, of which little could be compared; here they are kept from that. A record of modded-nanogpt is a
whole training script: of it only imports, constants of capital letters, functions and classes are run, and a
case says which constants have another value, so that nothing follows its direction. Dion's first Q is
numpy's, of the number of the leaf. Kron's noise is numpy's, of the number of the update and of the leaf; it
balances its factors, which changes no update but for rounding, at the updates that a case names. Of each
singular vector that GaLore asks for, whose sign is free, the largest entry is made positive, of left and
right ones each for itself. Everything else is theirs. `golden.load_matrices` reads the file, and
`golden.MATRIX_CASES` says each case in this library's names.
"""

import ast
import functools
import importlib
import json
import math
import os
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np

FILE = Path(__file__).parent / "matrices.npz"

COMMITS = {
    "nikhilvyas+SOAP": "a1e553530fde97d0e6b307d7c82ac6d38b072340",
    "zichongli5+NorMuon": "d45c9a4280d758e2cf0b2b8333765d040e953937",
    "facebookresearch+optimizers": "f60660661194de26d3ee78bae6d15820ff8e583d",
    "evanatyourservice+psgd_jax": "be9552446381ce1ad9fcf9632c5c1045a9fa44c3",
    "LIONS-EPFL+scion": "f58a393e010395a5913176be5673d8839caa6285",
    "yorkerlin+KL-Methods": "a02e6221556301cf84f9607c73f327910afb2b95",
    "kvfrans+splus": "d96bd16bc6c937256e2a28e5bf2cbd8c4984da68",
    "Chongjie-Si+AdaMuon": "369f0b3bd9d97f82bb8ba81664207ac513e233b0",
    "microsoft+dion": "0a059a4542e5aa74b40dcd1dce363836c7afcd48",
    "kcc-lion+muown": "3bd0c054ea97fae7005f76d6bb83dc0e3e99cfd2",
    "tilde-research+aurora-release": "3d79a5c75c055e7e83cdd9dfa500ea37f41cc8cb",
    "KellerJordan+modded-nanogpt": "f411b3d346aa52d3504324ca93c230fd84c6c07f",
    "jiaweizzhao+GaLore": "2cc66f88cce189e505affbb91042a8e77f5bf4e9",
}
RECORDS = "KellerJordan+modded-nanogpt/records/track_3_optimization/results"
SCRIPTS = {
    "soap_muon": f"{RECORDS}/20260619_cwd_rowfloor_tailema/train_gpt_cwd_SOTA.py",
    "contra_muon": f"{RECORDS}/20260501_contra_muon/train_gpt_simple_contra_muon_2.py",
}

LENGTH = 100
STEPS = (*range(1, 6), *range(10, LENGTH + 1, 10))
# Of no shape has the first gradient several eigenvalues 0, whose eigenvectors nothing tells apart.
SHAPES = ((4, 3), (5, 6), (4, 4))

# Case: class, arguments. Of Shampoo the grafted method, the way to a root and the arguments.
TORCH_CASES = {
    "muon": ("muon", {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95}),
    "muon_rms": (
        "muon",
        {
            "lr": 0.05,
            "weight_decay": 0.0,
            "momentum": 0.8,
            "adjust_lr_fn": "match_rms_adamw",
            "nesterov": False,
        },
    ),
    "normuon": ("normuon", {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95, "beta2": 0.95}),
    "normuon_quick": ("normuon", {"lr": 0.05, "momentum": 0.7, "beta2": 0.6}),
    "soap": (
        "soap",
        {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.0, "precondition_frequency": 10, "eps": 1e-8},
    ),
    "soap_often": (
        "soap",
        {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.0, "precondition_frequency": 3, "eps": 1e-4},
    ),
    # Shampoo rounds its rate to float32, in which these are exact.
    "shampoo": (
        "shampoo",
        {
            "lr": 1 / 64,
            "betas": (0.9, 0.99),
            "epsilon": 1e-6,
            "precondition_frequency": 3,
            "start_preconditioning_step": 4,
            "grafting": ("RMSprop", {"beta2": 0.99, "epsilon": 1e-8}),
        },
    ),
    "shampoo_blocks": (
        "shampoo",
        {
            "lr": 1 / 16,
            "betas": (0.0, 1.0),
            "epsilon": 1e-3,
            "weight_decay": 0.125,
            "max_preconditioner_dim": 4,
        },
    ),
    "shampoo_newton": (
        "shampoo",
        {
            "lr": 1 / 64,
            "betas": (0.9, 0.95),
            "epsilon": 1e-3,
            "weight_decay": 0.125,
            "precondition_frequency": 3,
            "grafting": ("Adam", {"beta2": 0.95, "epsilon": 1e-8}),
            "root": "CoupledNewtonConfig",
        },
    ),
    # Larger steps are chaotic.
    "scion": ("scion", {"lr": 0.01, "momentum": 0.1, "norm": "Spectral", "scale": 2.0}),
    "scion_sign": ("scion", {"lr": 0.02, "momentum": 0.1, "norm": "Sign", "scale": 10.0}),
    # It decays after the step, and so it does not here.
    "kl_soap": (
        "kl_soap",
        {
            "lr": 0.01,
            "betas": (0.9, 0.98),
            "weight_decay": 0.0,
            "using_klsoap": True,
            "precondition_frequency": 10,
        },
    ),
    "kl_soap_often": (
        "kl_soap",
        {
            "lr": 0.02,
            "betas": (0.8, 0.9),
            "shampoo_beta": 0.7,
            "eps": 1e-4,
            "weight_decay": 0.0,
            "using_klsoap": True,
            "precondition_frequency": 3,
            "init_factor": 0.5,
        },
    ),
    "splus": ("splus", {"lr": 0.1, "weight_decay": 0.0}),
    "splus_often": (
        "splus",
        {"lr": 0.3, "b1": 0.8, "b2": 0.9, "inverse_every": 7, "weight_decay": 0.0},
    ),
    "adamuon": ("adamuon", {"lr": 0.02, "weight_decay": 0.01}),
    "adamuon_heavy": (
        "adamuon",
        {"lr": 0.05, "weight_decay": 0.1, "momentum": 0.8, "nesterov": False, "ns_steps": 4},
    ),
    "dion2": ("dion2", {"lr": 0.02, "fraction": 0.25}),
    "dion2_half": (
        "dion2",
        {
            "lr": 0.05,
            "fraction": 0.5,
            "ef_decay": 0.8,
            "weight_decay": 0.1,
            "adjust_lr": "rms_norm",
            "use_polar_express": False,
        },
    ),
    # Ranks 3, 5 and 4; 2, 3 and 2; 1, 2 and 1; and in another module of theirs 2, 4 and 2.
    "dion": ("dion", {"lr": 0.02}),
    "dion_half": ("dion", {"lr": 0.05, "rank_fraction": 0.5, "mu": 0.8, "weight_decay": 0.1}),
    "dion_low": (
        "dion",
        {"lr": 0.02, "rank_fraction": 0.25, "mu": 0.9, "epsilon": 1e-2, "weight_decay": 0.0},
    ),
    "dion_iterated": (
        "dion_reference",
        {
            "lr": 0.02,
            "rank_fraction": 0.5,
            "rank_multiple_of": 2,
            "mu": 0.9,
            "power_iters": 3,
            "qr_method": "qr",
            "weight_decay": 0.1,
        },
    ),
    "muown": ("muown", {"lr": 0.01}),
    "muown_plain": (
        "muown",
        {
            "lr": 0.05,
            "momentum": 0.8,
            "nesterov": False,
            "betas": (0.8, 0.9),
            "adam_eps": 1e-3,
            "ns_steps": 4,
        },
    ),
    "muown_decay": ("muown", {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.5}),
    "aurora": ("aurora", {"eta": 0.02}),
    "aurora_more": (
        "aurora",
        {"eta": 0.05, "weight_decay": 0.1, "mu": 0.8, "nesterov": False, "pp_iterations": 4, "pp_beta": 0.3},
    ),
    "soap_muon": ("soap_muon", {"lr": 0.02, "mu": 0.95, "script": {}}),
    "soap_muon_seldom": (
        "soap_muon",
        {"lr": 0.03, "mu": 0.8, "script": {"SOAP_BETA2": 0.7, "SOAP_PRECONDITION_FREQUENCY": 3}},
    ),
    # Its own square of the norms never moves at beta2 = 1, and is then the same for all elements.
    "contra_muon": ("contra_muon", {"lr": 0.02, "mu": 0.95, "script": {"beta2": 1.0}}),
    "contra_muon_strong": (
        "contra_muon",
        {"lr": 0.05, "mu": 0.8, "script": {"CONTRA_MUON": 1.6, "beta2": 1.0, "nesterov": False}},
    ),
    "galore": (
        "galore",
        {"lr": 0.05, "rank": 2, "update_proj_gap": 7, "scale": 0.25, "proj_type": "std"},
    ),
    "galore_reverse": (
        "galore",
        {
            "lr": 0.02,
            "betas": (0.8, 0.9),
            "eps": 1e-4,
            "rank": 1,
            "update_proj_gap": 10,
            "scale": 1.0,
            "proj_type": "reverse_std",
        },
    ),
    "galore_right": (
        "galore",
        {
            "lr": 0.02,
            "betas": (0.8, 0.95),
            "rank": 2,
            "update_proj_gap": 5,
            "scale": 0.5,
            "proj_type": "right",
        },
    ),
    "galore_left": (
        "galore",
        {"lr": 0.02, "rank": 1, "update_proj_gap": 7, "scale": 1.0, "proj_type": "left"},
    ),
    # A new gradient is diagonal there, but for rounding, which a small eps would magnify.
    "galore_full": (
        "galore",
        {
            "lr": 0.05,
            "eps": 1e-3,
            "rank": 2,
            "update_proj_gap": 7,
            "scale": 0.25,
            "proj_type": "full",
        },
    ),
    "galore_decay": (
        "galore",
        {
            "lr": 0.05,
            "weight_decay": 0.1,
            "rank": 3,
            "update_proj_gap": 30,
            "scale": 0.25,
            "proj_type": "std",
        },
    ),
}

# Case: arguments, and the updates before which the factors are balanced.
JAX_CASES = {
    "kron": ({"learning_rate": 0.02}, (7, 50)),
    "kron_one_diag": ({"learning_rate": 0.02, "b1": 0.0, "memory_save_mode": "one_diag"}, (30,)),
    "kron_rarely": (
        {
            "learning_rate": 0.02,
            "weight_decay": 0.1,
            "b1": 0.8,
            "max_size_triangular": 5,
            "preconditioner_lr": 0.3,
            "preconditioner_init_scale": 0.5,
            "preconditioner_update_probability": 0.4,
        },
        (12,),
    ),
}


# Case: arguments; of the base optimizer a name and arguments, of dimension numbers the arguments.
OPTAX_CASES = {
    "optax_galore": {"learning_rate": 0.05, "rank": 2, "update_proj_gap": 7, "scale": 0.25},
    "optax_galore_one": {
        "learning_rate": 0.02,
        "rank": 1,
        "update_proj_gap": 10,
        "base_optimizer": ("scale_by_adam", {"b1": 0.8, "b2": 0.9, "eps": 1e-4}),
        "weight_decay": 0.1,
    },
    "optax_galore_trace": {
        "learning_rate": 0.02,
        "rank": 2,
        "update_proj_gap": 7,
        "scale": 0.5,
        "base_optimizer": ("trace", {"decay": 0.9, "nesterov": True}),
    },
    "optax_galore_axes": {
        "learning_rate": 0.02,
        "rank": 2,
        "update_proj_gap": 7,
        "scale": 0.25,
        "weight_decay": 0.05,
        "weight_dimension_numbers": [None, (0, (1, 2)), (1, 0)],
    },
}
# In what shapes the leaves of a case are given, where these are others.
RESHAPED = {"optax_galore_axes": ((12,), (5, 2, 3), (4, 4))}


def gradient(x: np.ndarray, t: int) -> np.ndarray:
    """What is asked at every step, of the parameters and the number of the step from 0."""
    return np.sin(3 * x + t) + 0.3 * x


def first_parameters() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in SHAPES]


def first_q(index: int, shape: tuple) -> np.ndarray:
    """Dion's Q before the first step, of the leaf that is `index`-th: the shorter side by the rank."""
    return np.random.default_rng([1, index]).normal(size=shape)


def flat(params: list) -> np.ndarray:
    return np.concatenate([np.asarray(p).ravel() for p in params])


def torch_classes(folder: Path) -> dict:
    """What gives the authors' classes, which compute in float64 whatever they ask for."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    import torch
    import torch.distributed.tensor

    torch.set_default_dtype(torch.float64)
    for name in ("float", "float32", "bfloat16"):
        setattr(torch, name, torch.float64)
    torch.Tensor.bfloat16 = torch.Tensor.float = torch.Tensor.clone
    # Some gather what others have computed: here a group of one.
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)

    def gather(into, own, async_op=False):
        into.copy_(own.view_as(into))
        return types.SimpleNamespace(wait=lambda: None)

    torch.distributed.all_gather_into_tensor = gather

    torch.distributed.all_gather = lambda into, own: into[0] is own or into[0].copy_(own)

    def of(where: str, module: str, name: str):
        """Gives a class of a module in a folder, of which nothing else is run."""

        def load() -> type:
            package = types.ModuleType(where.replace("+", "_").replace("/", "_"))
            package.__path__ = [str(folder / where)]
            sys.modules[package.__name__] = package
            return getattr(importlib.import_module(f"{package.__name__}.{module}"), name)

        return load

    package = types.ModuleType("dion")
    package.__path__ = [str(folder / "microsoft+dion" / "dion")]
    sys.modules["dion"] = package
    sys.path.insert(0, str(folder / "facebookresearch+optimizers"))
    return {
        "muon": lambda: torch.optim.Muon,
        "normuon": of("zichongli5+NorMuon", "normuon", "SingleDeviceNorMuon"),
        "soap": of("nikhilvyas+SOAP", "soap", "SOAP"),
        "shampoo": lambda: shampoo,
        "scion": of("LIONS-EPFL+scion", "scion", "Scion"),
        "kl_soap": of("yorkerlin+KL-Methods/optim", "kl_opt", "KLOpt"),
        "splus": of("kvfrans+splus/torch", "splus", "SPlus"),
        "adamuon": of("Chongjie-Si+AdaMuon/gpt2/models/optimizers", "adamuon", "AdaMuon"),
        "dion2": lambda: importlib.import_module("dion.dion2").Dion2,
        "dion": lambda: importlib.import_module("dion.dion").Dion,
        "dion_reference": lambda: importlib.import_module("dion.dion_reference").Dion,
        "muown": of("kcc-lion+muown/optim", "muown", "Muown"),
        "aurora": lambda: OfFunction.of(folder / "tilde-research+aurora-release" / "src"),
        "galore": lambda: galore(of),
        **{name: functools.partial(of_script, folder / path) for name, path in SCRIPTS.items()},
    }


class OfFunction:
    """An optimizer of a function for one weight, which is called with its gradient and its momentum."""

    def __init__(self, params: list, update=None, **arguments) -> None:
        import torch

        self.update = functools.partial(update, **arguments)
        self.pairs = [(p, torch.zeros_like(p)) for p in params]

    def step(self) -> None:
        for p, momentum in self.pairs:
            self.update(p.data, p.grad, momentum)

    @classmethod
    def of(cls, folder: Path):
        sys.path.insert(0, str(folder))
        return functools.partial(cls, update=importlib.import_module("aurora").aurora)


# What follows the direction: a brake, a floor, a radius and a decay.
OFF = {
    "RADIAL_OUTWARD_SCALE": 1.0,
    "ROWFLOOR": False,
    "TARGET_UW": 0.0,
    "CWD": 0.0,
    "rescale_to_radius": lambda *a, **k: None,
}


def of_script(path: Path):
    """The optimizer of a training script, of which some settings are others."""

    def make(params: list, script: dict, **arguments):
        settings, space = {**OFF, **script}, {"__name__": path.stem}
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign):
                asks = any(isinstance(part, ast.Call | ast.Attribute) for part in ast.walk(node.value))
                if asks or not getattr(node.targets[0], "id", "").isupper():
                    continue
            elif not isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
                continue
            exec(compile(ast.Module([node], []), str(path), "exec"), space)
            space.update({k: v for k, v in settings.items() if k in space})
        given = {k: v for k, v in script.items() if not k.isupper()}
        if given:
            space["muon_update"] = functools.partial(space["muon_update"], **given)
        if "soap" in path.read_text().lower():  # it goes by the names of the weights
            params = [(f"{i}.mlp.fc.weight", p) for i, p in enumerate(params)]
        return space["Muon"](params, **arguments)

    return make


def galore(of):
    """GaLore with its settings as arguments; what it imports and does not need here is left empty."""
    import torch

    for name in ("transformers", "transformers.utils", "transformers.utils.versions"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["transformers.utils.versions"].require_version = lambda requirement: None
    sys.modules["tensorly"] = types.ModuleType("tensorly")
    sys.modules["tensorly.decomposition"] = types.ModuleType("tensorly.decomposition")
    sys.modules["tensorly"].tenalg = sys.modules["tensorly.decomposition"].tucker = None
    kind = of("jiaweizzhao+GaLore/galore_torch", "adamw", "AdamW")()

    def upright(x):
        return x * torch.sign(torch.gather(x, 0, x.abs().argmax(0, keepdim=True)))

    def svd(*args, **kwargs):
        u, s, vh = torch.linalg.svd(*args, **kwargs)
        return upright(u), s, upright(vh.T).T

    linalg = types.SimpleNamespace(**vars(torch.linalg) | {"svd": svd})
    projector = sys.modules[kind.__module__.replace("adamw", "galore_projector")]
    projector.torch = types.SimpleNamespace(**vars(torch) | {"linalg": linalg})

    def make(params: list, rank, update_proj_gap, scale, proj_type, **arguments):
        projected = {"rank": rank, "update_proj_gap": update_proj_gap, "scale": scale, "proj_type": proj_type}
        return kind([{"params": params, **projected}], no_deprecation_warning=True, **arguments)

    return make


def shampoo(params: list, grafting=None, root="EigenConfig", **arguments):
    import distributed_shampoo
    import torch

    if grafting is not None:
        name, settings = grafting
        grafting = getattr(distributed_shampoo, f"{name}PreconditionerConfig")(**settings)
    return distributed_shampoo.DistributedShampoo(
        params,
        grafting_config=grafting,
        preconditioner_config=distributed_shampoo.RootInvShampooPreconditionerConfig(
            amortized_computation_config=getattr(distributed_shampoo, root)(),
            factor_matrix_dtype=torch.float64,
            inv_factor_matrix_dtype=torch.float64,
        ),
        # Otherwise a small matrix is taken for one long vector.
        distributed_config=distributed_shampoo.SingleDeviceDistributedConfig(
            target_parameter_dimensionality=math.inf
        ),
        **arguments,
    )


def record_torch(kind: type, arguments: dict) -> np.ndarray:
    import torch

    params = [torch.nn.Parameter(torch.tensor(x)) for x in first_parameters()]
    empty, randn, drawn = torch.empty, torch.randn, iter(range(len(SHAPES)))
    torch.manual_seed(0)  # for sketches, which change nothing but rounding
    torch.randn = lambda shape, **_: torch.tensor(first_q(next(drawn), tuple(shape)))
    name = getattr(kind, "__name__", "")
    if name == "AdaMuon":
        arguments = {**arguments, "rank": 0, "world_size": 1}
        torch.empty = lambda *a, device=None, **k: empty(*a, **k)  # it asks for a GPU
    if name == "KLOpt":
        arguments = {**arguments, "cast_dtype": torch.float64}
    optimizer = kind(params, **arguments)
    torch.empty = empty
    history = []
    for t in range(LENGTH):
        for p in params:
            p.grad = torch.tensor(gradient(p.detach().numpy(), t))
        optimizer.step()
        if t + 1 in STEPS:
            history.append(flat([p.detach() for p in params]))
    torch.randn = randn
    return np.stack(history)


def record_kron(arguments: dict, balances: tuple) -> np.ndarray:
    import jax
    import jax.numpy as jnp
    import optax
    from psgd_jax import kron as official

    jax.config.update("jax_enable_x64", True)
    now = {}

    def normal(key, shape, dtype):
        now["index"] += 1
        return jnp.asarray(np.random.default_rng([now["t"], now["index"] - 1]).normal(size=shape))

    def uniform(key):
        return jnp.asarray(0.0 if now["t"] in balances else 1.0)

    # jnp.array is called for nothing but the norms of the balancing, in float32.
    wide = types.SimpleNamespace(**vars(jnp) | {"array": lambda values, dtype=None: jnp.stack(values)})
    with (
        mock.patch.object(jax.random, "normal", normal),
        mock.patch.object(jax.random, "uniform", uniform),
        mock.patch.object(official, "jnp", wide),
        jax.disable_jit(),
    ):
        optimizer = official.kron(**arguments)
        params = [jnp.asarray(x) for x in first_parameters()]
        state = optimizer.init(params)
        history = []
        for t in range(LENGTH):
            now.update(t=t + 1, index=0)
            grads = [jnp.asarray(gradient(np.asarray(p), t)) for p in params]
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            if t + 1 in STEPS:
                history.append(flat(params))
    return np.stack(history)


def record_optax(name: str) -> np.ndarray:
    import jax
    import jax.numpy as jnp
    import optax
    from optax.contrib import _galore as official

    jax.config.update("jax_enable_x64", True)

    def upright(x):
        return x * jnp.sign(jnp.take_along_axis(x, jnp.abs(x).argmax(axis=0, keepdims=True), axis=0))

    def svd(*args, **kwargs):
        u, s, vh = jnp.linalg.svd(*args, **kwargs)
        return upright(u), s, upright(vh.T).T

    # It names float32 and svd for nothing but the decomposition.
    wide = types.SimpleNamespace(
        **vars(jnp) | {"float32": jnp.float64, "linalg": types.SimpleNamespace(svd=svd)}
    )
    arguments = dict(OPTAX_CASES[name])
    if "base_optimizer" in arguments:
        base, settings = arguments["base_optimizer"]
        arguments["base_optimizer"] = getattr(optax, base)(**settings)
    if "weight_dimension_numbers" in arguments:
        arguments["weight_dimension_numbers"] = [
            axes and official.GaLoreDimensionNumbers(*axes) for axes in arguments["weight_dimension_numbers"]
        ]
    with mock.patch.object(official, "jnp", wide):
        optimizer = official.galore(**arguments)
        pairs = zip(first_parameters(), RESHAPED.get(name, SHAPES), strict=True)
        params = [jnp.asarray(x.reshape(shape)) for x, shape in pairs]
        state, step = optimizer.init(params), jax.jit(optimizer.update)
        history = []
        for t in range(LENGTH):
            grads = [jnp.asarray(gradient(np.asarray(p), t)) for p in params]
            updates, state = step(grads, state, params)
            params = optax.apply_updates(params, updates)
            if t + 1 in STEPS:
                history.append(flat(params))
    return np.stack(history)


def main(library: str, folder: str, *names: str) -> None:
    path = Path(folder).resolve()
    cases = {"torch": TORCH_CASES, "jax": JAX_CASES, "optax": OPTAX_CASES}
    wanted = names or cases[library]
    if library == "torch":
        kinds = torch_classes(path)
        chosen = {name: TORCH_CASES[name] for name in wanted}
        made = {name: record_torch(kinds[kind](), args) for name, (kind, args) in chosen.items()}
    elif library == "jax":
        sys.path.insert(0, str(path / "evanatyourservice+psgd_jax"))
        made = {name: record_kron(*JAX_CASES[name]) for name in wanted}
    else:
        made = {name: record_optax(name) for name in wanted}
    before = dict(np.load(FILE)) if FILE.exists() else {}
    about = json.loads(str(before.pop("about", "{}")))
    module = importlib.import_module(library)
    about |= {
        "commits": COMMITS,
        "steps": STEPS,
        "shapes": SHAPES,
        library: module.__version__,
        "numpy": np.__version__,
    }
    known = {name for own in cases.values() for name in own}
    arrays = {name: x for name, x in (before | made).items() if name in known}
    np.savez_compressed(FILE, start=flat(first_parameters()), about=json.dumps(about), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
