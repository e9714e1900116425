"""Laws about steps: what a step keeps, and that the same step is the same however it is run."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

import gradtx
from gradtx.core.engine.leaves import flatten, paths
from gradtx.core.numerics import real_dtype, widest
from gradtx.testing.case import Case, as_numpy, changed, copied, law, like_params, stacked_leaves
from gradtx.testing.compare import (
    PyTree,
    close,
    identical,
    same_layout,
)


@law
def state_in_is_state_out(case: Case) -> None:
    """The state keeps its tree, shapes, dtypes and weak types; the parameters keep theirs."""
    for params, state, _ in case.trajectory:
        same_layout(state, case.start, "state")
        same_layout(params, case.params, "params")


@law
def updates_have_the_promoted_dtype(case: Case) -> None:
    """An update has the shape of its parameter and the wider dtype of gradient and parameter."""
    _, _, updates = case.trajectory[0]
    us, structure = flatten(updates)
    assert structure == flatten(case.params)[1], "the updates and the params are different trees"
    for i in case.trainable:
        u, p, g = us[i], flatten(case.params)[0][i], flatten(case.grads[0])[0][i]
        wanted = (jnp.shape(p), widest(p.dtype, g.dtype))
        got = (u.shape, u.dtype)
        if got != wanted and not (_gives_real(case) and u.dtype == real_dtype(wanted[1])):
            raise AssertionError(f"updates {paths(updates)[i]}: {got} where {wanted} is wanted")


def _gives_real(case: Case) -> bool:
    return any(rule.gives_real for rule in case.rules)


@law
def jit_equals_eager(case: Case) -> None:
    """The compiled step and the plain one agree to 4 ulp of the parameter, 32 with products of matrices."""
    compiled = case.run(case.start, step=lambda p, s, g: case.jitted(copied(p), copied(s), g))
    so_far = [case.params]
    for (one, _, u), (other, _, _) in zip(compiled, case.eager, strict=True):
        # A parameter that shrinks keeps the rounding errors of when it was large.
        close(one, other, "params", *so_far, like_params(u, case.params), **case.rounding)
        so_far.append(other)


@law
def two_runs_are_identical(case: Case) -> None:
    """A program run twice gives the same bits."""
    identical(case.run(case.tx.init(case.params)), case.trajectory, "the second run's")


@law
def restored_state_continues(case: Case) -> None:
    """A state of numpy arrays, as a checkpoint gives it, continues bit for bit, compiled or not."""

    def continues(what: str, trajectory: Any, step: Any) -> None:
        params, state, _ = trajectory[0]
        again = step(as_numpy(params), as_numpy(state), case.grads[1])
        identical(again, trajectory[1], f"a restored {what} run's")

    continues("eager", case.eager, functools.partial(case.update, case.tx))
    if case.compiled:
        continues("compiled", case.trajectory, case.jitted)


@law
def apply_gradients_is_update_then_apply(case: Case) -> None:
    """`apply_gradients` agrees with `update` and `apply_updates` to the rounding of the update."""
    apply = functools.partial(gradtx.apply_gradients, case.tx)
    extra = case.extra
    params, state = (jax.jit(apply) if case.compiled else apply)(
        case.grads[0], case.start, case.params, **extra
    )
    expected, expected_state, updates = case.trajectory[0]
    close(params, expected, "params", case.params, like_params(updates, case.params))
    close(_absolute(state), _absolute(expected_state), "state")


def _absolute(state: PyTree) -> PyTree:
    """A state without what stands beside parameters, which makes up for how each of the two was rounded."""
    if not isinstance(state, dict):
        return state
    is_beside = "beside" in state and "inner" in state
    return {k: _absolute(x) for k, x in state.items() if not (is_beside and k == "beside")}


@law
def scan_equals_loop(case: Case) -> None:
    """Steps inside `lax.scan` agree with a loop."""
    stacked = jax.tree.map(stacked_leaves, *case.grads)

    @jax.jit
    def scanned(params: PyTree, state: PyTree, grads: PyTree) -> PyTree:
        def body(carry: Any, g: PyTree) -> Any:
            params, state = carry
            params, state, _ = case.update(case.tx, params, state, g)
            return (params, state), params

        return jax.lax.scan(body, (params, state), grads)[1]

    result = scanned(case.params, case.start, stacked)
    so_far = [case.params]
    for i, (params, _, updates) in enumerate(case.trajectory):
        this = jax.tree.map(lambda x, i=i: x[i], result)
        close(
            this, params, f"params of step {i}", *so_far, like_params(updates, case.params), **case.rounding
        )
        so_far.append(params)


@law
def vmap_equals_loop(case: Case) -> None:
    """A batch of states, each with its own numbers, steps as each does alone."""
    params, state, _ = case.trajectory[0]
    states, grads = [state, changed(case, state, 0.9)], case.grads[1:3]
    batched = jax.jit(jax.vmap(functools.partial(case.update, case.tx), in_axes=(None, 0, 0)))
    batch = [jax.tree.map(stacked_leaves, *trees) for trees in (states, grads)]
    result, _, _ = batched(params, *batch)
    for i in range(2):
        alone, _, updates = case.step(params, states[i], grads[i])
        this = jax.tree.map(lambda x, i=i: x[i], result)
        close(this, alone, f"params of state {i}", params, like_params(updates, params), **case.rounding)
