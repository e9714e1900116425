"""Record how the authors' optimizers of matrices move: `matrices.npz`.

    pip install torch==2.13.0 numpy==2.4.6
    python tests/golden/make_matrices.py FOLDER

FOLDER has the files that are on no package index, at the commits below: `soap.py` of
github.com/nikhilvyas/SOAP and `normuon.py` of github.com/zichongli5/NorMuon.

Needed only to record anew: the tests read the file. It holds 100 steps of each case in float64: parameters
after every step of `STEPS`. Muon takes its products in bfloat16 and SOAP its decompositions in float32, of
which little could be compared; here they are kept from that, and everything else is theirs.
`golden.load_matrices` reads the file, and `golden.MATRIX_CASES` says each case in this library's names.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, sys.argv[1])

from normuon import SingleDeviceNorMuon
from soap import SOAP

COMMITS = {
    "soap.py": "a1e553530fde97d0e6b307d7c82ac6d38b072340",
    "normuon.py": "d45c9a4280d758e2cf0b2b8333765d040e953937",
}

LENGTH = 100
STEPS = (*range(1, 6), *range(10, LENGTH + 1, 10))
# Of no shape has the first gradient several eigenvalues 0, whose eigenvectors nothing tells apart.
SHAPES = ((4, 3), (5, 6), (4, 4))

# Case: class, arguments.
CASES = {
    "muon": (torch.optim.Muon, {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95}),
    "muon_rms": (
        torch.optim.Muon,
        {
            "lr": 0.05,
            "weight_decay": 0.0,
            "momentum": 0.8,
            "adjust_lr_fn": "match_rms_adamw",
            "nesterov": False,
        },
    ),
    "normuon": (SingleDeviceNorMuon, {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95, "beta2": 0.95}),
    "normuon_quick": (SingleDeviceNorMuon, {"lr": 0.05, "momentum": 0.7, "beta2": 0.6}),
    "soap": (
        SOAP,
        {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.0, "precondition_frequency": 10, "eps": 1e-8},
    ),
    "soap_often": (
        SOAP,
        {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.0, "precondition_frequency": 3, "eps": 1e-4},
    ),
}


def gradient(x: np.ndarray, t: int) -> np.ndarray:
    """What is asked at every step, of the parameters and the number of the step from 0."""
    return np.sin(3 * x + t) + 0.3 * x


def record(kind: type, arguments: dict) -> np.ndarray:
    rng = np.random.default_rng(0)
    params = [torch.nn.Parameter(torch.tensor(rng.normal(size=shape))) for shape in SHAPES]
    optimizer = kind(params, **arguments)
    history = []
    for t in range(LENGTH):
        for p in params:
            p.grad = torch.tensor(gradient(p.detach().numpy(), t))
        optimizer.step()
        if t + 1 in STEPS:
            history.append(np.concatenate([p.detach().numpy().ravel() for p in params]))
    return np.stack(history)


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.Tensor.bfloat16 = torch.Tensor.float = torch.Tensor.clone
    made = {name: record(*case) for name, case in CASES.items()}
    rng = np.random.default_rng(0)
    start = np.concatenate([rng.normal(size=shape).ravel() for shape in SHAPES])
    about = {
        "commits": COMMITS,
        "steps": STEPS,
        "shapes": SHAPES,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    np.savez_compressed(Path(__file__).parent / "matrices.npz", start=start, about=json.dumps(about), **made)


if __name__ == "__main__":
    main()
