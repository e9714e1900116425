"""Which kernels leaves are updated by, as chosen around a call or for a whole process."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from typing import Any, Literal, get_args

import jax

Kernels = Literal["xla", "native"]
"""By what leaves are updated: what XLA makes of them, or loops of C."""

VARIABLE = "GRADTX_KERNELS"
"""The environment variable that chooses for a whole process."""

FIRST_JAX = "0.8.0"
"""The first version of JAX that lets a library choose in a way that `jax.jit` knows of."""


def kernels(choice: Kernels) -> AbstractContextManager[None]:
    """A context that chooses by which kernels the steps that are traced in it update their leaves.

    With `"native"`, on a CPU, all that a chain does to an element of a leaf is one loop of C, which reads
    each array once and writes it once; XLA makes about three loops of it. It is made of the traced rules, so
    that a user's own rule has it too, by the system's C compiler, and is kept in the user's cache folder, or
    where the environment variable `GRADTX_CACHE_DIR` says. What does more, such as a sum over a leaf, a
    product of matrices or random numbers, is done by XLA, and `gradtx.describe` says what is done by which,
    and why. So are derivatives of a step, and all of it on other backends.

    It is decided where a step is traced, and `jax.jit` traces again where it has been chosen anew. The
    environment variable `GRADTX_KERNELS=native` chooses for a whole process. `"xla"` is the default, since a
    step with such a loop cannot be taken to another machine: `jax.export` raises for it.

    Args:
        choice: "xla" or "native".

    Returns:
        A context manager.

    Raises:
        ValueError: there are no such kernels.
        RuntimeError: JAX is older than 0.8; or, where a step is traced, there is no C compiler, or the
            machine is neither x86-64 nor aarch64.

    Example:
        >>> import jax, jax.numpy as jnp, gradtx
        >>> tx = gradtx.adamw(1e-3)
        >>> params = {"w": jnp.ones((4, 3))}
        >>> step = jax.jit(lambda p, s, g: gradtx.apply_gradients(tx, g, s, p), donate_argnums=(0, 1))
        >>> with gradtx.kernels("native"):
        ...     params, state = step(params, tx.init(params), {"w": jnp.ones((4, 3))})
        >>> round(float(params["w"][0, 0]), 4)
        0.999
    """
    checked(choice, "gradtx.kernels")
    if _CONTEXT is None:
        raise _too_old("gradtx.kernels")
    return _CONTEXT(choice)


def checked(choice: Any, where: str) -> Kernels:
    """A choice; an error for what is none."""
    if choice not in get_args(Kernels):
        known = " or ".join(f"{name!r}" for name in get_args(Kernels))
        raise ValueError(f"{where}: there are no kernels {choice!r}. Choose {known}.")
    return choice


def by_xla() -> AbstractContextManager[None]:
    """A context in which XLA's kernels are chosen, for what is traced to be looked at."""
    return contextlib.nullcontext() if _CONTEXT is None else _CONTEXT("xla")


def chosen() -> Kernels:
    """What is chosen where this is called."""
    return "xla" if _CONTEXT is None else _CONTEXT.value


def _too_old(what: str) -> RuntimeError:
    return RuntimeError(
        f"{what} needs JAX {FIRST_JAX} or newer, and this one is older: it has no jax.make_user_context, by "
        f"which a compiled step knows what was chosen around its call."
    )


def _first() -> Kernels:
    """What the environment says."""
    said = checked(os.environ.get(VARIABLE) or "xla", f"The environment variable {VARIABLE}")
    if said != "xla" and not hasattr(jax, "make_user_context"):
        raise _too_old(f"{VARIABLE}={said}")
    return said


_START = _first()
_CONTEXT: Any = jax.make_user_context(_START) if hasattr(jax, "make_user_context") else None
