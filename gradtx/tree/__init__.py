"""Functions of whole trees: what `optax.tree` has of arithmetic, norms, moments, and reading by name."""

from typing import TYPE_CHECKING

from gradtx._names import explaining, listing
from gradtx.tree.arithmetic import (
    add,
    add_scale,
    batch_shape,
    cast,
    cast_like,
    clip,
    conj,
    div,
    full_like,
    mul,
    ones_like,
    real,
    scale,
    sub,
    where,
    zeros_like,
)
from gradtx.tree.moments import (
    bias_correction,
    update_infinity_moment,
    update_moment,
    update_moment_per_elem_norm,
)
from gradtx.tree.random import random_like, split_key_like, unwrap_random_key_data
from gradtx.tree.reading import get, get_all_with_path, set
from gradtx.tree.reductions import allclose, dtype, max, min, norm, size, sum, vdot
from gradtx.tree_map_params import tree_map_params as map_params

if not TYPE_CHECKING:  # To a type checker it would say that every name is there.
    __getattr__ = explaining("tree")
__dir__ = listing(globals())

__all__ = [
    "add",
    "add_scale",
    "allclose",
    "batch_shape",
    "bias_correction",
    "cast",
    "cast_like",
    "clip",
    "conj",
    "div",
    "dtype",
    "full_like",
    "get",
    "get_all_with_path",
    "map_params",
    "max",
    "min",
    "mul",
    "norm",
    "ones_like",
    "random_like",
    "real",
    "scale",
    "set",
    "size",
    "split_key_like",
    "sub",
    "sum",
    "unwrap_random_key_data",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
    "vdot",
    "where",
    "zeros_like",
]
