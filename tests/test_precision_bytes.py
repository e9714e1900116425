"""What a run in a preset holds: counted in arrays that are alive, and in what the compiled step says."""

import jax
import jax.numpy as jnp
import pytest

import gradtx

SHAPES = {
    "embed": (1000, 256),
    "attention": {"kernel": (256, 768), "bias": (768,)},
    "up": {"kernel": (256, 1024), "bias": (1024,)},
    "down": {"kernel": (1024, 256), "bias": (256,)},
    "norm": (256,),
}
MOST = 7.2
"""Bytes of weight, gradient and state for each parameter."""


def filled(value):
    return jax.tree.map(
        lambda s: jnp.full(s, value, jnp.bfloat16), SHAPES, is_leaf=lambda x: type(x) is tuple
    )


def nbytes(tree):
    return sum(x.nbytes for x in jax.tree.leaves(tree))


@pytest.mark.wide
def test_adamw_in_7_bytes_holds_7_bytes_a_parameter():
    before = jax.live_arrays()  # held, so that no new array has the id of an old one
    tx = gradtx.precision(gradtx.adamw(1e-3), "7-bytes")
    params, grads = filled(0.5), filled(0.25)
    count = sum(x.size for x in jax.tree.leaves(params))

    def step(params, state, grads):
        return gradtx.apply_gradients(tx, grads, state, params)

    state = tx.init(params)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, grads).compile()
    params, state = jax.block_until_ready(compiled(params, state, grads))

    held = (params, state, grads)
    assert 7 < nbytes(held) / count <= MOST
    old = set(map(id, before))
    alive = [x for x in jax.live_arrays() if id(x) not in old]
    # The numbers of the transform itself, which the state began with, are alive beside it.
    assert sum(x.nbytes for x in alive if x.size > 1) == sum(
        x.nbytes for x in jax.tree.leaves(held) if x.size > 1
    )

    said = compiled.memory_analysis()
    assert said is not None
    of_program = said.argument_size_in_bytes + said.output_size_in_bytes - said.alias_size_in_bytes
    assert 7 < of_program / count <= MOST

    slots = state["slots"]["precise_params"]["inner"]["slots"]["scale_by_adam"]
    moments = {name: slots[name] for name in ("mu", "mu_scales", "nu", "nu_scales")}
    assert 2 < nbytes(moments) / count <= 2.1
    assert {x.dtype.name for x in jax.tree.leaves(moments) if x.size >= 100_000} == {"int8", "uint8"}


@pytest.mark.wide
def test_the_page_has_the_bytes_that_are_counted_now():
    import precision_experiment

    text = precision_experiment.PAGE.read_text()
    assert precision_experiment.rewritten(text, "bytes", precision_experiment.bytes_table()) == text
