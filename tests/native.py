"""What the tests of native kernels share: loops of any function, bits that are compared, and a C compiler.

Where there is no C compiler, a test that needs one tests that the error is clear.
"""

import functools
import os
import shlex
import shutil
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.core.loops.c_source import Array
from gradtx.core.loops.call import Traced, call_loops, leaf_loop

SAID = os.environ.get("CC", "").strip()
COMPILER = next(filter(shutil.which, shlex.split(SAID)[:1] if SAID else ["cc", "gcc", "clang"]), None)

EXACT = {"xla_allow_excess_precision": False, "xla_backend_optimization_level": 0}
"""With these XLA rounds after every operation, also in 16 bits; a product and a sum are two operations."""

LOOP = "@gradtx_"
"""What a call of a loop has in a program as it was lowered."""
COMPILED_LOOP = 'custom_call_target="gradtx'
"""The same of a compiled one."""


def compiles(test):
    """A test that compiles loops."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        if COMPILER:
            return test(*args, **kwargs)
        with pytest.raises(
            RuntimeError, match=r"needs a C compiler, and there is none .* Install gcc or clang"
        ):
            test(*args, **kwargs)

    return run


def loop_of(function, *arrays):
    """A function of arrays of one shape as a compiled loop."""
    traced = jax.make_jaxpr(lambda xs: list(function(*xs)))(list(arrays))
    kinds = tuple(Array(str(x.dtype)) for x in arrays)
    loop = leaf_loop(Traced(traced, kinds, arrays[0].shape, {}, traced), [], [])
    return jax.jit(lambda *xs: call_loops(jnp.zeros(1, jnp.float32), [], [(loop, xs)])[0])


def source_of(k):
    """The source of a small loop; another one for each number."""
    x = jnp.ones(3)
    traced = jax.make_jaxpr(lambda xs: [xs[0] * k])([x])
    return leaf_loop(Traced(traced, (Array("float32"),), (3,), {}, traced), [], []).source


def by_xla(function):
    return jax.jit(lambda *xs: list(function(*xs)), compiler_options=EXACT)


def bits(x):
    """The bits of an array, with one NaN for all."""
    x = np.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.floating):
        x = np.where(np.isnan(x), np.asarray(np.nan, x.dtype), x)
    return x.view(f"u{x.dtype.itemsize}")


def flushed(x):
    """Subnormals as zeros of their sign, as which XLA's arithmetic takes them; it knows those of float16."""
    x = np.asarray(x)
    if x.dtype == np.float16 or not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    whole = x.view(f"u{x.dtype.itemsize}")
    sign = whole.dtype.type(1 << (8 * x.dtype.itemsize - 1))
    exponent = whole.dtype.type((1 << jnp.finfo(x.dtype).nexp) - 1 << jnp.finfo(x.dtype).nmant)
    return np.where(whole & exponent, whole, whole & sign).view(x.dtype)


def assert_same(got, want, names=None, given=()):
    """Trees of arrays are the same bit for bit, up to what NaN's bits are and subnormals being zeros."""
    (got, structure), (want, other) = jax.tree.flatten(got), jax.tree.flatten(want)
    assert structure == other
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        differ = np.flatnonzero(bits(flushed(a)) != bits(flushed(b)))
        of = names[k] if names else k
        shown = [(*(np.ravel(x)[i] for x in given), np.ravel(a)[i], np.ravel(b)[i]) for i in differ[:4]]
        assert not differ.size, f"{of} of {a.dtype}: {differ.size} differ, (given, got, XLA's): {shown}"


def python(code, env=None, cwd=None):
    """What a process of its own prints; an error with what it wrote where it fails."""
    environment = {**os.environ, "PYTHONWARNINGS": "default", **(env or {})}
    environment = {key: value for key, value in environment.items() if value is not None}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout, done.stderr
