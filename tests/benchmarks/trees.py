"""The trees of parameters that the benchmarks run on, as shapes."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def transformer(layers: int, width: int, vocabulary: int, context: int) -> dict[str, Any]:
    """The shapes of GPT-2: 4 leaves and 12 for each layer."""
    shapes: dict[str, Any] = {
        "wte": (vocabulary, width),
        "wpe": (context, width),
        "ln_f": {"scale": (width,), "bias": (width,)},
    }
    for i in range(layers):
        shapes[f"h{i}"] = {
            "ln_1": {"scale": (width,), "bias": (width,)},
            "attn": {"kernel": (width, 3 * width), "bias": (3 * width,)},
            "attn_out": {"kernel": (width, width), "bias": (width,)},
            "ln_2": {"scale": (width,), "bias": (width,)},
            "fc": {"kernel": (width, 4 * width), "bias": (4 * width,)},
            "fc_out": {"kernel": (4 * width, width), "bias": (width,)},
        }
    return shapes


def small_transformer(layers: int, width: int, vocabulary: int) -> dict[str, Any]:
    """An embedding, and five leaves for each layer."""
    shapes: dict[str, Any] = {"wte": (vocabulary, width)}
    for i in range(layers):
        shapes[f"h{i}"] = {
            "ln": (width,),
            "attn": (width, 3 * width),
            "attn_out": (width, width),
            "fc": (width, 4 * width),
            "fc_out": (4 * width, width),
        }
    return shapes


def mlp(*widths: int) -> dict[str, Any]:
    """The shapes of a multilayer perceptron."""
    return {
        f"layer_{i}": {"kernel": (a, b), "bias": (b,)} for i, (a, b) in enumerate(itertools.pairwise(widths))
    }


def is_shape(x: Any) -> bool:
    return isinstance(x, tuple)


def filled(shapes: Any, seed: int = 0) -> Any:
    """Random float32 arrays of these shapes, as large as gradients usually are."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: jnp.asarray(0.01 * rng.standard_normal(s, np.float32)), shapes, is_leaf=is_shape
    )


def abstract(shapes: Any) -> Any:
    """The same as `jax.ShapeDtypeStruct`s."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, np.float32), shapes, is_leaf=is_shape)
