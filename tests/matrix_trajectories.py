"""Where the optimizers of matrices go from the recorded start: the cases of `golden/matrices.npz`."""

from __future__ import annotations

import zlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
import gradtx.transforms.dion
import gradtx.transforms.kron
from golden import MATRIX_CASES, load_matrices
from trajectories import x64

RECORDED = load_matrices()


def recorded_noise():
    """The normal numbers that the authors' Kron and Dion were given, by the keys that ours have for them."""
    found = {}
    for t in range(RECORDED.steps[-1]):
        key = jax.random.fold_in(jax.random.key(0), t)
        for i in range(len(RECORDED.params)):
            (own,) = jax.random.split(jax.random.fold_in(key, np.uint32(zlib.crc32(str(i).encode()))), 1)
            found[jax.random.key_data(own).tobytes()] = t + 1, i

    def noise(keys, shape, dtype):
        def look_up(data):
            seeds = [found[np.asarray(key).tobytes()] for key in data]
            return np.stack([np.random.default_rng([*seed]).normal(size=shape) for seed in seeds])

        result = jax.ShapeDtypeStruct((len(keys), *shape), dtype)
        return jax.pure_callback(look_up, result, jax.random.key_data(keys))

    return noise


def built(x):
    """What an argument of a case stands for: views by pattern, or a transform by its name and arguments."""
    match x:
        case (str(name), dict(kwargs)):
            return getattr(gradtx, name)(**kwargs)
        case dict():
            return {pattern: built(value) for pattern, value in x.items()}
    return x


def trajectory(case):
    """The parameters of a case after each of the recorded steps."""
    name, arguments = MATRIX_CASES[case]
    arguments = {key: built(value) for key, value in arguments.items()}
    of_heads = case == "scion_sign"
    if of_heads:  # which a name says; a view is of a matrix that goes to the method
        arguments.pop("views")

    def given(leaves):
        return {f"{i}_head": x.T for i, x in enumerate(leaves)} if of_heads else leaves

    def taken(tree):
        return [x.T for x in tree.values()] if of_heads else tree

    found = []
    noise = recorded_noise()
    with (
        x64(),
        mock.patch.object(gradtx.transforms.kron, "normal_of_each", noise),
        mock.patch.object(gradtx.transforms.dion, "normal_of_each", noise),
    ):
        tx = getattr(gradtx, name)(**arguments)
        params = [jnp.asarray(p) for p in RECORDED.params]
        state, step = tx.init(given(params)), jax.jit(tx.update)
        for t in range(RECORDED.steps[-1]):
            grads = [jnp.sin(3 * x + t) + 0.3 * x for x in params]
            updates, state = step(given(grads), state, given(params))
            params = taken(gradtx.apply_updates(given(params), updates))
            if t + 1 in RECORDED.steps:
                found.append([np.asarray(p) for p in params])
    return found
