"""The dimensions that the laws run over besides the catalogue: dtypes, kinds of trees, ways to run."""

from __future__ import annotations

import jax.numpy as jnp

import gradtx
from catalogue import Entry
from gradtx import testing

DTYPES = {
    "float32": ("float32", "float32"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "float16": ("float16", "float16"),
    "float64": ("float64", "float64"),
    "complex64": ("complex64", "complex64"),
    "bfloat16 with float32 gradients": ("bfloat16", "float32"),
    "float32 with bfloat16 gradients": ("float32", "bfloat16"),
}
"""The dtypes of parameters and gradients."""

TREES = ("flat", "nested", "bare", "integers")
"""A dict; lists and tuples with a `None`, an empty and a vector leaf; an array; a dict with an integer leaf
that is masked out, whose gradient is float0.
"""

MODES = ("compiled", "eager")


def params_of(tree: str, dtype: str):
    """Parameters of a kind of tree."""
    flat = testing.example_params(dtype)
    if tree == "nested":
        return [(flat["kernel"], None), {"empty": jnp.zeros((0, 3), dtype), "vector": flat["kernel"][0]}]
    if tree == "bare":
        return flat["kernel"]
    if tree == "integers":
        return {**flat, "table": jnp.arange(4)}
    return flat


def is_inexact(path, leaf):
    """A mask: the leaves that gradients exist for."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def case(
    entry: Entry, dtypes: str = "float32", tree: str = "flat", mode: str = "compiled", preset: str = "f32"
):
    """The entry as a case of the laws, in a preset of `gradtx.precision`; inside `precision(dtypes)`."""
    param_dtype, grad_dtype = DTYPES[dtypes]
    params = params_of(tree, param_dtype)
    tx, alternative = entry.transform(), entry.transform("alternative")
    if preset != "f32":
        # With small leaves in the formats too.
        tx, alternative = (gradtx.precision(t, preset, min_size=0) for t in (tx, alternative))
    if tree == "integers":
        tx, alternative = (gradtx.masked(t, is_inexact) for t in (tx, alternative))
    grads = testing.example_grads(params, dtype=grad_dtype, positive=entry.positive)
    return testing.Case(
        tx,
        params,
        grads,
        alternative=alternative,
        compiled=mode == "compiled",
        rough=entry.rough,
        **entry.extra,
    )
