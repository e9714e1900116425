"""The trees of parameters that the benchmarks run on, as shapes."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec


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


def experts() -> tuple[dict[str, Any], dict[str, Any]]:
    """A model of a trillion parameters, most of them in experts, and how they are sharded."""
    inside, hidden, layers, count = 7168, 2048, 60, 384
    shapes: dict[str, tuple[int, ...]] = {"embed": (163840, inside), "norm": (inside,)}
    for i in range(layers):
        shapes |= {f"layer{i}/{name}": (count, inside, hidden) for name in ("up", "gate")}
        shapes |= {f"layer{i}/down": (count, hidden, inside), f"layer{i}/norm": (inside,)}
        shapes |= {f"layer{i}/query": (inside, inside), f"layer{i}/out": (inside, inside)}
    params = {k: jax.ShapeDtypeStruct(s, jnp.bfloat16) for k, s in shapes.items()}
    parts = {1: (), 2: ("data", "expert"), 3: ("expert", "data", None)}
    return params, {k: PartitionSpec(*parts[len(s)]) for k, s in shapes.items()}


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
