"""Transforms of updates, one concept a file; the namespace has what `optax.transforms` has of them."""

from typing import TYPE_CHECKING

from gradtx._names import explaining, listing
from gradtx.core.compose.combine import chain, masked, named_chain
from gradtx.core.engine.protocol import MaskedNode
from gradtx.transforms.average import ema
from gradtx.transforms.clip import clip, clip_by_block_rms, clip_by_global_norm
from gradtx.transforms.constrain import keep_params_nonnegative, zero_nans
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import trace
from gradtx.transforms.noise import add_noise
from gradtx.transforms.per_example import per_example_global_norm_clip, per_example_layer_norm_clip
from gradtx.transforms.unitwise import adaptive_grad_clip, unitwise_clip, unitwise_norm

if not TYPE_CHECKING:  # To a type checker it would say that every name is there.
    __getattr__ = explaining("transforms")
__dir__ = listing(globals())

__all__ = [
    "MaskedNode",
    "adaptive_grad_clip",
    "add_decayed_weights",
    "add_noise",
    "chain",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "ema",
    "keep_params_nonnegative",
    "masked",
    "named_chain",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
    "trace",
    "unitwise_clip",
    "unitwise_norm",
    "zero_nans",
]
