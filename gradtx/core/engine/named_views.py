"""What the names and shapes of leaves say: which are matrices that multiply, and which axes do what."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from typing import Any, Literal

import numpy as np

from gradtx.core.engine import leaves as lv
from gradtx.core.engine.views import MatrixView

Kind = Literal["matrix", "vector", "embedding", "head", "unclear"]

VECTORS = ("bias", "b", "scale", "gamma", "beta", "gain", "offset", "ln", "norm")
"""Names of leaves that have one number for each output."""

EMBEDDINGS = ("embed", "embedding", "embeddings", "embedder", "wte", "wpe", "embed_tokens", "tok_embeddings")
"""Names of modules, or of leaves, that look up rows."""

HEADS = (
    "head",
    "lm_head",
    "lmhead",
    "unembed",
    "unembedding",
    "logits",
    "output_head",
    "readout",
    "decoder_head",
)
"""Names of modules that give the logits."""

INWARD = ("query", "key", "value", "q", "k", "v", "q_proj", "k_proj", "v_proj", "q_einsum", "qkv")
"""Names of modules whose kernels of three axes have inputs, heads and the outputs of each head."""

OUTWARD = ("out", "o", "o_proj", "out_proj", "attn_vec_einsum")
"""Names of modules whose kernels of three axes have heads, the inputs of each head, and outputs."""

TRANSPOSED = ("weight",)
"""Names of leaves with the outputs first, as torch and Equinox have them."""

LARGE, SLANTED = 16_384, 16
"""A side this large, and so many times the other, may be a vocabulary."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the name and the shape of a leaf say: its kind, its view if it has one, and why."""

    kind: Kind
    view: MatrixView | None
    why: str


def readings(tree: Any) -> list[Reading | None]:
    """What names and shapes say of each leaf of a tree; None for one that has no gradient."""
    leaves, _ = lv.flatten(tree)
    parts = [path.split("/") for path in lv.paths(tree)]
    shapes = [tuple(np.shape(x)) if lv.is_trainable_leaf(x) else None for x in leaves]
    batches = _batches(parts, shapes)
    vocabularies = _vocabularies(parts, shapes, batches)
    return [
        None if shape is None else _reading(names, shape, batch, vocabularies)
        for names, shape, batch in zip(parts, shapes, batches, strict=True)
    ]


def _plain(name: str) -> str:
    """A name in lower case, in words that are parted by `_`, without its number."""
    return re.sub(r"_?\d+$", "", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)).lower()


def _is_called(name: str, known: tuple[str, ...]) -> bool:
    """Whether a name is one of these, or ends with one that is no single letter, as `lm_head` does."""
    plain = _plain(name)
    return plain in known or any(plain.endswith(f"_{word}") for word in known if len(word) > 1)


def _is_vector(names: list[str]) -> bool:
    return _is_called(names[-1], VECTORS)


def _batches(parts: list[list[str]], shapes: list[Any]) -> list[int]:
    """How many leading axes of each leaf are layers that are scanned.

    A vector of more than one axis says so, for the largest module around it whose leaves all begin with them.
    """
    batches = [0] * len(parts)
    inside: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    for i, names in enumerate(parts):
        for depth in range(len(names)):
            inside[tuple(names[:depth])].append(i)
    for names, shape in zip(parts, shapes, strict=True):
        if shape is None or len(shape) < 2 or not _is_vector(names):
            continue
        leading = shape[:-1]
        for depth in range(len(names)):
            around = inside[tuple(names[:depth])]
            if len(around) > 1 and all(
                shapes[i] is not None and shapes[i][: len(leading)] == leading for i in around
            ):
                for i in around:
                    batches[i] = max(batches[i], len(leading))
                break
    return batches


def _vocabularies(parts: list[list[str]], shapes: list[Any], batches: list[int]) -> set[int]:
    """The numbers of rows that are looked up in embeddings, but for those that are also another size."""
    rows, others = set(), set()
    for names, shape, batch in zip(parts, shapes, batches, strict=True):
        if shape is None or len(shape) - batch != 2:
            continue
        if _kind(names) == "embedding" and not any("pos" in n.lower() or n == "wpe" for n in names):
            rows.add(shape[batch])
            others.add(shape[batch + 1])
    return rows - others


def _kind(names: list[str]) -> str:
    if any(_is_called(name, EMBEDDINGS) or _plain(name).startswith("embed") for name in names):
        return "embedding"
    return "head" if any(_is_called(name, HEADS) and _plain(name) != "multi_head" for name in names) else ""


def _reading(names: list[str], shape: tuple[int, ...], batch: int, vocabularies: set[int]) -> Reading:
    leading, own = "b" * batch, shape[batch:]
    scanned = "in scanned layers, " if batch else ""
    if len(own) < 2:
        return Reading("vector", None, f"{scanned}a vector" if own else f"{scanned}a number")
    if _is_vector(names):
        return Reading("vector", None, f"{scanned}named {names[-1]!r}")
    kind = _kind(names)
    if kind:
        named = next(name for name in names if _kind([name]))
        view = MatrixView(axes=f"{leading}rc", row_blocks=1, column_blocks=1) if len(own) == 2 else None
        return Reading(kind, view, f"{scanned}named {named!r}")  # pyright: ignore[reportArgumentType]
    axes, why = _axes(names, own)
    if not axes:
        return Reading("unclear", None, f"{scanned}{why}")
    view = MatrixView(axes=leading + axes, row_blocks=1, column_blocks=1)
    if len(own) == 2:
        small, large = sorted(own)
        if vocabularies & {*own}:
            return Reading(
                "unclear", view, f"{scanned}a side is the vocabulary's {max(vocabularies & {*own})}"
            )
        if large > LARGE and large >= SLANTED * small:
            return Reading("unclear", view, f"{scanned}a side of {large} may be a vocabulary")
    return Reading("matrix", view, f"{scanned}{why}")


def _axes(names: list[str], shape: tuple[int, ...]) -> tuple[str, str]:
    """The letters of a view and what they are read from; none, and why, where that is not known."""
    backwards = names[-1].lower() in TRANSPOSED
    modules = names[:-1] or names
    if len(shape) == 2:
        return ("cr", "outputs and inputs") if backwards else ("rc", "inputs and outputs")
    if any("conv" in _plain(name) for name in modules):
        inputs = shape[1] if backwards else shape[-2]
        if inputs == 1 and math.prod(shape[2:] if backwards else shape[:-2]) > 1:
            return "", "a convolution of each channel by itself"
        spatial = "r" * (len(shape) - 2)
        return (f"cr{spatial}" if backwards else f"{spatial}rc"), "a convolution"
    if len(shape) == 3 and not backwards:
        if _plain(modules[-1]) in INWARD:
            return "rcc", "inputs, heads and their outputs"
        if _plain(modules[-1]) in OUTWARD:
            return "rrc", "heads, their inputs, and outputs"
    return "", f"{len(shape)} axes, of which no name says what they are"
