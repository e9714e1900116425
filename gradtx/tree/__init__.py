"""Functions of whole trees: what `optax.tree` has of arithmetic, norms, moments, and reading by name."""

from gradtx._names import explaining
from gradtx.tree.arithmetic import (
    add,
    add_scale,
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
from gradtx.tree.reading import get, get_all_with_path, set
from gradtx.tree.reductions import max, min, norm, size, sum, vdot
from gradtx.tree_map_params import tree_map_params as map_params

__getattr__ = explaining("tree")

__all__ = [
    "add",
    "add_scale",
    "bias_correction",
    "cast",
    "cast_like",
    "clip",
    "conj",
    "div",
    "full_like",
    "get",
    "get_all_with_path",
    "map_params",
    "max",
    "min",
    "mul",
    "norm",
    "ones_like",
    "real",
    "scale",
    "set",
    "size",
    "sub",
    "sum",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
    "vdot",
    "where",
    "zeros_like",
]
