"""Decompositions: those of JAX, but that a CPU takes one matrix at a time."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.decompositions import eigh, orthonormal, svd, triangular_quotient
from gradtx.core.products import identity_like

RNG = np.random.default_rng(0)


def made(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def symmetric(x):
    return x + x.mT


def upper(x):
    return jnp.triu(x) + 4 * identity_like(x)


PAIRS = {
    "eigh": (lambda x: eigh(symmetric(x)), lambda x: tuple(jnp.linalg.eigh(symmetric(x))), (4, 4)),
    "svd": (svd, lambda x: tuple(jnp.linalg.svd(x, full_matrices=False)), (3, 5)),
    "orthonormal": (orthonormal, lambda x: jnp.linalg.qr(x)[0], (5, 3)),
    "quotient": (
        lambda x: triangular_quotient(upper(x), x, 0),
        lambda x: jnp.linalg.solve(upper(x).mT, x),
        (4, 4),
    ),
    "quotient on the right": (
        lambda x: triangular_quotient(upper(x), x, 1),
        lambda x: x @ jnp.linalg.inv(upper(x)),
        (4, 4),
    ),
}


@pytest.mark.by_turns(5)
@pytest.mark.parametrize("batch", [(), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_they_are_those_of_jax_with_their_derivatives(name, batch):
    ours, theirs, size = PAIRS[name]
    x, dx = made(*batch, *size), made(*batch, *size)

    def same(a, b):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), a, b)

    same(ours(x), theirs(x))
    if x.size:
        same(jax.jvp(ours, (x,), (dx,)), jax.jvp(theirs, (x,), (dx,)))
        value, back = jax.vjp(jax.jit(ours), x)
        same(back(value), jax.vjp(theirs, x)[1](theirs(x)))
    if len(batch) == 2:
        same(jax.jit(jax.vmap(ours))(x), theirs(x))


def test_one_argument_may_be_shared_in_a_sweep():
    q, x = upper(made(4, 4)), made(3, 2, 4)
    found = jax.vmap(triangular_quotient, in_axes=(None, 0, None))(q, x, 1)
    np.testing.assert_allclose(found, x @ jnp.linalg.inv(q)[None], rtol=1e-4, atol=1e-5)


DECOMPOSING = {
    "scale_by_shampoo": {},
    "scale_by_soap": {},
    "scale_by_kl_soap": {},
    "scale_by_soap_muon": {},
    "scale_by_splus": {},
    "scale_by_kron": {},
    "scale_by_dion": {},
    "scale_by_galore": {"rank": 2},
}


@pytest.mark.by_turns(3)
@pytest.mark.parametrize("name", DECOMPOSING)
def test_a_cpu_decomposes_one_matrix_at_a_time(name):
    """Also of small matrices, which it takes together else, and in a sweep."""
    tx = getattr(gradtx, name)(**DECOMPOSING[name])
    params = {f"w{i}": made(*size) for i, size in enumerate([(6, 4), (6, 4), (4, 4), (4, 4), (4, 4)])}
    swept = jax.tree.map(lambda x: jnp.stack([x, 2 * x, 3 * x]), params)
    state = jax.vmap(tx.init)(swept)
    update = jax.vmap(lambda g, s, p: tx.update(g, s, p))
    for call, args in ((tx.update, (params, tx.init(params), params)), (update, (swept, state, swept))):
        text = jax.jit(call).lower(*args).as_text()
        shapes = re.findall(r"custom_call @(?:lapack|blas)_\w+\(.*: \(tensor<([\dx]+)x\w+>", text)
        assert shapes
        for shape in shapes:
            *before, _, _ = map(int, shape.split("x"))
            assert np.prod(before, initial=1) == 1, shape
