"""Trajectories: an optimizer and its reference over the same steps, and how far apart they are.

The measure is relative, element by element: |a - b| over the largest value that the element's reference
has had so far, so that a parameter on its way through 0 does not count as lost precision, and an element
whose reference has only been 0 must be 0.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx.core.engine.structure import Structure

STEPS = 120
REAL = {"cube": (2, 3, 4), "empty": (0,), "scalar": (), "vector": (7,)}
COMPLEX = {"z_matrix": (3, 2)}
SMALL = {"matrix": (5, 3), "z_matrix": (3, 2)}


def x64(on=True):
    """A context in which arrays may have 64 bits."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(on)
    from jax.experimental import enable_x64

    return enable_x64(on)


@functools.cache
def problem(*, with_complex=True, mild=False, positive=False, small=False, seed=0):
    """Parameters and `STEPS` gradients for each leaf, by name: float64 values that float32 holds exactly.

    The leaves are those of `REAL` and `COMPLEX`, or, if `small`, of `SMALL`.
    The magnitudes go over six decades between elements and two between steps (over one in all if `mild`).
    A tenth of all gradients is exactly 0, one element's always, one leaf's for a while, all at one step.
    None is negative if `positive`.
    """
    rng = np.random.default_rng(seed)
    shapes = SMALL if small else {**REAL, **COMPLEX}
    if not with_complex:
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith("z_")}
    params, grads = {}, {}
    over_time = 10 ** rng.uniform(-0.25 if mild else -1.0, 0.25 if mild else 1.0, STEPS)
    for name, shape in shapes.items():
        is_complex = name.startswith("z_")

        def normal(*size, is_complex=is_complex):
            x = rng.normal(size=size)
            return x + 1j * rng.normal(size=size) if is_complex else x

        magnitude = 10 ** rng.uniform(-0.25 if mild else -3.0, 0.25 if mild else 3.0, shape)
        g = normal(STEPS, *shape) * magnitude * over_time.reshape(-1, *(1 for _ in shape))
        g = np.where(rng.uniform(size=g.shape) < 0.1, 0, g)
        g = np.abs(g) if positive else g
        g[17] = 0
        p = normal(*shape)
        if name in ("cube", "matrix"):
            g[..., 0, 0], g[40:45], g[0, ..., 1, 1], p[..., 2, 2] = 0, 0, 0, 0
        kind = np.complex64 if is_complex else np.float32
        wide = np.complex128 if is_complex else np.float64
        params[name] = np.asarray(p).astype(kind).astype(wide)
        grads[name] = g.astype(kind).astype(wide)
    return SimpleNamespace(params=params, grads=grads)


def narrow(tree):
    """The same values as float32 or complex64."""
    return {k: v.astype(np.complex64 if np.iscomplexobj(v) else np.float32) for k, v in tree.items()}


# The formula is judged here, not the code that LLVM makes of it, and most of the time goes into making it.
@functools.partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
def _scan(tx, state, params, grads, extra):
    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params, **extra)
        params = gradtx.apply_updates(params, updates)
        return (params, state), (updates, params)

    return jax.lax.scan(step, (params, state), grads)[1]


def run(tx, params, grads, **extra):
    """The updates and the parameters of every step, from one compiled scan that all settings share."""
    params, grads = jax.tree.map(jnp.asarray, (params, grads))
    return jax.tree.map(np.asarray, _scan(Structure.of(tx), tx.init(params), params, grads, extra))


def follow(reference, params, grads, **extra):
    """The same by a reference, step by step."""
    names = sorted(params)
    values = [params[k] for k in names]
    reference.init(values)
    steps = len(grads[names[0]])
    updates, trajectory = [], []
    for t in range(steps):
        us = reference.update([grads[k][t] for k in names], values, **extra)
        values = [p + u for p, u in zip(values, us, strict=True)]
        updates.append(us)
        trajectory.append(values)
    return tuple(
        {k: np.stack([step[i] for step in history]) for i, k in enumerate(names)}
        for history in (updates, trajectory)
    )


def deviation(actual, expected):
    """The largest relative deviation of a trajectory of trees of arrays, steps first."""
    worst = 0.0
    for name, b in expected.items():
        a = np.asarray(actual[name])
        assert a.shape == b.shape, (name, a.shape, b.shape)
        scale = np.maximum.accumulate(np.abs(b), axis=0)
        error = np.abs(a - b)
        assert np.all(np.isfinite(error)), f"{name} is not finite"
        assert not np.any((scale == 0) & (error != 0)), f"{name} moves where its reference does not"
        worst = max(worst, np.max(error / np.where(scale == 0, 1.0, scale), initial=0.0))
    return worst


def deviations(tx, reference, problem, **extra):
    """How far the updates and the parameters of `tx` ever are from the reference's."""
    actual = run(tx, problem.params, problem.grads, **extra)
    wide = {k: v.astype(np.result_type(v, np.float64)) for k, v in problem.params.items()}
    expected = follow(reference, wide, problem.grads, **extra)
    return tuple(deviation(a, b) for a, b in zip(actual, expected, strict=True))
