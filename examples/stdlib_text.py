"""Real text that every machine has: the source of Python's standard library, read as bytes.

`load()` returns a training and a held-out part. A file is held out by a hash of its path relative
to the library, so the split is the same in every run and on every machine. `ngram_baselines` says
what the held-out part costs without a neural network: the numbers a language model has to beat.
"""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path

import numpy as np

# Packages that are installed rather than part of Python, tests, and generated tables.
SKIPPED = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "encodings",
    "pydoc_data",
}
HELD_OUT = 0.1


def is_held_out(name: str) -> bool:
    """Whether a file belongs to the held-out part: a fixed tenth, chosen by its name's hash."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT * 2**64


def load() -> tuple[np.ndarray, np.ndarray]:
    """The training bytes and the held-out bytes, two uint8 vectors, in the order of the paths."""
    root = Path(sysconfig.get_path("stdlib"))
    parts: dict[bool, list[bytes]] = {False: [], True: []}
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        name = path.relative_to(root)
        if SKIPPED.isdisjoint(name.parts):
            parts[is_held_out(name.as_posix())].append(path.read_bytes())
    train, held_out = (np.frombuffer(b"".join(parts[kind]), np.uint8) for kind in (False, True))
    if min(train.size, held_out.size) < 100_000:
        raise SystemExit(f"{root} holds too little Python source ({train.size:,} bytes) to train on")
    return train, held_out


def ngram_baselines(train: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    """Cost of the held-out bytes in nats per byte under models that see 0, 1 and 2 bytes back.

    Counts are smoothed towards the next shorter model, `(count + p_shorter) / (total + 1)`, where
    the shortest of all is uniform, so that no byte is ever impossible.
    """
    costs = {}
    shorter = np.full(held_out.size, 1 / 256)
    for order, name in enumerate(("unigram", "bigram", "trigram")):
        counts = np.bincount(_codes(train, order), minlength=256 ** (order + 1))
        totals = counts.reshape(-1, 256).sum(1)
        codes = _codes(held_out, order)
        shorter = (counts[codes] + shorter[-codes.size :]) / (totals[codes // 256] + 1)
        costs[name] = float(-np.log(shorter).mean())
    return costs


def _codes(text: np.ndarray, order: int) -> np.ndarray:
    """Each byte joined with the `order` bytes before it, as one integer."""
    codes = np.zeros(text.size - order, np.int64)
    for back in range(order, -1, -1):
        codes = codes * 256 + text[order - back : text.size - back]
    return codes
