"""A small decoder-only transformer over bytes, in Flax NNX."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

WIDTH, LAYERS, HEADS, CONTEXT = 128, 2, 4, 128
DECAYED = ("!*scale", "!*bias")  # the paths that weight decay is for: the matrices


class Block(nnx.Module):
    """Attention over the bytes so far, then a two-layer network on each of them."""

    def __init__(self, rngs: nnx.Rngs, width: int) -> None:
        linear = partial(nnx.Linear, use_bias=False, rngs=rngs)
        zeros = nnx.initializers.zeros  # each block starts as the identity
        self.norm_attention = nnx.RMSNorm(width, rngs=rngs)
        self.query_key_value = linear(width, 3 * width)
        self.project = linear(width, width, kernel_init=zeros)
        self.norm_mlp = nnx.RMSNorm(width, rngs=rngs)
        self.up = linear(width, 4 * width)
        self.down = linear(4 * width, width, kernel_init=zeros)

    def __call__(self, x: jax.Array) -> jax.Array:
        heads = self.query_key_value(self.norm_attention(x)).reshape(*x.shape[:2], 3 * HEADS, -1)
        query, key, value = jnp.split(heads, 3, axis=2)
        seen = jax.nn.dot_product_attention(rotate(query), rotate(key), value, is_causal=True)
        x = x + self.project(seen.reshape(x.shape))
        return x + self.down(jnp.square(nnx.relu(self.up(self.norm_mlp(x)))))


def rotate(x: jax.Array) -> jax.Array:
    """Turn pairs of features by angles that grow with the position (rotary embedding)."""
    left, right = jnp.split(x, 2, axis=-1)
    frequency = 10_000.0 ** -jnp.linspace(0, 1, left.shape[-1], endpoint=False)
    angle = jnp.arange(x.shape[1])[:, None, None] * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([left * cos - right * sin, left * sin + right * cos], axis=-1)


class Transformer(nnx.Module):
    """Bytes `[batch, time]` to logits of the next byte `[batch, time, 256]`."""

    def __init__(self, rngs: nnx.Rngs, width: int = WIDTH, layers: int = LAYERS) -> None:
        self.embed = nnx.Embed(256, width, embedding_init=nnx.initializers.normal(0.1), rngs=rngs)
        self.blocks = nnx.Sequential(*[Block(rngs, width) for _ in range(layers)])
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, 256, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.head(self.norm(self.blocks(self.embed(tokens))))
