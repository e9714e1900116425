"""Where the leaves of real models go: a GPT of Flax NNX, a scanned transformer of Linen, a CNN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import gradtx


class Block(linen.Module):
    """A layer as `linen.scan` takes it."""

    @linen.compact
    def __call__(self, x, _):
        y = linen.LayerNorm()(x)
        x = x + linen.MultiHeadDotProductAttention(num_heads=4)(y, y)
        y = linen.Dense(96, name="up")(linen.LayerNorm()(x))
        return x + linen.Dense(24, name="down")(linen.gelu(y)), None


class Scanned(linen.Module):
    """Three layers whose parameters are stacked."""

    @linen.compact
    def __call__(self, tokens):
        x = linen.Embed(50, 24)(tokens)
        layers = linen.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = layers(name="layers")(x, None)
        return linen.Dense(50, name="head")(linen.LayerNorm()(x))


class Convolutions(linen.Module):
    """Two convolutions, a normalization and two dense layers."""

    @linen.compact
    def __call__(self, x):
        x = linen.BatchNorm(use_running_average=True)(linen.Conv(8, (3, 3))(x))
        x = linen.Conv(16, (3, 3), strides=2)(linen.relu(x))
        x = linen.relu(linen.Dense(32)(x.reshape(len(x), -1)))
        return linen.Dense(10, name="head")(x)


class Gpt(nnx.Module):
    """One layer with queries, keys and values apart, and a head of its own."""

    def __init__(self, rngs):
        self.wte, self.wpe = nnx.Embed(60, 16, rngs=rngs), nnx.Embed(12, 16, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 16, decode=False, rngs=rngs)
        self.ln = nnx.LayerNorm(16, rngs=rngs)
        self.up, self.down = nnx.Linear(16, 64, rngs=rngs), nnx.Linear(64, 16, rngs=rngs)
        self.lm_head = nnx.Linear(16, 60, use_bias=False, rngs=rngs)


def linen_params(model, x):
    return jax.eval_shape(model.init, jax.random.key(0), x)["params"]


def gpt():
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: Gpt(nnx.Rngs(0))), nnx.Param))


def scanned():
    return linen_params(Scanned(), jnp.zeros((2, 5), jnp.int32))


def cnn():
    return linen_params(Convolutions(), jnp.zeros((1, 8, 8, 3)))


TABLES = {
    gpt: """
        attention/key/bias      (2, 8)           adamw
        attention/key/kernel    (16, 2, 8)  rcc  muon
        attention/out/bias      (16,)            adamw
        attention/out/kernel    (2, 8, 16)  rrc  muon
        attention/query/bias    (2, 8)           adamw
        attention/query/kernel  (16, 2, 8)  rcc  muon
        attention/value/bias    (2, 8)           adamw
        attention/value/kernel  (16, 2, 8)  rcc  muon
        down/bias               (16,)            adamw
        down/kernel             (64, 16)    rc   muon
        lm_head/kernel          (16, 60)    rc   adamw
        ln/bias                 (16,)            adamw
        ln/scale                (16,)            adamw
        up/bias                 (64,)            adamw
        up/kernel               (16, 64)    rc   muon
        wpe/embedding           (12, 16)    rc   adamw
        wte/embedding           (60, 16)    rc   adamw
    """,
    scanned: """
        Embed_0/embedding                                    (50, 24)       rc    adamw
        LayerNorm_0/bias                                     (24,)                adamw
        LayerNorm_0/scale                                    (24,)                adamw
        head/bias                                            (50,)                adamw
        head/kernel                                          (24, 50)       rc    adamw
        layers/LayerNorm_0/bias                              (3, 24)              adamw
        layers/LayerNorm_0/scale                             (3, 24)              adamw
        layers/LayerNorm_1/bias                              (3, 24)              adamw
        layers/LayerNorm_1/scale                             (3, 24)              adamw
        layers/MultiHeadDotProductAttention_0/key/bias       (3, 4, 6)            adamw
        layers/MultiHeadDotProductAttention_0/key/kernel     (3, 24, 4, 6)  brcc  muon
        layers/MultiHeadDotProductAttention_0/out/bias       (3, 24)              adamw
        layers/MultiHeadDotProductAttention_0/out/kernel     (3, 4, 6, 24)  brrc  muon
        layers/MultiHeadDotProductAttention_0/query/bias     (3, 4, 6)            adamw
        layers/MultiHeadDotProductAttention_0/query/kernel   (3, 24, 4, 6)  brcc  muon
        layers/MultiHeadDotProductAttention_0/value/bias     (3, 4, 6)            adamw
        layers/MultiHeadDotProductAttention_0/value/kernel   (3, 24, 4, 6)  brcc  muon
        layers/down/bias                                     (3, 24)              adamw
        layers/down/kernel                                   (3, 96, 24)    brc   muon
        layers/up/bias                                       (3, 96)              adamw
        layers/up/kernel                                     (3, 24, 96)    brc   muon
    """,
    cnn: """
        BatchNorm_0/bias   (8,)                 adamw
        BatchNorm_0/scale  (8,)                 adamw
        Conv_0/bias        (8,)                 adamw
        Conv_0/kernel      (3, 3, 3, 8)   rrrc  muon
        Conv_1/bias        (16,)                adamw
        Conv_1/kernel      (3, 3, 8, 16)  rrrc  muon
        Dense_0/bias       (32,)                adamw
        Dense_0/kernel     (256, 32)      rc    muon
        head/bias          (10,)                adamw
        head/kernel        (32, 10)       rc    adamw
    """,
}


def table(tx, params):
    """Path, shape, view and optimizer of each leaf."""
    return [" ".join([r.path, str(r.shape), r.view, r.optimizer]).split() for r in gradtx.routing(tx, params)]


@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)
def test_each_leaf_of_a_model_goes_where_it_belongs(model):
    expected = [line.split() for line in TABLES[model].strip().splitlines()]
    assert table(gradtx.muon(0.02), model()) == expected


METHODS = [
    *(gradtx.muon, gradtx.normuon, gradtx.adamuon, gradtx.dion2, gradtx.scion),
    *(gradtx.dion, gradtx.muown, gradtx.contra_muon, gradtx.aurora, gradtx.soap_muon),
    *(gradtx.soap, gradtx.kl_soap, gradtx.splus, gradtx.shampoo, gradtx.kron),
]


@pytest.mark.by_turns(2)
@pytest.mark.parametrize(
    ("make", "model"),
    [
        # Every third is for all: what differs is behind the routing.
        *(
            pytest.param(make, gpt, marks=() if i % 3 == 0 else pytest.mark.full)
            for i, make in enumerate(METHODS)
        ),
        *((gradtx.muon, model) for model in TABLES if model is not gpt),
    ],
    ids=lambda x: x.__name__,
)
def test_a_model_takes_a_step(make, model):
    params = jax.tree.map(lambda x: jnp.full(x.shape, 0.1, x.dtype), model())
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), params)
    tx = make(0.02)
    state = tx.init(params)
    for _ in range(2):
        updates, state = jax.jit(tx.update)(grads, state, params)
    assert all(np.isfinite(u).all() and np.any(u) for u in jax.tree.leaves(updates))
