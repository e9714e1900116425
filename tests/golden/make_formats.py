"""Record how torchao keeps blocks in 4 and 8 bits: `formats.npz`.

    pip install torch==2.13.0 torchao==0.18.0 numpy
    python tests/golden/make_formats.py

Needed only to record anew: the tests read the file. It holds 32 blocks of 128 elements over six decades, and
of each the codes of torchao's signed map of 4 bits and the bytes of its float8, with their scales.
"""

import importlib.metadata
from pathlib import Path

import numpy as np
import torch
from torchao.optim.quant_utils import quantize_4bit_with_qmap, scale_tensor
from torchao.optim.subclass_4bit import get_qmap_signed
from torchao.optim.subclass_fp8 import quantize_fp8

BLOCK = 128


def main():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(32, BLOCK)) * 10 ** rng.uniform(-3, 3, (32, BLOCK))).astype(np.float32)
    # torchao's map of 4 bits has 1 and no -1: the largest is positive in half of the blocks.
    x[np.arange(32), np.abs(x).argmax(-1)] *= np.where(np.arange(32) % 2, 1, -1) * np.sign(
        x[np.arange(32), np.abs(x).argmax(-1)]
    )
    given = torch.tensor(x)
    parts, scale = scale_tensor(given, BLOCK)
    codes = quantize_4bit_with_qmap(parts, torch.tensor(get_qmap_signed()))
    float8, scale8 = quantize_fp8(given, BLOCK)
    np.savez_compressed(
        Path(__file__).parent / "formats.npz",
        x=x,
        map_of_4_bits=np.array(get_qmap_signed()),
        codes_of_4_bits=codes.numpy().reshape(x.shape),
        scale_of_4_bits=scale.numpy(),
        float8=float8.view(torch.uint8).numpy().reshape(x.shape),
        scale_of_float8=scale8.numpy(),
        version=np.array(importlib.metadata.version("torchao")),
    )


if __name__ == "__main__":
    main()
